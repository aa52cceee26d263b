"""Row values compare as in PostgreSQL, also where parts are NULL; the answers were taken from PostgreSQL 15."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from query_support import ALICE, World, table
from sqlglot import exp, parse_one

from sql.duck import DuckOptions, DuckPool
from sql.errors import SqlError
from sql.plan import Path
from sql.row_values import spell_out_rows
from storage.types import BIGINT, INT
from tests.sql.fake_view import FakeView


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    definition = table(1, "t", [("a", BIGINT), ("b", BIGINT), ("c", INT)], key=["a", "b"])
    view = FakeView([definition])
    view.put(definition, "alice", [(1, 1, None), (1, 2, 5), (2, 1, 6)])
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield World(view, pool)
    pool.close()


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("(1, NULL) = (1, NULL)", None),
        ("(1, NULL) = (2, NULL)", False),
        ("(1, 2) = (1, 2)", True),
        ("(1, NULL) <> (1, NULL)", None),
        ("(1, NULL) <> (2, NULL)", True),
        ("(1, NULL) < (1, 3)", None),
        ("(1, NULL) < (2, NULL)", True),
        ("(NULL, 1) < (1, 1)", None),
        ("(1, 2) <= (1, NULL)", None),
        ("(2, 1) >= (1, NULL)", True),
        ("(1, 2) <= (1, 2)", True),
        ("(1, 2, 3) > (1, 2, 2)", True),
        ("(1, NULL) IN ((1, NULL))", None),
        ("(1, NULL) IN ((2, NULL))", False),
        ("(1, NULL) NOT IN ((1, NULL))", None),
        ("(1, 2) IN ((1, NULL), (3, NULL))", None),
        ("(1, 2) IN ((1, NULL), (1, 2))", True),
        ("(1, 2) NOT IN ((1, 3), (3, 2))", True),
    ],
)
def test_null_is_unknown(world: World, condition: str, truth: bool | None) -> None:
    assert world.rows(f"SELECT {condition} AS x") == [(truth,)]


def test_rows_reach_the_key(world: World) -> None:
    assert world.bind("SELECT c FROM t WHERE (a, b) = (1, 2)").path is Path.POINT
    assert world.rows("SELECT c FROM t WHERE (a, b) = (1, 2)") == [(5,)]
    assert world.rows("SELECT c FROM t WHERE (a, c) IN ((2, 6), (1, 5)) ORDER BY c") == [(5,), (6,)]
    assert world.rows("SELECT a, b FROM t WHERE (a, c) NOT IN ((1, 7))") == [(1, 2), (2, 1)]
    assert world.rows("SELECT a, b FROM t WHERE (a, b) > (1, 1)") == [(1, 2), (2, 1)]


def test_the_name_of_an_output_is_what_was_written(world: World) -> None:
    assert world.bind("SELECT (1, 2) = (1, 2)", identity=ALICE).columns[0].name == "(1, 2) = (1, 2)"


def test_a_long_list_is_not_deep() -> None:
    rows = ", ".join(f"({number}, {number})" for number in range(5_000))
    tree = spell_out_rows(parse_one(f"SELECT 1 FROM t WHERE (a, b) IN ({rows})"))
    assert _depth(tree) < 60


def _depth(node: exp.Expr) -> int:
    return 1 + max((_depth(child) for child in node.iter_expressions()), default=0)


def test_a_long_list_is_answered(world: World) -> None:
    rows = ", ".join(f"({a}, {b})" for a, b in product(range(40), range(40)))
    assert world.rows(f"SELECT count(*) FROM t WHERE (a, b) IN ({rows})") == [(3,)]


@pytest.mark.parametrize("condition", ["(1, 2) = (1, 2, 3)", "(1, 2) IN ((1, 2, 3))", "(1, 2) = 3"])
def test_other_lengths_are_refused(world: World, condition: str) -> None:
    with pytest.raises(SqlError):
        world.rows(f"SELECT {condition}")
