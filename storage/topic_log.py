"""The message log of topics: appending runs to a partition, its bounds, and reading messages from an offset on.

A partition is a range of entries (`storage.topic_runs`) with contiguous offsets. Its first entry says which offset is
the first that is there; its last one, which offset comes next. So the last entry never goes: where retention takes all
messages away, an entry without messages stays at the next offset.

Appending takes the last entry along while it is small and young: a stream of one-message commits leaves few entries,
and touches no more pages than adding one would. It is the work of the writer; everything else reads through any Reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from storage.environment import Cursor, Txn
from storage.reading import Reader
from storage.topic_runs import (
    HEAD_BYTES,
    EntryHead,
    Run,
    SizedRun,
    decode_entry,
    encode_entry,
    entry_key,
    is_intact,
    parse_entry_key,
    partition_prefix,
    read_head,
)

INLINE_BYTES = 1_900
"""Size up to which a last entry takes more runs: LMDB keeps such values inside its leaf pages."""
TAIL_US = 60_000_000
"""Age of its first message up to which a last entry takes more runs: retention by time drops whole entries."""
ENTRY_MESSAGES = 16_384
"""Messages of one entry, at most."""
ENTRY_BYTES = 128 << 10
"""Accounted bytes of one entry, about: retention by bytes drops whole entries."""


class Bounds(NamedTuple):
    """The offsets of a partition: the first that is there, and the one that comes next (equal: there is none)."""

    first: int
    next: int


class Entry(NamedTuple):
    """A stored entry, not decoded."""

    key: bytes
    offset: int
    value: memoryview
    head: EntryHead

    @property
    def end(self) -> int:
        """The offset after its last message."""
        return self.offset + self.head.messages


class Span(NamedTuple):
    """Consecutive messages from one run; the first one has `offset`."""

    offset: int
    run: Run


def last_entry(cursor: Cursor, topic_id: int, partition: int) -> Entry | None:
    """The last entry of a partition; None when nothing was ever appended."""
    prefix = partition_prefix(topic_id, partition)
    more = cursor.prev() if cursor.set_range(partition_prefix(topic_id, partition + 1)) else cursor.last()
    return _entry(cursor) if more and bytes(cursor.key()[:8]) == prefix else None


def first_entry(cursor: Cursor, topic_id: int, partition: int) -> Entry | None:
    """The first entry of a partition; None when nothing was ever appended."""
    prefix = partition_prefix(topic_id, partition)
    return _entry(cursor) if cursor.set_range(prefix) and bytes(cursor.key()[:8]) == prefix else None


def bounds(reader: Reader, topic_id: int, partition: int, cleared: int = 0) -> Bounds:
    """The bounds of a partition; messages below `cleared` are not there."""
    cursor = reader.txn.cursor(db=reader.dbs.topics)
    last = last_entry(cursor, topic_id, partition)
    if last is None:
        return Bounds(0, 0)
    first = first_entry(cursor, topic_id, partition)
    assert first is not None
    return Bounds(max(first.offset, cleared), last.end)


def newest_message_time(reader: Reader) -> int:
    """The time of the newest message of all topics, microseconds since the epoch; 0 when there is none.

    A commit of produced messages leaves no record in `commits`, so only this tells of its time. Damaged entries, which
    would tell anything, are left to those who read their messages.
    """
    newest = 0
    cursor = reader.txn.cursor(db=reader.dbs.topics)
    more = cursor.last()
    while more:
        value = cursor.value()
        if is_intact(value):
            newest = max(newest, read_head(value).last_us)
        more = cursor.set_range(bytes(cursor.key()[:8])) and cursor.prev()  # the last entry of the partition before
    return newest


def entries(reader: Reader, topic_id: int, partition: int, offset: int) -> Iterator[Entry]:
    """The entries of a partition from the one that holds `offset` on."""
    cursor = reader.txn.cursor(db=reader.dbs.topics)
    prefix = partition_prefix(topic_id, partition)
    wanted = entry_key(topic_id, partition, offset)
    more = cursor.set_range(wanted)
    if not more or bytes(cursor.key()) != wanted:
        before = cursor.prev() if more else cursor.last()
        if before and bytes(cursor.key()[:8]) == prefix:
            if _entry(cursor).end <= offset:
                before = cursor.next()
            more = before
        else:
            more = cursor.set_range(wanted)
    while more and bytes(cursor.key()[:8]) == prefix:
        yield _entry(cursor)
        more = cursor.next()


def read_spans(reader: Reader, topic_id: int, partition: int, first: int, last: int) -> Iterator[Span]:
    """The messages from offset `first` to `last`, both included; those that retention took away are left out.

    Raises StorageCorrupt for an entry that is damaged.
    """
    for entry in entries(reader, topic_id, partition, first):
        if entry.offset > last:
            return
        offset = entry.offset
        for run in decode_entry(entry.key, entry.value):
            start = max(first - offset, 0)
            count = min(last + 1 - offset, run.count) - start
            if count > 0:
                yield Span(offset + start, run.part(start, count))
            offset += run.count


def extent(reader: Reader, topic_id: int, partition: int, first: int, last: int, max_bytes: int) -> tuple[int, int]:
    """How far a read from `first` to `last` may go within `max_bytes`, and the bytes until there.

    The last offset (`first - 1` for nothing); by what the entries account, which is the mean of an entry for each of
    its messages.
    """
    taken = 0
    for entry in entries(reader, topic_id, partition, first):
        if entry.offset > last:
            break
        if not entry.head.messages:
            continue
        each = max(entry.head.nbytes // entry.head.messages, 1)
        start = max(first, entry.offset)
        wanted = min(last + 1, entry.end) - start
        room = (max_bytes - taken) // each
        if wanted > room:
            end = start + max(room, 0) - 1
            return end, taken + each * (end + 1 - start)
        taken += each * wanted
    return last, taken


def append(
    txn: Txn,
    cursor: Cursor,
    reader: Reader,
    topic_id: int,
    partition: int,
    runs: Sequence[SizedRun],
    floor_seq: int,
    now_us: int,
) -> None:
    """Append runs to a partition, in order. `floor_seq` is the last `_seq` before this commit, `now_us` its time."""
    db = reader.dbs.topics
    tail = last_entry(cursor, topic_id, partition)
    offset = 0 if tail is None else tail.offset + tail.head.messages
    for group in _entries_of(runs):
        if len(group) == 1:
            (sized,) = group
            messages, nbytes, body = sized.run.count, sized.nbytes, sized.body
        else:
            messages = sum([sized.run.count for sized in group])
            nbytes = sum([sized.nbytes for sized in group])
            body = b"".join([sized.body for sized in group])
        key, head = b"", EntryHead(messages, floor_seq, now_us, now_us, nbytes)
        if tail is not None:
            key, _, value, old = tail
            if (
                old.messages
                and len(value) + len(body) <= INLINE_BYTES
                and old.messages + messages <= ENTRY_MESSAGES
                and now_us - old.first_us <= TAIL_US
            ):
                head = EntryHead(old.messages + messages, old.floor_seq, old.first_us, now_us, old.nbytes + nbytes)
                body = bytes(value[HEAD_BYTES:]) + body
            else:
                key = b""
            tail = None
        txn.put(key or entry_key(topic_id, partition, offset), encode_entry(head, body), db=db)
        offset += messages


def empty_entry(floor_seq: int, timestamp_us: int) -> bytes:
    """What stays at the next offset of a partition whose messages all went."""
    return encode_entry(EntryHead(0, floor_seq, timestamp_us, timestamp_us, 0), b"")


def _entry(cursor: Cursor) -> Entry:
    key, value = bytes(cursor.key()), cursor.value()
    return Entry(key, parse_entry_key(key)[2], value, read_head(value))


def _entries_of(runs: Sequence[SizedRun]) -> Iterable[Sequence[SizedRun]]:
    """Runs in groups that are not too large for one entry."""
    if len(runs) == 1 and runs[0].run.count <= ENTRY_MESSAGES and runs[0].nbytes <= ENTRY_BYTES:
        return (runs,)
    return _grouped(runs)


def _grouped(runs: Sequence[SizedRun]) -> Iterator[list[SizedRun]]:
    group: list[SizedRun] = []
    messages = nbytes = 0
    for sized in runs:
        for piece in _pieces(sized):
            if group and (messages + piece.run.count > ENTRY_MESSAGES or nbytes + piece.nbytes > ENTRY_BYTES):
                yield group
                group, messages, nbytes = [], 0, 0
            group.append(piece)
            messages += piece.run.count
            nbytes += piece.nbytes
    if group:
        yield group


def _pieces(sized: SizedRun) -> Iterator[SizedRun]:
    """A run in pieces of at most ENTRY_MESSAGES messages and about ENTRY_BYTES."""
    run, nbytes = sized.run, sized.nbytes
    count = run.count
    limit = ENTRY_MESSAGES
    if nbytes > ENTRY_BYTES:
        limit = min(limit, max(1, count * ENTRY_BYTES // nbytes))
    if count <= limit:
        yield sized
        return
    for start in range(0, count, limit):
        size = min(limit, count - start)
        yield SizedRun(run.part(start, size), nbytes * size // count)
