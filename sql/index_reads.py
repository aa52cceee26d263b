"""Reading by a secondary index: which entries an access leads to, and whether that is better than scanning.

An access is worth it when it leads to at most MOST_FETCHED rows; that is found out by reading entries up to this
bound. Of several accesses the one with the fewest entries is taken; one with FEW is taken without a look at the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from sql.plan import Bound, Constant, IndexAccess, ListRef, Operand
from storage.catalog import TableDef
from storage.keys import encode_key, encode_prefix, is_cut, marked_prefix, prefix_end
from storage.types import ColumnType
from storage.views import ReadView

MOST_FETCHED = 2_000
"""A range of more rows is read by scanning the partition: that is faster than row by row."""
FEW = 64
MOST_RANGES = 1_000
"""Combinations of IN lists that are looked up."""
_NOT_NULL = b"\x01"


class Observed(NamedTuple):
    """What a read by an index did, for EXPLAIN ANALYZE."""

    table: str
    used: str
    entries: int


_OBSERVED: ContextVar[list[Observed] | None] = ContextVar("observed", default=None)


@contextmanager
def observing() -> Iterator[list[Observed]]:
    """Collect the reads by index of this thread."""
    found: list[Observed] = []
    token = _OBSERVED.set(found)
    try:
        yield found
    finally:
        _OBSERVED.reset(token)


def observe(table: TableDef, index: str, entries: int) -> None:
    """Note a read by an index."""
    found = _OBSERVED.get()
    if found is not None:
        found.append(Observed(table.full_name, index, entries))


def operand_value(operand: Operand, values: Mapping[int, object]) -> object:
    """The storage value of an operand."""
    return operand.value if isinstance(operand, Constant) else values[operand.index]


def best_seqs(
    table: TableDef,
    partition: str,
    view: ReadView,
    accesses: Sequence[IndexAccess],
    values: Mapping[int, object],
    most: int = MOST_FETCHED,
) -> tuple[IndexAccess, list[int]] | None:
    """The access with the fewest rows, and their `_seq`s in ascending order; None when each has more than `most`."""
    best: tuple[IndexAccess, list[int]] | None = None
    for access in accesses:
        seqs = index_seqs(table, partition, view, access, values, most)
        if seqs is None:
            continue
        if best is None or len(seqs) < len(best[1]):
            best = access, seqs
            most = len(seqs)
        if len(seqs) <= FEW:
            break
    return None if best is None else (best[0], sorted(best[1]))


def index_seqs(
    table: TableDef, partition: str, view: ReadView, access: IndexAccess, values: Mapping[int, object], most: int
) -> list[int] | None:
    """The `_seq`s that an access leads to, each once; None when they are more than `most`."""
    ranges = key_ranges(table, access, values)
    if ranges is None:
        return None
    found: list[int] = []
    whole = len(access.equal) == len(access.columns)
    if whole and not access.marked:
        keys = [low for low, _ in ranges]
        return [seq for seq in view.find(table, partition, keys, access.index_id) if seq is not None]
    for low, high in ranges:
        entries = view.index_entries(table, partition, access.index_id, low, high, limit=most - len(found) + 1)
        found += [seq for _, seq in entries]
        if len(found) > most:
            return None
    return found


def key_ranges(
    table: TableDef, access: IndexAccess, values: Mapping[int, object]
) -> list[tuple[bytes, bytes | None]] | None:
    """The ranges of keys, which do not overlap, in key order; None when they are too many, or a value is no key."""
    types = [table.by_name[name].type for name in access.columns]
    choices = [_choices(operands, values) for operands in access.equal]
    count = 1
    for some in choices:
        count *= len(some)
    if count > MOST_RANGES:
        return None
    bounds = [bound for bound in (access.low, access.high) if bound is not None]
    if any(operand_value(bound.operand, values) is None for bound in bounds):
        return []
    try:
        return sorted({_range(types, access, list(prefix), values) for prefix in itertools.product(*choices)})
    except ValueError:
        return None


def _choices(operands: Sequence[Operand | ListRef], values: Mapping[int, object]) -> list[object]:
    """The distinct values of one column. NULL counts only where IS NULL was written."""
    found: dict[object, None] = {}
    for operand in operands:
        if isinstance(operand, ListRef):
            listed = values[operand.index]
            found.update((value, None) for value in (listed if isinstance(listed, (list, tuple)) else ()))
            found.pop(None, None)
        elif isinstance(operand, Constant):
            found[operand.value] = None
        elif (value := values[operand.index]) is not None:
            found[value] = None
    return list(found)


def _range(
    types: Sequence[ColumnType], access: IndexAccess, prefix: list[object], values: Mapping[int, object]
) -> tuple[bytes, bytes | None]:
    depth = len(prefix)
    if not access.marked and depth == len(types):
        return encode_key(types, prefix), None
    encode = marked_prefix if access.marked else encode_prefix
    start = encode(types[:depth], prefix)

    def edge(bound: Bound | None) -> bytes:
        if bound is None:
            return start
        return encode(types[: depth + 1], [*prefix, operand_value(bound.operand, values)])

    ranged = access.marked and (access.low is not None or access.high is not None)
    low = edge(access.low) if access.low is not None or not ranged else start + _NOT_NULL
    top = start + _NOT_NULL if ranged and access.high is None else edge(access.high)
    return low, prefix_end(top)


def first_seqs(
    table: TableDef,
    partition: str,
    view: ReadView,
    access: IndexAccess,
    values: Mapping[int, object],
    most: int,
    *,
    reverse: bool,
) -> list[int] | None:
    """The first `most` `_seq`s in the order of an index, whose equalities are single values.

    None when it cannot tell: keys that were cut do not sort by their values.
    """
    ranges = key_ranges(table, access, values)
    if ranges is None:
        return None
    found: list[int] = []
    for low, high in ranges:  # one, or none when a value is NULL
        entries = view.index_entries(table, partition, access.index_id, low, high, limit=most, reverse=reverse)
        if any(is_cut(key) or is_cut(key[:-8]) for key, _ in entries):
            return None
        found += [seq for _, seq in entries]
    return found
