"""What must not grow with the users of a USER table: looks at partitions, commits, what a start reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import storage.cold_tier
import storage.merge
from storage import StorageEngine, StorageOptions, TableDef, WriteTransaction
from storage.catalog import SchemaVersion
from storage.cold_planning import Run, cold_runs
from storage.cold_tier import ROUND_FILES
from storage.key_layout import table_id_of
from storage.layout import TableLayout
from storage.memory import SCATTERED
from storage.merging import Candidate, candidates
from storage.reading import Reader
from tests.storage.conftest import QUIET
from tests.storage.helpers import contents, create, keyed_table, rows_of

USERS = 2 * ROUND_FILES + 30


def user(number: int) -> str:
    """A user id."""
    return f"user-{number:04d}"


def give_rows(engine: StorageEngine, table: TableDef, users: range, first: int, count: int = 3) -> None:
    """So many rows for each of some users, in one commit."""

    def work(wtxn: WriteTransaction) -> None:
        for number in users:
            rows = [(n, f"{n}@{number}", number) for n in range(first, first + count)]
            wtxn.insert(table, user(number), rows_of(table, rows))

    engine.commit_sync(work)


def commits_of(engine: StorageEngine) -> int:
    """How often the engine has committed."""
    return engine.stats().commits


def insert_shared(table: TableDef, number: int, wtxn: WriteTransaction) -> None:
    """One row of a SHARED table."""
    wtxn.insert_row(table, "", (number, None, number), None)


class Looked:
    """The prefixes of partitions whose batches merging has looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefixes: list[bytes] = []

        def noting(reader: Reader, prefix: bytes) -> list[Candidate]:
            self.prefixes.append(prefix)
            return candidates(reader, prefix)

        monkeypatch.setattr(storage.merge, "candidates", noting)


@pytest.mark.parametrize("users", [USERS, ROUND_FILES, 3])
def test_flush_and_compaction_share_commits_among_partitions(folder: Path, users: int) -> None:
    rounds = -(-users // ROUND_FILES)
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine, keyed_table)
        give_rows(engine, table, range(users), 0)
        before = commits_of(engine)
        assert engine.cold.flush(table.table_id).segments == users
        assert commits_of(engine) - before <= 2 * rounds
        give_rows(engine, table, range(users), 10)
        engine.cold.flush(table.table_id)
        before = commits_of(engine)
        done = engine.cold.compact(table.table_id)
        assert (done.segments_before, done.segments_after) == (2 * users, users)
        assert commits_of(engine) - before <= 2 * rounds
        with engine.snapshot() as snapshot:
            for number in range(0, users, 7):
                ids = {row[0] for row in contents(snapshot, table, user(number))}
                assert ids == {0, 1, 2, 10, 11, 12}
        assert engine.check() == []


def test_a_compaction_looks_only_at_partitions_that_may_need_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine, keyed_table)
        give_rows(engine, table, range(40), 0)
        engine.cold.flush(table.table_id)
        give_rows(engine, table, range(3), 10)
        engine.cold.flush(table.table_id)
        with engine.snapshot() as snapshot:
            (seq,) = snapshot.scan(table, user(9), ["id"], with_seq=True)["_seq"].to_pylist()[:1]
        engine.commit_sync(lambda wtxn: wtxn.delete(table, user(9), [seq]))
        looked: list[bytes] = []

        def noting(
            reader: Reader, layout: TableLayout, partition: bytes, start: bytes | None, options: StorageOptions
        ) -> Iterator[Run]:
            looked.append(partition)
            return cold_runs(reader, layout, partition, start, options)

        monkeypatch.setattr(storage.cold_tier, "cold_runs", noting)
        done = engine.cold.compact(table.table_id)
        assert len(looked) == 4
        assert (done.segments_before, done.segments_after, done.rows_removed) == (43, 40, 1)
        assert engine.check() == []


def test_a_schema_change_makes_every_partition_worth_rewriting(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine, keyed_table)
        give_rows(engine, table, range(5), 0)
        engine.cold.flush(table.table_id)
        former = (*table.history, SchemaVersion(table.schema_version, table.columns))
        newer = msgspec.structs.replace(table, schema_version=table.schema_version + 1, history=former)
        engine.commit_sync(lambda wtxn: wtxn.put_table(newer))
        engine.cold.compact(table.table_id)
        with engine.snapshot() as snapshot:
            committed = [s for s in snapshot.segments(table.table_id) if s.status == "committed"]
        assert [s.schema_version for s in committed] == [newer.schema_version] * 5
        assert engine.check() == []


def test_a_start_looks_at_no_partition_of_a_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(monkeypatch)
    with StorageEngine.open(folder, QUIET) as engine:
        owned, shared = create(engine, keyed_table), create(engine)
        give_rows(engine, owned, range(50), 0)
        for number in range(40):
            engine.commit_sync(lambda w, n=number: w.insert_row(shared, "", (n, None, n), None))
    with StorageEngine.open(folder, QUIET) as engine:
        merger = engine._merger
        merger.merge_shared()
        merger.merge_due()
        assert {table_id_of(prefix) for prefix in looked.prefixes} == {shared.table_id}
        assert merger.merges == 1


def test_a_scan_tells_of_the_many_small_batches_that_it_met(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine, keyed_table)
        for number in range(SCATTERED):
            give_rows(engine, table, range(3), 10 * number)
    with StorageEngine.open(folder, QUIET) as engine:
        merger = engine._merger
        merger.merge_shared()
        assert merger.merge_due() == 0
        with engine.snapshot() as snapshot:
            before = sorted(contents(snapshot, table, user(1)))
        looked = Looked(monkeypatch)
        assert merger.merge_due() == 1
        assert len(set(looked.prefixes)) == 1
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            prefix = looked.prefixes[0]
            assert sum(1 for _ in reader.stored(prefix)) == 1
            assert sorted(contents(snapshot, table, user(1))) == before
        assert merger.merge_due() == 0
        assert engine.check() == []
