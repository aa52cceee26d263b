"""The turns of the event loop: each ends in time, and a new one begins with the next."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from server.websocket.turn import TURN_SECONDS, LoopTurn


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_turn_ends_and_the_next_begins(run) -> None:
    async def test() -> None:
        turn = LoopTurn()
        for _ in range(3):
            began = time.monotonic()
            while not turn.is_over():
                pass
            assert time.monotonic() - began >= TURN_SECONDS / 2
            assert turn.is_over()  # until the loop turns
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    run(test())


def test_many_busy_tasks_leave_turns_to_others() -> None:
    async def test() -> None:
        turn = LoopTurn()
        left = [200] * 50

        async def busy(number: int) -> None:
            while left[number]:
                left[number] -= 1
                end = time.perf_counter() + 0.0002
                while time.perf_counter() < end:
                    pass
                if turn.is_over():
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(busy(number)) for number in range(50)]
        turns = 0
        while any(left):
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(*tasks)
        assert turns > 20  # without turns: two

    asyncio.run(test())
