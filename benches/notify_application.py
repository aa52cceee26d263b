"""The floor: what a team writes by hand when all it needs is "tell everyone": Starlette over PostgreSQL LISTEN/NOTIFY.

An INSERT notifies in its own transaction; one connection listens and hands each payload to every WebSocket. No
filter, no row scope, no snapshot, no resume, no authentication, nothing against slow clients, and PostgreSQL refuses
payloads of 8,000 bytes and more. Served by the bench with the same uvicorn as everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benches.postgres_application import POOL_SIZE, TABLE, Note

INSERT = """
WITH inserted AS (INSERT INTO notes (id, room, author, body, stars) VALUES ($1, $2, $3, $4, $5) RETURNING *)
SELECT pg_notify('notes', row_to_json(inserted)::text) FROM inserted
"""

_note = msgspec.json.Decoder(Note)
_clients: set[WebSocket] = set()


async def _insert(request: Request) -> Response:
    note = _note.decode(await request.body())
    await request.app.state.pool.execute(INSERT, note.id, note.room, note.author, note.body, note.stars)
    return JSONResponse({"status": "success", "row_count": 1})


async def _follow(client: WebSocket) -> None:
    await client.accept()
    _clients.add(client)
    await client.send_text('{"type":"subscribed"}')
    try:
        while True:
            await client.receive_text()
    except WebSocketDisconnect:
        _clients.discard(client)


async def _tell(payloads: asyncio.Queue[str]) -> None:
    """Each payload to all clients, one after the other: faster than a task each, and one slow client stops all."""
    while True:
        payload = await payloads.get()
        for client in tuple(_clients):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it is leaving; its own receive says so
                await client.send_text(payload)


@contextlib.asynccontextmanager
async def _lifespan(application: Starlette) -> AsyncIterator[None]:
    dsn = os.environ["DATABASE_DSN"]
    payloads: asyncio.Queue[str] = asyncio.Queue()
    listening = await asyncpg.connect(dsn)
    await listening.add_listener("notes", lambda _connection, _pid, _channel, payload: payloads.put_nowait(payload))
    teller = asyncio.create_task(_tell(payloads))
    async with asyncpg.create_pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        await pool.execute(TABLE)
        application.state.pool = pool
        yield
    teller.cancel()
    await listening.close()


application = Starlette(
    routes=[Route("/notes", _insert, methods=["POST"]), WebSocketRoute("/follow", _follow)], lifespan=_lifespan
)
