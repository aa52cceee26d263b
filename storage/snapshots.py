"""Snapshots: read transactions with a lease, and the registry that opens, drains and ends them.

What keeps pages in place
-------------------------

An LMDB read transaction pins the pages of its commit. Zero-copy Arrow arrays of `scan` point into those pages, and they
may outlive the `with` block that made them. Each such array keeps a `PageHold` alive (Arrow holds a reference to the
owner of its memory), and a snapshot with a living hold or an explicit `pin` does not end its LMDB transaction: closing
or expiring only marks it, and the last hold ends it. So no array ever sees a page change under it, and moving
the map (growth, reopening) waits until nothing points into it.

The lease
---------

A snapshot that is open longer than its lease is reported in the log and ended: it is marked, so that its next read
raises SnapshotExpired; its `on_expire` callbacks run (they interrupt a running query); and its transaction ends as soon
as no hold or pin is left.

The state of a snapshot
-----------------------

The writer registers (LMDB transaction id -> last `_seq`, catalog) before it commits, so a reader that begins between
the commit and its announcement finds the state that belongs to exactly its transaction.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import lmdb
import pyarrow as pa

from storage.catalog import Catalog, TableDef
from storage.cold_reading import ColdReads
from storage.cold_statistics import Bounds
from storage.environment import CATALOG_VERSION, NEXT_SEQ, Environment, read_number
from storage.errors import ColdMiss, SnapshotExpired, StorageClosed, StoragePoisoned
from storage.memory import BatchMemory
from storage.objects import load_catalog
from storage.reading import Reader
from storage.seams import Clock
from storage.stored_view import StoredView

log = logging.getLogger("headrace.storage")

_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 6.0
_STATES_KEPT = 64


class Committed(NamedTuple):
    """What a commit left: the last `_seq` and the catalog."""

    seq: int
    catalog: Catalog


class PageHold:
    """Lives as long as any array that points into a snapshot's pages."""

    __slots__ = ("__weakref__", "_snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        snapshot._add_pin()

    def __del__(self) -> None:
        self._snapshot._drop_pin()


class Snapshot(StoredView):
    """One commit, for reading. Use it from one thread at a time and close it (it is a context manager)."""

    def __init__(
        self,
        registry: SnapshotRegistry,
        reader: Reader,
        state: Committed,
        now_us: int,
        deadline: float,
        opened: float,
        purpose: str,
    ) -> None:
        super().__init__(reader, state.catalog, state.seq, now_us)
        self.purpose = purpose
        self.txn_id: int = reader.txn.id()
        self.deadline = deadline
        self.opened = opened
        self.expired = False
        self._registry = registry
        self._pins = 0
        self._closed = False
        self._ended = False
        self._hold: weakref.ref[PageHold] | None = None
        self._callbacks: list[Callable[[], None]] = []

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the snapshot back; its pages stay while an array or a pin needs them."""
        with self._lock:
            self._closed = True
            self._callbacks.clear()
            if not self._pins:
                self._end()

    def on_expire(self, callback: Callable[[], None]) -> None:
        """Call `callback` (from the reaper's thread) when the lease runs out, to interrupt a running query."""
        with self._lock:
            self._callbacks.append(callback)

    @contextlib.contextmanager
    def pin(self) -> Iterator[None]:
        """Keep the pages in place for the block, even when the lease runs out meanwhile."""
        with self._lock:
            self._open()
            self._pins += 1
        try:
            yield
        finally:
            self._drop_pin()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """The reader under this snapshot, for other parts of the storage room, kept open for the block."""
        with self.pin():
            yield self._reader

    def expire(self, reason: str) -> None:
        """End the snapshot against its user's will."""
        with self._lock:
            if self._closed or self.expired:
                return
            self.expired = True
            callbacks = list(self._callbacks)
        log.warning("ended a snapshot of commit %d (%s): %s", self.seq, self.purpose or "no purpose given", reason)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("an on_expire callback failed")
        with self._lock:
            if not self._pins:
                self._end()

    # While files are read the snapshot counts as open, even if its lease runs out: the files are kept for it.

    def scan_live(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None,
        with_seq: bool,
        superseded: pa.Array | None,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        """See Base."""
        with self.pin():
            return super().scan_live(table, partition, columns, with_seq, superseded, bounds)

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        """Rows by `_seq`; see ReadView."""
        with self.pin():
            return super().fetch(table, partition, seqs, columns, with_seq=with_seq)

    def _load(self, miss: ColdMiss) -> None:
        with self.pin():
            super()._load(miss)

    def _check(self) -> None:
        with self._lock:
            self._open()

    def allocate_table_id(self) -> int:
        """An id for a new table, never used before."""
        return self._registry.allocate_table_id()

    def _open(self) -> Reader:
        if self.expired:
            raise SnapshotExpired(f"the snapshot of commit {self.seq} was held longer than its lease")
        if self._closed:
            raise StorageClosed("the snapshot is closed")
        return self._reader

    def _owner(self) -> object:
        hold = None if self._hold is None else self._hold()
        if hold is None:
            hold = PageHold(self)
            self._hold = weakref.ref(hold)
        return hold

    def _add_pin(self) -> None:
        with self._lock:
            self._pins += 1

    def _drop_pin(self) -> None:
        with self._lock:
            self._pins -= 1
            if not self._pins and (self._closed or self.expired):
                self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            reader = self._reader
            del self._reader
            reader.txn.abort()
            self._registry.forget(self)


class SnapshotRegistry:
    """All open snapshots of an environment."""

    def __init__(
        self,
        environment: Environment,
        clock: Clock,
        lease_seconds: float,
        allocate_table_id: Callable[[], int],
        cold: ColdReads,
    ) -> None:
        self._environment = environment
        self.cold = cold
        self._clock = clock
        self._lease = lease_seconds
        self._lock = threading.Lock()
        self._resumed = threading.Condition(self._lock)
        self._paused = False
        self._closed = False
        self._away = False
        self._active: dict[int, Snapshot] = {}
        self._states: dict[int, Committed] = {}
        self._loaded: Catalog | None = None
        self.memory = BatchMemory()
        self.allocate_table_id = allocate_table_id
        self.expired_count = 0
        self._wake = threading.Event()
        self._reaper = threading.Thread(target=self._reap_forever, name="headrace-reaper", daemon=True)
        self._reaper.start()

    def __len__(self) -> int:
        return len(self._active)

    def open(self, lease: float | None, purpose: str) -> Snapshot:
        """A snapshot of the newest commit. Waits while the map is being moved, but not for a disk that is away."""
        with self._lock:
            if self._paused or self._closed:
                self._wait_resumed()
            return self._begin(lease, purpose)

    def open_at_once(self, purpose: str) -> Snapshot | None:
        """As `open`, for the event loop: None where that would wait. Reading it raises ColdMiss where that would."""
        with self._lock:
            return None if self._paused or self._closed else self._begin(None, purpose, waits=False)

    def _begin(self, lease: float | None, purpose: str, *, waits: bool = True) -> Snapshot:
        try:
            txn = self._environment.begin_read()
        except lmdb.PanicError as error:  # a commit has just met an I/O error; the writer is about to reopen
            raise StoragePoisoned("the storage is being reopened") from error
        reader = Reader(txn, self._environment.dbs, self.memory, self.cold, waits=waits)
        state = self._states.get(txn.id()) or self._load(reader)
        now = self._clock.monotonic()
        deadline = now + (self._lease if lease is None else lease)
        snapshot = Snapshot(self, reader, state, self._clock.now_us(), deadline, now, purpose)
        self._active[id(snapshot)] = snapshot
        return snapshot

    def _wait_resumed(self) -> None:
        """Wait for `resume`, but not long: the readers that hold up the move may need what waits here."""
        limit = time.monotonic() + _PATIENCE_SECONDS
        while self._paused and not self._closed:
            if self._away or (not self._resumed.wait(max(limit - time.monotonic(), 0.0)) and time.monotonic() >= limit):
                raise StoragePoisoned("the storage is being reopened")
        if self._closed:
            raise StorageClosed("the storage is closed")

    def _load(self, reader: Reader) -> Committed:
        """The state of a transaction that the writer has not announced: after opening, until the first commit.

        The catalog is kept, so that all readers share one, as they do later: plans are tied to its very objects.
        """
        seq = read_number(reader.txn, reader.dbs, NEXT_SEQ, 1) - 1
        version = read_number(reader.txn, reader.dbs, CATALOG_VERSION, 0)
        catalog = self._loaded
        if catalog is None or catalog.version != version:
            catalog = self._loaded = load_catalog(StoredView(reader, Catalog(version, (), ()), seq, 0), version)
        return Committed(seq, catalog)

    def newest(self) -> Committed:
        """The newest committed state, read from the environment (at opening)."""
        txn = self._environment.begin_read()
        try:
            return self._load(Reader(txn, self._environment.dbs, self.memory, self.cold))
        finally:
            txn.abort()

    def publish(self, txn_id: int, state: Committed) -> None:
        """The state that the transaction `txn_id` will leave when it commits (called before it does)."""
        states = self._states
        states[txn_id] = state
        while len(states) > _STATES_KEPT:
            states.pop(next(iter(states)))

    def withdraw(self, txn_id: int) -> None:
        """The transaction did not commit."""
        self._states.pop(txn_id, None)

    def forget(self, snapshot: Snapshot) -> None:
        """A snapshot's transaction has ended. Takes no lock: garbage collection may call it anywhere."""
        self._active.pop(id(snapshot), None)
        if self._closed and not self._active:
            self._environment.close()

    def oldest_txn(self) -> int | None:
        """The LMDB transaction id of the oldest open snapshot; None when none is open."""
        return min((snapshot.txn_id for snapshot in list(self._active.values())), default=None)

    def oldest_seconds(self) -> float:
        """Age of the oldest open snapshot."""
        opened = [snapshot.opened for snapshot in list(self._active.values())]
        return self._clock.monotonic() - min(opened) if opened else 0.0

    def reap(self) -> int:
        """End the snapshots whose lease ran out; how many. The reaper calls it, tests may too."""
        now = self._clock.monotonic()
        late = [s for s in list(self._active.values()) if s.deadline <= now and not s.expired]
        for snapshot in late:
            snapshot.expire(f"its lease ran out after {now - snapshot.opened:.0f} s")
        self.expired_count += len(late)
        return len(late)

    def _reap_forever(self) -> None:
        while not self._wake.wait(min(1.0, self._lease / 4)):
            try:
                self.reap()
            except Exception:
                log.exception("ending late snapshots failed; it is tried again")

    def pause(self, seconds: float) -> bool:
        """Hold back new snapshots and wait for the open ones, then end them. True when none is left."""
        with self._lock:
            self._paused = True
        if self._wait_empty(seconds):
            return True
        for snapshot in list(self._active.values()):
            snapshot.expire("the storage needs to move its map")
            self.expired_count += 1
        return self._wait_empty(seconds)

    def try_pause(self) -> bool:
        """Hold back new snapshots if none is open."""
        with self._lock:
            self._paused = not self._active
            return self._paused

    def resume(self) -> None:
        """Let new snapshots through again."""
        with self._resumed:
            self._paused = self._away = False
            self._resumed.notify_all()

    def away(self) -> None:
        """The environment cannot be opened: until `resume`, readers are refused instead of held back."""
        with self._resumed:
            self._away = True
            self._resumed.notify_all()

    def reset(self) -> None:
        """The environment was reopened: transaction ids may be used again."""
        self._states.clear()

    def close(self, seconds: float) -> None:
        """End everything, for good. The environment is closed when the last array that points into it is gone."""
        self._wake.set()
        self.pause(seconds)
        with self._resumed:
            self._closed = True
            self._resumed.notify_all()
        self._reaper.join()
        if not self._active:
            self._environment.close()

    def _wait_empty(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while self._active:
            if time.monotonic() >= limit:
                return False
            time.sleep(_POLL_SECONDS)
        return True
