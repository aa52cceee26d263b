"""A call that was given up leaves nothing behind: not even what only the garbage collector would find."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from functools import partial

import pytest

from sql.workers import Control, Workers


class Rows:
    """Stands for what a query holds: a table whose memory is the storage's, and keeps a snapshot open."""


@pytest.mark.parametrize("may_be_left", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_call_that_was_given_up_keeps_nothing(may_be_left: bool, wrapped: bool) -> None:
    held: list[weakref.ref[Rows]] = []
    running, ended = threading.Event(), threading.Event()

    def call(control: Control) -> None:
        rows = Rows()
        held.append(weakref.ref(rows))
        running.set()
        try:
            while control.stopped is None:
                ended.wait(0.001)
            if wrapped:
                raise ValueError("interrupted")
            control.check()
        except ValueError:
            control.check()
        finally:
            ended.set()

    async def body() -> None:
        workers = Workers(1, 1)
        control = Control(60)
        control.may_be_left = may_be_left
        task = asyncio.create_task(workers.run(partial(call, control), control))
        await asyncio.to_thread(running.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task, control
        await asyncio.to_thread(ended.wait, 60)
        async with asyncio.timeout(10):
            while held[0]() is not None:
                await asyncio.sleep(0.01)
        workers.close()

    gc.disable()
    try:
        asyncio.run(body())
    finally:
        gc.enable()
