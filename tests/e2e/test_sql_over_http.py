"""SQL, formats, ingest, limits and health of a real server, from the outside."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def filled(server: RunningServer) -> RunningServer:
    server.sql(
        "CREATE NAMESPACE app; CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT NOT NULL) WITH (TYPE='SHARED')"
    )
    server.sql("INSERT INTO app.items VALUES (1, 'one'), (2, 'two')")
    return server


def failure(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert (body["status"], body["results"]) == ("error", [])
    assert body["took"] >= 0
    assert isinstance(body["error"]["message"], str)
    return answer.status_code, body["error"]["code"]


def test_a_query_has_the_shape_of_the_seed_page(filled: RunningServer) -> None:
    body = filled.post("SELECT * FROM items WHERE id = $1", [1], namespace_id="app").json()
    assert body.pop("took") > 0
    assert body == {
        "status": "success",
        "results": [
            {
                "schema": [
                    {"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]},
                    {"name": "name", "data_type": "Text", "index": 1, "flags": ["nn"]},
                ],
                "rows": [[1, "one"]],
                "row_count": 1,
                "as_user": "admin",
            }
        ],
    }


def test_commands_answer_with_a_count_and_a_message(filled: RunningServer) -> None:
    results = filled.sql(
        "CREATE TABLE app.tmp (id INT PRIMARY KEY, v INT) WITH (TYPE='SHARED');"
        "INSERT INTO app.tmp VALUES (1, 1), (2, 2); UPDATE app.tmp SET v = 3 WHERE id = 2;"
        "DELETE FROM app.tmp WHERE id = 1; SELECT v FROM app.tmp; DROP TABLE app.tmp"
    )
    counts = [(result["row_count"], result.get("message")) for result in results]
    assert counts[1:5] == [(2, "Inserted 2 row(s)"), (1, "Updated 1 row(s)"), (1, "Deleted 1 row(s)"), (1, None)]
    assert all(result["as_user"] == "admin" for result in results)
    assert "rows" not in results[0]
    assert "schema" not in results[1]
    assert results[4]["rows"] == [[3]]


@pytest.mark.parametrize(
    ("sql", "params", "status", "code"),
    [
        ("SELEC 1", None, 400, "INVALID_SQL"),
        ("SELECT 'open", None, 400, "BATCH_PARSE_ERROR"),
        ("", None, 400, "EMPTY_SQL"),
        (" ; -- nothing\n ;", None, 400, "EMPTY_SQL"),
        ("SELECT * FROM app.item", None, 404, "TABLE_NOT_FOUND"),
        ("SELECT $1", None, 400, "INVALID_PARAMETER"),
        ("SELECT 1", [1], 400, "INVALID_PARAMETER"),
        ("SELECT nme FROM app.items", None, 400, "INVALID_SQL"),
        ("SELECT '" + "x" * 1_048_576 + "'", None, 400, "INVALID_SQL"),
        ("SELECT 'a\0b'", None, 400, "INVALID_SQL"),
        ("SELECT * FROM read_csv('/etc/passwd')", None, 400, "INVALID_SQL"),
        ("INSERT INTO app.items VALUES (1, 'again')", None, 400, "SQL_EXECUTION_ERROR"),
        ("SELECT " + "(" * 10_000 + "1" + ")" * 10_000, None, 400, "INVALID_SQL"),
    ],
    ids=lambda value: repr(value)[:32],
)
def test_mistakes_have_their_code(
    filled: RunningServer, sql: str, params: list[Any] | None, status: int, code: str
) -> None:
    assert failure(filled.post(sql, params)) == (status, code)
    assert filled.rows("SELECT count(*) FROM app.items") == [[2]]


def test_an_error_says_where(filled: RunningServer) -> None:
    error = filled.post("SELECT 1;\nSELECT nme\nFROM app.items").json()["error"]
    assert (error["line"], error["column"]) == (2, 8)
    assert "name" in error["message"]
    assert "^" in error["details"]


def test_the_streaming_formats_agree_with_json(filled: RunningServer) -> None:
    query = "SELECT id, name FROM app.items ORDER BY id"
    rows = filled.rows(query)
    lines = filled.post(query, headers=NDJSON)
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert [list(json.loads(line).values()) for line in lines.text.splitlines()] == rows
    table = pa.ipc.open_stream(filled.post(query, headers=ARROW).content).read_all()
    assert [list(row.values()) for row in table.to_pylist()] == rows
    assert failure(filled.post("SELECT * FROM app.item", headers=ARROW)) == (404, "TABLE_NOT_FOUND")
    assert failure(filled.post("SELECT 1 / (id - id)::INT, error('x') FROM app.items", headers=NDJSON))[0] == 400


def table_of(start: int, count: int) -> pa.Table:
    return pa.table({"id": range(start, start + count), "name": [f"n{i}" for i in range(count)]})


def as_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def as_ndjson(table: pa.Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()


def as_csv(table: pa.Table) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, table.column_names)
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return sink.getvalue().encode()


@pytest.mark.parametrize(
    ("kind", "encode"),
    [
        ("application/vnd.apache.arrow.stream", as_arrow),
        ("application/vnd.apache.parquet", as_parquet),
        ("application/x-ndjson", as_ndjson),
        ("text/csv", as_csv),
    ],
)
@pytest.mark.parametrize("count", [3, 150_000])
def test_every_format_is_ingested(filled: RunningServer, kind: str, encode: Any, count: int) -> None:
    filled.sql("CREATE TABLE app.bulk (id BIGINT PRIMARY KEY, name TEXT) WITH (TYPE='SHARED')")
    try:
        body = encode(table_of(0, count))
        answer = filled.client.post("/v1/api/ingest/app/bulk", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
        assert answer.json()["inserted"] == count
        assert answer.json()["status"] == "success"
        assert filled.rows("SELECT count(*), min(id), max(id), max(name) FROM app.bulk")[0][:3] == [count, 0, count - 1]
        again = filled.client.post("/v1/api/ingest/app/bulk", content=body, headers={"Content-Type": kind})
        assert failure(again) == (400, "SQL_EXECUTION_ERROR")
        assert filled.rows("SELECT count(*) FROM app.bulk") == [[count]]
    finally:
        filled.sql("DROP TABLE app.bulk")


def test_a_bad_row_is_named_and_nothing_is_inserted(filled: RunningServer) -> None:
    before = filled.rows("SELECT count(*) FROM app.items")
    body = b'{"id": 10, "name": "ten"}\n{"id": "x", "name": "eleven"}\n'
    answer = filled.client.post(
        "/v1/api/ingest/app/items", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    assert failure(answer)[0] == 400
    assert answer.json()["error"]["line"] == 2
    assert filled.rows("SELECT count(*) FROM app.items") == before
    missing = filled.client.post("/v1/api/ingest/app/none", content=body, headers={"Content-Type": "text/csv"})
    assert failure(missing) == (404, "TABLE_NOT_FOUND")


def test_what_ends_an_account_ends_its_tokens_at_once(filled: RunningServer) -> None:
    filled.sql("CREATE USER bob WITH PASSWORD 'BobsPass123!' ROLE service")
    token = filled.login("bob", "BobsPass123!")
    with filled.client_of(token) as bob:
        assert bob.post("/v1/api/sql", json={"sql": "SELECT 1"}).status_code == 200
        filled.sql("ALTER USER bob SET ROLE user")
        assert failure(bob.post("/v1/api/sql", json={"sql": "SELECT 1"})) == (401, "INVALID_CREDENTIALS")
    token = filled.login("bob", "BobsPass123!")
    with filled.client_of(token) as bob:
        assert bob.post("/v1/api/sql", json={"sql": "SELECT 1"}).status_code == 200
        filled.sql("DROP USER bob")
        assert failure(bob.post("/v1/api/sql", json={"sql": "SELECT 1"})) == (401, "INVALID_CREDENTIALS")


def test_settings_are_shown_without_secrets(filled: RunningServer) -> None:
    settings = {row[0]: row[1] for row in filled.rows("SELECT name, value FROM system.settings")}
    assert settings["server.host"] == "127.0.0.1"
    assert settings["rate_limit.max_queries_per_sec"] == "0"
    secrets = {name: value for name, value in settings.items() if "secret" in name or name.endswith("root_password")}
    assert secrets
    assert set(secrets.values()) <= {"***", ""}


def test_health_and_documentation(filled: RunningServer) -> None:
    health = httpx.get(f"{filled.url}/health").json()
    assert (health["status"], health["api_version"]) == ("healthy", "v1")
    cluster = httpx.get(f"{filled.url}/v1/api/cluster/health").json()
    assert cluster["is_cluster_mode"] is False
    assert cluster["last_applied"] > 0
    assert httpx.get(f"{filled.url}/openapi.json").json()["openapi"] == "3.1.0"
    assert "<h1>" in httpx.get(f"{filled.url}/docs").text


def test_many_requests_of_one_user_are_limited_by_default(serve: Serve) -> None:
    running = serve(HEADRACE_RATE_LIMIT_MAX_QUERIES_PER_SEC="20").set_up()
    answers = [running.post("SELECT 1") for _ in range(60)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert len(answers) - len(limited) >= 20
    assert limited
    assert failure(limited[0]) == (429, "RATE_LIMIT_EXCEEDED")
    assert limited[0].headers["Retry-After"] == "1"


def test_others_are_served_while_a_query_runs_long(filled: RunningServer) -> None:
    slow: list[httpx.Response] = []
    query = "SELECT count(*) FROM range(100000) a, range(100000) b, range(100) c WHERE a.range + b.range = c.range"

    def run() -> None:
        with (
            filled.client_of(filled.token) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            slow.append(client.post("/v1/api/sql", json={"sql": query}, timeout=3))

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        assert filled.rows("SELECT name FROM app.items WHERE id = 1") == [["one"]]
    thread.join()
    assert not slow


def test_a_million_rows_stream_in_bounded_memory(serve: Serve) -> None:
    running = serve().set_up()
    running.rows("SELECT sum(range) FROM range(10)")
    before = running.memory_mb()
    most = before
    count = 0
    for headers in (ARROW, NDJSON):
        with running.client.stream(
            "POST",
            "/v1/api/sql",
            headers=headers,
            json={"sql": "SELECT range AS id, 'row ' || range AS v FROM range(1000000)"},
        ) as answer:
            assert answer.status_code == 200
            for chunk in measured(answer):
                count += chunk.count(b"\n") if headers is NDJSON else 0
                most = max(most, running.memory_mb())
    assert count == 1_000_000
    assert most - before < 300


def measured(answer: httpx.Response) -> Iterator[bytes]:
    """Every chunk; memory is looked at now and then only."""
    pending = b""
    for chunk in answer.iter_bytes():
        pending += chunk
        if len(pending) > 1 << 20:
            yield pending
            pending = b""
    yield pending


def test_request_ids_reach_the_log(serve: Serve) -> None:
    running = serve("--log-format", "json", HEADRACE_LOGGING_LEVEL="debug").set_up()
    answer = running.post("SELECT 1", headers={"X-Request-ID": "abc-123"})
    assert answer.headers["X-Request-ID"] == "abc-123"
    running.stop()
    assert re.search(r'"request_id":"abc-123"', running.log())
    assert running.token not in running.log()
    assert running.password not in running.log()
