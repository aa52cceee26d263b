"""Identifiers: their layout, their order, and that none comes twice."""

from __future__ import annotations

import threading
import uuid

import duckdb
import pytest

from sql.allowed_functions import ALLOWED_FUNCTIONS, ALLOWED_TABLE_FUNCTIONS, VOLATILE_FUNCTIONS
from sql.functions import SNOWFLAKE_EPOCH_MS, FunctionContext


class FixedClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now_us: int) -> None:
        self.now = now_us

    def now_us(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1_000_000


class Zeros:
    """No randomness at all."""

    def token(self, size: int) -> bytes:
        return bytes(size)


NOW_MS = SNOWFLAKE_EPOCH_MS + 1_000_000


def test_snowflake_layout() -> None:
    context = FunctionContext(FixedClock(NOW_MS * 1000 + 999), node=5)
    first = context.snowflake_id()
    assert (first >> 22, first >> 12 & 0x3FF, first & 0xFFF) == (1_000_000, 5, 0)
    many = context.snowflake_ids(5000).tolist()
    assert many[0] == first + 1
    assert many[4095] >> 22 == 1_000_001  # the counter is full: the next millisecond is borrowed
    assert all(n >> 12 & 0x3FF == 5 for n in many)
    assert [first, *many, context.snowflake_id()] == sorted({first, *many, context.snowflake_id() - 1})


def test_a_clock_that_goes_back_repeats_nothing() -> None:
    clock = FixedClock(NOW_MS * 1000)
    context = FunctionContext(clock)
    before = [context.snowflake_id(), context.uuid_v7(), context.ulid()]
    clock.now -= 60_000_000
    after = [context.snowflake_id(), context.uuid_v7(), context.ulid()]
    assert all(a > b for a, b in zip(after, before, strict=True))  # type: ignore[operator]


def test_uuid_v7_and_ulid_layout() -> None:
    context = FunctionContext(FixedClock(NOW_MS * 1000), Zeros())
    made = [uuid.UUID(text) for text in context.uuid_v7s(3)]
    assert [(u.version, u.variant, u.int >> 80) for u in made] == [(7, uuid.RFC_4122, NOW_MS)] * 3
    assert [u.int >> 64 & 0xFFF for u in made] == [0, 1, 2]
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    ulids = context.ulids(2)
    numbers = [sum(alphabet.index(c) << 5 * i for i, c in enumerate(reversed(text))) for text in ulids]
    assert [n >> 80 for n in numbers] == [NOW_MS, NOW_MS]
    assert [n >> 68 & 0xFFF for n in numbers] == [0, 1]
    assert [len(text) for text in ulids] == [26, 26]


def test_threads_share_without_repeating() -> None:
    context = FunctionContext()
    found: list[object] = []

    def work() -> None:
        for _ in range(200):
            found.extend(context.snowflake_ids(7).tolist())
            found.extend(context.uuid_v7s(3))
            found.extend(context.ulids(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 4 * 200 * 13


def test_none_at_all() -> None:
    context = FunctionContext()
    assert (context.snowflake_ids(0).tolist(), context.uuid_v7s(0), context.ulids(0)) == ([], [], [])


def test_nodes_are_ten_bits() -> None:
    with pytest.raises(ValueError, match="1023"):
        FunctionContext(node=1024)


# The allow-list ------------------------------------------------------------------------------------------------------

BUILT_INTO_THE_PARSER = {"grouping", "grouping_id", "unnest", "->", "!__postfix"}
DANGEROUS = (
    "read_", "glob", "getenv", "current_", "duckdb_", "pragma_", "parquet_", "sniff", "query", "secret", "setting",
    "write_", "nextval", "currval", "setval", "setseed", "getvariable", "sleep", "pg_", "txid", "version", "stats",
    "serialize", "execute", "checkpoint", "logging", "profil", "scan", "collate_", "now", "today", "has_", "inet",
    "external", "privilege", "combine", "finalize", "aggregate_state", "error", "__internal", "test_", "schema",
)  # fmt: skip
EXCEPT_FOR = {
    "pg_typeof", "pg_size_pretty", "uuid_extract_version", "greatest_common_divisor", "array_has_all", "array_has_any",
    "list_has_all", "list_has_any",
}  # fmt: skip


def test_the_allow_list_names_only_functions_that_exist() -> None:
    with duckdb.connect() as connection:
        known = {
            row[0].lower() for row in connection.execute("SELECT function_name FROM duckdb_functions()").fetchall()
        }
    assert {name.lower() for name in ALLOWED_FUNCTIONS} - known <= BUILT_INTO_THE_PARSER
    assert known > ALLOWED_TABLE_FUNCTIONS - {"regexp_split_to_table"}
    assert VOLATILE_FUNCTIONS <= ALLOWED_FUNCTIONS


@pytest.mark.parametrize("part", DANGEROUS)
def test_the_allow_list_names_nothing_dangerous(part: str) -> None:
    assert {n for n in ALLOWED_FUNCTIONS | ALLOWED_TABLE_FUNCTIONS if part in n.lower()} <= EXCEPT_FOR


def test_a_new_function_of_duckdb_is_refused_until_it_is_listed() -> None:
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT DISTINCT function_type, function_name FROM duckdb_functions()").fetchall()
    tables = {name for kind, name in rows if kind == "table"}
    assert len(tables - ALLOWED_TABLE_FUNCTIONS) > 80
    assert not {"arrow_scan", "query_table", "json_execute_serialized_sql"} & ALLOWED_TABLE_FUNCTIONS
