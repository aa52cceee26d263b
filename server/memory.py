"""Keeps the process small: large blocks go back to the system as soon as they are freed.

glibc learns from the first large block that is freed (a password hash takes 19 MB) to keep such blocks from then on,
and makes an arena for each of many threads. Fixed thresholds and two arenas cost nothing that we could measure and save
some 20 MB at rest. Where there is no glibc, nothing is done.

DuckDB brings an allocator of its own, jemalloc, which keeps the addresses of all memory that it ever had. They count
towards the limit of the process (`[duckdb] process_memory_bytes`), so after one large query every later one would be
refused. It is told to give addresses and pages back; that costs nothing that we could measure either. Arrow's
allocator, mimalloc, takes addresses by the gigabyte; it is told to take them in smaller steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_JEMALLOC = "retain:false,dirty_decay_ms:1000,muzzy_decay_ms:0"
_MIMALLOC = "64MiB"


def trim() -> None:
    """Give the system back what starting has left free, once: imports leave holes all over the heap."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_small() -> None:
    """Set the allocators up; before threads are started and before DuckDB and Arrow are loaded."""
    os.environ.setdefault("DUCKDB_JE_MALLOC_CONF", _JEMALLOC)
    os.environ.setdefault("MIMALLOC_ARENA_RESERVE", _MIMALLOC)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 512 * 1024)
        mallopt(_TRIM_THRESHOLD, 1024 * 1024)
        mallopt(_ARENA_MAX, 2)
