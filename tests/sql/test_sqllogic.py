"""The sqllogictest files beside the repository, run through the database in process.

By default a sample that is the same every time: of each file every 50th query, up to its 1,100th statement.
HEADRACE_SLT=all runs everything, HEADRACE_SLT=n every n-th query of whole files. What we answer otherwise on purpose
is `RESTATED` (said in our SQL, the answer is the same) and `DIFFERENT` (one by one, with the reason).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.database import Database
from sql.duck import DuckOptions
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.limits import SqlLimits
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine
from tests.sql import sqllogic
from tests.sql.sqllogic import Record, Rows

FOLDER = Path(__file__).parents[3] / "shared" / "slt" / "test"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.test") if path.stat().st_size)
AMOUNT = os.environ.get("HEADRACE_SLT", "")
EVERY = 1 if AMOUNT == "all" else int(AMOUNT or 50)
MAX_STATEMENTS = None if AMOUNT else 1_100
ADMIN = Identity("admin", Role.DBA)

LATER = re.compile(
    r"(?i)\s*(CREATE\s+(?:UNIQUE\s+)?INDEX|(?:CREATE|DROP)\s+(?:TEMP\w*\s+)?(?:TRIGGER|VIEW)|DROP\s+INDEX|REINDEX"
    r"|(?:INSERT\s+OR\s+)?REPLACE)\b"
)
"""Kinds of statements that we do not have (yet)."""
VIEW = re.compile(r"(?i)\s*CREATE\s+(?:TEMP\w*\s+)?VIEW\s+(\w+)")

RESTATED = (("UPDATE needs WHERE here", re.compile(r"(?is)^(UPDATE\s(?!.*\bWHERE\b).*)$"), r"\1 WHERE true"),)
DIFFERENT = {
    ("evidence/in1.test", 314): "bytes are not compared with integers",
    ("evidence/in1.test", 325): "bytes are not compared with integers",
    ("evidence/in2.test", 140): "NULL NOT IN () is NULL, as NULL is in no other IN list",
    ("evidence/slt_lang_replace.test", 43): "REPLACE was skipped",
    ("evidence/slt_lang_replace.test", 52): "REPLACE was skipped",
    ("evidence/slt_lang_replace.test", 63): "REPLACE was skipped",
    ("evidence/slt_lang_replace.test", 72): "REPLACE was skipped",
    ("evidence/slt_lang_update.test", 89): "SET names a column once",
    ("evidence/slt_lang_update.test", 105): "SET names a column once",
}

counted: Counter[str] = Counter()

pytestmark = [pytest.mark.timeout(3_600)]
if not FILES:
    pytestmark.append(pytest.mark.skip(reason="the sqllogictest files (../shared/slt) are not beside the repository"))


@pytest.fixture(scope="module", autouse=True)
def summary(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if counted and reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line("\nsqllogictest, records:")
            for kind, number in sorted(counted.items()):
                reporter.write_line(f"  {number:7,} {kind}")


class Runner:
    """One file against one database."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.engine = StorageEngine.open(folder)
        self.engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))
        self.database = Database(self.engine, SqlLimits(statement_timeout=60), duck=DuckOptions(threads=1))
        self.views: set[str] = set()
        self.labels: dict[str, str] = {}
        self.queries = self.statements = 0
        self.wrong: list[str] = []

    def close(self) -> None:
        self.database.close()
        self.engine.close()

    async def run(self, records: Iterator[Record]) -> None:
        for record in records:
            reason = self._skipped(record)
            if reason:
                counted[f"skipped: {reason}"] += 1
                continue
            if not record.is_query:
                self.statements += 1
                if MAX_STATEMENTS is not None and self.statements > MAX_STATEMENTS:
                    return
            counted["run"] += 1
            await self._check(record)

    def _skipped(self, record: Record) -> str:
        if not record.is_ours:
            return "for other engines"
        later = LATER.match(record.sql)
        if later:
            view = VIEW.match(record.sql)
            if view:
                self.views.add(view[1].lower())
            return " ".join(later[1].upper().split())
        if any(word in self.views for word in re.findall(r"\w+", record.sql.lower())):
            return "on a skipped view"
        if record.is_query:
            self.queries += 1
            return "not in the sample" if (self.queries - 1) % EVERY else ""
        return ""

    async def _check(self, record: Record) -> None:
        problem = await self._problem(record, record.sql)
        if not problem:
            counted["as expected"] += 1
            return
        for reason, pattern, said in RESTATED:
            sql = pattern.sub(said, record.sql)
            if sql != record.sql and not await self._problem(record, sql):
                counted[f"otherwise on purpose: {reason}"] += 1
                return
        known = DIFFERENT.get((self.name, record.line))
        if known:
            counted[f"otherwise on purpose: {known}"] += 1
        else:
            self.wrong.append(f"{self.name}:{record.line}: {record.sql}\n  {problem}")

    async def _problem(self, record: Record, sql: str) -> str:
        """What is wrong with the answer, or nothing."""
        try:
            rows = await self._rows(sql)
        except SqlError as error:
            return "" if record.fails else f"{error.code}: {error.message}"
        if not record.is_query:
            return "it was not refused" if record.fails else ""
        if not sqllogic.agrees(record, rows):
            return f"{list(rows[:5])} is not {record.expected[:20]}"
        if record.label and sql == record.sql:
            found = sqllogic.digest(sqllogic.values(rows, record.types, record.sort))
            if self.labels.setdefault(record.label, found) != found:
                return f"another answer than before under {record.label}"
        return ""

    async def _rows(self, sql: str) -> Rows:
        result = (await self.database.execute(sql, None, "default", ADMIN))[-1]
        if result.table is not None:
            return list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))
        return result.rows or ()


def run_file(name: str, folder: Path) -> None:
    async def run() -> list[str]:
        runner = Runner(name, folder)
        try:
            await runner.run(sqllogic.records((FOLDER / name).read_text()))
        finally:
            runner.close()
        return runner.wrong

    wrong = asyncio.run(run())
    assert not wrong, f"{len(wrong)} records:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("name", FILES)
def test_file(name: str, tmp_path: Path) -> None:
    run_file(name, tmp_path)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("index/commute/")])
def test_file_without_the_native_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sql.binder.plan_native", lambda tree, uses: None)
    run_file(name, tmp_path)


def test_runner_reads_the_format() -> None:
    text = "statement ok\nCREATE TABLE t(a)\n\nonlyif mysql # why\nquery IT rowsort l-1\nSELECT 1,\n2\n----\n1\n2\n"
    statement, query = sqllogic.records(text)
    assert (statement.sql, statement.fails, statement.is_ours) == ("CREATE TABLE t(a)", False, True)
    assert (query.sql, query.types, query.sort, query.label) == ("SELECT 1,\n2", "IT", "rowsort", "l-1")
    assert not query.is_ours
    assert query.expected == ("1", "2")
    assert sqllogic.values([(2, ""), (1.0, None)], "IT", "rowsort") == ["1", "NULL", "2", "(empty)"]
    assert sqllogic.values([(2, "\x01")], "RT", "valuesort") == ["2.000", "@"]
    hashed = Record(1, "", is_query=True, types="I", expected=("2 values hashing to 6ddb4095eb719e2a9f0a3f95677d24e0",))
    assert sqllogic.agrees(hashed, [(1,), (2,)])
    assert not sqllogic.agrees(hashed, [(2,), (1,)])
