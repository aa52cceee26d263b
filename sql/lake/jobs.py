"""Jobs that publish open tables, and the look for what is to be published or taken away.

Flushes and compactions publish what they moved. What else changes an open table (deletes and updates of cold rows,
ALTER TABLE, a publication that a crash cut off) the look finds: once at the start, then whenever something was
committed, a minute after the last look or later: a look that takes long is followed by a longer pause.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sql.jobs.errors import JobSkipped
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.lake.publishing import LakePublisher, Outdated, Published
from sql.storages.registry import storages_of
from storage.catalog import TableDef
from storage.engine import StorageEngine
from storage.seams import SYSTEM_CLOCK, Clock
from storage.storage_definitions import StorageDef

ACTOR: Final = "lake"
"""The actor of publications that nobody asked for."""
_ATTEMPTS: Final = 3
_PAUSES: Final = 20
"""A look takes at most one part of this many of the time."""


def register(jobs: JobService, lake: LakePublisher) -> None:
    """Have the removal of open tables run."""
    jobs.register(JobType.MANIFEST_EVICTION, lambda _: _sweep(lake), lane=lambda _: "open tables")


def publish(run: JobRun, engine: StorageEngine, lake: LakePublisher, table_id: int) -> Published | None:
    """Publish a table in a job, after files that do not fit its schema were rewritten."""
    for _ in range(_ATTEMPTS):
        run.check()
        try:
            return lake.publish(table_id, run.check)
        except Outdated:
            engine.cold.compact(table_id, run.progress, run.check)
    raise RuntimeError("the schema of the table changed again and again while its files were rewritten")


def submit_publication(jobs: JobService, table: TableDef) -> None:
    """Queue a publication that moves no rows, unless one is queued or runs."""
    parameters = {"table": table.full_name, "table_id": table.table_id, "publish_only": True}
    jobs.submit_once(JobType.FLUSH, parameters, actor=ACTOR, idempotency_key=f"publish:{table.table_id}")


def _sweep(lake: LakePublisher) -> str:
    gone = lake.sweep()
    if not gone:
        raise JobSkipped("No open table is left of a dropped table")
    return f"Took away the open tables of {gone} dropped table(s)"


class _Looked(NamedTuple):
    """All that decides whether the open table of a table is behind, when it was not."""

    table: TableDef
    storages: tuple[StorageDef, ...]
    epoch: int
    superseded: int
    moved: int


class LakeUpkeep:
    """Looks for open tables that are behind. One thread uses it.

    A table that was not behind is looked at again when rows of it were superseded or moved, or a definition changed:
    a look costs in proportion to its partitions.
    """

    def __init__(
        self, engine: StorageEngine, jobs: JobService, lake: LakePublisher, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._lake = lake
        self._clock = clock
        self._seen: object = None
        self._not_before = 0.0
        self._clean: dict[int, _Looked] = {}
        self._swept = -1

    def look(self) -> None:
        """Queue what is due."""
        engine, lake = self._engine, self._lake
        present = engine.last_seq, engine.catalog.version
        began = self._clock.monotonic()
        if present == self._seen or began < self._not_before:
            return
        self._seen = present
        catalog = engine.catalog
        clean: dict[int, _Looked] = {}
        with engine.snapshot(purpose="open tables") as snapshot:
            storages = tuple(storages_of(snapshot))
        for table in catalog.tables():
            if table.expires:
                continue
            changes = engine.changes.of(table.table_id)
            looked = _Looked(table, storages, changes.epoch, changes.superseded, changes.moved)
            if self._clean.get(table.table_id) == looked or not lake.stale(table.table_id):
                clean[table.table_id] = looked
            else:
                submit_publication(self._jobs, table)
        self._clean = clean
        if catalog.version != self._swept:
            if lake.orphans():
                self._jobs.submit_once(JobType.MANIFEST_EVICTION, {}, actor=ACTOR, idempotency_key="open tables")
            else:
                self._swept = catalog.version
        ended = self._clock.monotonic()
        self._not_before = ended + _PAUSES * (ended - began)
