"""`kill -9` at the steps of RESTORE DATABASE: in its job, and while the next start puts the restored folder in place.

Whatever the step, the next start has the old state or the new one, whole, and the former folder is never lost.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.backup.swapping import swap_pending
from storage import StorageEngine, StorageOptions
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer, environment

PROGRAM = "tests.crash.stepwise_server"
OLD, NEW = 100, 60
"""How many rows the table holds before and after the restore."""
IN_THE_JOB = ["+restore.made/1", "+restore.announced/1", "-fsync/4"]
IN_THE_SWAP = [
    "-rename/1", "+rename/1", "-rename/2", "+rename/2", "-fsync/1", "+fsync/1", "-unlink/1", "+unlink/1", "+fsync/2",
]  # fmt: skip
SWAP = """
import os, sys
from pathlib import Path
from sql.backup.swapping import swap_pending

fuse = Fuse(sys.argv[1], Path(sys.argv[2]))
for name in ("rename", "fsync", "unlink"):
    fuse.watch(os, name, name)
swap_pending(Path(sys.argv[3]))
"""


def rows(folder: Path) -> int:
    """How many rows the table of a folder holds, which must be consistent."""
    with StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False, evict=False)) as engine:
        assert engine.check() == []
        table = engine.catalog.table("bank", "t")
        assert table is not None
        with engine.snapshot() as snapshot:
            return int(snapshot.scan(table, "").num_rows)


def count(server: RunningServer) -> int:
    return int(server.rows("SELECT count(*) FROM bank.t")[0][0])


def die(command: list[str], step: str, armed: Path) -> None:
    """Run a program to its step."""
    armed.touch()
    died = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert died.returncode == -9, died.stderr
    assert armed.read_text() == step
    armed.unlink()


def expect_restored(folder: Path) -> None:
    """The new state is there, the old one beside it, and nothing else."""
    assert rows(folder / "data") == NEW
    (former,) = folder.glob("data.before-restore-*")
    assert rows(former) == OLD
    assert not list(folder.glob("data.restore*"))


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a data folder and a backup of what it held before, and a token."""
    folder = tmp_path_factory.mktemp("restore")
    server = RunningServer(folder / "data")
    left = "SELECT count(*) FROM system.jobs WHERE status <> 'completed'"
    try:
        server.start().set_up().sql("CREATE NAMESPACE bank; CREATE TABLE bank.t (id BIGINT PRIMARY KEY)")
        server.sql(f"INSERT INTO bank.t SELECT i FROM range({NEW}) r(i); STORAGE FLUSH TABLE bank.t")
        until(lambda: server.rows(left) == [[0]], 60)
        server.sql(f"BACKUP DATABASE TO '{folder / 'backup'}'")
        until(lambda: server.rows(left) == [[0]], 60)
        server.sql(f"INSERT INTO bank.t SELECT i FROM range({NEW}, {OLD}) r(i)")
        assert server.stop() == 0
        yield folder, server.token
    finally:
        server.kill()


@pytest.fixture
def place(backed_up: tuple[Path, str], tmp_path: Path) -> Iterator[tuple[Path, RunningServer]]:
    """A copy of it for one test, and its server, which is not started."""
    origin, token = backed_up
    folder = tmp_path / "place"
    shutil.copytree(origin, folder)
    server = RunningServer(folder / "data")
    server.token = token
    yield folder, server
    server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("step", IN_THE_JOB)
def test_kill_9_in_the_job(place: tuple[Path, RunningServer], step: str) -> None:
    folder, server = place
    plain, armed = server.command, folder / "armed"
    server.command = [sys.executable, "-m", PROGRAM, step, str(armed)]
    server.start()
    armed.touch()
    server.sql(f"RESTORE DATABASE FROM '{folder / 'backup'}'")
    assert server.process is not None
    assert server.process.wait(30) == -9
    assert armed.read_text() == step
    server.command = plain
    if not (folder / "data.restore.json").exists():
        server.start()
        assert count(server) == OLD
        sql = "SELECT status, retry_count FROM system.jobs WHERE job_type = 'restore'"
        until(lambda: server.rows(sql)[0][0] in {"completed", "failed"}, 60)
        assert server.rows(sql) == [["completed", 0]]
        assert count(server) == OLD
        server.kill()
    between = "+rename/1"
    die([sys.executable, "-m", PROGRAM, between, str(armed), "serve", "--data", str(server.data)], between, armed)
    assert not server.data.exists()
    assert count(server.start()) == NEW
    server.kill()
    expect_restored(folder)


def test_kill_9_in_the_swap(place: tuple[Path, RunningServer], tmp_path: Path) -> None:
    folder, server = place
    server.start()
    server.sql(f"RESTORE DATABASE FROM '{folder / 'backup'}'")
    until((folder / "data.restore.json").exists, 60)
    server.kill()
    for step in IN_THE_SWAP:
        again = tmp_path / step.replace("/", "-")
        shutil.copytree(folder, again)
        die([sys.executable, "-c", SWAP, step, str(again / "armed"), str(again / "data")], step, again / "armed")
        swap_pending(again / "data")
        expect_restored(again)
