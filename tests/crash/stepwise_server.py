"""`headrace serve` with small files, that kills itself at a step of a flush, compaction, backup or commit. A program.

`python -m tests.crash.stepwise_server STEP ARMED serve …` runs the command line behind the first two arguments. While
the file ARMED exists, calls are counted; at STEP the process is gone. `+flush.written/2` is after the second time that
a flush wrote its files, `-fsync/7` before the seventh `os.fsync`; `none` is never. What it died of is written to
ARMED.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

STEPS: dict[str, int] = {
    "flush.recorded": 5, "flush.written": 5, "flush.swapped": 5,
    "compact.recorded": 3, "compact.written": 3, "compact.swapped": 3,
    "cold.write": 8, "cold.delete": 8, "cold.collected": 3,
    "lake.planned": 4, "lake.committed": 4,
    "backup.clear": 2, "backup.block": 30, "backup.pages": 2, "backup.object": 10, "backup.write": 4, "backup.made": 1,
    "commit": 80, "fsync": 50, "replace": 20, "unlink": 10, "link": 4,
}  # fmt: skip
"""Names of steps, and up to which occurrence of each a campaign kills."""


class Fuse:
    """Counts the calls of one name, and ends the process at the one that was asked for."""

    def __init__(self, step: str, armed: Path) -> None:
        when, _, rest = step[:1], step[:1], step[1:]
        self.name, _, at = rest.partition("/")
        self.after = when == "+"
        self.left = int(at) if at else 0
        self.text = step
        self.armed = armed
        self.lock = threading.Lock()

    def reached(self, name: str, *, after: bool) -> None:
        """A step was reached; maybe the last one."""
        if name != self.name or after is not self.after or not self.armed.exists():
            return
        with self.lock:
            self.left -= 1
            if self.left:
                return
            number = os.open(self.armed, os.O_WRONLY | os.O_TRUNC)
            os.write(number, self.text.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: object, attribute: str, name: str) -> None:
        """Make calls of a function steps: before and after."""
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def call(*arguments: Any, **more: Any) -> Any:
            self.reached(name, after=False)
            result = original(*arguments, **more)
            self.reached(name, after=True)
            return result

        setattr(owner, attribute, call)


def lay(fuse: Fuse) -> None:
    """Put the fuse into everything that moves or copies data."""
    from sql.backup import making, running
    from sql.lake.publishing import LakePublisher
    from storage import cold_tier
    from storage.environment import Environment

    moving = threading.local()

    def named(owner: type, attribute: str, hook: Callable[[Any], None]) -> None:
        """Call `hook` with each new object."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def call(self: Any, *arguments: Any, **more: Any) -> None:
            original(self, *arguments, **more)
            hook(self)

        setattr(owner, attribute, call)

    def step_of(prefix: Callable[[], str]) -> Callable[[str], None]:
        def step(name: str) -> None:
            fuse.reached(f"{prefix()}.{name}", after=False)
            fuse.reached(f"{prefix()}.{name}", after=True)

        return step

    def compact(self: Any, *arguments: Any, **more: Any) -> Any:
        moving.what = "compact"
        try:
            return plain(self, *arguments, **more)
        finally:
            moving.what = "flush"

    plain = cold_tier.ColdTier.compact
    cold_tier.ColdTier.compact = compact  # type: ignore[method-assign]
    named(
        cold_tier.ColdTier,
        "__init__",
        lambda cold: setattr(cold, "step", step_of(lambda: getattr(moving, "what", "flush"))),
    )
    named(LakePublisher, "__init__", lambda lake: setattr(lake, "step", step_of(lambda: "lake")))
    fuse.watch(cold_tier, "write_file", "cold.write")
    fuse.watch(cold_tier, "delete_file", "cold.delete")
    fuse.watch(cold_tier.ColdTier, "collect", "cold.collected")
    fuse.watch(making, "clear_leftovers", "backup.clear")
    fuse.watch(making, "store_pages", "backup.pages")
    fuse.watch(making, "store_object", "backup.object")
    fuse.watch(making, "write_new", "backup.write")
    fuse.watch(running, "run_backup", "backup.made")
    ticking = making._Backup._ticking

    def counted(self: Any, what: str) -> Callable[[int], None]:
        tick = ticking(self, what)

        def call(nbytes: int) -> None:
            fuse.reached("backup.block", after=False)
            tick(nbytes)
            fuse.reached("backup.block", after=True)

        return call

    making._Backup._ticking = counted  # type: ignore[method-assign]
    fuse.watch(Environment, "commit", "commit")
    fuse.watch(running, "restore", "restore.made")
    fuse.watch(running, "announce", "restore.announced")
    for name in ("fsync", "replace", "unlink", "link", "rename"):
        fuse.watch(os, name, name)


def keep_small() -> None:
    """Small batches, files and log, and a map that has to grow now and then."""
    from server import assembly

    original = assembly.storage_options

    def options(config: Any) -> Any:
        return msgspec.structs.replace(
            original(config),
            map_start=4 << 20, batch_rows=256, merge_fan_in=4, cold_segment_rows=256, cold_segment_bytes=1 << 20,
        )  # fmt: skip

    assembly.storage_options = options


def main(arguments: Sequence[str]) -> int:
    """Run the command with the fuse in place."""
    step, armed, *command = arguments
    keep_small()
    if step != "none":
        lay(Fuse(step, Path(armed)))
    from headrace.cli import main as headrace

    return headrace(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
