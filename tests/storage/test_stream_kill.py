"""kill -9 while rows of a STREAM table come, expire and are evicted: each row ends once, and at its time."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from storage import StorageEngine, StorageOptions

ROOT = Path(__file__).parents[2]
TTL_US = 1_000_000

CHILD = """
import os, sys
from pathlib import Path
from storage import StorageEngine, StorageOptions
from tests.storage.helpers import create
from tests.storage.stream_model import stream_table

options = StorageOptions(map_start=64 << 20, merge_fan_in=4, stream_eviction_seconds=0.002)
engine = StorageEngine.open(Path(sys.argv[1]), options)
table = engine.catalog.table("app", "short") or create(engine, lambda table_id: stream_table(table_id, ttl=1))
os.write(1, b"ready\\n")
number = 0
while True:
    user = f"user{number % 7}"
    seq = engine.commit_sync(lambda w: w.insert_row(table, user, (number, "b"), None))
    os.write(1, b"%d %d\\n" % (seq, engine.stats().evicted_rows))
    number += 1
"""


def test_kill_in_the_middle_of_evictions(folder: Path) -> None:
    dice = random.Random(1)
    acknowledged: set[int] = set()
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        output = b""
        while b" 0\n" in output[-8:] or not output:  # until rows are being evicted
            output += child.stdout.readline()
        for _ in range(dice.randint(1, 300)):
            output += child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        output += child.stdout.read()
        child.wait()
        child.stdout.close()
        acknowledged |= {int(line.split()[0]) for line in output.splitlines(keepends=True) if line.endswith(b"\n")}
        with StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False, evict=False)) as engine:
            assert engine.check() == []
            added, ended = told(engine)
            assert acknowledged <= added.keys()
            table = engine.catalog.table("app", "short")
            assert table is not None
            with engine.snapshot() as snapshot:
                alive = {seq for seq, at in added.items() if at + TTL_US > snapshot._now_us}
                assert not alive & set(ended)
                partitions = snapshot.partitions(table)
                seen = [s for user in partitions for s in snapshot.scan(table, user, ["_seq"]).column(0).to_pylist()]
                assert set(seen) == alive
            engine.evict()
            added, ended = told(engine)
            assert len(ended) == len(set(ended))
            assert added.keys() - set(ended) <= alive


def told(engine: StorageEngine) -> tuple[dict[int, int], list[int]]:
    """What the whole log says: `_seq` -> time of the commit for rows added, and the rows that ended."""
    added: dict[int, int] = {}
    ended: list[int] = []
    cursor = engine.feed.subscribe(0)
    while changes := cursor.poll():
        for change in changes:
            for table in change.tables:
                added |= dict.fromkeys(table.added().column(0).to_pylist(), change.timestamp_us)
                ended += table.removed().column(0).to_pylist()
    return added, ended
