"""Many writers and readers at once: readers see whole commits only, and nobody's change is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.running import RunningServer

ACCOUNTS = 10
OPENING = 1_000
TOTAL = 2 * ACCOUNTS * OPENING
WRITERS = 6
TRANSFERS = 120
COUNTING = 64
ROUNDS = 8


class Session:
    """One connection."""

    def __init__(self, server: RunningServer) -> None:
        self.client = server.client_of(server.token)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def post(self, sql: str, *params: Any) -> httpx.Response:
        """Send a request."""
        return self.client.post("/v1/api/sql", json={"sql": sql, "params": list(params)})

    def results(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """Send a request that must succeed."""
        answer = self.post(sql, *params)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def value(self, sql: str) -> Any:
        """The only value of a query."""
        ((value,),) = self.results(sql)[-1]["rows"]
        return value

    def until_done(self, sql: str, *params: Any) -> tuple[httpx.Response, int]:
        """Send a request until no other one came first; the answer, and how often one did."""
        conflicts = 0
        while True:
            answer = self.post(sql, *params)
            if answer.status_code == 200:
                return answer, conflicts
            assert answer.json()["error"]["code"] == "TRANSACTION_CONFLICT", answer.text
            conflicts += 1


def together(server: RunningServer, workers: list[Callable[[Session], None]]) -> None:
    """Run each on a thread with a connection of its own, all beginning at once; raises what any of them raised."""
    begin = threading.Barrier(len(workers))

    def run(worker: Callable[[Session], None]) -> None:
        with Session(server) as session:
            begin.wait(60)
            worker(session)

    with ThreadPoolExecutor(len(workers)) as pool:
        for done in [pool.submit(run, worker) for worker in workers]:
            done.result()


# --- a bank --------------------------------------------------------------------------------------------------------

TWO_TABLES = """
BEGIN;
UPDATE app.checking SET balance = balance - $1 WHERE id = $2;
UPDATE app.savings SET balance = balance + $3 WHERE id = $4;
COMMIT
"""
ONE_STATEMENT = """
UPDATE app.checking SET balance = balance + CASE WHEN id = $1 THEN -7 ELSE 7 END WHERE id = $2 OR id = $3
"""
READS = {
    "both tables in one query": """
        SELECT (SELECT sum(balance) FROM app.checking) + (SELECT sum(balance) FROM app.savings)
    """,
    "a join": """
        SELECT sum(c.balance + s.balance) FROM app.checking c JOIN app.savings s ON c.id = s.id
    """,
    "a union": """
        WITH every AS (SELECT balance FROM app.checking UNION ALL SELECT balance FROM app.savings)
        SELECT sum(balance) FROM every
    """,
}
TWO_READS = "BEGIN; SELECT balance FROM app.checking; SELECT balance FROM app.savings; COMMIT"


@pytest.fixture
def bank(fresh_server: RunningServer) -> Iterator[RunningServer]:
    """A server with accounts in two tables."""
    rows = ", ".join(f"({i}, {OPENING})" for i in range(ACCOUNTS))
    fresh_server.sql(
        f"""
        CREATE NAMESPACE app;
        CREATE TABLE app.checking (id INT PRIMARY KEY, balance BIGINT NOT NULL) WITH (TYPE = 'SHARED');
        CREATE TABLE app.savings (id INT PRIMARY KEY, balance BIGINT NOT NULL) WITH (TYPE = 'SHARED');
        INSERT INTO app.checking VALUES {rows};
        INSERT INTO app.savings VALUES {rows}
        """
    )
    yield fresh_server
    assert "Traceback" not in fresh_server.log(), fresh_server.log()


def test_readers_see_whole_transfers_only(bank: RunningServer) -> None:
    """The sum over all accounts is the same in every read, whatever path the query takes."""
    writing = WRITERS
    lock = threading.Lock()
    reads: dict[str, int] = {}
    moved = {"checking": 0}

    def write(number: int) -> Callable[[Session], None]:
        def run(session: Session) -> None:
            nonlocal writing
            chance = random.Random(number)
            try:
                for _ in range(TRANSFERS):
                    giver, taker = chance.sample(range(ACCOUNTS), 2)
                    if chance.random() < 0.7:
                        amount = chance.randrange(1, 50)
                        session.until_done(TWO_TABLES, amount, giver, amount, taker)
                        with lock:
                            moved["checking"] -= amount
                    else:
                        session.until_done(ONE_STATEMENT, giver, giver, taker)
            finally:
                with lock:
                    writing -= 1

        return run

    def read(name: str, total: Callable[[Session], int]) -> Callable[[Session], None]:
        def run(session: Session) -> None:
            count = 0
            while writing or not count:
                found = total(session)
                assert found == TOTAL, f"{name}: read {count} saw a sum of {found}"
                count += 1
            reads[name] = count

        return run

    def in_one_transaction(session: Session) -> int:
        found = [result["rows"] for result in session.results(TWO_READS) if "rows" in result]
        assert [len(rows) for rows in found] == [ACCOUNTS, ACCOUNTS]
        return sum(row[0] for rows in found for row in rows)

    readers = [read(name, lambda session, sql=sql: int(session.value(sql))) for name, sql in READS.items()]  # type: ignore[misc]
    readers.append(read("two queries in one transaction", in_one_transaction))
    together(bank, [write(number) for number in range(WRITERS)] + readers)

    assert set(reads) == {*READS, "two queries in one transaction"}
    assert bank.rows("SELECT sum(balance) FROM app.checking") == [[ACCOUNTS * OPENING + moved["checking"]]]
    assert bank.rows("SELECT sum(balance) FROM app.savings") == [[ACCOUNTS * OPENING - moved["checking"]]]


def test_a_transfer_that_fails_leaves_nothing(bank: RunningServer) -> None:
    before = bank.rows("SELECT id, balance, _seq FROM app.checking ORDER BY id")
    update = "UPDATE app.checking SET balance = balance - 5 WHERE id = 1"
    answer = bank.post(f"BEGIN; {update}; INSERT INTO app.savings VALUES (1, 5); COMMIT")
    assert answer.status_code == 400
    assert bank.rows("SELECT id, balance, _seq FROM app.checking ORDER BY id") == before


# --- one commit over several tables ----------------------------------------------------------------------------------


def test_rows_of_one_commit_appear_together(fresh_server: RunningServer) -> None:
    """Rows written to two tables in one transaction, and the rows of one INSERT, are never seen without each other."""
    server = fresh_server
    server.sql(
        """
        CREATE NAMESPACE app;
        CREATE TABLE app.heads (id BIGINT PRIMARY KEY) WITH (TYPE = 'SHARED');
        CREATE TABLE app.lines (id BIGINT, line INT, PRIMARY KEY (id, line)) WITH (TYPE = 'SHARED')
        """
    )
    writing = WRITERS
    lock = threading.Lock()
    sql = """
        BEGIN;
        INSERT INTO app.heads VALUES ($1);
        INSERT INTO app.lines VALUES ($2, 1), ($3, 2), ($4, 3);
        COMMIT
    """

    def write(number: int) -> Callable[[Session], None]:
        def run(session: Session) -> None:
            nonlocal writing
            try:
                for i in range(60):
                    key = number * 1_000 + i
                    session.results(sql, key, key, key, key)
                    if i % 3 == 2:
                        session.until_done(
                            "BEGIN; DELETE FROM app.lines WHERE id = $1; DELETE FROM app.heads WHERE id = $2; COMMIT",
                            key,
                            key,
                        )
            finally:
                with lock:
                    writing -= 1

        return run

    def read(session: Session) -> None:
        once = False
        while writing or not once:
            rows = session.results(
                """
                SELECT h.id, l.id, l.n FROM app.heads h
                FULL JOIN (SELECT id, count(*) AS n FROM app.lines GROUP BY id) l ON h.id = l.id
                WHERE h.id IS NULL OR l.id IS NULL OR l.n <> 3
                """
            )[-1]["rows"]
            assert rows == []
            once = True

    together(server, [write(number) for number in range(WRITERS)] + [read, read])
    assert server.rows("SELECT count(*) FROM app.heads") == [[WRITERS * 40]]
    assert server.rows("SELECT count(*) FROM app.lines") == [[WRITERS * 120]]


# --- one key ---------------------------------------------------------------------------------------------------------

UPSERT = "INSERT INTO app.counter (id, n) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1 RETURNING n"
UPDATE = "UPDATE app.counter SET n = n + 1 WHERE id = 1 RETURNING n"
SCAN = "UPDATE app.counter SET n = n + 1 WHERE id < 2 RETURNING n"
TRANSACTION = """
BEGIN;
UPDATE app.counter SET n = n + 1 WHERE id = 1 RETURNING n;
INSERT INTO app.log SELECT n FROM app.counter WHERE id = 1;
COMMIT
"""


@pytest.mark.parametrize(
    ("sql", "first"),
    [(UPSERT, None), (UPDATE, 0), (SCAN, 0), (TRANSACTION, 0)],
    ids=["upsert", "update by key", "update by scan", "transaction"],
)
def test_64_writers_count_one_key_correctly(fresh_server: RunningServer, sql: str, first: int | None) -> None:
    """Every number from 1 to the number of writes is returned to exactly one writer."""
    server = fresh_server
    server.sql(
        """
        CREATE NAMESPACE app;
        CREATE TABLE app.counter (id INT PRIMARY KEY, n BIGINT NOT NULL) WITH (TYPE = 'SHARED');
        CREATE TABLE app.log (n BIGINT PRIMARY KEY) WITH (TYPE = 'SHARED')
        """
    )
    if first is not None:
        server.sql("INSERT INTO app.counter VALUES (1, $1)", [first])
    numbers: list[int] = []

    def count(session: Session) -> None:
        for _ in range(ROUNDS):
            answer, _ = session.until_done(sql)
            (found,) = (result["rows"] for result in answer.json()["results"] if "rows" in result)
            ((number,),) = found
            numbers.append(number)

    together(server, [count] * COUNTING)
    expected = COUNTING * ROUNDS
    assert sorted(numbers) == list(range(1, expected + 1))
    assert server.rows("SELECT id, n FROM app.counter") == [[1, expected]]
    if sql is TRANSACTION:
        assert server.rows("SELECT count(*), min(n), max(n) FROM app.log") == [[expected, 1, expected]]
