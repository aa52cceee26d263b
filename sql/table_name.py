"""Names of tables and topics as statements write them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableName:
    """A table's or a topic's name, with the namespace if it was written, and its place in the request's text."""

    namespace: str | None
    name: str
    line: int = 1
    column: int = 1
