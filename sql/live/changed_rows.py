"""One partition's part of a commit, paired and decoded once for all live queries that it concerns.

A commit adds row versions and supersedes others. A superseded version whose `_by` is the `_seq` of an added one was
replaced by it; any other was deleted. An event is therefore an added version, with the version that it replaces if
there is one, or a deletion; its `seq` is the `_seq` that the log gave it. A row that is changed several times within
one commit (works that were committed together) has an event for each version.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sql.plan import DELETED, SEQ
from storage.catalog import TableDef
from storage.changes import TableChange
from storage.layout import BY

SMALL = 64
"""Row versions up to which a change is evaluated row by row: about where columns begin to be faster for a single query.

Decoding takes some 2 µs a row, once for all queries; then a query takes 0.5 µs a row, and at least 100 µs by column.
"""

_COUNTS = {pa.timestamp("us").id: pa.int64(), pa.time64("us").id: pa.int64(), pa.date32().id: pa.int32()}
"""Arrow types whose storage values are integers, and of which width."""

Row = Mapping[str, object]
"""Storage values by column, `_seq` and `_deleted` (false) among them."""


class RowEvent(NamedTuple):
    """One event as rows: the version that came, the one that went; a deletion has no new one."""

    seq: int
    new: Row | None
    old: Row | None


class Pairing(NamedTuple):
    """How the versions of a change belong together; places are rows of `added` and `removed`.

    `old_of` has the place of the replaced version for every added one, -1 where there is none. `deleted` are the
    places of versions that went without a successor, `deleted_by` the `_seq`s of their deletion, ascending.
    """

    added_seqs: npt.NDArray[np.int64]
    old_of: npt.NDArray[np.int64]
    deleted: npt.NDArray[np.int64]
    deleted_by: npt.NDArray[np.int64]


class ChangedRows:
    """The rows of a `TableChange`. Making one reads them, from memory or LMDB; raises LogTruncated when they are gone.

    Safe from any thread; everything derived is made when it is first asked for, and kept.
    """

    def __init__(self, change: TableChange) -> None:
        self.change = change
        self.added: pa.RecordBatch = change.added()
        self.removed: pa.RecordBatch = change.removed()
        self.is_small = self.added.num_rows + self.removed.num_rows <= SMALL
        self._values: dict[str, frozenset[object]] = {}

    @property
    def table(self) -> TableDef:
        """The table's definition as of the commit; the rows have the columns of the newest one."""
        return self.change.table

    def values(self, column: str) -> frozenset[object]:
        """The storage values of a column in new and old rows; empty when the table no longer has the column."""
        found = self._values.get(column)
        if found is None:
            found = self._values[column] = self._read_values(column)
        return found

    def _read_values(self, column: str) -> frozenset[object]:
        if self.is_small:
            new, old, _ = self._small_rows
            return frozenset([row[column] for row in (*new, *old) if column in row])
        place = self.added.schema.get_field_index(column)
        if place < 0:
            return frozenset()
        return frozenset(
            value for batch in (self.added, self.removed) for value in stored_values(batch.column(place).unique())
        )

    @cached_property
    def pairing(self) -> Pairing:
        """Which added version replaces which removed one."""
        added_seqs = self.added.column(SEQ).to_numpy()
        by = self.removed.column(BY).to_numpy()
        old_of = np.full(len(added_seqs), -1, dtype=np.int64)
        if not len(added_seqs) or not len(by):
            order = np.argsort(by, kind="stable")
            return Pairing(added_seqs, old_of, order, by[order])
        places = np.minimum(np.searchsorted(added_seqs, by), len(added_seqs) - 1)
        replaced = added_seqs[places] == by
        old_of[places[replaced]] = np.flatnonzero(replaced)
        deleted = np.flatnonzero(~replaced)
        deleted = deleted[np.argsort(by[deleted], kind="stable")]
        return Pairing(added_seqs, old_of, deleted, by[deleted])

    @cached_property
    def events(self) -> tuple[RowEvent, ...]:
        """The events of a small change in the order of their `seq`."""
        new, old, by = self._small_rows
        if not old:
            return tuple([RowEvent(row[SEQ], row, None) for row in new])  # type: ignore[arg-type]
        replaced = dict(zip(by, old, strict=True))
        found = [RowEvent(row[SEQ], row, replaced.pop(row[SEQ], None)) for row in new]  # type: ignore[call-overload,arg-type]
        if replaced:
            found += [RowEvent(seq, None, row) for seq, row in replaced.items()]
            found.sort(key=_seq_of)
        return tuple(found)

    @cached_property
    def _small_rows(self) -> tuple[list[Row], list[Row], list[int]]:
        by: list[int] = self.removed.column(BY).to_pylist() if self.removed.num_rows else []
        return _decoded(self.added), _decoded(self.removed), by


def _decoded(batch: pa.RecordBatch) -> list[Row]:
    """The rows as storage values by column."""
    if not batch.num_rows:
        return []
    names = [*batch.schema.names, DELETED]
    columns = [stored_values(batch.column(place)) for place in range(batch.num_columns)]
    return [dict(zip(names, (*values, False), strict=True)) for values in zip(*columns, strict=True)]


def stored_values(array: pa.Array) -> list[object]:
    """The storage values of an array of a storage type."""
    counts = _COUNTS.get(array.type.id)
    values: list[object] = array.to_pylist() if counts is None else array.view(counts).to_pylist()
    return values


def _seq_of(event: RowEvent) -> int:
    return event.seq
