"""A database in a folder, and statements by their text, for the tests of indexes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sql.database import Database
from sql.identity import Identity, Role
from sql.limits import SqlLimits
from sql.results import StatementResult
from storage import StorageOptions
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine

ADMIN = Identity("root", Role.SYSTEM)
ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)


class IndexWorld:
    """One engine with a database over it. `jobs` lets jobs run."""

    def __init__(self, folder: Path, *, jobs: bool = False) -> None:
        self.engine = StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False))
        if self.engine.catalog.namespace("app") is None:
            self.engine.commit_sync(lambda w: [w.put_namespace(NamespaceDef(n)) for n in ("default", "app")])
        self.loop = asyncio.new_event_loop()
        self.database = self.loop.run_until_complete(self._open())
        if jobs:
            self.database.start()

    async def _open(self) -> Database:
        return Database(self.engine, SqlLimits(statement_timeout=20))

    def run(self, sql: str, *params: object, identity: Identity = ADMIN) -> StatementResult:
        """The last result of a batch; raises SqlError."""
        return self.loop.run_until_complete(self.database.execute(sql, params, "app", identity))[-1]

    def rows(self, sql: str, *params: object, identity: Identity = ADMIN) -> list[tuple[object, ...]]:
        """The rows of a query."""
        result = self.run(sql, *params, identity=identity)
        if result.rows is not None:
            return [tuple(row) for row in result.rows]
        assert result.table is not None
        return list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))

    def plan(self, sql: str, *params: object, identity: Identity = ADMIN) -> str:
        """EXPLAIN of a statement."""
        return "\n".join(str(row[0]) for row in self.rows(f"EXPLAIN {sql}", *params, identity=identity))

    def check(self) -> None:
        """Fail unless everything stored is in order."""
        problems = self.engine.check()
        assert problems == [], problems

    def close(self) -> None:
        """Close database and engine."""
        self.database.close()
        self.engine.close()
        self.loop.close()
