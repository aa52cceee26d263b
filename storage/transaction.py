"""Transaction: a buffer of changes over any ReadView, itself a ReadView, with savepoints.

Staged rows have provisional `_seq`s from 2**62. `apply` writes the net effect into a WriteTransaction: a row inserted
and deleted again leaves nothing, a row updated five times is one replacement. What the transaction read of a row that
it replaces or deletes is checked: if another commit changed it meanwhile, `apply` raises WriteConflict and nothing
is kept. Definitions are checked in the same way (SchemaChanged).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from storage.catalog import Catalog, NamespaceDef, TableDef
from storage.errors import SchemaChanged, WriteConflict
from storage.layout import SEQ
from storage.staged_view import StagedView
from storage.staging import StagedPartition, Undo
from storage.topic_definitions import TopicDef
from storage.view_definitions import ViewDef
from storage.views import Base
from storage.writer import WriteTransaction

FIRST_PROVISIONAL = 1 << 62
_VERSIONS = itertools.count(FIRST_PROVISIONAL)


class CommitInfo(msgspec.Struct, frozen=True):
    """What `apply` wrote: the `_seq`s it took (first > last when it took none) and the commit's time."""

    first_seq: int
    last_seq: int
    timestamp_us: int
    rows_added: int
    rows_removed: int


class TransactionBase(Base, Protocol):
    """A view that a transaction may be built over: a Snapshot, a WriteTransaction, another Transaction."""

    def allocate_table_id(self) -> int:
        """An id for a new table, never used before."""


class Transaction(StagedView):
    """Changes of one session. Use it from one thread at a time."""

    def __init__(self, base: TransactionBase) -> None:
        super().__init__(base, FIRST_PROVISIONAL, lambda: next(_VERSIONS))
        self._id_source = base
        self._seen_objects: dict[tuple[str, str], bytes | None] = {}
        self._savepoints: list[tuple[Undo, tuple[int, Catalog | None], int, int, int]] = []
        self._also: list[Callable[[WriteTransaction], object]] = []
        self._mark = 1
        self.staged_rows = 0
        self.staged_bytes = 0

    @property
    def touched_tables(self) -> int:
        """How many tables have staged changes. Any thread."""
        return len({table_id for table_id, _ in list(self._partitions)})

    @property
    def base_seq(self) -> int:
        """The last `_seq` of the state beneath. Any thread."""
        return self._base.seq

    # --- staging -------------------------------------------------------------------------------------------------

    def insert(self, table: TableDef, partition: str, rows: pa.Table) -> tuple[int, int]:
        """Stage rows; see StagedView."""
        span = super().insert(table, partition, rows)
        self._note(rows.num_rows, rows.nbytes)
        return span

    def insert_row(self, table: TableDef, partition: str, row: tuple[object, ...], key: bytes | None) -> int:
        """Stage one row; see StagedView."""
        seq = super().insert_row(table, partition, row, key)
        self._note(1, 64 + 16 * len(row) + sum(len(v) for v in row if isinstance(v, str | bytes)))
        return seq

    def replace_row(
        self, table: TableDef, partition: str, old_seq: int, row: tuple[object, ...], key: bytes | None
    ) -> int:
        """Stage one replacement; see StagedView."""
        seq = super().replace_row(table, partition, old_seq, row, key)
        self._note(1, 64 + 16 * len(row) + sum(len(v) for v in row if isinstance(v, str | bytes)))
        return seq

    def replace(self, table: TableDef, partition: str, old_seqs: Sequence[int], rows: pa.Table) -> tuple[int, int]:
        """Stage replacements; see StagedView."""
        span = super().replace(table, partition, old_seqs, rows)
        self._note(rows.num_rows, rows.nbytes)
        return span

    def delete(self, table: TableDef, partition: str, seqs: Sequence[int]) -> None:
        """Stage the end of rows; see StagedView."""
        super().delete(table, partition, seqs)
        self._note(len(seqs), 16 * len(seqs))

    def put_table(self, table: TableDef) -> None:
        """Stage a table's definition."""
        self._objects.put_table(table)

    def drop_table(self, table_id: int) -> None:
        """Stage the end of a table."""
        self._objects.drop_table(table_id)

    def put_namespace(self, namespace: NamespaceDef) -> None:
        """Stage a namespace."""
        self._objects.put_namespace(namespace)

    def drop_namespace(self, name: str) -> None:
        """Stage the end of a namespace."""
        self._objects.drop_namespace(name)

    def put_topic(self, topic: TopicDef) -> None:
        """Topics are changed by works of the writer only."""
        raise SchemaChanged(f"topic {topic.full_name} cannot be changed in a transaction")

    def drop_topic(self, topic_id: int) -> None:
        """Topics are changed by works of the writer only."""
        raise SchemaChanged("a topic cannot be dropped in a transaction")

    def put_view(self, view: ViewDef) -> None:
        """Views are changed by works of the writer only."""
        raise SchemaChanged(f"view {view.full_name} cannot be changed in a transaction")

    def drop_view(self, namespace: str, name: str) -> None:
        """Views are changed by works of the writer only."""
        raise SchemaChanged("a view cannot be dropped in a transaction")

    def also(self, work: Callable[[WriteTransaction], object], size: int = 64) -> None:
        """Run `work` in the writer when the transaction is applied, after its rows: PUBLISH and ACK.

        Its effect is not seen by the transaction's own reads; `size` is what it holds, in bytes.
        """
        self._also.append(work)
        self._note(1, size)

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        """Stage a definition of any other kind."""
        self._seen_objects.setdefault((kind, name), self._base.object_bytes(kind, name))
        self._objects.put(kind, name, value)

    def delete_object(self, kind: str, name: str) -> None:
        """Stage the end of a definition of any other kind."""
        self._seen_objects.setdefault((kind, name), self._base.object_bytes(kind, name))
        self._objects.delete(kind, name)

    def allocate_table_id(self) -> int:
        """An id for a new table, never used before."""
        return self._id_source.allocate_table_id()

    # --- savepoints ----------------------------------------------------------------------------------------------

    def savepoint(self) -> int:
        """Remember this state; the number is for `rollback_to`."""
        self._savepoints.append(
            (self._undo, self._objects.mark(), self.staged_rows, self.staged_bytes, len(self._also))
        )
        self._undo = Undo()
        self._mark += 1
        return len(self._savepoints) - 1

    def rollback_to(self, savepoint: int) -> None:
        """Forget everything staged since that savepoint (and the savepoint itself)."""
        while len(self._savepoints) > savepoint:
            self._undo.roll_back(self._overlay)
            self._undo, objects, self.staged_rows, self.staged_bytes, works = self._savepoints.pop()
            self._objects.roll_back(objects)
            del self._also[works:]
        self._mark += 1

    # --- writing -------------------------------------------------------------------------------------------------

    def apply(self, wtxn: WriteTransaction) -> CommitInfo:
        """Write the net effect. Raises WriteConflict, DuplicateKey or SchemaChanged, and then nothing is kept."""
        first = wtxn.next_seq
        self._apply_objects(wtxn)
        added = removed = 0
        for (table_id, partition), staged in self._partitions.items():
            if not staged.segments and not staged.superseded:
                continue
            mine = self.catalog.table_by_id(table_id)
            if mine is None:
                continue  # dropped by this very transaction
            table = wtxn.expect_schema(mine)
            more, fewer = _apply_partition(wtxn, table, partition, staged)
            added += more
            removed += fewer
        for work in self._also:
            work(wtxn)
        return CommitInfo(first, wtxn.next_seq - 1, wtxn.now_us(), added, removed)

    def _note(self, rows: int, size: int) -> None:
        self.staged_rows += rows
        self.staged_bytes += size

    def _apply_objects(self, wtxn: WriteTransaction) -> None:
        base, present, mine = self._base.catalog, wtxn.catalog, self.catalog
        if self._objects.catalog_changed:
            before = {t.table_id: t for t in base.tables()}
            after = {t.table_id: t for t in mine.tables()}
            old_spaces = {n.name: n for n in base.namespaces()}
            new_spaces = {n.name: n for n in mine.namespaces()}
            for table_id in before.keys() - after.keys():
                _expect(present.table_by_id(table_id) == before[table_id], before[table_id].full_name)
                wtxn.drop_table(table_id)
            for name in old_spaces.keys() - new_spaces.keys():
                _expect(not any(True for _ in wtxn.catalog.tables(name)), f"namespace {name}")
                wtxn.drop_namespace(name)
            for name, namespace in new_spaces.items():
                if old_spaces.get(name) != namespace:
                    _expect(present.namespace(name) == old_spaces.get(name), f"namespace {name}")
                    wtxn.put_namespace(namespace)
            for table_id, table in after.items():
                if before.get(table_id) != table:
                    _expect(present.table_by_id(table_id) == before.get(table_id), table.full_name)
                    _expect(wtxn.catalog.namespace(table.namespace) is not None, f"namespace {table.namespace}")
                    wtxn.put_table(table)
        for (kind, name), seen in self._seen_objects.items():
            if (kind, name) not in self._objects.staged:
                continue
            if wtxn.object_bytes(kind, name) != seen:
                raise WriteConflict(f"{kind} {name} was changed meanwhile")
            wtxn.stage_object(kind, name, self._objects.staged[(kind, name)])


def _expect(unchanged: bool, what: str) -> None:
    if not unchanged:
        raise SchemaChanged(f"{what} was changed meanwhile")


def _apply_partition(
    wtxn: WriteTransaction, table: TableDef, partition: str, staged: StagedPartition
) -> tuple[int, int]:
    """Deletes first (they free keys), then all replacements at once (keys may be exchanged), then inserts."""
    deleted: list[int] = []
    replaced: dict[int, int] = {}
    for old in staged.superseded:
        if old >= FIRST_PROVISIONAL:
            continue
        last = staged.superseded[old]
        while last in staged.superseded:
            last = staged.superseded[last]
        if staged.holds(last):
            replaced[last] = old
        else:
            deleted.append(old)
    if deleted:
        wtxn.delete(table, partition, deleted)
    row_count = sum(len(segment.seqs) for segment in staged.segments)
    if not row_count:
        return 0, len(deleted)
    rows = staged.live_rows(table)
    if not replaced:
        if rows.num_rows:
            wtxn.insert(table, partition, rows.drop_columns([SEQ]))
        return rows.num_rows, len(deleted)
    seqs: list[int] = rows.column(SEQ).to_pylist()
    rows = rows.drop_columns([SEQ])
    updates = [place for place, seq in enumerate(seqs) if seq in replaced]
    if len(updates) == len(seqs):
        wtxn.replace(table, partition, [replaced[seq] for seq in seqs], rows)
        return len(seqs), len(deleted) + len(seqs)
    inserts = [place for place, seq in enumerate(seqs) if seq not in replaced]
    wtxn.replace(table, partition, [replaced[seqs[p]] for p in updates], rows.take(pa.array(updates, pa.int64())))
    wtxn.insert(table, partition, rows.take(pa.array(inserts, pa.int64())))
    return len(seqs), len(deleted) + len(updates)
