"""Numbers, groups and positions of topic statements: what they may be, and their values when they are `$n`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sql.errors import InvalidParameter
from sql.topic_statements import Edge, GroupName, Number, Position, RequestParameter

MAX_NUMBER: Final = 2**63 - 1
MAX_GROUP_BYTES: Final = 255
EDGES: Final[dict[str, Edge]] = {"latest": "latest", "earliest": "earliest"}


def group_refusal(name: str) -> str | None:
    """Why a consumer group cannot have this name, as a sentence; None when it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "A consumer group's name may not hold lone surrogates."
    if not 1 <= size <= MAX_GROUP_BYTES:
        return f"A consumer group's name has 1 to {MAX_GROUP_BYTES} bytes of UTF-8, not {size}."
    if not name.isprintable():
        return "A consumer group's name may not hold control characters."
    return None


def number_of(number: Number, params: Sequence[object], *, least: int = 0) -> int:
    """A number as written, or the request's value for it. Raises InvalidParameter when that is no such number."""
    if not isinstance(number, RequestParameter):
        return number
    value = params[number.index - 1]
    if type(value) is not int or not least <= value <= MAX_NUMBER:
        raise _wrong(number, f"a whole number from {least}")
    return value


def group_of(group: GroupName, params: Sequence[object]) -> str:
    """A group's name as written, or the request's value for it. Raises InvalidParameter when that cannot be one."""
    if not isinstance(group, RequestParameter):
        return group
    value = params[group.index - 1]
    if not isinstance(value, str):
        raise _wrong(group, "a consumer group's name")
    refusal = group_refusal(value)
    if refusal is not None:
        raise _wrong(group, "a consumer group's name", refusal)
    return value


def position_of(position: Position, params: Sequence[object]) -> Edge | int:
    """Where to read on; a parameter may be an offset, `'latest'` or `'earliest'`. Raises InvalidParameter."""
    if not isinstance(position, RequestParameter):
        return position
    value = params[position.index - 1]
    edge = EDGES.get(value.lower()) if isinstance(value, str) else None
    if edge is not None:
        return edge
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise _wrong(position, "an offset, 'latest' or 'earliest'")
    return value


def _wrong(parameter: RequestParameter, wanted: str, reason: str = "") -> InvalidParameter:
    message = f"Parameter ${parameter.index} must be {wanted}. {reason}".rstrip()
    return InvalidParameter(message, line=parameter.line, column=parameter.column)
