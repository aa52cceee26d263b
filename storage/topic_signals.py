"""Tells who waits for messages that there are some: one call after each commit that concerns topics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from storage.topic_staging import TopicNews

log = logging.getLogger("headrace.storage")

Listener = Callable[[TopicNews], None]


class TopicSignals:
    """The listeners. They are called on the writer's thread and must only wake somebody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the news of each commit; the result ends that."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def leave() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return leave

    def publish(self, news: TopicNews) -> None:
        """Called by the writer after a commit; one listener who fails keeps the news from nobody else."""
        if not news.appended and not news.groups:
            return
        for listener in self._listeners:
            try:
                listener(news)
            except Exception:
                log.exception("somebody who waits for messages could not be told of a commit")
