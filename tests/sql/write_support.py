"""A real engine, and statements by their text run through DDL, users and DML as the session does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sql import ddl, users
from sql.dialect import parse_batch
from sql.identity import Identity, Role
from sql.passwords import HashParameters
from sql.results import StatementResult
from sql.statements import AlterUser, CreateUser, DropUser
from storage import StorageEngine, StorageOptions, WriteTransaction
from storage.catalog import NamespaceDef, TableDef

QUIET = StorageOptions(map_start=64 << 20, merge=False)
CHEAP = users.PasswordSettings(parameters=HashParameters(memory_kib=8, iterations=1))
ADMIN = Identity("root", Role.SYSTEM)
DBA = Identity("dora", Role.DBA)
SERVICE = Identity("sam", Role.SERVICE)
ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)


@dataclass(frozen=True)
class Context:
    identity: Identity
    namespace: str = "app"


class Database:
    """Runs one definition or account statement at a time."""

    def __init__(self, engine: StorageEngine) -> None:
        self.engine = engine
        for name in ("default", "app", "alice", "sam"):
            self.commit(lambda w, name=name: w.put_namespace(NamespaceDef(name)))

    def commit(self, work, weight: int = 1):
        return self.engine.commit_sync(work, weight=weight)

    def run(self, text: str, identity: Identity = ADMIN, namespace: str = "app") -> str:
        """The message of one definition or account statement."""
        (parsed,) = parse_batch(text)
        statement = parsed.statement
        context = Context(identity, namespace)
        result: StatementResult
        if isinstance(statement, (CreateUser, AlterUser, DropUser)):
            with self.engine.snapshot() as snapshot:
                mutation = users.prepare(statement, snapshot, identity, CHEAP)
            result = self.commit(mutation)
        else:
            result = self.commit(lambda w: ddl.run(statement, w, context))
        return result.message or ""

    def table(self, name: str, namespace: str = "app") -> TableDef:
        found = self.engine.catalog.table(namespace, name)
        assert found is not None
        return found

    def insert_rows(self, name: str, rows: Sequence[tuple[object, ...]], partition: str = "") -> None:
        """Rows straight into storage."""
        table = self.table(name)

        def work(writer: WriteTransaction) -> None:
            for row in rows:
                writer.insert_row(table, partition, row, None)

        self.commit(work)

    def rows(self, name: str, partition: str = "") -> list[dict[str, object]]:
        with self.engine.snapshot() as snapshot:
            return snapshot.scan(self.table(name), partition).to_pylist()
