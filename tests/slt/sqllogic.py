"""A small runner for the sqllogictest format: reads the records of a file, runs them, compares the answers.

A record is `statement ok|error` or `query TYPES [SORT] [LABEL]`, its SQL, and for a query the expected values after
`----`, listed one a line or as `N values hashing to MD5`. `skipif` and `onlyif` before it name engines: ours is
`postgresql`. Values compare as text: integers without a point, reals with three places, NULL, `(empty)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

ENGINE = "postgresql"
_HASHED = re.compile(r"(\d+) values hashing to ([0-9a-f]{32})")

Rows = Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Record:
    """One statement or query. `types` is empty for a statement; `fails` tells that it must be refused."""

    line: int
    sql: str
    conditions: tuple[tuple[str, str], ...] = ()
    fails: bool = False
    is_query: bool = False
    types: str = ""
    sort: str = "nosort"
    label: str = ""
    expected: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether skipif and onlyif leave it to an engine like ours."""
        return all((name == ENGINE) == (word == "onlyif") for word, name in self.conditions)


def records(text: str) -> Iterator[Record]:
    """The records of a file up to `halt`."""
    lines = text.splitlines()
    place = 0
    conditions: list[tuple[str, str]] = []
    while place < len(lines):
        words = lines[place].split("#")[0].split()
        place += 1
        if not words or words[0] == "hash-threshold":
            continue
        if words[0] in ("skipif", "onlyif"):
            conditions.append((words[0], words[1]))
            continue
        first = place + 1
        body, place = _paragraph(lines, place)
        kept, conditions = tuple(conditions), []
        if words[0] == "halt":
            if all((name == ENGINE) == (word == "onlyif") for word, name in kept):
                return
        elif words[0] == "statement":
            yield Record(first, "\n".join(body), kept, fails=words[1] == "error")
        elif words[0] == "query":
            at = body.index("----") if "----" in body else len(body)
            sort, label = (*words[2:4], "", "")[:2]
            yield Record(
                first, "\n".join(body[:at]), kept, False, True, words[1], sort or "nosort", label, tuple(body[at + 1 :])
            )
        else:
            raise ValueError(f"line {first - 1}: {words[0]} is no kind of record")


def _paragraph(lines: Sequence[str], place: int) -> tuple[list[str], int]:
    body = []
    while place < len(lines) and lines[place].strip():
        body.append(lines[place])
        place += 1
    return body, place


def shown(value: object, kind: str) -> str:
    """A value as the format writes it in a column of type I, R or T."""
    if value is None:
        return "NULL"
    if kind == "I":
        return str(int(value)) if isinstance(value, (bool, int, float, Decimal)) else _integer(str(value))
    if kind == "R":
        return f"{float(value):.3f}" if isinstance(value, (int, float, Decimal)) else str(value)
    if isinstance(value, float) and value.is_integer():
        value = f"{value:.1f}"
    text = str(value)
    return "".join(c if " " <= c <= "~" else "@" for c in text) or "(empty)"


def _integer(text: str) -> str:
    digits = re.match(r"\s*[+-]?\d+", text)
    return str(int(digits[0])) if digits else "0"


def values(rows: Rows, types: str, sort: str) -> list[str]:
    """All values of a result in the order in which they are compared."""
    texts = [[shown(value, kind) for value, kind in zip(row, types, strict=True)] for row in rows]
    if sort == "rowsort":
        texts.sort()
    flat = [text for row in texts for text in row]
    return sorted(flat) if sort == "valuesort" else flat


def digest(found: Sequence[str]) -> str:
    """The MD5 of values, one a line."""
    return hashlib.md5("".join(f"{value}\n" for value in found).encode(), usedforsecurity=False).hexdigest()


def agrees(record: Record, rows: Rows) -> bool:
    """Whether rows are the answer that a record expects."""
    if any(len(row) != len(record.types) for row in rows):
        return False
    found = values(rows, record.types, record.sort)
    hashed = _HASHED.fullmatch(record.expected[0]) if len(record.expected) == 1 else None
    if hashed is not None:
        return len(found) == int(hashed[1]) and digest(found) == hashed[2]
    return found == list(record.expected)
