"""STREAM tables under a seed: clients, a clock that jumps, an evictor that may run at any time, and a plain model.

The model keeps every row with the time of its commit. A row is there while that time plus the table's TTL lies ahead of
the present; it is gone for good once it was evicted or deleted, or had expired when the TTL was changed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from storage import StorageEngine, StorageOptions, TableDef, Transaction, WriteTransaction
from storage.catalog import ColumnDef, SchemaVersion, TableKind
from storage.types import BIGINT, TEXT
from storage.views import ReadView
from tests.storage.helpers import create, rows_of

OPTIONS = StorageOptions(
    map_start=16 << 20, merge=False, evict=False, merge_fan_in=3, direct_rows=300, ring_commits=4, group_wait_us=0,
    retention_seconds=40.0,
)  # fmt: skip
USERS = ("ann", "bob" * 60)
COLUMNS = (ColumnDef(1, "id", BIGINT, nullable=False), ColumnDef(2, "body", TEXT))


class JumpingClock:
    """Moves only when it is told to, also back."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000_000_000
        self.steady = 1_000.0

    def now_us(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


def stream_table(table_id: int, name: str = "short", ttl: int = 10) -> TableDef:
    """A STREAM table with a declared key."""
    return TableDef(
        table_id, "app", name, TableKind.STREAM, COLUMNS, next_column_id=3, ttl_seconds=ttl, declared_key=(1,)
    )


@dataclass
class Rows:
    """The rows of one partition that are not gone for good: `_seq` -> (values, time of the commit)."""

    stored: dict[int, tuple[tuple[Any, ...], int]] = field(default_factory=dict)


class StreamWorld:
    """One run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.clock = JumpingClock()
        self.now = 0
        self.newest = self.newest_row = 0
        self.tables: dict[str, TableDef] = {}
        self.rows: dict[tuple[str, str], Rows] = {}
        self.added: dict[int, set[int]] = {}
        self.removed: dict[int, set[int]] = {}
        self.position = 0
        self.evicted = 0
        self.engine = StorageEngine.open(folder, OPTIONS, clock=self.clock)
        create(self.engine, lambda table_id: stream_table(table_id, "short", 3))
        create(self.engine, lambda table_id: stream_table(table_id, "long", 30))
        self.learn_tables()
        self.newest = self.tick()

    def run(self, steps: int) -> None:
        """Random steps; everything must agree after each of them."""
        actions = [
            (self.insert, 10), (self.delete, 4), (self.wait, 8), (self.evict, 4), (self.in_transaction, 4),
            (self.compact, 2), (self.reopen, 1), (self.change_ttl, 1), (self.add_column, 1), (self.many, 1),
        ]  # fmt: skip
        for action in self.random.choices([a for a, _ in actions], [w for _, w in actions], k=steps):
            action()
            self.compare_all()
        self.evict()
        self.follow()
        assert self.engine.check() == []

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    # --- the model -----------------------------------------------------------------------------------------------

    def learn_tables(self) -> None:
        """The definitions that the engine holds."""
        self.tables = {table.name: table for table in self.engine.catalog.tables("app")}

    def tick(self) -> int:
        """The present, which never goes back while the engine is open."""
        self.now = max(self.now, self.clock.wall)
        return self.now

    def visible(self, name: str, user: str) -> dict[int, tuple[Any, ...]]:
        """The rows of a partition that have not expired."""
        ttl = self.tables[name].ttl_us
        stored = self.rows.get((name, user), Rows()).stored
        return {seq: row for seq, (row, at) in stored.items() if at + ttl > self.tick()}

    def forget_expired(self, *names: str) -> int:
        """What has expired by now is gone for good; how many rows."""
        count = 0
        for (name, user), rows in self.rows.items():
            if name in names:
                left = self.visible(name, user).keys()
                count += len(rows.stored) - len(left)
                rows.stored = {seq: rows.stored[seq] for seq in left}
        return count

    def place(self) -> tuple[str, str]:
        """Some partition."""
        return self.random.choice(sorted(self.tables)), self.random.choice(USERS)

    def new_rows(self, name: str, count: int) -> list[tuple[Any, ...]]:
        """Rows; ids come back again and again."""
        more = len(self.tables[name].columns) - 2
        return [(self.random.randrange(5), f"b{n}", *range(more)) for n in range(count)]

    # --- what clients do -----------------------------------------------------------------------------------------

    def insert(self, count: int | None = None) -> None:
        """Rows one by one or as columns."""
        name, user = self.place()
        table, rows = self.tables[name], self.new_rows(name, count or self.random.randint(1, 4))
        one_by_one = self.random.random() < 0.5

        def work(wtxn: WriteTransaction) -> tuple[int, int]:
            if one_by_one:
                first = min([wtxn.insert_row(table, user, row, None) for row in rows])
            else:
                first = wtxn.insert(table, user, rows_of(table, rows))[0]
            return first, wtxn.now_us()

        first, at = self.engine.submit(work, weight=len(rows)).result()
        self.keep(name, user, first, rows, at)

    def many(self) -> None:
        """More rows than one slice of the evictor takes."""
        self.insert(count=5_000)

    def keep(self, name: str, user: str, first: int, rows: list[tuple[Any, ...]], at: int) -> None:
        """The model learns of rows."""
        assert at == self.tick()
        self.newest = self.newest_row = at
        stored = self.rows.setdefault((name, user), Rows()).stored
        stored.update({first + offset: (row, at) for offset, row in enumerate(rows)})

    def delete(self) -> None:
        """Some of the visible rows."""
        name, user = self.place()
        chosen = [seq for seq in self.visible(name, user) if self.random.random() < 0.4]
        if not chosen:
            return
        self.newest = self.engine.commit_sync(
            lambda wtxn: (wtxn.delete(self.tables[name], user, chosen), wtxn.now_us())[1]
        )
        for seq in chosen:
            del self.rows[name, user].stored[seq]

    def in_transaction(self) -> None:
        """Staged over a snapshot: own rows are there at once, whatever the time."""
        name, user = self.place()
        table, rows = self.tables[name], self.new_rows(name, 2)
        with self.engine.snapshot() as snapshot:
            before = self.visible(name, user)
            transaction = Transaction(snapshot)
            transaction.insert(table, user, rows_of(table, rows))
            chosen = [seq for seq in before if self.random.random() < 0.4]
            transaction.delete(table, user, chosen)
            expected = [row for seq, row in before.items() if seq not in chosen] + rows
            assert [tuple(row.values()) for row in transaction.scan(table, user).to_pylist()] == expected
            assert transaction.count(table, user) == len(expected)
            info = self.engine.commit_sync(transaction.apply)
        for seq in chosen:
            del self.rows[name, user].stored[seq]
        self.keep(name, user, info.last_seq - 1, rows, info.timestamp_us)

    # --- time and upkeep -----------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Time passes, by microseconds too; sometimes somebody sets the clock back."""
        seconds = self.random.choice([0.000001, 0.5, 1.0, 2.999999, 3.0, 8.0, 30.0, -5.0])
        self.clock.wall += round(seconds * 1e6)
        self.clock.steady += max(seconds, 0.0)

    def evict(self) -> None:
        """What has expired ends, once; then nothing is left to do."""
        commits = self.engine.stats().commits
        expected = self.forget_expired(*self.tables)
        assert self.engine.evict() == expected
        if expected:
            assert self.engine.stats().commits > commits
            self.newest = self.tick()
        self.evicted += expected
        commits = self.engine.stats().commits
        assert self.engine.evict() == 0
        assert self.engine.stats().commits == commits

    def compact(self) -> None:
        """Merging and retention; then the folder is sound."""
        self.follow()
        self.engine.compact()
        assert self.engine.check() == []

    def reopen(self) -> None:
        """A restart. The present is then not before the newest commit, or the newest row if the log is empty."""
        self.follow()
        self.engine.close()
        self.engine = StorageEngine.open(self.folder, OPTIONS, clock=self.clock)
        self.now = self.engine._clock.now_us()
        logged = self.engine.stats().first_retained_seq <= self.engine.last_seq
        assert self.now >= max(self.clock.wall, self.newest if logged else self.newest_row)
        self.learn_tables()

    def change_ttl(self) -> None:
        """Living rows are judged by the new TTL; what has expired stays so."""
        name = self.random.choice(sorted(self.tables))
        old = self.tables[name]
        ttl = self.random.choice([1, 3, 10, 30, 100])

        def work(wtxn: WriteTransaction) -> int:
            expired = wtxn.expired_through(old)
            wtxn.put_table(next_version(old, ttl_seconds=ttl, expired_through=expired))
            return wtxn.now_us()

        self.newest = self.engine.commit_sync(work)
        gone = {key: set(rows.stored) - set(self.visible(*key)) for key, rows in self.rows.items() if key[0] == name}
        self.learn_tables()
        for key, seqs in gone.items():  # expired, but the feed is yet to tell of them
            for seq in seqs:
                row, _ = self.rows[key].stored[seq]
                self.rows[key].stored[seq] = row, -(1 << 62)

    def add_column(self) -> None:
        """Rows get one more column."""
        name = self.random.choice(sorted(self.tables))
        old = self.tables[name]
        number = len(old.columns)
        if number >= 5:
            return
        columns = (*old.columns, ColumnDef(old.next_column_id, f"c{number}", BIGINT))
        table = next_version(old, columns=columns, next_column_id=old.next_column_id + 1)
        self.newest = self.engine.commit_sync(lambda wtxn: (wtxn.put_table(table), wtxn.now_us())[1])
        self.learn_tables()
        for (other, _), rows in self.rows.items():
            if other == name:
                rows.stored = {seq: ((*row, None), at) for seq, (row, at) in rows.stored.items()}

    # --- comparing -----------------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        """Every partition reads as the model says, and the writer sees the same."""
        self.tick()
        with self.engine.snapshot() as snapshot:
            for name in self.tables:
                for user in USERS:
                    self.compare(snapshot, name, user)
        name, user = self.place()
        self.engine.commit_sync(lambda wtxn: self.compare(wtxn, name, user))

    def compare(self, view: ReadView, name: str, user: str) -> None:
        """Scan, count, live and fetch agree with the model."""
        table, model = self.tables[name], self.visible(name, user)
        scanned = [tuple(row.values()) for row in view.scan(table, user, with_seq=True).to_pylist()]
        assert scanned == [(seq, *row) for seq, row in sorted(model.items())]
        assert view.count(table, user) == len(model)
        stored = sorted(self.rows.get((name, user), Rows()).stored)
        stored = self.random.sample(stored, min(8, len(stored)))
        assert view.live(table, user, stored) == [seq in model for seq in stored]  # type: ignore[attr-defined]
        some = self.random.sample(sorted(model), min(3, len(model)))
        if some:
            fetched = view.fetch(table, user, some, ["id"]).column(0).to_pylist()
            assert fetched == [model[seq][0] for seq in some]

    def follow(self) -> None:
        """The feed tells of every row once when it comes and once when it goes."""
        for change in self.engine.feed.subscribe(self.position).poll(100_000):
            self.position = change.last_seq
            for table in change.tables:
                added = self.added.setdefault(table.table.table_id, set())
                removed = self.removed.setdefault(table.table.table_id, set())
                fresh = set(table.added().column(0).to_pylist())
                gone = table.removed().column(0).to_pylist()
                assert not fresh & added
                added |= fresh
                assert len(set(gone)) == len(gone)
                assert not removed & set(gone)
                assert set(gone) <= added
                removed |= set(gone)
        for name, table in self.tables.items():
            stored = {seq for user in USERS for seq in self.rows.get((name, user), Rows()).stored}
            there = self.added.get(table.table_id, set()) - self.removed.get(table.table_id, set())
            assert there == stored


def next_version(table: TableDef, **changes: Any) -> TableDef:
    """The definition after an ALTER TABLE."""
    history = (*table.history, SchemaVersion(table.schema_version, table.columns))
    return msgspec.structs.replace(table, schema_version=table.schema_version + 1, history=history, **changes)
