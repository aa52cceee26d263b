"""kill -9 of a process that writes through the engine: what was acknowledged is there, nothing is half there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage import StorageEngine, StorageOptions
from tests.storage.helpers import contents

ROOT = Path(__file__).parents[2]

CHILD = """
import os, sys, threading
from pathlib import Path
from storage import StorageEngine, StorageOptions
from tests.storage.helpers import create, key_of, rows_of

folder, start = Path(sys.argv[1]), int(sys.argv[2])
engine = StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge_fan_in=4))
table = engine.catalog.table("app", "plain") or create(engine)

def pair(i):
    def work(w):
        w.insert_row(table, "", (i, "left", i), None)
        seq = w.insert_row(table, "", (-i, "right", i), None)
        found = w.find(table, "", [key_of(table, i - 4)])[0] if i % 3 == 0 else None
        if found is not None:
            w.replace(table, "", [found], rows_of(table, [(i - 4, "left", i - 4)]))
        return seq
    return work

def write(offset):
    for i in range(start + offset, start + 1_000_000, 4):
        seq = engine.commit_sync(pair(i))
        os.write(1, b"%d %d\\n" % (i, seq))

os.write(1, b"ready\\n")
threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
"""


@pytest.mark.parametrize("seed", range(2))
def test_kill_in_the_middle_of_writes(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: dict[int, int] = {}
    last_seq = 0
    for round_number in range(3):
        start = 1 + round_number * 1_000_000
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(start)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        output = b""
        for _ in range(dice.randint(1, 400)):
            output += child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        output += child.stdout.read()
        child.wait()
        child.stdout.close()
        for line in output.splitlines(keepends=True):
            if line.endswith(b"\n"):
                key, seq = line.split()
                assert int(seq) > last_seq
                acknowledged[int(key)] = int(seq)
        with StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False)) as engine:
            assert engine.check() == []
            assert len(set(acknowledged.values())) == len(acknowledged)
            last_seq = engine.last_seq
            assert last_seq >= max(acknowledged.values())
            table = engine.catalog.table("app", "plain")
            assert table is not None
            with engine.snapshot() as snapshot:
                found = {row[0] for row in contents(snapshot, table)}
        assert found >= set(acknowledged)
        assert found == {-key for key in found}, "a pair is half there"
