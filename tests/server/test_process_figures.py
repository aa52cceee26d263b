"""The figures of the process, held against other ways of asking."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from contextlib import ExitStack

from server.process_figures import (
    ProcessFigures,
    human,
    logical_cores,
    machine_memory_bytes,
    memory_bytes,
    open_files,
    physical_cores,
    system,
)


def test_memory_is_that_of_this_process() -> None:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < memory_bytes() <= most * 1.1
    before = memory_bytes()
    block = bytearray(os.urandom(1)) * (64 << 20)
    assert memory_bytes() - before > 32 << 20
    assert memory_bytes() < machine_memory_bytes()
    del block


def test_open_files_are_counted() -> None:
    before, limit = open_files()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(tempfile.TemporaryFile())
        assert open_files() == (before + 5, limit)
    assert open_files() == (before, limit)


def test_processor_use_is_that_of_the_time_between_two_looks() -> None:
    now = 100.0
    figures = ProcessFigures(lambda: now)
    spin = time.process_time() + 0.2
    while time.process_time() < spin:
        pass
    assert figures.cpu_percent() == 0.0, "less than a second: nothing to tell yet"
    now += 2.0
    first = figures.cpu_percent()
    assert first >= 10.0
    now += 0.5
    assert figures.cpu_percent() == first
    now += 1_000.0
    assert figures.cpu_percent() < 1.0
    assert (figures.uptime_seconds, figures.uptime_human) == (1_002, "0d 0h 16m 42s")


def test_times_for_people() -> None:
    assert human(0) == "0d 0h 0m 0s"
    assert human(90_061) == "1d 1h 1m 1s"


def test_the_machine() -> None:
    assert physical_cores() >= 1
    assert 1 <= logical_cores() <= (os.cpu_count() or 1)
    assert system() == (os.uname().sysname.lower(), os.uname().machine)
