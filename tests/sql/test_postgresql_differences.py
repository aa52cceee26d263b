"""The table of differences in docs/sql.md: each line asked here, and of PostgreSQL where it is installed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.peer_postgres import Postgres
from benches.peers import Unavailable
from sql.duck import DuckOptions, DuckPool
from sql.errors import SqlError
from tests.sql.fake_view import FakeView
from tests.sql.query_support import World

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Differences from PostgreSQL")[2].partition("\n## ")[0]
LINES = re.findall(r"^\| `(.+?)` \| (\S.*?) \| (\S.*?) \| .*\|$", SECTION, re.MULTILINE)

AGREED = (
    ("7 / 2, -7 / 2, -7 % 3", "3,-3,-1"),
    ("1.5::int, 2.5::int, -2.5::int, round(-1.5), round(1234.5, -2)", "2,3,-3,-2,1200"),
    ("'Z' < 'a', 'z' < 'é', 'a ' = 'a'", "true,true,false"),
    ("NULL AND false, NULL OR true, 1 NOT IN (NULL, 2), NULL IN (SELECT 1 WHERE false)", "false,true,NULL,false"),
    ("sum(x), count(x) FROM (VALUES (1)) v(x) WHERE x > 1", "NULL,0"),
    ("string_agg(x, '') FROM (SELECT coalesce(x, '-') x FROM (VALUES ('b'), (NULL), ('a')) v(x) ORDER BY v.x) y",
     "ab-"),
    ("string_agg(x, '') FROM (SELECT coalesce(x, '-') x FROM (VALUES ('b'), (NULL), ('a')) v(x) ORDER BY v.x DESC) y",
     "-ba"),
    ("1 / 0", "error"),
    ("1 % 0", "error"),
    ("1.0 / 0", "error"),
    ("1::double precision / 0", "error"),
    ("2147483647::int + 1::int", "error"),
    ("9223372036854775807 + 1", "error"),
    ("100000::smallint", "error"),
    ("'abc'::int", "error"),
    ("'2024-02-30'::date", "error"),
    ("1234.5::numeric(4, 1), 1.005::numeric(3, 2)", "error"),
    ("(1, NULL) = (1, NULL), (1, NULL) < (2, NULL), (1, 2) IN ((1, NULL))", "NULL,true,NULL"),
    ("0.1 + 0.2 = 0.3, 1.10 = 1.1, 1 = 1.0", "true,true,true"),
)  # fmt: skip
"""What is the same in both, though other databases differ."""


def _shown(value: object) -> str:
    if value is None:
        return "NULL"
    return str(value).lower() if isinstance(value, bool) else re.sub(r"\.0$", "", str(value))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield World(FakeView([]), pool)
    pool.close()


def ours(world: World, expression: str) -> str:
    """Our answer as text."""
    try:
        [row] = world.rows(f"SELECT {expression}")
    except SqlError:
        return "error"
    return ",".join(map(_shown, row))


@pytest.fixture(scope="module")
def psql() -> Iterator[list[str]]:
    """The command that asks a PostgreSQL of our own."""
    peer = Postgres()
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o755)
        try:
            peer.start_database(place)
        except Unavailable as error:
            pytest.skip(str(error))
        try:
            yield ["psql", peer.dsn(), "-XAtq", "-F", ",", "-P", "null=NULL", "-v", "ON_ERROR_STOP=1", "-c"]
        finally:
            peer.stop()


def theirs(psql: list[str], expression: str) -> str:
    """PostgreSQL's answer in the same words."""
    made = subprocess.run([*psql, f"SELECT {expression}"], capture_output=True, text=True, check=False, timeout=30)
    if made.returncode:
        return "error"
    words = {"t": "true", "f": "false"}
    return ",".join(words.get(part, re.sub(r"\.0$", "", part)) for part in made.stdout.rstrip("\n").split(","))


def test_the_table_is_read() -> None:
    assert len(LINES) > 20
    assert len(LINES) == SECTION.count("\n| `")


@pytest.mark.parametrize(("expression", "here"), [(e, h) for e, h, _ in LINES] + list(AGREED))
def test_here(world: World, expression: str, here: str) -> None:
    assert ours(world, expression) == here.strip("`")


@pytest.mark.parametrize(("expression", "there"), [(e, t) for e, _, t in LINES] + list(AGREED))
def test_postgresql(psql: list[str], expression: str, there: str) -> None:
    assert theirs(psql, expression) == there.strip("`")
