"""What the process takes of its machine: memory, processor time, open files, and for how long it runs.

Read from /proc and /sys, where Linux tells it: five short files. psutil would tell the same for one more compiled
dependency and some megabytes of an idle server; Headrace runs on Linux only.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

MIB = 1_048_576
_LEAST_INTERVAL = 1.0
"""Seconds over which the use of the processor is averaged, at least."""


class ProcessFigures:
    """The figures of this process. Safe from any thread; `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._lock = threading.Lock()
        self._seen = self._started, time.process_time()
        self._percent = 0.0

    @property
    def uptime_seconds(self) -> int:
        """Seconds since the figures were made: since the start."""
        return int(self._monotonic() - self._started)

    @property
    def uptime_human(self) -> str:
        """The uptime as `1d 2h 3m 4s`."""
        return human(self.uptime_seconds)

    def cpu_percent(self) -> float:
        """Processor time used since the last look that is a second old or more, in percent of one core."""
        with self._lock:
            now, used = self._monotonic(), time.process_time()
            before, used_before = self._seen
            if now - before >= _LEAST_INTERVAL:
                self._percent = round(100.0 * (used - used_before) / (now - before), 2)
                self._seen = now, used
            return self._percent


def human(seconds: int) -> str:
    """A time in days, hours, minutes and seconds."""
    hours, rest = divmod(seconds, 3600)
    return f"{hours // 24}d {hours % 24}h {rest // 60}m {rest % 60}s"


def memory_bytes() -> int:
    """Memory of the process that is resident now; where the system does not tell, the most that it ever was."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  one read of a kernel file
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine_memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def open_files() -> tuple[int, int]:
    """How many files and sockets the process has open, and how many it may have. 0 open where the system hides them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1, limit  # noqa: PTH208  names only; one is of the listing itself
    return 0, limit


@cache
def physical_cores() -> int:
    """Cores of the machine, each counted once whatever its threads; logical ones where the system does not tell."""
    siblings = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        with suppress(OSError):
            siblings.add(path.read_text().strip())
    return len(siblings) or logical_cores()


def logical_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def hostname() -> str:
    """The name of the machine."""
    return socket.gethostname()


@cache
def system() -> tuple[str, str]:
    """The operating system and the kind of processor, such as `linux` and `x86_64`."""
    told = os.uname()
    return told.sysname.lower(), told.machine
