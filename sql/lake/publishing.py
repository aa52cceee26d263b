"""Publication: the log of a table's folder is brought to what the database has, in one commit of the log.

LMDB is the truth. A publication reads one snapshot, replays the log, and commits the difference: so it may be repeated
at any time, and what a crash left undone the next one does. `LakeDef` says what was published last; a publication that
would change nothing is seen by its digest, without a look at the storage.

Files that lie outside of the table's folder (in another storage, or under another template, after an ALTER) are named
by their URIs.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from sql.lake.actions import Action, Add, CommitInfo, DeletionVector, Format, LogState, MetaData, protocol_for
from sql.lake.deletion_vectors import VectorFile
from sql.lake.log import CHECKPOINT_EVERY, DeltaLog
from sql.lake.schema import MAPPING, features_of, fits, mapping_options, schema_json, stats_json
from sql.lake.units import LAKE, LakeDef, Unit, units_of
from sql.storages.registry import StorageRegistry, storage_of
from storage.catalog import TableDef
from storage.cold_publication import dead_places, live_files
from storage.cold_segments import Segment
from storage.cold_tier import STORAGE_OPTION
from storage.engine import StorageEngine
from storage.errors import StorageUnavailable
from storage.physical_names import user_column
from storage.reading import Reader
from storage.seams import SYSTEM_CLOCK, Clock
from storage.snapshots import Snapshot
from storage.storage_definitions import LOCAL
from storage.writer import WriteTransaction

_VECTORS: Final = "deletionVectors"
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
            units, gone = self._units(snapshot, table)
            return bool(gone) or any(unit.stale for unit in units)

    def publish(self, table_id: int, check: Callable[[], None] = lambda: None) -> Published | None:
        """Bring the log to the present state; None when there is nothing to do.

        `check` is called between users that have an open table each, and raises to stop. Raises Outdated,
        StorageUnavailable, StorageFull.
        """
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
                self._publish(snapshot, unit)
            for lake in gone:
                self._withdraw(lake)
                self._engine.commit_sync(_forget(lake))
            if not stale and not gone:
                return None
            files = [file for unit in units for file in unit.files]
            return Published(len(files), sum(file.dead for file in files))

    def stale_tables(self) -> list[TableDef]:
        """The tables whose open table is behind."""
        return [table for table in self._engine.catalog.tables() if not table.expires and self.stale(table.table_id)]

    def orphans(self) -> list[LakeDef]:
        """What is published of tables that were dropped."""
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
        known = {lake.user: lake for lake in snapshot.list_objects(LAKE, LakeDef) if lake.table_id == table.table_id}
        with snapshot.reading() as reader:
            files = live_files(reader, table.table_id)
        if not files and not known:
            return [], []
        storage_id = table.options.get(STORAGE_OPTION) or LOCAL
        units = units_of(table, storage_id, self._storages.place(storage_id), files, known)
        wanted = {unit.user for unit in units}
        return units, [lake for user, lake in known.items() if user not in wanted]

    def _publish(self, snapshot: Snapshot, unit: Unit) -> None:
        """Bring one open table to the present state, and remember it."""
        log = DeltaLog(self._storages.place(unit.storage_id), unit.root)
        version = self._bring(snapshot, unit, log)
        self.step("committed")
        lake = LakeDef(
            unit.table.table_id, unit.storage_id, unit.root, version, unit.digest, self._clock.now_us(), unit.user
        )
        self._engine.commit_sync(lambda wtxn: wtxn.put_object(LAKE, lake.name, lake))
        if unit.known is not None and (unit.known.storage_id, unit.known.root) != (unit.storage_id, unit.root):
            self._withdraw(unit.known)

    def _bring(self, snapshot: Snapshot, unit: Unit, log: DeltaLog) -> int:
        """Commit the difference; the version that shows the present state."""
        table = unit.table
        state = log.read()
        now_ms = self._clock.now_us() // 1000
        with snapshot.reading() as reader:
            vectors = VectorFile()
            wanted = list(self._adds(reader, unit, state, vectors))
        data = vectors.data
        features = features_of(table)
        if any(add.deletion_vector is not None for add in wanted):
            features |= {_VECTORS}
        if state.protocol is not None:
            features |= state.protocol.asked  # what a table asks of readers it never takes back
        actions = self._changes(state, wanted)
        meta_data = self._meta_data(unit, features, state if unit.known is not None else LogState())
        if state.meta_data is None or _without_time(state.meta_data) != _without_time(meta_data):
            actions.insert(0, Action(meta_data=meta_data))
        protocol = protocol_for(features)
        if protocol != state.protocol:
            actions.insert(0, Action(protocol=protocol))
        self.step("planned")
        if actions:
            if data:
                log.write_file(vectors.name, data)
            info = CommitInfo(now_ms, "WRITE", {"mode": "Append"})
            log.commit(state, [Action(commit_info=info), *actions])
            if state.version % CHECKPOINT_EVERY == 0:
                log.tidy(
                    datetime.fromtimestamp(now_ms / 1000, UTC)
                    - timedelta(seconds=self._engine.options.cold_grace_seconds)
                )
        return state.version

    def _adds(self, reader: Reader, unit: Unit, state: LogState, vectors: VectorFile) -> Iterator[Add]:
        """The files as the log is to have them; those that it has so already are the same actions."""
        present = {add.shown: add for add in state.files.values()}
        table = unit.table
        user = user_column(table) if unit.partitioned else None
        for file in unit.files:
            segment = file.segment
            path = self._path_in_log(segment, unit)
            partition: dict[str, str | None] = {} if user is None else {user: segment.user}
            plain = Add(
                path=path,
                partition_values=partition,
                size=segment.bytes,
                modification_time=segment.created_at // 1000,
                data_change=True,
            )
            known = present.get((path, file.dead, tuple(partition.items())))
            if known is not None:
                yield known
                continue
            vector: DeletionVector | None = None
            if file.dead:
                vector = vectors.add(dead_places(reader, file))
            stats = stats_json(table, segment, tight=not file.dead)
            yield msgspec.structs.replace(plain, stats=stats, deletion_vector=vector)

    def _changes(self, state: LogState, wanted: list[Add]) -> list[Action]:
        now_ms = self._clock.now_us() // 1000
        keys = {add.key for add in wanted}
        gone = [Action(remove=add.removed(now_ms)) for key, add in state.files.items() if key not in keys]
        return gone + [Action(add=add) for add in wanted if state.files.get(add.key) is not add]

    def _meta_data(self, unit: Unit, features: frozenset[str], state: LogState) -> MetaData:
        table, mapped = unit.table, MAPPING in features
        grace = f"interval {int(self._engine.options.cold_grace_seconds)} seconds"
        configuration = {"delta.checkpointInterval": str(CHECKPOINT_EVERY), "delta.logRetentionDuration": grace}
        if mapped:
            configuration |= mapping_options()
        if _VECTORS in features:
            configuration["delta.enableDeletionVectors"] = "true"
        return MetaData(
            id=state.meta_data.id if state.meta_data is not None else str(uuid.uuid4()),
            name=table.full_name,
            description=table.comment,
            format=Format(),
            schema_string=schema_json(table, mapped=mapped, partitioned=unit.partitioned),
            partition_columns=[user_column(table)] if unit.partitioned else [],
            configuration=configuration,
            created_time=table.created_at // 1000,
        )

    def _path_in_log(self, segment: Segment, unit: Unit) -> str:
        prefix = f"{unit.root}/" if unit.root else ""
        storage_id, path = segment.storage_id, segment.path
        if storage_id == unit.storage_id and path.startswith(prefix):
            return quote(path.removeprefix(prefix))
        with self._engine.snapshot(purpose="naming a cold file") as snapshot:
            storage = storage_of(snapshot, storage_id)
        if storage is None:
            raise StorageUnavailable(f"storage '{storage_id}' does not exist")
        base = self._storages.shown_base(storage)
        if base.startswith("/"):
            return (Path(base) / path).absolute().as_uri()
        return f"{base}/{quote(path)}"

    def _withdraw(self, lake: LakeDef) -> None:
        """Remove a log, unless another table's is there now."""
        with self._engine.snapshot(purpose="withdrawing an open table") as snapshot:
            for other in snapshot.list_objects(LAKE, LakeDef):
                if other.name != lake.name and (other.storage_id, other.root) == (lake.storage_id, lake.root):
                    return
            if storage_of(snapshot, lake.storage_id) is None:
                return  # nobody can reach it any more
        DeltaLog(self._storages.place(lake.storage_id), lake.root).remove()


def _forget(lake: LakeDef) -> Callable[[WriteTransaction], None]:
    def work(wtxn: WriteTransaction) -> None:
        wtxn.delete_object(LAKE, lake.name)

    return work


def _without_time(found: MetaData) -> MetaData:
    return msgspec.structs.replace(found, created_time=None)
