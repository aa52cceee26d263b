"""The next version of an open table: what its log is to say, the bitmaps that go with it, and the commit.

Files that lie outside of the table's folder (in another storage, or under another template, after an ALTER) are named
by their URIs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from sql.lake.actions import Action, Add, CommitInfo, DeletionVector, Format, LogState, MetaData, protocol_for
from sql.lake.deletion_vectors import VectorFile
from sql.lake.log import CHECKPOINT_EVERY, DeltaLog
from sql.lake.schema import MAPPING, features_of, mapping_options, schema_json, stats_json
from sql.lake.units import Unit
from sql.storages.registry import StorageRegistry, storage_of
from storage.cold_publication import dead_places
from storage.cold_segments import Segment
from storage.engine import StorageEngine
from storage.errors import StorageUnavailable
from storage.physical_names import user_column
from storage.reading import Reader
from storage.seams import Clock
from storage.snapshots import Snapshot

_VECTORS: Final = "deletionVectors"


class VersionWriter:
    """Writes versions. The methods block. `step` is called when a version is planned."""

    def __init__(
        self, engine: StorageEngine, storages: StorageRegistry, clock: Clock, step: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._storages = storages
        self._clock = clock
        self._step = step

    def write(self, snapshot: Snapshot, unit: Unit, log: DeltaLog) -> int:
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
        self._step("planned")
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


def _without_time(found: MetaData) -> MetaData:
    return msgspec.structs.replace(found, created_time=None)
