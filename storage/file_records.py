"""The durable record of every stored file: which table and user it belongs to, and how many live cells refer to it.

A record is written before the file's bytes are (so a crash leaves nothing that nobody knows of), and changed in the
very commit that changes the rows: `storage.file_references` counts the cells that a work adds and ends. Four kinds of
keys in `state`, all integers big-endian:

======  ==================================  ==================================================================
prefix  key behind the prefix               value
======  ==================================  ==================================================================
F       table id (u32), file id (u64)       `FileRecord` as MessagePack
G       table id, file id                   empty: no row refers to the file; it waits for one, or for its removal
C       table id                            empty: the table lost FILE columns, so its records are to be looked at
N       table id                            u64: how many files the table ever had, which numbers its folders
======  ==================================  ==================================================================

A record has one of three states. *Waiting*: no row refers to it yet, and it may become referred to. *Live*: `cells`
counts the references by column. *Dead*: no row refers to it and none ever will; the bytes go, then the record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from storage.environment import Databases, Txn
    from storage.reading import Reader

_RECORD = b"F"
_LEFT = b"G"
_CHANGED = b"C"
_NUMBER = b"N"
_KEY = struct.Struct(">IQ")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
FOLDERS = 9_999
"""Folders are `f0001` to `f9999`; then they begin anew."""

V = TypeVar("V")
FileKey = tuple[int, int]
"""(table id, file id)."""


class FileRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one file. `text` is the FileRef that cells hold; `created_us` is when it came.

    `folder` and `stored_name` say where it lies below the table's own folder; `size` is in bytes.
    """

    user: str
    text: str
    folder: str
    stored_name: str
    size: int
    created_us: int
    cells: dict[int, int] = {}
    dead: bool = False

    def is_live(self, columns: frozenset[int]) -> bool:
        """Whether a live row refers to it in one of these columns."""
        return not self.dead and any(count for column, count in self.cells.items() if column in columns)

    @property
    def waiting(self) -> bool:
        """Whether no row has referred to it yet."""
        return not self.dead and not self.cells


class NewFile(msgspec.Struct, frozen=True):
    """A file that is about to be stored. `text_of` makes the FileRef text once the folder is known."""

    file_id: int
    stored_name: str
    size: int
    text_of: Callable[[str], str]


_decode = msgspec.msgpack.Decoder(FileRecord).decode
_encode = msgspec.msgpack.Encoder().encode


def path_of(key: FileKey, record: FileRecord) -> str:
    """Where a file lies in the blob store."""
    return f"t{key[0]:010d}/{record.folder}/{record.stored_name}"


def read_record(reader: Reader, key: FileKey) -> FileRecord | None:
    """The record of a file, as committed."""
    value = reader.txn.get(_RECORD + _KEY.pack(*key), db=reader.dbs.state)
    return None if value is None else _decode(value)


def records_of(reader: Reader, table_id: int, after: int = -1) -> Iterator[tuple[FileKey, FileRecord]]:
    """The records of a table in id order, those behind the id `after`."""
    prefix = _RECORD + _U32.pack(table_id)
    cursor = reader.txn.cursor(db=reader.dbs.state)
    if not cursor.set_range(prefix + _U64.pack(after + 1)):
        return
    for raw, value in cursor.iternext():
        key = bytes(raw)
        if not key.startswith(prefix):
            return
        yield _KEY.unpack(key[1:]), _decode(value)


def every_record(reader: Reader) -> Iterator[tuple[FileKey, FileRecord]]:
    """All records, by table and id."""
    for key, value in _entries(reader, _RECORD):
        yield _KEY.unpack(key), _decode(value)


def left_files(reader: Reader) -> Iterator[FileKey]:
    """The files that no row refers to."""
    for key, _ in _entries(reader, _LEFT):
        yield _KEY.unpack(key)


def changed_tables(reader: Reader) -> list[int]:
    """The tables whose records are to be looked at, because FILE columns of theirs were dropped."""
    return [_U32.unpack(key)[0] for key, _ in _entries(reader, _CHANGED)]


def _entries(reader: Reader, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    cursor = reader.txn.cursor(db=reader.dbs.state)
    if not cursor.set_range(prefix):
        return
    for raw, value in cursor.iternext():
        key = bytes(raw)
        if key[:1] != prefix:
            return
        yield key[1:], value


class StagedFiles:
    """The records that the works of a group have changed, with an undo for the present work."""

    def __init__(self, reader: Callable[[], Reader]) -> None:
        self._reader = reader
        self._records: dict[FileKey, FileRecord | None] = {}
        self._numbers: dict[int, int] = {}
        self._changed: dict[int, bool] = {}
        self._undo: list[tuple[FileKey, FileRecord | None, bool]] = []
        self._undo_numbers: dict[int, int | None] = {}
        self._undo_changed: dict[int, bool | None] = {}
        self._touched = False
        self.granted: set[FileKey] = set()
        """Waiting files that the present work has referred to, so that it may do so again."""

    def begin_work(self) -> None:
        """A work begins."""
        if not self._touched:
            return
        self._touched = False
        self._undo.clear()
        self._undo_numbers.clear()
        self._undo_changed.clear()
        self.granted.clear()

    def undo_work(self) -> None:
        """The work failed: forget what it changed."""
        for key, previous, had in reversed(self._undo):
            if had:
                self._records[key] = previous
            else:
                del self._records[key]
        _restore(self._numbers, self._undo_numbers)
        _restore(self._changed, self._undo_changed)
        self.begin_work()

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._records or self._changed)

    @property
    def leaves_files(self) -> bool:
        """Whether there may be files now that no row refers to."""
        return bool(self._changed) or any(record is not None and record.dead for record in self._records.values())

    def get(self, key: FileKey) -> FileRecord | None:
        """A record as stored or staged."""
        if key in self._records:
            return self._records[key]
        return read_record(self._reader(), key)

    def put(self, key: FileKey, record: FileRecord | None) -> None:
        """Stage a record, or (None) its end."""
        self._touched = True
        self._undo.append((key, self._records.get(key), key in self._records))
        self._records[key] = record

    def announce(self, table_id: int, user: str, new: NewFile, per_folder: int, now_us: int) -> FileRecord:
        """Record a file that is about to be stored. Raises ValueError when its id is taken."""
        key = table_id, new.file_id
        if self.get(key) is not None:
            raise ValueError(f"file id {new.file_id} is taken")
        number = self._number(table_id)
        self._undo_numbers.setdefault(table_id, self._numbers.get(table_id))
        self._numbers[table_id] = number + 1
        folder = f"f{number // per_folder % FOLDERS + 1:04d}"
        record = FileRecord(user, new.text_of(folder), folder, new.stored_name, new.size, now_us)
        self.put(key, record)
        return record

    def note_changed(self, table_id: int, *, done: bool = False) -> None:
        """The table lost FILE columns, or was dropped; `done`: its records have been looked at since."""
        self._touched = True
        self._undo_changed.setdefault(table_id, self._changed.get(table_id))
        self._changed[table_id] = not done

    def write(self, txn: Txn, dbs: Databases) -> None:
        """Write everything that is staged into the LMDB transaction."""
        for key, record in sorted(self._records.items()):
            packed = _KEY.pack(*key)
            if record is None:
                txn.delete(_RECORD + packed, db=dbs.state)
            else:
                txn.put(_RECORD + packed, _encode(record), db=dbs.state)
            if record is not None and (record.dead or not record.cells):
                txn.put(_LEFT + packed, b"", db=dbs.state)
            else:
                txn.delete(_LEFT + packed, db=dbs.state)
        for table_id, number in self._numbers.items():
            txn.put(_NUMBER + _U32.pack(table_id), _U64.pack(number), db=dbs.state)
        for table_id, is_due in self._changed.items():
            if is_due:
                txn.put(_CHANGED + _U32.pack(table_id), b"", db=dbs.state)
            else:
                txn.delete(_CHANGED + _U32.pack(table_id), db=dbs.state)

    def _number(self, table_id: int) -> int:
        staged = self._numbers.get(table_id)
        if staged is not None:
            return staged
        reader = self._reader()
        value = reader.txn.get(_NUMBER + _U32.pack(table_id), db=reader.dbs.state)
        return 0 if value is None else int.from_bytes(value, "big")


def _restore(values: dict[int, V], before: dict[int, V | None]) -> None:
    for key, previous in before.items():
        if previous is None:
            values.pop(key, None)
        else:
            values[key] = previous
