"""A database whose statements are run to their end, with vector indexes that begin at 300 rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from sql.database import Database
from sql.identity import Identity, Role
from sql.vectors.settings import VectorSettings
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef

ADMIN = Identity("root", Role.SYSTEM)
ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)
SERVICE = Identity("sam", Role.SERVICE)
DIMENSION = 12


class Sql:
    """A database with statements that are run to their end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()
        self.engine.commit_sync(lambda writer: [writer.put_namespace(NamespaceDef(name)) for name in ("app", "other")])

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = StorageEngine.open(self.folder / "data", StorageOptions(map_start=64 << 20, merge=False))
        vectors = VectorSettings(self.folder / "vectors", min_rows=300, follow_rows=50)
        self.database = Database(self.engine, vectors=vectors)
        self.database.start()

    def close(self) -> None:
        self.database.close()
        self.engine.close()
        self.loop.close()

    def run(self, sql: str, *params: object, who: Identity = ADMIN) -> list[Any]:
        return self.loop.run_until_complete(self.database.execute(sql, params, "app", who))

    def message(self, sql: str, who: Identity = ADMIN) -> str:
        return self.run(sql, who=who)[-1].message or ""

    def rows(self, sql: str, *params: object, who: Identity = ADMIN) -> list[tuple[Any, ...]]:
        table = self.run(sql, *params, who=who)[-1].table
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def plan(self, sql: str, *params: object, who: Identity = ADMIN) -> str:
        return "\n".join(row[0] for row in self.rows(f"EXPLAIN {sql}", *params, who=who))

    def insert(self, table: str, vectors: np.ndarray, start: int = 0, who: Identity = ADMIN) -> None:
        places = ", ".join(f"(${3 * n + 1}, ${3 * n + 2}, ${3 * n + 3})" for n in range(len(vectors)))
        values: list[object] = []
        for number, vector in enumerate(vectors, start):
            values += [number, f"g{number % 50}", vector.tolist()]
        self.run(f"INSERT INTO {table} VALUES {places}", *values, who=who)

    def build(self, table: str) -> str:
        namespace, name = table.split(".")
        found = self.engine.catalog.table(namespace, name)
        assert found is not None
        return self.database.vectors.build(found.table_id, found.vector_indexes[0].index_id)


def vectors(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, DIMENSION)).astype(np.float32)


BASE = vectors(1, 800)
