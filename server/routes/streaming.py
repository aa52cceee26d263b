"""Results in the streaming formats: one chunk after the other, with no more than a batch in memory.

The first rows are read before the answer begins, so whatever is wrong with the statement gets its own status. After
that an error can only cut the connection: the client sees an incomplete answer, never a short one that looks whole.
Chunks are made in threads, so that the event loop stays free for other requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import pyarrow as pa

from server.exchange import Exchange
from server.negotiation import ResultFormat
from server.state import ResultStream
from sql.rendering import BigintMode, arrow_chunks, ndjson_chunks


async def send_stream(stream: ResultStream, wanted: ResultFormat, bigint: BigintMode, exchange: Exchange) -> None:
    """Send all rows of a result in the wanted format."""
    batches = aiter(stream.batches)
    chunks: AsyncGenerator[bytes | memoryview, None] = (
        _arrow(stream, batches) if wanted is ResultFormat.ARROW else _ndjson(stream, batches, bigint)
    )
    try:
        first = await anext(chunks, b"")
        await exchange.send({
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", wanted.value.encode()), (b"cache-control", b"no-store")],
        })  # fmt: skip
        await exchange.send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in chunks:
            await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await exchange.send({"type": "http.response.body", "body": b""})
    finally:
        await chunks.aclose()
        close = getattr(batches, "aclose", None)
        if close is not None:
            await close()


async def _ndjson(
    stream: ResultStream, batches: AsyncIterator[pa.RecordBatch], bigint: BigintMode
) -> AsyncGenerator[bytes | memoryview, None]:
    async for batch in batches:
        chunks = ndjson_chunks([batch], stream.columns, bigint)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk


async def _arrow(
    stream: ResultStream, batches: AsyncIterator[pa.RecordBatch]
) -> AsyncGenerator[bytes | memoryview, None]:
    """Write the schema once the first batch is there, then a chunk a batch: `waiting` hands them over one by one."""
    waiting: list[pa.RecordBatch] = []

    def feed() -> Iterator[pa.RecordBatch]:
        while waiting:
            yield waiting.pop()

    chunks = arrow_chunks(feed(), stream.columns)
    begun = False
    async for batch in batches:
        if not begun:
            begun = True
            yield next(chunks)
        waiting.append(batch)
        yield await asyncio.to_thread(next, chunks)
    for chunk in chunks:
        yield chunk
