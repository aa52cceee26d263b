"""Keeping vector indexes: a thread that builds them, follows the change feed, saves, unloads and removes them.

It is there only while some table has a vector index. It learns of new rows from the feed, at most some twenty times a
second, and takes them in when there are enough of them, or when a second went by without more. It reads through
snapshots of its own, in slices, and asks nothing of the writer. If it dies with the process, nothing is lost but work:
files are derived from rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from sql.vectors.exact import Block, blocks
from sql.vectors.index_files import IndexPlace
from sql.vectors.indexes import VectorIndexes, place_of
from sql.vectors.partition_index import Mark, PartitionIndex
from storage.catalog import Catalog, TableDef
from storage.changes import ChangeSet
from storage.engine import StorageEngine
from storage.errors import LogTruncated, StorageClosed
from storage.vector_definitions import VectorIndexDef

log = logging.getLogger("headrace.vectors")

Progress = Callable[[float, str], None]
Check = Callable[[], None]

_THREAD = "headrace-vectors"
_PAUSE = 0.05
_QUIET = 1.0
_SLICE_ROWS = 4_096
_SLICE_BYTES = 8 << 20
_UNSAVED_ROWS = 1_000
_STALE_ROWS = 1_000
_JOIN = 30.0


class Stopped(Exception):
    """The server shuts down, or whoever asked for a build gave it up."""


class VectorUpkeep:
    """The thread and its work. `start` and `close` once; `watch` when a definition changed."""

    def __init__(self, engine: StorageEngine, indexes: VectorIndexes) -> None:
        self._engine = engine
        self._indexes = indexes
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked: set[IndexPlace] = set()
        self._behind: dict[IndexPlace, int] = {}
        self._definitions_changed = True
        indexes.wanted = self._want

    def watch(self) -> None:
        """Begin to follow, if some table has a vector index and it was not begun before."""
        with self._lock:
            if self._thread is None and not self._stop.is_set() and any(_defined(self._engine.catalog)):
                self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Let the thread end soon."""
        self._stop.set()
        self._wake.set()

    def close(self) -> None:
        """Stop, and save what is not saved."""
        self.stop()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_JOIN)
        for place, index in self._indexes.residents().items():
            if index.unsaved and self._indexes.alone(place).acquire(timeout=1.0):
                self._save(place, index)

    def build(
        self,
        table_id: int,
        index_id: int,
        progress: Progress = lambda percent, message: None,
        check: Check = lambda: None,
    ) -> str:
        """Build an index in every partition that is to have one, on the calling thread; says what there is then.

        Goes on where it was when it is called again. Whatever `check` raises ends it.
        """
        sizes = self._places(table_id, index_id)
        total, done = sum(sizes.values()), 0

        def report(rows: int) -> None:
            progress(min(100.0 * (done + rows) / max(total, 1), 100.0), f"{done + rows} of {total} rows")

        for place, rows in sizes.items():
            self._bring_up(place, report, check)
            done += rows
        return f"{total} rows in {len(sizes)} partition(s)"

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        cursor = self._engine.feed.subscribe(self._engine.feed.last_seq)
        cursor.on_commit(self._wake.set)
        try:
            while True:
                with self._lock:
                    waiting = bool(self._asked)
                quiet = not waiting and not self._wake.wait(_QUIET if self._behind else None)
                if self._stop.wait(0 if quiet or waiting else _PAUSE):
                    return
                self._wake.clear()
                try:
                    while changes := cursor.poll():
                        for change in changes:
                            self._note(change)
                except LogTruncated:
                    cursor.position = self._engine.feed.last_seq
                    self._behind = dict.fromkeys(self._indexes.residents(), self._indexes.settings.follow_rows)
                self._turn(quiet=quiet)
        except (Stopped, StorageClosed):
            return
        except Exception:
            log.exception("vector indexes are kept no more; searches are exact where they are behind")
        finally:
            cursor.close()

    def _note(self, change: ChangeSet) -> None:
        self._definitions_changed = self._definitions_changed or any(kind == "table" for kind, _ in change.objects)
        for rows in change.tables:
            for index in rows.table.vector_indexes:
                if index.column_id in rows.table.by_id:
                    place = place_of(rows.table, index, rows.partition)
                    self._behind[place] = self._behind.get(place, 0) + rows.added_count

    def _turn(self, *, quiet: bool) -> None:
        """Do what is due."""
        if self._definitions_changed:
            self._definitions_changed = False
            self._sort_out()
        with self._lock:
            due, self._asked = self._asked, set()
        enough = 1 if quiet else self._indexes.settings.follow_rows
        due |= {place for place, rows in self._behind.items() if rows >= enough}
        for place in due:
            self._behind.pop(place, None)
            try:
                self._bring_up(place, lambda rows: None, lambda: None)
            except (StorageClosed, Stopped):
                raise
            except Exception:  # whatever it is, the other indexes are looked after
                log.exception("vector index %s of table %s is left as it is", place.index_id, place.table_id)
        self._unload()

    def _want(self, place: IndexPlace) -> None:
        with self._lock:
            self._asked.add(place)
        self._wake.set()
        self.watch()

    def _sort_out(self) -> None:
        """Forget indexes that were dropped, and build those that are new."""
        catalog = self._engine.catalog
        known = {(table.table_id, index.index_id) for table, index in _defined(catalog)}
        for place in self._indexes.residents():
            if (place.table_id, place.index_id) not in known:
                self._indexes.forget(place)
        if self._indexes.files is not None:
            self._indexes.files.keep_only(known)

    def _unload(self) -> None:
        """Bring the indexes in memory below what they may take, the least recently used first."""
        held = self._indexes.residents()
        total = sum(index.memory_bytes for index in held.values())
        for place, index in list(held.items())[:-1]:
            if total <= self._indexes.settings.memory_bytes:
                return
            with self._indexes.alone(place):
                if index.unsaved:
                    self._save(place, index)
                self._indexes.unload(place)
            total -= index.memory_bytes

    def _places(self, table_id: int, index_id: int) -> dict[IndexPlace, int]:
        """Where a definition's index is to be built, and how many rows each place has."""
        with self._engine.snapshot(purpose="vector index") as snapshot:
            table = snapshot.catalog.table_by_id(table_id)
            index = None if table is None else next((i for i in table.vector_indexes if i.index_id == index_id), None)
            if table is None or index is None or index.column_id not in table.by_id:
                return {}
            places = [place_of(table, index, partition) for partition in snapshot.partitions(table)]
            sizes = {place: snapshot.count(table, place.partition) for place in places}
        return {place: rows for place, rows in sizes.items() if self._indexes.worthwhile(place, rows)}

    # --- one index -----------------------------------------------------------------------------------------------

    def _bring_up(self, place: IndexPlace, report: Callable[[int], None], check: Check) -> None:
        """Let the index of a place know all rows of now; build it when there is none, or when it is mostly stale."""
        rows, last_seq = self._rows(place)
        if self._indexes.resident(place) is None and not self._indexes.worthwhile(place, rows):
            return
        with self._indexes.alone(place):
            index = self._indexes.resident(place)
            if index is None:
                stored = None if self._indexes.files is None else self._indexes.files.load(place, last_seq)
                index = stored or PartitionIndex(place.metric, place.dimension)
                if stored is not None:
                    self._indexes.publish(place, stored)
            elif len(index) > 2 * rows + _STALE_ROWS:
                index = PartitionIndex(place.metric, place.dimension)
            try:
                for _ in self._extend(place, index):
                    report(len(index))
                    check()
            except Stopped:
                if len(index) and self._indexes.resident(place) is None:
                    self._save(place, index)  # what there is of it is as good as a whole one that is behind
                raise
            self._indexes.publish(place, index)
            if index.unsaved > max(_UNSAVED_ROWS, len(index) // 10) or index.unsaved == len(index):
                self._save(place, index)

    def _rows(self, place: IndexPlace) -> tuple[int, int]:
        """How many rows the partition has, and the commit that says so; no rows when the index was dropped."""
        with self._engine.snapshot(purpose="vector index") as snapshot:
            found = _definition(snapshot.catalog, place)
            return (0 if found is None else snapshot.count(found[0], place.partition)), snapshot.seq

    def _extend(self, place: IndexPlace, index: PartitionIndex) -> Iterator[None]:
        """Take in slice after slice until nothing is missing."""
        limit = max(64, min(_SLICE_ROWS, _SLICE_BYTES // (4 * place.dimension)))
        while True:
            if self._stop.is_set():
                raise Stopped
            with self._engine.snapshot(purpose="vector index") as snapshot:
                found = _definition(snapshot.catalog, place)
                if found is None:
                    return
                table, definition = found
                column = table.by_id[definition.column_id].name
                rows = snapshot.scan_newer(table, place.partition, index.mark.applied, [column], limit + 1)
                whole = rows.num_rows <= limit
                rows = rows.slice(0, limit)
                applied = snapshot.seq if whole else int(rows.column(0)[-1].as_py())
                taken = [
                    Block(block.seqs.copy(), block.vectors.copy()) for block in blocks(rows, place.dimension)
                ]  # copies, so that no page of the snapshot is held while they are added
                commit = snapshot.seq
            del rows
            index.add(taken, Mark(commit, applied))
            yield
            if whole:
                return

    def _save(self, place: IndexPlace, index: PartitionIndex) -> None:
        files = self._indexes.files
        if files is None:
            return
        try:
            files.save(place, index)
        except (OSError, RuntimeError) as error:
            log.warning("vector index %s of table %s was not saved: %s", place.index_id, place.table_id, error)


def _defined(catalog: Catalog) -> Iterator[tuple[TableDef, VectorIndexDef]]:
    return ((table, index) for table in catalog.tables() for index in table.vector_indexes)


def _definition(catalog: Catalog, place: IndexPlace) -> tuple[TableDef, VectorIndexDef] | None:
    """The table and the definition of an index that still exists."""
    table = catalog.table_by_id(place.table_id)
    if table is None:
        return None
    index = next((i for i in table.vector_indexes if i.index_id == place.index_id), None)
    if index is None or index.column_id not in table.by_id or place_of(table, index, place.partition) != place:
        return None
    return table, index
