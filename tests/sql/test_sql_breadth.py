"""The breadth of the SQL: each query answers as plain DuckDB does on a copy of the rows, or as stated."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from sql.database import Database
from sql.duck import DuckOptions
from sql.duck_results import stored
from sql.duck_types import output_cast, result_type, to_duck_column
from sql.errors import InvalidParameter, SqlError, Unsupported
from sql.identity import Identity, Role
from sql.results import StatementResult
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine
from storage.types import arrow_type

ADMIN = Identity("admin", Role.DBA)
ANN = Identity("ann", Role.USER)

SET_UP = r"""
CREATE TABLE a (id INT PRIMARY KEY, grp TEXT, n INT, amt DECIMAL(10,2), ts TIMESTAMP, d DATE, tm TIME, z DATETIME,
  u UUID, j JSON, e EMBEDDING(3), f DOUBLE, b BYTES, ok BOOLEAN, big BIGINT, sm SMALLINT, fl FLOAT);
CREATE TABLE b (id INT PRIMARY KEY, a_id INT, label TEXT, ts TIMESTAMP);
CREATE TABLE "select" ("from" INT PRIMARY KEY, "order by" TEXT, "Grö ße" INT, "a""b" INT);
INSERT INTO a VALUES
 (1, 'x', 10, 1.50, '2024-01-01 10:00:00', '2024-01-01', '10:00:00', '2024-01-01T10:00:00Z',
  '550e8400-e29b-41d4-a716-446655440000', '{"k":[1,2],"s":"t"}', [1,0,0], 1.5, '\x01', true, 9007199254740993, 1, 0.5),
 (2, 'x', 20, 2.25, '2024-02-29 23:59:59.123456', '2024-02-29', '23:59:59', '2024-02-29T23:59:59+02:00',
  '550e8400-e29b-41d4-a716-446655440001', '[1,2,3]', [0,1,0], -2.5, NULL, false, -5, 2, 1.25),
 (3, 'y', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (4, 'y', 5, 0.10, '1969-12-31 23:59:59', '1969-12-31', '00:00:00', '1969-12-31T23:59:59Z',
  '00000000-0000-0000-0000-000000000000', '"s"', [1,1,1], 0, '\xff00', true, 0, -3, -1);
INSERT INTO b VALUES (1, 1, 'p', '2024-01-01 09:00:00'), (2, 1, 'q', '2024-01-01 11:00:00'),
  (3, 2, 'r', '2024-02-01 00:00:00'), (4, 9, 's', NULL);
INSERT INTO "select" VALUES (1, 'one', 10, 100), (2, 'two', 20, 200)
"""

SAME = r"""
SELECT a.id, b.label FROM a JOIN b ON b.a_id = a.id ORDER BY 1, 2
SELECT a.id, b.label FROM a LEFT JOIN b ON b.a_id = a.id ORDER BY 1, 2
SELECT a.id, b.label FROM a RIGHT JOIN b ON b.a_id = a.id ORDER BY 1, 2
SELECT a.id, b.label FROM a FULL OUTER JOIN b ON b.a_id = a.id ORDER BY 1, 2
SELECT a.id, b.id FROM a CROSS JOIN b ORDER BY ALL
SELECT a.id, c.id FROM a, b c WHERE a.id < c.id ORDER BY 1, 2
SELECT x.id, y.id FROM a x JOIN a y ON x.grp = y.grp AND x.id < y.id ORDER BY 1
SELECT id, grp, label FROM a JOIN b USING (id) ORDER BY id
SELECT * FROM b LEFT JOIN (SELECT id, grp FROM a WHERE id < 3) q USING (id) ORDER BY id
SELECT * FROM (SELECT id, grp FROM a) p NATURAL JOIN (SELECT id, label FROM b) q ORDER BY id
SELECT * FROM (SELECT id, grp FROM a) p NATURAL FULL JOIN (SELECT id + 2 AS id, label FROM b) q ORDER BY id
SELECT a.id, l.label FROM a, LATERAL (SELECT label FROM b WHERE a_id = a.id ORDER BY label DESC LIMIT 1) l ORDER BY 1
SELECT a.id, l.c FROM a LEFT JOIN LATERAL (SELECT count(*) AS c FROM b WHERE b.a_id = a.id) l ON true ORDER BY 1
SELECT a.id, b.label FROM a ASOF JOIN b ON a.ts >= b.ts ORDER BY 1
SELECT a.id, b.label FROM a ASOF LEFT JOIN b ON a.id = b.a_id AND a.ts >= b.ts ORDER BY 1
SELECT id FROM a SEMI JOIN b ON b.a_id = a.id ORDER BY 1
SELECT id FROM a ANTI JOIN b ON b.a_id = a.id ORDER BY 1
WITH RECURSIVE r(n, f) AS (SELECT 1, 1 UNION ALL SELECT n + 1, f * (n + 1) FROM r WHERE n < 6) SELECT n, f FROM r
  ORDER BY n
WITH RECURSIVE r AS (SELECT id, a_id FROM b WHERE id = 1 UNION SELECT b.id, b.a_id FROM b JOIN r ON b.a_id = r.a_id)
  SELECT id FROM r ORDER BY 1
WITH x AS MATERIALIZED (SELECT id FROM a), y AS NOT MATERIALIZED (SELECT id FROM x) SELECT count(*) FROM y
WITH a AS (SELECT 7 AS id) SELECT id FROM a
WITH c(p, q) AS (VALUES (1, 2), (3, 4)) SELECT p + q AS s FROM c ORDER BY s
SELECT id, (SELECT count(*) FROM b WHERE b.a_id = a.id) FROM a ORDER BY 1
SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id) ORDER BY 1
SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id AND b.label > a.grp) ORDER BY 1
SELECT id FROM a WHERE n > ANY (SELECT a_id FROM b) ORDER BY 1
SELECT id FROM a WHERE n >= ALL (SELECT n FROM a WHERE n IS NOT NULL) ORDER BY 1
SELECT id FROM a WHERE (id, 1) IN (SELECT a_id, 1 FROM b) ORDER BY 1
SELECT id FROM a WHERE id NOT IN (SELECT a_id FROM b) ORDER BY 1
SELECT grp, (SELECT max(label) FROM b WHERE b.a_id = min(a.id)) FROM a GROUP BY grp ORDER BY 1
SELECT grp, ok, sum(n), grouping(grp, ok) FROM a GROUP BY GROUPING SETS ((grp), (ok), ()) ORDER BY ALL
SELECT grp, ok, count(*) FROM a GROUP BY ROLLUP (grp, ok) ORDER BY ALL
SELECT grp, ok, count(*) FROM a GROUP BY CUBE (grp, ok) ORDER BY ALL
SELECT grp, count(*) FROM a GROUP BY ALL ORDER BY ALL
SELECT count(*) FILTER (WHERE n > 5), sum(n) FILTER (WHERE ok), list(id ORDER BY id) FILTER (n > 5) FROM a
SELECT id, sum(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), avg(n) OVER (PARTITION BY grp) FROM a
  ORDER BY id
SELECT id, lag(n, 1, 0) OVER w, lead(n) OVER w, first_value(id) OVER w, ntile(2) OVER w, rank() OVER w, percent_rank()
  OVER w FROM a WINDOW w AS (ORDER BY id DESC) ORDER BY id
SELECT id, sum(id) OVER (ORDER BY id RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM a ORDER BY id
SELECT id, sum(id) OVER (ORDER BY grp GROUPS BETWEEN CURRENT ROW AND 1 FOLLOWING) FROM a ORDER BY id
SELECT id, sum(id) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW)
  FROM a ORDER BY id
SELECT id, last_value(n IGNORE NULLS) OVER (ORDER BY id) FROM a ORDER BY id
SELECT id, count(*) OVER (ORDER BY ts RANGE BETWEEN INTERVAL 60 DAY PRECEDING AND CURRENT ROW) FROM a WHERE ts IS NOT
  NULL ORDER BY id
SELECT id, grp FROM a QUALIFY row_number() OVER (PARTITION BY grp ORDER BY id DESC) = 1 ORDER BY id
SELECT grp, sum(n) AS s FROM a GROUP BY grp HAVING s > 5 ORDER BY s
SELECT id FROM a UNION SELECT id FROM b EXCEPT SELECT 4 ORDER BY id DESC LIMIT 2
SELECT id FROM a UNION ALL BY NAME SELECT a_id, id FROM b ORDER BY ALL
(SELECT id FROM a ORDER BY id DESC LIMIT 1) UNION ALL (SELECT a_id FROM b ORDER BY a_id LIMIT 1) ORDER BY 1
SELECT id FROM a INTERSECT ALL SELECT a_id FROM b ORDER BY 1
SELECT grp FROM a EXCEPT ALL SELECT 'x' ORDER BY 1
VALUES (1, 'a'), (2, 'b') ORDER BY 1 DESC
SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(x, y) ORDER BY x
SELECT unnest([1, 2, 3]) AS v, 'k'
SELECT * FROM unnest([1, 2, 3]) AS u(x)
SELECT id, x FROM a, unnest([id, n]) AS u(x) ORDER BY ALL
SELECT * FROM generate_series(1, 5, 2)
SELECT x FROM generate_series(1, 3) g(x) ORDER BY x DESC
SELECT g::DATE FROM generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-03', INTERVAL 1 DAY) s(g)
SELECT * FROM range(3) r(i)
FROM a SELECT id WHERE id < 3 ORDER BY id
TABLE b ORDER BY id
SELECT DISTINCT ON (grp) grp, id FROM a ORDER BY grp, id DESC
SELECT * EXCLUDE (ts) REPLACE (upper(label) AS label) FROM b ORDER BY id
SELECT b.* FROM a JOIN b ON a.id = b.a_id ORDER BY b.id
SELECT COLUMNS('^(id|n)$') FROM a ORDER BY id
SELECT id FROM a ORDER BY n DESC, id LIMIT 2 OFFSET 1
SELECT id FROM a ORDER BY n NULLS FIRST, id DESC
SELECT n FROM a ORDER BY n
SELECT n FROM a ORDER BY n DESC
SELECT n, row_number() OVER (ORDER BY n DESC) FROM a ORDER BY n DESC NULLS LAST
SELECT list(n ORDER BY n), list(n ORDER BY n DESC), string_agg(grp, '/' ORDER BY id) FROM a
SELECT upper(grp), length(grp), grp || '-' || id, concat_ws('-', grp, n), left('hello', 2), lpad('1', 3, '0') FROM a
  ORDER BY id
SELECT replace('aba', 'a', 'c'), regexp_replace('a1b2', '[0-9]', '#', 'g'), regexp_extract('k=v', '(\w)=(\w)', 2),
  'abc' ~ 'a.c'
SELECT 'abc' SIMILAR TO 'abc', 'ABC' ILIKE 'a%', 'a%b' LIKE 'a\%b' ESCAPE '\', 'abc' NOT LIKE 'b%', 'abc' GLOB 'a*'
SELECT split_part('a.b.c', '.', 2), string_split('a,b', ','), trim('  x '), position('b' IN 'abc'), substring('hello'
  FROM 2 FOR 3)
SELECT printf('%03d', 5), reverse('abc'), repeat('a', 3), starts_with('abc', 'a'), chr(65),
  ascii('A'), md5('a')
SELECT trim(BOTH 'x' FROM 'xax'), ltrim('xa', 'x'), initial FROM (SELECT left('word', 1) AS initial)
SELECT regexp_matches('Abc', 'abc', 'i'), regexp_extract_all('a1b22', '\d+'), regexp_split_to_array('a1b', '\d'),
  string_to_array('a b', ' ')
SELECT id, ts + INTERVAL '1 day', ts - INTERVAL 1 MONTH, d + 1, d - DATE '2023-12-31', tm + INTERVAL 1 HOUR FROM a
  ORDER BY id
SELECT id, z + INTERVAL 1 HOUR, date_trunc('month', ts), extract(dow FROM d), date_part('year', z), epoch(ts) FROM a
  ORDER BY id
SELECT id, date_diff('day', DATE '2023-01-01', d), strftime(ts, '%Y/%m'), d + INTERVAL 1 MONTH, d + tm, last_day(d),
  dayname(d) FROM a ORDER BY id
SELECT id, ts::DATE, ts::TIME, z::TIMESTAMP, z AT TIME ZONE 'America/New_York', ts AT TIME ZONE 'UTC', d::TIMESTAMP
  FROM a ORDER BY id
SELECT make_date(2024, 1, 2), strptime('2024-05-01', '%Y-%m-%d'), to_timestamp(0), time_bucket(INTERVAL 1 HOUR,
  TIMESTAMP '2024-01-01 10:30:00')
SELECT id, ts < z, d < ts, d = '2024-01-01', tm > '09:00', z = '2024-01-01 10:00:00+00', ts BETWEEN '2023-01-01' AND
  '2025-01-01' FROM a ORDER BY id
SELECT a.id, b.id FROM a JOIN b ON b.ts BETWEEN a.ts - INTERVAL 1 DAY AND a.ts + INTERVAL 1 DAY ORDER BY ALL
SELECT max(ts), min(z), max(d), min(tm), max(ts) - min(ts) > INTERVAL 1 YEAR FROM a
SELECT id, amt + 1, amt * 2, amt / 3, amt * amt, amt + 0.001, amt % 1, -amt, abs(amt), round(amt, 1) FROM a ORDER BY
  id
SELECT id, amt > 1, amt = 1.5, amt::DOUBLE, amt::INT, amt::TEXT, amt::DECIMAL(5,1), sum(amt) OVER () FROM a ORDER BY
  id
SELECT CAST('1.005' AS DECIMAL(38,10)), 0.1 + 0.2 = 0.3, 1.10 * 1.10, 7 / 2, 7 // 2, -7 // 2, -7 % 3, 2 ** 10, 10 & 6,
  10 | 5
SELECT sum(amt), avg(amt), min(amt), max(amt), sum(n), avg(n), sum(f), count(DISTINCT grp), median(n), stddev(n) FROM
  a
SELECT sum(big), sum(sm), sum(fl), bool_and(ok), bool_or(ok), arg_max(id, n), arg_min(grp, n), quantile_cont(n, 0.5),
  bit_or(id) FROM a
SELECT mode() WITHIN GROUP (ORDER BY grp), percentile_cont(0.5) WITHIN GROUP (ORDER BY n), corr(n, f), histogram(grp)
  FROM a
SELECT id FROM a WHERE u = '550e8400-e29b-41d4-a716-446655440000'
SELECT id FROM a WHERE u > '00000000-0000-0000-0000-000000000001' ORDER BY u DESC
SELECT id FROM a WHERE u IN ('550e8400-e29b-41d4-a716-446655440001', '00000000-0000-0000-0000-000000000000') ORDER BY
  id
SELECT u, u::TEXT, min(u) OVER () FROM a ORDER BY id
SELECT id, array_distance(e, [1, 0, 0]::FLOAT[3]), e[1], len(e), list_sum(e), e = [1, 1, 1] FROM a ORDER BY id
SELECT id, array_cosine_similarity(e, [1, 1, 0]::FLOAT[3]), array_inner_product(e, e) FROM a ORDER BY id
SELECT j -> 'k', j ->> 's', json_extract(j, '$.k[0]'), json_extract_string(j, '$.s'), json_type(j) FROM a ORDER BY id
SELECT json_array_length(j, '$.k'), upper(j ->> 's'), coalesce(j -> 'x' -> 'y', j ->
  's'), [j -> 's'] FROM a WHERE id = 1
SELECT coalesce(j ->> 's', '-'), concat(j ->> 's', '!'), json_extract_string(j, '$.k[1]')::INT + 1 FROM a ORDER BY id
SELECT list_transform([1, 2], lambda x: x + 1), list_filter([1, 2, 3], lambda x: x > 1), [x * 2 FOR x IN [1, 2] IF x >
  1]
SELECT j ->> 's' AS s, count(*) FROM a GROUP BY j ->> 's' ORDER BY s
SELECT id FROM a WHERE j ->> 's' = 't'
SELECT key, value FROM json_each('{"a":1,"b":2}') ORDER BY key
SELECT to_json([1, 2]), json_object('a', 1), json_valid('{'), '{"a":{"b":2}}'::JSON -> 'a' ->> 'b', {'a': 1, 'b':
  [2]}, struct_pack(x := 1)
SELECT f::INT, f::TEXT, n::TEXT, n::DOUBLE, n::DECIMAL(6,1), ok::INT, ok::TEXT, big::TEXT, sm::BIGINT, fl::DOUBLE FROM
  a ORDER BY id
SELECT '7'::INT, '1.5'::DOUBLE, 'true'::BOOLEAN, '2024-01-01'::DATE, '10:00'::TIME, '2024-01-01 10:00'::TIMESTAMP,
  TRY_CAST('x' AS INT)
SELECT '550e8400-e29b-41d4-a716-446655440000'::UUID, '[1,2]'::JSON, 'ab'::BLOB, 1::BOOLEAN, 3.7::INT, 1e3::BIGINT,
  '5'::SMALLINT
SELECT id, b, octet_length(b), b = '\x01'::BLOB FROM a ORDER BY id
SELECT CASE WHEN n > 5 THEN 'big' WHEN n IS NULL THEN 'none' ELSE 'small' END AS size, count(*) FROM a GROUP BY size
  ORDER BY size
SELECT CASE grp WHEN 'x' THEN 1 ELSE 2 END, nullif(n, 5), coalesce(n, 0), ifnull(n, -1), greatest(n, 7), least(n, 7)
  FROM a ORDER BY id
SELECT n IS DISTINCT FROM 5, n IS NOT DISTINCT FROM NULL, ok IS TRUE, ok IS NOT TRUE FROM a ORDER BY id
SELECT upper(grp) AS g, count(*) AS c FROM a GROUP BY g HAVING c > 1 ORDER BY g DESC
SELECT n + 1 AS m, m * 2 AS k FROM a WHERE m > 6 ORDER BY k
SELECT id AS "Order", grp AS "group" FROM a ORDER BY "Order" DESC
SELECT a.id AS id FROM a ORDER BY a.n, id
SELECT grp AS n FROM a ORDER BY n, id
SELECT "from", "order by", "Grö ße", "a""b" FROM "select" ORDER BY "order by" DESC
SELECT s."from" + s."Grö ße" AS "+" FROM "select" AS s WHERE s."order by" = 'two'
SELECT sum("Grö ße") OVER (ORDER BY "from") FROM "select" ORDER BY 1
SELECT x.y.z FROM (SELECT {'y': {'z': 1}} AS x)
SELECT a FROM (SELECT id, grp FROM a) a ORDER BY a.id
SELECT id, ROW(id, grp) FROM a ORDER BY id
SELECT count(*), count(n), count(DISTINCT n), count(DISTINCT (grp, ok)) FROM a
SELECT 1 WHERE false
SELECT NULL, NULL::INT, [], 'x' || NULL
"""

SAME_WITH_PARAMETERS: list[tuple[str, list[object]]] = [
    ("SELECT $1::INT + 1, $2::TEXT || 'x'", [1, "a"]),
    ("SELECT id, n + $1 AS m FROM a WHERE n > $2 ORDER BY id", [1, 5]),
    ("SELECT id FROM a ORDER BY id LIMIT $1 OFFSET $2", [2, 1]),
    ("SELECT id FROM a WHERE id IN ($1, $2, $3) ORDER BY id", [1, 4, 9]),
    ("SELECT id FROM a WHERE n BETWEEN $1 AND $2 ORDER BY id", [5, 10]),
    ("SELECT id FROM a WHERE ts BETWEEN $1 AND $2 ORDER BY id", ["2024-01-01", "2024-12-31"]),
    ("SELECT upper($1), left($2, $3), lpad(grp, $4, $1) FROM a ORDER BY id", ["a", "hello", 2, 4]),
    ("SELECT x + $1 FROM (VALUES ($2::INT), ($3::INT)) v(x) ORDER BY x", [1, 20, 10]),
    ("SELECT a.id, b.id FROM a JOIN b ON b.a_id = a.id AND b.label > $1 WHERE a.grp = $2 ORDER BY ALL", ["p", "x"]),
    ("SELECT grp, count(*) FROM a GROUP BY grp HAVING count(*) > $1 ORDER BY 1", [1]),
    ("SELECT id, CASE WHEN n > $1 THEN $2 ELSE $3 END AS c FROM a ORDER BY id", [5, "big", "small"]),
    ("WITH c AS (SELECT id FROM a WHERE id > $1) SELECT count(*) FROM c WHERE id < $2", [1, 4]),
    ("SELECT sum(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) + $1 FROM a ORDER BY id", [100]),
    ("SELECT id FROM a WHERE amt = $1 OR f = $2 OR d = $3 ORDER BY id", ["1.50", -2.5, "1969-12-31"]),
    ("SELECT id FROM a WHERE u = $1", ["550e8400-e29b-41d4-a716-446655440001"]),
    ("SELECT id FROM a WHERE grp LIKE $1 AND ok = $2 ORDER BY id", ["x%", True]),
    ("SELECT id FROM a WHERE (SELECT count(*) FROM b WHERE a_id = a.id AND label <> $1) > $2 ORDER BY id", ["q", 0]),
    ("SELECT $1::INT AS p UNION ALL SELECT id + $1::INT FROM a ORDER BY p", [3]),
    ("SELECT id FROM a WHERE n IS NOT DISTINCT FROM $1", [None]),
    ("SELECT * FROM generate_series($1::INT, $2::INT)", [1, 3]),
    (
        "SELECT a.id, g + $3::INT AS s FROM a, generate_series($1::INT, $2::INT) q(g) WHERE a.id = g ORDER BY 1",
        [2, 3, 10],
    ),
    ("SELECT i FROM range($1::BIGINT) r(i) WHERE i > $2", [4, 1]),
    ("SELECT key FROM json_each($1::JSON) ORDER BY key", ['{"a":1,"b":2}']),
    ("SELECT id FROM a ORDER BY n % $1 DESC, id", [7]),
    ("SELECT id FROM a WHERE ts > $1::TIMESTAMP - INTERVAL 1 DAY ORDER BY id", ["2024-02-29 00:00:00"]),
]


class World:
    """A database, and plain DuckDB with a copy of its rows."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: StorageEngine, database: Database) -> None:
        self.loop = loop
        self.engine = engine
        self.database = database

    def run(self, sql: str, *params: object, identity: Identity = ADMIN) -> list[StatementResult]:
        return self.loop.run_until_complete(self.database.execute(sql, list(params), "default", identity))

    def rows(self, sql: str, *params: object, identity: Identity = ADMIN) -> list[tuple[object, ...]]:
        """The rows of the last statement, as storage values."""
        return rows_of(self.table(sql, *params, identity=identity))

    def table(self, sql: str, *params: object, identity: Identity = ADMIN) -> pa.Table:
        table = self.run(f"SELECT 0 WHERE false; {sql}", *params, identity=identity)[-1].table
        assert table is not None
        return table

    def copy(self, name: str) -> pa.Table:
        result = self.run(f'SELECT 0 WHERE false; SELECT * FROM "{name}"')[-1]
        assert result.table is not None
        columns = zip(result.columns, result.table.columns, strict=True)
        return pa.table([to_duck_column(c.type, data) for c, data in columns], [c.name for c in result.columns])


def rows_of(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    loop = asyncio.new_event_loop()
    engine = StorageEngine.open(tmp_path_factory.mktemp("breadth"))
    engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))

    async def opened() -> Database:
        return Database(engine, duck=DuckOptions(threads=1, memory_bytes=256 << 20))

    world = World(loop, engine, loop.run_until_complete(opened()))
    world.run(SET_UP)
    yield world
    world.database.close()
    engine.close()
    loop.close()


@pytest.fixture(scope="module")
def reference(world: World) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(config={"threads": 1})
    for setting in (
        "TimeZone = 'UTC'",
        "arrow_lossless_conversion = true",
        "integer_division = true",
        "default_null_order = 'nulls_last_on_asc_first_on_desc'",
    ):
        connection.execute(f"SET {setting}")
    for name in ("a", "b", "select"):
        connection.register("copied", world.copy(name))
        connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM copied')
        connection.unregister("copied")
    yield connection
    connection.close()


def expected(reference: duckdb.DuckDBPyConnection, sql: str, params: Sequence[object] = ()) -> list[tuple[object, ...]]:
    """What plain DuckDB answers, as our storage values."""
    relation = reference.sql(sql, params=list(params) or None)
    types = [result_type(str(kind)) for kind in relation.types]
    casts = [output_cast(str(kind)) for kind in relation.types]
    if any(casts):
        names = [f"c{place}" for place in range(len(casts))]
        outputs = ", ".join(cast.format(name) if cast else name for cast, name in zip(casts, names, strict=True))
        relation = reference.sql(f"SELECT {outputs} FROM ({sql}) q({', '.join(names)})", params=list(params) or None)
    table = relation.to_arrow_table()
    return rows_of(
        pa.table(
            [
                pa.chunked_array([stored(c, arrow_type(kind), "x") for c in column.chunks], arrow_type(kind))
                for column, kind in zip(table.columns, types, strict=True)
            ],
            [str(place) for place in range(len(types))],
        )
    )


@pytest.mark.parametrize("sql", SAME.strip().replace("\n  ", " ").splitlines())
def test_answers_as_duckdb(world: World, reference: duckdb.DuckDBPyConnection, sql: str) -> None:
    found = world.rows(sql)
    assert repr(found) == repr(expected(reference, sql))


@pytest.mark.parametrize(("sql", "params"), SAME_WITH_PARAMETERS)
def test_parameters_in_every_position(
    world: World, reference: duckdb.DuckDBPyConnection, sql: str, params: list[object]
) -> None:
    assert repr(world.rows(sql, *params)) == repr(expected(reference, sql, params))


def test_lambdas_keep_their_arrows(world: World) -> None:
    sql = "SELECT list_transform([1, 2], x -> x + $1), list_reduce([1, 2], (x, y) -> x + y)"
    assert world.rows(sql, 1) == [("[2,3]", 3)]
    sql = "SELECT list_transform([j], x -> upper(x -> 's')), list_filter([j -> 'k'], x -> x -> 0 = '1') FROM a"
    assert world.rows(f"{sql} WHERE id = 1") == [('["\\"T\\""]', "[[1,2]]")]


@pytest.mark.parametrize(
    ("sql", "params", "rows"),
    [
        ("SELECT id FROM a WHERE id = ANY($1) ORDER BY id", [[1, 3]], [(1,), (3,)]),
        ("SELECT id FROM a WHERE n = ANY($1) ORDER BY id", [[5, None]], [(4,)]),
        ("SELECT id FROM a WHERE NOT (id = ANY($1)) ORDER BY id", [[2, 3]], [(1,), (4,)]),
        ("SELECT id FROM a WHERE id <> ALL($1) ORDER BY id", [[2, 3]], [(1,), (4,)]),
        ("SELECT id FROM a WHERE id > ALL($1) ORDER BY id", [[1, 2]], [(3,), (4,)]),
        ("SELECT id FROM a WHERE ts = ANY($1)", [["2024-01-01T10:00:00"]], [(1,)]),
        ("SELECT id FROM a WHERE u = ANY($1)", [["550e8400-e29b-41d4-a716-446655440001"]], [(2,)]),
        ("SELECT id FROM a WHERE amt = ANY($1)", [["2.25", 7]], [(2,)]),
        ("SELECT id FROM a WHERE id IN (SELECT unnest($1::INT[])) ORDER BY id", [[2, 3]], [(2,), (3,)]),
        ("SELECT x FROM unnest($1::TEXT[]) AS u(x) ORDER BY x", [["b", "a"]], [("a",), ("b",)]),
        ("SELECT * FROM generate_series($1, $2)", [1, 2], [(1,), (2,)]),
        ("SELECT $1", [1], [(1,)]),
        ("SELECT $1", ["x"], [("x",)]),
        ("SELECT $1 IS NULL", [None], [(True,)]),
        ("SELECT $1", [{"a": [1]}], [('{"a":[1]}',)]),
        ("SELECT id FROM a ORDER BY cosine_distance(e, $1), id LIMIT 1", [[0, 1, 0]], [(2,)]),
    ],
)
def test_parameters_that_are_lists_or_untyped(
    world: World, sql: str, params: list[object], rows: list[tuple[object, ...]]
) -> None:
    assert world.rows(sql, *params) == rows


def test_each_statement_takes_its_own_parameters(world: World) -> None:
    results = world.run("SELECT $2; SELECT $1 + 1; SELECT id FROM a WHERE id = $3; SELECT $2 || $2", 1, "x", 2)
    assert [rows_of(result.table) if result.table else result.rows for result in results] == [
        [("x",)], [(2,)], [(2,)], [("xx",)],
    ]  # fmt: skip
    with pytest.raises(InvalidParameter, match=r"\$2 is not used"):
        world.run("SELECT $1; SELECT $3", 1, 2, 3)


def test_what_the_moment_and_the_caller_say(world: World) -> None:
    sql = (
        "SELECT CURRENT_DATE = now()::DATE, current_timestamp = now(), today() = CURRENT_DATE, "
        "CURRENT_TIME = now()::TIME, CURRENT_USER, CURRENT_ROLE, upper(current_user()), NOW() > TIMESTAMP '2020-01-01'"
    )
    assert world.rows(sql, identity=ANN) == [(True, True, True, True, "ann", "user", "ANN", True)]
    assert world.table("SELECT CURRENT_ROLE, CURRENT_USER").column_names[0] == "current_role"


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT a ON grp USING sum(n)",
        "SELECT * FROM (SELECT grp, n FROM a) PIVOT (sum(n) FOR grp IN ('x', 'y'))",
        "SELECT * FROM (SELECT id, n, sm FROM a) UNPIVOT (v FOR k IN (n, sm))",
    ],
)
def test_what_is_refused(world: World, sql: str) -> None:
    with pytest.raises(Unsupported, match="not supported"):
        world.run(sql)


def test_nulls_sort_last_and_descending_first_by_key_column_too(world: World) -> None:
    for path in ("", ", (SELECT 1) AS q"):
        assert world.rows(f"SELECT id FROM a{path} ORDER BY u, id")[-1] == (3,)
        assert world.rows(f"SELECT id FROM a{path} ORDER BY u DESC, id")[0] == (3,)
        assert world.rows(f"SELECT grp, list(n ORDER BY n DESC) FROM a{path} GROUP BY grp ORDER BY grp") == [
            ("x", "[20,10]"), ("y", "[null,5]"),
        ]  # fmt: skip


def test_a_transaction_reads_its_own_writes(world: World) -> None:
    world.run("CREATE TABLE own (id INT PRIMARY KEY, n INT, UNIQUE (n)); INSERT INTO own VALUES (1, 11), (2, 20)")
    results = world.run(
        """BEGIN;
        INSERT INTO own VALUES (50, 1), (51, 2);
        UPDATE own SET n = n * 100 WHERE id >= 50;
        DELETE FROM own WHERE n = 200 AND id > 50;
        SELECT count(*), sum(n), max(id) FROM own;
        SELECT x.id, y.n FROM own x JOIN own y ON x.id = y.id WHERE x.id >= 2 ORDER BY 1;
        INSERT INTO own SELECT id + 100, n + 1 FROM own;
        UPDATE own SET n = (SELECT max(n) FROM own) + id WHERE id = 101 RETURNING n;
        INSERT INTO own VALUES (50, 0) ON CONFLICT (id) DO UPDATE SET n = own.n + 5 RETURNING n;
        SELECT id FROM own WHERE id = 50;
        WITH c AS (SELECT id, n FROM own) SELECT id, n, rank() OVER (ORDER BY n) FROM c ORDER BY id;
        DELETE FROM own WHERE id IN (SELECT id - 100 FROM own) RETURNING id;
        SELECT count(*) FROM own;
        ROLLBACK;
        SELECT id, n FROM own ORDER BY id"""
    )
    rows = [
        rows_of(result.table) if result.table is not None else [tuple(row) for row in result.rows or ()]
        for result in results
        if result.columns
    ]
    assert rows[:6] == [
        [(3, 131, 50)],
        [(2, 20), (50, 100)],
        [(202,)],
        [(105,)],
        [(50,)],
        [(1, 11, 1), (2, 20, 2), (50, 105, 5), (101, 202, 6), (102, 21, 3), (150, 101, 4)],
    ]
    assert sorted(rows[6]) == [(1,), (2,), (50,)]
    assert rows[7:] == [[(3,)], [(1, 11), (2, 20)]]


def test_writes(world: World) -> None:
    world.run(
        "CREATE TABLE k (a INT, b TEXT, n INT, PRIMARY KEY (a, b)); INSERT INTO k VALUES (1, 'x', 1), (1, 'y', 2)"
    )
    world.run("INSERT INTO k VALUES (1, 'x', 10), (2, 'x', 5) ON CONFLICT (a, b) DO UPDATE SET n = k.n + EXCLUDED.n")
    assert world.run("INSERT INTO k VALUES (1, 'y', 9) ON CONFLICT DO NOTHING")[0].row_count == 0
    assert world.rows("SELECT * FROM k ORDER BY a, b") == [(1, "x", 11), (1, "y", 2), (2, "x", 5)]
    sql = "INSERT INTO k VALUES ($1, $2, $3) ON CONFLICT (b, a) DO UPDATE SET n = $4 + k.n WHERE k.n > $5 RETURNING n"
    assert world.rows(sql, 1, "y", 0, 100, 1) == [(102,)]
    assert world.rows("INSERT INTO k SELECT a + $1, b, n FROM k; SELECT count(*), sum(n) FROM k", 10) == [(6, 236)]
    world.run("UPDATE k SET n = b.id FROM b WHERE b.a_id = k.a AND b.label = 'p' AND k.b = 'x'")
    assert world.rows("SELECT n FROM k WHERE a = 1 ORDER BY b") == [(1,), (102,)]
    sql = (
        "UPDATE k SET n = s.total FROM (SELECT b, sum(n) AS total FROM k GROUP BY b) s "
        "WHERE s.b = k.b AND k.a > $1 RETURNING k.a, k.b, n"
    )
    assert sorted(world.rows(sql, 10), key=repr) == [(11, "x", 22), (11, "y", 204), (12, "x", 22)]
    assert world.rows("DELETE FROM k USING b WHERE b.a_id = k.a AND b.id = 3 RETURNING k.b") == [("x",)]
    assert world.rows("DELETE FROM k WHERE n = (SELECT max(n) FROM k) RETURNING *") == [(11, "y", 204)]
    assert world.rows("UPDATE k SET n = n + $1 WHERE a BETWEEN $2 AND $3 AND b IN ($4) RETURNING n", 1, 1, 5, "x") == [
        (2,)
    ]
    world.run("DELETE FROM k WHERE true")


def test_odd_names_in_writes(world: World) -> None:
    world.run('CREATE TABLE "group" ("table" INT PRIMARY KEY, "order by" TEXT, "Grö ße" INT DEFAULT 7, "a""b" INT)')
    sql = (
        'INSERT INTO "group" ("table", "order by") VALUES ($1, $2) ON CONFLICT ("table") DO UPDATE '
        'SET "Grö ße" = "group"."Grö ße" + EXCLUDED."Grö ße" RETURNING "Grö ße"'
    )
    assert world.rows(sql, 1, "a") == [(7,)]
    assert world.rows(sql, 1, "a") == [(14,)]
    assert world.rows(
        'UPDATE "group" SET "a""b" = "table" + 1 WHERE "order by" = $1 RETURNING "a""b" AS "WHERE"', "a"
    ) == [(2,)]
    assert world.rows('SELECT "a""b" FROM "group" WHERE "table" = $1', 1) == [(2,)]
    assert world.rows('DELETE FROM "group" WHERE "Grö ße" = 14 RETURNING "order by"') == [("a",)]
    with pytest.raises(SqlError):
        world.run('SELECT "none" FROM "group"')


def test_stated_values(world: World) -> None:
    assert world.rows("SELECT d, ts::TEXT, amt FROM a WHERE id = 2") == [
        (dt.date(2024, 2, 29), "2024-02-29 23:59:59.123456", Decimal("2.25")),
    ]  # fmt: skip
    assert world.rows(
        "SELECT '1.005'::DECIMAL, 10 / 4, 10 // 4, cosine_distance(e, [1, 0, 0]) FROM a WHERE id = 2"
    ) == [(Decimal("1.0050000000"), 2, 2, 1.0)]
