"""The ring of log lines: bounded in number and length, newest first, without what an exception says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from server.exchange import Exchange, current_exchange
from server.log_ring import LONGEST_MESSAGE, LogRing


@pytest.fixture
def ring() -> Iterator[LogRing]:
    made = LogRing(10)
    log = logging.getLogger("test.ring")
    log.addHandler(made)
    log.propagate = False
    log.setLevel(logging.DEBUG)
    yield made
    log.removeHandler(made)


LOG = logging.getLogger("test.ring")


def test_the_latest_lines_newest_first(ring: LogRing) -> None:
    for number in range(25):
        LOG.info("line %d", number)
    lines = ring.lines()
    assert [line.message for line in lines] == [f"line {number}" for number in range(24, 14, -1)]
    assert [line.timestamp for line in lines] == sorted((line.timestamp for line in lines), reverse=True)


def test_what_a_line_tells(ring: LogRing) -> None:
    LOG.warning("slow", extra={"fields": {"took_ms": 7.5, "user": "ann", "sql": "SELECT '***'", "path": "/x"}})
    [line] = ring.lines()
    assert (line.level, line.target, line.thread) == ("warning", "test.ring", threading.current_thread().name)
    assert line.message == "slow took_ms=7.5 user=ann sql=SELECT '***'"
    assert line.line > 0
    assert line.request_id is None


def test_a_line_names_its_request(ring: LogRing) -> None:
    async def nothing(*_: object) -> None: ...

    exchange = Exchange({"headers": []}, nothing, nothing)  # type: ignore[arg-type]
    exchange.request_id = "abc-1"
    token = current_exchange.set(exchange)
    try:
        LOG.info("in a request")
    finally:
        current_exchange.reset(token)
    assert ring.lines()[0].request_id == "abc-1"


def test_long_messages_are_cut_and_exceptions_say_only_their_kind(ring: LogRing) -> None:
    LOG.info("x" * 5_000)
    try:
        raise ValueError("the password is hunter2")
    except ValueError:
        LOG.exception("it failed")
    failed, long = ring.lines()
    assert failed.message == "it failed (ValueError)"
    assert len(long.message) == LONGEST_MESSAGE
    assert long.message.endswith("…")


def test_no_lines_are_kept_if_none_are_wanted() -> None:
    ring = LogRing(0)
    ring.emit(logging.LogRecord("x", logging.INFO, "f", 1, "m", (), None))
    assert ring.lines() == []


def test_a_record_that_cannot_be_written_hurts_nobody(ring: LogRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    LOG.info("%d", "no number")
    LOG.info("after")
    assert [line.message for line in ring.lines()] == ["after"]
