"""The changes of a few rows in a live query's answer, row by row, on values that are decoded once for all queries."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from sql.live.changed_rows import ChangedRows, Row
from sql.live.interface import ChangeType, LiveChange
from sql.live.live_plan import LivePlan
from sql.live.wire_rows import WireRow, renderer
from sql.plan import DELETED, SEQ

LARGEST = 1_000
"""Events in one message."""
_STREAM = "stream"
ROW_ID = "row_id"


class Messages:
    """Events in the order of their `seq`, gathered into LiveChanges."""

    def __init__(self) -> None:
        self.changes: list[LiveChange] = []
        self._type: ChangeType | None = None
        self._seqs: list[int] = []
        self._rows: list[WireRow] = []
        self._old: list[WireRow] = []

    def add(self, change_type: ChangeType, seq: int, row: WireRow | None, old: WireRow | None) -> None:
        """Add one event."""
        if change_type is not self._type or len(self._seqs) >= LARGEST:
            self._type = change_type
            self._seqs, self._rows, self._old = [], [], []
            self.changes.append(LiveChange(change_type, self._seqs, self._rows, self._old))
        self._seqs.append(seq)
        if row is not None:
            self._rows.append(row)
        if old is not None:
            self._old.append(old)


def changes_by_row(plan: LivePlan, rows: ChangedRows, values: Sequence[object]) -> list[LiveChange]:
    """The changes, for a native plan. Raises NotCovered when the values need DuckDB, ExecutionError as `sql.wire`."""
    messages = Messages()
    condition = plan.condition
    for seq, new, old in rows.events:
        had = old is not None and (condition is None or bool(condition.evaluate_row(old, values)))
        has = new is not None and (condition is None or bool(condition.evaluate_row(new, values)))
        if has:
            assert new is not None
            if had:
                assert old is not None
                row, before = _updated(plan, old, new, values)
                messages.add(ChangeType.UPDATE, seq, row, before)
            else:
                messages.add(ChangeType.INSERT, seq, _row(plan, new, values), None)
        elif had:
            assert old is not None
            messages.add(ChangeType.DELETE, seq, None, _deleted(plan, old, values, rows.change.partition))
    return messages.changes


def keeps_any(plan: LivePlan, rows: ChangedRows, values: Sequence[object]) -> bool:
    """Whether a condition that is covered keeps any version. Raises NotCovered when the values need DuckDB."""
    condition = plan.condition
    if condition is None:
        return True
    versions = (version for event in rows.events for version in (event.new, event.old) if version is not None)
    return any(condition.evaluate_row(version, values) for version in versions)


def _row(plan: LivePlan, row: Row, values: Sequence[object]) -> WireRow:
    """A row as the wire has it."""
    shown: WireRow = {}
    for name, column, expression, render, _ in plan.shown:
        if column is not None:
            value = row[column]
        else:
            assert expression is not None
            value = expression.evaluate_row(row, values)
        shown[name] = value if render is None or value is None else render(value)
    return shown


def _updated(plan: LivePlan, old: Row, new: Row, values: Sequence[object]) -> tuple[WireRow, WireRow]:
    """The new row, and of the old one the key, what changed, and `_seq`."""
    row: WireRow = {}
    before: WireRow = {}
    for name, column, expression, render, is_key in plan.shown:
        if column is not None:
            value, was = new[column], old[column]
        else:
            assert expression is not None
            value, was = expression.evaluate_row(new, values), expression.evaluate_row(old, values)
        row[name] = value if render is None or value is None else render(value)
        if is_key or differs(was, value):
            before[name] = was if render is None or was is None else render(was)
    return row, _with_keys(plan, before, old)


def _deleted(plan: LivePlan, old: Row, values: Sequence[object], partition: str) -> WireRow:
    """All of the row that is gone."""
    return finished(plan, _with_keys(plan, _row(plan, old, values), old), partition, old[SEQ])


def _with_keys(plan: LivePlan, shown: WireRow, row: Row) -> WireRow:
    """An old row with the key columns that are not shown."""
    for column in plan.hidden_keys:
        render, value = renderer(column, plan.bigint), row[column.name]
        shown[column.name] = value if render is None or value is None else render(value)
    return shown


def finished(plan: LivePlan, old: WireRow, partition: str, seq: object) -> WireRow:
    """The old row of a delete: `_deleted` is true where it is shown; rows of STREAM tables have their `row_id`."""
    if DELETED in old:
        old[DELETED] = True
    if plan.table.kind == _STREAM and ROW_ID not in old:
        old[ROW_ID] = f"{partition}:{seq}"
    return old


def differs(was: object, value: object) -> bool:
    """Whether two storage values are different; NULL equals NULL, NaN equals NaN."""
    if was is value or was == value:
        return False
    return not (isinstance(was, float) and isinstance(value, float) and isnan(was) and isnan(value))
