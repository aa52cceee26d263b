"""Live queries as their users see them: a stream of events, and rows that keep themselves up to date."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from headrace._answers import ColumnAnswer
from headrace._exceptions import ClientClosed, LiveError
from headrace._live_events import LiveEvent
from headrace._live_subscription import Subscription
from headrace._result import Column, columns_of
from headrace._row_set import SEQ, RowSet, key_columns
from headrace._values import Row

OnChange: TypeAlias = Callable[[LiveEvent], Awaitable[object] | object]
"""Called with each event after it was applied to the rows; may be async."""


class LiveStream:
    """The events of a live query: `async for event in stream`, or `await stream.next()`.

    It begins with the first event that is asked for, or with `async with`. End it with `aclose()` or by leaving the
    `async with` block; one that is merely dropped is ended when Python collects it.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._started = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of rows; empty until the server has answered."""
        return columns_of(self._subscription.state.schema)

    @property
    def cursor(self) -> int | None:
        """Up to where changes were received; a later `live(…, from_seq=…)` goes on from there once all were read."""
        return self._subscription.state.cursor

    def start(self) -> None:
        """Begin now, without waiting for anything; nothing if it has begun. Raises ClientClosed."""
        if not self._started:
            self._started = True
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _end, loop, self._subscription).atexit = False
            self._subscription.start()

    async def next(self) -> LiveEvent:
        """The next event. Raises StopAsyncIteration after `aclose`.

        Raises LiveError when the live query ended against your will, and what ended the connection if it cannot be
        opened again: AuthenticationFailed, PermissionDenied, and ConnectionFailed if it never was open.
        """
        self.start()
        event = await self._subscription.next()
        if event is None:
            raise StopAsyncIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LiveEvent:
        return await self.next()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it; may be called again."""
        self._subscription.close()


def _end(loop: asyncio.AbstractEventLoop, subscription: Subscription) -> None:
    """End the live query of a stream that nobody holds any more; collection may happen in any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(subscription.close)


class LiveRows:
    """The rows of a live query, kept up to date by a task of their own until `aclose()`.

    `rows` holds them by primary key, or by `key`, or by `_seq` where there is neither. After a reconnect the changes
    since then are applied; where they are no longer known, all rows are replaced at once. `async for rows in live_rows`
    gives the rows whenever they have changed, and skips states in between if you are slow.
    """

    def __init__(
        self,
        make_subscription: Callable[[Callable[[list[ColumnAnswer]], bool]], Subscription],
        sql: str,
        key: Sequence[str] | None,
        on_change: OnChange | None,
    ) -> None:
        self._sql = sql
        self._wanted_key = key
        self._on_change = on_change
        self._set = RowSet()
        self._changed = asyncio.Condition()
        self._version = 0
        self._failure: Exception | None = None
        self._done = False
        self._subscription = make_subscription(self._can_resume)
        self._subscription.start()
        self._task = asyncio.create_task(self._follow(), name="headrace-live-rows")

    @property
    def rows(self) -> Mapping[Any, Row]:
        """The rows by key, now; read-only. Empty until `ready()`."""
        return self._set.rows

    @property
    def key(self) -> tuple[str, ...]:
        """The columns by which rows are held; `("_seq",)` where nothing else tells them apart."""
        return self._set.key

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of rows; empty until the server has answered."""
        return columns_of(self._subscription.state.schema)

    @property
    def cursor(self) -> int | None:
        """Up to where changes were received."""
        return self._subscription.state.cursor

    async def ready(self) -> Mapping[Any, Row]:
        """Wait for the first whole answer; the rows. Raises what ended the live query."""
        return await self.changed(0)

    @property
    def closed(self) -> bool:
        """Whether it ended because it was closed, and not by a failure."""
        return self._done and self._failure is None

    @property
    def version(self) -> int:
        """How often the rows have changed; 0 until they are complete for the first time."""
        return self._version

    async def changed(self, since: int) -> Mapping[Any, Row]:
        """Wait until `version` is greater than `since`; the rows. Raises what ended it, ClientClosed when closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version > since or self._done)
        if self._version > since:
            return self.rows
        raise self._failure or ClientClosed("these live rows were closed")

    def __aiter__(self) -> AsyncIterator[Mapping[Any, Row]]:
        return _Versions(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following; the rows stay as they are. May be called again."""
        self._subscription.close()
        if self._task is not asyncio.current_task():
            await asyncio.wait({self._task})

    def _can_resume(self, schema: list[ColumnAnswer]) -> bool:
        key = key_columns(self._sql, schema, self._wanted_key)
        missing = set(key) - {column.name for column in schema} - {SEQ}
        if missing:
            message = f"the live query has no column '{min(missing)}' to tell its rows apart by"
            raise LiveError(message, code="INVALID_KEY")
        self._set.use_key(key)
        return key != (SEQ,)

    async def _follow(self) -> None:
        """Apply events until the end. What goes wrong is kept for those who ask for rows."""
        try:
            while (event := await self._subscription.next()) is not None:
                changed = self._set.apply(event)
                if self._on_change is not None:
                    answer = self._on_change(event)
                    if inspect.isawaitable(answer):
                        await answer
                if changed:
                    await self._notify(1)
        except Exception as error:  # noqa: BLE001 (raised again for whoever reads the rows)
            self._failure = error
        finally:
            self._done = True
            self._subscription.close()
            await self._notify(0)

    async def _notify(self, versions: int) -> None:
        async with self._changed:
            self._version += versions
            self._changed.notify_all()


class _Versions:
    """The states of live rows, each time they have changed since the last one."""

    def __init__(self, live_rows: LiveRows) -> None:
        self._live_rows = live_rows
        self._seen = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Mapping[Any, Row]:
        try:
            rows = await self._live_rows.changed(self._seen)
        except ClientClosed:
            if self._live_rows.closed:
                raise StopAsyncIteration from None
            raise
        self._seen = self._live_rows.version
        return rows
