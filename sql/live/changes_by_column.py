"""The changes of any number of rows in a live query's answer, by column; with DuckDB where the plan needs it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sql.live.changed_rows import ChangedRows
from sql.live.changes_by_row import LARGEST, finished
from sql.live.interface import ChangeType, LiveChange
from sql.live.live_plan import LivePlan
from sql.live.selection import Arguments, Selection, select_rows
from sql.live.wire_rows import WireRow, wire_rows
from sql.plan import SEQ
from sql.query import QueryRuntime
from sql.wire import wire_values
from sql.workers import Control

Places = npt.NDArray[np.int64]


def changes_by_column(
    plan: LivePlan, rows: ChangedRows, arguments: Arguments, runtime: QueryRuntime, control: Control | None
) -> list[LiveChange]:
    """The changes. Without `control` it raises MustBlock when DuckDB is needed; otherwise as DuckDB and `sql.wire`."""
    new = select_rows(plan, rows.added, arguments, runtime, control)
    old = select_rows(plan, rows.removed, arguments, runtime, control)
    pairing = rows.pairing
    new_at = _at(new, rows.added.num_rows)
    old_at = _at(old, rows.removed.num_rows + 1)  # the last one stands for "none": old_of is -1 there
    before = old_at[pairing.old_of]
    moved = np.flatnonzero((new_at >= 0) | (before >= 0))
    gone = pairing.deleted[old_at[pairing.deleted] >= 0]
    seqs = np.concatenate((pairing.added_seqs[moved], pairing.deleted_by[old_at[pairing.deleted] >= 0]))
    if not len(seqs):
        return []
    news = np.concatenate((new_at[moved], np.full(len(gone), -1, dtype=np.int64)))
    olds = np.concatenate((before[moved], old_at[gone]))
    order = np.argsort(seqs, kind="stable")
    return _messages(plan, rows, new, old, seqs[order], news[order], olds[order])


def _at(selection: Selection, length: int) -> Places:
    """Where each row stands among those kept; -1 for the others."""
    at = np.full(length, -1, dtype=np.int64)
    at[selection.places] = np.arange(len(selection.places), dtype=np.int64)
    return at


def _messages(
    plan: LivePlan, rows: ChangedRows, new: Selection, old: Selection, seqs: Places, news: Places, olds: Places
) -> list[LiveChange]:
    shown = wire_rows(plan.columns, new.columns, plan.bigint) if len(new.places) else []
    earlier = _Earlier(plan, rows, new, old, news, olds)
    partition = rows.change.partition
    types = (news >= 0).astype(np.int8) + 2 * (olds >= 0).astype(np.int8)
    changes: list[LiveChange] = []
    for start, end in _runs(types):
        change_type = _TYPES[int(types[start])]
        here, there = news[start:end].tolist(), olds[start:end].tolist()
        new_rows = [] if change_type is ChangeType.DELETE else [shown[place] for place in here]
        if change_type is ChangeType.INSERT:
            old_rows = []
        elif change_type is ChangeType.UPDATE:
            old_rows = [earlier.changed(place) for place in there]
        else:
            old_rows = [finished(plan, earlier.whole(place), partition, earlier.seqs[place]) for place in there]
        changes.append(LiveChange(change_type, seqs[start:end].tolist(), new_rows, old_rows))
    return changes


_TYPES = {1: ChangeType.INSERT, 2: ChangeType.DELETE, 3: ChangeType.UPDATE}


def _runs(types: npt.NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Where events of one type follow each other, in pieces of at most `LARGEST`."""
    edges = [0, *(np.flatnonzero(np.diff(types)) + 1).tolist(), len(types)]
    for start, end in pairwise(edges):
        for first in range(start, end, LARGEST):
            yield first, min(first + LARGEST, end)


class _Earlier:
    """The old rows of the events, as wire values by column."""

    def __init__(
        self, plan: LivePlan, rows: ChangedRows, new: Selection, old: Selection, news: Places, olds: Places
    ) -> None:
        self.seqs: list[int] = []
        if not len(old.places):
            return
        self._names = [column.name for column in plan.columns]
        self._values = [
            wire_values(array, column.type, plan.bigint, column.name)
            for column, array in zip(plan.columns, old.columns, strict=True)
        ]
        removed = rows.removed.column(SEQ).to_numpy()
        self.seqs = removed[old.places].tolist()
        places = pa.array(old.places)
        self._keys = [
            (c.name, wire_values(_column(rows.removed, c.name).take(places), c.type, plan.bigint, c.name))
            for c in plan.hidden_keys
        ]
        both = (news >= 0) & (olds >= 0)
        self._different = [
            None if shown.is_key else _different(before, after, olds[both], news[both], len(old.places))
            for shown, before, after in zip(plan.shown, old.columns, new.columns or old.columns, strict=True)
        ]

    def whole(self, place: int) -> WireRow:
        """All of an old row."""
        row: WireRow = {name: values[place] for name, values in zip(self._names, self._values, strict=True)}
        for name, keys in self._keys:
            row[name] = keys[place]
        return row

    def changed(self, place: int) -> WireRow:
        """The key, the changed columns and `_seq` of an old row."""
        row: WireRow = {}
        for name, values, different in zip(self._names, self._values, self._different, strict=True):
            if different is None or different[place]:
                row[name] = values[place]
        for name, keys in self._keys:
            row[name] = keys[place]
        return row


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.get_field_index(name))


def _different(before: pa.Array, after: pa.Array, olds: Places, news: Places, length: int) -> list[bool]:
    """For each old row whether its successor has another value; NULL equals NULL, NaN equals NaN."""
    flags = np.zeros(length, dtype=bool)
    if len(olds):
        flags[olds] = unequal(before.take(pa.array(olds)), after.take(pa.array(news)))
    found: list[bool] = flags.tolist()
    return found


def unequal(left: pa.Array, right: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether values of two columns of one type differ, row by row; NULL equals NULL, NaN equals NaN."""
    if pa.types.is_fixed_size_list(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.fromiter((a != b for a, b in pairs), dtype=bool, count=len(left))
    if pa.types.is_fixed_size_binary(left.type):
        left, right = left.cast(pa.binary()), right.cast(pa.binary())
    same = pc.fill_null(pc.equal(left, right), False)
    if left.null_count or right.null_count:
        same = pc.or_(same, pc.and_(pc.is_null(left), pc.is_null(right)))
    if pa.types.is_floating(left.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
    flags: npt.NDArray[np.bool_] = ~same.to_numpy(zero_copy_only=False)
    return flags
