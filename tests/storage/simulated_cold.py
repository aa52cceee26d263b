"""Flush and compaction in the simulation: a client may write between their steps, and their commits may fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from storage.errors import SchemaChanged, SnapshotExpired, StorageFull, StoragePoisoned

if TYPE_CHECKING:
    from tests.storage.simulation import Simulation


class SimulatedCold:
    """Moves tables to the cold tier; the simulation's own comparisons say whether anything can be told from it."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.moved = 0
        self.collected = 0

    def flush(self) -> None:
        """Flush one of the tables."""

        def move(table_id: int) -> None:
            self.moved += self._simulation.engine.cold.flush(table_id).segments

        self._attempt(move)

    def compact(self) -> None:
        """Compact one of the tables, then delete files that nobody needs."""

        def move(table_id: int) -> None:
            self._simulation.engine.cold.compact(table_id)
            self.collected += self._simulation.engine.cold.collect()

        self._attempt(move)

    def _attempt(self, move: Callable[[int], None]) -> None:
        simulation = self._simulation
        table = simulation.tables[simulation.random.choice(sorted(simulation.tables))]
        simulation.note(f"  {table.name}")
        simulation.arm()
        try:
            move(table.table_id)
        except (StoragePoisoned, StorageFull, SnapshotExpired, SchemaChanged):
            assert simulation.faulted
        simulation.await_reopening()
        simulation.settle()
        assert simulation.engine.check() == []
