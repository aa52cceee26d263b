"""Messages as they are stored: runs by reference to row versions or with bytes of their own, and entries of runs.

Byte layout
-----------

Key in `topics`: topic id (u32) · partition (u32) · offset of the entry's first message (u64), all big-endian.
Value, little-endian:

====  =======  ==========================================================================================
at    type     meaning
====  =======  ==========================================================================================
0     u64      xxh3-64 of everything behind it
8     u32      how many messages the entry has; 0 only in the last entry of a partition that retention emptied
12    u32      0, reserved
16    i64      floor: all references in this entry and in later ones are to events with a greater `_seq`
24    i64, i64 time of the commits of the first and the last message, microseconds since the epoch
40    u64      accounted bytes: what retention by bytes counts
48    runs     each a u32 length and that many bytes of MessagePack (RowRun or ProducedRun)
====  =======  ==========================================================================================

Offsets of a partition are contiguous, so an entry needs no more than its first one. A small last entry is rewritten
with more runs behind its own (`storage.topic_log`): LMDB keeps values of less than half a page inside its leaves.

A RowRun names row versions instead of holding them: the events' `_seq`s (the new version's, or what a deletion got)
and, for deletions and for payloads that show what changed, the versions that went. They are read from `rows` or
`history` when somebody reads the message, and are kept as long as a topic refers to them (`storage.topic_retention`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from storage.errors import StorageCorrupt
from storage.topic_definitions import Operation, PayloadMode

Seqs = npt.NDArray[np.int64]

_HEAD = struct.Struct("<QIIqqqQ")
_LENGTH = struct.Struct("<I")
_KEY = struct.Struct(">IIQ")
_PREFIX = struct.Struct(">II")
HEAD_BYTES = _HEAD.size


class Origin(msgspec.Struct, array_like=True, frozen=True):
    """Where messages of a dead-letter topic were delivered in vain, and how often. `offset` is the first one's."""

    topic: str
    partition: int
    offset: int
    deliveries: int

    def after(self, count: int) -> Origin:
        """The origin of the message that many places later."""
        return msgspec.structs.replace(self, offset=self.offset + count)


class RowRun(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Messages about consecutive events of one kind in one partition of a table, in one commit.

    `seqs`: the events' `_seq`s less `first`, as packed u32; empty when they are `first`, `first + 1`, …
    `olds`: the versions that went, packed i64; empty when the payload needs none.
    `columns`: the ids of the columns that the payload shows; empty when it shows all that the table has at reading.
    """

    timestamp_us: int
    table_id: int
    user: str
    operation: Operation
    payload: PayloadMode
    commit_seq: int
    count: int
    first: int
    seqs: bytes = b""
    olds: bytes = b""
    columns: tuple[int, ...] = ()

    def event_seqs(self) -> Seqs:
        """The events' `_seq`s, ascending."""
        if not self.seqs:
            return np.arange(self.first, self.first + self.count, dtype=np.int64)
        return np.frombuffer(self.seqs, "<u4").astype(np.int64) + self.first

    def old_seqs(self) -> Seqs:
        """The `_seq`s of the versions that went, parallel to the events."""
        return np.frombuffer(self.olds, "<i8")

    def part(self, start: int, count: int) -> RowRun:
        """Some of the messages as a run of their own."""
        if start == 0 and count == self.count:
            return self
        olds = self.olds[8 * start : 8 * (start + count)]
        first, seqs = self.first + start, b""
        if self.seqs:
            chosen = self.event_seqs()[start : start + count]
            first, seqs = int(chosen[0]), pack_seqs(chosen)
        return msgspec.structs.replace(self, count=count, first=first, seqs=seqs, olds=olds)


class ProducedRun(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """Messages with bytes of their own: keys (None where there is none) and payloads, by one user at one time.

    They were produced directly, or sent to a dead-letter topic, which `origin` tells then.
    """

    timestamp_us: int
    user: str
    keys: tuple[str | None, ...]
    payloads: tuple[bytes, ...]
    operation: Operation = Operation.INSERT
    origin: Origin | None = None

    @property
    def count(self) -> int:
        """How many messages."""
        return len(self.payloads)

    def part(self, start: int, count: int) -> ProducedRun:
        """Some of the messages as a run of their own."""
        if start == 0 and count == self.count:
            return self
        end = start + count
        origin = self.origin.after(start) if self.origin is not None else None
        return msgspec.structs.replace(
            self, keys=self.keys[start:end], payloads=self.payloads[start:end], origin=origin
        )


Run = RowRun | ProducedRun

_digest = xxhash.xxh3_64_digest
_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(Run).decode


class SizedRun:
    """A run on its way into the log, and what retention by bytes counts for it.

    Topics that get the very same messages share one, so that it is encoded once.
    """

    __slots__ = ("_body", "nbytes", "run")

    def __init__(self, run: Run, nbytes: int) -> None:
        self.run = run
        self.nbytes = nbytes
        self._body: bytes | None = None

    @property
    def body(self) -> bytes:
        """The run as an entry holds it."""
        if self._body is None:
            data = _encode(self.run)
            self._body = _LENGTH.pack(len(data)) + data
        return self._body


class EntryHead(NamedTuple):
    """The header of an entry."""

    messages: int
    floor_seq: int
    first_us: int
    last_us: int
    nbytes: int


def pack_seqs(seqs: Seqs) -> bytes:
    """Ascending `_seq`s for `RowRun.seqs`; empty when they are consecutive. They span less than 2**32."""
    if int(seqs[-1]) - int(seqs[0]) + 1 == len(seqs):
        return b""
    data: bytes = (seqs - seqs[0]).astype("<u4").tobytes()
    return data


def entry_key(topic_id: int, partition: int, offset: int) -> bytes:
    """Key in `topics` of the entry whose first message has `offset`."""
    return _KEY.pack(topic_id, partition, offset)


def partition_prefix(topic_id: int, partition: int) -> bytes:
    """What the keys of one partition begin with, in `topics` and in `offsets`."""
    return _PREFIX.pack(topic_id, partition)


def topic_prefix(topic_id: int) -> bytes:
    """What all keys of a topic begin with."""
    return topic_id.to_bytes(4, "big")


def parse_entry_key(key: bytes | memoryview) -> tuple[int, int, int]:
    """(topic id, partition, first offset). Raises ValueError for malformed bytes."""
    if len(key) != _KEY.size:
        raise ValueError(f"a key of topics has {len(key)} bytes, not {_KEY.size}")
    found: tuple[int, int, int] = _KEY.unpack(key)
    return found


def encode_entry(head: EntryHead, body: bytes) -> bytes:
    """The value of an entry; `body` is that of its runs, one after the other."""
    messages, floor_seq, first_us, last_us, nbytes = head
    rest = _HEAD.pack(0, messages, 0, floor_seq, first_us, last_us, nbytes)[8:] + body
    return _digest(rest)[::-1] + rest


def read_head(value: memoryview | bytes) -> EntryHead:
    """The header of an entry, its checksum not looked at. Raises StorageCorrupt when the value is too short."""
    if len(value) < HEAD_BYTES:
        raise StorageCorrupt(f"an entry of a topic has {len(value)} bytes, less than its header")
    _, messages, _, floor_seq, first_us, last_us, nbytes = _HEAD.unpack_from(value)
    return EntryHead(messages, floor_seq, first_us, last_us, nbytes)


def is_intact(value: memoryview | bytes) -> bool:
    """Whether the value of an entry matches its checksum."""
    view = memoryview(value)
    return len(view) >= HEAD_BYTES and int.from_bytes(view[:8], "little") == xxhash.xxh3_64_intdigest(view[8:])


def decode_entry(key: bytes, value: memoryview | bytes) -> list[Run]:
    """The runs of an entry. Raises StorageCorrupt where checksum, structure or number of messages is wrong."""
    topic_id, partition, offset = parse_entry_key(key)
    place = f"topic id {topic_id}, partition {partition}, entry of offset {offset}"
    view = memoryview(value)
    head = read_head(view)
    if not is_intact(view):
        raise StorageCorrupt(f"{place}: the checksum does not match")
    try:
        runs = list(_runs(view))
    except (msgspec.DecodeError, msgspec.ValidationError, struct.error) as error:
        raise StorageCorrupt(f"{place}: {error}") from None
    if sum(run.count for run in runs) != head.messages:
        raise StorageCorrupt(f"{place}: the header and the runs count different messages")
    return runs


def _runs(view: memoryview) -> Iterator[Run]:
    at = HEAD_BYTES
    while at < len(view):
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        yield _decode_run(view[at : at + length])
        at += length
