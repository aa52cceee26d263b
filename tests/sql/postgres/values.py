"""Answers of both sides as comparable values: a class of types and a list of rows."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from sql.results import StatementResult
from storage.types import Kind


@dataclass(frozen=True)
class Answer:
    """What one side answers: the class of the type ("error" for an error, "" without rows), and the values."""

    kind: str
    values: list[Any]
    message: str = ""

    def same(self, other: Answer) -> bool:
        """Whether both say the same: the class of type where there are values, and the values."""
        if "error" in (self.kind, other.kind):
            return self.kind == other.kind
        if len(self.values) != len(other.values) or not all(map(_same, self.values, other.values)):
            return False
        return self.kind == other.kind or all(value is None for value in self.values)

    def shown(self) -> str:
        """The answer in one line."""
        return f"error: {self.message}" if self.kind == "error" else f"{self.kind} {self.values!r}"


_THEIRS = {
    "boolean": "boolean", "smallint": "integer", "integer": "integer", "bigint": "integer", "numeric": "fractional",
    "double precision": "fractional", "real": "fractional", "text": "text", "character varying": "text",
    "character": "text", "name": "text", "unknown": "text", "date": "date", "time without time zone": "time",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "datetime", "interval": "text",
    "json": "json", "jsonb": "json", "record": "json", "bytea": "bytes", "uuid": "uuid", "regtype": "text",
}  # fmt: skip
_OURS = {
    Kind.BOOLEAN: "boolean", Kind.SMALLINT: "integer", Kind.INT: "integer", Kind.BIGINT: "integer",
    Kind.FLOAT: "fractional", Kind.DOUBLE: "fractional", Kind.DECIMAL: "fractional", Kind.TEXT: "text",
    Kind.DATE: "date", Kind.TIME: "time", Kind.TIMESTAMP: "timestamp", Kind.DATETIME: "datetime", Kind.JSON: "json",
    Kind.FILE: "json", Kind.BYTES: "bytes", Kind.UUID: "uuid", Kind.EMBEDDING: "json",
}  # fmt: skip
_FRACTION = re.compile(r"\.\d+")


def their_answer(rows: list[list[Any]]) -> Answer:
    """PostgreSQL's rows of type and JSON value."""
    if not rows:
        return Answer("", [])
    kind = rows[0][0]
    ours = "json" if kind.endswith("[]") else _THEIRS[kind]
    return Answer(ours, [_theirs(kind, value) for _, value in rows])


def _theirs(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "interval":
        return re.sub(r"\bmon(s?)\b", r"month\1", value)
    if kind == "bytea":
        return value.removeprefix("\\x")
    if kind.startswith("timestamp"):
        return value if "infinity" in value else datetime.fromisoformat(value).isoformat()
    if kind.startswith("time"):
        return time.fromisoformat(value).isoformat()
    return value


def our_answer(result: StatementResult) -> Answer:
    """The first column of a result of ours."""
    if not result.columns:
        return Answer("", [])
    kind = _OURS[result.columns[0].type.kind]
    if result.table is not None:
        values = result.table.column(0).to_pylist()
    else:
        values = [row[0] for row in result.rows or []]
    return Answer(kind, [_ours(kind, value) for value in values]) if values else Answer("", [])


def _ours(kind: str, value: object) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.loads(value) if isinstance(value, str) else value
    if kind == "uuid":
        return str(UUID(bytes=value)) if isinstance(value, bytes) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        if isinstance(one, int) and isinstance(other, int):
            return one == other
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
