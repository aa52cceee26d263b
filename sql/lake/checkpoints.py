"""Checkpoints of a Delta log: the whole state after a version as one Parquet file (classic, V1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from sql.lake.actions import Action, Add, LogState, MetaData, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXTS = pa.map_(pa.string(), pa.string())
_VECTOR = pa.struct([
    ("storageType", pa.string()), ("pathOrInlineDv", pa.string()), ("offset", pa.int32()),
    ("sizeInBytes", pa.int32()), ("cardinality", pa.int64()),
])  # fmt: skip
_ADD = pa.struct([
    ("path", pa.string()), ("partitionValues", _TEXTS), ("size", pa.int64()), ("modificationTime", pa.int64()),
    ("dataChange", pa.bool_()), ("stats", pa.string()), ("deletionVector", _VECTOR),
])  # fmt: skip
_REMOVE = pa.struct([
    ("path", pa.string()), ("deletionTimestamp", pa.int64()), ("dataChange", pa.bool_()),
    ("extendedFileMetadata", pa.bool_()), ("partitionValues", _TEXTS), ("size", pa.int64()),
    ("deletionVector", _VECTOR),
])  # fmt: skip
_META_DATA = pa.struct([
    ("id", pa.string()), ("name", pa.string()), ("description", pa.string()),
    ("format", pa.struct([("provider", pa.string()), ("options", _TEXTS)])), ("schemaString", pa.string()),
    ("partitionColumns", pa.list_(pa.string())), ("configuration", _TEXTS), ("createdTime", pa.int64()),
])  # fmt: skip
_PROTOCOL = pa.struct([
    ("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32()), ("readerFeatures", pa.list_(pa.string())),
    ("writerFeatures", pa.list_(pa.string())),
])  # fmt: skip
_TXN = pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])
_SCHEMA = pa.schema([
    ("txn", _TXN), ("add", _ADD), ("remove", _REMOVE), ("metaData", _META_DATA), ("protocol", _PROTOCOL),
])  # fmt: skip


def encode_checkpoint(state: LogState) -> tuple[bytes, int]:
    """The file, and how many actions it has.

    Removed files are left out: only VACUUM of a writer needs them, and no other writer may write.
    """
    import pyarrow.parquet as pq

    count = len(state.files)
    adds = [None, None, *(msgspec.to_builtins(add) for add in state.files.values())]
    first = [msgspec.to_builtins(state.protocol), *[None] * (count + 1)]
    second = [None, msgspec.to_builtins(state.meta_data), *[None] * count]
    table = pa.Table.from_arrays(
        [
            pa.nulls(count + 2, _TXN), pa.array(adds, _ADD), pa.nulls(count + 2, _REMOVE),
            pa.array(second, _META_DATA), pa.array(first, _PROTOCOL),
        ],
        schema=_SCHEMA,
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", store_schema=False)
    return sink.getvalue().to_pybytes(), count + 2


def decode_checkpoint(data: bytes) -> Iterator[Action]:
    """The actions of a checkpoint. Raises ArrowException, msgspec.ValidationError."""
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data), columns=["add", "metaData", "protocol"])
    for batch in table.to_batches(max_chunksize=8_192):
        for name, kind in (("protocol", Protocol), ("metaData", MetaData), ("add", Add)):
            for found in batch.column(name).drop_null().to_pylist(maps_as_pydicts="strict"):
                yield _action(name, msgspec.convert(_present(found), kind))


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _action(name: str, value: Any) -> Action:
    if name == "add":
        return Action(add=value)
    return Action(meta_data=value) if name == "metaData" else Action(protocol=value)
