"""What carries out golden scripts: requests to a Database, or commands to a StorageEngine. Time stands still."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sql.database import Database
from sql.errors import SqlError
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.rendering import BigintMode, json_rows
from sql.results import StatementResult
from storage import StorageEngine, StorageOptions, TableDef, Transaction
from storage.catalog import NamespaceDef
from storage.errors import DuplicateKey, StorageError
from storage.writer import WriteTransaction
from tests.scripts.dump import dump, shown
from tests.scripts.runner import World, aligned
from tests.storage.helpers import create, key_of, keyed_table, keyless_table, plain_table, rows_of

NOW_US = 1_800_000_000_000_000
MAKERS = {"keyed": keyed_table, "plain": plain_table, "keyless": keyless_table}
OPTIONS = StorageOptions(map_start=64 << 20, merge=False, evict=False, merge_fan_in=2, retention_seconds=60.0)


class StandingClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_us(self) -> int:
        return NOW_US + int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


class CountedBytes:
    """Randomness that is none: every token holds the number of the call."""

    def __init__(self) -> None:
        self.calls = 0

    def token(self, size: int) -> bytes:
        self.calls += 1
        return bytes([self.calls % 256]) * size


class SqlWorld:
    """Each block is one request. Lines before the statements may say how it is sent:

    `@name role` who sends it (else the dba `root`); `$ [1, "a"]` its parameters; `meanwhile STATEMENT` another request
    of the same caller, which commits when this one has read its snapshot and is about to commit.
    """

    def __init__(self, folder: Path) -> None:
        clock = StandingClock()
        self.engine = StorageEngine.open(folder, OPTIONS, clock=clock)
        self.engine.commit_sync(_name_spaces)
        self.loop = asyncio.new_event_loop()
        self.meanwhile: list[Callable[[], None]] = []
        commit = self.engine.commit_sync

        def interrupted(work: Any, *, weight: int = 1) -> Any:
            if self.meanwhile:
                self.meanwhile.pop(0)()
            return commit(work, weight=weight)

        self.engine.commit_sync = interrupted  # type: ignore[method-assign]
        functions = FunctionContext(clock, CountedBytes())
        self.database = self.loop.run_until_complete(self._open(functions))

    async def _open(self, functions: FunctionContext) -> Database:
        return Database(self.engine, functions=functions)

    def run(self, commands: str) -> list[str]:
        identity, params, others, statements = Identity("root", Role.DBA), None, [], []
        for line in commands.split("\n"):
            word, _, rest = line.partition(" ")
            if word.startswith("@"):
                identity = Identity(word[1:], Role(rest or "user"))
            elif word == "$":
                params = json.loads(rest)
            elif word == "meanwhile":
                others.append(rest)
            else:
                statements.append(line)
        between: list[str] = []

        def interrupt(sql: str) -> None:
            request = self._answer(sql, None, identity)
            between.extend(
                f"meanwhile: {line}" for line in asyncio.run_coroutine_threadsafe(request, self.loop).result()
            )

        self.meanwhile = [lambda sql=sql: interrupt(sql) for sql in others]  # type: ignore[misc]
        answer = self.loop.run_until_complete(self._answer("\n".join(statements), params, identity))
        return between + answer + [f"not reached: {left}" for left in others[len(others) - len(self.meanwhile) :]]

    async def _answer(self, sql: str, params: list[Any] | None, identity: Identity) -> list[str]:
        try:
            results = await self.database.execute(sql, params, "app", identity)
        except SqlError as error:
            place = f" (line {error.line}, column {error.column})" if error.line else ""
            applied = f" (statements that took effect: {error.applied})" if error.applied else ""
            return [f"error {error.code}: {error.message}{place}{applied}"]
        return [line for result in results for line in _shown_result(result, identity)]

    def close(self) -> None:
        self.database.close()
        self.engine.close()
        self.loop.close()


JOB_ID = re.compile(r"\b([A-Z]{2})-[0-9a-f]{23}\b")


def _name_spaces(writer: WriteTransaction) -> None:
    for name in ("default", "app"):
        writer.put_namespace(NamespaceDef(name))


def _shown_result(result: StatementResult, identity: Identity) -> list[str]:
    lines = [f"as {result.as_user}:"] if result.as_user not in ("", identity.user) else []
    if not result.columns:
        message = f"{result.row_count} rows affected" if result.message is None else result.message
        return [*lines, JOB_ID.sub(r"\1-…", message)]
    rows: Any = result.rows
    if rows is None:
        rows = json_rows(result.table, result.columns, BigintMode.AUTO)
    header = [column.name for column in result.columns]
    return [*lines, *aligned(header, [[shown(value) for value in row] for row in rows]), f"({len(rows)} rows)"]


class StorageWorld:
    """Each line is one command to the engine, and one commit unless it stands in a transaction.

    `create keyed|plain|keyless`, `drop TABLE`; `insert TABLE ROW ...`, `update TABLE KEY ROW ...`, `delete TABLE KEY
    ...`, `scan TABLE`, `find TABLE KEY ...`; `begin NAME`, `NAME: COMMAND`, `commit NAME`, `rollback NAME`; `snapshot
    NAME`, `close NAME`; `group A ; B ; ...` works in one commit; `merge` (merging and retention), `wait SECONDS`,
    `reopen`, `feed SEQ`, `dump DATABASE ...`. A row is `id,email,amount`, and `-` is NULL. TABLE may be `table@user`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, StandingClock()
        self.engine = StorageEngine.open(folder, OPTIONS, clock=self.clock)
        self.views: dict[str, Any] = {}
        self.snapshots: dict[str, Any] = {}

    def run(self, commands: str) -> list[str]:
        lines = []
        for command in commands.split("\n"):
            try:
                lines += self._command(command)
            except DuplicateKey as error:
                lines.append(f"DuplicateKey: {', '.join(error.columns)} = {', '.join(map(shown, error.values))}")
            except StorageError as error:
                lines.append(f"{type(error).__name__}: {error}")
        return lines

    def _command(self, command: str) -> list[str]:
        word, _, rest = command.partition(" ")
        if word.endswith(":"):
            return [f"{word} {line}" for line in self._rows(self.views[word[:-1]], *rest.split())]
        match word:
            case "create":
                create(self.engine, MAKERS[rest])
            case "drop":
                table_id = self._table(self.engine, rest)[0].table_id
                self.engine.commit_sync(lambda wtxn: wtxn.drop_table(table_id))
            case "begin" | "snapshot":
                snapshot = self.snapshots[rest] = self.engine.snapshot()
                self.views[rest] = Transaction(snapshot) if word == "begin" else snapshot
            case "commit" | "rollback" | "close":
                txn = self.views.pop(rest)
                try:
                    if word == "commit":
                        info = self.engine.commit_sync(txn.apply)
                        return [f"{rest}: committed, {info.rows_added} rows added, {info.rows_removed} superseded"]
                finally:
                    self.snapshots.pop(rest).close()
            case "group":
                parts = [part.split() for part in rest.split(" ; ")]
                answers = self.engine.commit_sync(lambda wtxn: [self._rows(wtxn, *part) for part in parts])
                return [line for answer in answers for line in answer]
            case "merge":
                return [f"{self.engine.compact()} merges"]
            case "wait":
                self.clock.seconds += float(rest)
                self.engine._registry.reap()
            case "reopen":
                self.engine.close()
                self.engine = StorageEngine.open(self.folder, OPTIONS, clock=self.clock)
            case "feed":
                return [line for change in self.engine.feed.subscribe(int(rest)).poll() for line in _changes(change)]
            case "dump":
                return dump(self.engine, rest.split())
            case "scan" | "find":
                with self.engine.snapshot() as snapshot:
                    return self._rows(snapshot, *command.split())
            case _:
                return self.engine.commit_sync(lambda wtxn: self._rows(wtxn, *command.split()))
        return []

    def _rows(self, view: Any, word: str, name: str, *values: str) -> list[str]:
        """A command on rows, through a snapshot, a transaction or the writer."""
        table, user = self._table(view, name)
        match word:
            case "insert":
                view.insert(table, user, rows_of(table, [_row(value) for value in values]))
            case "update":
                old = [seq for seq in self._find(view, table, user, values[::2]) if seq is not None]
                if old:
                    view.replace(table, user, old, rows_of(table, [_row(value) for value in values[1::2]]))
                return [f"updated {len(old)}"]
            case "delete":
                old = [seq for seq in self._find(view, table, user, values) if seq is not None]
                view.delete(table, user, old)
                return [f"deleted {len(old)}"]
            case "scan":
                found = [tuple(row.values()) for row in view.scan(table, user).to_pylist()]
                return [f"{len(found)} rows: {' '.join(map(shown, found))}".rstrip()]
            case "find":
                seqs = self._find(view, table, user, values)
                return [f"{key}: _seq {seq}" for key, seq in zip(values, seqs, strict=True)]
            case _:
                raise ValueError(f"no command {word}")
        return []

    def _table(self, view: Any, name: str) -> tuple[TableDef, str]:
        name, _, user = name.partition("@")
        return view.catalog.table("app", name), user

    @staticmethod
    def _find(view: Any, table: TableDef, user: str, keys: tuple[str, ...]) -> list[int | None]:
        found: list[int | None] = view.find(table, user, [key_of(table, int(key)) for key in keys])
        return found

    def close(self) -> None:
        for snapshot in self.snapshots.values():
            snapshot.close()
        self.engine.close()


def _row(text: str) -> tuple[Any, ...]:
    key, email, amount = text.split(",")
    return int(key), None if email == "-" else email, None if amount == "-" else int(amount)


def _changes(change: Any) -> list[str]:
    lines = [f"commit {change.first_seq}..{change.last_seq}"]
    lines += [f"  {kind} {name}" for kind, name in change.objects]
    for table in change.tables:
        for sign, rows in (("+", table.added()), ("-", table.removed())):
            lines += [
                f"  {table.table.name}@{table.partition} {sign} {shown(tuple(row.values()))}"
                for row in rows.to_pylist()
            ]
    return lines


WORLDS: dict[str, Callable[[Path], World]] = {
    "sql": SqlWorld, "plans": SqlWorld, "requests": SqlWorld, "isolation": StorageWorld, "storage": StorageWorld,
}  # fmt: skip
"""Who carries out the scripts of a layer."""
