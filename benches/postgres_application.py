"""What a Python team writes by hand: Starlette and an asyncpg pool over PostgreSQL.

Served by the bench with the same uvicorn as everything else; `DATABASE_DSN` names the server. No authentication.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benches.events import EVENT_QUERIES, EVENT_RANGE

POOL_SIZE = 32

TABLE = """
CREATE TABLE IF NOT EXISTS notes (
    id bigint PRIMARY KEY, room text NOT NULL, author text NOT NULL, body text NOT NULL, stars integer NOT NULL)
"""
INSERT = "INSERT INTO notes (id, room, author, body, stars) VALUES ($1, $2, $3, $4, $5)"
INSERT_MANY = """
INSERT INTO notes (id, room, author, body, stars)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[])
"""
READ = "SELECT id, room, author, body, stars FROM notes WHERE id = $1"
UPDATE = "UPDATE notes SET stars = $2 WHERE id = $1"
GROUP_BY = """
SELECT carrier, origin, count(*), avg(dep_delay)::float8, max(arr_delay), sum(distance)::bigint
FROM flights GROUP BY carrier, origin ORDER BY carrier, origin
"""


class Note(msgspec.Struct):
    """One row, as a request carries it."""

    id: int
    room: str
    author: str
    body: str
    stars: int


class Stars(msgspec.Struct):
    """The new value of an update."""

    stars: int


_note = msgspec.json.Decoder(Note)
_notes = msgspec.json.Decoder(list[Note])
_stars = msgspec.json.Decoder(Stars)


async def _insert(request: Request) -> Response:
    note = _note.decode(await request.body())
    await request.app.state.pool.execute(INSERT, note.id, note.room, note.author, note.body, note.stars)
    return JSONResponse({"status": "success", "row_count": 1})


async def _insert_many(request: Request) -> Response:
    notes = _notes.decode(await request.body())
    columns = zip(*((n.id, n.room, n.author, n.body, n.stars) for n in notes), strict=True)
    await request.app.state.pool.execute(INSERT_MANY, *map(list, columns))
    return JSONResponse({"status": "success", "row_count": len(notes)})


async def _load(request: Request) -> Response:
    async with request.app.state.pool.acquire() as connection:
        status = await connection.copy_to_table("notes", source=request.stream(), format="csv", header=True)
    return JSONResponse({"status": status})


async def _read(request: Request) -> Response:
    row = await request.app.state.pool.fetchrow(READ, int(request.path_params["id"]))
    return JSONResponse(dict(row)) if row else JSONResponse({"error": "not found"}, status_code=404)


async def _update(request: Request) -> Response:
    change = _stars.decode(await request.body())
    await request.app.state.pool.execute(UPDATE, int(request.path_params["id"]), change.stars)
    return JSONResponse({"status": "success", "row_count": 1})


async def _events(request: Request) -> Response:
    column, value = request.path_params["column"], request.path_params["value"]
    values = (value, value + EVENT_RANGE - 1) if column == "at" else (value,)
    rows = await request.app.state.pool.fetch(EVENT_QUERIES[column], *values)
    return Response(msgspec.json.encode([list(row.values()) for row in rows]), media_type="application/json")


async def _insert_event(request: Request) -> Response:
    values = msgspec.json.decode(await request.body(), type=list[int | str])
    statement = f"INSERT INTO events{request.path_params['indexes']} VALUES ($1, $2, $3, $4, $5)"
    await request.app.state.pool.execute(statement, *values)
    return JSONResponse({"status": "success", "row_count": 1})


async def _group_by(request: Request) -> Response:
    rows = await request.app.state.pool.fetch(GROUP_BY)
    return JSONResponse([list(row.values()) for row in rows])


@contextlib.asynccontextmanager
async def _lifespan(application: Starlette) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_DSN"], min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        await pool.execute(TABLE)
        application.state.pool = pool
        yield


application = Starlette(
    routes=[
        Route("/notes", _insert, methods=["POST"]),
        Route("/notes/many", _insert_many, methods=["POST"]),
        Route("/notes/load", _load, methods=["POST"]),
        Route("/notes/{id:int}", _read, methods=["GET"]),
        Route("/notes/{id:int}", _update, methods=["PATCH"]),
        Route("/events/{column:str}/{value:int}", _events, methods=["GET"]),
        Route("/events/{indexes:int}", _insert_event, methods=["POST"]),
        Route("/flights/delays", _group_by, methods=["GET"]),
    ],
    lifespan=_lifespan,
)
