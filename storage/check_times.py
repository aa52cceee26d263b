"""The part of the check command that reads `times`: each commit that added rows to STREAM tables, under its time."""

from __future__ import annotations

from storage.changes import CommitRecord
from storage.check_rows import entries_under
from storage.keys import parse_seq_key
from storage.reading import Reader

Problem = tuple[str, str, str]
"""Structure, place, sentence."""


class TimesCheck:
    """Reads `times`, then hears of every commit and of the newest live row of every STREAM table."""

    def __init__(self, reader: Reader, next_seq: int, truncated: int) -> None:
        self.problems: list[Problem] = []
        self._truncated = truncated
        self._noted: dict[int, int] = {}
        self._unmatched: dict[int, int] = {}
        self._last = 0
        self._first_time: int | None = None
        if reader.dbs.times is None:
            return  # a folder of a version without STREAM tables
        for key, value in entries_under(reader.txn, reader.dbs.times, b""):
            try:
                time_us, seq = parse_seq_key(key), parse_seq_key(bytes(value))
            except ValueError as error:
                self._report(key.hex(), str(error))
                continue
            if seq <= self._last:
                self._report(f"time {time_us}", f"_seq {seq} does not come after {self._last}")
            if seq >= next_seq:
                self._report(f"time {time_us}", f"_seq {seq} does not lie below next_seq {next_seq}")
            self._first_time = time_us if self._first_time is None else self._first_time
            self._noted[time_us] = seq
            self._last = max(self._last, seq)
        self._unmatched = {seq: time_us for time_us, seq in self._noted.items() if seq > truncated}

    def commit(self, first: int, record: CommitRecord, *, streams: bool) -> None:
        """A commit of the log; `streams` says whether it added rows to a STREAM table that still exists."""
        place = f"commit {first} to {record.last_seq}"
        time_us = self._unmatched.pop(record.last_seq, None)
        if time_us is not None and time_us != record.timestamp_us:
            self._report(place, f"stands under the time {time_us}, but was made at {record.timestamp_us}")
        if not streams or (self._first_time is not None and record.timestamp_us < self._first_time):
            return  # or pruned
        if self._noted.get(record.timestamp_us, 0) < record.last_seq:
            self._report(place, f"added rows to a STREAM table, and has no entry at its time {record.timestamp_us}")

    def newest_row(self, table: str, seq: int) -> None:
        """The newest live row of a STREAM table."""
        if seq > self._last:
            self._report(table, f"the row with _seq {seq} has no time: it would never expire")

    def finish(self) -> None:
        """All commits were seen."""
        for seq, time_us in self._unmatched.items():
            self._report(f"time {time_us}", f"no commit ends at its _seq {seq}")

    def _report(self, place: str, message: str) -> None:
        self.problems.append(("times", place, message))
