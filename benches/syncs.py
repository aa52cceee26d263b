"""Which systems sync before they acknowledge: counted with strace, one connection, one row a request.

A system that syncs shows at least one sync an insert. Writes through a descriptor opened with O_SYNC or O_DSYNC
(LMDB's meta pages) are syncs as well; strace tells which file each write goes to, so those are counted too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benches.load import measure
from benches.peers import Peer
from benches.runner import Options, stage
from benches.table import Report, Row
from benches.topic_batches import fill
from benches.topic_peers import TopicClient, TopicPeer, payload
from benches.topic_runs import drive, nothing, once, topic_stage

NAME = "syncs"
SUMMARY = "which systems sync before they acknowledge an insert or a message (strace)"
SECONDS = 2.0
STORED = 10_000
"""Messages that the traced consumer finds: more than it can consume."""
CALLS = "fsync,fdatasync,msync,sync_file_range,sync,syncfs"
WRITES, OPENS = "pwrite64,pwritev,pwritev2,write,writev", "open,openat"
_OPEN = re.compile(r"^\d+\s+open(at)?\(")
_OPENED = re.compile(r"open(?:at)?(?:\(| resumed>).*= (\d+)<([^>]*)>")
_TARGET = re.compile(r"(\d+)<([^>]*)>")
_CALL = re.compile(r"\b(fsync|fdatasync|msync|sync_file_range|syncfs|sync|pwrite64|pwritev2|pwritev|writev|write)\(")


def run(options: Options) -> Iterator[Report]:
    """Attach strace to every system in turn while it takes single inserts."""
    if shutil.which("strace") is None:
        message = "strace is not installed (apt-get install strace)"
        raise RuntimeError(message)
    with stage(options, "postgres", "pocketbase") as running:
        rows = tuple(_inserts(running.folder, key, peer, options) for key, peer in running.chosen())
    if rows:
        yield _report("acknowledged insert, 1 connection", "insert", rows)
    with topic_stage(options, "headrace", "nats", "redis") as topics:
        published = tuple(_messages(topics.folder, key, peer, published=True) for key, peer in topics.peers.items())
        consumed = tuple(_messages(topics.folder, key, peer, published=False) for key, peer in topics.peers.items())
    if topics.peers:
        yield _report("acknowledged message of a topic, 1 producer", "message", published)
        yield _report("message that a group consumes and acknowledges alone, 1 consumer", "message", consumed)


def _report(each: str, thing: str, rows: tuple[Row, ...]) -> Report:
    return Report(f"Syncs for each {each}", f"syncs/{thing}", (f"{thing}s", "calls"), rows)


def _inserts(folder: Path, key: str, peer: Peer, options: Options) -> Row:
    before = peer.insert(options.next_keys())
    load = peer.insert(options.next_keys())
    assert before is not None
    assert load is not None
    measure(before, connections=1, seconds=1)
    done, counted = _traced(folder, key, peer.pids(), lambda: measure(load, connections=1, seconds=SECONDS).requests)
    return _row(key, peer.name, peer.syncs, done, counted)


def _messages(folder: Path, key: str, peer: TopicPeer, *, published: bool) -> Row:
    async def publish(client: TopicClient) -> int:
        await client.publish(payload(0))
        return 1

    async def consume(client: TopicClient) -> int:
        return len(await client.consume(1))

    async def join(client: TopicClient) -> None:
        await client.join("syncs")

    if published:
        drive(peer, 1, 1, publish, nothing)
        work = partial(drive, peer, 1, SECONDS, publish, nothing)
    else:
        once(peer, lambda client: fill(client, STORED))
        work = partial(drive, peer, 1, SECONDS, consume, join)
    done, counted = _traced(folder, f"{key}-{published}", peer.pids(), lambda: work().messages)
    return _row(key, peer.name, peer.syncs if published else peer.syncs_offsets, done, counted)


def _row(key: str, name: str, syncs: str, done: int, counted: Counter[str]) -> Row:
    return Row(
        syncs=syncs,
        system=name,
        figure=sum(counted.values()) / max(1, done),
        details=(str(done), " ".join(f"{name}:{count}" for name, count in sorted(counted.items())) or "none"),
        command=f"python -m benches {NAME} --only {key}",
    )


def _traced(folder: Path, name: str, pids: list[int], work: Callable[[], int]) -> tuple[int, Counter[str]]:
    """Do the work with strace attached to the processes: how much was done, and the syncs by their call."""
    log = folder / f"strace-{name}.txt"
    synchronous = _synchronous_descriptors(pids)
    attach = [argument for pid in pids for argument in ("-p", str(pid))]
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-y", "-e", f"trace={CALLS},{WRITES},{OPENS}", "-s", "0", "-o", str(log), *attach],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        done = work()
    finally:
        strace.terminate()
        strace.wait()
    return done, count_syncs(log.read_text(errors="replace"), synchronous)


def _synchronous_descriptors(pids: list[int]) -> dict[int, str]:
    """Descriptor and path of every file that is open with O_SYNC or O_DSYNC."""
    found = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            flags = re.search(r"^flags:\s*([0-7]+)", entry.read_text(), re.MULTILINE)
            if flags and int(flags[1], 8) & os.O_DSYNC:  # O_SYNC contains it
                found[int(entry.name)] = str(Path(f"/proc/{pid}/fd/{entry.name}").readlink())
    return found


def count_syncs(log: str, synchronous: Mapping[int, str]) -> Counter[str]:
    """Syncs in a log of strace, by call; `synchronous`: descriptors that were open for synced writes before it."""
    descriptors = dict(synchronous)
    opening: dict[str, bool] = {}  # by thread: whether the file that it opens is opened for synced writes
    counted: Counter[str] = Counter()
    for line in log.splitlines():
        thread = line.partition(" ")[0]
        if _OPEN.search(line):
            opening[thread] = "O_SYNC" in line or "O_DSYNC" in line
        opened = _OPENED.search(line)
        if opened is not None and thread in opening:
            if opening.pop(thread):
                descriptors[int(opened[1])] = opened[2]
            else:
                descriptors.pop(int(opened[1]), None)
            continue
        call = _CALL.search(line)
        if call is None:
            continue
        name = call[1]
        if "write" in name:
            target = _TARGET.match(line, call.end())
            if target is None or descriptors.get(int(target[1])) != target[2]:
                continue
            name = "synchronous write"
        counted[name] += 1
    return counted
