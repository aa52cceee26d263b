"""How a table's rows lie in stored batches, and how batches of older schema versions become today's columns.

A stored batch has the fields `_seq`, `_row_id` (only tables without a primary key) and one field per column,
named by the column's id. A schema version lists its columns; `TableDef.history` keeps the older versions.
Projection goes by column id: a column that the batch lacks reads as its `ColumnDef.initial` (NULL without one),
a column whose type was widened since is cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from storage.catalog import ColumnDef, IndexDef, IndexState, TableDef, UniqueDef
from storage.errors import StorageCorrupt
from storage.key_encoding import Encoder, key_encoder, marked_encoder
from storage.types import ColumnType, arrow_type

SEQ = "_seq"
ROW_ID = "_row_id"
BY = "_by"

_SEQ_FIELD = pa.field(SEQ, pa.int64(), nullable=False)
_ROW_ID_FIELD = pa.field(ROW_ID, pa.int64(), nullable=False)
_BY_FIELD = pa.field(BY, pa.int64(), nullable=False)


class Index(NamedTuple):
    """The primary key (`index_id` 0) or a UNIQUE constraint as the storage engine enforces it."""

    index_id: int
    names: tuple[str, ...]
    types: tuple[ColumnType, ...]
    positions: tuple[int, ...]
    encode: Encoder


class SecondaryIndex(NamedTuple):
    """A secondary index as the storage engine maintains it. `encode` takes values that may be None."""

    index_id: int
    name: str
    names: tuple[str, ...]
    types: tuple[ColumnType, ...]
    positions: tuple[int, ...]
    encode: Encoder
    unique: bool
    ready: bool


class _Step(NamedTuple):
    """Where a projected column comes from: a field of the batch (with a cast) or a constant."""

    position: int
    cast: pa.DataType | None
    constant: pa.Scalar | None


class StoredColumns(Protocol):
    """A stored batch, or those of its columns that somebody needs."""

    @property
    def num_rows(self) -> int:
        """How many rows it has."""

    def column(self, i: int, /) -> pa.Array:
        """The column at a position of the stored schema."""


class Projection(NamedTuple):
    """How batches of one schema version become the columns that a reader asked for."""

    schema: pa.Schema
    steps: tuple[_Step, ...]
    plain: tuple[int, ...] | None
    temporal: tuple[bool, ...]

    @property
    def positions(self) -> list[int]:
        """The fields of the stored batch that it reads."""
        return sorted({step.position for step in self.steps if step.position >= 0})

    def arrays(self, batch: StoredColumns) -> list[pa.Array]:
        """The projected columns of a stored batch."""
        if self.plain is not None:
            return [batch.column(position) for position in self.plain]
        return [self._array(batch, step) for step in self.steps]

    def row(self, batch: pa.RecordBatch, place: int) -> tuple[object, ...]:
        """The storage values of one row."""
        if self.plain is None:
            return tuple(storage_value(array[0]) for array in self.arrays(batch.slice(place, 1)))
        column = batch.column
        return tuple(
            [
                column(position)[place].value if temporal else column(position)[place].as_py()
                for position, temporal in zip(self.plain, self.temporal, strict=True)
            ]
        )

    def batch(self, batch: StoredColumns) -> pa.RecordBatch:
        """The projected batch."""
        return pa.RecordBatch.from_arrays(self.arrays(batch), schema=self.schema)

    @staticmethod
    def _array(batch: StoredColumns, step: _Step) -> pa.Array:
        if step.constant is not None:
            return pa.repeat(step.constant, batch.num_rows)
        array = batch.column(step.position)
        return array if step.cast is None else array.cast(step.cast)


class TableLayout:
    """Everything derived from one TableDef that readers and the writer need again and again."""

    def __init__(self, table: TableDef) -> None:
        self.table = table
        self.has_row_id = not table.primary_key
        self.first_column = 2 if self.has_row_id else 1
        self._versions: dict[int, tuple[ColumnDef, ...]] = {v.version: v.columns for v in table.history}
        self._versions[table.schema_version] = table.columns
        self._schemas: dict[int, pa.Schema] = {}
        self._projections: dict[tuple[int, tuple[str, ...], bool], Projection] = {}
        self.schema = self.stored_schema(table.schema_version)
        self.types = tuple(arrow_type(c.type) for c in table.columns)
        self.names = tuple(c.name for c in table.columns)
        places = {c.column_id: place for place, c in enumerate(table.columns)}
        self.primary = _index(0, table.key_columns, places) if table.primary_key else None
        self.uniques = tuple(_unique(table, unique, places) for unique in table.uniques)
        self.indexes: tuple[Index, ...] = (*((self.primary,) if self.primary else ()), *self.uniques)
        self.secondary = tuple(_secondary(table, index, places) for index in table.indexes)

    def stored_schema(self, version: int, *, history: bool = False) -> pa.Schema:
        """The fields of batches written under a schema version; `history` batches end in `_by`."""
        code = -version if history else version
        schema = self._schemas.get(code)
        if schema is None:
            columns = self._versions.get(version)
            if columns is None:
                raise StorageCorrupt(
                    f"table {self.table.full_name} has a batch of schema version {version}, which it never had"
                )
            fields = [_SEQ_FIELD, *([_ROW_ID_FIELD] if self.has_row_id else [])]
            fields += [pa.field(str(c.column_id), arrow_type(c.type)) for c in columns]
            schema = pa.schema([*fields, _BY_FIELD] if history else fields)
            self._schemas[code] = schema
        return schema

    def columns_at(self, version: int) -> tuple[ColumnDef, ...]:
        """The columns of a schema version. Raises StorageCorrupt for one that the table never had."""
        self.stored_schema(version)
        return self._versions[version]

    def projection(
        self, version: int, columns: Sequence[str] | None, *, with_seq: bool = False, history: bool = False
    ) -> Projection:
        """How stored batches of `version` become `columns` (None = all user columns)."""
        names = self.names if columns is None else tuple(columns)
        key = (-version if history else version, names, with_seq)
        found = self._projections.get(key)
        if found is None:
            if len(self._projections) >= 256:
                self._projections.clear()
            found = self._projections[key] = self._plan(version, (SEQ, *names) if with_seq else names, history)
        return found

    def upgrade(self, version: int, *, history: bool = False) -> Projection:
        """How stored batches of `version` become stored batches of the table's present version."""
        plan = self.projection(
            version,
            (*((ROW_ID,) if self.has_row_id else ()), *self.names, *((BY,) if history else ())),
            with_seq=True,
            history=history,
        )
        return plan._replace(schema=self.stored_schema(self.table.schema_version, history=history))

    def _plan(self, version: int, names: tuple[str, ...], history: bool) -> Projection:
        stored = self.stored_schema(version, history=history)
        written = {c.column_id: c for c in self._versions[version]}
        fields: list[pa.Field] = []
        steps: list[_Step] = []
        for name in names:
            if name in (SEQ, ROW_ID, BY):
                position = stored.get_field_index(name)
                if position < 0:
                    raise ValueError(f"table {self.table.full_name} has no {name}")
                fields.append(stored.field(position))
                steps.append(_Step(position, None, None))
                continue
            column = self.table.by_name[name]
            wanted = arrow_type(column.type)
            fields.append(pa.field(name, wanted))
            old = written.get(column.column_id)
            if old is None:
                steps.append(_Step(-1, None, initial_value(column)))
            else:
                position = stored.get_field_index(str(column.column_id))
                steps.append(_Step(position, None if arrow_type(old.type) == wanted else wanted, None))
        plain = None
        if all(step.cast is None and step.constant is None for step in steps):
            plain = tuple(step.position for step in steps)
        temporal = tuple(pa.types.is_temporal(field.type) for field in fields)
        return Projection(pa.schema(fields), tuple(steps), plain, temporal)


def initial_value(column: ColumnDef) -> pa.Scalar:
    """What rows written before the column existed read as."""
    wanted = arrow_type(column.type)
    if column.initial is None:
        return pa.scalar(None, wanted)
    with pa.ipc.open_stream(column.initial) as reader:
        value = reader.read_all().column(0)[0]
    return value if value.type == wanted else value.cast(wanted)


def storage_value(scalar: pa.Scalar) -> object:
    """The storage value of an Arrow scalar: times as integers, everything else as Python has it."""
    if pa.types.is_temporal(scalar.type):
        return scalar.value
    return scalar.as_py()


def encode_initial(value: pa.Array) -> bytes:
    """`ColumnDef.initial` for a value, given as an array of one."""
    batch = pa.record_batch([value], names=["value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def layout_of(table: TableDef) -> TableLayout:
    """The layout of a definition, computed once per TableDef object."""
    found = table.__dict__.get("_layout")
    if found is None:
        found = table.__dict__["_layout"] = TableLayout(table)
    layout: TableLayout = found
    return layout


def _index(index_id: int, columns: Sequence[ColumnDef], places: dict[int, int]) -> Index:
    types = tuple(c.type for c in columns)
    return Index(
        index_id,
        tuple(c.name for c in columns),
        types,
        tuple(places[c.column_id] for c in columns),
        key_encoder(types),
    )


def _unique(table: TableDef, unique: UniqueDef, places: dict[int, int]) -> Index:
    return _index(unique.index_id, table.unique_columns(unique), places)


def _secondary(table: TableDef, index: IndexDef, places: dict[int, int]) -> SecondaryIndex:
    columns = table.unique_columns(index)
    types = tuple(c.type for c in columns)
    return SecondaryIndex(
        index.index_id,
        index.name,
        tuple(c.name for c in columns),
        types,
        tuple(places[c.column_id] for c in columns),
        marked_encoder(types),
        index.unique,
        index.state is IndexState.READY,
    )
