"""What the binder makes of names, parameters, types, stars and orders."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal

import pytest

from sql.duck import DuckOptions, DuckPool
from sql.errors import ExecutionError, InvalidParameter, InvalidSql, SqlError
from sql.plan import Constant, KeyAccess, ParameterRef, Path
from storage.catalog import TableKind
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FILE,
    FLOAT,
    INT,
    JSON,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    decimal,
    embedding,
)
from tests.sql.fake_view import FakeView
from tests.sql.query_support import ALICE, World, table

COLUMNS = [
    ("id", BIGINT), ("small", SMALLINT), ("int", INT), ("f", FLOAT), ("x", DOUBLE), ("name", TEXT), ("ok", BOOLEAN),
    ("ts", TIMESTAMP), ("dt", DATETIME), ("d", DATE), ("t", TIME), ("j", JSON), ("b", BYTES), ("u", UUID),
    ("dec", decimal(38, 10)), ("e", embedding(3)), ("file", FILE),
]  # fmt: skip
ALL = table(1, "every", COLUMNS)
PAIR = table(2, "pair", [("a", TEXT), ("n", BIGINT), ("v", TEXT)], key=("a", "n"), kind=TableKind.USER)
BARE = table(3, "bare", [("v", INT)], key=())
PEOPLE = table(4, "people", [("id", BIGINT), ("name", TEXT), ("boss", BIGINT)])


def _row(n: int) -> tuple[object, ...]:
    cents = Decimal(n).quantize(Decimal("1e-10"))
    return (
        n, n, n, n / 2, n / 2, f"n{n}", n % 2 == 0, n * 10**6, n * 10**6, n, n, f'{{"a":{n}}}', bytes([n]),
        bytes([n]) * 16, cents, [float(n), 1.0, 0.0], '{"name":"x"}',
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    view = FakeView([ALL, PAIR, BARE, PEOPLE])
    view.put(ALL, "alice", [_row(n) for n in (3, 1, 2)])
    view.put(PAIR, "alice", [(a, n, f"{a}{n}") for a in "ba" for n in (2, 1, 3)])
    view.put(BARE, "alice", [(3,), (1,), (2,)])
    view.put(PEOPLE, "alice", [(1, "Ann", None), (2, "Ben", 1), (3, "Cid", 1), (4, "Dee", 2)])
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield World(view, pool)
    pool.close()


def types(world: World, text: str, *params: object) -> list[str]:
    return [str(column.type) for column in world.bind(text, params).columns]


def test_every_type_comes_out_as_it_went_in_on_both_paths(world: World) -> None:
    plan = world.bind("select * from every where id = 2")
    assert [column.type for column in plan.columns] == [kind for _, kind in COLUMNS]
    engine = plan.for_duckdb()
    assert [column.type for column in engine.columns] == [kind for _, kind in COLUMNS]
    native = world.run("select * from every where id = 2")
    assert native.equals(world.run("select * from every where id = 2", duckdb=True))
    assert native.schema == ALL.arrow_schema
    assert [column.flags for column in plan.columns][:2] == [("pk", "nn", "uq"), ()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select sum(id), sum(small), avg(id), count(*) from every", ["BIGINT", "BIGINT", "DOUBLE", "BIGINT"]),
        ("select 1::hugeint, 1::ubigint, 1::utinyint, 1::usmallint, 1::uinteger, 1::uhugeint",
         ["BIGINT", "DECIMAL(20,0)", "SMALLINT", "INT", "BIGINT", "DECIMAL(38,0)"]),
        ("select [1], {'a': 1}, map {'a': 1}, [1.5::float]::float[1], [1]::int[1]",
         ["JSON", "JSON", "JSON", "EMBEDDING(1)", "JSON"]),
        ("select interval 1 day, null, 'x'::enum('x'), '101'::bit", ["TEXT", "TEXT", "TEXT", "TEXT"]),
        ("select now(), current_date, current_timestamp, localtimestamp",
         ["TIMESTAMP", "DATE", "TIMESTAMP", "TIMESTAMP"]),
        ("select j->'a', j->>'a', file, file->>'name' from every", ["JSON", "TEXT", "FILE", "TEXT"]),
        ("select snowflake_id(), uuid_v7(), ulid(), current_user", ["BIGINT", "TEXT", "TEXT", "TEXT"]),
        ("select _seq, _deleted from every", ["BIGINT", "BOOLEAN"]),
        ("select cosine_distance(e, '[1,2,3]') from every", ["FLOAT"]),
        ("select timestamp_ns '2020-01-01 00:00:00.000001002', '2020-01-01'::timestamp_s", ["TIMESTAMP", "TIMESTAMP"]),
    ],
)  # fmt: skip
def test_result_types(world: World, text: str, expected: list[str]) -> None:
    assert types(world, text) == expected
    assert world.run(text).num_rows in {1, 3}


def test_values_of_converted_types(world: World) -> None:
    assert world.rows("select 1::hugeint, 2::ubigint, [1, 2], {'a': null}, interval 1 day, null::int[]") == [
        (1, Decimal(2), "[1,2]", '{"a":null}', "1 day", None)
    ]
    with pytest.raises(ExecutionError, match="does not fit BIGINT"):
        world.run("select 9223372036854775808::hugeint as n")
    assert world.rows("select -9223372036854775808::hugeint, null::hugeint union all select 5, 6 order by 1") == [
        (-(2**63), None), (5, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "params", "expected"),
    [
        ("select id from every where ts = $1", ["1970-01-01T00:00:02Z"], ["TIMESTAMP"]),
        ("select id from every where $1 < dec and d in ($2, $3)",
         ["1.5", "1970-01-03", 2], ["DECIMAL(38,10)", "DATE", "DATE"]),
        ("select id from every where u between $1 and $2", ["00000000000000000000000000000000"] * 2, ["UUID", "UUID"]),
        ("select id from every where name like $1 limit $2 offset $3", ["%", 1, 0], ["TEXT", "BIGINT", "BIGINT"]),
        ("select $1, $2, $3, $4, $5, $6",
         [1, 1.5, "a", True, None, [1]], ["BIGINT", "DOUBLE", "TEXT", "BOOLEAN", "TEXT", "JSON"]),
        ("select upper($1), abs(id + $2) from every", ["a", 1], ["TEXT", "BIGINT"]),
        ("select id from every where e = $1", [[1, 2, 3]], ["EMBEDDING(3)"]),
        ("select cast($1 as date), $2::smallint", ["2024-01-01", 3], ["DATE", "SMALLINT"]),
        ("select coalesce(ts, $1), case when ok then t else $2 end from every",
         ["2024-01-01", 5], ["TIMESTAMP", "TIME"]),
        ("select id from every where id = any($1)", [[1, 2]], ["BIGINT"]),
        ("select id from every a where exists (select 1 from pair p where p.n = a.id and p.a = $1)", ["a"], ["TEXT"]),
        ("select id from every where dt > $1 and upper(name) = $2", [0, "N1"], ["DATETIME", "TEXT"]),
    ],
)  # fmt: skip
def test_parameters_take_their_types_from_context(
    world: World, text: str, params: list[object], expected: list[str]
) -> None:
    plan = world.bind(text, params)
    assert [str(parameter.type) for parameter in plan.request_parameters] == expected
    world.run(text, *params)
    world.run(text, *params, duckdb=True)


def test_kinds_matter_only_where_context_says_nothing(world: World) -> None:
    assert not world.bind("select id from every where id = $1 and upper(name) = $2", [1, "a"]).kinds_matter
    assert world.bind("select $1", [1]).kinds_matter
    with pytest.raises(InvalidParameter, match=r"\$2 is missing"):
        world.run("select $1, $2", 1)
    with pytest.raises(InvalidParameter, match=r"\$1"):
        world.run("select id from every where id = $1", "one")
    assert world.rows("select id from every where id = $3", None, None, 2) == [(2,)]
    assert world.rows("select $3::int, $1::int", 1, None, 2) == [(2, 1)]


def test_lists_for_any(world: World) -> None:
    days = ["1970-01-02", 3]
    assert world.rows("select id from every where d = any($1) order by 1", days) == [(1,), (3,)]
    uuids = ["01" * 16, "03" * 16]
    assert world.rows("select id from every where u = any($1) order by 1", uuids) == [(1,), (3,)]
    assert world.rows("select id from every where dec = any($1)", ["2", None]) == [(2,)]
    assert world.rows("select id from every where id = any($1)", None) == []
    with pytest.raises(InvalidParameter, match="must be an array"):
        world.run("select id from every where id = any($1)", 1)


@pytest.mark.parametrize(
    ("text", "access", "path"),
    [
        ("select * from pair where a = 'a' and n = 1", KeyAccess((Constant("a"), Constant(1))), Path.POINT),
        ("select * from pair where 1 = n and (a = $1)", KeyAccess((ParameterRef(1), Constant(1))), Path.POINT),
        ("select upper(v) from pair where a = 'a' and n = 1", KeyAccess((Constant("a"), Constant(1))), Path.DUCKDB),
        ("select * from pair where a = 'a'", KeyAccess((Constant("a"),)), Path.NATIVE),
        ("select * from pair where n = 1", None, Path.NATIVE),
        ("select * from pair where a = 'a' or n = 1", None, Path.NATIVE),
        ("select * from pair where a = 5", None, Path.DUCKDB),
        ("select * from people where id = 1.5", None, Path.NATIVE),
        ("select * from people where id = 99999999999999999999", None, Path.DUCKDB),
    ],
)
def test_key_access(world: World, text: str, access: KeyAccess | None, path: Path) -> None:
    plan = world.bind(text, ["a"])
    assert plan.scans[0].key == access
    if path is not Path.NATIVE or plan.path is not Path.DUCKDB:
        assert plan.path is path


def test_key_ranges_read_the_same(world: World) -> None:
    for condition in [
        "a = 'a' and n > 1",
        "a = 'a' and n between 1 and 2",
        "a >= 'b'",
        "a > 'a' and a < 'c'",
        "a < 'b'",
    ]:
        text = f"select v from pair where {condition}"
        assert world.bind(text).scans[0].key is not None
        expected = world.rows(f"select v from (select * from pair) p where {condition} order by a, n")
        assert world.rows(text) == expected
        assert world.rows(text, duckdb=True) == expected


def test_keys_are_pushed_below_joins_but_not_below_asof(world: World) -> None:
    joined = world.bind("select * from people a left join people b on a.boss = b.id where a.id = 4 and b.id = 2")
    assert [scan.key for scan in joined.scans] == [KeyAccess((Constant(4),)), KeyAccess((Constant(2),))]
    asof = world.bind("select * from people a asof join people b on a.id >= b.id where b.id = 2")
    assert [scan.key for scan in asof.scans] == [None, None]


def test_point_plans_for_the_hot_path(world: World) -> None:
    plan = world.bind("select name, id from people where id = $1", [1])
    assert (plan.point_key, plan.projection, plan.residual_filter) == ((ParameterRef(1),), ("name", "id"), False)
    plan = world.bind("select name from people where id = $1 and name = 'Ann'", [1])
    assert plan.residual_filter
    assert world.bind("select name from people where id = $1 and id = 2", [1]).residual_filter
    assert world.rows("select name from people where id = $1 and id = 2", 1) == []
    assert world.rows("select name from people where id = $1", None) == []


def test_default_order(world: World) -> None:
    for text in [
        "select n from pair",
        "select upper(v), n from pair",
        "select n, row_number() over (order by v desc) from pair",
    ]:
        result = world.rows(text)
        assert [row[-1] if text.startswith("select upper") else row[0] for row in result] == [1, 2, 3, 1, 2, 3]
    assert world.rows("select v from bare") == [(3,), (1,), (2,)]
    assert world.rows("select v from pair limit 2 offset 1") == [("a2",), ("a3",)]
    assert world.rows("select -n as n from pair where v in (select v from pair)")[:3] == [(-1,), (-2,), (-3,)]
    assert world.rows("select a, n from pair order by a desc, n desc limit 2") == [("b", 3), ("b", 2)]
    assert world.bind("select a, n from pair order by a desc, n desc limit 2").path is Path.NATIVE


def test_hidden_columns_show_only_when_named(world: World) -> None:
    assert [c.name for c in world.bind("select * from people").columns] == ["id", "name", "boss"]
    assert [c.name for c in world.bind("select *, _seq from people").columns][-2:] == ["boss", "_seq"]
    joined = world.run("select * from people a join people b on a._seq = b._seq")
    assert joined.column_names == ["id", "name", "boss"] * 2
    assert world.run("select a.*, a._seq from people a, bare").column_names == ["id", "name", "boss", "_seq"]
    assert world.run("select * from (select *, _seq from people)").column_names[-1] == "_seq"
    assert world.run("select *, _deleted from people where upper(name) = 'ANN'").column_names[-1] == "_deleted"
    assert world.rows("select distinct _deleted from people") == [(False,)]
    with pytest.raises(InvalidSql, match="NATURAL"):
        world.run("select * from people natural join bare where people._seq > 0")


def test_names(world: World) -> None:
    assert world.run("select default.people.name from default.people").column_names == ["name"]
    assert world.run('select name as "Full Name", 1 + 1, count(*) over () from people').column_names == [
        "Full Name", "1 + 1", "count(*) over ()",
    ]  # fmt: skip
    assert world.rows("with people as (select 7 as id) select id from people") == [(7,)]
    assert world.rows("with __s0 as (select 7 as id) select __s0.id, p.id from __s0, people p where p.id = 1") == [
        (7, 1)
    ]
    assert world.rows("with p as (with q as (select 1 as n) select * from q) select n from p") == [(1,)]
    assert world.rows(
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select sum(n) from r"
    ) == [(6,)]


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("select nam from people", "Column not found: 'nam'. Did you mean 'name'?", 1, 8),
        ("select upper(nam)\nfrom people", "Column not found: 'nam'. Did you mean 'name'?", 1, 14),
        ("select p.foo from people p, bare", "Column not found: 'foo'", 1, 8),
        ("select 1,\n  x.name from people p, bare", "Table or alias not found in this part of the query: 'x'", 2, 3),
        ("select id,\n abs(name) from people",
         "No function matches the given name and argument types 'abs(VARCHAR)'.", 2, 2),
        ("select nofun(id) from people", "There is no function nofun().", 1, 8),
        ("select id from people a, people b", "Ambiguous reference to column name", 1, 8),
        ("select name, count(*) from people", "must appear in the GROUP BY clause", 1, 8),
        ("select id from people order by $1", "Parameter not supported in ORDER BY", None, None),
    ],
)  # fmt: skip
def test_errors_say_what_and_where(world: World, text: str, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(InvalidSql) as caught:
        world.run(text, *([1] if "$1" in text else []))
    assert message in caught.value.message
    assert "__s" not in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_run_time_errors(world: World) -> None:
    with pytest.raises(ExecutionError, match=r"Could not convert string 'Ann' to INT32"):
        world.run("select cast(name as int) from people")
    with pytest.raises(ExecutionError, match="by zero"):
        world.run("select id // 0 from people")
    with pytest.raises(ExecutionError, match="More than one row"):
        world.run("select (select id from people)")
    with pytest.raises(SqlError, match="negative"):
        world.run("select id from people limit $1", -1)


def test_shapes_that_duckdb_answers(world: World) -> None:
    assert world.rows(
        "select p.name, (select count(*) from people c where c.boss = p.id) n from people p qualify row_number() over "
        "(order by n desc) = 1"
    ) == [("Ann", 2)]
    assert world.rows("select boss, list(name order by name) from people group by all order by all") == [
        (1, '["Ben","Cid"]'), (2, '["Dee"]'), (None, '["Ann"]'),
    ]  # fmt: skip
    assert world.rows("select p.id, x from people p, lateral (select p.id * 2 as x) where p.id = 2") == [(2, 4)]
    assert world.rows("values (1, 'a'), (2, 'b')") == [(1, "a"), (2, "b")]
    assert world.rows("from people select name where id = 1") == [("Ann",)]
    assert world.rows("select unnest([1, 2]) as n order by n") == [(1,), (2,)]
    assert world.rows("select x from range(2) r(x) union all by name select id as x from people where id = 4") == [
        (0,),
        (1,),
        (4,),
    ]
    assert world.rows("select count(*) from people tablesample 100%") == [(4,)]


def test_renamed_columns_are_not_taken_for_others(world: World) -> None:
    renamed = "people as p(name, id, x)"
    assert world.rows(f"select p.name, p.id from {renamed} where p.name = 1") == [(1, "Ann")]
    assert world.rows(f"select p.name from {renamed} where p.id = 'Ben'") == [(2,)]
    assert world.rows(f"select * from {renamed} where x = 2") == [(4, "Dee", 2)]
    assert world.run(f"select * from {renamed}").column_names == ["name", "id", "x"]
    assert [column.flags for column in world.bind(f"select name from {renamed}").columns] == [()]


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ("COUNT( * )", "count( * )"),
        ("list(id)", "list(id)"),
        ("string_agg(name, ',' ORDER BY id DESC)", "string_agg(name, ',' ORDER BY id DESC)"),
        ("1  -- one\n  + 1", "1 + 1"),
        ("id IS DISTINCT FROM 3", "id IS DISTINCT FROM 3"),
        ("extract(year FROM DATE '2020-01-01')", "extract(year FROM DATE '2020-01-01')"),
        ("mode() WITHIN GROUP (ORDER BY id)", "mode() WITHIN GROUP (ORDER BY id)"),
        ("CASE WHEN id IN (1, 2) THEN 'from, where' END", "CASE WHEN id IN (1, 2) THEN 'from, where' END"),
        ("(SELECT Max(id) FROM people WHERE id > 0)", "(SELECT max(id) FROM people WHERE id > 0)"),
        ("[1, 2]::INT[]", "[1, 2]::INT[]"),
        ("ARRAY[1, 2]", "ARRAY[1, 2]"),
        ("'1'::DECIMAL", "'1'::DECIMAL"),
        ("SUBSTR('abc', 2)", "substr('abc', 2)"),
        ("now() IS NOT NULL", "now() IS NOT NULL"),
        ("ID + 1", "ID + 1"),
    ],
)
def test_unnamed_outputs_are_called_as_written(world: World, item: str, name: str) -> None:
    group = "" if "(" in item else "WHERE id = 1"
    for text in (
        f"SELECT {item} FROM people {group} GROUP BY id" if not group else f"SELECT {item} FROM people {group}",
        f"SELECT DISTINCT {item} FROM people GROUP BY id UNION ALL SELECT NULL ORDER BY 1 LIMIT 1",
        f"WITH c AS (SELECT 1, 2) SELECT DISTINCT ON (id, 1) {item}, 7 FROM people GROUP BY id",
    ):
        assert world.run(text).column_names[0] == name, text


def test_stars_of_all_kinds(world: World) -> None:
    assert world.run("select * exclude (boss) from people").column_names == ["id", "name"]
    assert world.run("select * replace (upper(name) as name) from people").column_names == ["id", "name", "boss"]
    assert world.run("select columns('n.*') from people").column_names == ["name"]
    assert world.run("select p.*, count(*) over () from people p").column_names[-1] == "count(*) over ()"
    assert world.rows("select count(*), max(columns(*)) from people where id = 1") == [(1, 1, "Ann", None)]
    assert world.rows("select people.name from people where people is not null and id = 1") == [("Ann",)]


def test_dates_with_zones(world: World) -> None:
    assert world.rows(
        "select date_trunc('hour', dt), dt + interval 1 day, extract(second from dt), strftime(dt, '%Y'), dt::date, "
        "dt at time zone 'Europe/Berlin', age(ts) > interval 1 year from every where id = 1"
    )[0][2:4] == (1, "1970")


def test_our_functions(world: World) -> None:
    ids = [row[0] for row in world.rows("select snowflake_id() from people")]
    assert len(set(ids)) == 4
    [(first, second)] = world.rows("select uuid_v7(), uuid_v7()")
    assert first != second
    assert world.bind("select ulid()").volatile
    assert world.bind("select random()").volatile
    assert not world.bind("select now()").volatile
    [(now, again)] = world.rows("select now(), current_timestamp")
    assert isinstance(now, datetime.datetime)
    assert now == again
    assert world.rows("select current_user, current_user(), current_role(), current_role") == [
        ("alice", "alice", "user", "user")
    ]
    distances = [row[0] for row in world.rows("select cosine_distance(e, '[1, 1, 0]') from every")]
    assert distances == pytest.approx([0.0, 0.0513, 0.1056], abs=1e-4)
    assert world.rows("select cosine_distance([0.0]::float[1], '[1]'), cosine_distance(null, '[1]')") == [(1.0, None)]
    with pytest.raises(SqlError, match="dimensions"):
        world.run("select cosine_distance(e, '[1]') from every")
    assert world.rows("select cosine_distance(e, $1) from every where id = 1", [1, 1, 0]) == [(0.0,)]


def test_counting_reads_no_rows(world: World) -> None:
    assert world.rows("select count(*) from people") == [(4,)]
    assert world.rows("select count(*) as n from people where id > 2") == [(2,)]
    assert world.rows("select count(*) from people limit 0") == []
    assert world.run("select 1 from people", identity=ALICE).num_rows == 4
