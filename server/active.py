"""The SQL and ingest requests that run at the moment, and what ends those whose client has gone.

Watching every request for a disconnect would cost a task each. So a request is only entered here, and once a second
those that run for longer than a second get a watcher, which cancels the request when its client closes the connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import Receive

from server.exchange import Exchange

_CLIENT_CLOSED = 499


class ActiveRequests:
    """Enter a request when its body is read, leave it when it is answered."""

    def __init__(self, patience: float = 1.0) -> None:
        self.patience = patience
        self._running: dict[Exchange, tuple[asyncio.Task[object], Receive]] = {}
        self._watchers: dict[Exchange, asyncio.Task[None]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._running)

    def running(self) -> list[Exchange]:
        """The requests that run. Any thread."""
        return list(self._running)

    def enter(self, exchange: Exchange, receive: Receive) -> None:
        """Note that the request runs, in the current task; its body must have been read to the end."""
        task = asyncio.current_task()
        if task is not None:
            self._running[exchange] = (task, receive)

    def leave(self, exchange: Exchange) -> None:
        """Note that the request is over."""
        self._running.pop(exchange, None)
        if self._watchers:
            watcher = self._watchers.pop(exchange, None)
            if watcher is not None:
                watcher.cancel()

    def start(self) -> None:
        """Begin to look after long requests."""
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Stop looking after them."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper

    async def _sweep(self) -> None:
        seen: set[Exchange] = set()
        while True:
            await asyncio.sleep(self.patience)
            for exchange, (task, receive) in self._running.items():
                if exchange in seen and exchange not in self._watchers:
                    self._watchers[exchange] = asyncio.create_task(_watch(exchange, task, receive))
            seen = set(self._running)


async def _watch(exchange: Exchange, task: asyncio.Task[object], receive: Receive) -> None:
    """Cancel the request's task when its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.status = exchange.status or _CLIENT_CLOSED
    task.cancel()
