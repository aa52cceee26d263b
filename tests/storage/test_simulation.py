"""Seeded simulations of the engine (`tests/storage/simulation.py`).

HEADRACE_SEEDS=500 pytest tests/storage/test_simulation.py     more seeds
HEADRACE_SEED=17 pytest tests/storage/test_simulation.py       one seed again, as a failure names it
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.storage.simulation import Simulation

STEPS = int(os.environ.get("HEADRACE_STEPS", "200"))
ONE = os.environ.get("HEADRACE_SEED")
SEEDS = [int(ONE)] if ONE else range(int(os.environ.get("HEADRACE_SEEDS", "20")))


def memory() -> Path | None:
    """Where folders lie: what the disk keeps is not tested here, and memory syncs faster."""
    folder = Path("/dev/shm")
    return folder if os.access(folder, os.W_OK) else None


@pytest.mark.parametrize("seed", SEEDS)
def test_the_engine_agrees_with_its_model(seed: int) -> None:
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        simulation = Simulation(Path(folder) / "data", seed)
        try:
            simulation.run(STEPS)
        except BaseException as error:
            tail = "\n".join(simulation.trace[-20:])
            error.add_note(f"reproduce with HEADRACE_SEED={seed} HEADRACE_STEPS={STEPS}; the last steps were\n{tail}")
            raise
        finally:
            simulation.close()


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    traces = []
    for name in ("first", "second"):
        simulation = Simulation(tmp_path / name, 4)
        simulation.run(120)
        simulation.close()
        traces.append((simulation.trace, simulation.counts, simulation.state, simulation.engine.last_seq))
    assert traces[0] == traces[1]


def test_the_simulation_reaches_what_it_is_for() -> None:
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        simulation = Simulation(Path(folder) / "data", 2)
        simulation.run(600)
        simulation.close()
    assert all(simulation.counts.values()), simulation.counts
    assert simulation.streams.evicted
    assert simulation.cold.moved
    assert simulation.cold.collected
    topics = simulation.topics
    assert all((topics.given, topics.expired, topics.gone, topics.acknowledged))
