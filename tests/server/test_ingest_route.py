"""`POST /v1/api/ingest/{namespace}/{table}` over a stand-in database."""

from __future__ import annotations

from pathlib import Path

import pytest

from sql.errors import InvalidInput, PermissionDenied
from tests.server.fakes import BEARER, make

PATH = "/v1/api/ingest/app/events"
CSV = {**BEARER, "Content-Type": "text/csv; charset=utf-8"}


def test_the_body_reaches_the_database(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.request("POST", PATH, content=b"a\nb\n", headers=CSV)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("took") >= 0
    assert body == {"status": "success", "inserted": 2}
    assert setting.database.calls == [("app", "events", b"a\nb\n", "text/csv", "alice")]


def test_a_large_body_goes_through_a_file_that_leaves_nothing(tmp_path: Path) -> None:
    setting = make(tmp_path, {"limits": {"ingest_memory_bytes": 1000}})
    lines = b"".join(b"%d\n" % number for number in range(300_000))

    async def chunks() -> object:
        for start in range(0, len(lines), 70_000):
            yield lines[start : start + 70_000]

    answer = setting.request("POST", PATH, content=chunks(), headers=CSV)
    assert answer.json()["inserted"] == 300_000
    assert setting.database.calls[0][2] == lines
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("application/parquet", "application/vnd.apache.parquet"),
        ("application/JSONL", "application/x-ndjson"),
    ],
)
def test_content_types_have_one_name(tmp_path: Path, given: str, name: str) -> None:
    setting = make(tmp_path)
    setting.request("POST", PATH, content=b"x", headers={**BEARER, "Content-Type": given})
    assert setting.database.calls[0][3] == name


@pytest.mark.parametrize(
    "extra", [{"Content-Type": "application/json"}, {"Content-Type": ""}, {"Content-Encoding": "gzip"}]
)
def test_other_types_are_refused(tmp_path: Path, extra: dict[str, str]) -> None:
    answer = make(tmp_path).request("POST", PATH, content=b"x", headers={**CSV, **extra})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "INVALID_INPUT")


def test_errors_have_the_sql_shape_with_line_and_column(tmp_path: Path) -> None:
    setting = make(tmp_path, error=InvalidInput("'x' is no number", line=3, column=7))
    body = setting.request("POST", PATH, content=b"x", headers=CSV).json()
    assert (body["status"], body["results"]) == ("error", [])
    assert (body["error"]["code"], body["error"]["line"], body["error"]["column"]) == ("INVALID_INPUT", 3, 7)
    denied = make(tmp_path, error=PermissionDenied("no")).request("POST", PATH, content=b"x", headers=CSV)
    assert denied.status_code == 403


def test_it_has_its_own_body_limit(tmp_path: Path) -> None:
    setting = make(tmp_path, {"limits": {"max_body_bytes": 1024, "max_ingest_bytes": 5000}})
    assert setting.request("POST", PATH, content=b"x" * 5000, headers=CSV).status_code == 200
    answer = setting.request("POST", PATH, content=b"x" * 5001, headers=CSV)
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, 5000)


def test_it_needs_a_token_and_counts_as_a_query(tmp_path: Path) -> None:
    setting = make(tmp_path, {"rate_limit": {"max_queries_per_sec": 1}})
    assert setting.request("POST", PATH, content=b"x", headers={"Content-Type": "text/csv"}).status_code == 401
    assert setting.request("POST", PATH, content=b"x", headers=CSV).status_code == 200
    assert setting.request("POST", PATH, content=b"x", headers=CSV).status_code == 429
    assert setting.request("GET", PATH, headers=CSV).status_code == 405
