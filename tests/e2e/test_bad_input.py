"""Hostile requests to a real server: each gets its code, and another client is served meanwhile and afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.bystander import PATIENCE, Bystander, failure
from tests.e2e.running import RunningServer

SMALL = {
    "HEADRACE_LIMITS_MAX_BODY_BYTES": "8388608",
    "HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS": "4",
}

INVALID_INPUT = (400, "INVALID_INPUT")
INVALID_SQL = (400, "INVALID_SQL")
INVALID_PARAMETER = (400, "INVALID_PARAMETER")
BATCH = (400, "BATCH_PARSE_ERROR")
UNSUPPORTED = (400, "UNSUPPORTED")
NOT_FOUND = (404, "TABLE_NOT_FOUND")
EXECUTION = (400, "SQL_EXECUTION_ERROR")
DENIED = (403, "PERMISSION_DENIED")
REFUSED = frozenset({INVALID_SQL, UNSUPPORTED, NOT_FOUND, EXECUTION, DENIED, BATCH, INVALID_INPUT})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("hostile") / "data", (), SMALL)
    try:
        running.start().set_up()
        running.sql(
            "CREATE NAMESPACE app; CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT NOT NULL, doc JSON) "
            "WITH (TYPE='SHARED'); INSERT INTO app.items VALUES (1, 'one', NULL), (2, 'two', NULL)"
        )
        yield running
        assert running.stop() == 0, running.log()[-4_000:]
        assert "Traceback" not in running.log(), running.log()[-4_000:]
    finally:
        running.kill()


@pytest.fixture(scope="module")
def other(server: RunningServer) -> Iterator[Bystander]:
    bystander = Bystander(server)
    yield bystander
    bystander.close()


def send(server: RunningServer, body: bytes, **headers: str) -> httpx.Response:
    """A request with exactly this body."""
    names = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post("/v1/api/sql", content=body, headers=names, timeout=PATIENCE)


def ask(server: RunningServer, sql: str, params: Any = None) -> httpx.Response:
    """A request with this statement."""
    return send(server, json.dumps({"sql": sql, "params": params}).encode())


def short(value: object) -> str:
    """A parameter as the name of its test, the same in every process."""
    return repr(sorted(value) if isinstance(value, set) else value)[:60]


# --- bodies ----------------------------------------------------------------------------------------------------------

DEEP = 10_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", INVALID_INPUT),
        (b" ", INVALID_INPUT),
        (b"SELECT 1", INVALID_INPUT),
        (b"{", INVALID_INPUT),
        (b"[]", INVALID_INPUT),
        (b"null", INVALID_INPUT),
        (b"12", INVALID_INPUT),
        (b'"SELECT 1"', INVALID_INPUT),
        (b"{}", INVALID_INPUT),
        (b'{"sql": "SELECT 1",}', INVALID_INPUT),
        (b"{'sql': 'SELECT 1'}", INVALID_INPUT),
        (b'{"sql": "SELECT 1"} {"sql": "SELECT 2"}', INVALID_INPUT),
        (b'{"sql": "SELECT 1"', INVALID_INPUT),
        (b'{"sql": "SELECT 1\n"}', INVALID_INPUT),
        (b'{"sql": "\\x41"}', INVALID_INPUT),
        (b'{"sql": null}', INVALID_INPUT),
        (b'{"sql": 1}', INVALID_INPUT),
        (b'{"sql": true}', INVALID_INPUT),
        (b'{"sql": ["SELECT 1"]}', INVALID_INPUT),
        (b'{"sql": {"sql": "SELECT 1"}}', INVALID_INPUT),
        (b'{"SQL": "SELECT 1"}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": {"1": 1}}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": "1"}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": 1}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": [NaN]}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": [Infinity]}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": [1e999]}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": [01]}', INVALID_INPUT),
        (b'{"sql": "SELECT 1", "namespace_id": 1}', INVALID_INPUT),
        (b'{"sql": "SELECT 1", "namespace_id": ["app"]}', INVALID_INPUT),
        (b'{"sql": "SELECT 1", "namespace_id": {}}', INVALID_INPUT),
        (b'{"sql": "SELECT 1\xff"}', INVALID_INPUT),
        (b'{"sql": "SELECT \'\xc3\x28\'"}', INVALID_INPUT),
        (b'{"sql": "SELECT \'\xed\xa0\x80\'"}', INVALID_INPUT),
        (b'{"sql": "SELECT \'\xf4\x90\x80\x80\'"}', INVALID_INPUT),
        (b'\xef\xbb\xbf{"sql": "SELECT 1"}', INVALID_INPUT),
        ('{"sql": "SELECT 1"}'.encode("utf-16"), INVALID_INPUT),
        (b'{"sql": "SELECT \'\\ud800\'"}', INVALID_INPUT),
        (b'{"sql": "SELECT $1", "params": ["\\udfff"]}', INVALID_INPUT),
        (b'{"sql": "SELECT \'a\\u0000b\'"}', INVALID_SQL),
        (b'{"sql": "SELECT 1 \\u0000"}', INVALID_SQL),
        (b'{"sql": "\\u0000"}', INVALID_SQL),
        (b'{"sql": "SELECT 1", "params": ' + b"[" * DEEP + b"]" * DEEP + b"}", INVALID_INPUT),
        (b'{"sql": "SELECT 1", "params": [' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"]}", INVALID_INPUT),
        (b'{"sql": "SELECT 1", "params": [' + b"[" * 1_000_000, INVALID_INPUT),
        (b'{"sql": "SELECT 1", "more": ' + b"[" * DEEP + b"]" * DEEP + b"}", INVALID_INPUT),
        (b'{"sql": "' + b"x" * (9 << 20) + b'"}', (413, "BODY_TOO_LARGE")),
        (b'{"sql": "SELECT \'' + b"x" * (2 << 20) + b"'\"}", INVALID_SQL),
        (b'{"sql": "' + b" " * (2 << 20) + b'"}', INVALID_SQL),
    ],
    ids=short,
)
def test_a_wrong_body_is_refused(
    server: RunningServer, other: Bystander, body: bytes, expected: tuple[int, str]
) -> None:
    answer = other.watch(lambda: send(server, body))
    assert failure(answer) == expected


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"sql": "SELECT 1 AS v", "sql": "SELECT 2 AS v"}', 2),
        (b'{"sql": "SELECT 1 AS v", "unknown": {"deep": [1, {"x": null}]}}', 1),
        (b'{"sql": "SELECT 1 AS v", "params": null, "namespace_id": null}', 1),
        (b'{"sql": "SELECT 1 AS v", "params": [], "namespace_id": ""}', 1),
        (b' \n\t{"sql" : "SELECT 1 AS v" }\r\n', 1),
        ('{"sql": "SELECT \'\U0001f600\' AS v"}'.encode(), "\U0001f600"),
        (b'{"sql": "SELECT \'\\ud83d\\ude00\' AS v"}', "\U0001f600"),
    ],
    ids=short,
)
def test_an_odd_body_is_understood(server: RunningServer, body: bytes, value: object) -> None:
    answer = send(server, body)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["results"][0]["rows"] == [[value]]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/plain"}, INVALID_INPUT),
        ({"Content-Type": "application/x-www-form-urlencoded"}, INVALID_INPUT),
        ({"Content-Type": ""}, INVALID_INPUT),
        ({"Content-Type": "application/xml; charset=utf-8"}, INVALID_INPUT),
        ({"Content-Type": "multipart/form-data"}, INVALID_INPUT),
        ({"Content-Type": "multipart/form-data; boundary="}, INVALID_INPUT),
        ({"Content-Type": "multipart/form-data; boundary=" + "x" * 5_000}, INVALID_INPUT),
        ({"Content-Encoding": "gzip"}, INVALID_INPUT),
        ({"Content-Encoding": "br, gzip"}, INVALID_INPUT),
    ],
    ids=short,
)
def test_other_content_types_and_encodings_are_refused(
    server: RunningServer, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    import gzip

    body = b'{"sql": "SELECT 1"}'
    if "Content-Encoding" in headers:
        body = gzip.compress(body)
    answer = server.client.post(
        "/v1/api/sql", content=body, headers={"Content-Type": "application/json"} | headers, timeout=PATIENCE
    )
    status, code = failure(answer)
    assert (status, code) in {expected, (415, "INVALID_INPUT")}


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "params", "expected"),
    [
        ("SELECT $1", [], INVALID_PARAMETER),
        ("SELECT $2", [1], INVALID_PARAMETER),
        ("SELECT $2", [1, 2], INVALID_PARAMETER),
        ("SELECT $1", [1, 2], INVALID_PARAMETER),
        ("SELECT 1", [None], INVALID_PARAMETER),
        ("SELECT $1; SELECT $3", [1, 2, 3], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [1, 2], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", ["x"], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [1.5], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [2**63], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [10**400], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [{"a": 1}], INVALID_PARAMETER),
        ("SELECT name FROM app.items WHERE id = $1", [[1]], INVALID_PARAMETER),
        ("INSERT INTO app.items VALUES ($1, $2)", [3], INVALID_PARAMETER),
        ("INSERT INTO app.items VALUES ($1, $2)", [3, "x", 4], INVALID_PARAMETER),
        ("INSERT INTO app.items (id, name) VALUES ($1, $2)", [10**40, "x"], INVALID_PARAMETER),
        ("INSERT INTO app.items (id, name) VALUES ($1, $2)", [True, "x"], INVALID_PARAMETER),
        ("SELECT $0", [1], INVALID_SQL),
        ("SELECT $00", [1], INVALID_SQL),
        ("SELECT $99999", [1], INVALID_SQL),
        ("SELECT $65536", [1], INVALID_SQL),
        ("SELECT $65535", [1], INVALID_PARAMETER),
        ("SELECT $1000000000000000000000000", [1], INVALID_SQL),
        ("SELECT $" + "9" * 5_000, [1], INVALID_SQL),
        ("SELECT $-1", [1], INVALID_SQL),
        ("SELECT $a", [1], INVALID_SQL),
        ("SELECT $1a", [1], INVALID_SQL),
        ("SELECT ?", [1], INVALID_SQL),
        ("SELECT :1", [1], INVALID_SQL),
        ("SELECT @x", [1], INVALID_SQL),
        ("SELECT %s", [1], INVALID_SQL),
        ("SELECT 1", [0] * 40_000, INVALID_PARAMETER),
        ("SELECT * FROM app.items LIMIT $1", [-1], INVALID_PARAMETER),
        ("SELECT * FROM app.items LIMIT $1", ["many"], INVALID_PARAMETER),
    ],
    ids=short,
)
def test_wrong_parameters_are_refused(
    server: RunningServer, other: Bystander, sql: str, params: list[object], expected: tuple[int, str]
) -> None:
    assert failure(ask(server, sql, params), sql) == expected
    other.read()


# --- texts that grow -------------------------------------------------------------------------------------------------


def repeated(text: str, size: int = 1_000_000) -> str:
    return text * (size // len(text))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT " + "(" * DEEP + "1" + ")" * DEEP, {INVALID_SQL}),
        ("SELECT " + "(" * 400_000, {INVALID_SQL}),
        ("SELECT 1" + ")" * 400_000, {INVALID_SQL}),
        ("SELECT " + "NOT " * DEEP + "true", {INVALID_SQL}),
        ("SELECT " + "- " * DEEP + "1", {INVALID_SQL}),
        ("SELECT " + "~" * DEEP + "1", {INVALID_SQL}),
        ("SELECT " + "CASE WHEN true THEN " * DEEP + "1" + " END" * DEEP, {INVALID_SQL}),
        ("SELECT " + "CASE " * DEEP, {INVALID_SQL}),
        ("SELECT (" * DEEP + "1" + ")" * DEEP, {INVALID_SQL}),
        ("SELECT * FROM (" * DEEP + "SELECT 1" + ")" * DEEP, {INVALID_SQL}),
        ("SELECT 1 WHERE EXISTS (" * DEEP + "SELECT 1" + ")" * DEEP, {INVALID_SQL}),
        ("WITH a AS (" * DEEP + "SELECT 1" + ") SELECT 1" * DEEP, {INVALID_SQL}),
        ("SELECT " + "[" * DEEP + "]" * DEEP, {INVALID_SQL}),
        ("SELECT " + "{'a': " * DEEP + "1" + "}" * DEEP, {INVALID_SQL}),
        ("SELECT " + "abs(" * DEEP + "1" + ")" * DEEP, {INVALID_SQL}),
        ("SELECT " + "CAST(" * DEEP + "1" + " AS INT)" * DEEP, {INVALID_SQL}),
        ("SELECT a" + "[1]" * DEEP, {INVALID_SQL}),
        ("SELECT 1" + "::INT" * DEEP, {INVALID_SQL}),
        ("SELECT '{}'" + "->'a'" * DEEP, {INVALID_SQL}),
        ("SELECT 1" + " + 1" * DEEP, {INVALID_SQL}),
        ("SELECT 'a'" + " || 'a'" * DEEP, {INVALID_SQL}),
        ("SELECT 1 IS NULL" + " IS NULL" * DEEP, {INVALID_SQL}),
        ("SELECT 1 WHERE 1 BETWEEN " + "1 AND 2 BETWEEN " * DEEP + "1 AND 2", {INVALID_SQL}),
        ("SELECT a" + ".a" * DEEP, {INVALID_SQL}),
        ("SELECT 1" + " UNION ALL SELECT 1" * DEEP, {INVALID_SQL}),
        ("SELECT 1 FROM app.items" + " JOIN app.items USING (id)" * DEEP, {INVALID_SQL}),
        ("SELECT 1 FROM app.items" + ", app.items" * DEEP, {INVALID_SQL}),
        ("WITH " + ", ".join(f"c{i} AS (SELECT 1)" for i in range(DEEP)) + " SELECT 1", {INVALID_SQL}),
        ("SELECT " + "INTERVAL " * DEEP + "1", {INVALID_SQL}),
        ("SELECT" + "/*" * DEEP + "*/" * DEEP + " 1 1", {INVALID_SQL}),
        ("/*" * 500_000, {BATCH}),
        (repeated("/**/") + "SELECT 1 1", {INVALID_SQL}),
        (repeated("-- x\n") + "SELECT 1 1", {INVALID_SQL}),
        (repeated(";"), {INVALID_SQL, (400, "EMPTY_SQL")}),
        (repeated("SELECT 1;"), {INVALID_SQL}),
        ("SELECT " + repeated(","), {INVALID_SQL}),
        ("SELECT 1" + repeated("."), {INVALID_SQL}),
        ("SELECT " + repeated("a "), {INVALID_SQL}),
        ("SELECT 'x" + repeated("''"), {BATCH}),
        (repeated("'"), {INVALID_SQL, BATCH}),
        (repeated('"'), {INVALID_SQL, BATCH}),
        ("SELECT " + "9" * 900_000, {INVALID_SQL, EXECUTION}),
        ("SELECT 1e" + "9" * 900_000, {INVALID_SQL, EXECUTION}),
        ("SELECT 0." + "0" * 900_000 + "1", {INVALID_SQL, EXECUTION}),
        ("SELECT 1e999999999", {INVALID_SQL, EXECUTION}),
        ("SELECT 1" + "0" * 100 + "::BIGINT", {INVALID_SQL, EXECUTION}),
        ("SELECT " + "x" * 900_000, {INVALID_SQL}),
        ('SELECT "' + "x" * 900_000 + '"', {INVALID_SQL}),
        ("SELECT * FROM " + "x" * 900_000, {INVALID_SQL, NOT_FOUND}),
        ("SELECT * FROM app.items WHERE " + " OR ".join(["nme = 1"] * 2_000), {INVALID_SQL}),
        ("SELECT 1 WHERE 1 IN (" + "1, " * 300_000 + "1)", {INVALID_SQL}),
        ("INSERT INTO app.items (id, name) VALUES " + "(1, lower('x')), " * 50_000 + "(1, 'x')", {INVALID_SQL}),
        ("INSERT INTO app.items VALUES " + "(1, 'x'), " * 90_000 + "(1)", {INVALID_SQL, EXECUTION}),
        ("CREATE TABLE app.wide (" + ", ".join(f"c{i} INT" for i in range(DEEP)) + ")", {EXECUTION, INVALID_SQL}),
        ("CREATE TABLE app.deep (a INT CHECK (" + "(" * DEEP + "1" + ")" * DEEP + "))", {INVALID_SQL}),
        ("EXECUTE AS USER 'u' (" * DEEP + "SELECT 1" + ")" * DEEP, {INVALID_SQL, INVALID_INPUT}),
        ("EXPLAIN " * DEEP + "SELECT 1", {INVALID_SQL}),
        ("\u202e SELECT 1", {INVALID_SQL}),
        ("SELECT 1 \u0085 1", {INVALID_SQL}),
        ("ＳＥＬＥＣＴ 1", {INVALID_SQL}),
    ],
    ids=short,
)
def test_texts_that_grow_are_refused_in_time(
    server: RunningServer, other: Bystander, sql: str, expected: set[tuple[int, str]]
) -> None:
    answer = other.watch(lambda: ask(server, sql))
    assert failure(answer, sql) in expected


@pytest.mark.parametrize("depth", [60, 1_000, DEEP])
def test_nested_json_goes_in_whole_or_not_at_all(server: RunningServer, depth: int) -> None:
    text = "[" * depth + "1" + "]" * depth
    inserted = ask(server, "INSERT INTO app.items VALUES (77, 'deep', $1)", [text])
    try:
        if inserted.status_code != 200:
            assert failure(inserted) in {INVALID_PARAMETER, EXECUTION}
            return
        answer = ask(server, "SELECT doc FROM app.items WHERE id = 77")
        assert answer.status_code == 200, answer.text[:500]
        found = answer.json()["results"][0]["rows"][0][0]
        assert json.loads(found if isinstance(found, str) else json.dumps(found)) == json.loads(text)
    finally:
        ask(server, "DELETE FROM app.items WHERE id = 77")


# --- outside ---------------------------------------------------------------------------------------------------------


def refuse_all(server: RunningServer, statements: list[str]) -> None:
    """Every one of the statements must be refused."""
    wrong = []
    for sql in statements:
        answer = ask(server, sql)
        try:
            accepted = answer.status_code == 200 or failure(answer, sql) not in REFUSED or "root:" in answer.text
        except AssertionError:
            accepted = True
        if accepted:
            wrong.append(f"{sql}: {answer.text[:300]}")
    assert not wrong, "\n".join(wrong[:20])


READERS = [
    "read_csv('/etc/passwd')",
    "READ_CSV('/etc/passwd')",
    "Read_Csv_Auto('/etc/passwd')",
    "\"read_csv\"('/etc/passwd')",
    "re/**/ad_csv('/etc/passwd')",
    "read_csv/**/('/etc/passwd')",
    "read_csv -- x\n ('/etc/passwd')",
    "main.read_csv('/etc/passwd')",
    "system.main.read_csv('/etc/passwd')",
    "system.read_csv('/etc/passwd')",
    "pg_catalog.read_csv('/etc/passwd')",
    "app.read_csv('/etc/passwd')",
    "read_csv(['/etc/passwd'])",
    "read_csv('/etc/passwd', header = false)",
    "read_csv(E'/etc/\\x70asswd')",
    "read_text('/etc/passwd')",
    "read_blob('/etc/passwd')",
    "read_json('/etc/passwd')",
    "read_json_objects('/etc/passwd')",
    "read_ndjson('/etc/passwd')",
    "read_parquet('/etc/passwd')",
    "parquet_scan('/etc/passwd')",
    "parquet_metadata('/etc/passwd')",
    "parquet_schema('/etc/passwd')",
    "sniff_csv('/etc/passwd')",
    "glob('/etc/*')",
    "'/etc/passwd'",
    '"/etc/passwd"',
    "'/etc/passwd' AS t",
    "'file:///etc/passwd'",
    "'https://127.0.0.1/x.csv'",
    "'s3://bucket/x.parquet'",
    "query('SELECT 1')",
    "query_table('items')",
    "duckdb_settings()",
    "duckdb_secrets()",
    "duckdb_tables()",
    "duckdb_extensions()",
    "duckdb_databases()",
    "duckdb_memory()",
    "duckdb_temporary_files()",
    "duckdb_functions",
    "pragma_database_list",
    "pragma_table_info('items')",
    "pragma_storage_info('items')",
    "pg_catalog.pg_tables",
    "pg_class",
    "pg_attribute",
    "sqlite_master",
    "sqlite_schema",
    "main.information_schema.tables",
    "system.information_schema.tables",
    "memory.information_schema.tables",
    "temp.information_schema.tables",
    "seq_scan('items')",
    "arrow_scan(1, 2, 3)",
    "pandas_scan(1)",
    "json_execute_serialized_sql('{}')",
    "which_secret('x', 's3')",
    "checkpoint()",
    "__s0",
    "environ",
    "server",
]


@pytest.mark.parametrize(
    "shape",
    [
        "SELECT * FROM {}",
        "SELECT count(*) FROM {}",
        "WITH x AS (SELECT * FROM {}) SELECT * FROM x",
        "SELECT (SELECT count(*) FROM {})",
        "SELECT * FROM app.items WHERE EXISTS (SELECT 1 FROM {})",
        "SELECT * FROM app.items i, {}",
        "SELECT * FROM app.items i LEFT JOIN {} ON true",
        "SELECT 1 UNION ALL SELECT count(*) FROM {}",
        "INSERT INTO app.items (id, name) SELECT 9, 'x' FROM {}",
        "INSERT INTO app.items (id, name) VALUES ((SELECT count(*) FROM {}), 'x')",
        "INSERT INTO app.items (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = (SELECT 'x' FROM {})",
        "INSERT INTO app.items (id, name) VALUES (9, 'x') RETURNING (SELECT count(*) FROM {})",
        "UPDATE app.items SET name = (SELECT 'x' FROM {}) WHERE id = 1",
        "UPDATE app.items SET name = 'x' FROM {} WHERE items.id = 1",
        "DELETE FROM app.items WHERE id IN (SELECT 1 FROM {})",
        "EXPLAIN SELECT * FROM {}",
        "EXPLAIN ANALYZE SELECT * FROM {}",
        "EXECUTE AS USER 'admin' (SELECT * FROM {})",
        "FROM {}",
        "TABLE {}",
    ],
)
def test_no_query_reaches_outside(server: RunningServer, other: Bystander, shape: str) -> None:
    refuse_all(server, [shape.format(reader) for reader in READERS])
    other.query()
    assert server.rows("SELECT id, name FROM app.items ORDER BY id") == [[1, "one"], [2, "two"]]


FUNCTIONS = [
    "getenv('HOME')",
    "GetEnv('HOME')",
    "\"getenv\"('HOME')",
    "get/**/env('HOME')",
    "main.getenv('HOME')",
    "system.main.getenv('HOME')",
    "'HOME'.getenv()",
    "list_transform(['HOME'], lambda x: getenv(x))",
    "list_aggregate(['HOME'], 'getenv')",
    "current_setting('temp_directory')",
    "current_setting('secret_directory')",
    "current_query()",
    "getvariable('x')",
    "pg_sleep(100)",
    "sleep_ms(100000)",
    "nextval('s')",
    "txid_current()",
    "error('x')",
    "write_log('x')",
    "read_text('/etc/passwd')",
    "parse_duckdb_log_message('x', 'y')",
    "json_serialize_sql('SELECT 1')",
    "json_serialize_plan('SELECT 1')",
    "json_deserialize_sql('{}')",
    "in_search_path('a', 'b')",
    "has_table_privilege('items', 'select')",
    "pg_get_viewdef(1)",
    "__hr_snowflake_id(1)",
    "alias(read_csv)",
    "(SELECT content FROM read_text('/etc/passwd'))",
]


@pytest.mark.parametrize(
    "shape",
    [
        "SELECT {}",
        "SELECT * FROM app.items WHERE name = {}::TEXT",
        "SELECT name FROM app.items GROUP BY name, {}",
        "SELECT name FROM app.items ORDER BY {}",
        "SELECT * FROM app.items LIMIT {}",
        "SELECT sum(id) FILTER (WHERE {} IS NULL) FROM app.items",
        "SELECT row_number() OVER (ORDER BY {}) FROM app.items",
        "CREATE TABLE app.bad (id BIGINT PRIMARY KEY, v TEXT DEFAULT {}) WITH (TYPE='SHARED')",
        "CREATE TABLE app.bad (id BIGINT PRIMARY KEY, v TEXT CHECK ({} IS NULL)) WITH (TYPE='SHARED')",
        "ALTER TABLE app.items ADD COLUMN bad TEXT DEFAULT {}",
        "INSERT INTO app.items (id, name) VALUES (9, {})",
        "INSERT INTO app.items (id, name) SELECT 9, {}",
        "INSERT INTO app.items (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = {}",
        "INSERT INTO app.items (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y' WHERE {} IS NULL",
        "INSERT INTO app.items (id, name) VALUES (9, 'x') RETURNING {}",
        "UPDATE app.items SET name = {} WHERE id = 1",
        "UPDATE app.items SET name = 'x' WHERE {} IS NULL",
        "DELETE FROM app.items WHERE {} IS NOT NULL",
    ],
)
def test_no_expression_reaches_outside(server: RunningServer, other: Bystander, shape: str) -> None:
    refuse_all(server, [shape.format(function) for function in FUNCTIONS])
    other.query()
    assert server.rows("SELECT id, name FROM app.items ORDER BY id") == [[1, "one"], [2, "two"]]


COMMANDS = [
    "COPY app.items TO '{folder}/x.csv'",
    "COPY (SELECT 1) TO '{folder}/x.csv'",
    "COPY app.items FROM '/etc/passwd'",
    "ATTACH '{folder}/x.db' AS x",
    "ATTACH DATABASE '{folder}/x.db'",
    "DETACH x",
    "USE memory.main",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/x.so'",
    "PRAGMA database_list",
    "PRAGMA memory_limit='10GB'",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "SET VARIABLE x = 1",
    "RESET threads",
    "CALL pragma_version()",
    "EXPORT DATABASE '{folder}/x'",
    "IMPORT DATABASE '{folder}/x'",
    "CREATE MACRO f(x) AS x",
    "CREATE FUNCTION f(x) AS x",
    "CREATE TABLE app.t AS SELECT * FROM read_csv('/etc/passwd')",
    "CREATE TABLE app.t AS FROM '/etc/passwd'",
    "CREATE VIEW app.v AS SELECT * FROM read_csv('/etc/passwd')",
    "CREATE SECRET s (TYPE s3)",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS ENUM ('a')",
    "CREATE SCHEMA memory.x",
    "VACUUM",
    "CHECKPOINT",
    "ANALYZE",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "MERGE INTO app.items USING app.items s ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE app.items",
    "COMMENT ON TABLE app.items IS 'x'",
    "SUMMARIZE app.items",
    "DESCRIBE read_csv('/etc/passwd')",
    "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
    "SHOW ALL TABLES",
    "SHOW DATABASES",
    "PIVOT app.items ON name",
    "UNPIVOT app.items ON name",
    "FROM (SHOW TABLES)",
    "FROM (DESCRIBE app.items)",
    "SELECT * FROM app.items AT (VERSION => 1)",
    "SELECT * FROM app.items FOR UPDATE",
    "SELECT * INTO OUTFILE '{folder}/x' FROM app.items",
    "SELECT * INTO app.copied FROM app.items",
    "INSERT INTO '{folder}/x.csv' VALUES (1)",
    "INSERT INTO read_csv('/etc/passwd') VALUES (1)",
    "DELETE FROM '/etc/passwd' WHERE true",
    'UPDATE "/etc/passwd" SET x = 1 WHERE true',
    "DO $$ BEGIN END $$",
    "SELECT $$x$$",
    ".open /etc/passwd",
    "\\copy app.items to x",
    "!ls",
]


@pytest.mark.parametrize("begin", ["", "SELECT 1; ", "/* */ ", "-- x\n", "EXPLAIN ", "/* ; */ SELECT 1 /* ' */;"])
def test_no_command_reaches_outside(server: RunningServer, other: Bystander, tmp_path: Path, begin: str) -> None:
    refuse_all(server, [begin + command.format(folder=tmp_path) for command in COMMANDS])
    assert not list(tmp_path.iterdir())
    other.query()
    assert server.rows("SELECT id, name FROM app.items ORDER BY id") == [[1, "one"], [2, "two"]]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1 -- ; DELETE FROM app.items WHERE true", [[1]]),
        ("SELECT 1 /* ; DELETE FROM app.items WHERE true */", [[1]]),
        ("SELECT 1 /* /* */ ; DELETE FROM app.items WHERE true */", [[1]]),
        ("SELECT '/*' || 1 || '*/'", [["/*1*/"]]),
        ("SELECT '--' || 1", [["--1"]]),
        ("SELECT ';' AS \"; DELETE FROM app.items WHERE true; --\"", [[";"]]),
        ("SELECT 'a'';DELETE FROM app.items WHERE true;--'", [["a';DELETE FROM app.items WHERE true;--"]]),
        ("SELECT '\\'; -- DELETE", [["\\"]]),
        ("SELECT E'\\'; DELETE FROM app.items WHERE true; --'", [["'; DELETE FROM app.items WHERE true; --"]]),
        ("SELECT /*+ hint */ 1", [[1]]),
        ("SELECT 1 --\r; DELETE FROM app.items WHERE true", [[1]]),
        ("SELECT 1 /*! ; DELETE FROM app.items WHERE true */", [[1]]),
    ],
    ids=short,
)
def test_comments_and_strings_hide_no_statement(server: RunningServer, sql: str, rows: list[list[object]]) -> None:
    assert server.rows(sql) == rows
    assert server.rows("SELECT count(*) FROM app.items") == [[2]]


def test_a_megabyte_of_plain_rows_needs_no_parser(server: RunningServer, other: Bystander) -> None:
    server.sql("CREATE TABLE app.many (id BIGINT PRIMARY KEY, v TEXT, n INT DEFAULT 7) WITH (TYPE='SHARED')")
    try:
        values = ", ".join(f"({number}, 'x')" for number in range(60_000))
        answer = other.watch(lambda: ask(server, f"INSERT INTO app.many (id, v) VALUES {values}"))
        assert answer.status_code == 200, answer.text[:500]
        assert answer.json()["results"][0]["row_count"] == 60_000
        assert server.rows("SELECT count(*), max(id), min(n) FROM app.many") == [[60_000, 59_999, 7]]
        again = ask(server, f"INSERT INTO app.many (id, v) VALUES (60000, 'y'), {values}")
        assert failure(again) == EXECUTION
        wrong = ask(server, f"INSERT INTO app.many (id, v) VALUES {values}, ('y', 'y')")
        assert failure(wrong) == EXECUTION
        assert server.rows("SELECT count(*) FROM app.many") == [[60_000]]
    finally:
        server.sql("DROP TABLE app.many")
