"""What is remembered of stored batches across transactions: verified ones, where large ones begin, scattered ones.

All are only hints. A verified batch is known by key and checksum, so a batch that replaced it is verified again. A
remembered first `_seq` saves the search in the B-tree (whose neighbours the LMDB binding would touch page by page): the
batch is looked up under the remembered key in the reader's own transaction, and because batches of a partition do not
overlap, a batch that begins at or before a `_seq` and ends at or after it is the right one, however old the hint.
A partition whose scan met many small batches is scattered: merging looks at it (`storage.merge`).
"""

from __future__ import annotations

from bisect import bisect_right, insort

LARGE = 1_024
"""Rows from which on a batch is worth remembering."""
SCATTERED = 32
"""Small batches from which on a scan says that merging them would help."""


class BatchMemory:
    """Bounded; when a part is full it starts anew."""

    def __init__(self, verified: int = 65_536, partitions: int = 4_096, starts: int = 4_096) -> None:
        self._limit = verified
        self._seen: dict[tuple[bytes, int], None] = {}
        self._partition_limit = partitions
        self._start_limit = starts
        self._starts: dict[bytes, list[int]] = {}
        self._scattered: dict[bytes, None] = {}

    def add_scattered(self, prefix: bytes) -> None:
        """A scan of the partition met SCATTERED small batches or more."""
        if len(self._scattered) < self._partition_limit:
            self._scattered[prefix] = None

    def take_scattered(self) -> list[bytes]:
        """The partitions, by what their keys begin with, that scans have complained of since the last call."""
        found, self._scattered = self._scattered, {}
        return list(found)

    def verified(self, key: bytes, checksum: int) -> bool:
        """Whether this very batch was verified before."""
        return (key, checksum) in self._seen

    def add_verified(self, key: bytes, checksum: int) -> None:
        """The batch matched its checksum."""
        if len(self._seen) >= self._limit:
            self._seen = {}
        self._seen[(key, checksum)] = None

    def start_before(self, prefix: bytes, seq: int) -> int | None:
        """The first `_seq` of the large batch that may hold `seq`."""
        starts = self._starts.get(prefix)
        if starts is None:
            return None
        place = bisect_right(starts, seq)
        return starts[place - 1] if place else None

    def add_start(self, prefix: bytes, first_seq: int) -> None:
        """A large batch of the partition begins there."""
        starts = self._starts.get(prefix)
        if starts is None or len(starts) >= self._start_limit:
            if len(self._starts) >= self._partition_limit:
                self._starts = {}
            self._starts[prefix] = [first_seq]
            return
        place = bisect_right(starts, first_seq)
        if not place or starts[place - 1] != first_seq:
            insort(starts, first_seq)
