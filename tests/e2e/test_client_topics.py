"""Topics of the Python client against a real server, one that is killed and restarted under them included."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import AsyncClient, Client, NewMessage, RetryPolicy
from tests.e2e.running import ROOT, RunningServer, environment, stable_port

SECONDS = 60.0
SOON = RetryPolicy(base_seconds=0.02, max_seconds=0.2)
_numbers = count()


@pytest.fixture(scope="module")
def db(server: RunningServer) -> Iterator[Client]:
    with headrace.connect(server.url, user=server.user, password=server.password, namespace="app") as client:
        client.execute("CREATE NAMESPACE app")
        yield client


@pytest.fixture
def name(db: Client) -> str:
    """A new topic of two partitions for each test."""
    name = f"app.topic{next(_numbers)}"
    db.execute(f"CREATE TOPIC {name} PARTITIONS 2")
    return name


def drain(db: Client, name: str, **options: Any) -> headrace.SyncConsumer:
    return db.topic(name).consume("workers", **{"start": "earliest", "idle_seconds": 0} | options)


def test_what_is_produced_is_consumed(db: Client, name: str) -> None:
    topic = db.topic(name)
    payloads = [b"\x00\xff", "Ünï", {"n": 1}, [1, None], 2.5, None]
    positions = topic.produce_many([NewMessage(payload, key="k") for payload in payloads])
    assert len({position.partition for position in positions}) == 1
    assert [position.offset for position in positions] == list(range(6))
    messages = list(drain(db, name))
    assert [message.position for message in messages] == positions
    assert [message.payload for message in messages[:2]] == [b"\x00\xff", "Ünï".encode()]
    assert [message.json() for message in messages[2:]] == payloads[2:]
    assert {(m.topic, m.key, m.op, m.delivery_count) for m in messages} == {(name, "k", "Insert", 1)}
    assert all(message.timestamp.tzinfo is not None for message in messages)
    assert list(drain(db, name)) == []
    assert topic.produce("there", partition=1).partition == 1


def test_changes_of_a_table_are_consumed(db: Client, name: str) -> None:
    table = name.replace("topic", "table")
    db.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, word TEXT)")
    for operation in ("INSERT", "UPDATE", "DELETE"):
        db.execute(f"ALTER TOPIC {name} ADD SOURCE {table} ON {operation}")
    db.execute(f"INSERT INTO {table} VALUES (1, 'a')")
    db.execute(f"UPDATE {table} SET word = 'b' WHERE id = 1")
    db.execute(f"DELETE FROM {table} WHERE id = 1")
    messages = list(drain(db, name))
    assert [(m.op, m.key, m.json()["word"]) for m in messages] == [
        ("Insert", "1", "a"), ("Update", "1", "b"), ("Delete", "1", "b")
    ]  # fmt: skip


def test_an_exception_gives_back_at_once(db: Client, name: str) -> None:
    db.topic(name).produce_many([NewMessage(n, partition=0) for n in range(10)])

    def fail() -> None:
        with drain(db, name) as consumer:
            for message in consumer:
                _ = 1 / (message.offset - 4)

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(m.offset, m.delivery_count) for m in drain(db, name)] == [(n, 2) for n in range(4, 10)]


def test_explicit_acknowledgement(db: Client, name: str) -> None:
    db.topic(name).produce_many([NewMessage(n, partition=1) for n in range(10)])
    with drain(db, name, auto_ack=False) as consumer:
        batch = consumer.next_batch()
        batch[3].ack()
    assert [message.offset for message in drain(db, name)] == list(range(4, 10))


def test_a_poll_that_waits_is_woken_and_stopped(db: Client, name: str) -> None:
    topic = db.topic(name)
    consumer = topic.consume("workers", start="earliest")
    seen = []

    def work() -> None:
        for message in consumer:
            seen.append(message.json())
            if len(seen) == 2:
                consumer.stop()

    worker = threading.Thread(target=work)
    worker.start()
    topic.produce(1)
    topic.produce(2)
    worker.join(SECONDS)
    assert not worker.is_alive()
    assert sorted(seen) == [1, 2]
    assert list(drain(db, name)) == []


def test_errors(db: Client, name: str) -> None:
    with pytest.raises(headrace.TopicNotFound):
        db.topic("app.nothing").produce(1)
    with pytest.raises(headrace.TopicNotFound):
        next(db.topic("app.nothing").consume("g"))
    with pytest.raises(headrace.RequestRefused, match="partition"):
        db.topic(name).produce(1, partition=7)
    db.execute("CREATE USER 'plain' WITH PASSWORD 'PlainPass123!' ROLE 'user'")
    with headrace.connect(db.url, user="plain", password="PlainPass123!") as plain:
        with pytest.raises(headrace.PermissionDenied):
            plain.topic(name).produce(1)
        with pytest.raises(headrace.PermissionDenied):
            next(plain.topic(name).consume("g"))


def test_two_consumers_share_and_a_stopped_one_hands_over(server: RunningServer, db: Client, name: str) -> None:
    keys = [f"k{n % 7}" for n in range(300)]
    db.topic(name).produce_many([NewMessage(n, key=key) for n, key in enumerate(keys)])
    seen: list[tuple[str | None, int]] = []

    async def work(client: AsyncClient, stop_after: int | None) -> None:
        options: dict[str, Any] = {"limit": 10, "idle_seconds": 0.5}
        async with client.topic(name).consume("workers", start="earliest", **options) as consumer:
            taken = 0
            async for message in consumer:
                seen.append((message.key, message.json()))
                taken += 1
                if taken == stop_after:
                    consumer.stop()

    async def main() -> None:
        async with asyncio.timeout(SECONDS), AsyncClient(server.url, token=server.token) as client:
            await asyncio.gather(work(client, 25), work(client, None), work(client, None))

    asyncio.run(main())
    assert sorted(number for _, number in seen) == list(range(300))
    for key in set(keys):
        numbers = [number for each, number in seen if each == key]
        assert numbers == sorted(numbers)


def test_nothing_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    running = RunningServer(tmp_path / "data", port=stable_port())
    seen: list[int] = []

    async def main() -> None:
        async with asyncio.timeout(SECONDS), AsyncClient(running.url, token=running.token) as client:
            await client.execute("CREATE NAMESPACE app")
            await client.execute("CREATE TOPIC app.jobs PARTITIONS 3")
            topic = client.topic("app.jobs")
            produced = asyncio.create_task(produce(topic))
            consumer = topic.consume("workers", start="earliest", limit=20, visibility_timeout=2, retry=SOON)
            async with consumer:
                async for message in consumer:
                    seen.append(message.json())
                    if set(seen) >= set(range(400)):
                        break
            await produced
            assert await client.query("SELECT 1")

    async def produce(topic: headrace.Topic) -> None:
        for start in range(0, 400, 20):
            await topic.produce_many([NewMessage(n, key=n % 5) for n in range(start, start + 20)], retry=SOON)
            if start in {100, 200, 300}:
                await asyncio.to_thread(running.restart)

    try:
        running.start().set_up()
        asyncio.run(main())
        for key in range(5):
            numbers = list(dict.fromkeys(number for number in seen if number % 5 == key))
            assert numbers == sorted(numbers)
        running.set_up()
        with headrace.connect(running.url, token=running.token) as client:
            consumer = client.topic("app.jobs").consume("workers", idle_seconds=3)
            assert {message.json() for message in consumer} <= set(range(400))
    finally:
        running.kill()


def test_the_worker_of_the_examples_ends_cleanly_on_a_signal(fresh_server: RunningServer) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "python" / "worker.py"), fresh_server.url]
    worker = subprocess.Popen(
        [*command, fresh_server.user, fresh_server.password, "600"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONUNBUFFERED": "1"}),
    )
    assert worker.stdout is not None
    with worker.stdout as output:
        lines = [output.readline() for _ in range(4)]
        assert all(line.startswith("To ") for line in lines), lines
        worker.send_signal(signal.SIGTERM)
        assert output.read() == "All orders are confirmed.\n"
    assert worker.wait(SECONDS) == 0
    with headrace.connect(fresh_server.url, token=fresh_server.token) as db:
        assert list(db.topic("mail.orders").consume("confirmations", idle_seconds=0)) == []
