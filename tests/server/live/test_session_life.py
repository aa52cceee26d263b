"""How sessions end: time to sign in, heartbeat, slow clients, tokens that hold no more, the server's stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.live.session import SessionState
from storage.catalog import USER_KIND
from tests.server.live.fakes import Client, World, inserted, settle
from tests.server.live.test_session_messages import run, shown

Changed = tuple[str, str]


def beat(client: Client, after: float) -> None:
    """Let the heartbeat look at a session some seconds from now."""
    now = asyncio.get_running_loop().time()
    client.session.beat(now + after, client.world.clock.now_us())


def test_whoever_does_not_sign_in_is_told_and_closed() -> None:
    async def test(world: World) -> None:
        client = world.connect()
        async with asyncio.timeout(5):
            while not client.connection.closed:
                await asyncio.sleep(0.005)
        message = "Authentication timeout - no auth message received within 0.02 seconds"
        assert client.take() == [{"type": "auth_error", "message": message}]
        assert client.connection.closed_with == (1008, "Authentication timeout")

    run(test, auth_timeout_secs=0.02)


def test_the_sentence_has_the_seconds_of_the_reference() -> None:
    async def test(world: World) -> None:
        client = world.connect()
        client.session._auth_overdue(asyncio.get_running_loop().time())
        message = "Authentication timeout - no auth message received within 3 seconds"
        assert client.take() == [{"type": "auth_error", "message": message}]

    run(test)


def test_a_server_that_comes_late_gives_the_client_time_to_be_read() -> None:
    async def test(world: World) -> None:
        client = world.connect()
        client.session._auth_overdue(asyncio.get_running_loop().time() - 20)
        assert not client.connection.closed
        said = await client.say({"type": "authenticate", "method": "jwt", "token": "ann"})
        assert said[0]["type"] == "auth_success"

    run(test)


def test_silence_is_pinged_then_closed() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        beat(client, 2)
        assert client.connection.pings == 0
        beat(client, 5)
        beat(client, 9.9)
        assert client.connection.pings == 2
        assert not client.connection.closed
        beat(client, 10.1)
        assert client.connection.closed_with == (1000, "Heartbeat timeout")

    run(test)


def test_any_sign_of_life_counts() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        client.connection.last_heard += 8
        beat(client, 5)
        beat(client, 12)
        assert not client.connection.closed
        beat(client, 19)
        assert client.connection.closed

    run(test)


def test_a_server_that_comes_late_to_its_heartbeat_finds_nobody_silent() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        beat(client, 30)  # what the client said meanwhile was not read yet
        assert not client.connection.closed
        assert client.connection.pings == 1
        beat(client, 35)
        assert not client.connection.closed
        beat(client, 40)
        assert client.connection.closed_with == (1000, "Heartbeat timeout")

    run(test)


def test_a_slow_reader_that_makes_progress_lives() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        client.connection.buffered = 1000
        for seconds in range(5, 100, 5):
            client.connection.last_drained += 5
            beat(client, seconds)
        assert not client.connection.closed
        client.connection.buffered = 0  # it has read all: from now on its silence counts
        beat(client, 100)
        assert not client.connection.closed
        beat(client, 106)
        assert client.connection.closed_with == (1000, "Heartbeat timeout")

    run(test)


def test_a_reader_that_takes_nothing_is_dropped() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe()
        client.connection.buffered, client.connection.full = 1000, True
        beat(client, 59)
        assert not client.connection.closed
        beat(client, 61)
        (answer,) = client.take()
        assert shown(answer) == {"type": "error", "subscription_id": "protocol", "code": "SLOW_CONSUMER"}
        assert client.connection.closed_with == (1008, "Slow consumer")
        assert client.connection.aborted
        assert not world.hub.open

    run(test)


def test_the_service_beats_for_all_and_one_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        broken, fine = world.signed_in(), world.signed_in()
        del broken.connection.buffered
        world.service.start()
        async with asyncio.timeout(5):
            while not fine.connection.pings:
                await asyncio.sleep(0.005)
        await world.service.close()
        assert "the heartbeat of a client failed" in caplog.text

    run(test, heartbeat_interval_secs=0.01)


def test_a_beat_comes_twice_within_the_clients_time() -> None:
    async def test(world: World) -> None:
        assert world.service.options.beat_seconds == 2

    run(test, heartbeat_interval_secs=100, client_timeout_secs=4)


# --- tokens that hold no more -----------------------------------------------------------------------------------------

ENDS: list[tuple[str, Changed, bool]] = [
    ("ann/f1", (USER_KIND, "ann"), True),
    ("ann/f1", ("refresh_family", "f1"), True),
    ("ann/f1", (USER_KIND, "bob"), False),
    ("ann/f1", ("refresh_family", "f2"), False),
    ("ann/f1", ("table", "ann"), False),
]


@pytest.mark.parametrize(("token", "changed", "ends"), ENDS)
def test_a_changed_account_or_session_ends_its_connections(token: str, changed: Changed, ends: bool) -> None:
    async def test(world: World) -> None:
        world.service.start()
        client = world.connect(token)
        client.take()
        await client.subscribe()
        world.verifier.revoked.add(token)
        await asyncio.to_thread(world.service.accounts_changed, [changed])
        await settle()
        if ends:
            assert client.take()[-1] == {"type": "auth_error", "message": "Invalid credentials"}
            assert client.connection.closed_with == (1008, "Invalid credentials")
            assert not world.hub.open
        else:
            assert not client.connection.closed
        await world.service.close()

    run(test)


def test_a_change_that_leaves_the_token_good_ends_nothing() -> None:
    async def test(world: World) -> None:
        world.service.start()
        client = world.signed_in()
        world.service.accounts_changed([(USER_KIND, "ann")])
        await settle()
        assert not client.connection.closed
        world.verifier.down = True  # it cannot be checked now
        world.service.accounts_changed([(USER_KIND, "ann")])
        await settle()
        beat(client, 1)
        assert not client.connection.closed
        world.verifier.down = False
        world.verifier.revoked.add("ann")
        beat(client, 2)  # the next heartbeat tries again
        assert client.connection.closed
        await world.service.close()

    run(test)


def test_an_expired_token_ends_the_session_and_a_newer_one_prolongs_it() -> None:
    async def test(world: World) -> None:
        world.verifier.expires_us = world.clock.now_us() + 10_000_000
        client = world.signed_in("ann/f1")
        world.verifier.expires_us += 60_000_000
        (answer,) = await client.say({"type": "authenticate", "token": "ann/f2"})
        assert answer["type"] == "auth_success"
        world.verifier.revoked |= {"ann/f1", "ann/f2"}
        world.clock.seconds += 11
        beat(client, 0)
        assert not client.connection.closed
        world.clock.seconds += 60
        beat(client, 0)
        assert client.connection.closed_with == (1008, "Invalid credentials")

    run(test)


def test_a_session_is_known_by_its_newest_token_only() -> None:
    async def test(world: World) -> None:
        world.service.start()
        client = world.signed_in("ann/f1")
        await client.say({"type": "authenticate", "token": "ann/f2"})
        world.verifier.revoked |= {"ann/f1"}
        world.service.accounts_changed([("refresh_family", "f1")])
        await settle()
        assert not client.connection.closed
        world.verifier.revoked |= {"ann/f2"}
        world.service.accounts_changed([("refresh_family", "f2")])
        await settle()
        assert client.connection.closed
        await world.service.close()

    run(test)


# --- the end ----------------------------------------------------------------------------------------------------------

AFTER: list[Callable[[Client], Awaitable[Any]]] = [
    lambda client: client.say({"type": "ping", "id": 1}),
    lambda client: client.subscribe(),
    lambda client: client.say("{"),
]


@pytest.mark.parametrize("act", AFTER)
def test_nothing_is_answered_after_the_close(act: Callable[[Client], Awaitable[Any]]) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        client.session.close(1000, "bye")
        assert await act(client) == []
        assert client.connection.closed_with == (1000, "bye")
        client.session.close(1011, "again")
        client.session.recheck()
        beat(client, 1000)
        assert client.connection.closed_with == (1000, "bye")
        client.session.end()
        assert client.session.state is SessionState.CLOSED
        with pytest.raises(RuntimeError):
            client.session._move(SessionState.OPEN)

    run(test)


def test_a_connection_that_is_lost_while_a_batch_waits_leaves_nothing() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe("live")
        client.connection.full = True
        assert not world.hub.deliver("live", inserted())
        waiting = asyncio.create_task(client.session.handle({"type": "websocket.receive", "text": '{"type":"ping"}'}))
        await settle()
        client.session.end()
        await settle()
        assert waiting.done()

    run(test)


def test_figures_and_last_signs_of_life() -> None:
    async def test(world: World) -> None:
        world.service.start()
        client = world.signed_in()
        await client.subscribe()
        assert world.service.figures() == {
            "total_live_queries": 1, "websocket_sessions": 1, "websocket_sessions_peak": 1,
        }  # fmt: skip
        client.connection.last_heard -= 7
        heard = world.service.last_heard_us(client.session.connection_id)
        assert heard is not None
        assert 6_000_000 < world.clock.now_us() - heard < 60_000_000
        assert world.service.last_heard_us("nobody") is None
        await world.service.close()

    run(test)
