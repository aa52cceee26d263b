"""Hostile queries: what reaches outside, what never ends, what is too large. Each gets its error; the next one runs."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sql import duck_api
from sql.duck import DuckOptions, DuckPool
from sql.errors import (
    ExecutionError,
    InvalidSql,
    MemoryLimitExceeded,
    PermissionDenied,
    QueryTimeout,
    ResultTooLarge,
    SqlError,
    TableNotFound,
    Unsupported,
)
from sql.query import Execution, stream_query
from sql.workers import Cancelled, Control
from storage.types import BIGINT, TEXT
from tests.sql.fake_view import FakeView
from tests.sql.query_support import ALICE, World, table

PEOPLE = table(1, "people", [("id", BIGINT), ("name", TEXT)])
secret_of_python = __import__("pyarrow").table({"x": [1]})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    view = FakeView([PEOPLE])
    view.put(PEOPLE, "alice", [(1, "Ann"), (2, "Ben")])
    pool = DuckPool(DuckOptions(memory_bytes=128 << 20, temp_bytes=64 << 20, threads=2, connections=2))
    world = World(view, pool)
    world.run("select 1")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (private_memory() + (2 << 30), before[1]))
    yield world
    resource.setrlimit(resource.RLIMIT_DATA, before)
    pool.close()


def private_memory() -> int:
    """What this process has of the memory that RLIMIT_DATA counts; much, at the end of a long run of tests."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


OUTSIDE = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from read_parquet('/etc/passwd')",
    "select * from read_json_auto('/etc/passwd')",
    "select * from parquet_scan('x')",
    "select * from glob('/etc/*')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from '/etc/passwd'",
    'select * from "/etc/passwd"',
    "select * from 'file.csv'",
    "select * from 'https://example.com/x.parquet'",
    "select * from people, '/etc/passwd'",
    "select (select content from read_text('/etc/passwd'))",
    "with x as (select * from read_csv('/etc/passwd')) select * from x",
    "select 1 union all select count(*) from read_csv('/etc/passwd')",
    "select * from people where exists (select 1 from read_csv('/etc/passwd'))",
    "select * from (values (1)) v(x), lateral (select * from read_csv('/etc/passwd')) l",
    "select getenv('HOME')",
    "select current_setting('memory_limit')",
    "select current_query()",
    "select getvariable('x')",
    "select * from duckdb_tables()",
    "select * from duckdb_settings()",
    "select * from duckdb_functions()",
    "select * from duckdb_secrets()",
    "select * from duckdb_prepared_statements()",
    "select * from duckdb_tables",
    "select * from pragma_table_info('people')",
    "select * from pragma_version()",
    "select * from pg_catalog.pg_class",
    "select * from pg_class",
    "select * from sqlite_master",
    "select * from main.people",
    "select * from temp.people",
    "select * from memory.main.people",
    "select * from system.main.duckdb_tables",
    "select * from __s0",
    'select * from "__s0"',
    "select * from secret_of_python",
    "select * from world",
    "select * from query('select 1')",
    "select * from query_table('people')",
    "select * from seq_scan('people')",
    "select * from arrow_scan(1, 2, 3)",
    "select * from arrow_scan_dumb(1, 2, 3)",
    "select * from pandas_scan(1)",
    "select * from python_arrow_scan(1)",
    "select * from json_execute_serialized_sql('{}')",
    "select json_serialize_sql('select 1')",
    "select json_serialize_plan('select 1')",
    "select json_deserialize_sql('{}')",
    "select write_log('x')",
    "select nextval('s')",
    "select setseed(0.5)",
    "select sleep_ms(100000)",
    "select pg_sleep(100)",
    "select txid_current()",
    "select has_table_privilege('people', 'select')",
    "select error('x')",
    "select * from which_secret('x', 's3')",
    "select * from enable_logging()",
    "select * from checkpoint()",
    "select * from force_checkpoint()",
    "select * from test_all_types()",
    "select * from summary((select 1))",
    "select * from repeat_row(1, num_rows = 3), read_csv('/etc/passwd')",
    "select __hr_snowflake_id(1)",
    "select * from people at (version => 1)",
    "from (show tables)",
    "from (describe people)",
    "from (summarize people)",
    "select system.main.getenv('HOME')",
    "select main.abs(1)",
    "select x.getenv() from (select 'HOME' as x)",
    "select 'HOME'.getenv()",
    "select list_transform(['HOME'], lambda x: getenv(x))",
    "select list_aggregate([1], 'getenv')",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_nothing_outside_is_reached(world: World, text: str) -> None:
    with pytest.raises(SqlError) as caught:
        world.run(text)
    assert isinstance(caught.value, (InvalidSql, TableNotFound, Unsupported, PermissionDenied, ExecutionError))
    message = caught.value.message.lower()
    assert "root:" not in message
    assert "__s" not in message or "__s0" in text
    assert "duckdb" not in message or "duckdb" in text
    assert world.rows("select count(*) from people") == [(2,)]


@pytest.mark.parametrize(
    "text",
    [
        "copy people to '/tmp/x.csv'", "copy (select 1) to '/tmp/x'", "attach '/tmp/x.db' as x", "install httpfs",
        "load httpfs", "pragma database_list", "set memory_limit = '1GB'", "reset threads", "call pragma_version()",
        "export database '/tmp/x'", "import database '/tmp/x'", "create macro f() as 1", "vacuum", "checkpoint",
        "prepare p as select 1", "execute p", "create secret s (type s3)", "select 1; pragma version",
        "detach x", "use memory", "comment on table people is 'x'",
    ],
)  # fmt: skip
def test_commands_are_no_queries(world: World, text: str) -> None:
    with pytest.raises((SqlError, AssertionError)):
        world.run(text)


def test_value_functions_of_duckdb_are_ours(world: World) -> None:
    assert world.rows("select current_user, current_role") == [("alice", "user")]
    with pytest.raises(InvalidSql):
        world.run('select "current_catalog"')


def test_an_endless_recursion_times_out_and_the_connection_lives(world: World) -> None:
    started = time.monotonic()
    with pytest.raises(QueryTimeout):
        world.run("with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r", timeout=0.5)
    assert time.monotonic() - started < 5
    assert world.rows("select 1") == [(1,)]


def test_a_slow_cross_join_times_out(world: World) -> None:
    text = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range < 0"
    with pytest.raises(QueryTimeout):
        world.run(text, timeout=0.5)


def test_cancelling_interrupts(world: World) -> None:
    control = Control(60)
    plan = world.bind("select count(*) from range(1000000) a, range(1000000) b where a.range + b.range < 0")
    threading.Timer(0.3, control.stop, [Cancelled("The client went away.")]).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        list(stream_query(plan, Execution(world.view, ALICE, control), world.runtime))
    assert time.monotonic() - started < 5


def test_a_stopped_statement_does_not_begin(world: World) -> None:
    control = Control(60)
    control.stop(Cancelled("The client went away."))
    with pytest.raises(Cancelled):
        list(stream_query(world.bind("select 1"), Execution(world.view, ALICE, control), world.runtime))


def test_a_billion_rows_are_too_many(world: World) -> None:
    with pytest.raises(ResultTooLarge, match="LIMIT"):
        world.run("select * from range(1000000000)", max_rows=100_000)
    assert world.run("select * from range(100000)", max_rows=100_000).num_rows == 100_000


@pytest.mark.parametrize(
    "text",
    [
        "select array_agg(a.range) from range(1000000000) a",
        "select * from range(100000000) a, range(100) b order by a.range * b.range desc limit 50000000",
        "select a.range, string_agg(b.range::text, ',') from range(100000) a, range(100000) b group by all",
        "select length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))",
        "select len(list_transform(range(100000), lambda x: range(100000)))",
        "select printf('%2000000000d', 1)",
        "with recursive r(s) as (select 'x' union all select s || s from r) select count(*) from r",
    ],
)
def test_memory_is_bounded(world: World, text: str) -> None:
    with pytest.raises((MemoryLimitExceeded, QueryTimeout)):
        world.run(text, timeout=4)
    assert world.rows("select count(*) from people where name > 'A'", duckdb=True) == [(2,)]


@pytest.mark.parametrize("crowded", [True, False])
def test_a_query_runs_again_when_others_had_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, *, crowded: bool
) -> None:
    done, begun = threading.Event(), threading.Event()
    streams = duck_api.stream
    calls: list[bool] = []

    def refused_once(*arguments: Any) -> Any:
        calls.append(done.is_set())
        if len(calls) > 1:
            return streams(*arguments)
        done.set()
        raise duckdb.OutOfMemoryException("Out of Memory Error: Failed to allocate block of 9 bytes (bad allocation)")

    def other() -> None:
        with world.pool.lease(Control(20)):
            begun.set()
            done.wait(20)

    monkeypatch.setattr(duck_api, "stream", refused_once)
    if crowded:
        guest = threading.Thread(target=other)
        guest.start()
        assert begun.wait(20)
        assert world.run("select count(*), min(name || 'x') from people").num_rows == 1
        guest.join()
        assert calls == [False, True]
    else:
        with pytest.raises(MemoryLimitExceeded, match="more memory than the server has"):
            world.run("select count(*), min(name || 'x') from people")
        assert calls == [False]


def test_a_stream_can_be_left(world: World) -> None:
    plan = world.bind("select * from range(1000000000)")
    batches = stream_query(plan, Execution(world.view, ALICE, Control(30)), world.runtime)
    assert next(batches).num_rows > 0
    batches.close()  # type: ignore[attr-defined]
    assert world.rows("select 1") == [(1,)]


def test_more_queries_than_connections_wait(world: World) -> None:
    results: list[int] = []

    def work() -> None:
        results.extend(world.run("select sum(id) from people").column(0)[0].as_py() for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 40


def test_the_scans_of_one_query_are_gone_in_the_next(world: World) -> None:
    world.run("select sum(id) from people")
    for name in ("__s0", "__s1", "people"):
        session = world.pool._free[-1]
        with pytest.raises(Exception, match="does not exist"):
            session.collect(f'select * from "{name}"', (), 10)
