"""What clients of live queries cannot use up: the server's memory, files, threads, snapshots, and others' patience."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bystander import Bystander
from tests.e2e.conftest import Serve
from tests.e2e.live_socket import Socket, connected, play, signed_in, sql
from tests.e2e.running import RunningServer

PATIENCE = 60.0
SETTINGS = {
    "HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "0",
    "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "0",
    "HEADRACE_WEBSOCKET_SEND_BUFFER_BYTES": "65536",
    "HEADRACE_WEBSOCKET_CLIENT_TIMEOUT_SECS": "120",
    "HEADRACE_WEBSOCKET_SLOW_CONSUMER_TIMEOUT_SECS": "120",
    "HEADRACE_PERFORMANCE_WORKER_MAX_BLOCKING_THREADS": "4",
}
PLAIN = {"serialization": "json", "compression": "none"}
RESET = struct.pack("ii", 1, 0)


def started(serve: Serve, **changes: str) -> RunningServer:
    """A server with a table of 3,000 rows."""
    server = serve(**SETTINGS | changes).set_up()
    server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE = 'SHARED')")
    server.sql("INSERT INTO app.t SELECT range, repeat('x', 200) FROM range(3000)")
    return server


def stat(server: RunningServer, name: str) -> int:
    """A figure of `system.stats`."""
    return int(server.rows("SELECT metric_value FROM system.stats WHERE metric_name = $1", [name])[0][0])


def live(server: RunningServer) -> int:
    """How many live queries there are."""
    return int(server.rows("SELECT count(*) FROM system.live")[0][0])


def used(server: RunningServer) -> tuple[int, int]:
    """Open files and threads of the process."""
    assert server.process is not None
    folder = Path(f"/proc/{server.process.pid}")
    return sum(1 for _ in (folder / "fd").iterdir()), sum(1 for _ in (folder / "task").iterdir())


def wait_until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for something that happens by itself."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


def subscribe(name: str, query: str = "SELECT * FROM app.t", **options: Any) -> str:
    """A subscribe message."""
    fields = {"options": options} if options else {}
    return json.dumps({"type": "subscribe", "subscription": {"id": name, "sql": query, **fields}})


# --- consumers that do not keep up -----------------------------------------------------------------------------------


def narrow(server: RunningServer) -> socket.socket:
    """A socket that holds little of what is sent to it."""
    port = int(server.url.rsplit(":", 1)[1])
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    return connection


@pytest.mark.slow
def test_consumers_that_do_not_read_cost_little_and_hold_up_nobody(serve: Serve) -> None:
    server = started(serve)
    rows, rounds, body = 40, 30, "0123456789abcdef" * 1000
    stuck: list[Socket] = []

    async def scene() -> None:
        sockets = [narrow(server) for _ in range(16)]
        contexts = [connected(server, sock=each, max_queue=1) for each in sockets]
        for number, context in enumerate(contexts):
            consumer = await context.__aenter__()
            await consumer.authenticate(server.token, **PLAIN)
            await consumer.subscribe("SELECT * FROM app.t", f"stuck {number}")
            consumer.connection.transport.pause_reading()
            stuck.append(consumer)
        before = server.memory_mb()
        async with signed_in(server, **PLAIN) as bystander:
            await bystander.subscribe("SELECT * FROM app.t", "bystander")
            seen: list[int] = []
            for number in range(rounds):
                first = 10_000 + number * rows
                values = ", ".join(f"({key}, $1)" for key in range(first, first + rows))
                await sql(server, f"INSERT INTO app.t VALUES {values}", [body])
                while len(seen) < (number + 1) * rows:
                    seen += [row["id"] for row in (await bystander.take())["rows"]]
            assert seen == list(range(10_000, 10_000 + rows * rounds))
            found = await sql(server, "SELECT subscription_id, status FROM system.live")
            assert {name: status for name, status in found if name != "bystander"} == {
                f"stuck {number}": "behind" for number in range(16)
            }
            # Sixteen times 19 MB wait for these clients, of which the server may hold 64 KB each.
            assert server.memory_mb() < before + 120
            # One of them wakes up, and has missed nothing.
            waking = stuck[0]
            waking.connection.transport.resume_reading()
            late: list[int] = []
            while len(late) < len(seen):
                late += [row["id"] for row in (await waking.take())["rows"]]
            assert late == seen
        for consumer in stuck:
            consumer.connection.transport.abort()

    play(scene)
    wait_until(lambda: live(server) == 0, lambda: server.rows("SELECT live_id, status FROM system.live"))
    assert stat(server, "websocket_sessions") == 0
    assert stat(server, "storage_open_snapshots") == 1  # of the question itself
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log()


# --- connections that go without a word ------------------------------------------------------------------------------

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(text: str, chance: random.Random) -> bytes:
    """A masked text frame."""
    data, mask = text.encode(), chance.randbytes(4)
    size = len(data)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + struct.pack(">H", size)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


async def visit(server: RunningServer, chance: random.Random, states: Counter[str]) -> None:
    """Connect, go some of the way, and drop the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    token = json.dumps({"type": "authenticate", "method": "jwt", "token": server.token, "protocol": PLAIN})
    snapshot = subscribe("s", batch_size=chance.choice([10, 1000]))
    batch = json.dumps({"type": "next_batch", "subscription_id": "s"})
    steps = [
        ("connecting", b""),
        ("within the upgrade", UPGRADE[: chance.randrange(1, len(UPGRADE))]),
        ("upgraded", UPGRADE),
        ("within the token", frame(token, chance)[: chance.randrange(1, 200)]),
        ("signed in", frame(token, chance)),
        ("live", frame(subscribe("live"), chance)),
        ("reading a snapshot", frame(snapshot, chance)),
        ("within a snapshot", frame(snapshot, chance) + frame(batch, chance)),
        ("unsubscribing", frame(json.dumps({"type": "unsubscribe", "subscription_id": "live"}), chance)),
    ]
    needed = {2: (2,), 3: (2, 3), 4: (2, 4), 5: (2, 4, 5), 6: (2, 4, 6), 7: (2, 4, 5, 7), 8: (2, 4, 5, 8)}
    end = chance.randrange(len(steps))
    for step in needed.get(end, (end,)):
        writer.write(steps[step][1])
        if chance.random() < 0.7 and step in {2, 4, 5, 6, 7}:
            async with asyncio.timeout(PATIENCE):
                await reader.read(chance.choice([1, 4096]))
    states[steps[end][0]] += 1
    if chance.random() < 0.5:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@pytest.mark.slow
def test_a_thousand_connections_that_drop_leave_nothing_behind(serve: Serve) -> None:
    server = started(serve)
    chance = random.Random(1)
    states: Counter[str] = Counter()

    async def visits(count: int) -> None:
        for _ in range(count // 50):
            await asyncio.gather(*(visit(server, chance, states) for _ in range(50)))
            await sql(server, "UPDATE app.t SET v = v || 'y' WHERE id < 20")

    def settled() -> bool:
        return live(server) == 0 and stat(server, "websocket_sessions") == 0

    def what() -> object:
        return server.rows("SELECT live_id, status FROM system.live"), stat(server, "websocket_sessions")

    asyncio.run(visits(100))  # whatever is opened once and kept
    wait_until(settled, what)
    files, threads = used(server)
    memory = server.memory_mb()
    asyncio.run(visits(1_000))
    wait_until(settled, what)
    wait_until(lambda: used(server)[0] <= files, lambda: (used(server), files))
    assert used(server)[1] <= threads + 4  # workers that were not needed before
    wait_until(lambda: stat(server, "storage_open_snapshots") == 1, lambda: stat(server, "storage_open_snapshots"))
    assert server.memory_mb() < memory + 60
    assert len(states) == 9
    assert min(states.values()) > 50
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log()


# --- too many messages -----------------------------------------------------------------------------------------------


def counted(messages: list[dict[str, Any]]) -> Counter[str]:
    """How many messages of each type (errors: code) there are."""
    return Counter(message.get("code") or message["type"] for message in messages)


def test_thousands_of_subscriptions_on_one_socket(serve: Serve) -> None:
    server = started(serve)
    bystander = Bystander(server)

    def stands() -> bool:
        return server.rows("SELECT status FROM system.live WHERE query LIKE '% 2999'") == [["live"]]

    async def scene() -> None:
        async with signed_in(server, **PLAIN) as one:
            before = server.memory_mb()
            # The same name again and again: the last one stays.
            for number in range(3_000):
                await one.send(subscribe("same", f"SELECT * FROM app.t WHERE id = {number}"))
            answers = await one.settled()
            await asyncio.to_thread(wait_until, stands, lambda: server.rows("SELECT query, status FROM system.live"))
            await sql(server, "UPDATE app.t SET v = 'new' WHERE true")
            while answers[-1]["type"] != "change":
                answers.append(await one.take())
            # Those that were replaced before they stood are not answered.
            assert set(counted(answers)) == {"subscription_ack", "change"}
            assert [[row["id"] for row in m["rows"]] for m in answers if m["type"] == "change"] == [[2_999]]
            assert await asyncio.to_thread(live, server) == 1
            # Different names: as many as are allowed.
            for number in range(3_000):
                await one.send(subscribe(f"s{number}", batch_size=1))
            found = counted(await one.settled())
            while found["initial_data_batch"] < 99:
                found += counted([await one.take()])
            assert found == {
                "subscription_ack": 99, "initial_data_batch": 99, "SUBSCRIPTION_LIMIT_EXCEEDED": 2_901,
            }  # fmt: skip
            assert await asyncio.to_thread(live, server) == 100
            assert server.memory_mb() < before + 200
        async with signed_in(server, **PLAIN) as other:
            await other.subscribe("SELECT * FROM app.t", "fine")

    bystander.watch(lambda: play(scene))
    bystander.close()
    wait_until(lambda: live(server) == 0, lambda: live(server))
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log()


def test_a_flood_is_told_to_slow_down_and_harms_nobody(serve: Serve) -> None:
    server = started(serve, HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC="50")
    bystander = Bystander(server)

    async def scene() -> None:
        async with signed_in(server, **PLAIN) as flooding:
            await flooding.subscribe("SELECT * FROM app.t", "s")
            before = server.memory_mb()
            flooding.connection.transport.pause_reading()
            message = frame(json.dumps({"type": "ping", "id": "x" * 200}), random.Random(1)) * 100
            for _ in range(100):
                flooding.connection.transport.write(message)
                if flooding.connection.transport.get_write_buffer_size() > 1 << 20:
                    break  # the server takes no more as long as its answers are not read
                await asyncio.sleep(0.01)
            assert server.memory_mb() < before + 60
            flooding.connection.transport.resume_reading()
            found: Counter[str] = Counter()
            while found["RATE_LIMIT_EXCEEDED"] < 1_000:
                found += counted([await flooding.take()])
            assert found["pong"] >= 1
            flooding.connection.transport.abort()

    bystander.watch(lambda: play(scene))
    bystander.close()
    wait_until(lambda: live(server) == 0, lambda: live(server))
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log()
