"""LiveHub: all live queries of a database. Subscriptions come in, the changes of commits go out to their sinks."""

from __future__ import annotations

from sql.live.interface import LiveSink
from sql.live.settings import LiveSettings
from sql.live.subscription import Batch, LiveRequest, Subscription
from sql.services import Services
from sql.workers import Workers


class LiveHub:
    """The live queries of one database (`Database.live`). Used on the event loop, except where said otherwise."""

    def __init__(self, services: Services, workers: Workers, settings: LiveSettings | None = None) -> None:
        self.settings = settings or LiveSettings()
        self._services = services
        self._workers = workers

    @property
    def position(self) -> int:
        """The last `_seq` of the newest commit that was handed to everybody whom it concerns."""
        raise NotImplementedError

    async def subscribe(self, request: LiveRequest, sink: LiveSink) -> Subscription:
        """Bind a query and read what its client wants first; nothing is delivered before `go_live`.

        Another subscription of the same `live_id` is closed. Raises SqlError; nothing is registered then.
        """
        raise NotImplementedError

    def drained(self, sink: LiveSink) -> None:
        """Say that a sink that refused a delta takes deltas again."""
        raise NotImplementedError

    def close_connection(self, connection_id: str) -> None:
        """Close all subscriptions of a connection."""
        raise NotImplementedError

    def subscriptions(self) -> list[Subscription]:
        """All subscriptions, in the order in which they were made. Safe from any thread."""
        raise NotImplementedError

    def count_of(self, user: str) -> int:
        """How many subscriptions a user has."""
        raise NotImplementedError

    def kill(self, live_id: str) -> bool:
        """End a subscription; its sink gets LiveQueryKilled. False when there is none. Safe from any thread."""
        raise NotImplementedError

    def stats(self) -> dict[str, int]:
        """Figures for `system.stats`. Safe from any thread."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to follow the commits. The first `subscribe` does it too."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all subscriptions (their sinks are told) and everything that runs."""
        raise NotImplementedError
