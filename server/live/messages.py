"""Every message of the WebSocket protocol, in both directions, told apart by `type`.

Fields that are not known are ignored. A message that is no JSON, has an unknown `type`, lacks a field or has one of
the wrong type ends the connection (1011); a value that is merely not allowed is answered with `error`.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

MAX_SEQ = 2**63 - 1


class Serialization(enum.StrEnum):
    """How messages are written."""

    JSON = "json"
    MSGPACK = "msgpack"


class Compression(enum.StrEnum):
    """Whether the server compresses long messages."""

    GZIP = "gzip"
    NONE = "none"


class Protocol(msgspec.Struct, frozen=True):
    """What both sides agree on when the client signs in."""

    serialization: Serialization = Serialization.JSON
    compression: Compression = Compression.GZIP


Number: TypeAlias = int | str
"""A whole number, or its decimal digits as a string: clients without 64-bit integers send those."""


# --- from the client --------------------------------------------------------------------------------------------------


class Authenticate(msgspec.Struct, tag_field="type", tag="authenticate"):
    """Who the client is. May come again, with a newer token of the same user."""

    token: str
    method: Literal["jwt"] = "jwt"
    protocol: Protocol | None = None


class SnapshotOptions(msgspec.Struct, rename={"from_": "from"}):
    """What a subscription begins with; an empty one asks for all rows."""

    batch_size: Number | None = None
    last_rows: Number | None = None
    from_: Number | None = None
    from_seq_id: Number | None = None


class SubscriptionRequest(msgspec.Struct):
    """A live query. `id` is the client's name for it; without `options` there is no snapshot."""

    id: str
    sql: str
    options: SnapshotOptions | None = None
    params: list[Any] | None = None
    namespace: str | None = None


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    """Begin a live query; one of the same id is replaced."""

    subscription: SubscriptionRequest


class NextBatch(msgspec.Struct, tag_field="type", tag="next_batch"):
    """Ask for the next rows of a snapshot. `last_seq_id` is for the client's records: batches come in order anyway."""

    subscription_id: str
    last_seq_id: Number | None = None


class Unsubscribe(msgspec.Struct, tag_field="type", tag="unsubscribe"):
    """End a live query; answered with `unsubscribed` if `ack` is true."""

    subscription_id: str
    ack: bool = False


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """Say that the client lives; answered with `pong` if it has an `id`."""

    id: Annotated[str, msgspec.Meta(max_length=256)] | int | None = None


ClientMessage: TypeAlias = Authenticate | Subscribe | NextBatch | Unsubscribe | Ping


# --- from the server --------------------------------------------------------------------------------------------------


class AuthSuccess(msgspec.Struct, tag_field="type", tag="auth_success", frozen=True):
    """The client is signed in. Always JSON, never compressed."""

    user: str
    user_id: str
    role: str
    protocol: Protocol


class AuthFailure(msgspec.Struct, tag_field="type", tag="auth_error", frozen=True):
    """The client is not, or no longer, signed in; the connection is closed next (1008)."""

    message: str


class BatchStatus(enum.StrEnum):
    """Where a snapshot stands."""

    LOADING = "loading"
    """The first batch, more to come."""
    LOADING_BATCH = "loading_batch"
    """A later one, more to come."""
    READY = "ready"
    """The last one: what follows are changes."""


class BatchControl(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a batch stands in its snapshot. `fresh` is there when a resume was refused and the rows begin anew."""

    batch_num: int
    has_more: bool
    status: BatchStatus
    last_seq_id: int | None
    fresh: bool = False


class SubscriptionAck(msgspec.Struct, tag_field="type", tag="subscription_ack", frozen=True):
    """The live query stands; its first batch follows at once, if it has a snapshot."""

    subscription_id: str
    total_rows: int
    batch_control: BatchControl
    schema: list[dict[str, object]]
    resumed: bool


class InitialDataBatch(msgspec.Struct, tag_field="type", tag="initial_data_batch", frozen=True):
    """Rows of a snapshot, or the first ones of a resume."""

    subscription_id: str
    rows: list[dict[str, object]]
    batch_control: BatchControl


class Failure(msgspec.Struct, tag_field="type", tag="error", frozen=True):
    """Something that the client asked for did not work, or no longer does."""

    subscription_id: str
    code: str
    message: str


class Unsubscribed(msgspec.Struct, tag_field="type", tag="unsubscribed", frozen=True):
    """A live query has ended because the client said so."""

    subscription_id: str


class Pong(msgspec.Struct, tag_field="type", tag="pong", frozen=True, omit_defaults=True):
    """The answer to a ping. `seq`: all changes up to it were sent before; left out while a snapshot is loading."""

    id: str | int
    seq: object = None


ServerMessage: TypeAlias = (
    AuthSuccess | AuthFailure | SubscriptionAck | InitialDataBatch | Failure | Unsubscribed | Pong
)

_json = msgspec.json.Decoder(ClientMessage)
_msgpack = msgspec.msgpack.Decoder(ClientMessage)


class MalformedMessage(Exception):
    """A message that ends the connection; the text says why."""


class MalformedBinary(Exception):
    """A binary message that is not MessagePack."""


def read_text(text: str) -> ClientMessage:
    """Read a JSON message; raises MalformedMessage."""
    try:
        message: ClientMessage = _json.decode(text)
    except msgspec.ValidationError as error:
        raise MalformedMessage(f"Invalid message: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedMessage(f"Invalid JSON: {error}") from None
    except RecursionError:
        raise MalformedMessage("Invalid JSON: it is nested too deeply") from None
    return message


def read_binary(data: bytes) -> ClientMessage:
    """Read a MessagePack message; raises MalformedMessage, or MalformedBinary if it is no MessagePack."""
    try:
        message: ClientMessage = _msgpack.decode(data)
    except msgspec.ValidationError as error:
        raise MalformedMessage(f"Invalid message: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedBinary(f"Invalid MessagePack: {error}") from None
    except RecursionError:
        raise MalformedBinary("Invalid MessagePack: it is nested too deeply") from None
    return message
