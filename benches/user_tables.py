"""A USER table of very many users beside one of ten: what own queries, an idle server and its upkeep cost."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benches.load import Load
from benches.peer_echo import Echo
from benches.runner import Contender, Options, Stage, compare, profiled, request_rows
from benches.table import Aim, Report, Row
from benches.user_folders import ROWS_EACH, TABLE, UserServer, folder_bytes

NAME = "user-tables"
SUMMARY = "own queries, idle server, flush and backup with `--users` users against 10"
FEW = 10
CONNECTIONS = 16
IDLE_SECONDS = 12.0
"""How long an idle server is watched, in lengths of a run (`--seconds`): a minute by default."""
LATER_EVERY, LATER_ROWS = 10, 20
"""Every tenth user gets more rows before the second flush and the compaction."""
LISTINGS = (
    f"SHOW STATS FOR TABLE {TABLE}",
    "SHOW TABLES",
    "SELECT * FROM system.storages",
    "SELECT * FROM dba.stats LIMIT 100",
    "SELECT count(*) FROM system.users",
    "SHOW MANIFEST",
)


class Idle(NamedTuple):
    """A server after its start: seconds to listening, memory then and later, CPU between."""

    start: float
    rss: float
    anonymous: float
    later_rss: float
    later_anonymous: float
    cpu: float


@dataclass
class _Pair:
    """The server of few users and that of many."""

    options: Options
    few: UserServer
    many: UserServer
    stage: Stage
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def both(self) -> tuple[UserServer, UserServer]:
        return self.few, self.many

    def timed(self, what: str, run: Callable[[UserServer], float]) -> None:
        """Note the seconds of something on both."""
        self.seconds[what] = {server.users: run(server) for server in self.both}


def run(options: Options) -> Iterator[Report]:
    """Hot, then cold, then after more rows; both servers run all the time, and are asked in turn."""
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder)))
        few, many = UserServer(FEW), UserServer(options.users)
        for server in (few, many):
            cleanup.callback(server.headrace.stop)
        pair = _Pair(options, few, many, Stage(options, folder, {"headrace": many.headrace}, Echo()))
        pair.timed("filling the table, in process", lambda server: server.create(folder / str(server.users)))
        yield _idle_report(pair, "hot")
        yield from _query_reports(pair, "hot")
        before = {server.users: folder_bytes(server.folder) for server in pair.both}
        pair.timed("first STORAGE FLUSH", lambda server: server.job(f"STORAGE FLUSH TABLE {TABLE}"))
        after = {server.users: folder_bytes(server.folder / "cold") for server in pair.both}
        yield from _query_reports(pair, "cold")
        yield _query_report(pair, "INSERT of one own row, after a flush", "insert", UserServer.insert)
        for server in pair.both:
            server.headrace.stop()
            server.add_rows(LATER_EVERY, 1_000, LATER_ROWS)
        yield _idle_report(pair, "cold")
        pair.timed("second STORAGE FLUSH, of a tenth", lambda server: server.job(f"STORAGE FLUSH TABLE {TABLE}"))
        pair.timed("STORAGE COMPACT", lambda server: server.job(f"STORAGE COMPACT TABLE {TABLE}"))
        pair.timed("BACKUP DATABASE", lambda server: server.job(f"BACKUP DATABASE TO '{server.folder}-copy'"))
        pair.timed("BACKUP DATABASE again", lambda server: server.job(f"BACKUP DATABASE TO '{server.folder}-copy'"))
        for listing in LISTINGS:
            pair.timed(listing, lambda server, text=listing: _timed_query(server, text))  # type: ignore[misc]
        yield _upkeep_report(pair, before, after)


def _query_reports(pair: _Pair, tier: str) -> Iterator[Report]:
    yield _query_report(pair, f"Own row by key, {tier}", "read", UserServer.read)
    yield _query_report(pair, f"Own count and sum, {tier}", "aggregate", UserServer.aggregate)
    yield _live_report(pair, tier)


def _query_report(pair: _Pair, title: str, key: str, load: Callable[[UserServer, int], Load]) -> Report:
    entries = [
        Contender(f"headrace-{key}-{server.users}", _label(server), "yes", lambda first, s=server: load(s, first))  # type: ignore[misc]
        for server in pair.both
    ]
    rows = request_rows(compare(pair.stage, entries, connections=CONNECTIONS), _command(pair))
    return Report(
        title=f"{title}, {CONNECTIONS} connections",
        unit="requests/s",
        headings=("p50 ms", "p99 ms"),
        rows=rows,
        aims=(Aim(_label(pair.few), 1 / 1.25),),
        subject=_label(pair.many),
    )


def _live_report(pair: _Pair, tier: str) -> Report:
    found: dict[int, list[float]] = {server.users: [] for server in pair.both}
    for _ in range(max(1, pair.options.rounds)):
        for server in pair.both:
            found[server.users] += list(server.subscribe())
    rows = tuple(
        Row("-", _label(server), statistics.median(times), (f"{sorted(times)[int(len(times) * 0.99)]:.2f}",), "")
        for server in pair.both
        for times in [found[server.users]]
    )
    return Report(
        title=f"Own live query until its rows are there, {tier} (less is better)",
        unit="p50 ms",
        headings=("p99 ms",),
        rows=rows,
        aims=(Aim(_label(pair.few), 1.25, at_most=True),),
        subject=_label(pair.many),
    )


def _idle_report(pair: _Pair, tier: str) -> Report:
    measured = {server.users: _idle(server, pair.options, tier) for server in pair.both}
    rows = tuple(
        Row(
            "yes",
            _label(server),
            found.anonymous,
            (
                f"{found.later_anonymous:.0f}",
                f"{found.rss:.0f}",
                f"{found.later_rss:.0f}",
                f"{found.start:.2f}",
                f"{found.cpu:.2f}",
            ),
            _command(pair),
        )
        for server in pair.both
        for found in [measured[server.users]]
    )
    return Report(
        title=f"Idle server, {tier}: after its start, and {_idle_seconds(pair.options):.0f} s later (less is better)",
        unit="RssAnon MB",
        headings=("RssAnon later", "VmRSS MB", "VmRSS later", "start s", "CPU %"),
        rows=rows,
        aims=(Aim(_label(pair.few), 1.1, at_most=True),),
        subject=_label(pair.many),
        note="VmRSS has the pages of the data file that were read; they are the system's to take. CPU: of one core, "
        "from ten seconds after the start on.",
    )


def _upkeep_report(pair: _Pair, before: dict[int, int], after: dict[int, int]) -> Report:
    few, many = pair.few.users, pair.many.users
    rows = [
        Row("-", what, seconds[many], (f"{seconds[few]:.3g}", f"{1e6 * seconds[many] / many:,.0f}"), _command(pair))
        for what, seconds in pair.seconds.items()
    ]
    sizes = f"bytes a user: {before[many] / many:,.0f} in the data file, {after[many] / many:,.0f} in cold files"
    return Report(
        title=f"Upkeep with {many:,} users (less is better)",
        unit="seconds",
        headings=(f"with {few}", "µs a user"),
        rows=tuple(rows),
        subject="",
        note=sizes,
    )


def _idle(server: UserServer, options: Options, tier: str) -> Idle:
    seconds = server.headrace.start_again()
    pid = server.pid
    first = _memory(pid)
    length = _idle_seconds(options)
    settling = min(10.0, length / 2)
    time.sleep(settling)  # the length of the observation
    with profiled(options, pid, f"idle-{tier}-{server.users}"):
        began, before = time.monotonic(), _processor(pid)
        time.sleep(max(1.0, length - settling))
        cpu = 100 * (_processor(pid) - before) / (time.monotonic() - began)
    later = _memory(pid)
    return Idle(seconds, first["VmRSS"], first["RssAnon"], later["VmRSS"], later["RssAnon"], cpu)


def _timed_query(server: UserServer, text: str) -> float:
    began = time.perf_counter()
    server.headrace.sql(text)
    return time.perf_counter() - began


def _memory(pid: int) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _idle_seconds(options: Options) -> float:
    return IDLE_SECONDS * options.seconds


def _label(server: UserServer) -> str:
    return f"{server.users:,} users of {ROWS_EACH} rows"


def _command(pair: _Pair) -> str:
    return f"python -m benches {NAME} --users {pair.many.users}"
