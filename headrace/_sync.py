"""The same client for code without an event loop: each call runs on a loop in a thread of the client's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from headrace._answers import User
from headrace._client import AsyncClient
from headrace._download import Target
from headrace._exceptions import ClientClosed
from headrace._files import Ref
from headrace._http import DEFAULT_URL
from headrace._ingest import Rows
from headrace._live import LiveRows, LiveStream
from headrace._live_events import LiveEvent
from headrace._live_settings import ConnectionState
from headrace._portal import Portal
from headrace._result import Column, Result
from headrace._statements import Params
from headrace._sync_topics import SyncTopic
from headrace._values import Row

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class Client:
    """`AsyncClient` for code that blocks; the same arguments. Safe to use from several threads.

    Callbacks (`on_connect`, `on_disconnect`, `on_change`) run on the client's thread and must not call the client.
    """

    def __init__(self, url: str = DEFAULT_URL, **options: Any) -> None:
        self._portal = Portal()
        try:
            self._client = self._portal.call(lambda: AsyncClient(url, **options))
        except BaseException:
            self._portal.close()
            raise

    def __enter__(self) -> Self:
        try:
            self._portal.run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all live queries, close all connections, stop the thread; may be called again."""
        try:
            self._portal.run(self._client.aclose())
        except ClientClosed:
            return
        self._portal.close()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.url

    @property
    def state(self) -> ConnectionState:
        """Where the connection for live queries stands."""
        return self._client.state

    def login(self, user: str | None = None, password: str | None = None) -> User:
        """See AsyncClient.login."""
        return self._portal.run(self._client.login(user, password))

    def logout(self) -> None:
        """See AsyncClient.logout."""
        self._portal.run(self._client.logout())

    def me(self) -> User:
        """See AsyncClient.me."""
        return self._portal.run(self._client.me())

    def query(self, sql: str, params: Params = None, **options: Any) -> Result:
        """See AsyncClient.query."""
        return self._portal.run(self._client.query(sql, params, **options))

    def execute(self, sql: str, params: Params = None, **options: Any) -> list[Result]:
        """See AsyncClient.execute."""
        return self._portal.run(self._client.execute(sql, params, **options))

    def execute_as(self, user: str, sql: str, params: Params = None, **options: Any) -> Result:
        """See AsyncClient.execute_as."""
        return self._portal.run(self._client.execute_as(user, sql, params, **options))

    def query_arrow(self, sql: str, params: Params = None, **options: Any) -> pa.Table:
        """See AsyncClient.query_arrow."""
        return self._portal.run(self._client.query_arrow(sql, params, **options))

    def query_pandas(self, sql: str, params: Params = None, **options: Any) -> Any:
        """See AsyncClient.query_pandas."""
        return self._portal.run(self._client.query_pandas(sql, params, **options))

    def query_polars(self, sql: str, params: Params = None, **options: Any) -> Any:
        """See AsyncClient.query_polars."""
        return self._portal.run(self._client.query_polars(sql, params, **options))

    def stream(self, sql: str, params: Params = None, **options: Any) -> Iterator[Row]:
        """See AsyncClient.stream."""
        # Row by row would cost a change of threads each.
        return chain.from_iterable(self.stream_parts(sql, params, **options))

    def stream_parts(self, sql: str, params: Params = None, **options: Any) -> Iterator[list[Row]]:
        """See AsyncClient.stream_parts."""
        return self._iterate(self._client.stream_parts(sql, params, **options))

    def stream_arrow(self, sql: str, params: Params = None, **options: Any) -> Iterator[pa.RecordBatch]:
        """See AsyncClient.stream_arrow."""
        return self._iterate(self._client.stream_arrow(sql, params, **options))

    def insert(self, table: str, rows: Rows, *, namespace: str | None = None) -> int:
        """See AsyncClient.insert."""
        return self._portal.run(self._client.insert(table, rows, namespace=namespace))

    @overload
    def download(self, ref: Ref, *, table: str, to: None = None, **options: Any) -> bytes: ...

    @overload
    def download(self, ref: Ref, *, table: str, to: Target, **options: Any) -> None: ...

    def download(self, ref: Ref, *, table: str, to: Target | None = None, **options: Any) -> bytes | None:
        """See AsyncClient.download."""
        return self._portal.run(self._client.download(ref, table=table, to=to, **options))

    def live(self, sql: str, params: Params = None, *, timeout: float | None = None, **options: Any) -> SyncLiveStream:
        """See AsyncClient.live. `timeout`: seconds that iterating waits for an event until it raises TimeoutError."""
        stream = self._portal.call(lambda: self._client.live(sql, params, **options))
        return SyncLiveStream(self._portal, stream, timeout)

    def live_rows(self, sql: str, params: Params = None, **options: Any) -> SyncLiveRows:
        """See AsyncClient.live_rows."""
        return SyncLiveRows(self._portal, self._portal.call(lambda: self._client.live_rows(sql, params, **options)))

    def topic(self, name: str) -> SyncTopic:
        """See AsyncClient.topic."""
        return SyncTopic(self._portal, self._client.topic(name))

    def _iterate(self, source: AsyncGenerator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._portal.run(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            # Python may be collecting a generator that was left early, in any thread: do not wait here.
            self._portal.post(source.aclose())


async def _within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


class SyncLiveStream:
    """The events of a live query: `for event in stream` blocks until there is one. See LiveStream."""

    def __init__(self, portal: Portal, stream: LiveStream, timeout: float | None) -> None:
        self._portal = portal
        self._stream = stream
        self._timeout = timeout

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of rows; empty until the server has answered."""
        return self._stream.columns

    @property
    def cursor(self) -> int | None:
        """Up to where changes were received."""
        return self._stream.cursor

    def next(self, timeout: float | None = None) -> LiveEvent:
        """The next event. Raises StopIteration after `close`, TimeoutError after `timeout` seconds without one."""
        try:
            return self._portal.run(_within(timeout, self._stream.next()))
        except StopAsyncIteration:
            raise StopIteration from None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LiveEvent:
        return self.next(self._timeout)

    def __enter__(self) -> Self:
        self._portal.call(self._stream.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, also from another thread; may be called again, and after the client was closed."""
        _run_unless_closed(self._portal, self._stream.aclose)


class SyncLiveRows:
    """Rows that are kept up to date in the background. See LiveRows.

    `rows` is a copy: the rows as they were when it was asked for.
    """

    def __init__(self, portal: Portal, live_rows: LiveRows) -> None:
        self._portal = portal
        self._live_rows = live_rows

    @property
    def rows(self) -> dict[Any, Row]:
        """The rows by key, now. Empty until `ready()`. Raises ClientClosed after the client was closed."""
        return self._portal.call(lambda: dict(self._live_rows.rows))

    @property
    def key(self) -> tuple[str, ...]:
        """The columns by which rows are held."""
        return self._live_rows.key

    @property
    def version(self) -> int:
        """How often the rows have changed; 0 until they are complete for the first time."""
        return self._live_rows.version

    def ready(self, timeout: float | None = None) -> dict[Any, Row]:
        """Wait for the first whole answer; the rows. Raises TimeoutError, and what ended the live query."""
        return self.changed(0, timeout)

    def changed(self, since: int, timeout: float | None = None) -> dict[Any, Row]:
        """Wait until `version` is greater than `since`; the rows. Raises as `ready` does, ClientClosed once closed."""
        return self._portal.run(_within(timeout, self._changed(since)))

    async def _changed(self, since: int) -> dict[Any, Row]:
        return dict(await self._live_rows.changed(since))

    def __iter__(self) -> Iterator[Mapping[Any, Row]]:
        seen = 0
        while True:
            try:
                rows = self.changed(seen)
            except ClientClosed:
                if self._live_rows.closed:
                    return
                raise
            seen = self.version
            yield rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop following; may be called again, and after the client was closed."""
        _run_unless_closed(self._portal, self._live_rows.aclose)


def _run_unless_closed(portal: Portal, close: Callable[[], Any]) -> None:
    """Run what closes something; nothing to do if the client was closed, which closes everything."""
    try:
        portal.run(close())
    except ClientClosed:
        return


def connect(url: str = DEFAULT_URL, **options: Any) -> Client:
    """A `Client` that is signed in; `options` as for AsyncClient. Raises AuthenticationFailed, ConnectionFailed."""
    return Client(url, **options).__enter__()
