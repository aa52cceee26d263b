"""The message log against a list: what is appended is read back at its offset, in any slices, after reopening too."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import StorageEngine, WriteTransaction
from storage.errors import StorageCorrupt
from storage.reading import Reader
from storage.topic_definitions import Operation, PayloadMode
from storage.topic_log import (
    ENTRY_BYTES,
    ENTRY_MESSAGES,
    INLINE_BYTES,
    TAIL_US,
    Bounds,
    append,
    bounds,
    empty_entry,
    entries,
    extent,
    first_entry,
    last_entry,
    newest_message_time,
    read_spans,
)
from storage.topic_runs import (
    HEAD_BYTES,
    EntryHead,
    Origin,
    ProducedRun,
    RowRun,
    Run,
    SizedRun,
    decode_entry,
    encode_entry,
    entry_key,
    pack_seqs,
    parse_entry_key,
    read_head,
)
from tests.storage.conftest import QUIET

T0 = 1_800_000_000_000_000
TOPIC = 7


class Shown(NamedTuple):
    """A message as the model holds it."""

    run: tuple[Any, ...]
    key: object
    value: object


def seq_arrays(low: int = 1) -> st.SearchStrategy[list[int]]:
    steps = st.lists(st.integers(1, 3) | st.integers(1, 2**20), min_size=1, max_size=30)
    return st.tuples(st.integers(low, 2**40), steps).map(lambda drawn: np.cumsum([drawn[0], *drawn[1][1:]]).tolist())


@st.composite
def row_runs(draw: st.DrawFn) -> RowRun:
    seqs = np.array(draw(seq_arrays()), dtype=np.int64)
    olds = b""
    operation = draw(st.sampled_from(Operation))
    if operation is not Operation.INSERT:
        olds = np.array(draw(st.permutations(range(1, len(seqs) + 1))), "<i8").tobytes()
    return RowRun(
        T0, draw(st.integers(1, 99)), draw(st.sampled_from(["", "ann"])), operation, draw(st.sampled_from(PayloadMode)),
        1, len(seqs), int(seqs[0]), pack_seqs(seqs), olds, draw(st.sampled_from([(), (1, 2)])),
    )  # fmt: skip


@st.composite
def produced_runs(draw: st.DrawFn) -> ProducedRun:
    pairs = draw(st.lists(st.tuples(st.none() | st.text(max_size=5), st.binary(max_size=40)), min_size=1, max_size=12))
    origin = draw(st.none() | st.builds(Origin, st.just("app.t"), st.just(0), st.integers(0, 9), st.integers(1, 5)))
    keys, payloads = zip(*pairs, strict=True)
    return ProducedRun(T0, draw(st.sampled_from(["", "bob"])), keys, payloads, origin=origin)


RUNS = row_runs() | produced_runs()
APPENDS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(RUNS, min_size=1, max_size=4), st.integers(0, TAIL_US)), max_size=14
)


def shown(run: Run) -> list[Shown]:
    """The messages of a run, each with all that is known of it."""
    if isinstance(run, ProducedRun):
        return [
            Shown(
                (run.timestamp_us, run.user, run.operation, run.origin.after(n) if run.origin else None), key, payload
            )
            for n, (key, payload) in enumerate(zip(run.keys, run.payloads, strict=True))
        ]
    common = (run.timestamp_us, run.table_id, run.user, run.operation, run.payload, run.commit_seq, run.columns)
    olds: Sequence[int | None] = run.old_seqs().tolist() if run.olds else [None] * run.count
    return [Shown(common, seq, old) for seq, old in zip(run.event_seqs().tolist(), olds, strict=True)]


def cost(run: Run) -> int:
    return 10 * run.count if isinstance(run, RowRun) else sum(map(len, run.payloads)) + 8 * run.count


class Log:
    """The log of one engine and the lists that it must agree with."""

    def __init__(self, engine: StorageEngine) -> None:
        self.engine = engine
        self.model: dict[int, list[Shown]] = {0: [], 1: [], 2: []}
        self.bytes: dict[int, int] = {0: 0, 1: 0, 2: 0}
        self.now = T0

    def append(self, partition: int, runs: Sequence[Run], later_us: int = 0) -> None:
        self.now += later_us
        sized = [SizedRun(run, cost(run)) for run in runs]

        def work(wtxn: WriteTransaction) -> None:
            wtxn.flusher.touched = True
            cursor = wtxn.txn.cursor(db=wtxn.dbs.topics)
            append(wtxn.txn, cursor, wtxn.reader, TOPIC, partition, sized, 0, self.now)

        self.engine.submit_exclusive(work).result(10)
        for run in runs:
            self.model[partition] += shown(run)
            self.bytes[partition] += cost(run)

    def compare(self, data: st.DataObject) -> None:
        with self.engine.snapshot() as snapshot, snapshot.reading() as reader:
            assert newest_message_time(reader) == (self.now if any(self.model.values()) else 0)
            for partition, expected in self.model.items():
                assert bounds(reader, TOPIC, partition) == Bounds(0, len(expected))
                if not expected:
                    assert last_entry(reader.txn.cursor(db=reader.dbs.topics), TOPIC, partition) is None
                    assert list(entries(reader, TOPIC, partition, 0)) == []
                    continue
                first = data.draw(st.integers(0, len(expected) - 1))
                last = data.draw(st.integers(first, len(expected) + 2))
                assert read(reader, partition, first, last) == expected[first : last + 1]
                assert read(reader, partition, 0, len(expected)) == expected
                self.compare_entries(reader, partition, first)
                self.compare_extent(reader, partition, first, min(last, len(expected) - 1), data)

    def compare_entries(self, reader: Reader, partition: int, offset: int) -> None:
        """From the entry that holds an offset on, without a gap, and as many bytes as were accounted."""
        found = list(entries(reader, TOPIC, partition, offset))
        assert found[0].offset <= offset < found[0].end
        assert [entry.end for entry in found[:-1]] == [entry.offset for entry in found[1:]]
        assert found[-1].end == len(self.model[partition])
        whole = list(entries(reader, TOPIC, partition, 0))
        assert sum(entry.head.nbytes for entry in whole) == self.bytes[partition]
        assert [e.head.last_us for e in whole] == sorted(e.head.last_us for e in whole)
        cursor = reader.txn.cursor(db=reader.dbs.topics)
        assert first_entry(cursor, TOPIC, partition) == whole[0]
        assert last_entry(cursor, TOPIC, partition) == whole[-1]
        for entry in whole:
            if len(entry.value) > INLINE_BYTES + HEAD_BYTES:
                assert entry.head.first_us == entry.head.last_us, "a large entry took more"
            assert entry.head.last_us - entry.head.first_us <= TAIL_US

    def compare_extent(self, reader: Reader, partition: int, first: int, last: int, data: st.DataObject) -> None:
        """Within the bytes; never farther when there are fewer bytes."""
        assert extent(reader, TOPIC, partition, first, last, 1 << 40)[0] == last
        assert extent(reader, TOPIC, partition, first, last, 0) == (first - 1, 0)
        before = first - 1
        for limit in sorted(data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=3))):
            end, used = extent(reader, TOPIC, partition, first, last, limit)
            assert before <= end <= last
            assert used <= limit
            before = end


def read(reader: Reader, partition: int, first: int, last: int) -> list[Shown]:
    """Messages from spans, whose offsets must be contiguous."""
    found: list[Shown] = []
    for offset, run in read_spans(reader, TOPIC, partition, first, last):
        assert offset == first + len(found)
        assert run.count == len(shown(run))
        found += shown(run)
    return found


@given(steps=APPENDS, reopened=st.integers(0, 14), data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_appended_is_read_at_its_offset(
    steps: list[tuple[int, list[Run], int]], reopened: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        engine = StorageEngine.open(Path(name), QUIET)
        log = Log(engine)
        try:
            for number, (partition, runs, later) in enumerate(steps):
                if number == reopened:
                    engine.close()
                    engine = log.engine = StorageEngine.open(Path(name), QUIET)
                log.append(partition, runs, later)
            log.compare(data)
        finally:
            engine.close()


@given(run=RUNS, data=st.data())
def test_parts_of_a_run_are_its_messages(run: Run, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, run.count - 1))
    count = data.draw(st.integers(1, run.count - start))
    part = run.part(start, count)
    assert part.count == count
    assert shown(part) == shown(run)[start : start + count]


@given(st.lists(RUNS, max_size=5), st.integers(0, 2**62), st.integers(0, 2**40))
def test_an_entry_comes_back_as_it_was(runs: list[Run], floor_seq: int, nbytes: int) -> None:
    head = EntryHead(sum(run.count for run in runs), floor_seq, T0, T0 + 1, nbytes)
    value = encode_entry(head, b"".join(SizedRun(run, 0).body for run in runs))
    key = entry_key(TOPIC, 3, 2**40)
    assert parse_entry_key(key) == (TOPIC, 3, 2**40)
    assert read_head(value) == head
    assert decode_entry(key, value) == runs


@given(st.lists(RUNS, min_size=1, max_size=3), st.data())
def test_a_flipped_bit_is_found(runs: list[Run], data: st.DataObject) -> None:
    head = EntryHead(sum(run.count for run in runs), 5, T0, T0, 1)
    value = bytearray(encode_entry(head, b"".join(SizedRun(run, 0).body for run in runs)))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StorageCorrupt, match="topic id 7, partition 1, entry of offset 9"):
        decode_entry(entry_key(TOPIC, 1, 9), bytes(value))


@given(st.lists(RUNS, min_size=1, max_size=3), st.data())
def test_a_cut_entry_is_found(runs: list[Run], data: st.DataObject) -> None:
    """Also where the checksum was made for the cut value: structure and number of messages are looked at too."""
    head = EntryHead(sum(run.count for run in runs), 5, T0, T0, 1)
    body = b"".join(SizedRun(run, 0).body for run in runs)
    kept = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(StorageCorrupt):
        decode_entry(entry_key(TOPIC, 1, 9), encode_entry(head, body[:kept]))
    with pytest.raises(StorageCorrupt):
        decode_entry(entry_key(TOPIC, 1, 9), encode_entry(head, body)[: HEAD_BYTES + kept])


def test_a_value_without_a_header_is_corrupt() -> None:
    with pytest.raises(StorageCorrupt, match="less than its header"):
        read_head(b"\0" * (HEAD_BYTES - 1))


def test_a_stream_of_small_commits_leaves_few_entries(engine: StorageEngine) -> None:
    log = Log(engine)
    for n in range(200):
        log.append(0, [ProducedRun(T0, "", (None,), (b"%d" % n,))], later_us=1)
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        found = list(entries(reader, TOPIC, 0, 0))
        assert 1 < len(found) < 10
        assert all(len(entry.value) <= INLINE_BYTES + HEAD_BYTES for entry in found)


def test_an_old_last_entry_takes_no_more(engine: StorageEngine) -> None:
    """Retention by time drops whole entries: one that grew for ever would never go."""
    log = Log(engine)
    run = ProducedRun(T0, "", (None,), (b"x",))
    log.append(0, [run])
    log.append(0, [run], later_us=TAIL_US)
    log.append(0, [run], later_us=1)
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert [(e.offset, e.end) for e in entries(reader, TOPIC, 0, 0)] == [(0, 2), (2, 3)]


def test_large_runs_are_cut_into_entries(engine: StorageEngine) -> None:
    log = Log(engine)
    log.append(0, [RowRun(T0, 1, "", Operation.INSERT, PayloadMode.FULL, 1, 3 * ENTRY_MESSAGES + 5, 10)])
    log.append(1, [ProducedRun(T0, "", (None,) * 40, (b"x" * (ENTRY_BYTES // 10),) * 40)])
    log.append(2, [ProducedRun(T0, "", (None,), (b"x" * 3 * ENTRY_BYTES,))] * 2)
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        first = list(entries(reader, TOPIC, 0, 0))
        assert sum(entry.head.messages for entry in first) == 3 * ENTRY_MESSAGES + 5
        assert all(entry.head.messages <= ENTRY_MESSAGES for entry in first)
        assert all(entry.head.nbytes <= ENTRY_BYTES for entry in first)
        assert read(reader, 0, ENTRY_MESSAGES - 1, ENTRY_MESSAGES) == log.model[0][ENTRY_MESSAGES - 1 :][:2]
        second = list(entries(reader, TOPIC, 1, 0))
        assert all(len(entry.value) < 1.1 * ENTRY_BYTES for entry in second)
        assert len(second) in {4, 5}
        assert read(reader, 1, 0, 39) == log.model[1]
        assert [entry.head.messages for entry in entries(reader, TOPIC, 2, 0)] == [1, 1]


def test_after_an_empty_entry_offsets_go_on(engine: StorageEngine) -> None:
    def empty(wtxn: WriteTransaction) -> None:
        wtxn.flusher.touched = True
        wtxn.txn.put(entry_key(TOPIC, 0, 41), empty_entry(0, T0), db=wtxn.dbs.topics)
        wtxn.txn.put(entry_key(TOPIC, 1, 3), empty_entry(0, T0), db=wtxn.dbs.topics)

    engine.submit_exclusive(empty).result(10)
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert bounds(reader, TOPIC, 0) == Bounds(41, 41)
        assert list(read_spans(reader, TOPIC, 0, 0, 50)) == []
        assert extent(reader, TOPIC, 0, 41, 41, 10) == (41, 0)
    run = ProducedRun(T0, "", ("a",), (b"x",))
    log = Log(engine)
    log.append(0, [run])
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert bounds(reader, TOPIC, 0) == Bounds(41, 42)
        assert bounds(reader, TOPIC, 0, cleared=42) == Bounds(42, 42)
        assert bounds(reader, TOPIC, 1) == Bounds(3, 3)
        assert [(span.offset, span.run) for span in read_spans(reader, TOPIC, 0, 0, 99)] == [(41, run)]


def test_partitions_beside_each_other_do_not_meet(engine: StorageEngine) -> None:
    run = ProducedRun(T0, "", ("a",), (b"x",))

    def work(wtxn: WriteTransaction) -> None:
        wtxn.flusher.touched = True
        cursor = wtxn.txn.cursor(db=wtxn.dbs.topics)
        for topic_id, partition in ((1, 0), (1, 0xFFFFFFFE), (2, 0), (0xFFFFFFFE, 5)):
            append(wtxn.txn, cursor, wtxn.reader, topic_id, partition, [SizedRun(run, 1)], 0, T0)

    engine.submit_exclusive(work).result(10)
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        for topic_id, partition, expected in ((1, 0, 1), (1, 1, 0), (1, 0xFFFFFFFE, 1), (2, 0, 1), (0xFFFFFFFE, 5, 1)):
            assert bounds(reader, topic_id, partition) == Bounds(0, expected)
            assert len(list(entries(reader, topic_id, partition, 0))) == expected
            assert len(list(entries(reader, topic_id, partition, 1))) == 0
