"""Makes the disk under LMDB fail: compiles `shim.c`, and steers it through the file that it shares with a process."""

from __future__ import annotations

import enum
import errno
import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("shim.c")
VARIABLE = "HEADRACE_FAULTS"
NUMBERS = 64
ENTRIES = 1 << 16
ENTRY = struct.Struct("<4i")
SIZE = NUMBERS * 8 + ENTRIES * ENTRY.size


class Place(enum.IntEnum):
    """Where each number stands in the shared file; the same list opens `shim.c`."""

    ARMED = 0
    KINDS = 1
    AT = 2
    STICKY = 3
    ERROR = 4
    SHORT = 5
    AFTER = 6
    NOSYNC = 7
    WRITES = 8
    SYNCS = 9
    ALLOCS = 10
    FIRED = 11
    LOGGED = 12
    GENERATION = 13
    SHUT = 14
    KILL = 15


class Call(enum.IntFlag):
    """What the shim watches."""

    WRITE = 1
    SYNC = 2
    ALLOC = 4
    OPEN = 8


COUNTERS = {Call.WRITE: Place.WRITES, Call.SYNC: Place.SYNCS, Call.ALLOC: Place.ALLOCS}


class Fault(NamedTuple):
    """One way to fail, and how often the file then refuses to be opened.

    `short`: half of the bytes are written, and the call says so. `after`: the call takes effect before it fails.
    `kill`: the process ends where the call would fail.
    """

    call: Call
    error: int = errno.EIO
    sticky: bool = False
    short: bool = False
    after: bool = False
    shut: int = 0
    kill: bool = False

    def __str__(self) -> str:
        parts = [str(self.call.name).lower(), "short" if self.short else errno.errorcode[self.error]]
        parts += ["sticky"] * self.sticky + ["after"] * self.after + ["shut"] * (self.shut > 0)
        parts += ["kill"] * self.kill
        return "-".join(parts)


class Seen(NamedTuple):
    """A call that the shim saw. `descriptor`: 0 none, 1 the plain one, 2 the one whose writes sync themselves."""

    call: Call
    descriptor: int
    generation: int
    failed: bool


class Faults:
    """The shared file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    def __getitem__(self, place: Place) -> int:
        return int.from_bytes(self._map[place * 8 : place * 8 + 8], "little", signed=True)

    def __setitem__(self, place: Place, value: int) -> None:
        self._map[place * 8 : place * 8 + 8] = value.to_bytes(8, "little", signed=True)

    def arm(self, fault: Fault, at: int) -> None:
        """Let the `at`-th call from now fail."""
        self.disarm()
        self[COUNTERS[fault.call]] = 0
        self[Place.KINDS] = fault.call
        self[Place.AT] = at
        self[Place.STICKY] = fault.sticky
        self[Place.ERROR] = fault.error
        self[Place.SHORT] = fault.short
        self[Place.AFTER] = fault.after
        self[Place.SHUT] = fault.shut
        self[Place.KILL] = fault.kill
        self[Place.FIRED] = 0
        self[Place.ARMED] = 1

    def disarm(self) -> None:
        """Let nothing fail any more."""
        self[Place.ARMED] = self[Place.SHUT] = 0

    def forgive(self) -> None:
        """Let no further call fail; a file that refuses to be opened goes on refusing."""
        self[Place.ARMED] = 0

    @property
    def fired(self) -> int:
        """How many calls have failed since `arm`."""
        return self[Place.FIRED]

    def forget(self) -> None:
        """Begin the log anew."""
        self[Place.LOGGED] = 0

    def log(self) -> list[Seen]:
        """Every call on the data file since `forget`, and the allocations that failed."""
        count = self[Place.LOGGED]
        assert count <= ENTRIES, "the log of the shim is full"
        start = NUMBERS * 8
        content = self._map[start : start + count * ENTRY.size]
        return [
            Seen(Call(call), descriptor, generation, bool(failed))
            for call, descriptor, generation, failed in ENTRY.iter_unpack(content)
        ]

    def synced_again(self) -> str:
        """A sync or a write on a descriptor whose sync had failed, as a sentence; empty when there is none.

        The data file must be opened again first. Only LMDB's attempt to put the old meta page back is allowed: a write
        through the plain descriptor right after a write of the meta page failed.
        """
        failed: Seen | None = None
        for number, seen in enumerate(self.log()):
            if failed is not None and seen.generation == failed.generation and seen.call is not Call.OPEN:
                restores = failed.descriptor == 2 and seen.call is Call.WRITE and seen.descriptor == 1
                if not restores:
                    return f"call {number} is {seen}, after {failed} without an open() between"
            syncs = seen.call is Call.SYNC or (seen.call is Call.WRITE and seen.descriptor == 2)
            if seen.failed and syncs:
                failed = seen
        return ""


def compile_shim(folder: Path) -> Path:
    """The shim as a library in `folder`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("making the disk fail needs a C compiler (cc, gcc or clang), and none is installed")
    library = folder / "shim.so"
    command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def preloaded(library: Path, control: Path) -> dict[str, str]:
    """What to add to a process's environment."""
    return {"LD_PRELOAD": str(library), VARIABLE: str(control)}
