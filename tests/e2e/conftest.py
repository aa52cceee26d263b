"""Servers for tests: `server` shared by a module, `fresh_server` for one test, `serve` to start others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that is set up, with a client that is signed in; shared by the tests of a module."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data")
    try:
        yield running.start().set_up()
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[RunningServer]:
    """The same, for one test alone."""
    running = RunningServer(tmp_path / "data")
    try:
        yield running.start().set_up()
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers: `serve(*arguments, data=folder, HEADRACE_…=value)`; all are killed at the end."""
    started: list[RunningServer] = []

    def start(*arguments: str, data: Path | None = None, **changes: str) -> RunningServer:
        running = RunningServer(data or tmp_path / "data", arguments, changes)
        started.append(running)
        return running.start()

    yield start
    for running in started:
        running.kill()
