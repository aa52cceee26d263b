"""Jobs that remove what is not needed any more: dropped tables, dropped and cleared topics, old jobs.

Storage gives the space of dropped tables and topics back by itself, every `retention.interval_seconds`. These jobs have
it do so at once, and see it done: so a client that was given a job's id can tell when the space is free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sql.jobs.errors import JobSkipped
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.jobs.store import stage
from sql.writing import DefinitionWriter
from storage.catalog import TableDef
from storage.engine import StorageEngine
from storage.objects import DROPPED, DROPPED_TOPIC, DroppedTable, DroppedTopic, table_name
from storage.topic_definitions import TopicDef

_SLICE = 500
"""Jobs that one commit removes."""


def register(jobs: JobService, engine: StorageEngine) -> None:
    """Have these jobs run."""
    jobs.register(JobType.CLEANUP, _reclaiming(engine), lane=lambda _: "storage")
    jobs.register(JobType.TOPIC_CLEANUP, _clearing(engine), lane=lambda _: "storage")
    jobs.register(JobType.JOB_CLEANUP, lambda run: _remove_old(run, jobs), lane=lambda _: "jobs")


def stage_table_cleanup(txn: DefinitionWriter, tables: Sequence[TableDef], actor: str) -> str:
    """Put the job that reclaims dropped tables into the commit that drops them; its id."""
    parameters = {"tables": {table.full_name: table.table_id for table in tables}}
    return stage(txn, JobType.CLEANUP, parameters, actor=actor).job.job_id


def stage_topic_cleanup(txn: DefinitionWriter, topic: TopicDef, actor: str) -> str:
    """Put the job that reclaims messages of a topic into the commit that drops or clears it; its id."""
    parameters = {"topic": topic.full_name, "topic_id": topic.topic_id}
    return stage(txn, JobType.TOPIC_CLEANUP, parameters, actor=actor).job.job_id


def _reclaiming(engine: StorageEngine) -> Callable[[JobRun], str]:
    def run(run: JobRun) -> str:
        found = run.job.argument("tables")
        assert isinstance(found, Mapping)
        tables: dict[str, int] = dict(found)
        names = ", ".join(tables) if len(tables) < 4 else f"{len(tables)} tables"
        run.progress(0, f"reclaims {names}")
        kept = engine.reclaim(run.check)
        with engine.snapshot(purpose="cleanup") as snapshot:
            waiting = [
                name
                for name, table_id in tables.items()
                if snapshot.get_object(DROPPED, table_name(table_id), DroppedTable) is not None
            ]
        held = [name for name in waiting if tables[name] in kept]
        if len(held) < len(waiting):
            raise RuntimeError("the storage stopped reclaiming")
        if held:
            return (
                f"Reclaimed all but the rows of {', '.join(held[:4])}{' and others' * (len(held) > 4)}, which messages "
                "of topics refer to: those go with the messages"
            )
        return f"Reclaimed {names}"

    return run


def _clearing(engine: StorageEngine) -> Callable[[JobRun], str]:
    def run(run: JobRun) -> str:
        name, topic_id = run.job.argument("topic"), run.job.argument("topic_id")
        assert isinstance(topic_id, int)
        run.progress(0, f"reclaims messages of {name}")
        engine.reclaim(run.check)
        with engine.snapshot(purpose="cleanup") as snapshot:
            if snapshot.get_object(DROPPED_TOPIC, table_name(topic_id), DroppedTopic) is not None:
                raise RuntimeError("the storage stopped reclaiming")
        return f"Reclaimed messages of {name}"

    return run


def _remove_old(run: JobRun, jobs: JobService) -> str:
    old = jobs.old_jobs()
    if not old:
        raise JobSkipped("No job is old enough")
    removed = 0
    for start in range(0, len(old), _SLICE):
        run.check()
        removed += jobs.remove(old[start : start + _SLICE])
        run.progress(100 * (start + _SLICE) / len(old), f"removed {removed} of {len(old)}")
    return f"Removed {removed} finished job(s)"
