"""Messages as WebSocket frames: JSON in text frames, MessagePack in binary ones, either one compressed when it is long.

A change goes to many subscribers, whose messages differ in the subscription's id only. So it is rendered once for each
wire format, into a *tail* that the delta keeps (`LiveDelta.renderings`); a message is put together from three parts:

    head          prefix                                   tail
    {             "type":"change","subscription_id":"s1",  "change_type":"insert","seq":900,"rows":[…]}
    map header    type, change, subscription_id, s1        change_type, insert, seq, …

Compressed, it is one gzip member of two deflate blocks: head and prefix stored as they are, the tail deflated once for
all. Only the checksum (CRC-32 of both parts, chained) and the length are made for each. Frames are kept by subscription
id too, since many clients call their subscriptions the same.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from server.live.messages import Compression, Protocol, Serialization, ServerMessage
from server.websocket.frames import binary_frame, text_frame
from sql.live.interface import LiveChange, LiveDelta
from sql.wire import BigintMode, to_wire
from storage.types import BIGINT

COMPRESSED_FROM = 512
"""Messages shorter than this are not compressed."""

KEPT_FRAMES = 64
"""Subscription ids for which a delta keeps its frames."""

_LEVEL = 1
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_STORED = struct.Struct("<BHH")
_TRAILER = struct.Struct("<II")
_GZIP_EXTRA = len(_GZIP_HEADER) + _STORED.size + _TRAILER.size
_LARGEST_STORED = 0xFFFF

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


class _ChangeFields(msgspec.Struct, omit_defaults=True):
    """The fields of a `change` message after `type` and `subscription_id`."""

    change_type: str
    seq: object
    rows: object = None
    old_values: object = None


class Tail:
    """The shared part of one change message in one serialization."""

    __slots__ = ("_deflated", "head", "plain")

    def __init__(self, head: bytes, plain: bytes) -> None:
        self.head = head
        self.plain = plain
        self._deflated: bytes | None = None

    def gzip(self, lead: bytes) -> bytes | None:
        """The message `lead` + tail as a gzip member; None if it is short or would not shrink."""
        size = len(lead) + len(self.plain)
        if size < COMPRESSED_FROM or len(lead) > _LARGEST_STORED:
            return None
        if self._deflated is None:
            self._deflated = _deflate(self.plain)
        if len(lead) + len(self._deflated) + _GZIP_EXTRA >= size:
            return None
        checksum = zlib.crc32(self.plain, zlib.crc32(lead))
        return b"".join((
            _GZIP_HEADER,
            _STORED.pack(0, len(lead), len(lead) ^ 0xFFFF),
            lead,
            self._deflated,
            _TRAILER.pack(checksum, size & 0xFFFFFFFF),
        ))  # fmt: skip


class Codec:
    """One wire format: what clients that agreed on the same `Protocol` get. `bigint` says how `seq` is written."""

    def __init__(self, protocol: Protocol, bigint: BigintMode) -> None:
        self.protocol = protocol
        self.bigint = bigint
        self._binary = protocol.serialization is Serialization.MSGPACK
        self._compressed = protocol.compression is Compression.GZIP
        self._tails_key = ("tails", protocol.serialization)
        self._frames_key = ("frames", protocol)

    def encode(self, message: ServerMessage) -> bytes:
        """A message as a frame. Raises MsgspecError and its kin for a value that cannot be written."""
        payload = _msgpack.encode(message) if self._binary else _json.encode(message)
        if self._compressed and len(payload) >= COMPRESSED_FROM:
            deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
            shrunk = deflater.compress(payload) + deflater.flush()
            if len(shrunk) < len(payload):
                return binary_frame(shrunk)
        return binary_frame(payload) if self._binary else text_frame(payload)

    def prefix(self, subscription_id: str) -> bytes:
        """The part of every change message that names its subscription."""
        if self._binary:
            names = (b"type", b"change", b"subscription_id")
            return b"".join(_msgpack.encode(name.decode()) for name in names) + _msgpack.encode(subscription_id)
        return b'"type":"change","subscription_id":%b,' % _json.encode(subscription_id)

    def changes(self, delta: LiveDelta, subscription_id: str, prefix: bytes) -> bytes:
        """The frames of all messages of a delta, one after the other; `prefix` is that of the subscription's id."""
        frames = delta.renderings.get(self._frames_key)
        if frames is None:
            frames = delta.renderings[self._frames_key] = {}
        known: dict[str, bytes] = frames  # type: ignore[assignment]
        found = known.get(subscription_id)
        if found is None:
            found = b"".join([self._frame(tail, prefix) for tail in self.tails(delta)])
            if len(known) < KEPT_FRAMES:
                known[subscription_id] = found
        return found

    def tails(self, delta: LiveDelta) -> list[Tail]:
        """The shared parts of a delta's messages, made once."""
        tails = delta.renderings.get(self._tails_key)
        if tails is None:
            tails = delta.renderings[self._tails_key] = [self._tail(change) for change in delta.changes]
        made: list[Tail] = tails  # type: ignore[assignment]
        return made

    def _tail(self, change: LiveChange) -> Tail:
        fields = change_fields(change, self.bigint)
        if self._binary:
            encoded = _msgpack.encode(fields)
            return Tail(bytes((encoded[0] + 2,)), encoded[1:])  # a map of so many fields, and two before them
        return Tail(b"{", _json.encode(fields)[1:])

    def _frame(self, tail: Tail, prefix: bytes) -> bytes:
        lead = tail.head + prefix
        if self._compressed:
            shrunk = tail.gzip(lead)
            if shrunk is not None:
                return binary_frame(shrunk)
        payload = lead + tail.plain
        return binary_frame(payload) if self._binary else text_frame(payload)


class Codecs:
    """The codecs of one server, by protocol."""

    def __init__(self, bigint: BigintMode) -> None:
        self._codecs = {
            protocol: Codec(protocol, bigint)
            for protocol in (Protocol(s, c) for s in Serialization for c in Compression)
        }
        self.bigint = bigint

    def __getitem__(self, protocol: Protocol) -> Codec:
        return self._codecs[protocol]


def change_fields(change: LiveChange, bigint: BigintMode) -> msgspec.Struct:
    """The fields of a change beside `type` and `subscription_id`; rows that it has not are left out."""
    return _ChangeFields(
        change.type.value, to_wire(change.seq, BIGINT, bigint), change.rows or None, change.old_rows or None
    )


def _deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()
