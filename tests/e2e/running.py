"""A real `headrace serve` in a process of its own, started, set up, signed in to, and stopped."""

from __future__ import annotations

import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "headrace"]
LISTENS = re.compile(r"^Headrace listens on (http://\S+) · data in (.+?)( · needs set-up.*)?$")
START_SECONDS = 30.0
STOP_SECONDS = 20.0

DEFAULTS = {
    "HEADRACE_RATE_LIMIT_MAX_QUERIES_PER_SEC": "0",
    "HEADRACE_AUTH_ARGON2_MEMORY_KIB": "1024",
    "HEADRACE_AUTH_ARGON2_ITERATIONS": "1",
    "HEADRACE_RETENTION_ENABLE_DBA_STATS": "false",
}
"""Tests ask fast, sign in often, and some count commits."""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, with those of the tests and then `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path} | DEFAULTS | dict(changes or {})


def run_command(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `headrace` to its end."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=START_SECONDS, check=False, env=environment(changes)
    )


def stable_port() -> int:
    """A free port that stays free while its server is down: none that the system gives to outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class RunningServer:
    """One server process; `start` waits until it listens, `stop` until it has ended.

    `port` 0 takes another one at each start; see `stable_port`.
    """

    user = "admin"
    password = "AdminPass123!"
    root_password = "RootPass123!"

    def __init__(
        self,
        data: Path,
        arguments: Sequence[str] = (),
        changes: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.data = data
        self.port = port
        self.url = ""
        self.line = ""
        self.needs_setup = False
        self.token = ""
        self.command: Sequence[str] = COMMAND
        """What is run; tests that put something into the server's process name a program of their own."""
        self._arguments = list(arguments)
        self._environment = environment(changes)
        self._log = data.parent / f"{data.name}.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process: subprocess.Popen[str] | None = None
        self._client: httpx.Client | None = None

    def start(self) -> RunningServer:
        """Start the process and wait for its line."""
        self._close_client()
        command = [*self.command, "serve", "--data", str(self.data), "--port", str(self.port), *self._arguments]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment, start_new_session=True
            )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self._lines), daemon=True).start()
        try:
            line = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            self.kill()
            raise AssertionError(f"the server did not say that it listens\n{self.log()}") from None
        assert line is not None, f"the server ended before it listened: {self.wait()}\n{self.log()}"
        found = LISTENS.match(line)
        assert found, line
        self.line, self.url, self.needs_setup = line, found[1], found[3] is not None
        return self

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    def set_up(self) -> RunningServer:
        """Give root a password and make the first dba, unless that was done, and sign in as that dba."""
        if self.needs_setup:
            body = {"user": self.user, "password": self.password, "root_password": self.root_password}
            answer = httpx.post(f"{self.url}/v1/api/auth/setup", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
        self.token = self.login(self.user, self.password)
        return self

    def login(self, user: str, password: str) -> str:
        """Sign in; the access token."""
        body = {"user": user, "password": password}
        answer = httpx.post(f"{self.url}/v1/api/auth/login", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    @property
    def client(self) -> httpx.Client:
        """A client that is signed in as the dba."""
        if self._client is None:
            self._client = self.client_of(self.token)
        return self._client

    def client_of(self, token: str) -> httpx.Client:
        """A client with another token; close it."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def post(self, sql: str, params: list[Any] | None = None, **more: Any) -> httpx.Response:
        """Send statements; whatever the answer is. `more` goes into the body, `headers` beside it."""
        headers = more.pop("headers", None)
        return self.client.post("/v1/api/sql", json={"sql": sql, "params": params, **more}, headers=headers)

    def sql(self, sql: str, params: list[Any] | None = None, **more: Any) -> list[dict[str, Any]]:
        """Run statements that must succeed; the results."""
        answer = self.post(sql, params, **more)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def rows(self, sql: str, params: list[Any] | None = None, **more: Any) -> list[list[Any]]:
        """Run one query that must succeed; its rows."""
        return list(self.sql(sql, params, **more)[-1].get("rows", []))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; kills on a hang. The exit code."""
        self._close_client()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; kills on a hang. The exit code."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop\n{self.log()}") from None

    def kill(self) -> None:
        """`kill -9`, and wait for the end."""
        self._close_client()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self, **changes: str) -> RunningServer:
        """`kill -9`, and start again on the same folder, with `changes` to the environment; tokens stay valid."""
        self.kill()
        self._environment |= changes
        return self.start()

    def log(self) -> str:
        """What the server wrote to standard error, over all its starts."""
        return self._log.read_text("utf-8", errors="replace") if self._log.exists() else ""

    def memory_mb(self) -> float:
        """Resident memory of the process now."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
