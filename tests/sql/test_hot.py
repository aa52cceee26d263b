"""Hot statements: what they learn never fails a request, and they run from the first request after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sql.database import Database
from sql.errors import TableNotFound
from sql.hot import HotStatements
from sql.identity import Identity, Role
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef

ANN = Identity("ann", Role.DBA)
OPTIONS = StorageOptions(map_start=64 << 20, merge=False)
TABLE = "CREATE TABLE app.t (id INT PRIMARY KEY, name TEXT)"
READ = "SELECT name FROM app.t WHERE id = 1"


def fill(folder: Path) -> None:
    with StorageEngine.open(folder, OPTIONS) as engine:
        engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("app")))
        database = Database(engine)
        asyncio.run(database.execute(f"{TABLE}; INSERT INTO app.t VALUES (1, 'one')", None, None, ANN))
        database.close()


def test_a_failure_to_remember_a_statement_does_not_fail_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table may be dropped, or the time be over, between the commit and the planning of the next run."""

    def fail(*_: object) -> None:
        raise TableNotFound("dropped meanwhile")

    fill(tmp_path / "data")
    monkeypatch.setattr(HotStatements, "_remember", fail)
    with StorageEngine.open(tmp_path / "data", OPTIONS) as engine:
        database = Database(engine)
        (result,) = asyncio.run(database.execute("INSERT INTO app.t VALUES (2, 'two')", None, None, ANN))
        assert result.row_count == 1
        database.close()


def test_point_reads_are_hot_before_the_first_commit_after_a_restart(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with StorageEngine.open(tmp_path / "data", OPTIONS) as engine:
        database = Database(engine)
        (first,) = asyncio.run(database.execute(READ, None, None, ANN))
        assert first.rows is None
        (second,) = asyncio.run(database.execute(READ, None, None, ANN))
        assert second.rows == [["one"]]
        database.close()


def test_a_read_does_not_wait_on_the_event_loop_while_the_map_moves(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with StorageEngine.open(tmp_path / "data", OPTIONS) as engine:
        assert engine._registry.try_pause()
        try:
            assert engine.snapshot_at_once() is None
        finally:
            engine._registry.resume()
        with engine.snapshot_at_once() or pytest.fail("nothing holds readers back") as snapshot:
            assert snapshot.seq == engine.last_seq
