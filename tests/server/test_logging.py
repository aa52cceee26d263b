"""The log: one line a request, with its id, and without secrets."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from server.config import LoggingSection
from server.logging import JsonFormatter, TextFormatter, configure, mask_literals
from tests.server.fakes import make


@pytest.mark.parametrize(
    ("sql", "masked"),
    [
        ("SELECT 'a', 'it''s', \"col'umn\" -- it's\n, 'b'", "SELECT '***', '***', \"col'umn\" -- it's\n, '***'"),
        ("CREATE USER a WITH PASSWORD 'hunter2", "CREATE USER a WITH PASSWORD '***'"),
        ("SELECT $tag$secret$tag$, $$x$$, $1", "SELECT '***', '***', $1"),
        (r"SELECT E'it\'s secret', 'b'", "SELECT '***', '***'"),
        ("/* 'quoted' */ SELECT 'x' /* open", "/* 'quoted' */ SELECT '***' /* open"),
    ],
)
def test_string_literals_are_masked(sql: str, masked: str) -> None:
    assert mask_literals(sql) == masked


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("headrace.request", logging.INFO, __file__, 1, message, None, None)
    made.fields = fields
    return made


def test_text_lines_stay_one_line() -> None:
    line = TextFormatter().format(record("GET /a\nINFO forged", client="1.2.3.4", user=None, path="/x"))
    assert "\n" not in line
    assert "client=1.2.3.4" in line
    assert "user" not in line


def test_json_lines_are_objects() -> None:
    made = record("hello", took_ms=1.5)
    try:
        raise ValueError("inner")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter().format(made))
    assert (line["level"], line["message"], line["took_ms"]) == ("info", "hello", 1.5)
    assert "ValueError: inner" in line["traceback"]


def test_each_request_is_one_line_by_its_outcome(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headrace.request")
    make(tmp_path).sql()
    make(tmp_path).sql(b"{")
    make(tmp_path, error=RuntimeError("x")).sql()
    lines = [(entry.levelname, entry.fields["status"]) for entry in caplog.records if hasattr(entry, "fields")]
    assert lines == [("DEBUG", 200), ("INFO", 400), ("ERROR", 500)]
    fields = caplog.records[0].fields  # type: ignore[attr-defined]
    assert {"method", "path", "status", "took_ms", "client", "user"} == set(fields)
    assert (fields["user"], fields["client"]) == ("alice", "127.0.0.1")
    assert "Bearer" not in caplog.text


def test_configure(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure(LoggingSection(level="warning", format="json"))
        logging.getLogger("headrace").info("not shown")
        logging.getLogger("headrace").warning("shown")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "shown"
