"""Small file systems of their own: ext4 in a file behind a loop device, and a copy of it as after a loss of power."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = ("mkfs.ext4", "mount", "umount", "losetup")


def need_loop_devices() -> None:
    """Skip where file systems cannot be mounted."""
    if os.geteuid() != 0:
        pytest.skip("this test needs root, to mount a file system of its own")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"this test needs {', '.join(missing)} (e2fsprogs and mount)")
    if not Path("/dev/loop-control").exists():
        pytest.skip("this test needs loop devices, and there is no /dev/loop-control")


def make_image(path: Path, size: int) -> None:
    """An empty ext4 file system in a sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    # Without lazy initialisation, which would write in the background.
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0", "-O", "^metadata_csum_seed"]
    _run("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(path))


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """Mount an image; always unmounted afterwards. Skips where the system does not allow it."""
    with _mounted(at, "-o", "loop", str(image)):
        yield at


@contextlib.contextmanager
def memory_disk(at: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of a size; always unmounted afterwards."""
    with _mounted(at, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield at


@contextlib.contextmanager
def _mounted(at: Path, *arguments: str) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "permission" in done.stderr.lower() or "loop device" in done.stderr.lower():
            pytest.skip(f"this test mounts a file system, and mount said: {done.stderr.strip()}")
        raise AssertionError(f"the file system cannot be mounted: {done.stderr}")
    try:
        yield
    finally:
        last = subprocess.run(["umount", str(at)], capture_output=True, text=True, check=False)
        if last.returncode != 0:
            _run("umount", "--lazy", str(at))


def copy_at_once(image: Path, to: Path, mount: Path) -> None:
    """Copy an image while nobody writes into it.

    The kernel may write back by itself; a copy taken across that would be of no single moment, so it is taken again.
    """
    statistics = _device_of(mount) / "stat"
    for _ in range(50):
        before = _writes(statistics)
        _run("cp", "--sparse=always", str(image), str(to))
        if before == _writes(statistics):
            return
    raise AssertionError("the kernel never stopped writing")


def _device_of(mount: Path) -> Path:
    number = mount.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _writes(statistics: Path) -> tuple[str, ...]:
    """Writes done, sectors written, requests in flight, flushes done."""
    fields = statistics.read_text().split()
    return fields[4], fields[6], fields[8], *fields[15:16]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
