"""One row to 1, 50, 500 and 1,000 subscribers of one query, beside the peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benches.live_client import Writer
from benches.live_notify import LiveNotify
from benches.live_peers import LivePeer
from benches.live_pocketbase import LivePocketBase
from benches.live_runs import (
    LIVE_PEERS,
    Delivery,
    LiveStage,
    back_to_back,
    live_stage,
    median_of,
    milliseconds,
    one_at_a_time,
)
from benches.live_surrealdb import LiveSurrealDB
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "live-fan-out"
SUMMARY = "one row to 1, 50, 500 and 1,000 subscribers of one query, beside PocketBase, SurrealDB, LISTEN/NOTIFY"
COUNTS = (1, 50, 500, 1_000)
BROADCAST = 1_000
AIMS = (
    Aim(LiveNotify.name, 1.2, at_most=True),
    Aim(LivePocketBase.name, 1.0, at_most=True),
    Aim(LiveSurrealDB.name, 1.0, at_most=True),
)


@dataclass
class _Rounds:
    """One system's measurements, a round each."""

    single: list[list[Delivery]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def run(options: Options) -> Iterator[Report]:
    """Two tables for each number of subscribers: time to the last of them, and messages a second."""
    keys = [key for key in LIVE_PEERS if key in options.only]
    with live_stage(options, *keys) as running:
        for count in COUNTS:
            measured: dict[str, _Rounds] = {key: _Rounds() for key in running.peers}
            for _ in range(options.rounds):
                for key, peer in running.peers.items():
                    _measure(running, peer, count, measured[key])
            yield _times(running, count, measured)
            yield _rates(running, count, measured)


def _measure(running: LiveStage, peer: LivePeer, count: int, into: _Rounds) -> None:
    options = running.options
    receiver, writer = peer.subscribe(running.program, count), Writer(peer.port)
    try:
        first = options.next_keys()
        into.single.append(one_at_a_time(receiver, writer, peer.insert, first, count, options.seconds / 2))
        first = options.next_keys()
        into.rates.append(back_to_back(receiver, writer, peer.insert, first, count, options.seconds / 2))
    finally:
        writer.close()
        receiver.close()


def _times(running: LiveStage, count: int, measured: dict[str, _Rounds]) -> Report:
    return Report(
        title=f"One row to {count:,} subscribers: time until the last has it (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "first client p50 ms", "answered p50 ms"),
        rows=tuple(
            Row(
                syncs=running.peers[key].syncs,
                system=running.peers[key].name,
                figure=_median(rounds.single, "last"),
                details=(
                    f"{_median(rounds.single, 'last', 0.99):.2f}",
                    f"{_median(rounds.single, 'first'):.2f}",
                    f"{_median(rounds.single, 'answered'):.2f}",
                ),
                command=f"python -m benches {NAME} --only {key}",
            )
            for key, rounds in measured.items()
        ),
        aims=AIMS,
        note="one row at a time; Headrace with a filter over the user's own rows, SurrealDB with the filter",
    )


def _median(rounds: Sequence[Sequence[Delivery]], what: str, share: float = 0.5) -> float:
    return median_of([milliseconds([getattr(delivery, what) for delivery in each], share) for each in rounds])


def _rates(running: LiveStage, count: int, measured: dict[str, _Rounds]) -> Report:
    return Report(
        title=f"Rows one after the other to {count:,} subscribers, 1 writer that waits for answers only",
        unit="messages/s",
        headings=("rows/s",),
        rows=tuple(
            Row(
                syncs=running.peers[key].syncs,
                system=running.peers[key].name,
                figure=median_of(rounds.rates),
                details=(f"{median_of(rounds.rates) / count:,.0f}",),
                command=f"python -m benches {NAME} --only {key}",
            )
            for key, rounds in measured.items()
        ),
        aims=(Aim(None, 30_000),) if count == BROADCAST else (),
        note="until the last subscriber has the last row",
    )
