"""Rows of STREAM tables expire exactly when their time is over, whatever happens around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.stream_model import StreamWorld


@pytest.mark.parametrize("seed", range(8))
def test_what_is_visible_is_what_the_model_says(tmp_path: Path, seed: int) -> None:
    world = StreamWorld(tmp_path / "data", seed)
    try:
        world.run(100)
        assert world.evicted
    finally:
        world.close()
