"""`POST /v1/api/sql` over a stand-in database: what is accepted, what is refused, in which order, in which format."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from server.negotiation import ResultFormat, choose_format
from server.wire import SqlFailure, SqlSuccess
from sql.errors import ExecutionError, QueryTimeout
from tests.server.fakes import BEARER, FakeDatabase, Setting, make, rows

ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
NDJSON = {"Accept": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


def failure(answer: Any) -> tuple[int, str, str]:
    body = msgspec.json.decode(answer.content, type=SqlFailure)
    assert body.results == []
    return answer.status_code, body.error.code, body.error.message


def test_the_answer_has_the_shape_of_the_seed_page(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.sql({"sql": "SELECT * FROM app.t WHERE id = $1", "params": [123], "namespace_id": "app", "x": 1})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body.pop("took") >= 0
    assert body == {
        "status": "success",
        "results": [
            {
                "schema": [
                    {"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]},
                    {"name": "name", "data_type": "Text", "index": 1},
                ],
                "rows": [[1, "one"], [2, None]],
                "row_count": 2,
                "as_user": "alice",
            }
        ],
    }
    assert setting.database.calls == [("SELECT * FROM app.t WHERE id = $1", [123], "app", "alice")]
    msgspec.json.decode(answer.content, type=SqlSuccess)


def test_without_a_token_nothing_is_read(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.request("POST", "/v1/api/sql", content=b"{", headers=JSON)
    assert failure(answer) == (401, "MISSING_AUTHORIZATION", "Authentication required")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    basic = setting.request("POST", "/v1/api/sql", content=b"{", headers={**JSON, "Authorization": "Basic YTpi"})
    assert failure(basic) == (401, "INVALID_CREDENTIALS", "Invalid credentials")


def test_the_rate_of_a_user_is_checked_before_the_body(tmp_path: Path) -> None:
    setting = make(tmp_path, {"rate_limit": {"max_queries_per_sec": 2}})
    assert [setting.sql(b"{").status_code for _ in range(3)] == [400, 400, 429]
    answer = setting.sql()
    assert failure(answer) == (429, "RATE_LIMIT_EXCEEDED", "Too many queries per second. Please slow down.")
    assert answer.headers["Retry-After"] == "1"
    assert setting.sql(headers={"Authorization": "Bearer bob"}).status_code == 200
    setting.clock.seconds += 1
    assert setting.sql().status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"[]", b"{}", b'{"sql":1}', b'{"sql":null}', b'{"sql":"x","params":{}}',
        b'{"sql":"x","params":1}', b'{"sql":"x","namespace_id":7}', b'{"sql":"\xff\xfe"}',
        b'{"sql":"x","params":[NaN]}',
        b'{"sql":"x","params":[1e999]}', b'{"sql":"\\ud800"}',
        b'{"sql":"x","params":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"sql":"x","params":[' + b"9" * 5000 + b"]}", b'{"sql":"x"} trailing', b'\x00{"sql":"x"}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_what_is_not_the_payload_is_refused(tmp_path: Path, body: bytes) -> None:
    setting = make(tmp_path)
    status, code, message = failure(setting.sql(body))
    assert (status, code) == (400, "INVALID_INPUT")
    assert message.startswith("Invalid JSON payload: ")
    assert not setting.database.calls


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_the_content_type_must_be_json(tmp_path: Path, kind: str) -> None:
    answer = make(tmp_path).sql(b'{"sql":"x"}', headers={"Content-Type": kind})
    if kind == "application/jsonp":
        return
    assert failure(answer)[:2] == (400, "INVALID_INPUT")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;x=y"])
def test_json_has_many_spellings(tmp_path: Path, kind: str) -> None:
    assert make(tmp_path).sql(b'{"sql":"x"}', headers={"Content-Type": kind}).status_code == 200


def test_sizes_are_limited(tmp_path: Path) -> None:
    setting = make(tmp_path, {"execution": {"max_parameters": 50, "max_parameter_size_bytes": 524_288}})
    long = setting.sql({"sql": "-" * 1_048_577})
    assert failure(long) == (400, "INVALID_SQL", "SQL query too long: 1048577 bytes (maximum 1048576 bytes)")
    umlauts = setting.sql({"sql": "ä" * 600_000})
    assert failure(umlauts)[2] == "SQL query too long: 1200000 bytes (maximum 1048576 bytes)"
    assert setting.sql({"sql": "x" * 1_048_576}).status_code == 200
    many = setting.sql({"sql": "x", "params": [1] * 51})
    assert failure(many) == (
        400, "INVALID_PARAMETER", "Parameter count exceeded: maximum 50 parameters allowed, got 51"
    )  # fmt: skip
    for big in ("a" * 524_289, ["a" * 524_289]):
        status, code, message = failure(setting.sql({"sql": "x", "params": [1, big]}))
        assert (status, code) == (400, "INVALID_PARAMETER")
        assert message.startswith("Parameter $2 is too large: 5242")
    assert setting.sql({"sql": "x", "params": ["a" * 524_288, "b" * 524_288]}).status_code == 200


def test_an_empty_namespace_is_none(tmp_path: Path) -> None:
    setting = make(tmp_path)
    setting.sql({"sql": "x", "namespace_id": ""})
    setting.sql({"sql": "x", "params": None, "namespace_id": None})
    assert setting.database.calls == [("x", None, None, "alice")] * 2


def test_bigints_are_written_as_configured(tmp_path: Path) -> None:
    table = rows((2**53, "big"), (7, "small"))

    def first_column(mode: str) -> list[object]:
        answer = make(tmp_path, {"wire": {"bigint": mode}}, table=table).sql()
        return [row[0] for row in answer.json()["results"][0]["rows"]]

    assert first_column("auto") == ["9007199254740992", 7]
    assert first_column("string") == ["9007199254740992", "7"]
    assert first_column("number") == [9007199254740992, 7]


def test_large_results_are_the_same_as_small_ones(tmp_path: Path) -> None:
    answer = make(tmp_path, table=rows(*((number, None) for number in range(6000)))).sql()
    assert answer.json()["results"][0]["rows"] == [[number, None] for number in range(6000)]


def test_ndjson(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.sql(headers=NDJSON)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [msgspec.json.decode(line) for line in answer.content.splitlines()] == [
        {"id": 1, "name": "one"}, {"id": 2, "name": None},
    ]  # fmt: skip
    assert setting.database.last_stream.closed
    assert make(tmp_path, table=rows().slice(0, 0)).sql(headers=NDJSON).content == b""


@pytest.mark.parametrize("count", [0, 2, 100_000])
def test_arrow(tmp_path: Path, count: int) -> None:
    table = rows(*((number, f"row {number}") for number in range(count)))
    table = pa.concat_tables([table, table])
    answer = make(tmp_path, table=table).sql(headers=ARROW)
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    received = pa.ipc.open_stream(answer.content).read_all()
    assert received.column_names == ["id", "name"]
    assert received.to_pydict() == table.to_pydict()


@pytest.mark.parametrize("headers", [ARROW, NDJSON])
def test_an_error_before_the_first_rows_has_its_status(tmp_path: Path, headers: dict[str, str]) -> None:
    setting = make(tmp_path, table=rows().slice(0, 0), stream_error=ExecutionError("division by zero"))
    assert failure(setting.sql(headers=headers)) == (400, "SQL_EXECUTION_ERROR", "division by zero")
    assert setting.database.last_stream.closed
    assert failure(make(tmp_path, error=QueryTimeout("too long")).sql(headers=headers))[:2] == (408, "QUERY_TIMEOUT")


def test_formats_by_the_accept_header() -> None:
    assert choose_format(None) is ResultFormat.JSON
    assert choose_format(b"*/*") is ResultFormat.JSON
    assert choose_format(b"text/html,application/xhtml+xml") is ResultFormat.JSON
    assert choose_format(b"Application/X-NDJSON") is ResultFormat.NDJSON
    assert choose_format(b"application/json;q=0.5, application/vnd.apache.arrow.stream") is ResultFormat.ARROW
    assert choose_format(b"application/vnd.apache.arrow.stream;q=0.1, */*;q=0.5") is ResultFormat.JSON
    assert choose_format(b"application/x-ndjson;q=0") is ResultFormat.JSON
    assert choose_format(b"application/x-ndjson;q=much") is ResultFormat.JSON


def form(setting: Setting, **parts: object) -> Any:
    return setting.request("POST", "/v1/api/sql", headers=BEARER, **parts)


def test_multipart_without_files(tmp_path: Path) -> None:
    setting = make(tmp_path)
    parts = {"sql": (None, "SELECT $1"), "params": (None, '[1,"ä"]'), "namespace_id": (None, "app"), "odd": (None, "x")}
    assert form(setting, files=parts).status_code == 200
    assert form(setting, files={"sql": (None, "SELECT 1")}).status_code == 200
    assert setting.database.calls == [("SELECT $1", [1, "ä"], "app", "alice"), ("SELECT 1", None, None, "alice")]


@pytest.mark.parametrize(
    ("parts", "status", "code", "message"),
    [
        ({"params": (None, "[]")}, 400, "EMPTY_SQL", "SQL statement is required"),
        ({"sql": (None, "x"), "params": (None, "[")}, 400, "INVALID_PARAMETER", "Invalid params JSON: "),
        ({"sql": (None, "x"), "params": (None, "{}")}, 400, "INVALID_PARAMETER", "Params must be a JSON array"),
        (
            {"sql": (None, "x"), "file:a": ("a/b", b"abc")},
            400,
            "INVALID_INPUT",
            "The file name of part 'file:a' is a path",
        ),
        (
            {"sql": (None, "x"), "file:a": ("a", b"abc", "b")},
            415,
            "INVALID_MIME_TYPE",
            "Part 'file:a': 'b' is no media type",
        ),
        (
            {"sql": (None, "x"), **{f"p{n}": (None, "") for n in range(84)}},
            400,
            "INVALID_INPUT",
            "Invalid multipart payload",
        ),
    ],
)
def test_multipart_mistakes(tmp_path: Path, parts: dict[str, Any], status: int, code: str, message: str) -> None:
    found = failure(form(make(tmp_path), files=parts))
    assert found[:2] == (status, code)
    assert found[2].startswith(message)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize(
    "body", [b"", b"garbage", b"--x\r\n\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"]
)
def test_broken_multipart_is_refused(tmp_path: Path, kind: str, body: bytes) -> None:
    assert failure(make(tmp_path).sql(body or b"-", headers={"Content-Type": kind}))[0] == 400


def test_multipart_with_files(tmp_path: Path) -> None:
    setting = make(tmp_path)
    png = b"\x89PNG\r\n\x1a\n"
    parts = {"file:a": ("a.txt", b"abc"), "sql": (None, "x"), "params": (None, "[1]"), "file:B": (None, png)}
    answer = form(setting, files=parts)
    assert answer.status_code == 200, answer.text
    files = {"a": ("a.txt", "text/plain", b"abc"), "B": ("file", "image/png", png)}
    assert setting.database.calls == [("x", [1], None, "alice", files)]
    assert list((tmp_path / "tmp").glob("*")) == []


def test_a_slow_request_is_logged_without_its_literals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = make(tmp_path, {"logging": {"slow_query_threshold_ms": 0.001}})
    setting.sql({"sql": "ALTER USER bob SET PASSWORD 'hunter22'"})
    (record,) = [record for record in caplog.records if record.message == "slow SQL request"]
    assert record.fields["sql"] == "ALTER USER bob SET PASSWORD '***'"  # type: ignore[attr-defined]
    assert record.fields["user"] == "alice"  # type: ignore[attr-defined]


def test_a_request_whose_client_has_gone_is_cancelled(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        seen: list[str] = []
        begun = asyncio.Event()

        async def forever() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        setting = make(tmp_path, before=forever)
        setting.active.patience = 0.01
        messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": b'{"sql":"x"}'})

        async def send(message: dict[str, object]) -> None:
            seen.append(str(message))

        scope = {
            "type": "http", "method": "POST", "path": "/v1/api/sql", "client": ("127.0.0.1", 1),
            "headers": [(b"authorization", b"Bearer alice"), (b"content-type", b"application/json")],
        }  # fmt: skip
        setting.active.start()
        task = asyncio.create_task(setting.app(scope, messages.get, send))  # type: ignore[arg-type]
        await begun.wait()
        assert len(setting.active) == 1
        messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(task, 5)
        assert len(setting.active) == 0
        await setting.active.stop()
        return seen

    assert asyncio.run(scenario()) == ["cancelled"]


def test_fake_database_has_the_face_that_routes_use() -> None:
    from server.state import Database

    assert {name for name in vars(Database) if not name.startswith("_")} <= set(dir(FakeDatabase()))
