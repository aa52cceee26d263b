"""Locks after wrong passwords, equal answers for names that do not exist, and the bounded queue of checks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import httpx
import pytest

from server.auth.lockout import Strangers
from server.auth.options import AuthOptions
from sql.passwords import HashParameters
from storage.errors import QueueFull
from tests.server.auth_fakes import DBA_PASSWORD, ROOT_PASSWORD, START, World, code_of, id_of, run

LOGIN = "/v1/api/auth/login"
MINUTE = 60


async def attempt(world: World, user: str, password: str) -> httpx.Response:
    async with world.client() as client:
        return await client.post(LOGIN, json={"user": user, "password": password})


@pytest.mark.parametrize("user", ["admin", "nobody"])
def test_five_wrong_passwords_lock_for_fifteen_minutes(user: str) -> None:
    async def scenario(world: World) -> None:
        for _ in range(5):
            assert id_of(await attempt(world, user, "wrong")) == (401, "unauthorized")
        locked = await attempt(world, user, DBA_PASSWORD)
        assert id_of(locked) == (401, "account_locked")
        assert locked.headers["retry-after"] == str(15 * MINUTE)
        assert "15 minutes" in locked.json()["message"]
        world.clock.advance(15 * MINUTE - 59.5)
        locked = await attempt(world, user, DBA_PASSWORD)
        assert locked.headers["retry-after"] == "60"
        assert "1 minute." in locked.json()["message"]
        world.clock.advance(59.5)
        assert id_of(await attempt(world, user, "wrong")) == (401, "unauthorized")  # over, and a new count
        for _ in range(4):
            assert id_of(await attempt(world, user, "wrong")) == (401, "unauthorized")
        assert id_of(await attempt(world, user, "wrong")) == (401, "account_locked")

    run(scenario)


def test_the_count_is_stored_and_a_success_clears_it() -> None:
    async def scenario(world: World) -> None:
        for number in range(1, 5):
            await attempt(world, "admin", "wrong")
            assert world.engine.user("admin").failed_login_attempts == number
        await world.login()
        assert world.engine.user("admin").failed_login_attempts == 0
        for _ in range(5):
            await attempt(world, "admin", "wrong")
        stored = world.engine.user("admin")
        assert (stored.failed_login_attempts, stored.locked_until) == (5, START + 15 * MINUTE * 1_000_000)
        world.clock.advance(15 * MINUTE)
        await world.login()
        stored = world.engine.user("admin")
        assert (stored.failed_login_attempts, stored.locked_until) == (0, None)

    run(scenario)


def test_guesses_during_a_lock_do_not_prolong_it_and_cost_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        for _ in range(5):
            await attempt(world, "admin", "wrong")
        until = world.engine.user("admin").locked_until
        monkeypatch.setattr("server.auth.hashing.verify_password", None)
        world.clock.advance(MINUTE)
        for _ in range(10):
            assert id_of(await attempt(world, "admin", "wrong")) == (401, "account_locked")
        assert world.engine.user("admin").locked_until == until

    run(scenario)


def test_a_lock_also_stops_the_tokens_and_ends_by_itself() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        assert (await world.whoami(token)).status_code == 200
        for _ in range(5):
            await attempt(world, "admin", "wrong")
        response = await world.whoami(token)
        assert code_of(response) == (401, "ACCOUNT_LOCKED")
        assert response.json()["error"]["message"] == "Account locked"
        assert response.headers["retry-after"] == str(15 * MINUTE)
        world.clock.advance(15 * MINUTE)
        assert (await world.whoami(token)).status_code == 200

    run(scenario)


def test_locking_can_be_turned_off() -> None:
    async def scenario(world: World) -> None:
        for user in ("admin", "nobody"):
            for _ in range(20):
                assert id_of(await attempt(world, user, "wrong")) == (401, "unauthorized")
        await world.login()

    run(scenario, max_failed_logins=0)


def test_root_cannot_be_locked_from_outside() -> None:
    async def scenario(world: World) -> None:
        async with world.client("203.0.113.7") as client:
            for _ in range(10):
                response = await client.post(LOGIN, json={"user": "root", "password": "wrong"})
                assert id_of(response) == (403, "forbidden")
            await world.login("root", ROOT_PASSWORD)

    run(scenario)


def test_the_right_password_among_many_at_once_does_not_get_past_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty guesses are checked before the first failure is counted; the last of them is right."""
    released = threading.Event()

    def verify(stored: str | None, password: str, parameters: HashParameters) -> bool:
        released.wait(10)
        return password == DBA_PASSWORD

    monkeypatch.setattr("server.auth.hashing.verify_password", verify)

    async def scenario(world: World) -> None:
        async with world.client() as client:
            guesses = [
                asyncio.ensure_future(client.post(LOGIN, json={"user": "admin", "password": password}))
                for password in [*["wrong"] * 19, DBA_PASSWORD]
            ]
            while world.context.threads._executor._work_queue.qsize() < 19:
                await asyncio.sleep(0)
            released.set()
            answers = [id_of(answer) for answer in await asyncio.gather(*guesses)]
        assert answers[-1] == (401, "account_locked")
        assert Counter(answers[:-1]) == {(401, "unauthorized"): 19}

    run(scenario, hash_threads=1)


def test_a_password_changed_during_the_check_does_not_let_the_old_one_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        def verify(stored: str | None, password: str, parameters: HashParameters) -> bool:
            world.engine.change_user("admin", password_hash="$argon2id$v=19$m=8,t=1,p=1$bmV3$bmV3")
            return True

        monkeypatch.setattr("server.auth.hashing.verify_password", verify)
        assert id_of(await attempt(world, "admin", DBA_PASSWORD)) == (401, "unauthorized")

    run(scenario)


def test_checks_beyond_the_queue_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    running: list[int] = []

    def verify(stored: str | None, password: str, parameters: HashParameters) -> bool:
        running.append(1)
        released.wait(10)
        return True

    monkeypatch.setattr("server.auth.hashing.verify_password", verify)

    async def scenario(world: World) -> None:
        body = {"user": "admin", "password": DBA_PASSWORD}
        async with world.client() as client:
            waiting = [asyncio.ensure_future(client.post(LOGIN, json=body)) for _ in range(5)]
            while not (len(running) == 2 and world.context.threads._executor._work_queue.qsize() == 3):
                await asyncio.sleep(0)
            refused = await client.post(LOGIN, json=body)
            assert id_of(refused) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            released.set()
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert (await client.post(LOGIN, json=body)).status_code == 200

    run(scenario, hash_threads=2, hash_queue=3)


def test_an_abandoned_check_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("server.auth.hashing.verify_password", lambda *_: released.wait(10))

    async def scenario(world: World) -> None:
        threads = world.context.threads
        first = asyncio.ensure_future(threads.verify(None, "x"))
        second = asyncio.ensure_future(threads.verify(None, "x"))
        await asyncio.sleep(0)
        second.cancel()
        released.set()
        assert await first
        assert await threads.verify(None, "x")

    run(scenario, hash_threads=1, hash_queue=1, ready=False)


def test_every_kind_of_refusal_costs_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str | None] = []

    def verify(stored: str | None, password: str, parameters: HashParameters) -> bool:
        checked.append(stored)
        return False

    monkeypatch.setattr("server.auth.hashing.verify_password", verify)

    async def scenario(world: World) -> None:
        world.engine.change_user("root", password_hash=None)
        await world.add_user("gone", deleted_at=START)
        for user, password in [("admin", "wrong"), ("nobody", "wrong"), ("root", "wrong"), ("gone", "x" * 3000)]:
            await attempt(world, user, password)
        assert len(checked) == 4
        assert checked[0] is not None
        assert checked[1:] == [None, None, None]

    run(scenario)


@pytest.mark.parametrize("error", [QueueFull("full"), OSError("no space")])
def test_a_failure_that_cannot_be_stored_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        def commit_now(work: object) -> None:
            raise error

        def submit(work: object, *, on_done: object = None) -> None:
            raise error

        replaced = "submit" if isinstance(error, QueueFull) else "commit_now"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, replaced, submit if replaced == "submit" else commit_now)
            assert id_of(await attempt(world, "admin", "wrong")) == (401, "unauthorized")
        await world.login()

    run(scenario)
    assert "a failed login cannot be counted" in caplog.text


def test_names_that_do_not_exist_are_counted_in_bounded_memory() -> None:
    strangers = Strangers(AuthOptions(max_failed_logins=2), capacity=3)
    for name in ("a", "b", "a", "c", "d"):
        strangers.record_failure(name, START)
    assert strangers.locked_until("a", START) is not None
    assert len(strangers._counts) == 3
    strangers.record_failure("b", START)  # it was forgotten: its first failure again
    assert strangers.locked_until("b", START) is None
