"""Cold batches as Parquet: how a segment's bytes are made, and how columns of a row group are read back.

Other engines read these files, so columns have names that never change (`storage.physical_names`), and types that are
read alike everywhere: TIMESTAMP without zone and DATETIME in UTC, both in microseconds; DECIMAL and DATE by their
logical types; EMBEDDING as list of float; JSON and FILE as text; UUID and TIME, which the open table format does not
have, as text. `_seq` (and `_row_id`, where there is no primary key) come first. Each field carries the id of its column
as Parquet field id. We read by position, which the schema version of the stub tells.

Compression is Snappy: of the codecs that every reader has it is the quickest to decode, and a point read that misses
the cache decodes a whole row group. Pages carry checksums (verified on every read), key columns Bloom filters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from storage.contiguous import one_array
from storage.errors import StorageCorrupt
from storage.layout import TableLayout
from storage.physical_names import physical_names
from storage.types import ColumnType, Kind
from storage.uuid_text import uuid_bytes, uuid_texts

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SEQ_FIELD_ID = 1_000_000_001
ROW_ID_FIELD_ID = 1_000_000_002
BLOOM_ROWS = 1_024
"""Rows from which on a file has Bloom filters."""
SMALL_DICTIONARY = 512 << 10
"""Bytes of a column chunk below which its dictionary was not given up (the writer does so at 1 MiB)."""
_FIELD_ID = b"PARQUET:field_id"
_TAIL = 8
_MAGIC = b"PAR1"


class Encoded(NamedTuple):
    """The bytes of a file and their checksums (xxh3-64)."""

    data: pa.Buffer
    checksum: int
    footer_bytes: int
    footer_checksum: int


def encode_file(layout: TableLayout, version: int, groups: Sequence[pa.RecordBatch]) -> Encoded:
    """A Parquet file whose row groups are stored batches of a schema version."""
    import pyarrow.parquet as pq

    schema = file_schema(layout, version)
    sink = pa.BufferOutputStream()
    names = schema.names
    with pq.ParquetWriter(
        sink,
        schema,
        compression="snappy",
        use_dictionary=names[layout.first_column :],
        column_encoding=dict.fromkeys(names[: layout.first_column], "DELTA_BINARY_PACKED"),
        store_schema=False,
        write_page_checksum=True,
        write_page_index=True,
        bloom_filter_options=_bloom_filters(layout, version, groups),
    ) as writer:
        for group in groups:
            writer.write_table(
                pa.Table.from_arrays(
                    [_outward(a, f) for a, f in zip(group.columns, schema, strict=True)], schema=schema
                ),
                row_group_size=group.num_rows,
            )
    data = sink.getvalue()
    view = memoryview(data)
    footer = _TAIL + int.from_bytes(view[-_TAIL:-4], "little")
    return Encoded(data, xxhash.xxh3_64_intdigest(view), footer, xxhash.xxh3_64_intdigest(view[-footer:]))


def file_schema(layout: TableLayout, version: int) -> pa.Schema:
    """The schema of a file: the stored one with names, field ids and types for other readers."""
    stored = layout.stored_schema(version)
    columns = layout.columns_at(version)
    named = physical_names(layout.table)
    fields = [
        pa.field(field.name, field.type, nullable=False, metadata={_FIELD_ID: str(number).encode()})
        for field, number in zip(stored, (SEQ_FIELD_ID, ROW_ID_FIELD_ID)[: layout.first_column], strict=False)
    ]
    fields += [
        pa.field(named[c.column_id], _outward_type(c.type, f.type), metadata={_FIELD_ID: str(c.column_id).encode()})
        for c, f in zip(columns, list(stored)[layout.first_column :], strict=True)
    ]
    return pa.schema(fields)


def _outward_type(column: ColumnType, stored: pa.DataType) -> pa.DataType:
    if column.kind in {Kind.UUID, Kind.TIME}:
        return pa.string()
    return pa.list_(pa.field("element", pa.float32())) if column.kind is Kind.EMBEDDING else stored


def _outward(array: pa.Array, field: pa.Field) -> pa.Array:
    if array.type == field.type:
        return array
    return uuid_texts(array) if pa.types.is_fixed_size_binary(array.type) else array.cast(field.type)


def _inward(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if array.type == wanted:
        return array
    if pa.types.is_fixed_size_binary(wanted):
        return uuid_bytes(array)
    if pa.types.is_time(wanted):
        return pc.binary_join_element_wise("1970-01-01", array, " ").cast(pa.timestamp("us")).cast(wanted)
    return array.cast(wanted)


def _bloom_filters(layout: TableLayout, version: int, groups: Sequence[pa.RecordBatch]) -> dict[str, object] | None:
    rows = max((group.num_rows for group in groups), default=0)
    if rows < BLOOM_ROWS:
        return None
    keys = {*layout.table.primary_key}
    kinds = {Kind.BOOLEAN}  # Parquet has no Bloom filters for them
    named = physical_names(layout.table)
    names = [named[c.column_id] for c in layout.columns_at(version) if c.column_id in keys and c.type.kind not in kinds]
    return {name: {"ndv": rows, "fpp": 0.05} for name in names} or None


class Footers:
    """Parsed footers of the files read last. Thread-safe."""

    def __init__(self, limit: int = 1_024) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._found: OrderedDict[int, pq.FileMetaData] = OrderedDict()

    def get(self, segment_id: int) -> pq.FileMetaData | None:
        """The footer of a segment's file, when it was parsed before."""
        with self._lock:
            if segment_id in self._found:
                self._found.move_to_end(segment_id)
            return self._found.get(segment_id)

    def add(self, segment_id: int, footer: pq.FileMetaData) -> None:
        """Keep a footer."""
        with self._lock:
            self._found[segment_id] = footer
            while len(self._found) > self._limit:
                self._found.popitem(last=False)


def read_footer(file: pa.NativeFile, footer_bytes: int, checksum: int) -> pq.FileMetaData:
    """The footer of a file, verified. Raises StorageCorrupt."""
    import pyarrow.parquet as pq

    size = file.size()
    data = file.read_at(footer_bytes, max(size - footer_bytes, 0))
    if xxhash.xxh3_64_intdigest(data) != checksum or not data.endswith(_MAGIC):
        raise StorageCorrupt("the footer does not match its checksum")
    return pq.read_metadata(pa.BufferReader(_MAGIC + data))


def read_columns(
    file: pa.NativeFile,
    footer: pq.FileMetaData,
    group: int,
    schema: pa.Schema,
    positions: Sequence[int],
    encoded: Collection[int] = (),
) -> dict[int, pa.Array]:
    """Columns of a row group by position in the stored schema; those of `encoded` as dictionary arrays.

    Raises StorageCorrupt, OSError, ArrowException.
    """
    import pyarrow.parquet as pq

    if footer.num_columns != len(schema) or group >= footer.num_row_groups:
        raise StorageCorrupt("it does not have the columns or row groups that it should have")
    if not positions:
        return {}
    source = pq.ParquetFile(file, metadata=footer, page_checksum_verification=True, read_dictionary=list(encoded))
    table = source.reader.read_row_group(group, column_indices=list(positions), use_threads=False)
    return {
        position: one_array(column) if position in encoded else _inward(one_array(column), schema.field(position).type)
        for position, column in zip(positions, table.columns, strict=True)
    }


def repeats(footer: pq.FileMetaData, group: int, position: int) -> bool:
    """Whether a column of a row group is stored as a small dictionary and numbers into it."""
    if position >= footer.num_columns or group >= footer.num_row_groups:
        return False
    column = footer.row_group(group).column(position)
    return bool(column.has_dictionary_page and column.total_uncompressed_size <= SMALL_DICTIONARY)
