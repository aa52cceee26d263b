"""Rows that the event loop reads by an index are those that a scan finds, in the same order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.errors import SqlError
from sql.hot_read import FEW_ROWS
from sql.request import parse_request
from tests.sql.indexes.index_world import ALICE, BOB, IndexWorld

LONG = "l" * 600
TEXTS = ["", "a", "A", "é", LONG, LONG + "x", "0"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexWorld]:
    made = IndexWorld(tmp_path_factory.mktemp("hot"))
    for name in ("plain", "indexed"):
        made.run(
            f"CREATE USER TABLE {name} (id INT, part TEXT, t TEXT, n BIGINT, u INT UNIQUE, at TIMESTAMP, "
            "PRIMARY KEY (part, id))",
            identity=ALICE,
        )
    made.run(
        "CREATE INDEX by_t ON indexed (t); CREATE INDEX by_n ON indexed (n, t); CREATE INDEX by_at ON indexed (at)"
    )
    yield made
    made.check()
    made.close()


def hot(world: IndexWorld, sql: str, params: list[object]) -> list[list[object]] | None:
    """What the event loop answers alone, if it does."""
    found = world.loop.run_until_complete(world.database._hot.run(sql, params, "app", ALICE))
    return None if found is None else [list(row) for row in found.rows or ()]


def answered(world: IndexWorld, sql: str, params: list[object]) -> list[list[object]] | str:
    try:
        result = world.run(sql, *params, identity=ALICE)
    except SqlError as error:
        return str(error)
    if result.rows is not None:
        return [list(row) for row in result.rows]
    assert result.table is not None
    return [list(row) for row in zip(*(c.to_pylist() for c in result.table.columns), strict=True)]


ROWS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.sampled_from(["p", "q"]),
        st.sampled_from([None, *TEXTS]),
        st.sampled_from([None, 0, 1, 2]),
    ),
    max_size=60,
    unique_by=lambda row: row[:2],
)
ASKED = [
    ("t = $1", st.tuples(st.sampled_from([None, *TEXTS, "none"]))),
    ("n = $1", st.tuples(st.sampled_from([None, 0, 1, 2, 2**60]))),
    ("n = $1 AND t = $2", st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([None, *TEXTS]))),
    ("t = $2 AND n = $1", st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from(TEXTS))),
    ("u = $1", st.tuples(st.integers(0, 80))),
    ("at = $1", st.tuples(st.sampled_from(["2026-01-01 00:00:01", "2026-01-01 00:00:02"]))),
    ("n = $1 AND id > 5", st.tuples(st.sampled_from([0, 1, 2]))),
    ("t = 'a' AND t = $1", st.tuples(st.sampled_from(["a", "A"]))),
    ("n IS NULL AND t = $1", st.tuples(st.sampled_from(TEXTS))),
]


@settings(deadline=None, max_examples=25)
@given(ROWS, st.lists(st.integers(0, 59), max_size=10), st.data())
def test_hot_reads_are_what_a_scan_finds(
    world: IndexWorld, rows: list[tuple[int, str, str | None, int | None]], gone: list[int], data: st.DataObject
) -> None:
    for name in ("plain", "indexed"):
        world.run(f"DELETE FROM {name} WHERE id >= 0", identity=ALICE)
        for number, (row_id, part, text, n) in enumerate(rows):
            values = (row_id, part, text, n, number, f"2026-01-01 00:00:0{number % 3}")
            world.run(f"INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6)", *values, identity=ALICE)
        for place in {place for place in gone if place < len(rows)}:
            if place % 2:
                world.run(f"DELETE FROM {name} WHERE id = $1 AND part = $2", *rows[place][:2], identity=ALICE)
            else:
                change = f"UPDATE {name} SET t = 'A', n = 1 WHERE id = $1 AND part = $2"
                world.run(change, *rows[place][:2], identity=ALICE)
    for condition, values in ASKED:
        params = list(data.draw(values, condition))
        expected = answered(world, f"SELECT id, part, t, n FROM plain WHERE {condition}", params)
        for _ in range(3):
            assert answered(world, f"SELECT id, part, t, n FROM indexed WHERE {condition}", params) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, t || 'x' AS u FROM indexed AS i WHERE n = 1 ORDER BY id LIMIT 3",
        "SELECT now() IS NULL, current_user, e FROM indexed, jsonb_array_elements('[1]') AS e",
        "SELECT * FROM indexed JOIN plain USING (id) WHERE indexed.n IN (SELECT n FROM plain) ORDER BY indexed.id",
        "WITH w AS (SELECT n, count(*) FROM app.indexed GROUP BY n) SELECT * FROM w, unnest([1, 2]) AS v ORDER BY ALL",
        "SELECT CASE WHEN n > 1 THEN left(t, 1) ELSE repeat('a', 2) END FROM indexed WHERE t IS NOT DISTINCT FROM 'a'",
    ],
)
def test_a_remembered_query_stays_as_it_was_parsed(world: IndexWorld, sql: str) -> None:
    expected = answered(world, sql, [])
    kept = world.database._parsed.get((sql,), 0)
    assert kept is not None
    fresh = parse_request(sql, 0, max_statements=1)
    for _ in range(2):
        assert answered(world, sql, []) == expected
    assert world.database._parsed.get((sql,), 0) is kept
    assert [repr(parsed.statement) for parsed in kept] == [repr(parsed.statement) for parsed in fresh]


def test_which_reads_the_event_loop_takes(world: IndexWorld) -> None:
    world.run("DELETE FROM indexed WHERE id >= 0", identity=ALICE)
    for number in range(FEW_ROWS + 1):
        many = number if number < 3 else 7
        world.run("INSERT INTO indexed VALUES ($1, 'p', $2, $3, $1, NULL)", number, LONG, many, identity=ALICE)
    world.run("INSERT INTO indexed VALUES (1, 'p', 'x', 1, 1, NULL)", identity=BOB)

    def twice(condition: str, *params: object) -> list[list[object]] | None:
        sql = f"SELECT id FROM indexed WHERE {condition}"
        answered(world, sql, list(params))
        return hot(world, sql, list(params))

    assert twice("n = $1", 1) == [[1]]
    assert twice("u = $1", 2) == [[2]]
    assert twice("n = $1", None) == []
    assert twice("n = 2") == [[2]]
    assert twice("n = $1", 7) == [[number] for number in range(3, FEW_ROWS + 1)]
    world.run("UPDATE indexed SET n = 7 WHERE id <= 2", identity=ALICE)
    assert twice("n = $1", 7) is None, "too many rows for the event loop"
    assert twice("t = $1", LONG) is None, "a key that was cut does not tell its value"
    assert twice("n = $1 AND id > 1", 7) is None, "the index does not say all of it"
    assert twice("n > $1", 7) is None
    assert twice("n = $1 ORDER BY n DESC", 7) is None
    world.run("DROP INDEX by_n")
    assert twice("n = $1", 1) is None
