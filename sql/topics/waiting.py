"""Consumers that wait for messages: who waits for which group of which topic, and when somebody has to look again.

A waiting consumer costs a future and an entry here. It looks again when the topic gets messages, when its group's
claims change, or when a claim of another consumer expires; nothing polls. Of a group's consumers a few are woken at a
time: whoever finds that there is more wakes the next one. Consumers who may not have each other's messages (of
different partitions; in order, of different names) do not stand in one queue, so none of them is woken in another's
place. Who leaves after it was woken wakes the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from storage.topic_staging import TopicNews

WOKEN = 4
"""Consumers of one place that are woken by one commit."""


class Place(NamedTuple):
    """What a consumer waits for: a topic's id, a group (None: without one), and what of it only such consumers get."""

    topic_id: int
    group: str | None
    partition: int | None = None
    holder: str | None = None


class WaitingRoom:
    """Used on the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[Place, deque[asyncio.Future[bool]]] = {}
        self._places: dict[int, dict[str | None, dict[Place, None]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def wait(self, place: Place, seconds: float) -> bool:
        """Wait until it is time to look again; False when the seconds are over first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        queue = self._waiting.get(place)
        if queue is None:
            queue = self._waiting[place] = deque()
            self._places.setdefault(place.topic_id, {}).setdefault(place.group, {})[place] = None
        queue.append(future)
        self._count += 1
        timer = loop.call_later(seconds, _give_up, future)  # of uvloop a handle without `when`, below a millisecond
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake(place, 1)
            raise
        finally:
            timer.cancel()
            self._count -= 1
            self._leave(place, queue, future)

    def _leave(self, place: Place, queue: deque[asyncio.Future[bool]], future: asyncio.Future[bool]) -> None:
        if queue and queue[0] is future:
            queue.popleft()
        else:
            try:
                queue.remove(future)
            except ValueError:
                return  # it was woken, and so taken out
        self._forget(place, queue)

    def _forget(self, place: Place, queue: deque[asyncio.Future[bool]]) -> None:
        if not queue and self._waiting.get(place) is queue:
            del self._waiting[place]
            groups = self._places[place.topic_id]
            del groups[place.group][place]
            if not groups[place.group]:
                del groups[place.group]
            if not groups:
                del self._places[place.topic_id]

    def tell(self, news: TopicNews) -> None:
        """A commit brought messages or changed claims."""
        for topic_id in news.appended:
            for places in tuple(self._places.get(topic_id, {}).values()):
                self._wake_each(places)
        for topic_id, group in news.groups:
            if topic_id not in news.appended:
                self._wake_each(self._places.get(topic_id, {}).get(group, ()))

    def _wake_each(self, places: Iterable[Place]) -> None:
        for place in tuple(places):
            self.wake(place)

    def wake(self, place: Place, count: int = WOKEN) -> None:
        """Wake the consumers that have waited longest in a place; those without a group all."""
        queue = self._waiting.get(place)
        if queue is None:
            return
        left = len(queue) if place.group is None else count
        while queue and left:
            future = queue.popleft()
            if not future.done():
                future.set_result(True)
                left -= 1
        self._forget(place, queue)

    def wake_all(self) -> None:
        """Wake everybody: the server stops."""
        for place in list(self._waiting):
            self.wake(place, len(self._waiting[place]))

    def places(self) -> Iterable[Place]:
        """Whom consumers wait for."""
        return self._waiting.keys()


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
