"""JSON texts that columns hold: validation, compact writing, and the reference to a stored file."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated

import msgspec

_UNREAD = msgspec.json.Decoder(msgspec.Raw)


class FileRef(msgspec.Struct, frozen=True):
    """What a FILE column holds, as JSON text: where the file lies and what it is. `size` in bytes."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    sub: Annotated[str, msgspec.Meta(pattern="^f[0-9]{4,}$", max_length=32)]
    name: Annotated[str, msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    mime: Annotated[str, msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    shard: int | None = None


_FILE = msgspec.json.Decoder(FileRef)


def check_json(text: str) -> str:
    """The text itself when it is one JSON value. Raises ValueError with a sentence."""
    try:
        _UNREAD.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    return text


def compact_json(value: object) -> str:
    """A decoded JSON value as text without spaces, Unicode unescaped. Raises ValueError with a sentence."""
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if not isinstance(value, (dict, list, int, float)):
        raise ValueError("not a JSON value")
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, UnicodeEncodeError):
        raise ValueError("not a JSON value") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except OverflowError:
        # Integers beyond 64 bits.
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def check_file(text: str) -> str:
    """The text itself when it is a FileRef. Raises ValueError with a sentence."""
    try:
        _FILE.decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    return text
