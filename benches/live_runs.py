"""Running the systems under the benches of live queries: start them, write rows, see when every client has each row."""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.live_client import Receiver, Writer, compiled, marker
from benches.live_notify import LiveNotify
from benches.live_peers import LiveHeadrace, LivePeer
from benches.live_pocketbase import LivePocketBase
from benches.live_surrealdb import LiveSurrealDB
from benches.peers import Unavailable
from benches.runner import Options

LIVE_PEERS: dict[str, Callable[[], LivePeer]] = {
    "headrace": LiveHeadrace,
    "notify": LiveNotify,
    "pocketbase": LivePocketBase,
    "surrealdb": LiveSurrealDB,
}
WARM_UP = 5
"""Rows before each measurement that are not counted."""


@dataclass(frozen=True)
class LiveStage:
    """The running systems of one bench and the compiled client."""

    options: Options
    folder: Path
    program: Path
    peers: dict[str, LivePeer]

    @property
    def headrace(self) -> LiveHeadrace:
        """Headrace, for benches that insist on it."""
        peer = self.peers["headrace"]
        assert isinstance(peer, LiveHeadrace)
        return peer


@contextlib.contextmanager
def live_stage(options: Options, *wanted: str) -> Iterator[LiveStage]:
    """Start the wanted systems, all on one disk; those that are not installed are left out."""
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder)))
        folder.chmod(0o755)  # PostgreSQL's own user must reach its folder in it
        program = compiled(folder)
        peers: dict[str, LivePeer] = {}
        for key in wanted:
            peer = LIVE_PEERS[key]()
            cleanup.callback(peer.stop)
            try:
                peer.start(folder)
            except Unavailable as missing:
                print(f"  left out: {missing}", file=sys.stderr)
                continue
            peers[key] = peer
        yield LiveStage(options, folder, program, peers)


@dataclass(frozen=True)
class Delivery:
    """One row, nanoseconds after its writing began: its answer, its arrival at the first and at the last client."""

    answered: int
    first: int
    last: int


def one_at_a_time(
    receiver: Receiver, writer: Writer, request: Callable[[int, str], bytes], first: int, clients: int, seconds: float
) -> list[Delivery]:
    """Write rows, each once the one before has reached all its clients."""
    measured: list[Delivery] = []
    end: float | None = None
    number = 0
    while end is None or time.monotonic() < end:
        if number == WARM_UP:
            end = time.monotonic() + seconds
        before = receiver.count
        # The marker is part of the request, so its making counts; it is some ten microseconds.
        written = time.monotonic_ns()
        answered = writer.write(request(first + number, marker(written)))
        arrivals = _arrivals(receiver, before, written, clients)
        if number >= WARM_UP:
            measured.append(Delivery(answered - written, arrivals[0] - written, arrivals[-1] - written))
        number += 1
    return measured


def _arrivals(receiver: Receiver, first: int, written: int, clients: int) -> list[int]:
    """When the row with that marker reached each client; other markers (an update's old row has one) do not count."""
    wanted = first + clients
    while True:
        receiver.wait(wanted)
        arrivals = [arrival for stamp, arrival, _ in receiver.records(first) if stamp == written]
        if len(arrivals) >= clients:
            return arrivals
        wanted = receiver.count + clients - len(arrivals)


def back_to_back(
    receiver: Receiver, writer: Writer, request: Callable[[int, str], bytes], first: int, clients: int, seconds: float
) -> float:
    """Write rows, each once the one before is answered; messages a second until the last client has the last row."""
    before = receiver.count
    began = time.monotonic_ns()
    rows = 0
    while time.monotonic_ns() - began < seconds * 1e9:
        writer.write(request(first + rows, marker()))
        rows += 1
    receiver.wait(before + rows * clients)
    return rows * clients / ((receiver.records(before + rows * clients - 1)[0][1] - began) / 1e9)


def milliseconds(nanoseconds: Sequence[int], share: float = 0.5) -> float:
    """That quantile of some durations, in milliseconds."""
    ordered = sorted(nanoseconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


def median_of(values: Sequence[float]) -> float:
    """Median over the rounds."""
    return statistics.median(values)
