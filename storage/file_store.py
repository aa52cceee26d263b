"""FileStore: the bytes of files and their records together, and the thread that removes what no row refers to.

The life of a file: its record is committed (*waiting*), its bytes are put into the blob store, the row commits and
the record becomes *live* in the same commit. Whatever breaks off in between leaves a waiting record, and with it the
knowledge of bytes that may lie there. `release` ends an upload: what still waits then is given up. After a crash
nobody's upload is under way, so everything that waits is given up when the store opens.

Removing goes in three steps, each of which may be repeated: the record is made *dead* by a commit (from then on no row
can refer to it, not even one whose statement is late), the bytes are deleted, the record is deleted by a commit. So
there is never a live row without its bytes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from storage.blobs import BlobError, BlobReader, BlobStore
from storage.catalog import TableDef
from storage.engine import StorageEngine
from storage.errors import StorageError
from storage.file_records import (
    FileKey,
    FileRecord,
    NewFile,
    changed_tables,
    every_record,
    left_files,
    path_of,
    read_record,
    records_of,
)
from storage.file_references import file_columns
from storage.reading import Reader
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.files")

T = TypeVar("T")

_SLICE = 256
"""Files that one commit looks at while it removes what is left."""
_RETRY_SECONDS = 30.0


class FilesStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the store reports about itself since it was opened."""

    stored: int
    stored_bytes: int
    removed: int
    failed_removals: int


class FileStore:
    """Stored files of one engine. Thread-safe; `start` the collector, `close` at the end."""

    def __init__(self, engine: StorageEngine, blobs: BlobStore, *, per_folder: int = 5_000) -> None:
        self._engine = engine
        self.blobs = blobs
        self._per_folder = per_folder
        self._lock = threading.Lock()
        self._under_way: set[FileKey] = set()
        self._stored = self._stored_bytes = self._removed = self._failed = 0
        self._removing = threading.Lock()
        self._holders = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-files", daemon=True)

    def start(self) -> None:
        """Begin to collect, first of all what a crash may have left."""
        self._engine.files_left.set()
        self._thread.start()

    def close(self) -> None:
        """Stop collecting; what is left is collected at the next start."""
        self._stopping.set()
        self._engine.files_left.set()
        if self._thread.is_alive():
            self._thread.join()

    def stats(self) -> FilesStats:
        """Figures about the store."""
        return FilesStats(
            stored=self._stored, stored_bytes=self._stored_bytes, removed=self._removed, failed_removals=self._failed
        )

    # --- storing -------------------------------------------------------------------------------------------------

    def store(
        self, table: TableDef, user: str, files: Sequence[tuple[NewFile, int]]
    ) -> tuple[list[FileKey], list[str]]:
        """Store files (each with its staged, synced descriptor); their keys and the texts that a FILE cell may get.

        The files wait until a row refers to them: call `release` with the keys when the statement is over, whatever
        became of it. Raises StorageError and BlobError; then nothing is left.
        """
        keys = [(table.table_id, new.file_id) for new, _ in files]
        with self._lock:
            self._under_way.update(keys)
        try:

            def announce(writer: WriteTransaction) -> list[FileRecord]:
                writer.expect_schema(table)
                now = writer.now_us()
                return [writer.files.announce(table.table_id, user, new, self._per_folder, now) for new, _ in files]

            records = self._engine.commit_sync(announce)
            for key, record, (_, staged) in zip(keys, records, files, strict=True):
                self.blobs.put(staged, path_of(key, record))
                self._stored += 1
                self._stored_bytes += record.size
        except BaseException:
            self.release(keys)
            raise
        return keys, [record.text for record in records]

    def release(self, keys: Iterable[FileKey]) -> None:
        """An upload is over: remove those of its files that no row refers to."""
        wanted = list(keys)
        with self._lock:
            self._under_way.difference_update(wanted)
        try:
            self._remove(wanted)
        except (StorageError, BlobError) as error:
            log.warning("files of a failed request could not be removed yet: %s", error)
            self._engine.files_left.set()

    # --- reading -------------------------------------------------------------------------------------------------

    def open(self, key: FileKey, record: FileRecord) -> BlobReader | None:
        """Open a file's bytes; None when they are gone. Raises BlobError."""
        return self.blobs.open(path_of(key, record))

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Remove nothing during the block: the files that a snapshot opened in it refers to stay where they are."""
        with self._removing:
            self._holders += 1
        try:
            yield
        finally:
            with self._removing:
                self._holders -= 1
            self._engine.files_left.set()

    # --- removing ------------------------------------------------------------------------------------------------

    def collect(self) -> int:
        """Remove everything now that no row refers to and no upload needs; how many files. Blocks."""
        removed = 0
        for table_id in self._read(changed_tables):
            self._look_through(table_id)
        while True:
            count = self._remove(self._read(self._left))
            removed += count
            if not count or self._stopping.is_set():
                return removed

    def missing(self) -> list[str]:
        """The paths of live files whose bytes are not there (for checks). Reads all records."""
        stored = set(self.blobs.list())
        catalog = self._engine.catalog
        with self._engine.snapshot(purpose="files") as snapshot, snapshot.reading() as reader:
            absent = []
            for key, record in every_record(reader):
                table = catalog.table_by_id(key[0])
                if table is not None and record.is_live(file_columns(table)) and path_of(key, record) not in stored:
                    absent.append(path_of(key, record))
        return absent

    def _left(self, reader: Reader) -> list[FileKey]:
        # A key is noted as under way before its record is committed, so whatever the reader sees can be asked now.
        return list(islice((key for key in left_files(reader) if key not in self._under_way), _SLICE))

    def _read(self, question: Callable[[Reader], T]) -> T:
        with self._engine.snapshot(purpose="files") as snapshot, snapshot.reading() as reader:
            return question(reader)

    def _look_through(self, table_id: int) -> None:
        """Mark the files dead that only dropped columns, or a dropped table, referred to."""
        after = -1

        def mark(writer: WriteTransaction) -> int | None:
            table = writer.catalog.table_by_id(table_id)
            columns = frozenset() if table is None else file_columns(table)
            last = None
            for key, record in islice(records_of(writer.reader, table_id, after), _SLICE):
                last = key[1]
                if not record.dead and not record.waiting and not record.is_live(columns):
                    writer.files.put(key, msgspec.structs.replace(record, dead=True))
            if last is None:
                writer.files.note_changed(table_id, done=True)
            return last

        while (last := self._engine.submit_exclusive(mark).result()) is not None:
            after = last
            if self._stopping.is_set():
                return

    def _remove(self, keys: Sequence[FileKey]) -> int:
        with self._removing:
            return 0 if self._holders else self._remove_now(keys)

    def _remove_now(self, keys: Sequence[FileKey]) -> int:
        if not keys or all(self._read(lambda reader: [_needed(read_record(reader, key)) for key in keys])):
            return 0

        def bury(writer: WriteTransaction) -> dict[FileKey, FileRecord]:
            dead: dict[FileKey, FileRecord] = {}
            for key in keys:
                record = writer.files.get(key)
                if _needed(record):
                    continue
                assert record is not None
                dead[key] = record
                if not record.dead:
                    writer.files.put(key, msgspec.structs.replace(record, dead=True))
            return dead

        dead = self._engine.commit_sync(bury)
        gone = []
        failure: BlobError | None = None
        for key, record in dead.items():
            try:
                self.blobs.delete(path_of(key, record))
                gone.append(key)
            except BlobError as error:
                self._failed += 1
                failure = error

        def forget(writer: WriteTransaction) -> None:
            for key in gone:
                writer.files.put(key, None)

        if gone:
            self._engine.commit_sync(forget)
            self._removed += len(gone)
        if failure is not None:
            raise failure
        return len(gone)

    def _run(self) -> None:
        wait: float | None = None
        while not self._stopping.is_set():
            self._engine.files_left.wait(wait)
            self._engine.files_left.clear()
            if self._stopping.is_set():
                return
            wait = None
            try:
                self.collect()
            except (StorageError, BlobError) as error:
                if not self._stopping.is_set():
                    log.warning("files that no row refers to could not be removed yet: %s", error)
                wait = _RETRY_SECONDS
            except Exception:
                log.exception("files that no row refers to could not be removed yet")
                wait = _RETRY_SECONDS


def _needed(record: FileRecord | None) -> bool:
    """Whether there is nothing to remove: the record is gone, or a row refers to the file."""
    return record is None or (not record.dead and not record.waiting)
