"""Limits and intervals of the storage engine, with their defaults, and the figures that it reports."""

from __future__ import annotations

import msgspec

GIB = 1 << 30


class StorageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the engine. Sizes are bytes, times are seconds unless the name says otherwise."""

    map_start: int = 64 * GIB
    """First size of the LMDB map: address space, not memory and not disk. Halved until the system grants it."""
    max_bytes: int = 0
    """Largest size of the data file; 0 means what the disk allows."""
    queue_works: int = 16_384
    """Works that may wait for the writer; beyond it `submit` raises QueueFull."""
    group_works: int = 1_024
    """Works that share one commit at most."""
    group_rows: int = 20_000
    """Rows (by `weight`) that share one commit at most."""
    group_wait_us: int = 400
    """How long the writer waits for the rest of a group when the group before had several works."""
    direct_rows: int = 10_000
    """A work of more weight runs alone and writes straight into the LMDB transaction."""
    lease_seconds: float = 300.0
    """How long a snapshot may live before it is reported and ended."""
    drain_seconds: float = 5.0
    """How long map growth and reopening wait for readers before they end them."""
    retention_seconds: float = 86_400.0
    """How long the change log is kept."""
    retention_bytes: int = 4 * GIB
    """How much the change log (commit records and superseded rows moved to `history`) may take; 0: no bound."""
    ring_commits: int = 1_024
    """Commits that the feed keeps in memory."""
    ring_bytes: int = 16 << 20
    """Bytes of change sets that the feed keeps in memory."""
    batch_rows: int = 65_536
    """Rows of a full batch."""
    batch_bytes: int = 8 << 20
    """Bytes at which a batch is full (a single row may be larger)."""
    merge: bool = True
    """Whether small batches are merged in the background."""
    merge_fan_in: int = 16
    """Neighbouring batches of one size tier that make a merge worth while."""
    merge_dead_share: float = 0.25
    """Share of dead rows at which a full batch is rewritten."""
    cold_cache_bytes: int = 4 * GIB
    """How much decoded row groups of cold tables may take in `<data>/cache`."""
    cold_segment_rows: int = 1 << 20
    """Rows of a full Parquet file."""
    cold_segment_bytes: int = 64 << 20
    """Decoded bytes of a full Parquet file: a flush holds about twice as many in memory."""
    cold_scan_bytes: int = 64 << 20
    """Decoded rows of one cold scan that stay in memory; the others wait in a file without a name in `<data>/cache`."""
    cold_misses: int = 32
    """How often a work of the writer is put off until a cold row group is loaded; then it reads files in its place."""
    cold_grace_seconds: float = 3_600.0
    """How long a file that a compaction replaced is kept for readers of the open format."""
    evict: bool = True
    """Whether expired rows of STREAM tables are ended in the background."""
    stream_eviction_seconds: float = 1.0
    """Least time between two rounds of that."""
    maintenance_seconds: float = 10.0
    """Time between rounds of retention and purging."""


class StorageStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine reports about itself."""

    last_seq: int
    queued_works: int
    open_snapshots: int
    oldest_snapshot_seconds: float
    expired_snapshots: int
    map_bytes: int
    used_bytes: int
    commits: int
    committed_works: int
    failed_works: int
    merges: int
    evicted_rows: int
    first_retained_seq: int
    reopened: int
    log_bytes: int
    """Space that the retained change log holds: commit records and the superseded rows that only it needs."""
