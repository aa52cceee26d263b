"""Bounds of live queries, with their defaults."""

from __future__ import annotations

from pathlib import Path

import msgspec

MIB = 1 << 20


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds. No value means "no limit"."""

    batch_size: int = 1_000
    """Rows of a snapshot's batch when the client names no `batch_size`."""
    max_batch_size: int = 10_000
    """The largest `batch_size` that a client may ask for."""
    snapshot_memory_bytes: int = 4 * MIB
    """How much of one waiting snapshot stays in memory; what is beyond waits in an unlinked temporary file."""
    snapshot_folder: Path | None = None
    """Where those files are made; None for the system's folder."""
    idle_seconds: float = 120.0
    """How long a client may take to ask for the next batch of a snapshot."""
    workers: int = 4
    """Threads for reading the log, for large commits and for queries that the query engine evaluates."""
    blocking_workers: int = 2
    """How many of them such queries may use at once."""
    log_readers: int = 2
    """How many of them may read the log at once, for subscriptions that catch up."""
    resume_seconds: float = 0.1
    """How long a resume may look for the rows of its first batch before it answers with those that it has."""
