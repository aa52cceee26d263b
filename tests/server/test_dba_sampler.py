"""Samples in dba.stats: written and pruned on time, and a failure is told once and mended by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from server.dba_sampler import PRUNING_SECONDS, DbaSampler, create_dba_tables
from storage.engine import StorageEngine
from storage.options import StorageOptions

DAY_US = 86_400 * 1_000_000


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000
        self.seconds = 0.0

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[StorageEngine]:
    with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20)) as opened:
        asyncio.run(create_dba_tables(opened))
        yield opened


def count(engine: StorageEngine) -> int:
    with engine.snapshot() as snapshot:
        table = snapshot.catalog.table("dba", "stats")
        return 0 if table is None else snapshot.count(table, "")


def sampler(engine: StorageEngine, clock: Time, figures: Mapping[str, float] | None = None) -> DbaSampler:
    return DbaSampler(engine, lambda: figures or {"a": 1, "b": 2}, clock, interval=30, days=7)


def test_samples_add_up_and_old_ones_go(engine: StorageEngine) -> None:
    clock = Time()
    taking = sampler(engine, clock)

    async def rounds() -> list[int]:
        counts = []
        for _ in range(10):
            await taking.round()
            counts.append(count(engine))
            clock.us += DAY_US
            clock.seconds += 86_400
        return counts

    assert asyncio.run(rounds()) == [2, 4, 6, 8, 10, 12, 14, 16, 16, 16]


def test_pruning_waits_for_its_time(engine: StorageEngine) -> None:
    clock = Time()
    taking = sampler(engine, clock)
    asyncio.run(taking.round())
    clock.us += 30 * DAY_US
    clock.seconds += PRUNING_SECONDS - 1
    asyncio.run(taking.round())
    assert count(engine) == 4
    clock.seconds += 1
    asyncio.run(taking.round())
    assert count(engine) == 4, "the first sample went, a third came"


def test_nothing_is_made_twice(engine: StorageEngine) -> None:
    before = engine.stats().commits
    asyncio.run(create_dba_tables(engine))
    assert engine.stats().commits == before


def test_a_table_that_is_gone_is_told_once(engine: StorageEngine, caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    taking = sampler(engine, clock)
    table = engine.catalog.table("dba", "stats")
    assert table is not None
    engine.commit_sync(lambda wtxn: wtxn.drop_table(table.table_id))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            asyncio.run(taking.round())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "dba.stats" in caplog.text
    asyncio.run(create_dba_tables(engine))
    asyncio.run(taking.round())
    assert count(engine) == 2


def test_figures_that_fail_do_not_end_it(engine: StorageEngine, caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[Mapping[str, float] | Exception] = iter([RuntimeError("no"), {"a": 1}])

    def figures() -> Mapping[str, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    taking = DbaSampler(engine, figures, Time(), interval=30, days=7)
    for _ in range(2):
        asyncio.run(taking.round())
    assert count(engine) == 1
    assert "failed" in caplog.text


def test_starting_and_closing(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.dba_sampler.FIRST_SECONDS", 0.0)

    async def run() -> None:
        taking = DbaSampler(engine, lambda: {"a": 1}, Time(), interval=0.001, days=7)
        sampled = asyncio.Event()
        original = taking.sample

        async def sample() -> None:
            await original()
            sampled.set()

        monkeypatch.setattr(taking, "sample", sample)
        taking.start()
        await asyncio.wait_for(sampled.wait(), 20)
        await taking.close()
        await DbaSampler(engine, dict, Time(), interval=1, days=1).close()

    asyncio.run(run())
    assert count(engine) >= 1
