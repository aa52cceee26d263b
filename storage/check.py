"""The check command: walks every structure of a data folder and reports every inconsistency.

What is checked
---------------

- meta: the format; `next_seq` is beyond every `_seq`, `next_table_id` beyond every table.
- catalog: every definition decodes, stands under its own name, tables lie in namespaces that exist, no name twice.
- rows, history: checksums; `_seq` ascends, agrees with key and header; batches do not overlap; Arrow's own validation;
  the table exists; the name of a long partition is stored.
- dead: checksums, no gaps in the chunks, rows lie inside the batch, none twice, superseded by something newer.
- keys: every live row is found under its key in each index, and no index has a key too many.
- times: ascends in both columns; every commit that added rows to a STREAM table stands there under its time (unless it
  was pruned), no other one does, and every live row of a STREAM table has a time.
- topics, offsets: see `storage.check_topics`.
- files: the records of files count just the FILE cells of live rows (`storage.check_files`).
- segments: every Parquet file is there with its size and checksum, has the rows that the stubs say, and the stubs'
  `_seq`s and statistics are those of the file; no stub without a segment, no segment without stubs. Files in storages
  that only a running server can open are named in the log and left out.
- commits: checksums, order, no overlap; added rows exist in rows or history, superseded ones are dead by what the
  commit says; every stored row of the retained log was added by a commit.

The folder is opened read-only, so a server may go on serving it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec
import numpy as np

from storage.batches import Seqs
from storage.catalog import Catalog, NamespaceDef, TableDef
from storage.changes import PartitionRecord, decode_commit
from storage.check_files import check_files
from storage.check_rows import PartitionCheck, Walked, entries_under
from storage.check_segments import check_segments
from storage.check_times import TimesCheck
from storage.check_topics import TopicsCheck
from storage.cold_cache import RowGroupCache
from storage.cold_files import LocalStorages
from storage.cold_reading import ColdReads
from storage.environment import (
    FORMAT,
    FORMAT_KEY,
    LOG_TRUNCATED,
    NEXT_SEQ,
    NEXT_TABLE_ID,
    open_databases,
    open_map,
    read_number,
)
from storage.errors import StorageCorrupt, StorageError
from storage.index_removal import DROPPED_INDEX, DroppedIndex
from storage.keys import (
    object_key,
    parse_index_key,
    parse_row_key,
    parse_seq_key,
    partition_key,
    row_key_prefix,
    table_prefix,
)
from storage.layout import layout_of
from storage.memory import BatchMemory
from storage.objects import (
    DROPPED,
    DROPPED_TOPIC,
    NAMESPACE,
    TABLE,
    TOPIC,
    VIEW,
    DroppedTable,
    DroppedTopic,
    table_name,
)
from storage.reading import Reader
from storage.topic_definitions import TopicDef
from storage.view_definitions import ViewDef

LIMIT = 1_000
_Key = tuple[int, bytes]


class Problem(msgspec.Struct, frozen=True):
    """One inconsistency: the structure, where in it, and a sentence."""

    structure: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.structure}: {self.place}: {self.message}"


def check(path: Path | str) -> list[Problem]:
    """Check a data folder, also while another process serves it. At most LIMIT problems are reported.

    Raises StorageError when the folder cannot be opened at all.
    """
    folder = Path(path)
    file = folder / "data.mdb"
    if not file.is_file():
        raise StorageError(f"{folder} is not a data folder: it has no data.mdb")
    size = max(file.stat().st_size * 2, 1 << 30)
    try:
        env = open_map(folder, size, floor=file.stat().st_size, readonly=True)
    except lmdb.Error as error:
        raise StorageError(f"the data folder {folder} cannot be opened for reading: {error}") from None
    try:
        with env.begin(buffers=True) as txn:
            dbs = open_databases(env, txn)
            cold = ColdReads(RowGroupCache(folder / "cache", 0), lambda: LocalStorages(folder / "cold"))
            return check_reader(Reader(txn, dbs, BatchMemory(), cold))
    except lmdb.Error as error:
        return [Problem("environment", str(folder), f"LMDB cannot read it: {error}")]
    finally:
        env.close()


def check_reader(reader: Reader) -> list[Problem]:
    """Check everything that one transaction sees."""
    return _Check(reader).run()


class _Check:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.problems: list[Problem] = []
        self.next_seq = read_number(reader.txn, reader.dbs, NEXT_SEQ, 1)
        self.truncated = read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)
        self.dropped: set[int] = set()
        self.dropped_indexes: set[tuple[int, int]] = set()
        self.catalog = Catalog(0, (), ())
        self.walked: dict[_Key, Walked] = {}
        self.added: dict[_Key, list[tuple[int, int]]] = {}
        self.times = TimesCheck(reader, self.next_seq, self.truncated)

    def run(self) -> list[Problem]:
        self._meta()
        self._catalog()
        self._partitions()
        self._strays()
        self._commits()
        self._covered()
        self._times()
        TopicsCheck(self.reader, self.catalog, self.dropped, self.walked, self.report).run()
        for problem in check_segments(self.reader, self.catalog):
            self.report(*problem)
        for problem in check_files(self.reader, self.catalog):
            self.report(*problem)
        return self.problems[:LIMIT]

    def report(self, structure: str, place: str, message: str) -> None:
        self.problems.append(Problem(structure, place, message))

    def _meta(self) -> None:
        found = read_number(self.reader.txn, self.reader.dbs, FORMAT_KEY, 0)
        if found != FORMAT:
            self.report("meta", "format", f"is {found}, this version knows {FORMAT}")
        if self.truncated >= self.next_seq:
            self.report("meta", "log_truncated", f"{self.truncated} is not below next_seq {self.next_seq}")

    def _catalog(self) -> None:
        namespaces: list[NamespaceDef] = []
        tables: list[TableDef] = []
        topics: list[TopicDef] = []
        views: list[ViewDef] = []
        for key, value in entries_under(self.reader.txn, self.reader.dbs.catalog, b""):
            kind, _, name = key.partition(b"\0")
            place = f"{kind.decode(errors='replace')} {name.decode(errors='replace')}"
            try:
                decoded: object
                if kind == NAMESPACE.encode():
                    decoded = msgspec.msgpack.decode(value, type=NamespaceDef)
                    namespaces.append(decoded)
                    expected = object_key(NAMESPACE, decoded.name)
                elif kind == TABLE.encode():
                    decoded = msgspec.msgpack.decode(value, type=TableDef)
                    layout_of(decoded)
                    tables.append(decoded)
                    expected = object_key(TABLE, table_name(decoded.table_id))
                elif kind == TOPIC.encode():
                    decoded = msgspec.msgpack.decode(value, type=TopicDef)
                    topics.append(decoded)
                    expected = object_key(TOPIC, table_name(decoded.topic_id))
                elif kind == VIEW.encode():
                    decoded = msgspec.msgpack.decode(value, type=ViewDef)
                    views.append(decoded)
                    expected = object_key(VIEW, decoded.full_name)
                elif kind == DROPPED.encode():
                    self.dropped.add(msgspec.msgpack.decode(value, type=DroppedTable).table_id)
                    continue
                elif kind == DROPPED_TOPIC.encode():
                    self.dropped.add(msgspec.msgpack.decode(value, type=DroppedTopic).topic_id)
                    continue
                elif kind == DROPPED_INDEX.encode():
                    gone = msgspec.msgpack.decode(value, type=DroppedIndex)
                    self.dropped_indexes.add((gone.table_id, gone.index_id))
                    continue
                else:
                    msgspec.msgpack.decode(value)
                    continue
            except (msgspec.DecodeError, KeyError, ValueError) as error:
                self.report("catalog", place, f"does not decode: {error}")
                continue
            if expected != key:
                self.report("catalog", place, "stands under a name that is not its own")
        self.catalog = Catalog(0, namespaces, tables, topics, views)
        self._topics(topics)
        self._views(views)
        names: set[str] = set()
        next_table_id = read_number(self.reader.txn, self.reader.dbs, NEXT_TABLE_ID, 1)
        for table in tables:
            if self.catalog.namespace(table.namespace) is None:
                self.report("catalog", table.full_name, "lies in a namespace that does not exist")
            if table.full_name in names:
                self.report("catalog", table.full_name, "exists twice")
            if table.table_id >= next_table_id:
                self.report("catalog", table.full_name, f"has id {table.table_id}, next_table_id is {next_table_id}")
            names.add(table.full_name)
            if self.catalog.view(table.namespace, table.name) is not None:
                self.report("catalog", table.full_name, "is a table and a view")
            if table.expires != (table.ttl_seconds > 0):
                self.report("catalog", table.full_name, f"is of kind {table.kind} with a TTL of {table.ttl_seconds} s")
            if table.expires and layout_of(table).indexes:
                self.report("catalog", table.full_name, "is a STREAM table with a key index")

    def _views(self, views: list[ViewDef]) -> None:
        for view in views:
            if self.catalog.namespace(view.namespace) is None:
                self.report("catalog", f"view {view.full_name}", "lies in a namespace that does not exist")

    def _topics(self, topics: list[TopicDef]) -> None:
        names: set[str] = set()
        for topic in topics:
            if self.catalog.namespace(topic.namespace) is None:
                self.report("catalog", f"topic {topic.full_name}", "lies in a namespace that does not exist")
            if topic.full_name in names:
                self.report("catalog", f"topic {topic.full_name}", "exists twice")
            names.add(topic.full_name)
            for source in topic.sources:
                if self.catalog.table_by_id(source.table_id) is None or source.table_id not in topic.referred:
                    self.report("catalog", f"topic {topic.full_name}", f"has a source in table id {source.table_id}")

    def _partitions(self) -> None:
        for table in self.catalog.tables():
            for partition in self._partitions_of(table.table_id):
                try:
                    self.reader.user_of(partition)
                except (StorageCorrupt, ValueError) as error:
                    self.report("meta", table.full_name, f"{error}")
                walker = PartitionCheck(self.reader, table, row_key_prefix(table.table_id, partition), self.next_seq)
                self.walked[(table.table_id, partition)] = walker.run()
                for problem in walker.problems:
                    self.report(*problem)

    def _partitions_of(self, table_id: int) -> list[bytes]:
        """Partitions of a table in any structure."""
        found: dict[bytes, None] = {}
        reader = self.reader
        for db in (reader.dbs.rows, reader.dbs.history):
            for key, _ in entries_under(reader.txn, db, table_prefix(table_id)):
                try:
                    found[parse_row_key(key)[1]] = None
                except ValueError as error:
                    self.report("rows", key.hex(), str(error))
        for key, _ in entries_under(reader.txn, reader.dbs.keys, table_prefix(table_id)):
            try:
                found[parse_index_key(key)[1]] = None
            except ValueError as error:
                self.report("keys", key.hex(), str(error))
        return list(found)

    def _strays(self) -> None:
        """Entries of tables that do not exist, dead rows of partitions without rows, keys of unknown indexes."""
        for structure in ("rows", "history", "dead", "keys"):
            db = getattr(self.reader.dbs, structure)
            for table_id in self._table_ids(db):
                if self.catalog.table_by_id(table_id) is None and table_id not in self.dropped:
                    self.report(structure, f"table id {table_id}", "belongs to no table")
        for key, _ in entries_under(self.reader.txn, self.reader.dbs.dead, b""):
            try:
                table_id, partition, _ = parse_row_key(key[:-2])
            except ValueError as error:
                self.report("dead", key.hex(), str(error))
                continue
            if (table_id, partition) not in self.walked and self.catalog.table_by_id(table_id) is not None:
                self.report("dead", f"table id {table_id}", "dead rows of a batch that does not exist")
        for table in self.catalog.tables():
            known = {index.index_id for index in layout_of(table).indexes} | {index.index_id for index in table.indexes}
            known |= {index_id for table_id, index_id in self.dropped_indexes if table_id == table.table_id}
            for key, _ in entries_under(self.reader.txn, self.reader.dbs.keys, table_prefix(table.table_id)):
                try:
                    index_id = parse_index_key(key)[2]
                except ValueError:
                    continue  # reported by _partitions_of
                if index_id not in known:
                    self.report("keys", table.full_name, f"a key belongs to index {index_id}, which does not exist")

    def _table_ids(self, db: object) -> Iterator[int]:
        at = b""
        cursor = self.reader.txn.cursor(db=db)  # type: ignore[arg-type]
        while cursor.set_range(at) if at else cursor.first():
            table_id = int.from_bytes(bytes(cursor.key())[:4], "big")
            yield table_id
            if table_id == 0xFFFFFFFF:
                return
            at = table_prefix(table_id + 1)

    def _commits(self) -> None:
        before = self.truncated
        for key, value in entries_under(self.reader.txn, self.reader.dbs.commits, b""):
            try:
                first = parse_seq_key(key)
                record = decode_commit(first, value)
            except (StorageCorrupt, ValueError) as error:
                self.report("commits", key.hex(), str(error))
                continue
            place = f"commit {first} to {record.last_seq}"
            if first <= before:
                self.report("commits", place, f"overlaps what ends at _seq {before}")
            if record.last_seq < first or record.last_seq >= self.next_seq:
                self.report("commits", place, f"does not lie below next_seq {self.next_seq}")
            before = max(before, record.last_seq)
            self.times.commit(first, record, streams=any(map(self._adds_to_stream, record.partitions)))
            for partition in record.partitions:
                if self.catalog.table_by_id(partition.table_id) is None:
                    continue
                walked = self.walked.get((partition.table_id, partition_key(partition.user)))
                old, by = partition.superseded()
                self._added(
                    place, first, record.last_seq, partition.ranges(), partition.table_id, partition.user, walked
                )
                self._superseded(place, old, by, walked)

    def _adds_to_stream(self, partition: PartitionRecord) -> bool:
        table = self.catalog.table_by_id(partition.table_id)
        return table is not None and table.expires and bool(partition.added)

    def _times(self) -> None:
        for (table_id, _), walked in self.walked.items():
            table = self.catalog.table_by_id(table_id)
            live = np.setdiff1d(walked.seqs, walked.dead) if table is not None and table.expires else walked.seqs[:0]
            if table is not None and len(live):
                self.times.newest_row(table.full_name, int(live[-1]))
        self.times.finish()
        for problem in self.times.problems:
            self.report(*problem)

    def _added(
        self,
        place: str,
        first: int,
        last: int,
        ranges: list[tuple[int, int]],
        table_id: int,
        user: str,
        walked: Walked | None,
    ) -> None:
        for low, high in ranges:
            if low < first or high > last:
                self.report("commits", place, f"names rows _seq {low} to {high}, which are not its own")
            present = 0 if walked is None else _between(walked.seqs, low, high) + _between(walked.history, low, high)
            if present != high - low + 1:
                self.report("commits", place, f"added rows _seq {low} to {high}, of which {present} are stored")
        self.added.setdefault((table_id, partition_key(user)), []).extend(ranges)

    def _superseded(self, place: str, old: Seqs, by: Seqs, walked: Walked | None) -> None:
        for seq, newer in zip(old.tolist(), by.tolist(), strict=True):
            found = (
                None
                if walked is None
                else (_by_of(walked.dead, walked.dead_by, seq) or _by_of(walked.history, walked.history_by, seq))
            )
            if found is None:
                self.report("commits", place, f"superseded the row with _seq {seq}, which is not stored as dead")
            elif found != newer:
                self.report("commits", place, f"superseded _seq {seq} by {newer}, but it is stored as dead by {found}")

    def _covered(self) -> None:
        """Every stored row of the retained log was added by some commit."""
        for (table_id, partition), walked in self.walked.items():
            table = self.catalog.table_by_id(table_id)
            recent = walked.seqs[walked.seqs > self.truncated]
            ranges = np.array(sorted(self.added.get((table_id, partition), [])), dtype=np.int64).reshape(-1, 2)
            places = ranges[:, 0].searchsorted(recent, "right") - 1
            covered = (places >= 0) & (recent <= ranges[np.maximum(places, 0), 1] if len(ranges) else False)
            if not covered.all():
                name = table.full_name if table is not None else str(table_id)
                self.report("commits", name, f"no commit added the row with _seq {recent[~covered][0]}")


def _between(seqs: Seqs, low: int, high: int) -> int:
    return int(seqs.searchsorted(high, "right") - seqs.searchsorted(low))


def _by_of(seqs: Seqs, by: Seqs, seq: int) -> int | None:
    place = int(seqs.searchsorted(seq))
    return int(by[place]) if place < len(seqs) and seqs[place] == seq else None
