"""Indexes under change: what is found is live in the reader's snapshot, and nothing new is missed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sql.vectors.partition_index import Mark, PartitionIndex
from storage.catalog import TableKind
from storage.snapshots import Snapshot
from storage.vector_definitions import VectorMetric
from tests.sql.vectors.vector_world import VectorWorld, recall


@pytest.fixture
def world(tmp_path: Path) -> Iterator[VectorWorld]:
    made = VectorWorld(tmp_path)
    yield made
    made.close()


def vectors(seed: int, rows: int, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)


def used(world: VectorWorld, view: Snapshot) -> bool:
    return world.indexes.usable(view, world.table, "", "v", world.metric) is not None


def test_few_rows_have_no_index(world: VectorWorld) -> None:
    world.insert(range(19), vectors(1, 19))
    assert world.build() == "0 rows in 0 partition(s)"
    world.insert([19], vectors(2, 1))
    assert world.build() == "20 rows in 1 partition(s)"


def test_an_index_larger_than_the_memory_is_not_built(tmp_path: Path) -> None:
    world = VectorWorld(tmp_path, memory_bytes=5_000)
    world.insert(range(100), vectors(1, 100))
    assert world.build() == "0 rows in 0 partition(s)"
    with world.engine.snapshot() as view:
        query = vectors(9, 1)[0]
        assert world.search(view, query, 5).seqs.tolist() == world.exactly(view, query, 5).seqs.tolist()
    world.close()


@pytest.mark.parametrize("metric", VectorMetric)
@pytest.mark.parametrize("seed", range(2))
def test_every_snapshot_is_served_its_own_rows(tmp_path: Path, metric: VectorMetric, seed: int) -> None:
    """Random writes, flushes, slices of upkeep and restarts; snapshots from before, between and after all of them."""
    world = VectorWorld(tmp_path, metric=metric)
    chance = random.Random(seed)
    known: set[int] = set()
    views: list[Snapshot] = []
    by_index = 0
    shares = []
    for step in range(20):
        ids = [chance.randrange(400) for _ in range(chance.choice([1, 5, 60]))]
        if chance.random() < 0.75 or not known:
            ids = sorted(set(ids))
            world.insert(ids, vectors(seed * 1000 + step, len(ids)))
            known |= set(ids)
        else:
            gone = [number for number in set(ids) if number in known]
            world.delete(gone)
            known -= set(gone)
        if chance.random() < 0.2:
            world.engine.cold.flush(world.table.table_id)
        if chance.random() < 0.1:
            world.engine.cold.compact(world.table.table_id)
        if chance.random() < 0.3:
            world.build()
        if chance.random() < 0.1:
            world.upkeep.close()
            world.open()
        if chance.random() < 0.5:
            views.append(world.engine.snapshot())
        for view in [*views[-2:], *([views[0]] if views else [])]:
            query = vectors(7_000 + step, 1)[0]
            found, true = world.search(view, query, 5), world.exactly(view, query, 5)
            by_index += used(world, view)
            assert all(view.live(world.table, "", found.seqs.tolist()))
            assert len(found.seqs) == len(true.seqs)
            assert (np.diff(found.distances) >= 0).all()
            shares.append(recall(found, true))
    assert by_index > 5
    assert np.mean(shares) >= 0.99
    for view in views:
        view.close()
    world.close()


def test_a_row_that_died_before_the_index_saw_it_is_found_by_who_still_sees_it(world: VectorWorld) -> None:
    base = vectors(1, 400)
    world.insert(range(300), base[:300])
    world.build()
    world.insert([300], base[300:301])
    before = world.engine.snapshot()
    world.delete([300])
    world.insert([301], base[301:302])
    world.build()  # reads a commit in which row 300 is gone, and row 301 is there
    found = world.search(before, base[300], 1)
    assert found.distances[0] == pytest.approx(0, abs=1e-12)
    assert world.indexes.resident(world.place()).trusted(before.seq) < before.seq
    with world.engine.snapshot() as after:
        assert world.search(after, base[300], 1).seqs[0] != found.seqs[0]
        assert world.search(after, base[301], 1).distances[0] == pytest.approx(0, abs=1e-12)
    before.close()


def test_new_rows_are_found_before_the_index_knows_them(world: VectorWorld) -> None:
    base = vectors(1, 600)
    world.insert(range(300), base[:300])
    world.build()
    world.insert(range(300, 600), base[300:])
    with world.engine.snapshot() as view:
        for place in (310, 599):
            assert world.search(view, base[place], 1).distances[0] == pytest.approx(0, abs=1e-12)


def test_an_index_over_cold_rows_is_built_in_slices(world: VectorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sql.vectors.upkeep._SLICE_ROWS", 64)
    for start in (0, 300):
        world.insert(range(start, start + 300), vectors(start, 300))
        world.engine.cold.flush(world.table.table_id)
    world.delete(range(50, 250))
    world.insert(range(600, 650), vectors(600, 50))
    assert world.build() == "450 rows in 1 partition(s)"
    with world.engine.snapshot() as view:
        assert view.scan_newer(world.table, "", 0, ["v"], 64).num_rows == 100
        assert len(world.indexes.residents()[world.place()]) == 450
        query = vectors(9, 1)[0]
        assert recall(world.search(view, query, 10), world.exactly(view, query, 10)) >= 0.9
    world.close()


def test_an_index_that_fails_does_not_end_the_others(
    world: VectorWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.insert(range(60), vectors(1, 60))
    bring_up = world.upkeep._bring_up
    wrong = msgspec.structs.replace(world.place(), partition="wrong")

    def failing(place, report, check):
        if place == wrong:
            raise TypeError("made to fail")
        bring_up(place, report, check)

    monkeypatch.setattr(world.upkeep, "_bring_up", failing)
    world.upkeep._asked = {wrong, world.place()}
    world.upkeep._turn(quiet=True)
    assert list(world.indexes.residents()) == [world.place()]
    assert "is left as it is" in caplog.text
    world.close()


def test_a_mostly_stale_index_is_built_anew(world: VectorWorld) -> None:
    for step in range(9):
        world.insert(range(300), vectors(step, 300))
        world.build()
    assert len(world.indexes.resident(world.place())) <= 2 * 300 + 1_000 + 300
    with world.engine.snapshot() as view:
        for query in vectors(99, 10):
            assert recall(world.search(view, query, 10), world.exactly(view, query, 10)) == 1.0


def test_deleting_nearly_everything_leaves_what_is_there(world: VectorWorld) -> None:
    base = vectors(1, 500)
    world.insert(range(500), base)
    world.build()
    world.delete(range(10, 500))
    with world.engine.snapshot() as view:
        found = world.search(view, base[3], 20)
        assert found.seqs.tolist() == world.exactly(view, base[3], 20).seqs.tolist()
        assert len(found.seqs) == 10


def test_users_have_indexes_of_their_own(tmp_path: Path) -> None:
    world = VectorWorld(tmp_path, kind=TableKind.USER)
    mine, theirs = vectors(1, 200), vectors(2, 200)
    world.insert(range(200), mine, "ann")
    world.insert(range(200), theirs, "bob")
    world.insert(range(5), vectors(3, 5), "carl")
    assert world.build() == "400 rows in 2 partition(s)"
    with world.engine.snapshot() as view:
        seqs = {
            user: set(view.scan(world.table, user, [], with_seq=True)["_seq"].to_pylist()) for user in ("ann", "bob")
        }
        for query in theirs[:20]:
            assert set(world.search(view, query, 10, "ann").seqs.tolist()) <= seqs["ann"]
            assert world.search(view, query, 1, "bob").distances[0] == pytest.approx(0, abs=1e-12)
        assert len(world.search(view, mine[0], 10, "nobody").seqs) == 0
    world.close()


def test_searching_while_rows_are_written_and_taken_in(tmp_path: Path) -> None:
    world = VectorWorld(tmp_path, min_rows=100)
    world.insert(range(500), vectors(0, 500))
    world.build()
    done = threading.Event()

    def write() -> None:
        for step in range(40):
            world.insert(range(step * 10, step * 10 + 30), vectors(step + 1, 30))
            world.build()

    def read(seed: int) -> None:
        step = 0
        while not done.is_set() or step < 5:
            step += 1
            query = vectors(seed * 100_000 + step, 1)[0]
            with world.engine.snapshot() as view:
                found, true = world.search(view, query, 10), world.exactly(view, query, 10)
                assert all(view.live(world.table, "", found.seqs.tolist()))
                assert recall(found, true) >= 0.8

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read, seed) for seed in (1, 2)]
        try:
            threads.submit(write).result()
        finally:
            done.set()
        for reader in readers:
            reader.result()
    world.close()


def test_marks_tell_whom_an_index_may_serve() -> None:
    index = PartitionIndex(VectorMetric.L2, 2)
    assert index.trusted(10) == 0
    for commit, applied in ((5, 3), (5, 5), (9, 9)):
        index.add([], Mark(commit, applied))
    assert [index.trusted(commit) for commit in (4, 5, 8, 9, 100)] == [0, 5, 5, 9, 9]


def test_an_empty_index_finds_nothing() -> None:
    assert PartitionIndex(VectorMetric.COSINE, 3).search(np.ones(3), 5).tolist() == []


def test_the_least_recently_used_are_unloaded_and_come_back(tmp_path: Path) -> None:
    world = VectorWorld(tmp_path, kind=TableKind.USER)
    for user in ("ann", "bob", "carl"):
        world.insert(range(100), vectors(len(user), 100), user)
    world.build()
    held = world.indexes.residents()
    assert [place.partition for place in held] == ["ann", "bob", "carl"]
    with world.engine.snapshot() as view:
        world.search(view, vectors(1, 1)[0], 3, "ann")
        world.settings = world.indexes.settings = type(world.settings)(
            world.settings.folder, held[world.place("ann")].memory_bytes + 1, 20, 50
        )
        world.upkeep._unload()
        assert [place.partition for place in world.indexes.residents()] == ["ann"]
        world.search(view, vectors(1, 1)[0], 3, "bob")
        assert [place.partition for place in world.indexes.residents()] == ["ann", "bob"]
    world.close()
