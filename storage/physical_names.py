"""The names of columns in the Parquet files of the cold tier: given once, so that a rename touches no file.

A column is called in files what it was called when it was made. Where that cannot be (another column of the table had
the name before, or the open table format does not allow it), the column's id is added. The names follow from the
schema history of the table alone.
"""

from __future__ import annotations

import re
from itertools import chain

from storage.catalog import TableDef

RESERVED = frozenset({"_seq", "_row_id"})
"""What the first columns of a file are called."""
_UNPLAIN = re.compile(r"[^\w.-]")
_LONGEST = 200


def physical_names(table: TableDef) -> dict[int, str]:
    """The name in files of every column that the table has or had, by column id."""
    found: dict[int, str] | None = table.__dict__.get("_physical_names")
    if found is None:
        found = table.__dict__["_physical_names"] = _names(table)
    return found


def user_column(table: TableDef) -> str:
    """What other engines call the column that tells whose row it is: a name that no column has or had."""
    versions = chain((table.columns,), (version.columns for version in table.history))
    taken = {column.name.lower() for columns in versions for column in columns}
    taken |= {name.lower() for name in physical_names(table).values()}
    name = "_user_id"
    while name in taken:
        name += "_"
    return name


def _names(table: TableDef) -> dict[int, str]:
    first: dict[int, str] = {}
    ordered = sorted(table.history, key=lambda version: version.version)
    for columns in (*(version.columns for version in ordered), table.columns):
        for column in columns:
            first.setdefault(column.column_id, column.name)
    taken = set(RESERVED)
    names: dict[int, str] = {}
    for column_id, name in sorted(first.items()):
        plain = _UNPLAIN.sub("-", name)[:_LONGEST]
        given = name if plain == name and name.lower() not in taken else f"{plain}~{column_id}"
        while given.lower() in taken:
            given += "~"
        taken.add(given.lower())
        names[column_id] = given
    return names
