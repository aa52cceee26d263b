"""The messages of `/v1/ws` and their bytes: JSON text, JSON in gzip, or MessagePack."""

from __future__ import annotations

import enum
import gzip
import zlib
from typing import Any

import msgspec

from headrace._answers import ColumnAnswer
from headrace._exceptions import InvalidAnswer


class Serialization(enum.StrEnum):
    """How messages are written on the live connection."""

    JSON = "json"
    MSGPACK = "msgpack"


class Compression(enum.StrEnum):
    """Whether the server may compress its messages. Costs both sides time; worth it on slow networks."""

    GZIP = "gzip"
    NONE = "none"


class BatchControl(msgspec.Struct):
    """Where in a snapshot a message stands."""

    has_more: bool = False
    status: str = "ready"
    batch_num: int = 0
    last_seq_id: int | str | None = None
    fresh: bool = False


class ServerMessage(msgspec.Struct):
    """Any message of the server; which fields count depends on `type`. Unknown fields are ignored."""

    type: str
    subscription_id: str = ""
    rows: list[dict[str, Any]] | None = None
    old_values: list[dict[str, Any]] | None = None
    change_type: str = ""
    seq: int | str | None = None
    batch_control: BatchControl | None = None
    schema: list[ColumnAnswer] | None = None
    total_rows: int = 0
    resumed: bool | None = None
    code: str = ""
    message: str = ""
    id: Any = None


class LiveOptions(msgspec.Struct, omit_defaults=True, rename={"from_seq": "from"}):
    """`options` of a subscribe message."""

    batch_size: int | None = None
    last_rows: int | None = None
    from_seq: int | None = None


class SubscriptionRequest(msgspec.Struct, omit_defaults=True):
    """What to subscribe to."""

    id: str
    sql: str
    params: list[Any] | None = None
    namespace: str | None = None
    options: LiveOptions | None = None


class Authenticate(msgspec.Struct, tag_field="type", tag="authenticate"):
    """Sign in, where the upgrade did not carry a token."""

    token: str
    protocol: dict[str, str]
    method: str = "jwt"


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    """Begin a live query."""

    subscription: SubscriptionRequest


class NextBatch(msgspec.Struct, tag_field="type", tag="next_batch", omit_defaults=True):
    """Ask for the next rows of a snapshot."""

    subscription_id: str
    last_seq_id: int | None = None


class Unsubscribe(msgspec.Struct, tag_field="type", tag="unsubscribe"):
    """End a live query."""

    subscription_id: str


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """Ask for a `pong`, which tells how far this connection has come."""

    id: int


ClientMessage = Authenticate | Subscribe | NextBatch | Unsubscribe | Ping


class Codec:
    """Messages to frames and back, for one connection. Until sign-in both sides speak JSON text."""

    def __init__(self, serialization: Serialization, compression: Compression, max_bytes: int) -> None:
        self.serialization = serialization
        self.compression = compression
        self._max_bytes = max_bytes
        self._binary = serialization is Serialization.MSGPACK
        self._encode_json = msgspec.json.Encoder().encode
        self._encode_msgpack = msgspec.msgpack.Encoder().encode
        self._decode_json = msgspec.json.Decoder(ServerMessage).decode
        self._decode_msgpack = msgspec.msgpack.Decoder(ServerMessage).decode

    def encode(self, message: ClientMessage) -> str | bytes:
        """A frame: text, or binary in MessagePack."""
        if self._binary and not isinstance(message, Authenticate):
            return self._encode_msgpack(message)
        return self._encode_json(message).decode()

    def decode(self, frame: str | bytes) -> ServerMessage:
        """The message of a frame. Raises InvalidAnswer for anything else, and for what unpacks to too much."""
        try:
            if isinstance(frame, str):
                return self._decode_json(frame)
            if frame[:2] == b"\x1f\x8b":
                frame = self._unpacked(frame)
                return (self._decode_msgpack if self._binary else self._decode_json)(frame)
            return self._decode_msgpack(frame)
        except (msgspec.MsgspecError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise InvalidAnswer(f"the server sent a message that cannot be read: {error}") from error

    def _unpacked(self, frame: bytes) -> bytes:
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(frame, self._max_bytes)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise InvalidAnswer(f"a compressed message is cut, or larger than {self._max_bytes} bytes")
        return data


def integer(value: int | str | None) -> int | None:
    """A BIGINT of a message, which comes as a number or as digits. Raises InvalidAnswer."""
    try:
        return None if value is None else int(value)
    except ValueError as error:
        raise InvalidAnswer(f"the server sent {value!r} where a sequence number belongs") from error
