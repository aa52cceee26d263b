"""Publication: the log of a table's folder is brought to what the database has, in one commit of the log.

LMDB is the truth. A publication reads one snapshot, replays the log, and commits the difference: so it may be repeated
at any time, and what a crash left undone the next one does. `LakeDef` says what was published last; a publication that
would change nothing is seen by its digest, without a look at the storage.

What writes the log (`sql.lake.versions`) is imported when something is published: a server at rest does without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from sql.storages.registry import StorageRegistry, storage_of
from storage.catalog import TableDef
from storage.cold_tier import STORAGE_OPTION
from storage.engine import StorageEngine
from storage.seams import SYSTEM_CLOCK, Clock
from storage.snapshots import Snapshot
from storage.storage_definitions import LOCAL
from storage.writer import WriteTransaction

if TYPE_CHECKING:
    from sql.lake.units import LakeDef, Unit

_LEASE: Final = 3_600.0


class Outdated(Exception):
    """Files do not fit the table's schema and have to be rewritten before they can be published."""


class Published(NamedTuple):
    """What a publication that changed something shows."""

    files: int
    dead_rows: int


class LakePublisher:
    """Publishes tables. Thread-safe; the methods block."""

    def __init__(self, engine: StorageEngine, storages: StorageRegistry, clock: Clock = SYSTEM_CLOCK) -> None:
        self._engine = engine
        self._storages = storages
        self._clock = clock
        self._lock = threading.Lock()
        self._busy: dict[int, threading.Lock] = {}
        self.step: Callable[[str], None] = lambda _: None
        """Called after each step of a publication (planned, committed), for tests that kill the process there."""

    def stale(self, table_id: int) -> bool:
        """Whether other engines see something else than the cold files have."""
        with self._engine.snapshot(lease=_LEASE, purpose="comparing an open table") as snapshot:
            table = snapshot.catalog.table_by_id(table_id)
            if table is None or table.expires:
                return False
            return self._is_behind(snapshot, table)

    def publish(self, table_id: int, check: Callable[[], None] = lambda: None) -> Published | None:
        """Bring the log to the present state; None when there is nothing to do.

        `check` is called between users that have an open table each, and between groups of manifests; it raises to
        stop. Raises Outdated, StorageUnavailable, StorageFull.
        """
        from sql.lake.schema import fits

        with self._lock:
            mine = self._busy.setdefault(table_id, threading.Lock())
        with mine, self._engine.snapshot(lease=_LEASE, purpose="publishing an open table") as snapshot:
            table = snapshot.catalog.table_by_id(table_id)
            if table is None or table.expires:
                return None
            units, gone = self._units(snapshot, table)
            stale = [unit for unit in units if unit.stale]
            versions = {file.segment.schema_version for unit in stale for file in unit.files}
            if not all(fits(table, version) for version in versions):
                raise Outdated(f"files of table {table.full_name} have an older schema")
            for unit in stale:
                check()
                self._publish(snapshot, unit, check)
            for lake in gone:
                self._withdraw(lake)
                self._engine.commit_sync(_forget(lake))
            if not stale and not gone:
                return None
            files = [file for unit in units for file in unit.files]
            return Published(len(files), sum(file.dead for file in files))

    def orphans(self) -> list[LakeDef]:
        """What is published of tables that were dropped."""
        from sql.lake.units import LAKE, LakeDef

        with self._engine.snapshot(purpose="open tables of dropped tables") as snapshot:
            known = list(snapshot.list_objects(LAKE, LakeDef))
            return [lake for lake in known if snapshot.catalog.table_by_id(lake.table_id) is None]

    def sweep(self) -> int:
        """Take the open tables of dropped tables away; how many. Raises StorageUnavailable."""
        gone = self.orphans()
        for lake in gone:
            self._withdraw(lake)
            self._engine.commit_sync(_forget(lake))
        return len(gone)

    # --- steps ---------------------------------------------------------------------------------------------------

    def _units(self, snapshot: Snapshot, table: TableDef) -> tuple[list[Unit], list[LakeDef]]:
        """The open tables that a table is to have, and those that it has beyond them."""
        from sql.lake.units import LAKE, LakeDef, units_of
        from storage.cold_publication import live_files

        known = {lake.user: lake for lake in snapshot.list_objects(LAKE, LakeDef) if lake.table_id == table.table_id}
        with snapshot.reading() as reader:
            files = live_files(reader, table.table_id)
        if not files and not known:
            return [], []
        storage_id = table.options.get(STORAGE_OPTION) or LOCAL
        units = units_of(table, storage_id, self._storages.place(storage_id), files, known)
        wanted = {unit.user for unit in units}
        return units, [lake for user, lake in known.items() if user not in wanted]

    def _is_behind(self, snapshot: Snapshot, table: TableDef) -> bool:
        from sql.lake.units import LAKE, LakeDef, is_behind
        from storage.cold_publication import shown_files

        known = {lake.user: lake for lake in snapshot.list_objects(LAKE, LakeDef) if lake.table_id == table.table_id}
        with snapshot.reading() as reader:
            files = shown_files(reader, table.table_id)
            if not files and not known:
                return False
            storage_id = table.options.get(STORAGE_OPTION) or LOCAL
            named = ((reader.user_of(file.partition), file.segment_id, file.dead) for file in files)
            return is_behind(table, storage_id, self._storages.place(storage_id), named, known)

    def _publish(self, snapshot: Snapshot, unit: Unit, check: Callable[[], None]) -> None:
        """Bring one open table to the present state, and remember it."""
        from sql.lake.log import DeltaLog
        from sql.lake.units import LAKE, LakeDef
        from sql.lake.versions import VersionWriter

        log = DeltaLog(self._storages.place(unit.storage_id), unit.root)
        writer = VersionWriter(self._engine, self._storages, self._clock, self.step)
        version = writer.write(snapshot, unit, log)
        self.step("committed")
        self._write_manifests(snapshot, unit, check)
        lake = LakeDef(
            unit.table.table_id, unit.storage_id, unit.root, version, unit.digest, self._clock.now_us(), unit.user
        )
        self._engine.commit_sync(lambda wtxn: wtxn.put_object(LAKE, lake.name, lake))
        if unit.known is not None and (unit.known.storage_id, unit.known.root) != (unit.storage_id, unit.root):
            self._withdraw(unit.known)

    def _write_manifests(self, snapshot: Snapshot, unit: Unit, check: Callable[[], None]) -> None:
        """Bring the manifests beside the files to what the snapshot has."""
        from sql.storages.manifest_files import write_manifests

        segments = snapshot.segments(unit.table.table_id, unit.user or None)
        since = unit.known.published_at if unit.known else 0
        write_manifests(unit.table, segments, self._storages, since, check)

    def _withdraw(self, lake: LakeDef) -> None:
        """Remove a log and the manifests below its folder, unless another table's are there now."""
        from sql.lake.log import DeltaLog
        from sql.lake.units import LAKE, LakeDef
        from sql.storages.manifest_files import remove_manifests

        with self._engine.snapshot(purpose="withdrawing an open table") as snapshot:
            for other in snapshot.list_objects(LAKE, LakeDef):
                if other.name != lake.name and (other.storage_id, other.root) == (lake.storage_id, lake.root):
                    return
            if storage_of(snapshot, lake.storage_id) is None:
                return  # nobody can reach it any more
        place = self._storages.place(lake.storage_id)
        DeltaLog(place, lake.root).remove()
        remove_manifests(place, lake.root)


def _forget(lake: LakeDef) -> Callable[[WriteTransaction], None]:
    from sql.lake.units import LAKE

    def work(wtxn: WriteTransaction) -> None:
        wtxn.delete_object(LAKE, lake.name)

    return work
