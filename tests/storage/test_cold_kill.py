"""kill -9 at the steps of flushes and compactions, while transfers go on: the old state or the new one, and no litter.

A few rounds by default; HEADRACE_COLD_KILL_ROUNDS asks for more.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from storage import StorageEngine, StorageOptions
from storage.cold_segments import SegmentStatus

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("HEADRACE_COLD_KILL_ROUNDS", "4"))
ACCOUNTS = 40
BALANCE = 100
OPTIONS = StorageOptions(map_start=64 << 20, merge=False, evict=False, cold_grace_seconds=0.0, cold_segment_rows=64)

CHILD = """
import os, random, signal, sys, threading
from pathlib import Path
from storage import StorageEngine, StorageOptions
from tests.storage.helpers import create, key_of, rows_of
from tests.storage.test_cold_kill import ACCOUNTS, BALANCE

folder, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
options = StorageOptions(map_start=64 << 20, merge_fan_in=4, cold_grace_seconds=0.0, cold_segment_rows=64)
engine = StorageEngine.open(folder, options)
table = engine.catalog.table("app", "plain")
if table is None:
    table = create(engine)
    accounts = rows_of(table, [(n, None, BALANCE) for n in range(ACCOUNTS)])
    engine.commit_sync(lambda w: w.insert(table, "", accounts))
left = [steps]

def die(step):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

engine.cold.step = die

def transfers(offset):
    dice = random.Random(seed * 10 + offset)
    number = 0
    while True:
        one, two = dice.sample(range(ACCOUNTS), 2)
        number += 1
        mark = ACCOUNTS + seed * 1_000_000 + offset * 100_000 + number

        def work(w):
            for account, change in ((one, -1), (two, 1)):
                seq, row = w.get_row(table, "", key_of(table, account))
                w.replace_row(table, "", seq, (account, None, row[2] + change), key_of(table, account))
            w.insert_row(table, "", (mark, "done", 0), key_of(table, mark))

        engine.commit_sync(work)
        os.write(1, b"%d\\n" % mark)

for offset in range(2):
    threading.Thread(target=transfers, args=(offset,), daemon=True).start()
while True:
    engine.cold.flush(table.table_id)
    engine.cold.compact(table.table_id)
    engine.cold.collect()
"""


def test_kill_at_the_steps_of_a_move(folder: Path) -> None:
    dice = random.Random(5)
    acknowledged: set[int] = set()
    for seed in range(1, ROUNDS + 1):
        arguments = [str(folder), str(seed), str(dice.randint(1, 12))]
        child = subprocess.run([sys.executable, "-c", CHILD, *arguments], cwd=ROOT, stdout=subprocess.PIPE, timeout=120)  # noqa: PLW1510
        assert child.returncode == -9
        acknowledged |= {int(line) for line in child.stdout.splitlines(keepends=True) if line.endswith(b"\n")}
        with StorageEngine.open(folder, OPTIONS) as engine:
            assert engine.check() == []
            engine.cold.collect()
            table = engine.catalog.table("app", "plain")
            assert table is not None
            with engine.snapshot() as snapshot:
                rows = snapshot.scan(table, "").to_pylist()
                segments = list(engine.cold.segments(snapshot))
            assert sum(row["amount"] for row in rows if row["id"] < ACCOUNTS) == ACCOUNTS * BALANCE
            assert acknowledged <= {row["id"] for row in rows}
            assert all(segment.status is SegmentStatus.COMMITTED for segment in segments)
            there = {str(file.relative_to(folder / "cold")) for file in (folder / "cold").rglob("*.*")}
            assert there == {segment.path for segment in segments}
            assert engine.check() == []
