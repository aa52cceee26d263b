"""Clients that do not read: nothing is lost while they lag, others go on, and they do not lag for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import websockets

from tests.e2e.live_socket import PATIENCE, play, signed_in, sql
from tests.e2e.running import RunningServer

ROWS, ROUNDS = 50, 24
BODY = "0123456789abcdef" * 1500
"""24 KB a row: 28 MB together, more than the kernel's buffers hold."""
SETTINGS = {
    "HEADRACE_WEBSOCKET_SEND_BUFFER_BYTES": "65536", "HEADRACE_WEBSOCKET_CLIENT_TIMEOUT_SECS": "60",
}  # fmt: skip


async def written(server: RunningServer, start: int) -> None:
    """Insert one commit's rows."""
    values = ", ".join(f"({number}, $1)" for number in range(start, start + ROWS))
    await sql(server, f"INSERT INTO app.notes VALUES {values}", [BODY])


async def status(server: RunningServer, name: str) -> str:
    """What `system.live` says of a subscription; empty if it is gone."""
    found = await sql(server, "SELECT status FROM system.live WHERE subscription_id = $1", [name])
    return str(found[0][0]) if found else ""


def started(serve: Any, **changes: str) -> RunningServer:
    """A server with a table."""
    running: RunningServer = serve(**SETTINGS, **changes)
    running.set_up().sql("CREATE NAMESPACE app; CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT)")
    return running


def test_a_client_that_lags_misses_nothing_and_holds_up_nobody(serve: Any) -> None:
    running = started(serve)

    async def scene() -> None:
        plain = {"serialization": "json", "compression": "none"}
        async with signed_in(running, **plain) as slow, signed_in(running, **plain) as quick:
            await slow.subscribe("SELECT * FROM app.notes", "slow")
            await quick.subscribe("SELECT id FROM app.notes", "quick")
            slow.connection.transport.pause_reading()
            seen: list[int] = []
            for number in range(ROUNDS):
                await written(running, number * ROWS)
                while len(seen) < (number + 1) * ROWS:
                    seen += [row["id"] for row in (await quick.take())["rows"]]
            assert seen == list(range(ROUNDS * ROWS))
            assert await status(running, "slow") == "behind"
            memory = running.memory_mb()
            slow.connection.transport.resume_reading()
            late: list[dict[str, Any]] = []
            while len(late) < ROUNDS * ROWS:
                late += (await slow.take())["rows"]
            assert [row["id"] for row in late] == list(range(ROUNDS * ROWS))
            assert [row["_seq"] for row in late] == sorted({row["_seq"] for row in late})
            await sql(running, "INSERT INTO app.notes VALUES (100000, 'last')")
            assert (await slow.take())["rows"][0]["body"] == "last"
            async with asyncio.timeout(PATIENCE):
                while await status(running, "slow") != "live":
                    await asyncio.sleep(0.02)
            assert running.memory_mb() < memory + 200

    play(scene)


def test_a_client_that_never_reads_is_cut_off(serve: Any) -> None:
    running = started(serve, HEADRACE_WEBSOCKET_SLOW_CONSUMER_TIMEOUT_SECS="0.5",
                      HEADRACE_WEBSOCKET_HEARTBEAT_INTERVAL_SECS="0.1")  # fmt: skip

    async def scene() -> None:
        async with signed_in(running, serialization="json", compression="none") as slow:
            await slow.subscribe("SELECT * FROM app.notes", "slow")
            slow.connection.transport.pause_reading()
            for number in range(ROUNDS):
                await written(running, number * ROWS)
            async with asyncio.timeout(PATIENCE):
                while await status(running, "slow"):
                    await asyncio.sleep(0.05)
            slow.connection.transport.resume_reading()
            try:
                while True:
                    await slow.take()
            except websockets.ConnectionClosed:
                pass
            assert (
                await sql(running, "SELECT metric_value FROM system.stats WHERE metric_name = 'websocket_sessions'")
            ) == [["0"]]

    play(scene)
