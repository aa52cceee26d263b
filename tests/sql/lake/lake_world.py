"""What tests of open tables share: flushing, where a table is published, and its rows as other engines have them."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Any

from sql.identity import Identity
from sql.lake.units import LakeDef
from storage.objects import table_name
from tests.sql.jobs.job_world import LONG
from tests.sql.storages.test_moving import JOB
from tests.sql.topic_world import ROOT, TopicWorld

Rows = list[dict[str, Any]]


def ran(world: TopicWorld, sql: str, who: Identity = ROOT) -> list[str]:
    """A statement that starts jobs, and what they said in the end."""
    message = world.message(sql, who=who)
    found = [world.database.jobs.wait(job_id, LONG) for job_id in JOB.findall(message)]
    assert all(job.status in {"completed", "skipped"} for job in found), found
    return [job.message for job in found]


def lake_of(world: TopicWorld, name: str = "app.t") -> LakeDef | None:
    """What was published of a table."""
    namespace, _, own = name.partition(".")
    table = world.engine.catalog.table(namespace, own)
    assert table is not None
    with world.engine.snapshot() as snapshot:
        return snapshot.get_object("lake", table_name(table.table_id), LakeDef)


def root_of(world: TopicWorld, name: str = "app.t") -> Path:
    """The folder of an open table in the storage `local`."""
    lake = lake_of(world, name)
    assert lake is not None
    return world.engine.path / "cold" / lake.root


def own_rows(world: TopicWorld, table: str = "t", who: Identity = ROOT) -> Rows:
    """The rows as a SELECT has them, in the types of Delta Lake, with `_seq`, in its order."""
    result = world.run(f"SELECT _seq, * FROM {table}", who=who)
    names = [column.name for column in result.columns]
    kinds = {column.name: column.type.kind.value for column in result.columns}
    if result.rows is not None:
        rows = [tuple(row) for row in result.rows]
    else:
        assert result.table is not None
        rows = list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))
    return in_order(
        {name: _outward(value, kinds[name]) for name, value in zip(names, row, strict=True)} for row in rows
    )


def in_order(rows: Any) -> Rows:
    """Rows by `_seq`."""
    return sorted(rows, key=lambda row: row["_seq"])


def _outward(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "Uuid":
        return str(uuid.UUID(bytes=value))
    if kind == "Time":
        return value.isoformat("microseconds") if isinstance(value, datetime.time) else value
    return value
