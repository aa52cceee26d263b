"""The list of records that give another answer here than SQLite gave, each with its reason: `differences.txt`.

A line is `file:line | reason` for one record, or `~ regular expression | reason` for a kind of statement, matched
with its beginning. Empty lines and those that begin with `#` are for readers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.slt.sqllogic import Record

LIST = Path(__file__).parent / "differences.txt"


@dataclass(frozen=True, slots=True)
class Differences:
    """What is listed: reasons by (file, line), and kinds of statements."""

    records: dict[tuple[str, int], str]
    kinds: Sequence[tuple[re.Pattern[str], str]]

    def reason(self, file: str, record: Record) -> str | None:
        """Why the record does not pass, or None when it must."""
        known = self.records.get((file, record.line))
        if known is not None or record.fails:
            return known
        return next((reason for pattern, reason in self.kinds if pattern.match(record.sql)), None)


def read(text: str) -> Differences:
    """The list; raises ValueError for a line that is none of it."""
    records: dict[tuple[str, int], str] = {}
    kinds = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        what, _, reason = (part.strip() for part in line.rpartition(" | "))
        if not what or not reason:
            raise ValueError(f"line {number} gives no reason: {line}")
        if what.startswith("~ "):
            kinds.append((re.compile(what[2:].strip(), re.IGNORECASE), reason))
            continue
        file, _, place = what.rpartition(":")
        if not place.isdigit() or (file, int(place)) in records:
            raise ValueError(f"line {number} names no record, or one twice: {line}")
        records[file, int(place)] = reason
    return Differences(records, kinds)
