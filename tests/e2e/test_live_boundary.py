"""Where a snapshot ends and changes begin: subscribed while others write, each row comes exactly once, in the one or as
the other, with all options."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.live_socket import Socket, signed_in
from tests.e2e.running import RunningServer

CONNECTIONS, EACH, WRITERS = 14, 24, 3
SETTINGS = {
    "HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "0",
    "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "0",
}
MODULUS = 5
"""A subscription is about every fifth row."""


class Watch:
    """One subscription to some of the rows, which are only ever inserted."""

    def __init__(self, name: str, options: dict[str, Any] | None, remainder: int, function: bool) -> None:
        self.name = name
        self.options = options
        self.remainder = remainder
        self.first: list[int] = []
        """The `_seq`s of the snapshot."""
        self.changed: list[int] = []
        self.boundary = -1
        condition = f"id % {MODULUS} = {remainder}"
        # One is decided by Arrow, the other one needs DuckDB.
        self.sql = f"SELECT * FROM app.t WHERE {f'abs(id) % {MODULUS} = {remainder}' if function else condition}"

    def request(self) -> dict[str, Any]:
        fields = {} if self.options is None else {"options": self.options}
        return {"type": "subscribe", "subscription": {"id": self.name, "sql": self.sql, **fields}}

    def receive(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Take a message; the answer."""
        if message["type"] == "change":
            assert message["change_type"] == "insert"
            assert self.boundary >= 0, "a change before the snapshot was complete"
            self.changed += self._seqs(message["rows"])
            return None
        control = message["batch_control"]
        if message["type"] == "subscription_ack":
            assert message["resumed"] == bool((self.options or {}).get("from"))
            if self.options is None:
                assert (control["status"], message["total_rows"]) == ("ready", 0)
                self.boundary = control["last_seq_id"]
            return None
        assert message["type"] == "initial_data_batch", message
        self.first += self._seqs(message["rows"])
        if control["has_more"]:
            return {"type": "next_batch", "subscription_id": self.name}
        self.boundary = control["last_seq_id"]
        return None

    def _seqs(self, rows: list[dict[str, Any]]) -> list[int]:
        assert all(row["id"] % MODULUS == self.remainder for row in rows)
        return [row["_seq"] for row in rows]

    def check(self, rows: dict[int, int], until: int) -> None:
        """Compare with the table: ids by `_seq`; the server said that everything up to `until` was delivered."""
        until = max(until, self.boundary)
        mine = [seq for seq, number in sorted(rows.items()) if number % MODULUS == self.remainder and seq <= until]
        later = [seq for seq in self.first + self.changed if seq > until]
        assert later == sorted(later)
        told = [seq for seq in self.first + self.changed if seq <= until]
        options = self.options or {}
        if self.options is None:
            expected = [seq for seq in mine if seq > self.boundary]
        elif "last_rows" in options:
            before = [seq for seq in mine if seq <= self.boundary]
            expected = before[max(0, len(before) - options["last_rows"]) :] + [s for s in mine if s > self.boundary]
        else:
            expected = [seq for seq in mine if seq > options.get("from", 0)]
        assert told == expected, (self.sql, self.options, self.boundary, until)
        assert all(seq <= self.boundary for seq in self.first)
        assert all(seq > self.boundary for seq in self.changed)


@contextmanager
def writing(server: RunningServer) -> Iterator[None]:
    """Writers that insert rows, one, several or many at a time, all the while."""
    stop = threading.Event()

    def write(number: int) -> None:
        chance = random.Random(number)
        following = number * 10**9
        with server.client_of(server.token) as client:
            while not stop.is_set():
                count = chance.choice([1, 1, 1, 7, 25])
                values = ", ".join(f"({following + n}, 'x')" for n in range(count))
                following += count
                answer = client.post("/v1/api/sql", json={"sql": f"INSERT INTO app.t VALUES {values}"})
                assert answer.status_code == 200, answer.text
                stop.wait(0.05)

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, number) for number in range(WRITERS)]
        try:
            yield
        finally:
            stop.set()
        for writer in writers:
            writer.result()


async def watch(server: RunningServer, round_number: int, oldest: int, newest: int) -> tuple[list[Watch], int]:
    """Subscribe many times on one connection; what came, and until where it is complete.

    Of rows there are those between two `_seq`s at least: nobody goes on where the table was not there yet.
    """
    chance = random.Random(round_number)
    protocol = {"serialization": chance.choice(["json", "msgpack"]), "compression": chance.choice(["gzip", "none"])}
    choices: list[dict[str, Any] | None] = [
        None, {}, {"batch_size": 3000}, {"batch_size": 150}, {"last_rows": 10}, {"last_rows": 0},
        {"last_rows": 40, "batch_size": 50}, {"from": 0}, {"from": newest},
        {"from": (oldest + newest) // 2, "batch_size": 100},
    ]  # fmt: skip
    watches = {
        f"s{number}": Watch(f"s{number}", chance.choice(choices), chance.randrange(MODULUS), chance.random() < 0.3)
        for number in range(EACH)
    }
    async with signed_in(server, **protocol) as socket:
        speak = Speaker(socket, protocol["serialization"] == "msgpack")
        for wanted in watches.values():
            await speak.send(wanted.request())
        until = None
        while until is None:
            await speak.send({"type": "ping", "id": 1})
            while (message := await socket.take())["type"] != "pong":
                answer = watches[message["subscription_id"]].receive(message)
                if answer is not None:
                    await speak.send(answer)
            if all(each.boundary >= 0 for each in watches.values()):
                until = message.get("seq")
    return list(watches.values()), until


class Speaker:
    """Sends messages in the format that was agreed on."""

    def __init__(self, socket: Socket, msgpack: bool) -> None:
        self._socket = socket
        self._msgpack = msgpack

    async def send(self, message: dict[str, Any]) -> None:
        await self._socket.send(msgspec.msgpack.encode(message) if self._msgpack else message)


@pytest.mark.slow
def test_each_row_comes_once_in_the_snapshot_or_as_a_change(serve: Serve) -> None:
    server = serve(**SETTINGS).set_up()
    server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE = 'SHARED')")
    seen: list[tuple[list[Watch], int]] = []

    async def play() -> None:
        for number in range(CONNECTIONS):
            ((oldest, newest),) = await asyncio.to_thread(server.rows, "SELECT min(_seq), max(_seq) FROM app.t")
            seen.append(await watch(server, number, oldest, newest))

    server.sql("INSERT INTO app.t VALUES (1000000000000, 'the first')")
    with writing(server):
        asyncio.run(play())
    rows = {seq: number for number, seq in server.rows("SELECT id, _seq FROM app.t")}
    for watches, until in seen:
        for each in watches:
            each.check(rows, until)
    changes = sum(len(each.changed) for watches, _ in seen for each in watches)
    snapshots = sum(len(each.first) for watches, _ in seen for each in watches)
    assert changes > 0, "nobody wrote while subscriptions were made"
    assert snapshots > 0
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log()
