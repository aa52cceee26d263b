"""Every type at its edges: in by literal and by parameter, through the hot and the ordinary path, out equal."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer


class Edge(NamedTuple):
    """One value of one type: `literal` in SQL, `parameter` in JSON, `wire` in the answer."""

    type: str
    literal: str
    parameter: Any
    wire: Any


MAX_SAFE = 2**53 - 1
UNICODE = "ß 漢字 🦆 e\u0301 \u202e\tline\nline 'quoted' \\ back"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


NESTED = '{"a":[1,{"b":null}],"ü":"x"}'

EDGES = [
    Edge("BOOLEAN", "TRUE", True, True),
    Edge("BOOLEAN", "false", False, False),
    Edge("SMALLINT", "-32768", -32768, -32768),
    Edge("SMALLINT", "32767", 32767, 32767),
    Edge("INT", "-2147483648", -2147483648, -2147483648),
    Edge("INT", "2147483647", 2147483647, 2147483647),
    Edge("BIGINT", "0", 0, 0),
    Edge("BIGINT", str(MAX_SAFE), MAX_SAFE, MAX_SAFE),
    Edge("BIGINT", str(-MAX_SAFE), -MAX_SAFE, -MAX_SAFE),
    Edge("BIGINT", str(MAX_SAFE + 1), MAX_SAFE + 1, str(MAX_SAFE + 1)),
    Edge("BIGINT", str(2**63 - 1), str(2**63 - 1), str(2**63 - 1)),
    Edge("BIGINT", str(-(2**63)), -(2**63), str(-(2**63))),
    Edge("FLOAT", "0.5", 0.5, 0.5),
    Edge("FLOAT", "3.4028235e38", 3.4028235e38, 3.4028235e38),
    Edge("FLOAT", "0.1", 0.1, 0.1),
    Edge("DOUBLE", "1.7976931348623157e308", 1.7976931348623157e308, 1.7976931348623157e308),
    Edge("DOUBLE", "5e-324", 5e-324, 5e-324),
    Edge("DOUBLE", "0.1", 0.1, 0.1),
    Edge("DOUBLE", "-12", -12, -12.0),
    Edge("TEXT", "''", "", ""),
    Edge("TEXT", _quoted(UNICODE), UNICODE, UNICODE),
    Edge("VARCHAR(3)", "'abc'", "abc", "abc"),
    Edge("TIMESTAMP", "'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999", -1),
    Edge("TIMESTAMP", "'0001-01-01 00:00:00'", "0001-01-01T00:00:00", -62135596800000000),
    Edge("TIMESTAMP", "'9999-12-31 23:59:59.999999'", 253402300799999999, 253402300799999999),
    Edge("TIMESTAMP", "TIMESTAMP '2026-05-04 10:00:00.000001'", "2026-05-04 10:00:00.000001", 1777888800000001),
    Edge("DATETIME", "'1970-01-01T01:00:00+01:00'", "1970-01-01T01:00:00+01:00", 0),
    Edge("DATETIME", "'1969-12-31T23:59:59.000001Z'", "1969-12-31T23:59:59.000001Z", -999999),
    Edge("DATE", "'1969-12-31'", "1969-12-31", -1),
    Edge("DATE", "DATE '9999-12-31'", 2932896, 2932896),
    Edge("TIME", "'23:59:59.999999'", "23:59:59.999999", 86399999999),
    Edge("TIME", "'00:00:00'", 0, 0),
    Edge("JSON", f"'{NESTED}'", json.loads(NESTED), NESTED),
    Edge("JSON", "'" + "[" * 60 + "]" * 60 + "'", "[" * 60 + "]" * 60, "[" * 60 + "]" * 60),
    Edge("JSON", "'null'", "null", "null"),
    Edge("BYTES", "X''", [], []),
    Edge("BYTES", "X'0001FF'", [0, 1, 255], [0, 1, 255]),
    Edge("UUID", "'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000",
         "00000000-0000-0000-0000-000000000000"),
    Edge("UUID", "'FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF'", "ffffffff-ffff-4fff-bfff-ffffffffffff",
         "ffffffff-ffff-4fff-bfff-ffffffffffff"),
    Edge("DECIMAL(38,10)", "9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999",
         "9999999999999999999999999999.9999999999"),
    Edge("DECIMAL(38,10)", "-0.0000000001", "-0.0000000001", "-0.0000000001"),
    Edge("DECIMAL(38,10)", "1", 1, "1.0000000000"),
    Edge("DECIMAL(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999",
         "99999999999999999999999999999999999999"),
    Edge("DECIMAL(5,2)", "0.1", 0.1, "0.10"),
    Edge("EMBEDDING(3)", "'[1, -0.5, 3.5]'", [1, -0.5, 3.5], [1.0, -0.5, 3.5]),
    Edge("FILE", "NULL", None, None),
]  # fmt: skip

TYPES = sorted({edge.type for edge in EDGES})


def _table(name: str) -> str:
    return "t_" + "".join(c if c.isalnum() else "_" for c in name.lower())


@pytest.fixture(scope="module")
def filled(server: RunningServer) -> RunningServer:
    server.sql("CREATE NAMESPACE types")
    for name in TYPES:
        server.sql(f"CREATE TABLE types.{_table(name)} (id INT PRIMARY KEY, v {name}, d {name} DEFAULT NULL)")
    return server


def _same(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize(("number", "edge"), list(enumerate(EDGES)), ids=[f"{e.type}-{i}" for i, e in enumerate(EDGES)])
def test_a_value_comes_out_as_it_went_in(filled: RunningServer, number: int, edge: Edge) -> None:
    table = f"types.{_table(edge.type)}"
    first = number * 10
    ways = [
        (f"INSERT INTO {table} (id, v) VALUES ({first}, {edge.literal})", None),
        (f"INSERT INTO {table} (id, v) VALUES ({first + 1}, {edge.literal})", None),
        (f"INSERT INTO {table} (id, v) VALUES ($1, $2)", [first + 2, edge.parameter]),
        (f"INSERT INTO {table} (id, v) VALUES ($1, $2)", [first + 3, edge.parameter]),
        (
            f"INSERT INTO {table} (id) VALUES ({first + 4}); UPDATE {table} SET v = $1 WHERE id = {first + 4}",
            [edge.parameter],
        ),
        (f"INSERT INTO {table} (id, v) SELECT {first + 5}, v FROM {table} WHERE id = {first}", None),
    ]  # fmt: skip
    for sql, params in ways:
        filled.sql(sql, params)
    scanned = filled.rows(f"SELECT id, v, d FROM {table} WHERE id BETWEEN {first} AND {first + 5} ORDER BY id")
    assert [row[0] for row in scanned] == list(range(first, first + 6))
    through_engine = scanned
    if edge.type not in {"EMBEDDING(3)", "BYTES"}:
        where = f"id >= {first} AND id < {first + 6}"
        through_engine = filled.rows(f"SELECT id, MAX(v) OVER (PARTITION BY id) FROM {table} WHERE {where} ORDER BY id")
    for place in range(6):
        assert _same(scanned[place][1], edge.wire), (place, scanned[place])
        assert scanned[place][2] is None
        assert _same(through_engine[place][1], edge.wire), (place, through_engine[place])
        point = filled.rows(f"SELECT v FROM {table} WHERE id = $1", [first + place])
        assert len(point) == 1
        assert _same(point[0][0], edge.wire)


@pytest.mark.parametrize("name", TYPES)
def test_null_is_null_for_every_type(filled: RunningServer, name: str) -> None:
    table = f"types.{_table(name)}"
    filled.sql(
        f"INSERT INTO {table} VALUES (-1, NULL, NULL); INSERT INTO {table} VALUES ($1, $2, $3)", [-2, None, None]
    )
    assert filled.rows(f"SELECT v, d FROM {table} WHERE id < 0 ORDER BY id") == [[None, None], [None, None]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMALLINT", 32768),
        ("INT", -2147483649),
        ("INT", 1.5),
        ("INT", "x"),
        ("BIGINT", 2**63),
        ("BIGINT", True),
        ("FLOAT", 1e39),
        ("DOUBLE", "NaN"),
        ("BOOLEAN", "maybe"),
        ("DATE", "2026-02-30"),
        ("TIMESTAMP", "yesterday"),
        ("TIME", "25:00:00"),
        ("JSON", "{not json"),
        ("BYTES", [256]),
        ("UUID", "not-a-uuid"),
        ("DECIMAL(5,2)", "1000.00"),
        ("DECIMAL(5,2)", "0.001"),
        ("EMBEDDING(3)", [1, 2]),
        ("EMBEDDING(3)", [1, 2, "x"]),
        ("FILE", "{}"),
        ("TEXT", ["a", "list"]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(filled: RunningServer, name: str, value: Any) -> None:
    table = f"types.{_table(name)}"
    for _ in range(2):
        answer = filled.post(f"INSERT INTO {table} (id, v) VALUES ($1, $2)", [999_999, value])
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["code"] in {"INVALID_PARAMETER", "SQL_EXECUTION_ERROR"}
        assert "$2" in error["message"] or "'v'" in error["message"]
    assert filled.rows(f"SELECT COUNT(*) FROM {table} WHERE id = 999999") == [[0]]


def test_ten_megabytes_of_text_by_literal_and_by_parameter(serve: Serve) -> None:
    running = serve(HEADRACE_LIMITS_MAX_SQL_BYTES="14000000").set_up()
    text = "ß'漢\n" * 1_500_000
    assert len(text.encode()) >= 10_500_000
    running.sql("CREATE NAMESPACE big; CREATE TABLE big.t (id INT PRIMARY KEY, v TEXT)")
    running.sql(f"INSERT INTO big.t VALUES (1, {_quoted(text)})")
    running.sql("INSERT INTO big.t VALUES ($1, $2)", [2, text])
    rows = running.rows("SELECT v FROM big.t ORDER BY id")
    assert [row[0] for row in rows] == [text, text]
    assert running.rows("SELECT strlen(v) FROM big.t WHERE id = 1") == [[len(text.encode())]]


def test_bytes_and_json_read_back_by_other_formats(filled: RunningServer) -> None:
    blob = bytes(range(256))
    filled.sql("CREATE TABLE types.mixed (id INT PRIMARY KEY, b BYTES, j JSON)")
    filled.sql("INSERT INTO types.mixed VALUES ($1, $2, $3)", [1, list(blob), {"k": [1, 2]}])
    line = filled.post("SELECT * FROM types.mixed", headers={"Accept": "application/x-ndjson"}).text
    row = json.loads(line)
    assert bytes(row["b"]) == blob
    assert json.loads(row["j"]) == {"k": [1, 2]}
    assert filled.rows("SELECT j -> 'k' ->> 1, base64(b) FROM types.mixed") == [["2", base64.b64encode(blob).decode()]]
