"""The rows of a query while it runs: made on worker threads, a batch when somebody takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import suppress

import pyarrow as pa

from sql.errors import QueryTimeout
from sql.query import Execution, stream_query
from sql.results import ResultColumn
from sql.services import Services, StatementContext
from sql.statements import Parsed, Query
from sql.storage_errors import storage_errors
from sql.workers import Cancelled, Control, Workers

Rows = Generator[pa.RecordBatch, None, None]


class ResultStream:
    """The rows of a query while it runs: `columns` at once, `batches` as they are made. Close the iterator."""

    def __init__(self, columns: Sequence[ResultColumn], batches: AsyncIterator[pa.RecordBatch]) -> None:
        self.columns = columns
        self.batches = batches


def open_rows(
    services: Services, query: Query, parsed: Parsed, context: StatementContext
) -> tuple[Sequence[ResultColumn], Rows]:
    """Begin a query, in a worker thread: its columns, and its rows over a snapshot of their own. Raises SqlError."""
    snapshot = services.snapshot(context)
    try:
        plan = services.plan_query(query, parsed, snapshot, context)
    except BaseException:
        snapshot.close()
        raise
    execution = Execution(snapshot, context.identity, context.control, context.params)
    snapshot.on_expire(
        lambda: context.control.stop(QueryTimeout("The stream held its snapshot longer than the lease allows."))
    )

    def batches() -> Rows:
        with snapshot:
            yield from stream_query(plan, execution, services.runtime)

    rows = batches()
    first = next(rows, None)  # errors that the first rows bring are still answered with their own status
    return plan.columns, _prepended(first, rows)


async def taken(rows: Rows, workers: Workers, control: Control) -> AsyncIterator[pa.RecordBatch]:
    """Take one batch after the other on the worker threads; the query ends with this iterator.

    A client that does not read leaves the request waiting between two batches, with its snapshot pinned. When the
    control is stopped then, the request itself is cancelled, so that no client can keep pages for longer.
    """
    request = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        if request is not None:
            loop.call_soon_threadsafe(request.cancel)

    def advance() -> pa.RecordBatch | None:
        with storage_errors():
            batch = next(rows, None)
        if control.stopped is not None:
            rows.close()
        return batch

    def close() -> None:
        with suppress(ValueError):  # a thread that was left behind runs in it, and will close it
            rows.close()

    try:
        while (batch := await workers.run(advance, control)) is not None:
            release = control.on_stop(give_up)
            try:
                yield batch
            finally:
                release()
    finally:
        control.stop(Cancelled("The stream was closed."))
        await loop.run_in_executor(None, close)


def _prepended(first: pa.RecordBatch | None, rest: Rows) -> Rows:
    try:
        if first is not None:
            yield first
            yield from rest
    finally:
        rest.close()
