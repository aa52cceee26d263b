"""Samples of the server's figures in `dba.stats`: one a second after the start, then one every so often.

One task of the event loop that sleeps. A sample is one work of the writer; old ones go by works of bounded size, at the
start and every twelve hours. When the table cannot be written, the log says so once, and the next sample tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from sql.dba_tables import PRUNED_AT_ONCE, UnusableTable, add_samples, are_there, create_missing, prune, samples
from storage.engine import StorageEngine
from storage.errors import StorageError
from storage.seams import Clock

_log = logging.getLogger(__name__)

FIRST_SECONDS = 1.0
PRUNING_SECONDS = 12 * 3600.0
_DAY_US = 86_400 * 1_000_000


async def create_dba_tables(engine: StorageEngine) -> None:
    """Make what is missing of the namespace `dba`. Raises StorageError."""
    if not are_there(engine.catalog):
        await engine.commit(create_missing)


class DbaSampler:
    """Writes `figures` (which may block) every `interval` seconds and keeps them for `days`."""

    def __init__(
        self,
        engine: StorageEngine,
        figures: Callable[[], Mapping[str, float]],
        clock: Clock,
        *,
        interval: float,
        days: int,
    ) -> None:
        self._engine = engine
        self._figures = figures
        self._clock = clock
        self._interval = interval
        self._days = days
        self._complained = ""
        self._pruned: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; call it on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            await self.round()
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Take a sample, and prune when it is time."""
        try:
            await self.sample()
            now = self._clock.monotonic()
            if self._pruned is None or now - self._pruned >= PRUNING_SECONDS:
                await self.prune()
                self._pruned = now
        except (StorageError, UnusableTable) as error:
            self._complain(f"no figures are written to dba.stats: {error}")
        except Exception:  # noqa: BLE001  a figure that fails must not end the sampling for good
            _log.exception("taking figures for dba.stats failed")
        else:
            self._complained = ""

    async def sample(self) -> None:
        """Write one sample durably. Raises StorageError and UnusableTable."""
        figures = await asyncio.to_thread(self._figures)
        rows = samples(figures, self._clock.now_us())
        await self._engine.commit(lambda wtxn: add_samples(wtxn, rows), weight=rows.num_rows)

    async def prune(self) -> int:
        """Delete the samples that are too old; how many. Raises StorageError and UnusableTable."""
        before = self._clock.now_us() - self._days * _DAY_US
        total = 0
        while True:
            gone = await self._engine.commit(partial(prune, before_us=before), weight=PRUNED_AT_ONCE)
            total += gone
            if gone < PRUNED_AT_ONCE:
                return total

    def _complain(self, sentence: str) -> None:
        if sentence != self._complained:
            _log.warning("%s", sentence)
            self._complained = sentence
