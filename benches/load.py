"""Load from `wrk`: requests as generated Lua, measurements as numbers.

A `Load` says what one request looks like; `measure` runs `wrk` for a while and reads what it counted. The
Lua script is written to a temporary file, its `done` hook prints the counters as JSON on the last line.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class Load:
    """Requests to one server.

    `setup` is Lua that runs once in the load thread; `request` is the Lua body of a function of `n`, the
    number of the request (from 0), which returns path and body (nil for none).
    """

    base: str
    request: str
    method: str = "POST"
    setup: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    count: int | None = None
    """Stop after that many answers; None runs for the whole duration."""


class Measurement(msgspec.Struct):
    """What one run of `wrk` counted; latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    longest: float
    bytes: int
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0


class LoadFailed(RuntimeError):
    """`wrk` could not run, or answers were errors."""


_TEMPLATE = """\
{setup}
local headers = {headers}
local sent, answered = -1, 0  -- wrk asks for one request more at its start, which it does not send
local function describe(n)
{request}
end
function request()
  local path, body = describe(math.max(sent, 0))
  sent = sent + 1
  return wrk.format("{method}", path, headers, body)
end
{stop}
function done(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format(
    '\\n{{"requests":%d,"seconds":%.6f,"p50":%.4f,"p99":%.4f,"longest":%.4f,"bytes":%d,"failed":%d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, summary.bytes, failed))
end
"""

# `wrk` sleeps for the whole duration even if its threads have ended; an interrupt ends the sleep, then it reports.
_STOP = """\
local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int signal);")
function response()
  answered = answered + 1
  if answered == {count} then
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), 2)
  end
end
"""


def lua_string(text: str) -> str:
    """A Lua string literal of that text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def script(load: Load) -> str:
    """The Lua script for `wrk`."""
    headers = ", ".join(f"[{lua_string(k)}] = {lua_string(v)}" for k, v in load.headers.items())
    return _TEMPLATE.format(
        setup=load.setup,
        headers=f"{{ {headers} }}",
        request=load.request,
        method=load.method,
        stop=_STOP.format(count=load.count) if load.count is not None else "",
    )


class RunningLoad:
    """A `wrk` in the background; `finish` waits for it and reads its counters."""

    def __init__(self, load: Load, *, connections: int, seconds: float) -> None:
        self._file = tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False)  # noqa: SIM115  # closed below
        with self._file as file:
            file.write(script(load))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "120s"]
        self._process = subprocess.Popen(
            [*command, "-s", self._file.name, load.base],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *, tolerate: bool = False) -> Measurement:
        """The counters; raises LoadFailed when an answer was an error, unless errors are tolerated."""
        output, errors = self._process.communicate()
        Path(self._file.name).unlink(missing_ok=True)
        if self._process.returncode != 0:
            message = f"wrk failed: {errors.strip()}\n{output.strip()}"
            raise LoadFailed(message)
        measured = msgspec.json.decode(output.strip().splitlines()[-1], type=Measurement)
        if measured.failed and not tolerate:
            message = f"{measured.failed} of {measured.requests} requests failed"
            raise LoadFailed(message)
        return measured


def measure(load: Load, *, connections: int, seconds: float) -> Measurement:
    """Run `wrk` over that many connections and read its counters."""
    return RunningLoad(load, connections=connections, seconds=seconds).finish()


def first_request(load: Load) -> tuple[str, bytes]:
    """Path and body of the load's first request, by running its Lua once in `wrk` against nothing.

    `wrk` calls `request` while it starts; the script prints and ends there.
    """
    probe = script(load) + (
        "\nfunction init()\n  local path, body = describe(0)\n"
        '  local file = io.open(os.getenv("HEADRACE_BENCH_PROBE"), "wb")\n'
        '  file:write(path, "\\n", body or "")\n  file:close()\n  os.exit(0)\nend\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        lua, answer = Path(folder) / "probe.lua", Path(folder) / "probe.out"
        lua.write_text(probe)
        environment = {"HEADRACE_BENCH_PROBE": str(answer), "PATH": "/usr/bin:/bin:/usr/local/bin"}
        subprocess.run(
            ["wrk", "-t1", "-c1", "-d1s", "-s", str(lua), load.base], env=environment, check=False, capture_output=True
        )
        path, _, body = answer.read_bytes().partition(b"\n")
    return path.decode(), body


def dumps(value: object) -> str:
    """Compact JSON text."""
    return json.dumps(value, separators=(",", ":"))
