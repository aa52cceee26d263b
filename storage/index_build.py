"""Building a secondary index online: from snapshots, in slices, while others write.

The definition is committed in the state `building` first: whatever is written from then on has its entries. What was
there before is read from snapshots, at most SLICE_ROWS rows at a time, and turned into keys on the thread of whoever
builds. A work that runs alone in the writer then puts the keys of those rows that are still current; that is all that
other writes wait for. It stores with them how far the build is, so that after a crash it goes on from there.

Rows that a unique index finds in conflict end the build: `DuplicateKey` says which values. The caller then drops
the index (`drop_index`). Entries of dropped indexes are removed in slices as well (`remove_entries`): a definition
that is gone leaves an object of kind DROPPED_INDEX, and the merger's maintenance sees to those of an earlier process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from storage.batches import Seqs, seqs_of, without
from storage.catalog import IndexState, TableDef
from storage.engine import StorageEngine
from storage.errors import DuplicateKey, SchemaChanged, StorageCorrupt
from storage.index_removal import DROPPED_INDEX, DroppedIndex, index_object
from storage.keys import index_key_prefix, row_key_prefix
from storage.layout import SecondaryIndex, layout_of
from storage.reading import Reader
from storage.secondary import EntryKeys, entry_keys_under
from storage.writer import WriteTransaction

INDEX_BUILD = "_index_build"
"""The object kind that says how far a build is."""
SLICE_ROWS = 8_192
"""Rows that one work of the writer takes."""
SNAPSHOT_SLICES = 16
"""Slices that are read from one snapshot, so that none pins old pages for long."""


class BuildState(msgspec.Struct, frozen=True):
    """Up to where an index is built: rows of the partition `partition` up to the `_seq` `after`."""

    table_id: int
    index_id: int
    partition: bytes = b""
    after: int = 0
    rows: int = 0


class _Piece(NamedTuple):
    """Rows of one batch: their keys and their `_seq`s, in memory of their own."""

    partition: bytes
    seqs: Seqs
    entries: EntryKeys


class _Slice(NamedTuple):
    pieces: list[_Piece]
    state: BuildState


def build_index(
    engine: StorageEngine,
    table_id: int,
    index_id: int,
    progress: Callable[[float], None] = lambda percent: None,
    check: Callable[[], None] = lambda: None,
) -> int | None:
    """Build an index to its end and make it ready; how many rows it took, None when it is gone.

    `progress` is told the percentage; `check` is called between slices and may raise, which leaves the build where it
    is. Raises DuplicateKey when rows stand against a unique index.
    """
    state = BuildState(table_id, index_id)
    with engine.snapshot(purpose="index build") as snapshot:
        state = snapshot.get_object(INDEX_BUILD, index_object(table_id, index_id), BuildState) or state
    while True:
        check()
        slices, more, percent = _read(engine, state)
        for part in slices:
            check()
            if not engine.submit_exclusive(lambda wtxn, part=part: _put(wtxn, part)).result():  # type: ignore[misc]
                return None
            state = part.state
        progress(percent)
        if not more:
            finished = engine.commit_sync(lambda wtxn: _finish(wtxn, table_id, index_id))
            return state.rows if finished else None


def drop_index(wtxn: WriteTransaction, table: TableDef, index_id: int) -> TableDef:
    """Take an index out of the table's definition; its entries are removed later. Returns the new definition."""
    left = tuple(index for index in table.indexes if index.index_id != index_id)
    changed = msgspec.structs.replace(table, indexes=left)
    wtxn.put_table(changed)
    name = index_object(table.table_id, index_id)
    wtxn.delete_object(INDEX_BUILD, name)
    wtxn.put_object(DROPPED_INDEX, name, DroppedIndex(table.table_id, index_id))
    return changed


def _present(table: TableDef | None, index_id: int) -> tuple[TableDef, SecondaryIndex] | None:
    """The table with the index that is being built, if both are still there."""
    if table is None:
        return None
    index = next((index for index in layout_of(table).secondary if index.index_id == index_id), None)
    return None if index is None or index.ready else (table, index)


def _read(engine: StorageEngine, state: BuildState) -> tuple[list[_Slice], bool, float]:
    """The next slices from a new snapshot; whether there may be more after them; the percentage after them."""
    slices: list[_Slice] = []
    with engine.snapshot(lease=600.0, purpose="index build") as snapshot, snapshot.reading() as reader:
        found = _present(snapshot.catalog.table_by_id(state.table_id), state.index_id)
        if found is None:
            return [_Slice([], state)], False, 100.0
        table, index = found
        partitions = [p for p in reader.partitions(table.table_id) if p >= state.partition]
        pieces: list[_Piece] = []
        rows = 0
        done = state.rows
        for number, partition in enumerate(partitions):
            after = state.after if partition == state.partition else 0
            for piece in _pieces(reader, table, index, partition, after):
                pieces.append(piece)
                rows += len(piece.seqs)
                if rows < SLICE_ROWS:
                    continue
                done += rows
                reached = BuildState(state.table_id, state.index_id, partition, int(piece.seqs[-1]), done)
                slices.append(_Slice(pieces, reached))
                pieces, rows = [], 0
                if len(slices) >= SNAPSHOT_SLICES:
                    inside = piece.seqs[-1] / max(snapshot.seq, 1)
                    return slices, True, 100.0 * (number + inside) / len(partitions)
        if pieces:
            last = pieces[-1]
            reached = BuildState(state.table_id, state.index_id, last.partition, int(last.seqs[-1]), done + rows)
            slices.append(_Slice(pieces, reached))
    return slices, False, 100.0


def _pieces(reader: Reader, table: TableDef, index: SecondaryIndex, partition: bytes, after: int) -> Iterator[_Piece]:
    """The live rows of a partition with a `_seq` after `after`, at most SLICE_ROWS at a time."""
    layout = layout_of(table)
    prefix = row_key_prefix(table.table_id, partition)
    key_prefix = index_key_prefix(table.table_id, partition, index.index_id)
    for batch in reader.stored(prefix, start=reader.start_after(prefix, after)):
        plan = layout.projection(batch.header.schema_version, index.names, with_seq=True)
        decoded = plan.batch(reader.decode(layout, batch, reader))
        early = np.arange(int(seqs_of(batch.value, batch.header).searchsorted(after, "right")))
        gone = np.union1d(early, reader.dead_of(batch.key)["row"]).astype(np.int64)
        for rows in without(decoded, gone) if len(gone) else [decoded]:
            for start in range(0, rows.num_rows, SLICE_ROWS):
                part = rows.slice(start, SLICE_ROWS)
                entries = entry_keys_under(index, dict(zip(index.names, part.columns[1:], strict=True)), key_prefix)
                yield _Piece(partition, np.array(part.column(0).to_numpy()), entries)


def _put(wtxn: WriteTransaction, part: _Slice) -> bool:
    """Put the entries of the rows that are still current; False when the index is gone. Raises DuplicateKey."""
    state = part.state
    found = _present(wtxn.catalog.table_by_id(state.table_id), state.index_id)
    if found is None:
        return False
    table = found[0]
    items: dict[bytes, bytes] = {}
    for piece in part.pieces:
        seqs = piece.seqs.tolist()
        live = wtxn.reader.are_live(row_key_prefix(state.table_id, piece.partition), seqs)
        for key, place in zip(piece.entries.suffixed_keys(seqs), piece.entries.suffixed, strict=True):
            if live[place]:
                items[key] = seqs[place].to_bytes(8, "big")
        bare = piece.entries.bare_keys
        for key, place, held in zip(bare, piece.entries.bare, wtxn.reader.find_full(bare), strict=True):
            if not live[place]:
                continue
            mine = seqs[place].to_bytes(8, "big")
            if (held is not None and held != seqs[place]) or items.get(key, mine) != mine:
                raise _duplicate(wtxn, piece, table, seqs[place])
            items[key] = mine
    wtxn.flusher.touched = True
    wtxn.txn.cursor(db=wtxn.dbs.keys).putmulti(sorted(items.items()))
    wtxn.put_object(INDEX_BUILD, index_object(state.table_id, state.index_id), state)
    return True


def _duplicate(wtxn: WriteTransaction, piece: _Piece, table: TableDef, seq: int) -> DuplicateKey:
    index = piece.entries.of
    prefix = row_key_prefix(table.table_id, piece.partition)
    values = wtxn.reader.row(layout_of(table), prefix, seq, index.names, StorageCorrupt)
    return DuplicateKey(index.names, values, row=0, in_batch=False, primary=False, index=index.name)


def _finish(wtxn: WriteTransaction, table_id: int, index_id: int) -> bool:
    found = _present(wtxn.catalog.table_by_id(table_id), index_id)
    if found is None:
        return False
    table = found[0]
    ready = tuple(
        msgspec.structs.replace(index, state=IndexState.READY) if index.index_id == index_id else index
        for index in table.indexes
    )
    wtxn.put_table(msgspec.structs.replace(table, indexes=ready))
    wtxn.delete_object(INDEX_BUILD, index_object(table_id, index_id))
    return True


def abandon_index(engine: StorageEngine, table_id: int, index_id: int) -> None:
    """Take back an index that cannot be built, as if it had never been asked for."""

    def work(wtxn: WriteTransaction) -> None:
        table = wtxn.catalog.table_by_id(table_id)
        if table is None:
            raise SchemaChanged("the table was dropped")
        if _present(table, index_id) is not None:
            drop_index(wtxn, table, index_id)

    engine.commit_sync(work)
