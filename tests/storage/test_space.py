"""When there is no room, and when the disk fails: the map grows, full is said clearly, a failed commit poisons."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from storage import StorageEngine, StorageOptions, TableDef
from storage.errors import StorageFull, StoragePoisoned
from tests.storage.conftest import QUIET
from tests.storage.helpers import contents, create, key_of, rows_of
from tests.storage.test_engine import Gate

TINY = StorageOptions(map_start=1 << 20, merge=False, drain_seconds=0.05)
PAYLOAD = "x" * 1000


def insert(table: TableDef, start: int, count: int = 100) -> Callable[[Any], Any]:
    """A work that inserts about 100 kB."""
    return lambda w: w.insert(table, "", rows_of(table, [(i, PAYLOAD, i) for i in range(start, start + count)]))


def fill_up(engine: StorageEngine, table: TableDef, words: str) -> int:
    """Insert until the storage is full; how many rows were acknowledged."""
    start = 0
    while (error := engine.submit(insert(table, start)).exception()) is None:
        start += 100
    assert isinstance(error, StorageFull)
    assert words in str(error)
    return start


def test_the_map_grows_by_itself(folder: Path) -> None:
    with StorageEngine.open(folder, TINY) as engine:
        table = create(engine)
        assert engine.stats().map_bytes == 1 << 20
        for start in range(0, 5000, 100):
            engine.commit_sync(insert(table, start))
        assert engine.stats().map_bytes >= 8 << 20
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == 5000
        assert engine.check() == []


def test_the_map_grows_under_direct_works_and_groups(folder: Path) -> None:
    with StorageEngine.open(folder, TINY) as engine:
        table = create(engine)
        engine.commit_sync(insert(table, 0, 20_000), weight=20_000)
        gate = Gate(engine)
        works = [engine.submit(insert(table, start)) for start in range(20_000, 120_000, 1000)]
        gate.open()
        for work in works:
            work.result(30)
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == 30_000
        assert engine.check() == []


def test_growth_ends_forgotten_readers_but_never_moves_pages_in_use(folder: Path) -> None:
    with StorageEngine.open(folder, TINY) as engine:
        table = create(engine)
        engine.commit_sync(insert(table, 0))
        forgotten = engine.snapshot()
        interrupted = threading.Event()
        forgotten.on_expire(interrupted.set)
        rows = forgotten.scan(table, "")
        failed = 0
        start = 100
        while not failed:
            try:
                engine.commit_sync(insert(table, start))
                start += 100
            except StorageFull:
                failed += 1
        assert interrupted.is_set()
        assert forgotten.expired
        assert rows.column("id").to_pylist() == list(range(100))
        del rows
        engine.commit_sync(insert(table, start))
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == start + 100
        assert engine.check() == []


def test_the_limit_is_a_clear_error_and_reads_deletes_and_later_writes_go_on(folder: Path) -> None:
    options = StorageOptions(map_start=1 << 20, max_bytes=4 << 20, merge=False, retention_seconds=0)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        start = fill_up(engine, table, "limit of 4194304 bytes")
        assert start > 1000
        with pytest.raises(StorageFull):
            engine.commit_sync(insert(table, start, 20_000), weight=20_000)
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == start
            seqs = snapshot.find(table, "", [key_of(table, i) for i in range(start)])
        engine.commit_sync(lambda w: w.delete(table, "", seqs))
        engine.compact()
        for again in range(3):
            engine.commit_sync(insert(table, again * 100))
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == 300
        assert engine.check() == []


def disk_error(code: int) -> lmdb.Error:
    """What the binding raises when a commit gets an errno from the system."""
    error = (lmdb.DiskError if code == errno.ENOSPC else lmdb.Error)(f"mdb_txn_commit: {os.strerror(code)}")
    error.__dict__["code"] = code
    return error


class FailingCommits:
    """Makes chosen commits fail as LMDB would, after the pages were written or before."""

    def __init__(self, engine: StorageEngine, monkeypatch: pytest.MonkeyPatch, error: lmdb.Error) -> None:
        environment = engine._environment
        self.failures = 0
        self.calls = 0
        real = environment.commit

        def commit(txn: Any) -> None:
            self.calls += 1
            if self.failures:
                self.failures -= 1
                txn.abort()
                raise error
            real(txn)

        monkeypatch.setattr(environment, "commit", commit)


def test_a_full_disk_fails_the_group_only(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create(engine)
    faults = FailingCommits(engine, monkeypatch, disk_error(errno.ENOSPC))
    engine.commit_sync(insert(table, 0))
    faults.failures = 1
    monkeypatch.setattr("storage.committer.free_bytes", lambda folder: 0)
    with pytest.raises(StorageFull):
        engine.commit_sync(insert(table, 100))
    engine.commit_sync(insert(table, 100))
    assert engine.stats().reopened == 0
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "") == 200
    assert engine.check() == []


def test_an_io_error_poisons_and_the_engine_reopens(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create(engine)
    faults = FailingCommits(engine, monkeypatch, disk_error(errno.EIO))
    acknowledged = engine.commit_sync(insert(table, 0))
    reader = engine.snapshot()
    rows = reader.scan(table, "")
    reader.close()
    del rows
    gate = Gate(engine)
    faults.failures = 1
    calls = faults.calls
    failing = engine.submit(insert(table, 100))
    waiting = [engine.submit(insert(table, 20_000 * i + 1000, 1), weight=20_000) for i in range(3)]
    gate.open()
    with pytest.raises(StoragePoisoned, match="I/O error"):
        failing.result(20)
    for work in waiting:
        with pytest.raises(StoragePoisoned):
            work.result(20)
    assert faults.calls == calls + 1
    after = retry(engine, insert(table, 200))
    assert engine.stats().reopened == 1
    assert after[0] > acknowledged[1]
    with engine.snapshot() as snapshot:
        assert {row[0] for row in contents(snapshot, table)} == {*range(100), *range(200, 300)}
    assert [c.last_seq for c in engine.feed.subscribe(0).poll()][-1] == engine.last_seq
    assert engine.check() == []


def retry(engine: StorageEngine, work: Callable[[Any], Any]) -> Any:
    """Submit until the engine accepts again; the reopening itself is bounded."""
    for _ in range(100_000):
        try:
            return engine.commit_sync(work)
        except StoragePoisoned:
            continue
    raise AssertionError("the engine did not reopen")


def test_a_failed_reopening_is_tried_again(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create(engine)
    faults = FailingCommits(engine, monkeypatch, disk_error(errno.EIO))
    environment = engine._environment
    real, refusals = environment.open, [1, 1]

    def refuse() -> None:
        if refusals:
            refusals.pop()
            raise OSError(errno.EIO, "still broken")
        real()

    monkeypatch.setattr(environment, "open", refuse)
    faults.failures = 1
    with pytest.raises(StoragePoisoned):
        engine.commit_sync(insert(table, 0))
    retry(engine, insert(table, 0))
    assert refusals == []
    assert engine.check() == []


def test_a_lost_lease_ends_the_snapshot(folder: Path) -> None:
    class Manual:
        now = 1000.0

        def now_us(self) -> int:
            return int(self.now * 1e6)

        def monotonic(self) -> float:
            return self.now

    clock = Manual()
    with StorageEngine.open(folder, QUIET, clock=clock) as engine:
        table = create(engine)
        engine.commit_sync(insert(table, 0))
        short = engine.snapshot(lease=10, purpose="a forgotten query")
        pinned = engine.snapshot(lease=10)
        long = engine.snapshot(lease=100)
        ended: list[str] = []
        short.on_expire(lambda: ended.append("short"))
        with pinned.pin():
            clock.now += 11
            engine._registry.reap()
            assert short.expired
            assert pinned.expired
            assert engine.stats().open_snapshots == 2
        assert ended == ["short"]
        assert engine.stats().open_snapshots == 1
        with pytest.raises(Exception, match="held longer than its lease"):
            short.scan(table, "")
        assert long.count(table, "") == 100
        assert engine.stats().expired_snapshots == 2
        short.close()
        pinned.close()
        long.close()
        assert engine.stats().open_snapshots == 0
