"""What a statement answered."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace._answers import ColumnAnswer, StatementAnswer
from headrace._exceptions import UnexpectedRows
from headrace._values import Row, decode_columns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result: its name, its type as on the wire, and whether it is the key, not null, unique."""

    name: str
    data_type: Any
    """A name such as `BigInt`, or an object such as `{"Decimal": {"precision": 10, "scale": 2}}`."""
    flags: tuple[str, ...] = ()
    """Some of `pk`, `nn`, `uq`."""


def columns_of(schema: Sequence[ColumnAnswer]) -> tuple[Column, ...]:
    """The columns of a `schema`."""
    return tuple(Column(entry.name, entry.data_type, entry.flags) for entry in schema)


class Result:
    """The rows of a query, or what another statement did.

    Values are Python's (dates, decimals, UUIDs; see the client's page of the docs), or with `raw=True` those of the
    wire.
    """

    def __init__(self, answer: StatementAnswer, *, raw: bool = False) -> None:
        self.columns = columns_of(answer.schema)
        """The columns, in order; empty for statements without rows."""
        self.row_count = answer.row_count
        """Rows returned, or rows that the statement changed."""
        self.message = answer.message
        """What a statement without rows did."""
        self.as_user = answer.as_user
        """Who it ran as."""
        self._raw = raw
        self._wire = answer.rows
        self._tuples: list[tuple[Any, ...]] | None = None

    def tuples(self) -> list[tuple[Any, ...]]:
        """The rows as tuples, in the order of `columns`. Raises InvalidAnswer for values that Python cannot hold."""
        if self._tuples is None:
            if self._raw:
                self._tuples = [tuple(row) for row in self._wire]
            else:
                self._tuples = decode_columns([(c.name, c.data_type) for c in self.columns], self._wire)
            self._wire = []
        return self._tuples

    @property
    def rows(self) -> list[Row]:
        """The rows by column name; the last of columns with one name wins."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.tuples()]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.tuples())

    def one(self) -> Row:
        """The only row. Raises UnexpectedRows when there are none or more."""
        self._expect_one_row()
        return self.rows[0]

    def one_or_none(self) -> Row | None:
        """The only row, None when there is none. Raises UnexpectedRows when there are more."""
        return self.one() if len(self) else None

    def scalar(self) -> Any:
        """The only value. Raises UnexpectedRows unless there is one row of one column."""
        self._expect_one_row()
        if len(self.columns) != 1:
            raise UnexpectedRows(f"one column was expected, the result has {len(self.columns)}")
        return self.tuples()[0][0]

    def _expect_one_row(self) -> None:
        if len(self) != 1:
            raise UnexpectedRows(f"one row was expected, the result has {len(self)}")

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table. Imports pyarrow. For large results `query_arrow` is the direct way."""
        from headrace._arrow import table_of

        return table_of(self.columns, self.tuples())

    def pandas(self) -> Any:
        """The rows as a pandas DataFrame. Raises ImportError where pandas is not installed."""
        return to_pandas(self.arrow())

    def polars(self) -> Any:
        """The rows as a polars DataFrame. Raises ImportError where polars is not installed."""
        return to_polars(self.arrow())

    def __repr__(self) -> str:
        if self.message is not None:
            return f"<Result {self.message!r}>"
        return f"<Result {len(self)} rows of {', '.join(column.name for column in self.columns)}>"


def to_pandas(table: pa.Table) -> Any:
    """A pandas DataFrame. Raises ImportError where pandas is not installed."""
    importlib.import_module("pandas")
    return table.to_pandas()


def to_polars(table: pa.Table) -> Any:
    """A polars DataFrame. Raises ImportError where polars is not installed."""
    return importlib.import_module("polars").from_arrow(table)
