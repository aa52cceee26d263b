"""The LMDB environment: its sub-databases, its map and how it grows, and what its errors mean.

Sub-databases
-------------

==========  =============================================  ======================================================
name        key                                            value
==========  =============================================  ======================================================
meta        name                                           u64 big-endian (`next_seq`, `catalog_version`, ...)
catalog     kind, 00, name                                 MessagePack definition
rows        table, partition, first `_seq`                 a batch (`storage.batches`), or the stub of a cold one
                                                           (`storage.cold_stubs`)
dead        the batch's key, chunk number                  superseded rows of that batch (`storage.dead`)
history     table, partition, first `_seq`                 a batch of superseded rows that the log still needs
keys        table, partition, index, encoded key           `_seq` of the current version, u64 big-endian
commits     first `_seq` of the commit                     the commit record (`storage.changes`)
times       commit time in microseconds, u64 big-endian    last `_seq` of the commit, u64 big-endian: only commits that
                                                           add rows to STREAM tables (`storage.expiry`)
state       kind, table, file id                           what is known of stored files (`storage.file_records`)
            kind, table, partition, segment id             Parquet files of the cold tier (`storage.cold_segments`)
topics, offsets                                            of later issues; created empty
==========  =============================================  ======================================================

The map
-------

LMDB's map is address space with a limit. It starts large (`StorageOptions.map_start`), because address space costs
nothing, and doubles when it is nearly full, up to `max_bytes`. Changing it moves the map, so there must be no
transaction and no buffer that points into it: `storage.snapshots` holds back new readers and drains the old ones.

Durability
----------

No WRITEMAP, NOSYNC or NOMETASYNC: a commit writes the pages, syncs, writes the meta page through a synchronous
descriptor, and only then do readers see it. A failed commit leaves the meta page before it in force.

Former versions
---------------

Sub-databases that a folder of a former version lacks are created when it is opened for writing. `times` is the only one
that was added so far; where such a folder is opened read-only (`headrace check`), its handle is None.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lmdb

from storage.errors import StorageError, StorageFull, StorageLocked
from storage.options import StorageOptions

if TYPE_CHECKING:
    Txn = lmdb.Transaction[memoryview]
    Cursor = lmdb.Cursor[memoryview]
else:
    Txn = lmdb.Transaction
    Cursor = lmdb.Cursor

_U64 = struct.Struct(">Q")
FORMAT = 1
PAGE = 4096
SMALLEST_MAP = 1 << 20
NAMES = ("meta", "catalog", "rows", "dead", "history", "keys", "commits", "topics", "offsets", "state", "times")

NEXT_SEQ = b"next_seq"
CATALOG_VERSION = b"catalog_version"
NEXT_TABLE_ID = b"next_table_id"
FORMAT_KEY = b"format"
LOG_TRUNCATED = b"log_truncated"
"""Commits up to this `_seq` are no longer in the log."""


class Databases(NamedTuple):
    """Handles of the sub-databases."""

    meta: lmdb._Database
    catalog: lmdb._Database
    rows: lmdb._Database
    dead: lmdb._Database
    history: lmdb._Database
    keys: lmdb._Database
    commits: lmdb._Database
    topics: lmdb._Database
    offsets: lmdb._Database
    state: lmdb._Database
    times: lmdb._Database | None


class Environment:
    """One open LMDB environment. Not thread-safe by itself: the writer owns it, readers only begin and abort."""

    def __init__(self, folder: Path, options: StorageOptions) -> None:
        self.folder = folder
        self.options = options
        self.env: lmdb.Environment
        self.dbs: Databases
        self.map_bytes = 0
        self.open()

    def open(self) -> None:
        """Open the environment and its sub-databases (creating them in a new folder)."""
        file = self.folder / "data.mdb"
        size = file.stat().st_size if file.exists() else 0
        wanted = _round(max(self.options.map_start, 2 * size, SMALLEST_MAP))
        if self.options.max_bytes:
            wanted = max(min(wanted, _round(self.options.max_bytes)), _round(size))
        self.env = open_map(self.folder, wanted, floor=max(_round(size), SMALLEST_MAP))
        self.map_bytes = self.env.info()["map_size"]
        try:
            self.dbs = Databases(*(self.env.open_db(name.encode()) for name in NAMES))
            self._check_format()
            self.env.reader_check()  # readers of processes that were killed would hold pages back
        except BaseException:
            self.env.close()
            raise

    def _check_format(self) -> None:
        with self.env.begin() as txn:
            found = read_number(txn, self.dbs, FORMAT_KEY, 0)
        if found == 0:
            with self.env.begin(write=True) as txn:
                txn.put(FORMAT_KEY, _U64.pack(FORMAT), db=self.dbs.meta)
        elif found != FORMAT:
            raise StorageError(f"the data folder {self.folder} has format {found}; this version reads format {FORMAT}")

    def begin_read(self) -> Txn:
        """A read transaction whose values are views into the map."""
        return self.env.begin(buffers=True)

    def begin_write(self) -> Txn:
        """The write transaction (writer thread only)."""
        return self.env.begin(write=True, buffers=True)

    def commit(self, txn: Txn) -> None:
        """Commit and sync. The one place where that happens, so that tests can make it fail."""
        txn.commit()

    def close(self) -> None:
        """Unmap. Nothing may point into the map any more."""
        self.env.close()

    def used_bytes(self) -> int:
        """How far the data file reaches (its pages may be free inside)."""
        last: int = self.env.info()["last_pgno"]
        return (last + 1) * PAGE

    def limit(self, *, reserve: bool = False) -> int:
        """How large the map may become; the reserve lets deletes and merges work when it is full."""
        if not self.options.max_bytes:
            stat = os.statvfs(self.folder)
            return self.map_bytes + stat.f_bavail * stat.f_frsize
        limit = _round(self.options.max_bytes)
        return limit + max(limit // 16, 1 << 20) if reserve else limit

    def can_grow(self, *, reserve: bool = False) -> bool:
        """Whether a larger map is allowed."""
        return self.limit(reserve=reserve) > self.map_bytes

    def grow(self, *, reserve: bool = False) -> None:
        """Double the map, up to the limit. There must be no transaction and no buffer into the map."""
        wanted = min(2 * self.map_bytes, _round(self.limit(reserve=reserve)))
        if wanted <= self.map_bytes:
            raise StorageFull(full_sentence(self))
        self.env.set_mapsize(wanted)
        self.map_bytes = wanted


def open_map(folder: Path, size: int, *, floor: int, readonly: bool = False) -> lmdb.Environment:
    """Open with the largest map up to `size` that the system grants, not less than `floor`."""
    while True:
        try:
            return lmdb.open(
                str(folder),
                map_size=size,
                max_dbs=len(NAMES) + 6,
                mode=0o600,
                create=not readonly,
                readonly=readonly,
                max_readers=2048,
                max_spare_txns=64,
                readahead=True,
            )
        except lmdb.Error as error:
            if "already open in this process" in str(error):
                raise StorageLocked(f"the data folder {folder} is open in this process already") from None
            if size // 2 < floor or code_of(error) != errno.ENOMEM:
                raise
            size = _round(size // 2)


def open_databases(env: lmdb.Environment, txn: Txn) -> Databases:
    """The sub-databases of a folder that is opened read-only, maybe one of a former version."""
    *older, newest = NAMES
    handles: list[Any] = [env.open_db(name.encode(), txn=txn, create=False) for name in older]
    try:
        handles.append(env.open_db(newest.encode(), txn=txn, create=False))
    except lmdb.NotFoundError:
        handles.append(None)
    return Databases(*handles)


def read_number(txn: Txn | lmdb.Transaction[bytes], dbs: Databases, name: bytes, default: int) -> int:
    """A number from `meta`."""
    value = txn.get(name, db=dbs.meta)
    return default if value is None else int.from_bytes(value, "big")


def pack_number(value: int) -> bytes:
    """A number for `meta` or `keys`."""
    return _U64.pack(value)


def code_of(error: BaseException) -> int:
    """The errno or MDB code of an LMDB error (0 when it has none)."""
    code = getattr(error, "code", 0)
    return code if isinstance(code, int) else 0


def is_full(error: BaseException, folder: Path, wanted: int = 0) -> bool:
    """Whether an error of a write means that the disk is full.

    LMDB turns a short write into EIO, so with EIO the disk's free space decides.
    """
    if code_of(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    if code_of(error) != errno.EIO:
        return False
    return free_bytes(folder) < max(wanted, SMALLEST_MAP)


def free_bytes(folder: Path) -> int:
    """How much the disk of a folder takes still; plenty when it does not say."""
    try:
        stat = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return stat.f_bavail * stat.f_frsize


def full_sentence(environment: Environment) -> str:
    """What StorageFull says."""
    if environment.options.max_bytes:
        return f"the data file has reached its limit of {environment.options.max_bytes} bytes"
    return f"the disk that holds {environment.folder} is full"


def _round(size: int) -> int:
    return -(-size // PAGE) * PAGE
