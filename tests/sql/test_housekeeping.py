"""Housekeeping: every task has its turn, also behind one that fails."""

from __future__ import annotations

import threading

import pytest

from sql.housekeeping import Housekeeping


def test_tasks_have_their_turns_and_one_that_fails_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    turns = threading.Semaphore(0)
    failed = threading.Event()

    def fails() -> None:
        failed.set()
        raise ValueError("not today")

    keeper = Housekeeping()
    keeper.add(0.001, fails)
    keeper.add(0.001, turns.release)
    keeper.start()
    try:
        assert all(turns.acquire(timeout=60) for _ in range(3))
        assert failed.wait(60)
    finally:
        keeper.stop()
    assert "fails failed" in caplog.text


def test_without_tasks_and_without_a_start() -> None:
    keeper = Housekeeping()
    keeper.stop()
    keeper = Housekeeping()
    keeper.start()
    keeper.stop()
