"""Start the systems, run the rounds in turn, take medians.

In every round each system runs once, one after the other, so that a drift of the machine meets all of them.
A run of one second before the first round warms caches and statement plans; it is not counted.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benches.load import Load, Measurement, measure
from benches.peer_echo import Echo
from benches.peer_headrace import Headrace
from benches.peer_pocketbase import PocketBase
from benches.peer_postgres import Postgres
from benches.peers import Peer, Unavailable
from benches.table import Row

PEERS: dict[str, Callable[[], Peer]] = {"headrace": Headrace, "postgres": Postgres, "pocketbase": PocketBase}
SYSTEMS = (*PEERS, "echo", "duckdb", "notify", "surrealdb", "nats", "redis")
SLOT = 100_000_000
"""Distance between the first keys of two runs, so that no run meets another's rows."""


@dataclass
class Options:
    """What the command line chose."""

    rounds: int = 3
    seconds: float = 5.0
    only: frozenset[str] = frozenset(SYSTEMS)
    rows: int = 100_000
    folder: Path | None = None
    profile: Path | None = None
    """Folder for a flame graph of Headrace in its last round of each comparison."""
    users: int = 10_000
    _slot: int = field(default=10, init=False)

    def next_keys(self) -> int:
        """The first of a range of keys that nothing used yet."""
        self._slot += 1
        return self._slot * SLOT


@dataclass
class Stage:
    """The running systems of one bench."""

    options: Options
    folder: Path
    peers: dict[str, Peer]
    echo: Echo

    @property
    def headrace(self) -> Headrace:
        """Headrace; it runs when it is measured, when the echo needs its answers, and when a bench insists."""
        peer = self.peers["headrace"]
        assert isinstance(peer, Headrace)
        return peer

    def chosen(self) -> Iterator[tuple[str, Peer]]:
        """The peers to measure."""
        return ((key, peer) for key, peer in self.peers.items() if key in self.options.only)


@dataclass(frozen=True)
class Contender:
    """One line of a comparison: how to make its load for a run that starts at a given key."""

    key: str
    name: str
    syncs: str
    load: Callable[[int], Load | None]


@contextlib.contextmanager
def stage(options: Options, *needed: str, insist: bool = False) -> Iterator[Stage]:
    """Start Headrace, the chosen ones of `needed` peers and the echo server; stop all at the end.

    `insist` starts Headrace even when only a peer is asked for.
    """
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder)))
        folder.chmod(0o755)  # PostgreSQL's own user must reach its folder in it
        peers: dict[str, Peer] = {}
        wanted = options.only | {"headrace"} if insist or "echo" in options.only else options.only
        for key in ("headrace", *needed):
            if key not in wanted:
                continue
            peer = PEERS[key]()
            cleanup.callback(peer.stop)
            try:
                peer.start(folder)
            except Unavailable as missing:
                print(f"  left out: {missing}", file=sys.stderr)
                continue
            peers[key] = peer
        echo = Echo()
        cleanup.callback(echo.stop)
        echo.start(folder)
        yield Stage(options, folder, peers, echo)


def contenders(
    running: Stage, load: Callable[[Peer, int], Load | None], name: str, *, echo: bool = True
) -> list[Contender]:
    """The chosen peers with the same work, and the echo of Headrace's requests."""
    found = [
        Contender(key, peer.name, peer.syncs, lambda first, peer=peer: load(peer, first))  # type: ignore[misc]
        for key, peer in running.chosen()
    ]
    if echo and "echo" in running.options.only:

        def mirrored(first: int) -> Load | None:
            original = load(running.headrace, first)
            return running.echo.mirror(name, original) if original else None

        found.append(Contender("echo", running.echo.name, running.echo.syncs, mirrored))
    return found


@dataclass(frozen=True)
class Outcome:
    """One contender's measurements, a round each."""

    contender: Contender
    rounds: Sequence[Measurement]

    def median(self, figure: Callable[[Measurement], float]) -> float:
        """Median of a figure over the rounds."""
        return statistics.median(map(figure, self.rounds))


def compare(running: Stage, entries: Sequence[Contender], *, connections: int) -> list[Outcome]:
    """Run every contender in every round; contenders without that work are left out."""
    options = running.options
    measured: dict[str, list[Measurement]] = {}
    for number in range(options.rounds + 1):
        for entry in entries:
            load = entry.load(options.next_keys())
            if load is None:
                continue
            seconds = options.seconds if number else 1
            with _profiled(running, entry, connections if number == options.rounds else None):
                result = measure(load, connections=connections, seconds=seconds)
            if number:
                measured.setdefault(entry.key, []).append(result)
            _progress(f"round {number}/{options.rounds} {entry.name}: {result.rate:,.0f}/s")
    _progress("")
    return [Outcome(entry, measured[entry.key]) for entry in entries if entry.key in measured]


@contextlib.contextmanager
def _profiled(running: Stage, entry: Contender, connections: int | None) -> Iterator[None]:
    """Record Headrace while it is under load, if that was asked for; `connections` None does not."""
    if connections is None or not entry.key.startswith("headrace"):
        yield
        return
    with profiled(running.options, running.headrace.pids()[0], f"{entry.key}-{connections}"):
        yield


@contextlib.contextmanager
def profiled(options: Options, pid: int, name: str) -> Iterator[None]:
    """Record a process with py-spy for a run's length, if the command line asks for it."""
    folder = options.profile
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    target = str(folder / f"{name}-{time.strftime('%H%M%S')}.svg")
    seconds = str(max(1, round(options.seconds) - 1))
    command = ["py-spy", "record", "--native", "--threads", "--pid", str(pid), "--duration", seconds]
    with subprocess.Popen(
        [*command, "--output", target], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        yield


def request_rows(outcomes: Sequence[Outcome], command: str, *, per_request: int = 1) -> tuple[Row, ...]:
    """Rows whose figure is the rate (rows or requests a second), with latencies as details."""
    return tuple(
        Row(
            syncs=outcome.contender.syncs,
            system=outcome.contender.name,
            figure=outcome.median(lambda m: m.rate * per_request),
            details=(f"{outcome.median(lambda m: m.p50):.2f}", f"{outcome.median(lambda m: m.p99):.2f}"),
            command=f"{command} --only {outcome.contender.key.partition('-')[0]}",
        )
        for outcome in outcomes
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {text}", end="", file=sys.stderr, flush=True)
