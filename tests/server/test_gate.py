"""What every request goes through: ids, limits, CORS, errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sql.errors import InvalidSql, Overloaded, StorageFullError, TableNotFound
from storage.errors import QueueFull, StorageClosed, StorageFull, StoragePoisoned
from tests.server.fakes import BEARER, REMOTE, make

LIMITED = {"rate_limit": {"max_requests_per_ip_per_sec": 3}}


def test_a_request_id_is_kept_if_it_is_sane_and_made_otherwise(tmp_path: Path) -> None:
    setting = make(tmp_path)
    kept = setting.request("GET", "/health", headers={"X-Request-ID": "trace-1:a/b"})
    assert kept.headers["X-Request-ID"] == "trace-1:a/b"
    for odd in ("", "with space", "x" * 129, "semi;colon", "<script>"):
        made = setting.request("GET", "/health", headers={"X-Request-ID": odd}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
    ids = {setting.request("GET", "/nowhere").headers["X-Request-ID"] for _ in range(5)}
    assert len(ids) == 5


def test_every_answer_forbids_sniffing(tmp_path: Path) -> None:
    setting = make(tmp_path)
    for path in ("/health", "/nowhere", "/docs", "/v1/api/sql"):
        assert setting.request("GET", path).headers["X-Content-Type-Options"] == "nosniff"


def test_an_unexpected_error_tells_its_request_id_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = make(tmp_path, error=RuntimeError("secret detail"))
    answer = setting.sql(headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 500
    body = answer.json()
    assert (body["status"], body["error"]["code"], body["request_id"]) == ("error", "INTERNAL_ERROR", "find-me")
    assert answer.headers["X-Request-ID"] == "find-me"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (InvalidSql("no", line=2, column=5), 400, None),
        (TableNotFound("Table not found: app.x"), 404, None),
        (Overloaded("full"), 503, "1"),
        (StorageFullError("full"), 507, None),
    ],
)
def test_sql_errors_have_their_status_and_shape(
    tmp_path: Path, error: Exception, status: int, retry: str | None
) -> None:
    answer = make(tmp_path, error=error).sql()
    assert answer.status_code == status
    body = answer.json()
    assert body["status"] == "error"
    assert body["results"] == []
    assert body["took"] >= 0
    assert body["error"]["message"] == str(error)
    assert answer.headers.get("Retry-After") == retry


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StorageFull("map"), 507, "STORAGE_FULL"),
        (QueueFull("queue"), 503, "SERVER_OVERLOADED"),
        (StorageClosed("closed"), 503, "STORAGE_UNAVAILABLE"),
        (StoragePoisoned("EIO"), 503, "STORAGE_UNAVAILABLE"),
    ],
)
def test_storage_errors_that_got_through_have_their_status(
    tmp_path: Path, error: Exception, status: int, code: str
) -> None:
    answer = make(tmp_path, error=error).sql()
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_unknown_paths_and_methods_are_json(tmp_path: Path) -> None:
    setting = make(tmp_path)
    missing = setting.request("GET", "/healthz")
    assert (missing.status_code, missing.json()["error"]) == (404, "NOT_FOUND")
    wrong = setting.request("DELETE", "/v1/api/sql")
    assert (wrong.status_code, wrong.json()["error"], wrong.headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "POST")
    assert setting.request("GET", "/health/").status_code == 404


def test_head_has_no_body(tmp_path: Path) -> None:
    setting = make(tmp_path)
    assert setting.request("HEAD", "/nowhere").content == b""


def test_a_body_that_announces_to_be_too_large_is_refused(tmp_path: Path) -> None:
    answer = make(tmp_path, {"limits": {"max_body_bytes": 2000}}).sql(b"x" * 2001)
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "BODY_TOO_LARGE",
        "message": "Request body exceeds maximum allowed size",
        "size_bytes": 2001,
        "max_bytes": 2000,
    }


def test_a_chunked_body_is_counted(tmp_path: Path) -> None:
    async def chunks() -> object:
        for _ in range(30):
            yield b"x" * 100

    setting = make(tmp_path, {"limits": {"max_body_bytes": 2000}})
    answer = setting.request(
        "POST", "/v1/api/sql", content=chunks(), headers={**BEARER, "Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["size_bytes"] == 2100
    assert not setting.database.calls


def test_too_many_requests_from_an_address(tmp_path: Path) -> None:
    setting = make(tmp_path, LIMITED)
    answers = [setting.request("GET", "/nowhere", peer=REMOTE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert answers[3].json() == {
        "error": "RATE_LIMIT_EXCEEDED",
        "message": "Too many requests from your IP address",
        "retry_after_seconds": 1,
    }
    assert answers[3].headers["Retry-After"] == "1"
    assert answers[3].headers["X-RateLimit-Reset"] == "1"
    assert all(setting.request("GET", "/nowhere").status_code == 404 for _ in range(9))


def test_a_banned_address_is_told_how_long(tmp_path: Path) -> None:
    setting = make(tmp_path, LIMITED)
    for _ in range(13):
        setting.request("GET", "/nowhere", peer=REMOTE)
    answer = setting.request("GET", "/nowhere", peer=REMOTE)
    assert (answer.status_code, answer.json()["error"], answer.headers["Retry-After"]) == (429, "IP_BANNED", "300")
    assert answer.json()["retry_after_seconds"] == 300


def test_any_origin_is_allowed_by_default(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.request("GET", "/health", headers={"Origin": "https://app.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Expose-Headers"] == "X-Request-ID"
    assert "Access-Control-Allow-Origin" not in setting.request("GET", "/health").headers


def test_preflights_are_answered(tmp_path: Path) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = make(tmp_path).request("OPTIONS", "/v1/api/sql", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Max-Age"] == "3600"
    assert "Content-Length" not in answer.headers


def test_only_named_origins_are_allowed_where_some_are_named(tmp_path: Path) -> None:
    from server.config import CorsSection

    cors = CorsSection(allowed_origins=("https://app.example",), allow_credentials=True)
    setting = make(tmp_path, {"security": {"cors": cors}})
    good = setting.request("GET", "/health", headers={"Origin": "https://app.example"})
    assert good.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert good.headers["Access-Control-Allow-Credentials"] == "true"
    assert good.headers["Vary"] == "Origin"
    bad = setting.request("GET", "/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in bad.headers
    refused = setting.request(
        "OPTIONS", "/v1/api/sql", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "Access-Control-Allow-Methods" not in refused.headers
