"""Files of indexes: whole after a restart, and built again when they are missing, damaged or of another state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from storage.catalog import TableKind
from tests.sql.vectors.vector_world import VectorWorld


def vectors(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[VectorWorld, np.ndarray]:
    """An index of 200 rows that was saved."""
    base = vectors(1, 260)
    world = VectorWorld(tmp_path)
    world.insert(range(200), base[:200])
    world.build()
    world.upkeep.close()
    return world, base


def files(world: VectorWorld) -> list[Path]:
    return sorted(path for path in (world.folder / "vectors").rglob("*") if path.is_file())


def test_an_index_is_loaded_and_caught_up_after_a_start(stored: tuple[VectorWorld, np.ndarray]) -> None:
    world, base = stored
    world.insert(range(200, 260), base[200:])
    world.delete([7])
    world.open()
    with world.engine.snapshot() as view:
        assert world.search(view, base[250], 1).distances[0] == pytest.approx(0, abs=1e-12)
        assert world.search(view, base[7], 1).distances[0] > 1e-3
        index = world.indexes.resident(world.place())
        assert index is not None
        assert len(index) == 200
    world.build()
    assert len(index) == 260
    world.close()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".json", ".usearch"])
@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip, lambda path: path.write_bytes(b"")])
def test_what_is_damaged_is_built_again(
    stored: tuple[VectorWorld, np.ndarray], suffix: str, damage: Callable[[Path], object]
) -> None:
    world, base = stored
    [path] = [path for path in files(world) if path.suffix == suffix]
    damage(path)
    world.open()
    with world.engine.snapshot() as view:
        assert world.search(view, base[5], 1).distances[0] == pytest.approx(0, abs=1e-12)
    world.build()
    index = world.indexes.resident(world.place())
    assert index is not None
    assert len(index) == 200
    world.upkeep.close()
    world.open()
    with world.engine.snapshot() as view:
        assert world.indexes.usable(view, world.table, "", "v", world.metric) is not None
    world.close()


def test_an_index_of_a_later_state_is_not_taken(
    stored: tuple[VectorWorld, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    """As when an older data file is put back and the folder of indexes is left."""
    world, _ = stored
    [path] = [path for path in files(world) if path.suffix == ".json"]
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(content | {"commit": world.engine.last_seq + 1}))
    world.open()
    with caplog.at_level(logging.WARNING), world.engine.snapshot() as view:
        assert world.indexes.usable(view, world.table, "", "v", world.metric) is None
    assert "another state of the database" in caplog.text
    world.close()


def test_a_file_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    world = VectorWorld(tmp_path, kind=TableKind.USER)
    world.insert(range(50), vectors(1, 50), "../../evil/..")
    world.build()
    world.close()
    assert len(files(world)) == 2
    assert not list(tmp_path.rglob("*evil*"))


def test_saving_again_leaves_one_index(stored: tuple[VectorWorld, np.ndarray]) -> None:
    world, base = stored
    world.open()
    world.insert(range(200, 260), base[200:])
    world.build()
    world.upkeep.close()
    assert sorted(path.suffix for path in files(world)) == [".json", ".usearch"]
    world.close()


def test_files_of_dropped_indexes_go(stored: tuple[VectorWorld, np.ndarray]) -> None:
    world, _ = stored
    table = msgspec.structs.replace(world.table, vector_indexes=())
    world.engine.commit_sync(lambda writer: writer.put_table(table))
    world.upkeep._sort_out()
    assert files(world) == []
    assert world.indexes.residents() == {}
    world.close()
