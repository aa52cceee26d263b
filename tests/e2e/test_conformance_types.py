"""Section 3 in every place: the same `data_type` and JSON value from hot and cold rows, views, RETURNING and sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import Roles, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import done, one, refused, shape

TYPES: dict[str, tuple[str, object, str, object]] = {
    "bo": ("BOOLEAN", "Boolean", "true", True),
    "si": ("SMALLINT", "SmallInt", "-32768", -32768),
    "i": ("INT", "Int", "2147483647", 2147483647),
    "bi": ("BIGINT", "BigInt", "-9007199254740991", -9007199254740991),
    "big": ("BIGINT", "BigInt", "9223372036854775807", "9223372036854775807"),
    "f": ("FLOAT", "Float", "1.5", 1.5),
    "d": ("DOUBLE", "Double", "-0.1", -0.1),
    "t": ("TEXT", "Text", "'é \U0001f600 ''q'''", "é \U0001f600 'q'"),
    "vc": ("VARCHAR(9)", "Text", "''", ""),
    "ts": ("TIMESTAMP", "Timestamp", "'1969-12-31 23:59:59.999999'", -1),
    "dt": ("DATETIME", "DateTime", "'1970-01-01 00:00:02'", 2_000_000),
    "da": ("DATE", "Date", "'1969-12-31'", -1),
    "ti": ("TIME", "Time", "'00:00:01.5'", 1_500_000),
    "j": ("JSON", "Json", """'{"a": [1, null]}'""", '{"a": [1, null]}'),
    "by": ("BYTES", "Bytes", "X'00FF7f'", [0, 255, 127]),
    "u": ("UUID", "Uuid", "'0196D7A0-0000-7000-8000-00000000000A'", "0196d7a0-0000-7000-8000-00000000000a"),
    "de": ("DECIMAL(10,2)", {"Decimal": {"precision": 10, "scale": 2}}, "-1.5", "-1.50"),
    "dd": ("DECIMAL", {"Decimal": {"precision": 38, "scale": 10}}, "1", "1.0000000000"),
    "e": ("EMBEDDING(3)", {"Embedding": 3}, "'[1, 0.5, -2]'", [1.0, 0.5, -2.0]),
}
NAMES = list(TYPES)
EXPECTED = [value for *_, value in TYPES.values()]
LIST = ", ".join(NAMES)
PLACES = {
    "all": "SELECT * EXCLUDE (id) FROM app.t WHERE id = 1",
    "view": "SELECT * FROM app.v",
    "derived": f"SELECT {LIST} FROM (SELECT * FROM app.t) x WHERE id = 1",
    "common": f"WITH x AS (SELECT * FROM app.t) SELECT {LIST} FROM x WHERE id = 1",
    "union": f"SELECT {LIST} FROM app.t WHERE id = 1 UNION ALL SELECT {LIST} FROM app.t WHERE id = 9",
    "outer": f"SELECT {', '.join('t.' + name for name in NAMES)} FROM app.t o LEFT JOIN app.t t ON t.id = o.id"
    " WHERE o.id = 1",
    "first": "SELECT " + ", ".join(f"max({name}) AS {name}" for name in NAMES if name not in {"bo", "j", "e"})
    + " FROM app.t",
}  # fmt: skip


@pytest.fixture(scope="module", params=["hot", "cold"])
def t(roles: Roles, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    server = roles.server
    columns = ", ".join(f"{name} {kind[0]}" for name, kind in TYPES.items())
    server.sql(f"CREATE TABLE app.t (id INT PRIMARY KEY, {columns})")
    server.sql(f"INSERT INTO app.t VALUES (1, {', '.join(kind[2] for kind in TYPES.values())})")
    server.sql("INSERT INTO app.t (id) VALUES (2)")
    server.sql(f"CREATE VIEW app.v AS SELECT {LIST} FROM app.t WHERE id = 1")
    if request.param == "cold":
        done(server, server.post("STORAGE FLUSH TABLE app.t"), "FL")
    yield server
    server.sql("DROP VIEW app.v; DROP TABLE app.t")


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app")
    with roles_of(server) as found:
        yield found


@pytest.mark.parametrize("place", PLACES)
def test_the_same_in_every_place(t: RunningServer, place: str) -> None:
    result = one(t.post(PLACES[place]))
    assert result["rows"]
    for (name, kind), value in zip(shape(result), result["rows"][0], strict=True):
        assert (name, kind) == (name, TYPES[name][1])
        assert value == TYPES[name][3], name
        assert type(value) is type(TYPES[name][3]), name
    assert place == "first" or [name for name, _ in shape(result)] == NAMES


def test_null_is_null(t: RunningServer) -> None:
    result = one(t.post(f"SELECT {LIST} FROM app.t WHERE id = 2"))
    assert [kind for _, kind in shape(result)] == [kind for _, kind, *_ in TYPES.values()]
    assert result["rows"] == [[None] * len(NAMES)]


def test_returning(t: RunningServer) -> None:
    values = ", ".join(kind[2] for kind in TYPES.values())
    for sql in (
        f"INSERT INTO app.t VALUES (3, {values}) RETURNING {LIST}",
        f"UPDATE app.t SET vc = '', f = 1.5 WHERE id = 1 RETURNING {LIST}",
        f"DELETE FROM app.t WHERE id = 1 RETURNING {LIST}",
    ):
        result = t.sql(f"BEGIN; {sql}; ROLLBACK")[1]
        assert shape(result) == [(name, kind[1]) for name, kind in TYPES.items()]
        assert result["rows"] in ([EXPECTED], [])
        assert result["rows"] or sql.startswith("UPDATE")  # a row that would not change is not counted


@pytest.mark.parametrize("name", NAMES)
def test_by_parameter(t: RunningServer, name: str) -> None:
    kind, *_, value = TYPES[name]
    given: Any = {"ts": "1969-12-31 23:59:59.999999", "dt": "1970-01-01 00:00:02", "da": "1969-12-31",
                  "ti": "00:00:01.5"}.get(name, value)  # fmt: skip
    (result,) = t.sql(f"BEGIN; INSERT INTO app.t (id, {name}) VALUES (5, $1) RETURNING {name}; ROLLBACK", [given])[1:2]
    assert result["rows"] == [[value]], kind


@pytest.mark.parametrize(
    ("expression", "kinds", "value"),
    [
        ("CURRENT_USER()", {"Text"}, "admin"),
        ("CURRENT_USER", {"Text"}, "admin"),
        ("CURRENT_ROLE()", {"Text"}, "dba"),
        ("SNOWFLAKE_ID()", {"BigInt"}, str),
        ("UUID_V7()", {"Text", "Uuid"}, str),
        ("ULID()", {"Text"}, str),
        ("NOW()", {"Timestamp", "DateTime"}, int),
        ("CURRENT_TIMESTAMP", {"Timestamp", "DateTime"}, int),
        ("count(*)", {"BigInt"}, 1),
        ("1", {"Int", "BigInt"}, 1),
        ("NULL", {"Int", "Text"}, None),
        ("'x'", {"Text"}, "x"),
        ("1 = 1", {"Boolean"}, True),
    ],
)
def test_functions(roles: Roles, expression: str, kinds: set[str], value: object) -> None:
    result = one(roles.post("dba", f"SELECT {expression} AS x"))
    assert shape(result)[0][1] in kinds
    found = result["rows"][0][0]
    assert isinstance(found, value) if isinstance(value, type) else found == value


def test_functions_know_whose_identity_is_in_effect(roles: Roles) -> None:
    result = one(roles.post("dba", "EXECUTE AS USER 'u1' (SELECT CURRENT_USER() AS u, CURRENT_ROLE() AS r)"))
    assert (result["rows"], result["as_user"]) == ([["u1", "user"]], "u1")


@pytest.mark.parametrize("expression", ["'NaN'::DOUBLE", "'Infinity'::DOUBLE", "'-Infinity'::FLOAT"])
def test_numbers_that_json_has_not(roles: Roles, expression: str) -> None:
    refused(roles.post("dba", f"SELECT {expression} AS x"), (400, "SQL_EXECUTION_ERROR"))
