"""WriteTransaction: the writer's current state plus what the works of the present group have staged.

The works of a group run one after the other on the writer thread, each over what the ones before it staged. Nothing
reaches LMDB while they run (except in direct mode); `storage.flushing` writes everything at the end of the
group, in key order. A work that raises is undone alone.

Direct mode: a work of very many rows runs alone in its group and `insert` writes straight into the LMDB transaction; if
it raises, the transaction is aborted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NoReturn, TypeVar

import msgspec
import pyarrow as pa

from storage.catalog import Catalog, NamespaceDef, TableDef
from storage.environment import Databases, Txn
from storage.errors import SchemaChanged, StorageCorrupt, WriteConflict
from storage.file_records import StagedFiles
from storage.file_references import file_columns, note_definitions, note_references
from storage.flushing import Flusher
from storage.keys import index_key_prefix
from storage.layout import Index, SecondaryIndex, TableLayout, layout_of
from storage.objects import DROPPED, DROPPED_TOPIC, table_name
from storage.reading import Reader
from storage.secondary import entry_keys, row_entries
from storage.staged_view import StagedView, index_keys, key_values
from storage.staging import Row, StagedPartition, Undo, stored_columns
from storage.stored_view import StoredView
from storage.topic_definitions import TopicDef
from storage.topic_publishing import Publisher, Router
from storage.topic_staging import StagedTopics, TopicNews
from storage.view_definitions import ViewDef

T = TypeVar("T")


class Counters:
    """Numbers that only ever grow while the process lives: catalog versions, table and topic ids, turns."""

    def __init__(self, catalog_version: int, table_id: int) -> None:
        self._versions = itertools.count(catalog_version + 1)
        self._table_ids = itertools.count(table_id)
        self._turns = itertools.count()
        self.next_table_id = table_id

    def next_turn(self) -> int:
        """The next number."""
        return next(self._turns)

    def next_catalog_version(self) -> int:
        """A catalog version that was never used before, not even by a work that failed."""
        return next(self._versions)

    def allocate_table_id(self) -> int:
        """A table id that was never used before. It counts as used once a commit has stored a table with it."""
        table_id = next(self._table_ids)
        self.next_table_id = table_id + 1
        return table_id


class WriterBase(StoredView):
    """The committed state, as the writer sees it."""

    missing = WriteConflict

    def rebind(self, reader: Reader) -> None:
        """Go on with another transaction (the map grew)."""
        self._reader = reader


class WriteTransaction(StagedView):
    """What a work gets. Valid only while the work runs."""

    def __init__(
        self,
        txn: Txn,
        reader: Reader,
        catalog: Catalog,
        next_seq: int,
        counters: Counters,
        now_us: int,
        router: Router,
        *,
        direct: bool,
    ) -> None:
        self._writer_base = WriterBase(reader, catalog, next_seq - 1, now_us)
        super().__init__(self._writer_base, next_seq, counters.next_catalog_version)
        self.direct = direct
        self.failed = False
        self._counters = counters
        self._now_us = now_us
        self._first_seq = next_seq
        self._work_seq = next_seq
        self._work_objects = self._objects.mark()
        self.router = router
        self.flusher = Flusher(Publisher(router, next_seq, now_us))
        self.topics = StagedTopics(lambda: self.reader)
        self.topic_news: TopicNews | None = None
        self.files = StagedFiles(lambda: self.reader)
        self.bind(txn, reader)

    def bind(self, txn: Txn, reader: Reader) -> None:
        """Use this LMDB transaction."""
        self.txn = txn
        self.reader = reader
        self._writer_base.rebind(reader)
        self._get = txn.get
        self._keys_db = reader.dbs.keys

    @property
    def dbs(self) -> Databases:
        """Handles of the sub-databases, for works of the engine itself."""
        return self.reader.dbs

    @property
    def first_seq(self) -> int:
        """The first `_seq` of this commit."""
        return self._first_seq

    @property
    def next_seq(self) -> int:
        """The next `_seq` that will be given."""
        return self._next_seq

    def now_us(self) -> int:
        """The commit's timestamp, microseconds since the epoch; never less than an earlier commit's."""
        return self._now_us

    # --- the life of a work --------------------------------------------------------------------------------------

    def begin_work(self) -> None:
        """A work begins: remember where to go back to."""
        self._mark += 1
        self._undo.clear()
        self.topics.begin_work()
        self._work_seq = self._next_seq
        self._work_objects = self._objects.mark()
        self.files.begin_work()

    def end_work(self) -> None:
        """The work has run: check and count the files that its rows refer to. Raises FileRefused."""
        note_references(self.files, self, self._undo)
        self._load_published()
        before = self._work_objects[1] or self._base.catalog
        if self.catalog is not before:
            note_definitions(self.files, before, self.catalog)

    def _load_published(self) -> None:
        """Have the rows of deletes that become messages at hand before the group is written. Raises ColdMiss."""
        published = self.catalog.published_deletes
        if not published:
            return
        for staged, old in self._undo.superseded:
            if staged.table_id in published and not staged.holds(old):
                table = self.catalog.table_by_id(staged.table_id)
                if table is not None:
                    self.reader.load(layout_of(table), staged.row_prefix, old)

    def undo_work(self) -> None:
        """The work failed: forget what it staged."""
        self._undo.roll_back(self._overlay)
        self.topics.undo_work()
        self._objects.roll_back(self._work_objects)
        self.files.undo_work()
        self._next_seq = self._work_seq
        self._mark += 1

    def changed(self) -> bool:
        """Whether anything was staged or written."""
        staged = self._next_seq > self._first_seq or self._objects.staged or self.files.changed
        return bool(staged or self.flusher.touched or self.topics.changed)

    def flush(self, *, last: bool = True) -> None:
        """Write what is staged into the LMDB transaction; `last` writes the commit record and the meta data too."""
        if not last:
            self.end_work()
        waits, self.reader.waits = self.reader.waits, True  # what is not in the cache any more must be read now
        try:
            self.flusher.write_staged(self.txn, self.reader, self.catalog, self._overlay, self._partitions.values())
        finally:
            self.reader.waits = waits
        if not last:
            self._overlay.clear()
            self._partitions.clear()
            self._undo = Undo()
            self._mark += 1
            return
        self.topic_news = self.topics.write(
            self.txn, self.reader, self.flusher.publisher, self._first_seq - 1, self._now_us
        )
        if self._next_seq == self._first_seq and any(kind[0] != "_" for kind, _ in self._objects.staged):
            self._next_seq += 1
        self.files.write(self.txn, self.dbs)
        self.flusher.write_commit(
            self.txn,
            self.reader,
            self._objects,
            self._first_seq,
            self._next_seq,
            self._now_us,
            self._counters.next_table_id,
        )

    # --- staging -------------------------------------------------------------------------------------------------

    def insert_row(self, table: TableDef, partition: str, row: Row, key: bytes | None) -> int:
        """Stage one row (storage values in column order) under its encoded primary key. Raises DuplicateKey."""
        layout: TableLayout = table.__dict__.get("_layout") or layout_of(table)
        if key is None or layout.uniques or layout.secondary or self.direct:
            return super().insert_row(table, partition, row, key)
        staged = self._partitions.get((table.table_id, partition))
        if staged is None or staged.mark != self._mark:
            staged = self._staged(table, partition)
        full = staged.key_prefix + key
        overlay = self._overlay
        previous = overlay.get(full)
        if previous or (previous is None and self._get(full, db=self._keys_db) is not None):
            primary = layout.indexes[0]
            self._duplicate(primary, tuple(row[p] for p in primary.positions), 0, in_batch=False)
        seq = self._next_seq
        self._next_seq = seq + 1
        self._undo.keys.append((full, previous))
        overlay[full] = seq
        segment = staged.open
        if segment is None or segment.layout is not layout:
            segment = staged.row_segment(layout)
        segment.seqs.append(seq)
        segment.rows.append(row)
        return seq

    # One row by its key: the parts that `storage.row_writes` puts together.

    def staged_partition(self, table: TableDef, partition: str) -> StagedPartition:
        """The staging of a partition. Raises SchemaChanged when the table was altered or dropped."""
        return self._staged(table, partition)

    def current_seq(self, full_key: bytes) -> int | None:
        """The current `_seq` of a whole key."""
        seq = self._overlay.get(full_key)
        if seq is None:
            found = self._get(full_key, db=self._keys_db)
            return None if found is None else int.from_bytes(found, "big")
        return seq or None

    def stage_row(self, layout: TableLayout, staged: StagedPartition, row: Row, full_key: bytes) -> int:
        """Stage a row under its whole primary key, whatever the key named before."""
        seq = self._take_seqs(1)
        overlay = self._overlay
        self._undo.keys.append((full_key, overlay.get(full_key)))
        overlay[full_key] = seq
        segment = staged.row_segment(layout)
        segment.seqs.append(seq)
        segment.rows.append(row)
        return seq

    def release_key(self, full_key: bytes) -> int:
        """Stage the end of a key; the `_seq` of the deletion."""
        seq = self._take_seqs(1)
        overlay = self._overlay
        self._undo.keys.append((full_key, overlay.get(full_key)))
        overlay[full_key] = 0
        return seq

    def move_entries(
        self, layout: TableLayout, staged: StagedPartition, old: Row, old_seq: int, row: Row | None, seq: int
    ) -> None:
        """Stage the entries of a new row version in the secondary indexes (none is unique), and the old ones' end."""
        suffix, old_suffix = seq.to_bytes(8, "big"), old_seq.to_bytes(8, "big")
        ended = [key + old_suffix for key, _ in row_entries(layout.secondary, staged, old)]
        self._claim(ended, [0] * len(ended))
        if row is not None:
            begun = [key + suffix for key, _ in row_entries(layout.secondary, staged, row)]
            self._claim(begun, [seq] * len(begun))

    def supersede(self, staged: StagedPartition, old_seq: int, by: int) -> None:
        """Stage that `by` ends the row version `old_seq`."""
        self._supersede(staged, old_seq, by)

    def _current(self, full: bytes) -> int | None:
        return self.current_seq(full)

    def insert(self, table: TableDef, partition: str, rows: pa.Table) -> tuple[int, int]:
        """Stage rows (all columns by name); straight into LMDB in direct mode. Raises DuplicateKey."""
        if not self.direct or rows.num_rows < 256 or file_columns(table):
            return super().insert(table, partition, rows)
        table = self.expect_schema(table)
        self.flush(last=False)
        layout = layout_of(table)
        staged = self._staged(table, partition)
        arrays = stored_columns(layout, rows)
        first = self._next_seq
        for index in layout.indexes:
            prefix = index_key_prefix(table.table_id, staged.partition, index.index_id)
            keys, places = index_keys(index, arrays, prefix)
            if not self.flusher.claim_new(self.txn, self._keys_db, keys, places, first):
                self.failed = True
                self._explain_duplicate(index, keys, places, arrays, first)
        for entries in (entry_keys(index, arrays, staged) for index in layout.secondary):
            seqs = range(first, first + rows.num_rows)
            keys, places = entries.claims(seqs)[0], [*entries.suffixed, *entries.bare]
            if not self.flusher.claim_new(self.txn, self._keys_db, keys, places, first):
                self.failed = True
                self._explain_duplicate(entries.of, entries.bare_keys, entries.bare, arrays, first)
        self._stage_rows(layout, staged, arrays, rows.num_rows, None)
        self.flush(last=False)
        return first, first + rows.num_rows - 1

    def _explain_duplicate(
        self,
        index: Index | SecondaryIndex,
        keys: list[bytes],
        places: Sequence[int],
        arrays: list[pa.Array],
        first: int,
    ) -> NoReturn:
        """Say which row was refused. The new keys stand beside the old ones; an old one has an older `_seq`."""
        self._check_distinct(index, keys, places, arrays)
        for key, place in zip(keys, places, strict=True):
            found = self._get(key, db=self._keys_db)
            if found is not None and int.from_bytes(found, "big") < first:
                self._duplicate(index, key_values(index, arrays, place), place, in_batch=False)
        raise StorageCorrupt("the key index refused new keys without a duplicate among them")

    # --- definitions ---------------------------------------------------------------------------------------------

    def put_table(self, table: TableDef) -> None:
        """Store a table's definition. Raises SchemaChanged when another table or a view has its name."""
        other = self.catalog.table(table.namespace, table.name)
        if other is not None and other.table_id != table.table_id:
            raise SchemaChanged(f"table {table.full_name} was created meanwhile")
        if self.catalog.view(table.namespace, table.name) is not None:
            raise SchemaChanged(f"view {table.full_name} was created meanwhile")
        self._objects.put_table(table)

    def drop_table(self, table_id: int) -> None:
        """Drop a table; its rows are reclaimed in the background."""
        if self.catalog.table_by_id(table_id) is None:
            raise SchemaChanged("the table was dropped meanwhile")
        self._objects.drop_table(table_id, self._next_seq - 1)

    def put_view(self, view: ViewDef) -> None:
        """Store a view's definition. Raises SchemaChanged when a table has its name."""
        if self.catalog.table(view.namespace, view.name) is not None:
            raise SchemaChanged(f"table {view.full_name} was created meanwhile")
        self._objects.put_view(view)

    def drop_view(self, namespace: str, name: str) -> None:
        """Drop a view."""
        if self.catalog.view(namespace, name) is None:
            raise SchemaChanged("the view was dropped meanwhile")
        self._objects.drop_view(namespace, name)

    def put_namespace(self, namespace: NamespaceDef) -> None:
        """Store a namespace."""
        self._objects.put_namespace(namespace)

    def drop_namespace(self, name: str) -> None:
        """Drop a namespace (its tables are the caller's business)."""
        self._objects.drop_namespace(name)

    def put_topic(self, topic: TopicDef) -> None:
        """Store a topic's definition. Raises SchemaChanged when another topic has its name."""
        other = self.catalog.topic(topic.namespace, topic.name)
        if other is not None and other.topic_id != topic.topic_id:
            raise SchemaChanged(f"topic {topic.full_name} was created meanwhile")
        self._objects.put_topic(topic)

    def drop_topic(self, topic_id: int) -> None:
        """Drop a topic; its messages and groups are reclaimed in the background."""
        if self.catalog.topic_by_id(topic_id) is None:
            raise SchemaChanged("the topic was dropped meanwhile")
        self._objects.drop_topic(topic_id)

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        """Store a definition of any other kind."""
        self._objects.put(kind, name, value)

    def delete_object(self, kind: str, name: str) -> None:
        """Delete a definition of any other kind."""
        self._objects.delete(kind, name)

    def stage_object(self, kind: str, name: str, data: bytes | None) -> None:
        """Store a definition that is encoded already, or delete it."""
        self._objects.stage(kind, name, data)

    def allocate_table_id(self) -> int:
        """An id for a new table."""
        return self._counters.allocate_table_id()

    def expire(self, table: TableDef, partition: str, seqs: Sequence[int]) -> None:
        """Stage the end of live rows of a STREAM table, expired ones too (which `delete` does not find)."""
        staged = self._staged(table, partition)
        first = self._take_seqs(len(seqs))
        for offset, old in enumerate(seqs):
            self._supersede(staged, old, first + offset)

    def reclaimed(self, table_id: int) -> None:
        """A dropped table has no rows left."""
        self._objects.delete(DROPPED, table_name(table_id))

    def reclaimed_topic(self, topic_id: int) -> None:
        """A dropped topic has nothing left."""
        self._objects.delete(DROPPED_TOPIC, table_name(topic_id))

    def next_turn(self) -> int:
        """A number that goes round: which partition messages without a key go to."""
        return self._counters.next_turn()

    def stages_rows(self) -> bool:
        """Whether the group adds rows (then the reserve of a full map is not for it)."""
        return any(staged.segments for staged in self._partitions.values())
