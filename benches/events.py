"""The queries of `benches.indexes`, which both systems are asked, by the indexed column."""

from __future__ import annotations

EVENT_QUERIES = {
    "ref": "SELECT id, ref, thread, at, body FROM events3 WHERE ref = $1",
    "thread": "SELECT id, ref, thread, at, body FROM events3 WHERE thread = $1",
    "at": "SELECT count(*), sum(thread) FROM events3 WHERE at BETWEEN $1 AND $2",
}
EVENT_RANGE = 10_000
