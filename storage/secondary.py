"""Entries of secondary indexes: which keys a row holds in them. `storage.keys` describes the bytes.

An entry points to a row version, not to a row: its key ends in the `_seq`, which every version has of its own. So each
new version of a row replaces its entry in every index, whether or not the indexed columns changed. In exchange an index
can be read in any snapshot without a look at the rows, tables without a primary key have indexes like the others,
and nothing but the key tells where a row is. The entries of a version are two changes of one page more often than
not, because both keys begin with the same values.

While an index is built (`storage.index_build`), some rows have no entry yet: whoever ends a row's entry lets
one be missing, and in a unique index leaves alone what another row holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from storage.keys import encode_marked_columns, index_key_prefix
from storage.layout import SecondaryIndex
from storage.staging import Row, StagedPartition


class EntryKeys(NamedTuple):
    """The keys of rows in one index, without `_seq`; which rows hold theirs bare (unique, no NULL), which do not."""

    of: SecondaryIndex
    bases: list[bytes]
    bare: Sequence[int]
    suffixed: Sequence[int]

    @property
    def bare_keys(self) -> list[bytes]:
        """The keys of the rows `bare`."""
        return [self.bases[place] for place in self.bare]

    def suffixed_keys(self, seqs: Sequence[int]) -> list[bytes]:
        """The keys of the rows `suffixed`; `seqs` are those of all rows."""
        return [suffixed(self.bases[place], seqs[place]) for place in self.suffixed]

    def claims(self, seqs: Sequence[int]) -> tuple[list[bytes], list[int]]:
        """All keys, the suffixed ones first, and the `_seq` that each points to."""
        keys = self.suffixed_keys(seqs) + self.bare_keys
        return keys, [seqs[place] for place in (*self.suffixed, *self.bare)]


def suffixed(base: bytes, seq: int) -> bytes:
    """The key of an entry that is not unique."""
    return base + seq.to_bytes(8, "big")


def entry_keys(
    index: SecondaryIndex, columns: Sequence[pa.Array] | Mapping[str, pa.Array], staged: StagedPartition
) -> EntryKeys:
    """The keys of rows, given as all columns of the table in order, or as the index's columns by name."""
    return entry_keys_under(index, columns, index_key_prefix(staged.table_id, staged.partition, index.index_id))


def entry_keys_under(
    index: SecondaryIndex, columns: Sequence[pa.Array] | Mapping[str, pa.Array], prefix: bytes
) -> EntryKeys:
    """`entry_keys` under a prefix that the caller knows."""
    if isinstance(columns, Mapping):
        arrays = [columns[name] for name in index.names]
    else:
        arrays = [columns[position] for position in index.positions]
    bases = [prefix + key for key in encode_marked_columns(index.types, arrays)]
    every = range(len(bases))
    if not index.unique:
        return EntryKeys(index, bases, (), every)
    if not any(array.null_count for array in arrays):
        return EntryKeys(index, bases, every, ())
    valid = np.ones(len(bases), dtype=bool)
    for array in arrays:
        valid &= array.is_valid().to_numpy(zero_copy_only=False)
    return EntryKeys(index, bases, np.flatnonzero(valid).tolist(), np.flatnonzero(~valid).tolist())


def row_entries(indexes: Sequence[SecondaryIndex], staged: StagedPartition, row: Row) -> list[tuple[bytes, bool]]:
    """The key of one row in each index, without `_seq`, and whether it stands bare."""
    found = []
    for index in indexes:
        values = [row[position] for position in index.positions]
        prefix = index_key_prefix(staged.table_id, staged.partition, index.index_id)
        found.append((prefix + index.encode(values), index.unique and None not in values))
    return found
