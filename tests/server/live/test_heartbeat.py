"""The heartbeat of a connection: silence, stalls, and a server that is late itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from server.live.heartbeat import Heartbeat, Sign


@dataclass
class Heard:
    """What the heartbeat asks of a connection."""

    last_heard: float = 0.0
    last_drained: float = 0.0
    buffered: int = 0


@pytest.fixture
def connection() -> Heard:
    return Heard()


@pytest.fixture
def heartbeat(connection: Heard) -> Heartbeat:
    return Heartbeat(connection, 0.0, beat_seconds=5.0, longest_silence=10.0, longest_stall=60.0)  # type: ignore[arg-type]


def test_who_stays_silent_is_pinged_then_given_up(heartbeat: Heartbeat) -> None:
    assert [heartbeat.look(now) for now in (5.0, 10.0, 15.0)] == [Sign.QUIET, Sign.QUIET, Sign.SILENT]


def test_who_speaks_is_fine(heartbeat: Heartbeat, connection: Heard) -> None:
    for now in (5.0, 10.0, 15.0, 20.0):
        connection.last_heard = now - 1
        assert heartbeat.look(now) is Sign.FINE


def test_a_late_look_finds_nobody_silent_but_asks(heartbeat: Heartbeat) -> None:
    assert heartbeat.look(5.0) is Sign.QUIET
    assert heartbeat.look(30.0) is Sign.QUIET
    assert heartbeat.look(35.0) is Sign.QUIET
    assert heartbeat.look(40.0) is Sign.SILENT


def test_an_answer_to_a_late_ping_counts(heartbeat: Heartbeat, connection: Heard) -> None:
    heartbeat.look(5.0)
    assert heartbeat.look(30.0) is Sign.QUIET
    connection.last_heard = 30.5
    assert [heartbeat.look(now) for now in (32.0, 35.0)] == [Sign.FINE, Sign.QUIET]


def test_who_takes_nothing_is_stuck_however_late_it_is(heartbeat: Heartbeat, connection: Heard) -> None:
    connection.buffered = 1
    assert heartbeat.look(5.0) is Sign.FINE
    assert heartbeat.look(70.0) is Sign.STUCK
