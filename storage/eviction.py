"""The background thread that ends expired rows of STREAM tables: with commits, as if somebody had deleted them.

Nobody sees an expired row any more (`storage.expiry`), but it is still stored, and the log does not say yet that it is
gone. The evictor supersedes expired rows through the writer, in slices; so expiry stands in the commit log and in the
feed as deletes with a `_seq` of their own, once for each row, and merging reclaims the space later.

It looks only when something can be due. For each partition that has rows it knows when the oldest one expires: the
writer tells it of new rows, and it lists what is stored when it starts, when a table's TTL was changed and after the
storage was reopened. Beyond TRACKED partitions it only remembers a time for the table, and lists that table again then.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from storage.batches import seqs_of
from storage.catalog import Catalog, TableDef
from storage.errors import StorageClosed, StorageError, StorageFull, StoragePoisoned
from storage.expiry import cutoff, longest_ttl_us, prunable, prune, time_of_seq
from storage.keys import partition_key, row_key_prefix
from storage.layout import TableLayout
from storage.objects import TABLE
from storage.options import StorageOptions
from storage.reading import Reader
from storage.seams import Clock
from storage.snapshots import Snapshot, SnapshotRegistry
from storage.submission import SubmitExclusive
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.storage")

SLICE_ROWS = 2_048
"""Rows that one commit of the evictor ends at most, and entries of `times` that it prunes."""
SLICE_PARTITIONS = 128
"""Partitions that one work of the evictor looks into."""
TRACKED = 100_000
"""Partitions whose next expiry is known one by one."""
_LONGEST_WAIT = 60.0
"""Seconds after which the clock is read again, as somebody may have set it."""

Place = tuple[int, str]


class Added(Protocol):
    """What the writer says about a partition: `layout` is that of the rows added, None when none were."""

    @property
    def layout(self) -> TableLayout | None:
        """The layout of the rows added."""


class Oldest(NamedTuple):
    """The first live rows of a partition: those up to a `_seq`, and the `_seq` of the next one, if there is one."""

    seqs: list[int]
    following: int | None


class Outcome(NamedTuple):
    """What a work did: rows ended; when to look again, by partition; whether `times` has more to prune."""

    rows: int
    due: dict[Place, int]
    more: bool


class DueTimes:
    """When the oldest row of each partition expires; for tables with very many partitions, when the first of them does.

    Not thread-safe by itself.
    """

    def __init__(self, tracked: int = TRACKED) -> None:
        self._limit = tracked
        self._due: dict[Place, int] = {}
        self._heap: list[tuple[int, Place]] = []
        self._unlisted: dict[int, int] = {}

    def add(self, place: Place, due_us: int) -> None:
        """A partition has a row that expires then; an earlier time that is known stays."""
        known = self._due.get(place)
        if known is None and len(self._due) >= self._limit:
            table_id = place[0]
            self._unlisted[table_id] = min(due_us, self._unlisted.get(table_id, due_us))
        elif known is None or due_us < known:
            self._due[place] = due_us
            heapq.heappush(self._heap, (due_us, place))

    def __contains__(self, place: Place) -> bool:
        return place in self._due

    def next(self) -> int | None:
        """The earliest time at which something is due; None when nothing ever is."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        times = [*(self._heap[0][:1] if self._heap else ()), *self._unlisted.values()]
        return min(times, default=None)

    def take(self, now_us: int) -> list[Place]:
        """The partitions that are due, the longest due first; they are no longer known."""
        taken = []
        while self._heap and self._heap[0][0] <= now_us:
            due, place = heapq.heappop(self._heap)
            if self._due.get(place) == due:  # otherwise an earlier time replaced it
                del self._due[place]
                taken.append(place)
        return taken

    def take_unlisted(self, now_us: int) -> list[int]:
        """The tables whose partitions are to be listed again."""
        taken = [table_id for table_id, due in self._unlisted.items() if due <= now_us]
        for table_id in taken:
            del self._unlisted[table_id]
        return taken


class Evictor:
    """Owns the thread and the times at which something is due."""

    def __init__(
        self,
        registry: SnapshotRegistry,
        submit: SubmitExclusive,
        options: StorageOptions,
        clock: Clock,
        catalog: Callable[[], Catalog],
    ) -> None:
        self._registry = registry
        self._catalog = catalog
        self._submit = submit
        self._interval = options.stream_eviction_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._due = DueTimes()
        self._list_all = True
        self._to_list: set[int] = set()
        self._waits_until: int | None = None
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.rows = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="headrace-evictor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop it and wait for its present slice."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def notify(
        self, written: Mapping[Place, Added], objects: Sequence[tuple[str, str]], catalog: Catalog, timestamp_us: int
    ) -> None:
        """The writer committed (called on its thread): new rows, and tables whose TTL may have changed."""
        fresh = [(p, a.layout.table.ttl_us) for p, a in written.items() if a.layout and a.layout.table.expires]
        altered = [int(name) for kind, name in objects if kind == TABLE]
        altered = [table_id for table_id in altered if _stream(catalog, table_id) is not None]
        if not fresh and not altered:
            return
        with self._lock:
            for place, ttl_us in fresh:
                if place not in self._due:  # older rows expire before these
                    self._due.add(place, timestamp_us + ttl_us)
            self._to_list.update(altered)
            first = self._due.next()
            sooner = first is not None and (self._waits_until is None or first < self._waits_until)
            if altered or sooner:
                self._wake.set()

    def list_again(self) -> None:
        """The storage was reopened: what is stored may differ from what the writer told."""
        with self._lock:
            self._list_all = True
            self._wake.set()

    def run_once(self) -> int:
        """End everything that has expired by now; how many rows. Nothing is written when nothing is due."""
        with self._working:
            before = self.rows
            self._list()
            self._evict()
            return self.rows - before

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._guard()
            if self._stopped.wait(self._interval):  # rounds are at least that far apart
                return
            self._wake.wait(self._until_due())
            self._wake.clear()

    def _until_due(self) -> float | None:
        """Seconds until something is due; None when nothing is known to expire."""
        with self._lock:
            if self._list_all or self._to_list:
                return 0.0
            self._waits_until = self._due.next()
            if self._waits_until is None:
                return None
            return min(max(0.0, (self._waits_until - self._clock.now_us()) / 1e6), _LONGEST_WAIT)

    def _guard(self) -> None:
        try:
            self.run_once()
        except StorageClosed:
            self._stopped.set()
        except (StoragePoisoned, StorageFull) as error:
            log.warning("rows of STREAM tables are evicted later: %s", error)
        except StorageError:
            log.exception("the eviction of rows of STREAM tables met damage")
        except Exception:
            log.exception("the eviction of rows of STREAM tables failed")

    def _list(self) -> None:
        """Find out when rows expire that nobody told of."""
        now = self._clock.now_us()
        with self._lock:
            every, some = self._list_all, self._to_list | set(self._due.take_unlisted(now))
            self._list_all, self._to_list = False, set()
        if not (every or some) or not any(table.expires for table in self._catalog().tables()):
            return
        with self._again(every, some), self._snapshot("listing rows that expire") as snapshot:
            tables = [t for t in snapshot.catalog.tables() if t.expires and (every or t.table_id in some)]
            with snapshot.reading() as reader:
                for table in tables:
                    self._list_table(reader, table, snapshot.partitions(table))
                left_over = every and prunable(reader, now - longest_ttl_us(snapshot.catalog)) is not None
        if left_over:
            self._prune()

    def _list_table(self, reader: Reader, table: TableDef, partitions: Sequence[str]) -> None:
        for user in partitions:
            if self._stopped.is_set():
                return
            place = (table.table_id, user)
            due = _due_time(reader, table, oldest(reader, place, 0, 0).following)
            if due is not None:
                with self._lock:
                    self._due.add(place, due)

    @contextlib.contextmanager
    def _again(self, every: bool, some: set[int]) -> Iterator[None]:
        """When listing fails, it is still to be done."""
        try:
            yield
        except BaseException:
            with self._lock:
                self._list_all = self._list_all or every
                self._to_list |= some
            raise

    def _evict(self) -> None:
        with self._lock:
            left = self._due.take(self._clock.now_us())
        while left and not self._stopped.is_set():
            places, left = left[:SLICE_PARTITIONS], left[SLICE_PARTITIONS:]
            last = not left
            try:
                outcome = self._submit(lambda wtxn, p=places, end=last: evict(wtxn, p, end)).result()  # type: ignore[misc]
            except BaseException:
                self._put_back([*places, *left])
                raise
            self.rows += outcome.rows
            again = []
            with self._lock:
                for place, due in outcome.due.items():
                    if due:
                        self._due.add(place, due)
                    else:
                        again.append(place)
            left = again + left
            if outcome.more:
                self._prune()
        self._put_back(left)

    def _put_back(self, places: Sequence[Place]) -> None:
        with self._lock:
            for place in places:
                self._due.add(place, self._clock.now_us())

    def _prune(self) -> None:
        while not self._stopped.is_set() and self._submit(lambda wtxn: evict(wtxn, (), True)).result().more:
            pass

    def _snapshot(self, purpose: str) -> Snapshot:
        return self._registry.open(None, purpose)


def evict(wtxn: WriteTransaction, places: Sequence[Place], last: bool) -> Outcome:
    """A work: end expired rows of some partitions, at most SLICE_ROWS of them; prune `times` in the last slice.

    In `due`, 0 stands for a partition that has more expired rows; one that has no rows is left out.
    """
    now, reader, left = wtxn.now_us(), wtxn.reader, SLICE_ROWS
    due: dict[Place, int] = {}
    for place in places:
        table = _stream(wtxn.catalog, place[0])
        if table is None:
            continue
        if not left:
            due[place] = 0
            continue
        through = cutoff(reader, table, now)
        found = oldest(reader, place, through, left)
        if found.seqs:
            wtxn.expire(table, place[1], found.seqs)
            left -= len(found.seqs)
        if found.following is not None:
            more = found.following <= through
            due[place] = 0 if more else _due_time(reader, table, found.following) or now + table.ttl_us
    pruned = 0
    if last and left:
        pruned = prune(wtxn.txn, reader, now - longest_ttl_us(wtxn.catalog), SLICE_ROWS)
        wtxn.flusher.touched = wtxn.flusher.touched or pruned > 0
    return Outcome(SLICE_ROWS - left, due, pruned == SLICE_ROWS)


def oldest(reader: Reader, place: Place, through: int, limit: int) -> Oldest:
    """The first live rows of a partition up to the `_seq` `through`, at most `limit`, and the live row after them."""
    table_id, user = place
    seqs: list[int] = []
    for batch in reader.stored(row_key_prefix(table_id, partition_key(user))):
        live = seqs_of(batch.value, batch.header)
        dead = reader.dead_of(batch.key)
        if len(dead) == len(live):
            continue
        if len(dead):
            live = np.delete(live, dead["row"])
        end = min(int(live.searchsorted(through, "right")), limit - len(seqs))
        seqs += live[:end].tolist()
        if end < len(live):
            return Oldest(seqs, int(live[end]))
    return Oldest(seqs, None)


def _due_time(reader: Reader, table: TableDef, seq: int | None) -> int | None:
    """When the row with that `_seq` expires (0: it has); None without one, or when its time is not known."""
    if seq is not None and seq <= table.expired_through:
        return 0
    stored = None if seq is None else time_of_seq(reader, seq)
    return None if stored is None else stored + table.ttl_us


def _stream(catalog: Catalog, table_id: int) -> TableDef | None:
    table = catalog.table_by_id(table_id)
    return table if table is not None and table.expires else None
