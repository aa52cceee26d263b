"""The engine under a seed: simulated clients, a virtual clock, a disk whose commits fail, and a plain model beside it.

Everything happens in an order that the seed decides. The writer is held at a gate while clients queue their works, so
that groups are the same in every run; merges are asked for, and a client may slip in between building one and applying
it; leases run out when the clock is moved. What remains to the machine (when the writer's thread gets its turn) changes
nothing that can be seen.

A commit fails in one of four ways: LOST (an I/O error, nothing is stored), FULL (the same, as "no space"), KEPT (the
error comes after the meta page was written: stored, but nobody was told) and ROOM (the map is full; it grows and the
group goes on).
"""

from __future__ import annotations

import enum
import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgspec
import pyarrow as pa
import pytest

from storage import Commit, Snapshot, StorageEngine, StorageOptions, TableDef, Transaction, WriteTransaction
from storage.catalog import ColumnDef, SchemaVersion, TableKind
from storage.environment import LOG_TRUNCATED, read_number
from storage.errors import (
    DuplicateKey,
    LogTruncated,
    SchemaChanged,
    SnapshotExpired,
    StorageError,
    StorageFull,
    StoragePoisoned,
    WriteConflict,
)
from storage.feed import FeedCursor
from storage.types import BIGINT
from tests.storage.helpers import create, key_of, keyed_table, plain_table, rows_of
from tests.storage.simulated_cold import SimulatedCold
from tests.storage.simulated_streams import SimulatedStreams
from tests.storage.simulated_topics import SimulatedTopics

RETENTION = 500.0
OPTIONS = StorageOptions(
    map_start=16 << 20,
    merge=False,
    evict=False,
    merge_fan_in=3,
    direct_rows=4,
    ring_commits=4,
    group_wait_us=0,
    drain_seconds=0.0,
    lease_seconds=100.0,
    retention_seconds=RETENTION,
    cold_cache_bytes=1 << 14,
    cold_segment_rows=16,
    cold_grace_seconds=50.0,
    cold_misses=-1,  # works that are put off come back when a thread says so, not the seed
)
USERS = ("", "ann", "bob" * 60)
KEYS = range(12)
NEVER_STORED = (StoragePoisoned, StorageFull)

Row = tuple[Any, ...]


class Cell(NamedTuple):
    """A row version of the model. `origin` is the committed version that it replaces, for rows of a transaction."""

    row: Row
    version: int
    origin: int | None = None


Rows = dict[int, Cell]
Place = tuple[str, str]
State = dict[Place, Rows]


class Refused(Exception):
    """The model refuses an operation."""


class Fault(enum.Enum):
    """How a commit fails."""

    LOST = "lost"
    FULL = "full"
    KEPT = "kept"
    ROOM = "room"


class DiskTrouble(lmdb.DiskError):
    """What LMDB raises for an error of the system."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.__dict__["code"] = number


class Attempt(NamedTuple):
    """A commit that the writer tried: the works that ran for it, and whether it is stored."""

    members: list[int]
    stored: bool


class VirtualClock:
    """Moves only when it is told to; wall time may step back."""

    def __init__(self) -> None:
        self.wall = self.latest = 1_800_000_000_000_000
        self.steady = 1_000.0

    def now_us(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def advance(self, seconds: float, *, step: float = 0.0) -> None:
        self.steady += seconds
        self.wall += int((seconds + step) * 1e6)
        self.latest = max(self.latest, self.wall)


class Operation(NamedTuple):
    """What a client does to one partition: rows to insert, (key, new row) to update, keys to delete."""

    kind: str
    place: Place
    payload: list[Any]


class OpenTransaction(NamedTuple):
    """A transaction between its statements: what it read from, and the model of what it sees."""

    snapshot: Snapshot
    txn: Transaction
    base: State
    state: State
    tables: dict[str, TableDef]
    dirty: set[str]


class Follower:
    """A reader of the feed who keeps a copy of the database."""

    def __init__(self, cursor: FeedCursor) -> None:
        self.cursor = cursor
        self.rows: dict[tuple[int, str], dict[int, Row]] = {}


class Simulation:
    """One run. `trace` holds what was done, for the message of a failure."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.clock = VirtualClock()
        self.trace: list[str] = []
        self.tables: dict[str, TableDef] = {}
        self.state: State = {}
        self.versions = 0
        self.snapshots: list[tuple[Snapshot, State, dict[str, TableDef]]] = []
        self.transactions: list[OpenTransaction] = []
        self.stamps: dict[int, int] = {}
        self.last_seq = 0
        self.running: list[int] = []
        self.attempts: list[Attempt] = []
        self.fault: tuple[int, Fault] | None = None
        self.faulted = False
        self.reopened = threading.Event()
        self.inside_merge = False
        self.counts = dict.fromkeys(("commits", "conflicts", "faults", "merges", "truncations", "expired"), 0)
        self.open()
        for make, name in ((keyed_table, "keyed"), (plain_table, "plain")):
            self.tables[name] = create(self.engine, make)
        self.cold = SimulatedCold(self)
        self.streams = SimulatedStreams(self)
        self.topics = SimulatedTopics(self)
        self.followers = [Follower(self.engine.feed.subscribe(0)) for _ in range(3)]

    def run(self, steps: int) -> None:
        """Do random steps; at the end everything must agree once more, also after a restart."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self.group, 30),
            (self.begin, 8),
            (self.statement, 24),
            (self.finish, 10),
            (self.look, 8),
            (self.check_snapshot, 8),
            (self.follow, 12),
            (self.merge, 6),
            (self.cold.flush, 4),
            (self.cold.compact, 3),
            (self.append, 6),
            (self.evict, 4),
            (self.topics.produce, 5),
            (self.topics.consume, 6),
            (self.topics.acknowledge, 5),
            (self.topics.reset, 1),
            (self.wait, 6),
            (self.alter, 1),
            (self.recreate, 1),
            (self.reopen, 1),
        ]
        for action in self.random.choices([a for a, _ in actions], [w for _, w in actions], k=steps):
            self.note(action.__name__)
            action()
            if self.random.random() < 0.1:
                self.compare_all()
        self.reopen()
        for follower in self.followers:
            self.catch_up(follower, 10_000)
        stamps = [stamp for _, stamp in sorted(self.stamps.items())]
        assert stamps == sorted(stamps)
        assert self.engine.check() == []
        self.compare_all()

    def close(self) -> None:
        """Release everything that the run holds."""
        self.engine.close()

    def note(self, what: str) -> None:
        """Remember a step."""
        self.trace.append(what.replace(USERS[-1], "bob"))

    # --- the engine and its disk ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the engine, with the seams in place."""
        self.engine = StorageEngine.open(self.folder, OPTIONS, clock=self.clock)
        environment, merger = self.engine._environment, self.engine._merger
        queue = self.engine._queue
        commit, submit, refuse = environment.commit, self.engine.submit_exclusive, queue.refuse

        def failing(txn: Any) -> None:
            fault = None
            if self.fault is not None:
                left, kind = self.fault
                self.fault = (left - 1, kind) if left else None
                fault = None if left else kind
            if fault is not None:
                self.note(f"  fault {fault.value}")
                self.counts["faults"] += 1
            if fault is Fault.ROOM:
                raise lmdb.MapFullError("simulated")
            members, self.running = self.running, []
            self.attempts.append(Attempt(members, fault in (None, Fault.KEPT)))
            if fault is not None:
                self.faulted = True
                self.reopened.clear()
                if fault is Fault.KEPT:
                    commit(txn)
                raise DiskTrouble(errno.ENOSPC if fault is Fault.FULL else errno.EIO)
            commit(txn)

        def slipping(work: Any) -> Any:
            if not self.inside_merge and self.random.random() < 0.4:
                self.inside_merge = True
                self.note("  meanwhile")
                self.random.choice([self.group, self.finish])()
                self.inside_merge = False
            return submit(work)

        def refusing(error: StorageError | None) -> None:
            refuse(error)
            if error is None:
                self.reopened.set()

        queue.refuse = refusing  # type: ignore[method-assign]
        environment.commit = failing  # type: ignore[method-assign]
        merger._submit = self.engine.cold._submit = slipping

    def arm(self) -> None:
        """Let one of the next commits fail, sometimes."""
        if self.random.random() < 0.1:
            self.fault = (self.random.choice([0, 0, 1]), self.random.choice(list(Fault)))

    def await_reopening(self) -> None:
        """Clients hear of a failed commit before the storage is open again; wait for that, too."""
        if self.faulted:
            assert self.reopened.wait(30)

    def settle(self) -> None:
        """After a step that may have met a fault: what the engine ended, the model forgets."""
        self.fault = None
        if self.faulted:
            self.faulted = False
            for snapshot, _, tables in self.snapshots:
                with pytest.raises(SnapshotExpired):
                    snapshot.count(next(iter(tables.values())), "")
                snapshot.close()
            self.snapshots.clear()
        self.forget_expired()

    def forget_expired(self) -> None:
        """Drop what reads from snapshots that were ended."""
        self.counts["expired"] += sum(1 for snapshot, _, _ in self.snapshots if snapshot.expired)
        self.snapshots = [held for held in self.snapshots if not held[0].expired]
        for pending in [p for p in self.transactions if p.snapshot.expired]:
            self.transactions.remove(pending)
            with pytest.raises(SnapshotExpired):
                pending.txn.scan(pending.tables["plain"], "")
            pending.snapshot.close()

    def reopen(self) -> None:
        """Close the engine and open it again."""
        for snapshot in [*(held[0] for held in self.snapshots), *(pending.snapshot for pending in self.transactions)]:
            snapshot.close()
        self.snapshots.clear()
        self.transactions.clear()
        positions = [follower.cursor.position for follower in self.followers]
        self.engine.close()
        self.open()
        self.tables = {table.name: table for table in self.engine.catalog.tables("app")}
        for follower, position in zip(self.followers, positions, strict=True):
            follower.cursor = self.engine.feed.subscribe(position)

    # --- operations and their model ------------------------------------------------------------------------------

    def operation(self) -> Operation:
        """Something for a client to do."""
        name = self.random.choice(("keyed", "keyed", "plain"))
        place = (name, self.random.choice(USERS))
        kind = self.random.choice(("insert", "insert_row", "update", "update_row", "delete"))
        count = 1 if kind.endswith("_row") else self.random.randint(1, 4)
        keys = self.random.sample(KEYS, count)
        if kind == "delete":
            return Operation(kind, place, keys)
        if kind.startswith("insert"):
            return Operation(kind, place, [self.row(name, key) for key in keys])
        moved = [key if self.random.random() < 0.7 else self.random.choice(KEYS) for key in keys]
        return Operation(kind, place, [(key, self.row(name, new)) for key, new in zip(keys, moved, strict=True)])

    def row(self, name: str, key: int) -> Row:
        """A row with that key."""
        email = self.random.choice([None, None, *"abcdefgh"])
        amount = self.random.choice([None, self.random.randint(-(2**63), 2**63 - 1)])
        return (key, email, amount, *range(3, len(self.tables[name].columns)))

    def on_model(self, state: State, operation: Operation) -> None:
        """Do an operation on a state, or raise Refused and change nothing."""
        kind, place, payload = operation
        after = dict(state.get(place, {}))
        if kind.startswith("insert"):
            for row in payload:
                if row[0] in after:
                    raise Refused
                after[row[0]] = self.cell(row)
        elif kind.startswith("update"):
            found = [(after.pop(key), row) for key, row in payload if key in after]
            for old, row in found:
                if row[0] in after:
                    raise Refused
                after[row[0]] = self.cell(row, old.origin)
        else:
            for key in payload:
                after.pop(key, None)
        refuse_doubles(place, after)
        state[place] = after

    def cell(self, row: Row, origin: int | None = None) -> Cell:
        self.versions += 1
        return Cell(row, self.versions, origin)

    def on_view(self, view: Any, tables: dict[str, TableDef], operation: Operation) -> None:
        """Do the same through a WriteTransaction or a Transaction."""
        kind, (name, user), payload = operation
        table = tables[name]
        if kind == "insert_row":
            view.insert_row(table, user, payload[0], key_of(table, payload[0][0]))
        elif kind == "insert":
            view.insert(table, user, rows_of(table, payload))
        elif kind == "update_row":
            ((key, row),) = payload
            if found := view.get_row(table, user, key_of(table, key)):
                view.replace_row(table, user, found[0], row, key_of(table, row[0]))
        elif kind == "update":
            seqs = view.find(table, user, [key_of(table, key) for key, _ in payload])
            pairs = [(seq, row) for seq, (_, row) in zip(seqs, payload, strict=True) if seq is not None]
            if pairs:
                view.replace(table, user, [seq for seq, _ in pairs], rows_of(table, [row for _, row in pairs]))
        else:
            seqs = view.find(table, user, [key_of(table, key) for key in payload])
            if found := [seq for seq in seqs if seq is not None]:
                view.delete(table, user, found)

    # --- groups --------------------------------------------------------------------------------------------------

    def group(self) -> None:
        """Several clients send works that meet in one group, or in a few; a commit may fail."""
        works = [[self.operation() for _ in range(self.random.randint(1, 3))] for _ in range(self.random.randint(1, 5))]
        heavy = [self.random.random() < 0.15 for _ in works]
        self.note(f"  works {works} heavy {heavy}")
        tables = dict(self.tables)
        entered, gate = threading.Event(), threading.Event()

        def hold(_: WriteTransaction) -> None:
            entered.set()
            gate.wait()

        def queue(number: int, operations: list[Operation]) -> Commit[None]:
            def work(wtxn: WriteTransaction) -> None:
                self.running.append(number)
                for operation in operations:
                    self.on_view(wtxn, tables, operation)

            return self.engine.submit(work, weight=5 if heavy[number] else 1)

        held = self.engine.submit(hold)
        entered.wait()
        self.attempts.clear()
        self.running = []
        self.arm()
        commits = [queue(number, operations) for number, operations in enumerate(works)]
        gate.set()
        held.result(30)
        errors = [commit.exception(30) for commit in commits]
        self.await_reopening()
        self.judge(works, errors)
        self.settle()

    def judge(self, works: list[list[Operation]], errors: list[BaseException | None]) -> None:
        """Replay the commits that were tried on the model; every client must have heard what happened."""
        seen: set[int] = set()
        for members, stored in [*self.attempts, Attempt(self.running, stored=True)]:
            trial = dict(self.state)
            for number in dict.fromkeys(members):
                seen.add(number)
                staged = dict(trial)
                fails = idle = False
                try:
                    for operation in works[number]:
                        self.on_model(staged, operation)
                    idle = all(staged[place] == trial.get(place, {}) for place in staged)
                    trial = staged
                except Refused:
                    fails = True
                error = errors[number]
                if fails:
                    assert isinstance(error, DuplicateKey), (number, error)
                elif error is not None:
                    assert isinstance(error, NEVER_STORED), (number, error)
                    assert self.faulted, (number, error)
                else:
                    assert stored or idle, f"work {number} was acknowledged and is not stored"
            if stored:
                self.state = trial
                self.counts["commits"] += 1
        for number, error in enumerate(errors):
            assert number in seen or (self.faulted and isinstance(error, NEVER_STORED)), (number, error)
        assert self.engine.last_seq >= self.last_seq
        self.last_seq = self.engine.last_seq

    # --- transactions --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A client begins a transaction over a snapshot."""
        if len(self.transactions) < 4:
            snapshot = self.engine.snapshot(lease=self.random.choice([None, 30.0]))
            base = {
                place: {key: cell._replace(origin=cell.version) for key, cell in rows.items()}
                for place, rows in self.state.items()
            }
            txn = Transaction(snapshot)
            self.transactions.append(OpenTransaction(snapshot, txn, dict(base), base, dict(self.tables), set()))

    def statement(self) -> None:
        """One of them runs a statement: it sees its snapshot and its own changes, and a failing one leaves nothing."""
        if not self.transactions:
            return
        pending = self.random.choice(self.transactions)
        operation = self.operation()
        width = len(pending.tables[operation.place[0]].columns)
        if len(self.tables[operation.place[0]].columns) != width:
            return  # its rows have another width by now; `finish` tells that it was altered
        self.note(f"  {operation}")
        before = pending.state.get(operation.place, {})
        savepoint = pending.txn.savepoint()
        try:
            self.on_model(pending.state, operation)
            fails = False
        except Refused:
            fails = True
        try:
            self.on_view(pending.txn, pending.tables, operation)
            assert not fails
        except DuplicateKey:
            assert fails
            pending.txn.rollback_to(savepoint)
        if pending.state.get(operation.place, {}) != before:
            pending.dirty.add(operation.place[0])
        self.compare(pending.txn, pending.tables, pending.state, operation.place)

    def finish(self) -> None:
        """One of them commits (or gives up): all of it, or a conflict and nothing."""
        if not self.transactions:
            return
        pending = self.transactions.pop(self.random.randrange(len(self.transactions)))
        if self.random.random() < 0.2:
            pending.snapshot.close()
            return
        self.attempts.clear()
        self.running = []
        self.arm()
        after, expected = self.net_effect(pending)
        try:
            self.engine.submit(pending.txn.apply, weight=self.random.choice([1, 5])).result(30)
            error: StorageError | None = None
        except StorageError as caught:
            error = caught
        self.await_reopening()
        self.note(f"  {error!r}, expected {expected}")
        stored = all(attempt.stored for attempt in self.attempts)
        if expected:
            assert isinstance(error, tuple(expected)), (error, expected)
            self.counts["conflicts"] += 1
        elif error is not None:
            assert self.faulted, error
            assert isinstance(error, NEVER_STORED), error
        else:
            assert stored
        if not expected and stored:
            self.state = after
            self.counts["commits"] += 1
        pending.snapshot.close()
        self.settle()

    def net_effect(self, pending: OpenTransaction) -> tuple[State, set[type[StorageError]]]:
        """What committing leaves, and what it may be refused with (empty: it must succeed)."""
        after = dict(self.state)
        expected: set[type[StorageError]] = set()
        for name in pending.dirty:
            if self.tables.get(name) != pending.tables[name]:
                expected.add(SchemaChanged)
        for place, rows in pending.state.items():
            present = dict(after.get(place, {}))
            current = {cell.version: key for key, cell in present.items()}
            untouched = {cell.version for cell in rows.values() if cell.version == cell.origin}
            touched = {cell.version for cell in pending.base.get(place, {}).values()} - untouched
            if touched - current.keys():
                expected.add(WriteConflict)
            for version in touched & current.keys():
                del present[current[version]]
            for cell in rows.values():
                if cell.version != cell.origin:
                    if cell.row[0] in present:
                        expected.add(DuplicateKey)
                    present[cell.row[0]] = cell
            try:
                refuse_doubles(place, present)
            except Refused:
                expected.add(DuplicateKey)
            after[place] = present
        return after, expected

    # --- readers -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """A reader takes a snapshot and keeps it, longer than its lease perhaps."""
        if len(self.snapshots) < 6:
            lease = self.random.choice([None, 10.0, 1_000.0])
            self.snapshots.append((self.engine.snapshot(lease=lease), dict(self.state), dict(self.tables)))

    def check_snapshot(self) -> None:
        """An old snapshot still shows its own commit."""
        if self.snapshots:
            snapshot, state, tables = self.random.choice(self.snapshots)
            for place in list(state):
                self.compare(snapshot, tables, state, place)
            if self.random.random() < 0.5:
                self.snapshots = [held for held in self.snapshots if held[0] is not snapshot]
                snapshot.close()

    def compare_all(self) -> None:
        """A fresh snapshot shows what the model holds."""
        with self.engine.snapshot() as snapshot:
            for place in list(self.state):
                self.compare(snapshot, self.tables, self.state, place)
        self.topics.compare()

    def compare(self, view: Any, tables: dict[str, TableDef], state: State, place: Place) -> None:
        """Scan, count, find and fetch agree with the model."""
        name, user = place
        table, model = tables[name], {key: cell.row for key, cell in state.get(place, {}).items()}
        scanned = view.scan(table, user, with_seq=True).to_pylist()
        assert {row["id"]: tuple(row.values())[1:] for row in scanned} == model, place
        assert view.count(table, user) == len(scanned) == len(model)
        seqs = view.find(table, user, [key_of(table, key) for key in KEYS])
        assert {key for key, seq in zip(KEYS, seqs, strict=True) if seq is not None} == model.keys()
        by_key = {row["id"]: row["_seq"] for row in scanned}
        assert [seq for seq in seqs if seq is not None] == [by_key[key] for key in sorted(model)]
        assert view.find_range(table, user, key_of(table, 3), key_of(table, 8)) == [
            by_key[key] for key in sorted(model) if 3 <= key < 8
        ]

    # --- the feed ------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """A follower reads some commits."""
        self.catch_up(self.random.choice(self.followers), self.random.choice([1, 2, 5, 1_000]))

    def catch_up(self, follower: Follower, commits: int) -> None:
        """Read up to that many commits; a follower without anything left has the database."""
        position = follower.cursor.position
        try:
            changes = follower.cursor.poll(commits)
        except LogTruncated:
            assert position < self.truncated()
            self.copy(follower)
            return
        for change in changes:
            assert position < change.first_seq <= change.last_seq
            position = change.last_seq
            assert self.stamps.setdefault(position, change.timestamp_us) == change.timestamp_us
            for table in change.tables:
                if table.table.kind is TableKind.STREAM:
                    self.streams.told(table)
                    continue
                rows = follower.rows.setdefault((table.table.table_id, table.partition), {})
                for row in table.added().to_pylist():
                    assert change.first_seq <= row["_seq"] <= change.last_seq
                    rows[row["_seq"]] = (row["id"], row["email"], row["amount"])
                for row in table.removed().to_pylist():
                    assert change.first_seq <= row["_by"] <= change.last_seq
                    assert rows.pop(row["_seq"]) == (row["id"], row["email"], row["amount"])
        if len(changes) < commits:
            for (name, user), cells in self.state.items():
                found = follower.rows.get((self.tables[name].table_id, user), {})
                assert sorted(found.values(), key=repr) == sorted((c.row[:3] for c in cells.values()), key=repr)

    def copy(self, follower: Follower) -> None:
        """Start again from a snapshot."""
        with self.engine.snapshot() as snapshot:
            follower.rows = {
                (table.table_id, user): {
                    row["_seq"]: (row["id"], row["email"], row["amount"])
                    for row in snapshot.scan(table, user, with_seq=True).to_pylist()
                }
                for table in self.tables.values()
                for user in USERS
            }
            follower.cursor = self.engine.feed.subscribe(snapshot.seq)

    # --- rows that expire ----------------------------------------------------------------------------------------

    def append(self) -> None:
        """A client appends to the STREAM table."""
        self.streams.append(self.random.choice(USERS[1:]))

    def evict(self) -> None:
        """Its expired rows are ended."""
        self.streams.evict()

    # --- time and upkeep -----------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Time passes: leases run out. The wall clock may be set, forwards or back."""
        self.clock.advance(self.random.choice([1.0, 20.0, 120.0]), step=self.random.choice([0.0, 0.0, -50.0, 10.0]))
        self.engine._registry.reap()
        for snapshot, *_ in self.snapshots:
            assert snapshot.expired == (snapshot.deadline <= self.clock.steady)
        self.forget_expired()

    def merge(self) -> None:
        """Merging and retention; a client may write in between, and a commit may fail."""
        self.arm()
        try:
            self.counts["merges"] += self.engine.compact()
        except (StoragePoisoned, StorageFull):
            assert self.faulted
        else:
            assert self.engine.stats().first_retained_seq - 1 == self.truncated()
        self.await_reopening()
        self.settle()
        truncated = self.truncated()
        if truncated in self.stamps:
            assert self.stamps[truncated] < self.clock.latest - RETENTION * 1e6
            self.counts["truncations"] += 1
        assert self.engine.check() == []

    def truncated(self) -> int:
        """Up to where the log is gone."""
        with self.engine.snapshot() as snapshot, snapshot.reading() as reader:
            return read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)

    def alter(self) -> None:
        """A new column: old rows read its initial value."""
        name = self.random.choice(sorted(self.tables))
        old = self.tables[name]
        if len(old.columns) >= 6:
            return
        value = len(old.columns)
        initial = initial_of(-value)
        column = ColumnDef(old.next_column_id, f"c{value}", BIGINT, initial=initial)
        table = msgspec.structs.replace(
            old,
            columns=(*old.columns, column),
            schema_version=old.schema_version + 1,
            history=(*old.history, SchemaVersion(old.schema_version, old.columns)),
            next_column_id=old.next_column_id + 1,
        )
        self.engine.commit_sync(lambda wtxn: wtxn.put_table(table))
        self.tables[name] = self.stored_table(name)
        for place in [place for place in self.state if place[0] == name]:
            self.state[place] = {key: cell._replace(row=(*cell.row, -value)) for key, cell in self.state[place].items()}

    def stored_table(self, name: str) -> TableDef:
        """The definition that the engine holds."""
        table = self.engine.catalog.table("app", name)
        assert table is not None
        return table

    def recreate(self) -> None:
        """A table is dropped; another one takes its name."""
        name, make = self.random.choice((("keyed", keyed_table), ("plain", plain_table)))
        old = self.tables[name]
        self.engine.commit_sync(lambda wtxn: wtxn.drop_table(old.table_id))
        create(self.engine, make)
        self.tables[name] = self.stored_table(name)
        self.topics.adopt()
        for place in [place for place in self.state if place[0] == name]:
            self.state[place] = {}


def initial_of(value: int) -> bytes:
    """`ColumnDef.initial` for a value."""
    batch = pa.record_batch([pa.array([value], pa.int64())], names=["value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def refuse_doubles(place: Place, rows: Rows) -> None:
    """Raise Refused when the UNIQUE column of the keyed table holds a value twice."""
    emails = [cell.row[1] for cell in rows.values() if cell.row[1] is not None]
    if place[0] == "keyed" and len(set(emails)) < len(emails):
        raise Refused
