"""The asynchronous client: SQL over HTTP, live queries over one WebSocket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload
from urllib.parse import quote

import httpx

from headrace._answers import ColumnAnswer, IngestAnswer, SqlAnswer, User, parse, rows_of_lines
from headrace._consumption import Consumption, close_all
from headrace._download import Target, download
from headrace._exceptions import ClientClosed, HeadraceError, InvalidAnswer
from headrace._files import Files, Ref
from headrace._http import DEFAULT_URL, HttpConnection, checked_url
from headrace._ingest import Rows, ingest_body
from headrace._live import LiveRows, LiveStream, OnChange
from headrace._live_connection import LiveConnection
from headrace._live_messages import LiveOptions
from headrace._live_settings import ConnectionState, LiveSettings
from headrace._live_state import LiveState
from headrace._live_subscription import Subscription
from headrace._requests import Requests
from headrace._result import Result, to_pandas, to_polars
from headrace._session import Session
from headrace._statements import JSON, Params, statement_body, statement_with_files
from headrace._topic_requests import TopicRequests
from headrace._topics import Topic
from headrace._values import Row

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER_ROWS = 10_000
ARROW_STREAM = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"


class AsyncClient:
    """A client of one server and one account, for one event loop.

    Sign in with `user` and `password`, or bring a `token` (and a `refresh_token`, by which it is renewed). Nothing is
    sent before it is needed; `async with` and `connect` sign in at once.

    namespace            of table names that are written without one
    timeout              seconds without any answer until a request fails; None waits for ever
    rate_limit_patience  seconds that a request may wait in all when the server says 429 or 503 with `Retry-After`
    verify               False, or an `ssl.SSLContext`, for https with certificates of your own
    live                 how the connection for live queries is kept
    on_connect           called whenever that connection has been opened
    on_disconnect        called with the reason whenever it was cut
    transport            what carries HTTP, for tests
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        refresh_token: str | None = None,
        namespace: str | None = None,
        timeout: float | None = 60.0,
        rate_limit_patience: float = 0.0,
        verify: ssl.SSLContext | bool = True,
        live: LiveSettings | None = None,
        on_connect: Callable[[], object] | None = None,
        on_disconnect: Callable[[HeadraceError], object] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.namespace = namespace
        self._http = HttpConnection(self.url, timeout=timeout, verify=verify, transport=transport)
        self._session = Session(self._http, user=user, password=password, token=token, refresh_token=refresh_token)
        self._requests = Requests(self._http, self._session, rate_limit_patience)
        context = None if verify is True or self.url.startswith("http:") else httpx.create_ssl_context(verify=verify)
        self._live = LiveConnection(
            self.url,
            self._session,
            live or LiveSettings(),
            ssl_context=context,
            on_connect=on_connect,
            on_disconnect=on_disconnect,
        )
        self._topics = TopicRequests(self._requests)
        self._consumptions: set[Consumption] = set()
        self._closed = False

    # --- life ---------------------------------------------------------------------------------------------------------

    @classmethod
    async def connect(cls, url: str = DEFAULT_URL, **options: Any) -> Self:
        """A client that is signed in; `options` as for the class. Raises AuthenticationFailed, ConnectionFailed."""
        client = cls(url, **options)
        try:
            await client._session.bearer()
        except BaseException:
            await client.aclose()
            raise
        return client

    async def __aenter__(self) -> Self:
        try:
            await self._session.bearer()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all live queries and consumers, close all connections. May be called again; the session lives on."""
        self._closed = True
        await close_all(self._consumptions)
        await self._live.aclose()
        await self._http.aclose()

    @property
    def state(self) -> ConnectionState:
        """Where the connection for live queries stands."""
        return self._live.state

    # --- who --------------------------------------------------------------------------------------------------------

    async def login(self, user: str | None = None, password: str | None = None) -> User:
        """Sign in now, as somebody else where given; who that is. Raises AuthenticationFailed, RateLimited."""
        return await self._session.login(user, password)

    async def logout(self) -> None:
        """End the session on the server: its tokens count no more, here and anywhere."""
        await self._session.logout()

    async def me(self) -> User:
        """Who is signed in."""
        return await self._session.me()

    # --- SQL ----------------------------------------------------------------------------------------------------------

    async def query(
        self,
        sql: str,
        params: Params = None,
        *,
        namespace: str | None = None,
        raw: bool = False,
        files: Files | None = None,
    ) -> Result:
        """Run statements; what the last one answered.

        `params` are the values of `$1`, `$2`, …. With `raw` values stay as JSON has them. `files` are what each
        `FILE("name")` stands for, by name: a path, bytes, an open file, or a tuple of name, one of them, and perhaps
        the MIME type. Raises SqlError, FileRefused and the other ResponseErrors, ConnectionFailed.
        """
        results = await self.execute(sql, params, namespace=namespace, raw=raw, files=files)
        if not results:
            raise InvalidAnswer("the server answered without a result")
        return results[-1]

    async def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        namespace: str | None = None,
        raw: bool = False,
        files: Files | None = None,
    ) -> list[Result]:
        """Run statements; what each answered: `row_count`, `message`, rows. Raises as `query` does."""
        headers, body = statement_with_files(sql, params, namespace or self.namespace, files)
        response = await self._requests.send("POST", "/v1/api/sql", body, headers)
        return [Result(answer, raw=raw) for answer in parse(response, SqlAnswer).results]

    async def execute_as(self, user: str, sql: str, params: Params = None, **options: Any) -> Result:
        """Run one statement as another user, with the role `user`; `options` are those of `query`.

        Raises PermissionDenied, and as `query` does.
        """
        name = user.replace("'", "''")
        statement = sql.strip().rstrip(";")
        # The closing bracket stands on a line of its own, where no comment at the end can swallow it.
        return await self.query(f"EXECUTE AS USER '{name}' ({statement}\n)", params, **options)

    async def query_arrow(self, sql: str, params: Params = None, *, namespace: str | None = None) -> pa.Table:
        """The rows of the last statement as an Arrow table, without a limit of rows. Raises as `query` does."""
        from headrace._arrow import table_from_stream

        headers = {**JSON, "Accept": ARROW_STREAM}
        body = self._body(sql, params, namespace)
        return table_from_stream((await self._requests.send("POST", "/v1/api/sql", body, headers)).content)

    async def query_pandas(self, sql: str, params: Params = None, *, namespace: str | None = None) -> Any:
        """The same as a pandas DataFrame. Raises ImportError where pandas is not installed."""
        return to_pandas(await self.query_arrow(sql, params, namespace=namespace))

    async def query_polars(self, sql: str, params: Params = None, *, namespace: str | None = None) -> Any:
        """The same as a polars DataFrame. Raises ImportError where polars is not installed."""
        return to_polars(await self.query_arrow(sql, params, namespace=namespace))

    async def stream(self, sql: str, params: Params = None, *, namespace: str | None = None) -> AsyncGenerator[Row]:
        """The rows of the last statement one by one while they come, without a limit of rows.

        Values are as JSON has them (as with `raw=True`): a stream of rows carries no schema. `stream_arrow` has types.
        Raises as `query` does, ConnectionFailed when the stream is cut.
        """
        async with aclosing(self.stream_parts(sql, params, namespace=namespace)) as parts:
            async for rows in parts:
                for row in rows:
                    yield row

    async def stream_parts(
        self, sql: str, params: Params = None, *, namespace: str | None = None
    ) -> AsyncGenerator[list[Row]]:
        """As `stream`, but as many rows at a time as have come. Raises as `stream` does."""
        async with self._stream(NDJSON, sql, params, namespace) as response:
            async for rows in rows_of_lines(response.aiter_bytes()):
                yield rows

    async def stream_arrow(
        self, sql: str, params: Params = None, *, namespace: str | None = None
    ) -> AsyncGenerator[pa.RecordBatch]:
        """The rows of the last statement as Arrow record batches while they come, without a limit of rows.

        Raises as `query` does, ConnectionFailed when the stream is cut.
        """
        from headrace._arrow import batches_from_stream

        async with (
            self._stream(ARROW_STREAM, sql, params, namespace) as response,
            aclosing(batches_from_stream(response.aiter_bytes())) as batches,
        ):
            async for batch in batches:
                yield batch

    async def insert(self, table: str, rows: Rows, *, namespace: str | None = None) -> int:
        """Load rows into a table in one commit, all or none; how many there were.

        `table` is `namespace.table`, or a name in `namespace`. `rows` are dicts (a list, a generator, also an
        asynchronous one), or a table or batch of pyarrow, or a DataFrame. Raises SqlError naming the row that does
        not fit.
        """
        space, name = self._qualified(table, namespace)
        content_type, body = ingest_body(rows)
        path = f"/v1/api/ingest/{quote(space, safe='')}/{quote(name, safe='')}"
        response = await self._requests.send("POST", path, body, {"Content-Type": content_type})
        return parse(response, IngestAnswer).inserted

    @overload
    async def download(self, ref: Ref, *, table: str, to: None = None, **options: Any) -> bytes: ...

    @overload
    async def download(self, ref: Ref, *, table: str, to: Target, **options: Any) -> None: ...

    async def download(self, ref: Ref, *, table: str, to: Target | None = None, **options: Any) -> bytes | None:
        """The bytes of a file that a FILE cell of `table` refers to, checked against its digest.

        ref         what the cell holds
        to          a path, which then has the whole file or what it had before, or a file that is open for writing
        user        whose row it is, in a USER table, if not one's own
        byte_range  the first byte and the one behind the last (None: to the end); a part cannot be checked
        retry       how often to try, counted anew whenever bytes have come; what broke off goes on where it was

        Raises FileNotFound, PermissionDenied and the other ResponseErrors, DigestMismatch, ConnectionFailed, OSError.
        """
        return await download(self._requests, ref, self._qualified(table), to, **options)

    # --- live ---------------------------------------------------------------------------------------------------------

    def live(
        self,
        sql: str,
        params: Params = None,
        *,
        namespace: str | None = None,
        snapshot: bool = True,
        last_rows: int | None = None,
        from_seq: int | None = None,
        batch_size: int | None = None,
        buffer_rows: int = BUFFER_ROWS,
        raw: bool = False,
    ) -> LiveStream:
        """The answer of a query and every change of it: Snapshot events, Ready, then Change events.

        snapshot     False: changes only
        last_rows    only the newest rows in the snapshot, oldest first
        from_seq     go on behind this `seq` of an earlier live query, without a snapshot if the log reaches back there
        batch_size   rows of the snapshot in one message
        buffer_rows  rows that may wait for you; beyond it the server is told to stop until you have caught up

        The query names its table with its namespace. It survives cuts of the connection.

        Raises ValueError for options that exclude each other.
        """
        if from_seq is not None and last_rows is not None:
            raise ValueError("from_seq and last_rows exclude each other: one goes on, the other begins anew")
        options = _options(batch_size, last_rows, from_seq)
        wants_options = snapshot or last_rows is not None or from_seq is not None
        state = LiveState(options if wants_options else None, raw=raw)
        return LiveStream(self._subscription(state, sql, params, namespace, buffer_rows))

    def live_rows(
        self,
        sql: str,
        params: Params = None,
        *,
        key: str | Sequence[str] | None = None,
        on_change: OnChange | None = None,
        namespace: str | None = None,
        last_rows: int | None = None,
        batch_size: int | None = None,
        buffer_rows: int = BUFFER_ROWS,
        raw: bool = False,
    ) -> LiveRows:
        """The rows of a query, kept up to date. Begins at once; needs a running event loop.

        key        the columns by which to hold rows; the primary key where it is not given, else `_seq`
        on_change  called with each event after it was applied; may be async

        The other options as for `live`.
        """
        columns = (key,) if isinstance(key, str) else key

        def subscription(can_resume: Callable[[list[ColumnAnswer]], bool]) -> Subscription:
            state = LiveState(_options(batch_size, last_rows), raw=raw, can_resume=can_resume)
            return self._subscription(state, sql, params, namespace, buffer_rows)

        return LiveRows(subscription, sql, columns, on_change)

    # --- topics -------------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """A topic to produce to and to consume from: `namespace.topic`, or a name in `namespace`. Raises ValueError."""
        return Topic(self._topics, ".".join(self._qualified(name)), self._consumptions)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _subscription(
        self, state: LiveState, sql: str, params: Params, namespace: str | None, buffer_rows: int
    ) -> Subscription:
        self._check_open()
        return Subscription(
            self._live,
            state,
            sql,
            params=None if params is None else list(params),
            namespace=namespace or self.namespace,
            buffer_rows=buffer_rows,
        )

    def _body(self, sql: str, params: Params, namespace: str | None) -> bytes:
        return statement_body(sql, params, namespace or self.namespace)

    def _stream(
        self, accept: str, sql: str, params: Params, namespace: str | None
    ) -> AbstractAsyncContextManager[httpx.Response]:
        headers = {**JSON, "Accept": accept}
        return self._requests.stream("POST", "/v1/api/sql", self._body(sql, params, namespace), headers)

    def _qualified(self, written: str, namespace: str | None = None) -> tuple[str, str]:
        """The namespace and the name of what is written with both, or in the client's namespace. Raises ValueError."""
        before, dot, name = written.rpartition(".")
        space = before if dot else namespace or self.namespace
        if not space:
            raise ValueError(f"'{written}' needs a namespace: 'namespace.{written}', or that of the client")
        return space, name

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")


async def aconnect(url: str = DEFAULT_URL, **options: Any) -> AsyncClient:
    """An `AsyncClient` that is signed in; `options` as for the class. Raises AuthenticationFailed, ConnectionFailed."""
    return await AsyncClient.connect(url, **options)


def _options(batch_size: int | None, last_rows: int | None, from_seq: int | None = None) -> LiveOptions:
    """The options of a subscription; the newest rows come as one batch, so that must be as large."""
    return LiveOptions(batch_size or last_rows or None, last_rows, from_seq)
