"""Forgets verified tokens in the commit that changes their account or session.

The feed calls on the writer's thread, after each commit and before its submitters are told. So whoever changes a
password, a role or a session and gets an answer can be sure that the old tokens are refused from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from server.auth.cache import TokenCache
from server.auth.service import forget_changed
from storage.engine import StorageEngine

_log = logging.getLogger(__name__)


class AccountWatch:
    """Follows the feed for one token cache, from its making until `close`.

    `on_change` is called, on the writer's thread, with what a commit changed, once the cache has forgotten it.
    """

    def __init__(self, engine: StorageEngine, cache: TokenCache) -> None:
        self._cache = cache
        self._cursor = engine.feed.subscribe(engine.last_seq)
        self._cursor.on_commit(self._on_commit)
        cache.forget_all()
        cache.watched = True
        self.on_change: Callable[[Sequence[tuple[str, str]]], None] | None = None

    def close(self) -> None:
        """Stop following; the cache checks for itself again."""
        self._cache.watched = False
        self._cursor.close()

    def _on_commit(self) -> None:
        """Forget what the new commits changed; whatever goes wrong here must not stop the writer."""
        try:
            for changes in self._cursor.poll():
                if changes.objects:
                    forget_changed(self._cache, changes.objects)
                    if self.on_change is not None:
                        self.on_change(changes.objects)
        except Exception:  # noqa: BLE001  on the writer's thread
            _log.exception("the change feed cannot be followed; every token is verified anew")
            self._cache.watched = False
            self._cache.forget_all()
