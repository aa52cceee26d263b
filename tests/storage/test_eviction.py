"""The evictor: it ends what is due and nothing else, survives trouble, and leaves an idle engine idle."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import StorageEngine, StorageOptions, TableDef
from storage.errors import StorageFull, StoragePoisoned
from storage.eviction import SLICE_ROWS, DueTimes, Place
from storage.keys import parse_seq_key
from tests.storage.helpers import create, rows_of
from tests.storage.stream_model import OPTIONS, JumpingClock, stream_table

SECOND = 1_000_000


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def engine(folder: Path, clock: JumpingClock) -> Iterator[StorageEngine]:
    with StorageEngine.open(folder, OPTIONS, clock=clock) as opened:
        yield opened


def insert(engine: StorageEngine, table: TableDef, user: str = "ann", count: int = 1) -> None:
    rows = rows_of(table, [(n, "b") for n in range(count)])
    engine.commit_sync(lambda w: w.insert(table, user, rows))


def fill(engine: StorageEngine, table: TableDef) -> None:
    """Rows without end."""
    while True:
        insert(engine, table, count=2_000)


def entries(engine: StorageEngine) -> list[tuple[int, int]]:
    """`times` as it stands."""
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        cursor = reader.txn.cursor(db=reader.dbs.times)
        return [(parse_seq_key(bytes(key)), parse_seq_key(bytes(value))) for key, value in cursor]


def removed(engine: StorageEngine, position: int = 0) -> list[int]:
    """Every `_seq` that the feed says has ended."""
    changes = engine.feed.subscribe(position).poll(100_000)
    return [seq for change in changes for table in change.tables for seq in table.removed().column(0).to_pylist()]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def submissions(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The works that the evictor gives to the writer from now on."""
    works: list[Any] = []
    submit = engine._evictor._submit

    def counting(work: Callable[[Any], Any]) -> Any:
        works.append(work)
        return submit(work)

    monkeypatch.setattr(engine._evictor, "_submit", counting)
    return works


def test_the_thread_ends_rows_when_their_time_is_over(folder: Path) -> None:
    options = msgspec.structs.replace(OPTIONS, evict=True, stream_eviction_seconds=0.05)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine, lambda table_id: stream_table(table_id, ttl=1))
        insert(engine, table, count=3)
        cursor = engine.feed.subscribe(engine.last_seq)
        assert cursor.wait(30)
        (change,) = cursor.poll()
        (gone,) = change.tables
        assert gone.removed_count == 3
        assert gone.added_count == 0
        assert gone.removed().column("_by").to_pylist() == list(range(change.first_seq, change.last_seq + 1))
        eventually(lambda: engine.stats().evicted_rows == 3)


def test_a_row_expires_at_the_microsecond(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine, stream_table)
    insert(engine, table)
    clock.wall += 10 * SECOND - 1
    with engine.snapshot() as before:
        clock.wall += 1
        assert before.count(table, "ann") == 1  # a view has one time, whatever the clock says meanwhile
        with engine.snapshot() as after:
            assert after.count(table, "ann") == 0
            assert after.scan(table, "ann").num_rows == 0
            assert after.expired_through(table) == after.seq
        assert before.scan(table, "ann").num_rows == 1


def test_nothing_is_written_when_nothing_is_due(
    engine: StorageEngine, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create(engine, stream_table)
    engine.evict()
    commits = engine.stats().commits
    works = submissions(engine, monkeypatch)
    for _ in range(5):
        clock.wall += SECOND
        assert engine.evict() == 0
    insert(engine, table)
    clock.wall += 10 * SECOND - 1
    assert engine.evict() == 0
    assert works == []  # the writer is not even asked
    assert engine.stats().commits == commits + 1


def test_rows_that_were_deleted_are_looked_for_once(
    engine: StorageEngine, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create(engine, stream_table)
    insert(engine, table)
    engine.evict()
    engine.commit_sync(lambda w: w.delete(table, "ann", w.scan(table, "ann", ["_seq"]).column(0).to_pylist()))
    clock.wall += 10 * SECOND
    works = submissions(engine, monkeypatch)
    commits = engine.stats().commits
    for _ in range(3):
        assert engine.evict() == 0
        clock.wall += SECOND
    assert len(works) == 1
    assert engine.stats().commits == commits
    assert len(removed(engine)) == 1


def test_many_rows_end_in_slices(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine, stream_table)
    count = 2 * SLICE_ROWS + 7
    insert(engine, table, count=count)
    insert(engine, table, "bob")
    clock.wall += 10 * SECOND
    position = engine.last_seq
    assert engine.evict() == count + 1
    changes = engine.feed.subscribe(position).poll()
    sizes = [sum(table.removed_count for table in change.tables) for change in changes]
    assert sum(sizes) == count + 1
    assert max(sizes) == SLICE_ROWS
    engine.compact()
    with engine.snapshot() as snapshot:
        assert snapshot.partitions(table) == []


def test_times_keep_what_a_ttl_needs(engine: StorageEngine, clock: JumpingClock) -> None:
    short = create(engine, lambda table_id: stream_table(table_id, "short", 2))
    create(engine, lambda table_id: stream_table(table_id, "long", 10))
    for _ in range(40):
        insert(engine, short)
        clock.wall += SECOND
        engine.evict()
    kept = entries(engine)
    with engine.snapshot() as snapshot:
        horizon = clock.wall - 10 * SECOND
        assert [at for at, _ in kept if at < horizon] == [], "the one at the horizon is the oldest that counts"
        assert len(kept) == 10
        assert snapshot.count(short, "ann") == 1
    clock.wall += 1_000 * SECOND
    engine.evict()
    assert len(entries(engine)) == 1


def test_no_longer_ttl_brings_a_row_back(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine, stream_table)
    insert(engine, table)
    clock.wall += 9 * SECOND
    insert(engine, table)
    clock.wall += SECOND

    def alter(w: Any) -> None:
        w.put_table(msgspec.structs.replace(
            table, schema_version=2, ttl_seconds=1_000, expired_through=w.expired_through(table)
        ))  # fmt: skip

    engine.commit_sync(alter)
    (altered,) = engine.catalog.tables("app")
    with engine.snapshot() as snapshot:
        assert snapshot.count(altered, "ann") == 1
    assert engine.evict() == 1
    clock.wall += 998 * SECOND
    assert engine.evict() == 0
    clock.wall += SECOND
    assert engine.evict() == 1


def test_a_dropped_table_is_forgotten(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine, stream_table)
    insert(engine, table)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    clock.wall += 10 * SECOND
    assert engine.evict() == 0
    engine.compact()
    assert engine.check() == []


class DiskTrouble(lmdb.DiskError):
    def __init__(self) -> None:
        super().__init__("simulated")
        self.__dict__["code"] = errno.EIO


@pytest.mark.parametrize("stored", [False, True])
def test_a_failing_disk_ends_no_row_twice(engine: StorageEngine, clock: JumpingClock, stored: bool) -> None:
    """A commit fails: nothing of it is stored, or all of it, and nobody was told."""
    table = create(engine, stream_table)
    insert(engine, table, count=5)
    clock.wall += 10 * SECOND
    environment = engine._environment
    commit = environment.commit

    def failing(txn: Any) -> None:
        environment.commit = commit  # type: ignore[method-assign]
        if stored:
            commit(txn)
        raise DiskTrouble

    environment.commit = failing  # type: ignore[method-assign]
    with pytest.raises(StoragePoisoned):
        engine.evict()
    eventually(lambda: engine._committer.reopened > 0 and engine._queue.refusal is None)
    assert engine.evict() == (0 if stored else 5)
    assert len(removed(engine)) == len(set(removed(engine))) == 5
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "ann") == 0
    assert engine.check() == []


def test_rows_of_a_failed_commit_are_found_after_reopening(engine: StorageEngine, clock: JumpingClock) -> None:
    """The commit that brought them was stored, but the evictor was not told of it."""
    table = create(engine, stream_table)
    environment = engine._environment
    commit = environment.commit

    def failing(txn: Any) -> None:
        environment.commit = commit  # type: ignore[method-assign]
        commit(txn)
        raise DiskTrouble

    environment.commit = failing  # type: ignore[method-assign]
    with pytest.raises(StoragePoisoned):
        insert(engine, table)
    eventually(lambda: engine._committer.reopened > 0 and engine._queue.refusal is None)
    clock.wall += 10 * SECOND
    assert engine.evict() == 1


def test_eviction_works_in_a_full_file(folder: Path, clock: JumpingClock) -> None:
    options = StorageOptions(map_start=1 << 20, max_bytes=1 << 20, merge=False, evict=False, group_wait_us=0)
    with StorageEngine.open(folder, options, clock=clock) as engine:
        table = create(engine, stream_table)
        with pytest.raises(StorageFull):
            fill(engine, table)
        with engine.snapshot() as snapshot:
            count = snapshot.count(table, "ann")
        clock.wall += 10 * SECOND
        assert engine.evict() == count > 0


# --- when to look ----------------------------------------------------------------------------------------------------

places = st.tuples(st.integers(1, 2), st.sampled_from("abcde"))


@given(st.lists(st.tuples(places, st.integers(0, 20))), st.integers(0, 21), st.sampled_from([2, 100]))
def test_due_times(added: list[tuple[Place, int]], now: int, tracked: int) -> None:
    """Every partition is found when it is due: by itself, or because its table is listed again."""
    times = DueTimes(tracked)
    earliest: dict[Place, int] = {}
    for place, due in added:
        times.add(place, due)
        earliest[place] = min(due, earliest.get(place, due))
    assert times.next() == min(earliest.values(), default=None)
    taken, listed = times.take(now), times.take_unlisted(now)
    assert len(taken) == len(set(taken)) <= tracked
    assert all(earliest[place] <= now for place in taken)
    missing = {place for place, due in earliest.items() if due <= now} - set(taken)
    assert {place[0] for place in missing} <= set(listed)
    assert tracked == 2 or not listed
    left = times.next()
    assert left is None or left > now


def test_more_partitions_than_are_tracked(
    engine: StorageEngine, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._evictor, "_due", DueTimes(3))
    table = create(engine, stream_table)
    for number in range(10):
        insert(engine, table, f"user{number}")
        clock.wall += SECOND // 10
    clock.wall += 9 * SECOND
    expected = 0
    for _ in range(12):
        ended = engine.evict()
        while more := engine.evict():
            ended += more
        expected += ended
        with engine.snapshot() as snapshot:
            assert sum(snapshot.count(table, f"user{n}") for n in range(10)) == 10 - expected
        clock.wall += SECOND // 10
    assert expected == 10
    assert len(removed(engine)) == 10
