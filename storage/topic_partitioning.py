"""Which partition of a topic a message goes to: xxHash64 of its key.

The partition is `xxh64(key) mod partitions`: xxHash64 with seed 0 over the UTF-8 bytes of the key's text, taken as an
unsigned number. It is the same in every version and on every machine, so a client can compute it, and two topics with
equally many partitions keep equal keys in the partition of the same number.

Why not Kafka's murmur2: nothing here shares partitions with a Kafka cluster, and a bridge produces by key anyway.
xxHash64 is specified, exists for every language, and its library hashes a key in a tenth of a microsecond; murmur2
would be a loop over bytes in Python.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

Partitions = npt.NDArray[np.int64]

_hash = xxhash.xxh64_intdigest


def partition_of_key(key: str, partitions: int) -> int:
    """The partition of a key."""
    return _hash(key.encode()) % partitions if partitions > 1 else 0


def partitions_of_keys(keys: Iterable[bytes], count: int, partitions: int) -> Partitions:
    """The partitions of `count` keys, given as UTF-8."""
    hashes = np.fromiter(map(_hash, keys), dtype=np.uint64, count=count)
    return (hashes % np.uint64(partitions)).astype(np.int64)
