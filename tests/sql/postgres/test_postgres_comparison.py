"""Each case asked here and of PostgreSQL: what differs is listed with its reason, and what is listed differs.

Without PostgreSQL the recorded answers stand for it. `HEADRACE_RECORD_POSTGRES=1` asks PostgreSQL and records anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.peer_postgres import Postgres
from benches.peers import Unavailable
from sql.database import Database
from sql.errors import SqlError
from sql.identity import Identity, Role
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef
from tests.sql.postgres import comparison
from tests.sql.postgres.comparison import Answer

ANN = Identity("ann", Role.DBA)
CASES = [case for _, case in comparison.cases()]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """Our answers, each case a request of its own."""
    folder = tmp_path_factory.mktemp("here")

    async def run() -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        with StorageEngine.open(folder / "data", StorageOptions(map_start=64 << 20)) as engine:
            engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))
            database = Database(engine, temp_folder=folder / "duck")
            try:
                await database.execute(comparison.TABLE, None, None, ANN)
                for case in CASES:
                    try:
                        [result] = await database.execute(comparison.query_of(case), None, None, ANN)
                    except SqlError:
                        found[case] = None
                    else:
                        found[case] = comparison.ours(result)
            finally:
                database.close()
        return found

    return asyncio.run(run())


@pytest.fixture(scope="module")
def psql() -> Iterator[list[str]]:
    """The command that asks a PostgreSQL of our own."""
    peer = Postgres()
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o755)
        try:
            peer.start_database(place)
        except Unavailable as error:
            pytest.skip(str(error))
        try:
            yield ["psql", peer.dsn(), "-XAtq"]
        finally:
            peer.stop()


def recorded() -> dict[str, Answer]:
    """PostgreSQL's answers as they were recorded."""
    found: dict[str, Answer] = json.loads(comparison.RECORDED.read_text(encoding="utf-8"))
    return found


def test_no_case_is_asked_twice() -> None:
    assert [case for case, times in Counter(CASES).items() if times > 1] == []
    assert comparison.differences().keys() <= set(CASES)


def test_the_recorded_answers_are_those_of_postgresql(psql: list[str]) -> None:
    answers = comparison.theirs(psql)
    if os.environ.get("HEADRACE_RECORD_POSTGRES"):
        lines = ",\n".join(f"{json.dumps(c, ensure_ascii=False)}: {json.dumps(a)}" for c, a in answers.items())
        comparison.RECORDED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    assert json.loads(json.dumps(answers)) == recorded()


def test_only_listed_cases_differ(here: dict[str, Answer]) -> None:
    there = recorded()
    assert there.keys() == here.keys(), "record anew: HEADRACE_RECORD_POSTGRES=1"
    listed = comparison.differences()
    wrong = [
        f"{case}\n    here  {here[case]}\n    there {there[case]}"
        for case in CASES
        if case not in listed and not comparison.same(here[case], there[case])
    ]
    assert not wrong, "\n".join(wrong)


def test_listed_cases_differ(here: dict[str, Answer]) -> None:
    there = recorded()
    assert [case for case in comparison.differences() if comparison.same(here[case], there[case])] == []
