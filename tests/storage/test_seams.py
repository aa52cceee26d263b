"""The clock that never goes back."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from storage.seams import ForwardClock
from tests.storage.stream_model import JumpingClock


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 100), st.integers(-50, 100))))
def test_time_never_goes_back(start: int, jumps: list[tuple[int, int]]) -> None:
    machine = JumpingClock()
    clock = ForwardClock(machine, start)
    latest = start
    for wall, stored in jumps:
        machine.wall = wall
        clock.not_before(stored)
        latest = max(latest, wall, stored)
        assert clock.now_us() == latest
    assert clock.monotonic() == machine.monotonic()


def test_time_never_goes_back_for_several_threads() -> None:
    """Each thread sees what any other saw before it."""
    machine = JumpingClock()
    clock = ForwardClock(machine)
    seen: list[int] = []
    order = threading.Lock()

    def look() -> None:
        for step in range(2_000):
            machine.wall += 7 if step % 3 else -11
            with order:
                seen.append(clock.now_us())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == sorted(seen)
