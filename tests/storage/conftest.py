"""An engine in a fresh folder, closed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import StorageEngine, StorageOptions

QUIET = StorageOptions(map_start=64 << 20, merge=False, evict=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the engine keeps its data."""
    return tmp_path / "data"


@pytest.fixture
def engine(folder: Path) -> Iterator[StorageEngine]:
    """An engine without background work."""
    with StorageEngine.open(folder, QUIET) as opened:
        yield opened
