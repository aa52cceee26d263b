"""How much vector indexes may use, and where their files lie."""

from __future__ import annotations

from pathlib import Path

import msgspec


class VectorSettings(msgspec.Struct, frozen=True):
    """What the server's configuration says of vector indexes. Without a `folder` nothing is kept over a restart."""

    folder: Path | None = None
    memory_bytes: int = 1024 * 1024 * 1024
    """All indexes together; the least recently used are unloaded, and one that would be larger is not built."""
    min_rows: int = 5_000
    """Rows of a table, or of one user in a USER table, below which search is exact."""
    follow_rows: int = 512
    """Rows after which an index takes in what is new; searches find it at once, whatever this says."""
