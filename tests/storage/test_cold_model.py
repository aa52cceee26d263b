"""The engine against a plain dict model, with flushes, compactions and deleted files among the steps."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.storage.helpers import plain_table
from tests.storage.test_model import OPTIONS, EngineMachine


class ColdMachine(EngineMachine):
    """Small files and a small cache, so that there are many of the ones and the other forgets."""

    options = msgspec.structs.replace(OPTIONS, cold_cache_bytes=1 << 12, cold_segment_rows=6, cold_grace_seconds=0.0)

    @rule()
    def flush(self) -> None:
        """Nothing stays hot, and nothing looks different."""
        cold = self.engine.cold
        cold.flush(self.table.table_id)
        with self.engine.snapshot() as snapshot:
            assert cold.pending_rows(snapshot, self.table) == 0

    @rule(check=st.booleans())
    def compact_cold(self, check: bool) -> None:
        """Dead rows are gone from the files; those of replaced files go when no snapshot needs them."""
        cold = self.engine.cold
        with self.engine.snapshot() as before:
            cold.compact(self.table.table_id)
            cold.collect()
            for user, model in self.models.items():
                self.compare(before, user, model)
        with self.engine.snapshot() as after:
            rows = sum(segment.rows for segment in cold.segments(after) if segment.status == "committed")
            assert rows == sum(map(len, self.models.values())) - cold.pending_rows(after, self.table)
        if check:
            cold.collect()
            assert self.engine.check() == []


class ColdPlainMachine(ColdMachine):
    """The same over a table without UNIQUE columns."""

    make = staticmethod(plain_table)
    unique = False


ColdMachine.TestCase.settings = ColdPlainMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestColdModel = ColdMachine.TestCase
TestColdPlainModel = ColdPlainMachine.TestCase
