"""Which systems sync before they acknowledge: counted with strace, one connection, one row a request.

A system that syncs shows at least one sync an insert. Writes through a descriptor opened with O_SYNC or O_DSYNC
(LMDB's meta pages) are syncs as well; strace resolves which file each write goes to, so those are counted too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benches.load import measure
from benches.peers import Peer
from benches.runner import Options, stage
from benches.table import Report, Row

NAME = "syncs"
SUMMARY = "which systems sync before they acknowledge an insert (strace)"
CALLS = "fsync,fdatasync,msync,sync_file_range,sync,syncfs"
_CALL = re.compile(r"\b(fsync|fdatasync|msync|sync_file_range|syncfs|sync|pwrite64|pwritev|write)\(")


def run(options: Options) -> Iterator[Report]:
    """Attach strace to every system in turn while it takes single inserts."""
    if shutil.which("strace") is None:
        message = "strace is not installed (apt-get install strace)"
        raise RuntimeError(message)
    with stage(options, "postgres", "pocketbase") as running:
        rows = tuple(_row(running.folder, key, peer, options) for key, peer in running.chosen())
    yield Report(
        title="Syncs for each acknowledged insert, 1 connection",
        unit="syncs/insert",
        headings=("inserts", "calls"),
        rows=rows,
    )


def _row(folder: Path, key: str, peer: Peer, options: Options) -> Row:
    log = folder / f"strace-{key}.txt"
    before = peer.insert(options.next_keys())
    load = peer.insert(options.next_keys())
    assert before is not None
    assert load is not None
    measure(before, connections=1, seconds=1)
    synced_writes = _synchronous_descriptors(peer.pids())
    calls = CALLS + (",pwrite64,pwritev,write" if synced_writes else "")
    attach = [argument for pid in peer.pids() for argument in ("-p", str(pid))]
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-y", "-e", f"trace={calls}", "-s", "0", "-o", str(log), *attach],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        measured = measure(load, connections=1, seconds=2)
    finally:
        strace.terminate()
        strace.wait()
    counted = _count(log.read_text(errors="replace"), synced_writes)
    total = sum(counted.values())
    return Row(
        syncs=peer.syncs,
        system=peer.name,
        figure=total / max(1, measured.requests),
        details=(
            str(measured.requests),
            " ".join(f"{name}:{count}" for name, count in sorted(counted.items())) or "none",
        ),
        command=f"python -m benches {NAME} --only {key}",
    )


def _synchronous_descriptors(pids: list[int]) -> frozenset[tuple[int, int]]:
    """(process, descriptor) of every file that is open with O_SYNC or O_DSYNC."""
    found = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            flags = re.search(r"^flags:\s*([0-7]+)", entry.read_text(), re.MULTILINE)
            if flags and int(flags[1], 8) & 0o10000:  # O_DSYNC; O_SYNC contains it
                found.add((pid, int(entry.name)))
    return frozenset(found)


def _count(log: str, synchronous: frozenset[tuple[int, int]]) -> Counter[str]:
    descriptors = {descriptor for _, descriptor in synchronous}
    counted: Counter[str] = Counter()
    for line in log.splitlines():
        call = _CALL.search(line)
        if call is None:
            continue
        name = call[1]
        if "write" in name:
            number = re.match(r"\d+", line[call.end() :])
            if number is None or int(number[0]) not in descriptors:
                continue
            name = "synchronous write"
        counted[name] += 1
    return counted
