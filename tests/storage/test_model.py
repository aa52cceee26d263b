"""The engine against a plain dict model: random groups, transactions, schema changes, merges and reopenings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage import StorageEngine, StorageOptions, TableDef, Transaction
from storage.catalog import ColumnDef, SchemaVersion
from storage.errors import DuplicateKey, WriteConflict
from storage.layout import encode_initial
from storage.types import BIGINT
from tests.storage.helpers import create, key_of, keyed_table, plain_table, rows_of

OPTIONS = StorageOptions(map_start=64 << 20, direct_rows=4, merge=False, merge_fan_in=2, ring_commits=3)
IDS = st.integers(-3, 6)
EMAILS = st.none() | st.sampled_from(["", "a", "b", "c\0d"])
AMOUNTS = st.none() | st.integers(-(2**63), 2**63 - 1)
USERS = st.sampled_from(["", "ann", "bob" * 60])
OPERATIONS = st.one_of(
    st.tuples(st.just("insert_row"), st.tuples(IDS, EMAILS, AMOUNTS)),
    st.tuples(st.just("insert"), st.lists(st.tuples(IDS, EMAILS, AMOUNTS), min_size=1, max_size=4)),
    st.tuples(st.just("update"), st.lists(st.tuples(IDS, st.tuples(IDS, EMAILS, AMOUNTS)), min_size=1, max_size=4)),
    st.tuples(st.just("update_row"), st.tuples(IDS, st.tuples(IDS, EMAILS, AMOUNTS))),
    st.tuples(st.just("delete"), st.lists(IDS, min_size=1, max_size=4)),
)
WORKS = st.tuples(USERS, st.lists(OPERATIONS, max_size=3))
STATEMENTS = st.lists(st.lists(OPERATIONS, min_size=1, max_size=2), min_size=1, max_size=4)
Model = dict[int, tuple[Any, ...]]


class Refused(Exception):
    """The model refuses an operation."""


def on_model(model: Model, operation: tuple[str, Any], width: int, *, unique: bool = True) -> None:
    """Do an operation on the model, or raise Refused and change nothing."""
    kind, payload = operation
    after = dict(model)
    if kind in ("insert_row", "insert"):
        for row in [payload] if kind == "insert_row" else payload:
            if row[0] in after:
                raise Refused
            after[row[0]] = widen(row, width)
    elif kind in ("update", "update_row"):
        pairs = dict([payload] if kind == "update_row" else payload)
        found = [(old, new) for old, new in pairs.items() if old in after]
        for old, _ in found:
            del after[old]
        for _, new in found:
            if new[0] in after:
                raise Refused
            after[new[0]] = widen(new, width)
    else:
        for key in set(payload):
            after.pop(key, None)
    emails = [row[1] for row in after.values() if row[1] is not None]
    if unique and len(set(emails)) < len(emails):
        raise Refused
    model.clear()
    model.update(after)


def widen(row: tuple[Any, ...], width: int) -> tuple[Any, ...]:
    """A row with values for columns that were added later."""
    return row + tuple(range(len(row), width))


def on_view(view: Any, table: TableDef, user: str, operation: tuple[str, Any]) -> None:
    """Do the same through a WriteTransaction or a Transaction."""
    kind, payload = operation
    width = len(table.columns)
    if kind == "insert_row":
        view.insert_row(table, user, widen(payload, width), key_of(table, payload[0]))
    elif kind == "insert":
        view.insert(table, user, rows_of(table, [widen(row, width) for row in payload]))
    elif kind == "update_row":
        old, new = payload
        if found := view.get_row(table, user, key_of(table, old)):
            view.replace_row(table, user, found[0], widen(new, width), key_of(table, new[0]))
    elif kind == "update":
        wanted = dict(payload)
        seqs = view.find(table, user, [key_of(table, old) for old in wanted])
        found = [(seq, new) for seq, new in zip(seqs, wanted.values(), strict=True) if seq is not None]
        if found:
            view.replace(
                table, user, [seq for seq, _ in found], rows_of(table, [widen(new, width) for _, new in found])
            )
    else:
        seqs = view.find(table, user, [key_of(table, key) for key in set(payload)])
        if found := [seq for seq in seqs if seq is not None]:
            view.delete(table, user, found)


class EngineMachine(RuleBasedStateMachine):
    """Runs the engine and the model side by side."""

    make = staticmethod(keyed_table)
    unique = True
    options = OPTIONS

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-model-"))
        self.engine = StorageEngine.open(self.folder, self.options)
        self.models: dict[str, Model] = {}
        self.last_seq = 0
        self.replica: dict[str, dict[int, tuple[Any, ...]]] = {}
        self.cursor = self.engine.feed.subscribe(0)

    @initialize()
    def create(self) -> None:
        """One USER table with a key and a UNIQUE column."""
        self.table = create(self.engine, self.make)

    def model(self, user: str) -> Model:
        """The model of a partition."""
        return self.models.setdefault(user, {})

    @rule(works=st.lists(WORKS, min_size=1, max_size=4), heavy=st.booleans())
    def group(self, works: list[tuple[str, list[tuple[str, Any]]]], heavy: bool) -> None:
        """Several works, likely in one group; each is all or nothing."""
        table = self.table
        width = len(table.columns)
        commits = []
        for user, operations in works:
            trial = dict(self.model(user))
            try:
                for operation in operations:
                    on_model(trial, operation, width, unique=self.unique)
                fails = False
                self.models[user] = trial
            except Refused:
                fails = True

            def work(wtxn: Any, user: str = user, operations: list[tuple[str, Any]] = operations) -> None:
                for operation in operations:
                    on_view(wtxn, table, user, operation)

            commits.append((self.engine.submit(work, weight=5 if heavy else 1), fails))
        for commit, fails in commits:
            if fails:
                with pytest.raises(DuplicateKey):
                    commit.result(10)
            else:
                commit.result(10)

    @rule(user=USERS, statements=STATEMENTS, inside=st.booleans())
    def transaction(self, user: str, statements: list[list[tuple[str, Any]]], inside: bool) -> None:
        """A transaction whose failing statements are rolled back to their savepoint."""
        table, width = self.table, len(self.table.columns)
        model = dict(self.model(user))

        def run(base: Any) -> Transaction:
            txn = Transaction(base)
            current = dict(self.model(user))
            for operations in statements:
                savepoint = txn.savepoint()
                trial = dict(current)
                try:
                    for operation in operations:
                        on_model(trial, operation, width, unique=self.unique)
                    fails = False
                except Refused:
                    fails = True
                try:
                    for operation in operations:
                        on_view(txn, table, user, operation)
                    assert not fails
                    current = trial
                except DuplicateKey:
                    assert fails
                    txn.rollback_to(savepoint)
                self.compare(txn, user, current)
            model.clear()
            model.update(current)
            return txn

        if inside:
            self.engine.commit_sync(lambda wtxn: run(wtxn).apply(wtxn))
        else:
            with self.engine.snapshot() as snapshot:
                txn = run(snapshot)
                info = self.engine.commit_sync(txn.apply)
            assert info.last_seq <= self.engine.last_seq
        self.models[user] = model

    @rule(user=USERS, key=IDS)
    def conflict(self, user: str, key: int) -> None:
        """A transaction over an old snapshot cannot overwrite a newer version."""
        if key not in self.model(user):
            return
        table = self.table
        with self.engine.snapshot() as snapshot:
            txn = Transaction(snapshot)
            on_view(txn, table, user, ("delete", [key]))
            row = self.model(user)[key]
            self.engine.commit_sync(
                lambda wtxn: wtxn.replace(
                    table, user, wtxn.find(table, user, [key_of(table, key)]), rows_of(table, [row])
                )
            )
            with pytest.raises(WriteConflict):
                self.engine.commit_sync(txn.apply)

    @rule()
    def add_column(self) -> None:
        """A new column: old rows read its initial value."""
        old = self.table
        if len(old.columns) >= 6:
            return
        value = len(old.columns)
        column = ColumnDef(
            old.next_column_id, f"c{value}", BIGINT, initial=encode_initial(pa.array([-value], pa.int64()))
        )
        self.table = msgspec.structs.replace(
            old,
            columns=(*old.columns, column),
            schema_version=old.schema_version + 1,
            history=(*old.history, SchemaVersion(old.schema_version, old.columns)),
            next_column_id=old.next_column_id + 1,
        )
        self.engine.commit_sync(lambda wtxn: wtxn.put_table(self.table))
        for model in self.models.values():
            for key, row in model.items():
                model[key] = (*row, -value)

    @rule()
    def compact(self) -> None:
        """Merge everything that can be merged."""
        self.engine.compact()
        assert self.engine.check() == []

    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        """A reader of the feed polls now and then; late ones read the log."""
        while changes := self.cursor.poll(data.draw(st.integers(1, 4))):
            for change in changes:
                for table in change.tables:
                    rows = self.replica.setdefault(table.partition, {})
                    for row in table.added().to_pylist():
                        rows[row["_seq"]] = (row["id"], row["email"], row["amount"])
                        assert change.first_seq <= row["_seq"] <= change.last_seq
                    for row in table.removed().to_pylist():
                        assert rows.pop(row["_seq"]) == (row["id"], row["email"], row["amount"])
                        assert change.first_seq <= row["_by"] <= change.last_seq
        for user, model in self.models.items():
            expected = sorted((row[:3] for row in model.values()), key=repr)
            assert sorted(self.replica.get(user, {}).values(), key=repr) == expected

    @rule()
    def reopen(self) -> None:
        """Close and open again."""
        self.engine.close()
        self.engine = StorageEngine.open(self.folder, self.options)
        self.table = self.engine.catalog.table("app", self.table.name)
        position = self.cursor.position
        self.cursor = self.engine.feed.subscribe(position)

    @invariant()
    def agrees(self) -> None:
        """Every read agrees with the model."""
        if not hasattr(self, "table"):
            return
        assert self.engine.last_seq >= self.last_seq
        self.last_seq = self.engine.last_seq
        with self.engine.snapshot() as snapshot:
            for user, model in self.models.items():
                self.compare(snapshot, user, model)

    def compare(self, view: Any, user: str, model: Model) -> None:
        """Scan, count, find, fetch and ranges."""
        table = self.table
        scanned = view.scan(table, user, with_seq=True).to_pylist()
        rows = {row["id"]: tuple(row.values())[1:] for row in scanned}
        assert rows == model
        assert len(scanned) == len(model) == view.count(table, user)
        ids = sorted(model)
        seqs = view.find(table, user, [key_of(table, key) for key in range(-3, 7)])
        assert [key for key, seq in zip(range(-3, 7), seqs, strict=True) if seq is not None] == ids
        present = [seq for seq in seqs if seq is not None]
        assert {row["_seq"]: row["id"] for row in scanned} == dict(zip(present, ids, strict=True))
        for key in range(-3, 7):
            found = view.get_row(table, user, key_of(table, key))
            assert (None if found is None else found[1]) == model.get(key)
        backwards = present[::-1]
        fetched = view.fetch(table, user, backwards, ["id", "amount"])
        assert fetched.column("id").to_pylist() == ids[::-1]
        assert fetched.column("amount").to_pylist() == [model[key][2] for key in ids[::-1]]
        low, high = key_of(table, -1), key_of(table, 4)
        inner = [seq for seq, key in zip(present, ids, strict=True) if -1 <= key < 4]
        assert view.find_range(table, user, low, high) == inner
        assert view.find_range(table, user, low, high, limit=2, reverse=True) == inner[::-1][:2]
        assert view.find_range(table, user, None, None, limit=3) == present[:3]

    def teardown(self) -> None:
        """Close and remove the folder."""
        assert self.engine.check() == []
        self.engine.close()
        shutil.rmtree(self.folder)


class PlainMachine(EngineMachine):
    """The same over a table without UNIQUE columns, which takes the shorter ways through the writer."""

    make = staticmethod(plain_table)
    unique = False


EngineMachine.TestCase.settings = PlainMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEngineModel = EngineMachine.TestCase
TestPlainModel = PlainMachine.TestCase
