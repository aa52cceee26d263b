"""What scans read and what they left out, for EXPLAIN ANALYZE."""

from __future__ import annotations

from typing import NamedTuple


class ScanCounts(NamedTuple):
    """Hot batches, Parquet files and row groups."""

    batches: int
    files: int
    files_pruned: int
    row_groups: int
    row_groups_pruned: int

    def __sub__(self, other: ScanCounts) -> ScanCounts:
        """What came since."""
        return ScanCounts(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class ScanStatistics:
    """What the scans of one view read and left out. A file counts once, as read if anything of it was."""

    def __init__(self) -> None:
        self.batches = 0
        """Hot batches read."""
        self._row_groups = 0
        self._row_groups_pruned = 0
        self._read: set[int] = set()
        self._seen: set[int] = set()

    def cold(self, segment_id: int, *, read: bool) -> None:
        """Note a row group of a segment."""
        self._seen.add(segment_id)
        if read:
            self._read.add(segment_id)
            self._row_groups += 1
        else:
            self._row_groups_pruned += 1

    def counts(self) -> ScanCounts:
        """The figures so far."""
        return ScanCounts(
            self.batches,
            len(self._read),
            len(self._seen) - len(self._read),
            self._row_groups,
            self._row_groups_pruned,
        )
