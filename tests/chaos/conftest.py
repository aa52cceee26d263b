"""Options of the chaos tests: short by default, as long as you like when you look for something."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

DEFAULT_SEED, DEFAULT_SECONDS, DEFAULT_ROUNDS = 20261122, 10.0, 1


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What the command line says."""

    seed: int
    seconds: float
    rounds: int


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos", "for `pytest tests/chaos`")
    group.addoption("--chaos-seed", type=int, default=DEFAULT_SEED, help="what all that is random depends on")
    group.addoption("--chaos-seconds", type=float, default=DEFAULT_SECONDS, help="length of a round")
    group.addoption("--chaos-rounds", type=int, default=DEFAULT_ROUNDS, help="number of rounds")


@pytest.fixture(scope="session")
def chaos(request: pytest.FixtureRequest) -> ChaosOptions:
    """The options; the defaults when pytest read the command line before it knew them."""
    config = request.config
    return ChaosOptions(
        seed=config.getoption("--chaos-seed", default=DEFAULT_SEED),
        seconds=config.getoption("--chaos-seconds", default=DEFAULT_SECONDS),
        rounds=config.getoption("--chaos-rounds", default=DEFAULT_ROUNDS),
    )
