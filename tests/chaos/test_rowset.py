"""The observer is worth something: it accepts what is right, notices each kind of lie, and reads conditions as SQL."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from tests.chaos.rowset import LiveSelect, RowSet, Violation
from tests.chaos.selects import GROUPS, HUGE, LARGEST, OWNERS, WORDS, TableShape, condition, live_select

SCHEMA = [{"name": "id", "data_type": "BigInt", "index": 0}, {"name": "v", "data_type": "Text", "index": 1}]
SELECT = LiveSelect("app.t", ("id", "v"), "v <> 'no'", lambda row: row["v"] != "no", ("id",), star=True)


def row(key: int, value: str, seq: int) -> dict[str, Any]:
    return {"id": key, "v": value, "_seq": seq}


def change(kind: str, seq: int, *, rows: list[Any] | None = None, old: list[Any] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"change_type": kind, "seq": seq}
    return message | ({"rows": rows} if rows else {}) | ({"old_values": old} if old else {})


def loaded() -> RowSet:
    rowset = RowSet(SELECT)
    rowset.describe(SCHEMA)
    rowset.load([row(1, "a", 3), row(2, "b", 4), row(3, "c", 7)])
    rowset.advance(9)
    return rowset


def test_what_is_right_is_taken() -> None:
    rowset = loaded()
    rowset.change(change("insert", 11, rows=[row(4, "d", 10), row(5, "e", 11)]))
    rowset.change(change("update", 12, rows=[row(1, "A", 12)], old=[{"id": 1, "v": "a", "_seq": 3}]))
    rowset.change(change("delete", 14, old=[row(2, "b", 4), row(1, "A", 12)]))
    rowset.resume([row(4, "D", 15), {"id": str(HUGE), "v": "x", "_seq": "16"}])
    assert rowset.rows == {
        7: {"id": 3, "v": "c"},
        11: {"id": 5, "v": "e"},
        15: {"id": 4, "v": "D"},
        16: {"id": HUGE, "v": "x"},
    }
    assert (rowset.cursor, rowset.events) == (16, 5)


@pytest.mark.parametrize(
    "lie",
    [
        lambda rows: rows.change(change("insert", 9, rows=[row(4, "d", 9)])),
        lambda rows: rows.change(change("insert", 11, rows=[row(3, "d", 11)])),
        lambda rows: rows.change(change("insert", 11, rows=[row(4, "no", 11)])),
        lambda rows: rows.change(change("insert", 12, rows=[row(4, "d", 11)])),
        lambda rows: rows.change(change("insert", 11, rows=[row(4, "d", 11), row(5, "d", 10)])),
        lambda rows: rows.change(change("insert", 11, rows=[row(4, "d", 8), row(5, "d", 11)])),
        lambda rows: rows.change(change("insert", 11)),
        lambda rows: rows.change(change("update", 11, rows=[row(4, "d", 11)], old=[{"id": 4, "v": "x", "_seq": 5}])),
        lambda rows: rows.change(change("update", 11, rows=[row(1, "d", 11)], old=[{"id": 1, "v": "x", "_seq": 3}])),
        lambda rows: rows.change(change("update", 11, rows=[row(1, "d", 11)], old=[{"id": 1, "_seq": 3}])),
        lambda rows: rows.change(change("update", 11, rows=[row(1, "a", 11)], old=[{"id": 1, "v": "a", "_seq": 3}])),
        lambda rows: rows.change(change("update", 11, rows=[row(1, "d", 11)])),
        lambda rows: rows.change(change("delete", 11, old=[row(1, "a", 2)])),
        lambda rows: rows.change(change("delete", 11, old=[row(1, "b", 3)])),
        lambda rows: rows.change(change("delete", 11, old=[{"id": 1, "_seq": 3}])),
        lambda rows: rows.change(change("delete", 9, old=[row(1, "a", 3)])),
        lambda rows: rows.change(change("upsert", 11, rows=[row(9, "a", 11)])),
        lambda rows: rows.load([row(9, "a", 8)]),
        lambda rows: rows.load([row(1, "a", 11)]),
        lambda rows: rows.load([{"v": "a", "id": 9, "_seq": 11}]),
        lambda rows: rows.resume([row(9, "a", 9)]),
        lambda rows: rows.describe(SCHEMA[:1]),
    ],
)
def test_a_lie_is_noticed(lie: Callable[[RowSet], None]) -> None:
    with pytest.raises(Violation):
        lie(loaded())


def test_conditions_say_the_same_in_sql_and_in_python() -> None:
    chance = random.Random(7)
    columns = ("id", "grp", "n", "name", "owner", "ok", "big")
    rows = [
        (
            number,
            chance.randrange(GROUPS),
            chance.choice([None, chance.randrange(LARGEST)]),
            chance.choice([None, *WORDS]),
            chance.choice([None, *OWNERS]),
            chance.choice([None, True, False]),
            chance.choice([None, HUGE - 1, HUGE, HUGE + 1]),
        )
        for number in range(300)
    ]
    with duckdb.connect() as duck:
        duck.execute("CREATE TABLE t (id INT, grp INT, n BIGINT, name TEXT, owner TEXT, ok BOOL, big BIGINT)")
        duck.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        for _ in range(300):
            drawn = condition(chance)
            told = {number for (number,) in duck.execute(f"SELECT id FROM t WHERE {drawn.sql}").fetchall()}
            known = {values[0] for values in rows if drawn.test(dict(zip(columns, values, strict=True))) is True}
            assert told == known, drawn.sql


def test_selects_differ_and_come_back_with_their_seed() -> None:
    tables = [TableShape("app.t", ("id", "grp", "n", "name", "owner", "ok", "big"), ("id",))]
    drawn = [live_select(random.Random(seed), tables).sql for seed in range(50)]
    assert len(set(drawn)) > 40
    assert drawn == [live_select(random.Random(seed), tables).sql for seed in range(50)]
