"""What goes on while a server is killed: transfers, reads, flushes, compactions, backups, and a consumer."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.crash.bank import CONSTANT, PARTITIONS, TOPIC, Broken, Client, Connection, Cut

_JOBS = re.compile(r"\b[A-Z]{2}-[0-9a-f]{23}\b")
GROUP = "workers"
REMODEL = [
    "ALTER TABLE bank.accounts ADD COLUMN IF NOT EXISTS note TEXT DEFAULT 'none'",
    "CREATE TABLE IF NOT EXISTS bank.scratch (id BIGINT PRIMARY KEY, x TEXT)",
    "INSERT INTO bank.scratch SELECT i, 'x' FROM range(300) r(i) ON CONFLICT (id) DO NOTHING",
    "STORAGE FLUSH TABLE bank.scratch",
    "DROP INDEX IF EXISTS bank.accounts_region",
    "ALTER TABLE bank.wallets ADD COLUMN IF NOT EXISTS note INT NOT NULL DEFAULT 7",
    "CREATE INDEX IF NOT EXISTS accounts_region ON bank.accounts (region)",
    "DELETE FROM bank.scratch WHERE id % 2 = 0",
    "ALTER TABLE bank.accounts DROP COLUMN IF EXISTS note",
    "DROP TABLE IF EXISTS bank.scratch",
    "ALTER TABLE bank.wallets DROP COLUMN IF EXISTS note",
]
"""Each may come after a kill at any of them."""


class Consumer:
    """One of a group: it takes messages, notes which transfers they tell of, and acknowledges."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.acknowledged = dict.fromkeys(range(PARTITIONS), -1)

    def turn(self, connection: Connection) -> int:
        """Take what there is; how many messages. Raises Broken, Cut."""
        body = {
            "topic_id": TOPIC, "group_id": GROUP, "start": "Earliest", "limit": 40, "timeout_seconds": 0.2,
            "visibility_timeout_seconds": 1, "consumer_id": "one",
        }  # fmt: skip
        status, answer = connection.post("topics/consume", body)
        if status != 200:
            raise Broken(f"{status} {answer} to a consumer")
        last: dict[int, int] = {}
        for message in answer["messages"]:
            partition, offset = message["partition_id"], message["offset"]
            if offset <= self.acknowledged[partition]:
                raise Broken(f"offset {offset} of partition {partition} was acknowledged, and came again")
            self.seen[identity(message)] += 1
            last[partition] = max(offset, last.get(partition, -1))
        for partition, offset in last.items():
            body = {
                "topic_id": TOPIC, "group_id": GROUP, "partition_id": partition, "upto_offset": offset,
                "consumer_id": "one",
            }  # fmt: skip
            status, said = connection.post("topics/ack", body)
            if status != 200:
                raise Broken(f"{status} {said} to an acknowledgement")
            self.acknowledged[partition] = offset
        return len(answer["messages"])


def identity(message: dict[str, Any]) -> int:
    """Which transfer a message tells of."""
    return int(json.loads(base64.b64decode(message["payload"], validate=True))["id"])


class Load:
    """All of it, on threads, until the server is gone."""

    def __init__(self, url: str, admin: str, clients: Sequence[Client], consumer: Consumer, target: Path) -> None:
        self.failures: list[Exception] = []
        self.counts: Counter[str] = Counter()
        self._url = url
        self._admin = admin
        self._stop = threading.Event()
        self._target = target
        self._threads: list[threading.Thread] = []
        for client in clients:
            self._add(client.token, client.turn, "requests")
        self._add(admin, _Reads().turn, "reads")
        self._add(admin, self._move, "tours")
        self._add(admin, self._back_up, "backups")
        self._add(admin, self._remodel, "remodels")
        self._add(admin, consumer.turn, "consumes")

    def start(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def join(self) -> None:
        """Wait for the end, which comes when the server is gone. Raises what anybody met."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        if self.failures:
            raise self.failures[0]

    def _add(self, token: str, turn: Callable[[Connection], Any], counted: str) -> None:
        def run() -> None:
            connection = Connection(self._url, token)
            try:
                while not self._stop.is_set():
                    turn(connection)
                    self.counts[counted] += 1
            except Cut:
                return
            finally:
                connection.close()

        self._threads.append(threading.Thread(target=self._guard(run)))

    def _guard(self, run: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                run()
            except Exception as error:  # noqa: BLE001 - raised by join
                self.failures.append(error)
                self._stop.set()

        return guarded

    def _move(self, connection: Connection) -> None:
        """Flush and compact everything; the policies flush by themselves meanwhile."""
        for sql in (
            "STORAGE FLUSH ALL IN bank", "STORAGE COMPACT TABLE bank.transfers", "STORAGE FLUSH TABLE bank.accounts",
            "STORAGE COMPACT ALL IN bank",
        ):  # fmt: skip
            self._finish(connection, sql)
            self.counts["moves"] += 1

    def _back_up(self, connection: Connection) -> None:
        self._finish(connection, f"BACKUP DATABASE TO '{self._target}'")

    def _remodel(self, connection: Connection) -> None:
        """Change tables and indexes while they are moved, and drop one that was flushed."""
        for sql in REMODEL:
            connection.results(sql)
            self._stop.wait(0.1)

    def _finish(self, connection: Connection, sql: str) -> None:
        """Wait for the jobs of a statement."""
        (result,) = connection.results(sql)
        for job in _JOBS.findall(result["message"]):
            while not self._stop.is_set():
                ((status, message),) = connection.rows(
                    f"SELECT status, message FROM system.jobs WHERE job_id = '{job}'"
                )
                if status in {"failed", "cancelled"}:
                    raise Broken(f"job {job} {status}: {message}")
                if status in {"completed", "skipped"}:
                    break
                time.sleep(0.02)  # the job tells nobody over HTTP that it is done


class _Reads:
    """The reads that must give the same at every moment, in turn."""

    def __init__(self) -> None:
        self._number = 0

    def turn(self, connection: Connection) -> None:
        """One of them."""
        self._number += 1
        sql, wanted = CONSTANT[self._number % len(CONSTANT)]
        connection.expect(sql, wanted)
        one, two = (result["rows"] for result in connection.results(
            "BEGIN; SELECT count(*) FROM bank.transfers; SELECT count(*) FROM bank.transfers WHERE amount > 0; COMMIT"
        ) if result.get("rows"))  # fmt: skip
        if one != two:
            raise Broken(f"{one} transfers, then {two} in one transaction")
        account = self._number * 7 % 200
        connection.expect(f"SELECT id FROM bank.accounts WHERE iban = 'IBAN-{account}'", [account])
