"""Keeps the process small: large blocks go back to the system as soon as they are freed.

glibc learns from the first large block that is freed (a password hash takes 19 MB) to keep such blocks from then on,
and makes an arena for each of many threads. Fixed thresholds and two arenas cost nothing that we could measure and save
some 20 MB at rest. Where there is no glibc, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8


def keep_small() -> None:
    """Set the allocator up; before threads are started."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 512 * 1024)
        mallopt(_TRIM_THRESHOLD, 1024 * 1024)
        mallopt(_ARENA_MAX, 2)
