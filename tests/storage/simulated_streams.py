"""The STREAM table of a simulation: rows are appended, expire and are evicted, while commits fail and time jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from storage import TableDef, WriteTransaction
from storage.catalog import NamespaceDef, TableKind
from storage.changes import TableChange
from storage.errors import StorageFull, StoragePoisoned
from storage.eviction import oldest
from tests.storage.helpers import keyless_table, rows_of

if TYPE_CHECKING:
    from tests.storage.simulation import Simulation

TTL_SECONDS = 60
NEVER_STORED = (StoragePoisoned, StorageFull)


class SimulatedStreams:
    """What stands in the table: for each user, `_seq` -> when it was committed."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._rows: dict[str, dict[int, int]] = {}
        self.evicted = 0
        simulation.engine.commit_sync(self._create)

    @staticmethod
    def _create(wtxn: WriteTransaction) -> None:
        table = msgspec.structs.replace(
            keyless_table(wtxn.allocate_table_id(), "short"), namespace="live", kind=TableKind.STREAM,
            ttl_seconds=TTL_SECONDS,
        )  # fmt: skip
        wtxn.put_namespace(NamespaceDef("live"))
        wtxn.put_table(table)

    @property
    def table(self) -> TableDef:
        """The definition that the engine holds."""
        table = self._simulation.engine.catalog.table("live", "short")
        assert table is not None
        return table

    def append(self, user: str) -> None:
        """A client appends rows; the commit may fail."""
        simulation, table = self._simulation, self.table
        count = simulation.random.randint(1, 6)
        runs: list[tuple[int, int]] = []

        def work(wtxn: WriteTransaction) -> None:
            first, _ = wtxn.insert(table, user, rows_of(table, [(n, None, n) for n in range(count)]))
            runs.append((first, wtxn.now_us()))

        simulation.attempts.clear()
        simulation.arm()
        error = simulation.engine.submit(work, weight=count).exception(30)
        assert error is None or (isinstance(error, NEVER_STORED) and simulation.faulted)
        if error is None or any(attempt.stored for attempt in simulation.attempts):
            first, at = runs[-1]
            self._rows.setdefault(user, {}).update((first + n, at) for n in range(count))
        simulation.await_reopening()
        simulation.settle()
        self.compare()

    def evict(self) -> None:
        """Expired rows end; a commit may fail, and then the next round ends them."""
        simulation = self._simulation
        simulation.arm()
        try:
            self.evicted += simulation.engine.evict()
        except NEVER_STORED:
            assert simulation.faulted
        simulation.await_reopening()
        simulation.settle()
        simulation.engine.evict()
        self.compare()
        with simulation.engine.snapshot() as snapshot, snapshot.reading() as reader:
            cutoff = snapshot.expired_through(self.table)
            for user in self._rows:
                assert oldest(reader, (self.table.table_id, user), cutoff, 1_000).seqs == []

    def compare(self) -> None:
        """What has not expired at the time of a view is what it shows."""
        table = self.table
        with self._simulation.engine.snapshot() as snapshot:
            for user, rows in self._rows.items():
                there = [seq for seq, at in sorted(rows.items()) if at + table.ttl_us > snapshot._now_us]
                assert snapshot.scan(table, user, ["_seq"]).column(0).to_pylist() == there
                assert snapshot.count(table, user) == len(there)

    def told(self, change: TableChange) -> None:
        """The feed tells of rows that came and rows that went."""
        come: set[Any] = set(change.added().column(0).to_pylist())
        gone: list[Any] = change.removed().column(0).to_pylist()
        assert come <= self._rows[change.partition].keys()
        assert len(gone) == len(set(gone))
        assert set(gone) <= self._rows[change.partition].keys()
