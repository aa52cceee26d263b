"""Whether retention keeps the data file bounded: the same rows are updated for long, and their topic keeps little."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benches.load import RunningLoad
from benches.peer_headrace import Headrace
from benches.runner import Options
from benches.table import Aim, Report, Row
from benches.topic_peers import decode_consumed
from benches.web import send

NAME = "topic-retention"
SUMMARY = "space over a long run of UPDATEs whose topic keeps 1 MiB; 12 samples, --seconds apart"
ROWS, CONNECTIONS = 1_000, 16
KEPT = 1 << 20
SAMPLES = 12
BOUND = 1.2
TOPIC = "bench.updates"
MIDDLE, END = "third quarter", "last quarter"

# The commit log keeps superseded rows too, for a day by default: it must not hide what the topic keeps.
ENVIRONMENT = {"HEADRACE_RETENTION_COMMIT_LOG_SECONDS": "0", "HEADRACE_RETENTION_COMMIT_LOG_BYTES": str(KEPT)}


@dataclass(frozen=True)
class Sample:
    """What the server said at one time."""

    seconds: float
    used: int
    log: int
    first: int
    next: int


def run(options: Options) -> Iterator[Report]:
    """One run of 12 times --seconds, with one load."""
    if "headrace" not in options.only:
        return
    command = f"python -m benches {NAME} --seconds {options.seconds:g}"
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder) as folder:
        headrace = Headrace(ENVIRONMENT)
        try:
            headrace.start(Path(folder))
            samples = list(observed(headrace, options.seconds))
        finally:
            headrace.stop()
    yield Report(
        title=f"UPDATEs of {ROWS:,} rows, {CONNECTIONS} connections, a topic that keeps {KEPT >> 20} MiB",
        unit="used MB",
        headings=("commit log MB", "first offset", "next offset"),
        rows=(
            *(_row(f"after {sample.seconds:.0f} s", [sample], command) for sample in samples),
            _row(MIDDLE, samples[SAMPLES // 2 : SAMPLES * 3 // 4], command),
            _row(END, samples[SAMPLES * 3 // 4 :], command),
        ),
        aims=(Aim(MIDDLE, BOUND, at_most=True, subject=END),),
        subject=END,
        note="used: how far the data file reaches; the quarters are medians of their samples",
    )


def prepare(headrace: Headrace) -> None:
    """The rows, and a topic of their updates that keeps little."""
    headrace.fill(0, ROWS)
    headrace.sql(f"CREATE TOPIC {TOPIC} PARTITIONS 1 WITH (retention_bytes = {KEPT})")
    headrace.sql(f"ALTER TOPIC {TOPIC} ADD SOURCE bench.notes ON UPDATE")


def observed(headrace: Headrace, seconds: float) -> Iterator[Sample]:
    """Samples of a server under one steady load."""
    prepare(headrace)
    load = RunningLoad(headrace.update(ROWS), connections=CONNECTIONS, seconds=seconds * SAMPLES + 1)
    began = time.monotonic()
    for number in range(1, SAMPLES + 1):
        time.sleep(max(0.0, began + number * seconds - time.monotonic()))
        yield sample(headrace, time.monotonic() - began)
    load.finish()


def sample(headrace: Headrace, seconds: float) -> Sample:
    """What the server says of its space and of the topic's offsets."""
    stats = headrace.rows("SELECT metric_name, metric_value FROM system.stats WHERE metric_name LIKE 'storage_%'")
    figures = {str(name): int(float(str(value))) for name, value in stats}
    first, following = offsets(headrace)
    return Sample(seconds, figures["storage_used_bytes"], figures["storage_log_bytes"], first, following)


def offsets(headrace: Headrace) -> tuple[int, int]:
    """First offset that the topic still has, and the next one that it gives, by reads without a group."""
    url = f"{headrace.base}/v1/api/topics/consume"
    asked = {"topic_id": TOPIC, "partition_id": 0, "limit": 1}
    earliest, latest = (
        decode_consumed(send("POST", url, msgspec.json.encode(asked | {"start": start}), headrace.headers))
        for start in ("Earliest", "Latest")
    )
    return earliest.messages[0].offset if earliest.messages else earliest.next_offset, latest.next_offset


def _row(name: str, samples: list[Sample], command: str) -> Row:
    def megabytes(figures: list[int]) -> float:
        return statistics.median(figures) / 1e6

    return Row(
        syncs="yes",
        system=name,
        figure=megabytes([each.used for each in samples]),
        details=(f"{megabytes([each.log for each in samples]):.1f}", f"{samples[-1].first:,}", f"{samples[-1].next:,}"),
        command=command,
    )
