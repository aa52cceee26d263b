"""The few calls of DuckDB's Python module that go around its relation layer, in one place.

`connection._submit` and `connection._bind` are what `connection.sql` itself uses (in `duckdb._seam`); going there
directly halves the cost of a small query, and the binder's answer about parameters is offered nowhere else. Should a
later version drop them, this file is what has to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Signature:
    """What DuckDB's binder says of a query: output names and types, and the types of its parameters.

    While the type of a parameter is unknown, so are the outputs (`names` is empty then).
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    parameters: dict[int, str]


def bind(connection: duckdb.DuckDBPyConnection, text: str) -> Signature:
    """The signature of one query, without running it."""
    names, types, parameters, *_ = connection._bind(text)
    unknown = any(str(kind) == "UNKNOWN" for kind in types)
    return Signature(
        names=() if unknown else tuple(names),
        types=() if unknown else tuple(str(kind) for kind in types),
        parameters={int(name): str(kind) for name, kind in parameters},
    )


def stream(
    connection: duckdb.DuckDBPyConnection, text: str, values: Sequence[object], batch_rows: int
) -> pa.RecordBatchReader:
    """Run one query; its rows come as they are produced, while the connection stays busy."""
    result = connection._submit(text, list(values) or None, "stream", batch_rows)
    reader: pa.RecordBatchReader = result.arrow_reader()
    return reader


def collect(connection: duckdb.DuckDBPyConnection, text: str, values: Sequence[object], batch_rows: int) -> pa.Table:
    """Run one query to its end; the table owns its memory."""
    result = connection._submit(text, list(values) or None, "arrow", batch_rows)
    table: pa.Table = result.arrow_table()
    return table
