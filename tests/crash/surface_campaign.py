"""A server that is killed again and again, its clients, and the proof of what it holds after each start."""

from __future__ import annotations

import json
import logging
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sql.backup.layout import points_of, read_manifest
from sql.backup.restoring import restore, verify_bytes
from storage.check import check
from tests.crash.bank import (
    CLIENTS,
    CONSTANT,
    OPEN_WALLET,
    PARTITIONS,
    PASSWORD,
    SCHEMA,
    TOPIC,
    Broken,
    Client,
    Connection,
    Contents,
    Transfer,
    read,
    verify,
)
from tests.crash.follower import Follower
from tests.crash.stepwise_server import STEPS
from tests.crash.surface_load import Consumer, Load, identity
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer, environment

STEP_SECONDS = 8.0
"""How long a round waits for its step before it kills from outside."""
SETTINGS = {
    "HEADRACE_STORAGE_COLD_GRACE_SECONDS": "0",
    "HEADRACE_RETENTION_INTERVAL_SECONDS": "0.5",
    "HEADRACE_RETENTION_COMMIT_LOG_SECONDS": "30",
    "HEADRACE_FLUSH_CHECK_INTERVAL_SECONDS": "0.5",
    "HEADRACE_RATE_LIMIT_ENABLE_CONNECTION_PROTECTION": "false",
}
log = logging.getLogger(__name__)


class Campaign:
    """A server, its clients, and what is known of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.which = random.Random(seed)
        self.folder = folder
        self.armed = folder / "armed"
        self.server = RunningServer(folder / "data", changes=SETTINGS)
        self.clients = [Client(number, seed) for number in range(CLIENTS)]
        self.consumer = Consumer()
        self.follower = Follower()
        self.offsets = [0] * PARTITIONS
        self.messages: Counter[int] = Counter()
        self.backups = 0
        self.verified: set[str] = set()
        self.settled: dict[int, Transfer] = {}
        """Transfers that were there when the round began: every restore point of the round has them."""
        self.deaths: Counter[str] = Counter()
        self.restored = 0
        self.counts: Counter[str] = Counter()

    @property
    def target(self) -> Path:
        """Where backups go; a new folder every few rounds."""
        return self.folder / f"backup-{self.backups}"

    def use(self, step: str) -> None:
        """The step that the next server dies of."""
        program = "tests.crash.stepwise_server"
        self.server.command = [sys.executable, "-m", program, step, str(self.armed)]

    def begin(self) -> None:
        """The first start: accounts, tables, money."""
        self.use("none")
        server = self.server.start().set_up()
        server.sql(SCHEMA)
        for client in self.clients:
            server.sql(f"CREATE USER '{client.name}' WITH PASSWORD '{PASSWORD}' ROLE service")
            client.token = server.login(client.name, PASSWORD)
            connection = Connection(server.url, client.token)
            connection.results(OPEN_WALLET)
            connection.close()
        until(
            lambda: (
                server.rows("SELECT count(*) FROM system.jobs WHERE job_type = 'index_build' AND status <> 'completed'")
                == [[0]]
            )
        )
        for sql, index in (("region = 1", "accounts_region"), ("iban = 'IBAN-1'", "accounts_iban")):
            plan = json.dumps(server.rows(f"EXPLAIN SELECT sum(balance) FROM bank.accounts WHERE {sql}"))
            assert index in plan, plan
        server.kill()

    def step(self) -> str:
        """A step, or `none`."""
        if self.dice.random() < 0.3:
            return "none"
        name = self.dice.choice(list(STEPS))
        return f"{self.dice.choice('-+')}{name}/{self.dice.randint(1, STEPS[name])}"

    def play(self, number: int) -> None:
        """One round."""
        step = self.step()
        self.use(step)
        if number % 5 == 4:
            self._die_while_starting(step)
        server = self.server.start()
        server.client.headers["Authorization"] = f"Bearer {server.token}"
        with self.following():
            self.prove(number)
            self._work_and_die(step)
        self._note_death(step)

    @contextmanager
    def following(self) -> Iterator[None]:
        """The live query goes on where it was; the block ends the server."""
        failures: list[Exception] = []

        def follow() -> None:
            try:
                self.follower.run(self.server.url, self.server.token)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            self.server.kill()
            thread.join(60)
        if failures:
            raise failures[0]

    def _work_and_die(self, step: str) -> None:
        server = self.server
        goal = self.dice.randrange(12)
        load = Load(server.url, server.token, self.clients, self.consumer, self.target).start()
        assert server.process is not None
        try:
            until(lambda: bool(load.failures) or load.counts["requests"] >= goal)
            self.armed.touch()
            seconds = self.dice.uniform(0.3, 3.0) if step == "none" else STEP_SECONDS
            code = server.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        else:
            if code != -9:
                raise Broken(f"the server ended by itself with {code}")
        finally:
            server.kill()
            self.counts += load.counts
            load.join()

    def _die_while_starting(self, step: str) -> None:
        """Start a server that jobs wait for, and kill it before or soon after it listens."""
        self.armed.touch()
        command = [*self.server.command, "serve", "--data", str(self.server.data), "--port", "0"]
        with (self.folder / "data.log").open("ab") as errors:
            starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment(SETTINGS))
            try:
                starting.wait(self.dice.uniform(0.3, 2.0))
            except subprocess.TimeoutExpired:
                starting.kill()
            code = starting.wait()
        if code != -9:
            raise Broken(f"the start ended by itself with {code}")
        self._note_death(f"start {step}")

    def _note_death(self, step: str) -> None:
        died = self.armed.read_text()
        self.armed.unlink()
        self.deaths[died.partition("/")[0] if died else "outside"] += 1
        log.info("died of %s (%s)", died or "a signal from outside", step)
        problems = check(self.server.data)
        if problems:
            raise Broken(f"the data folder is not consistent: {problems[:5]}")

    def end(self) -> None:
        """The last start: everything holds, the consumer gets what is left, and the server stops when it is told to."""
        self.use("none")
        self.server.start()
        with self.following():
            self.prove(2)
            connection = Connection(self.server.url, self.server.token)
            until(lambda: not self.consumer.turn(connection) and self.consumer.seen.keys() == self.settled.keys())
            connection.close()
            assert self.server.stop() == 0, self.server.log()

    def summary(self) -> str:
        """What was done."""
        transfers = sum(len(client.done) for client in self.clients)
        refused = sum(client.refused for client in self.clients)
        twice = sum(self.consumer.seen.values()) - len(self.consumer.seen)
        return (
            f"{transfers} transfers acknowledged, {refused} refused; {dict(self.counts)}; {len(self.verified)} restore "
            f"points verified, {self.restored} restored; {self.follower.changes} changes followed, "
            f"{self.follower.resumed} times resumed; {twice} messages delivered again; died of {dict(self.deaths)}"
        )

    # --- what must hold after a start ----------------------------------------------------------------------------

    def prove(self, number: int) -> None:
        """Everything that is promised."""
        contents = self.contents(self.server)
        sent = {number: moved for client in self.clients for number, moved in client.sent.items()}
        done = {number: moved for client in self.clients for number, moved in client.done.items()}
        verify(contents, done, sent)
        for client in self.clients:
            client.settle(contents.transfers)
        until(lambda: self.follower.matches(contents.balances))
        self.prove_messages(contents)
        self.prove_jobs()
        self.prove_files()
        verify(self.contents(self.server), contents.transfers, {})
        self.prove_backups(number, contents.transfers)
        self.settled = contents.transfers

    def contents(self, server: RunningServer) -> Contents:
        """What a server holds, after the reads that are the same at every moment."""
        auditor = Connection(server.url, self.server.token)
        tellers = {client.number: Connection(server.url, client.token) for client in self.clients}
        try:
            for sql, wanted in CONSTANT:
                auditor.expect(sql, wanted)
            return read(tellers, auditor)
        finally:
            for connection in (auditor, *tellers.values()):
                connection.close()

    def prove_messages(self, contents: Contents) -> None:
        """The topic has one message for each transfer, and no other."""
        connection = Connection(self.server.url, self.server.token)
        for partition in range(PARTITIONS):
            more = True
            while more:
                body = {
                    "topic_id": TOPIC, "partition_id": partition, "start": {"Offset": self.offsets[partition]},
                    "limit": 1000,
                }  # fmt: skip
                status, answer = connection.post("topics/consume", body)
                assert status == 200, answer
                for message in answer["messages"]:
                    assert message["offset"] == self.offsets[partition]
                    self.offsets[partition] += 1
                    self.messages[identity(message)] += 1
                more = answer["has_more"]
        connection.close()
        if self.messages != Counter(dict.fromkeys(contents.transfers, 1)):
            wrong = {key for key in {*self.messages, *contents.transfers} if self.messages[key] != 1}
            raise Broken(f"transfers without their one message, or messages without a transfer: {sorted(wrong)[:10]}")

    def prove_jobs(self) -> None:
        """What was under way goes on to its end."""
        left = "SELECT count(*) FROM system.jobs WHERE status NOT IN ('completed', 'skipped')"
        wrong = "SELECT job_id, message, exception_trace FROM system.jobs WHERE status IN ('failed', 'cancelled')"
        until(lambda: self.server.rows(left) == [[0]] or self.server.rows(wrong) != [], 60)
        found = self.server.rows(wrong)
        if found:
            raise Broken(f"jobs did not go on: {found}")

    def prove_files(self) -> None:
        """Nothing lies among the cold files that nothing refers to."""
        cold = self.server.data / "cold"

        def known() -> tuple[set[str], set[str]]:
            segments = [
                segment
                for (text,) in self.server.rows("SELECT manifest_json FROM system.manifest")
                for segment in json.loads(text)["segments"]
            ]
            return {s["path"] for s in segments}, {s["status"] for s in segments}

        def clean() -> bool:
            paths, statuses = known()
            return statuses <= {"committed"} and _data_files(cold) == paths

        try:
            until(clean, 20)
        except AssertionError:
            paths, statuses = known()
            raise Broken(f"cold files: {statuses}, {sorted(paths ^ _data_files(cold))[:10]}") from None
        assert not [path for path in cold.rglob("*.tmp") if "_delta_log" not in path.parts and "_dv" not in path.parts]

    def prove_backups(self, number: int, there: dict[int, Transfer]) -> None:
        """Every complete restore point is whole, and now and then one is made a database again."""
        target = self.target
        points = points_of(target)
        for point in points:
            if point not in self.verified:
                verify_bytes(target, point)
                self.verified.add(point)
        if points:
            self._prove_no_litter(target, points)
        if points and number % 3 == 2:
            self._restore(target, self.which.choice(points[-6:]), there)
        if number % 6 == 5:
            for point in points:
                verify_bytes(target, point)
            shutil.rmtree(target, ignore_errors=True)
            self.backups += 1

    def _prove_no_litter(self, target: Path, points: list[str]) -> None:
        assert {path.name for path in (target / "points").iterdir()} == set(points)
        assert {path.stem for path in (target / "packs").iterdir()} == set(points)
        needed = {file.sha256 for point in points for file in read_manifest(target, point).files}
        stored = {path.name for path in (target / "objects").rglob("*") if path.is_file()}
        if needed != stored:
            raise Broken(f"the backup keeps {sorted(stored - needed)[:5]} that no restore point needs")

    def _restore(self, target: Path, point: str, there: dict[int, Transfer]) -> None:
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        restore(target, copy, point)
        other = RunningServer(copy, changes=SETTINGS)
        try:
            other.start()
            verify(self.contents(other), {}, there)
        finally:
            other.kill()
        assert check(copy) == []
        shutil.rmtree(copy)
        self.restored += 1


def _data_files(cold: Path) -> set[str]:
    return {
        str(path.relative_to(cold))
        for path in cold.rglob("*")
        if path.is_file()
        and "_delta_log" not in path.parts
        and "_dv" not in path.parts
        and path.name != "manifest.json"
    }
