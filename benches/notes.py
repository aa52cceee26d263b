"""The table that every system holds: `notes`, five columns, rows made from their number.

The same row comes out of Python (to fill a table, as Arrow) and out of Lua (to write through HTTP), so that
every system stores and moves the same bytes.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("id", "room", "author", "body", "stars")
BODY = "The water in the headrace turns the wheel and never waits."

LUA_ROW = f"""\
local note_text = "{BODY}"
local function note(id)  -- id, room, author, body, stars
  return id, "room-" .. (id % 100), "author-" .. (id % 1000), note_text, id % 5
end
math.randomseed(os.time())
local function any_id(rows) return math.floor(math.random() * rows) end
"""
"""Lua that every request script begins with."""


def batch(first: int, count: int) -> pa.Table:
    """Rows `first` to `first + count - 1`."""
    ids = pa.array(range(first, first + count), pa.int64())

    def remainder(divisor: int) -> pa.Array:
        return pc.subtract(ids, pc.multiply(pc.divide(ids, divisor), divisor))

    def text(prefix: str, divisor: int) -> pa.Array:
        return pc.binary_join_element_wise(prefix, pc.cast(remainder(divisor), pa.string()), "")

    return pa.table(
        {
            "id": ids,
            "room": text("room-", 100),
            "author": text("author-", 1000),
            "body": pa.array([BODY], pa.string()).take(pa.array([0] * count, pa.int32())),
            "stars": pc.cast(remainder(5), pa.int32()),
        }
    )


def arrow_stream(table: pa.Table) -> bytes:
    """An Arrow IPC stream of the table, uncompressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def ndjson(table: pa.Table) -> bytes:
    """One JSON object a line."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    return b"\n".join(encode(row) for row in table.to_pylist()) + b"\n"
