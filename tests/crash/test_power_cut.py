"""The power fails: the disk as it is at some moment is all that is left.

The server runs on an ext4 file system in a file. At random moments it is stopped (SIGSTOP), the file is copied, and the
server goes on. The copy is mounted (the file system replays its journal) and opened: whatever had been acknowledged
before the stop must be there. What the kernel still held in memory is not in the copy; a server that does not sync
therefore loses what it acknowledged, and the control proves that this harness sees it.

Needs root and loop devices; without them the tests are skipped and say so.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from storage import StorageEngine, StorageOptions
from storage.check import check
from storage.errors import StorageError
from tests.crash.faults import Faults, Place, compile_shim, preloaded
from tests.crash.loop import copy_at_once, make_image, mounted, need_loop_devices
from tests.crash.workload import CLIENTS, SCHEMA, TABLES, Book, Broken, Client, Contents, Writers, verify
from tests.e2e.running import RunningServer

CUTS = int(os.environ.get("HEADRACE_POWER_CUTS", "50"))
CONTROL_CUTS = 5
SEED = int(os.environ.get("HEADRACE_CRASH_SEED", "20261121"))
log = logging.getLogger(__name__)
SIZE = 512 << 20

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300 + 10 * CUTS)]


class Power:
    """A server on a file system of its own, eight clients, and the cuts."""

    def __init__(self, folder: Path, changes: Mapping[str, str]) -> None:
        self.folder = folder
        self.image = folder / "disk"
        self.mount = folder / "mount"
        self.clients = [Client(number, SEED) for number in range(CLIENTS)]
        self.chance = random.Random(SEED)
        self.book = Book()
        self.server = RunningServer(self.mount / "data", (), changes)
        self.server._log = folder / "server.log"  # not on the disk that is cut off
        self.after_cuts = 0

    def run(self, cuts: int) -> None:
        """Let the clients write, and cut the power again and again. Raises Broken when something is lost."""
        make_image(self.image, SIZE)
        with mounted(self.image, self.mount):
            try:
                self.server.start().set_up().sql(SCHEMA)
                subprocess.run(["sync", "--file-system", str(self.mount)], check=True)
                writers = Writers(self.clients, self.server.url, self.server.token)
                try:
                    for cut in range(cuts):
                        writers.gate.reopen()
                        writers.gate.wait_for(writers.gate.counted + self.chance.randrange(1, 120))
                        bounds = self.cut(writers)
                        self.after_cuts = cut + 1
                        with mounted(self.folder / "copy", self.folder / "found") as found:
                            self.prove(found / "data", bounds)
                finally:
                    writers.gate.end()
                    self.server.kill()
                    writers.join()
            finally:
                self.server.kill()

    def cut(self, writers: Writers) -> list[tuple[int, int]]:
        """Stop the server, copy its disk, let it go on. What the clients know of their operations at that moment."""
        assert self.server.process is not None
        process = self.server.process.pid
        os.kill(process, signal.SIGSTOP)
        try:
            stopped, status = os.waitpid(process, os.WUNTRACED)
            assert (stopped, os.WIFSTOPPED(status)) == (process, True), self.server.log()
            copy_at_once(self.image, self.folder / "copy", self.mount)
            writers.gate.shut()
            return [client.bounds() for client in self.clients]
        finally:
            os.kill(process, signal.SIGCONT)

    def prove(self, data: Path, bounds: list[tuple[int, int]]) -> None:
        """Open what the cut left, and compare it with what the clients know."""
        contents = contents_of(data)
        accepted = verify(self.clients, contents, bounds)
        self.book.verify(contents)
        problems = check(data)
        if problems:
            raise Broken(f"check: {problems[:5]}")
        for client, k, (low, _) in zip(self.clients, accepted, bounds, strict=True):
            assert k >= low
            client.accept(low, cut_off=False)


def contents_of(data: Path) -> Contents:
    """Everything in a data folder. Raises Broken when it cannot be opened or has no tables."""
    contents = {}
    try:
        if not (data / "data.mdb").exists():
            raise Broken("there is no database")
        options = StorageOptions(map_start=1 << 30, merge=False, evict=False)
        with StorageEngine.open(data, options) as engine, engine.snapshot() as snapshot:
            for name, columns in TABLES.items():
                table = snapshot.catalog.table("app", name)
                if table is None:
                    raise Broken(f"there is no table app.{name}")
                found = snapshot.scan(table, "", columns, with_seq=True)
                rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
                contents[name] = {row[1]: (row[0], row[2:]) for row in rows}
                del found
    except StorageError as error:
        raise Broken(f"the folder cannot be opened: {error}") from error
    return contents


def test_nothing_acknowledged_is_lost_when_the_power_fails(tmp_path: Path) -> None:
    need_loop_devices()
    power = Power(tmp_path, {})
    try:
        power.run(CUTS)
    except (AssertionError, Broken) as error:
        error.add_note(f"cut {power.after_cuts} of seed {SEED}\n{power.server.log()[-2000:]}")
        raise
    assert power.after_cuts == CUTS
    log.info("%d cuts, %d operations acknowledged", CUTS, sum(client.acknowledged for client in power.clients))
    assert "Traceback" not in power.server.log(), power.server.log()


def test_a_server_that_does_not_sync_is_caught(tmp_path: Path) -> None:
    """The control: with syncs that do nothing, something acknowledged must be lost.

    What was there before the clients began is on the disk in any case, so it is their writes that are lost.
    """
    need_loop_devices()
    control = tmp_path / "control"
    faults = Faults(control)
    faults[Place.NOSYNC] = 1
    power = Power(tmp_path, preloaded(compile_shim(tmp_path), control))
    with pytest.raises(Broken, match="acknowledged, but not as found") as found:
        power.run(CONTROL_CUTS)
    log.info("the control lost data at cut %d: %s", power.after_cuts, found.value)
    assert faults[Place.SYNCS] > 0
