"""Messages and consumer groups: CONSUME, ACK, RESET CONSUMER GROUP, PUBLISH."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import shown
from sql.parser_cursor import Cursor
from sql.parser_types import parse_type
from sql.topic_arguments import EDGES, MAX_NUMBER, group_refusal
from sql.topic_statements import (
    AckTopic,
    ConsumeFrom,
    GroupName,
    MessageValue,
    Number,
    Position,
    Publish,
    PublishedMessage,
    RequestParameter,
    ResetGroup,
)
from storage.types import ColumnType, Kind

_KEY_CASTS: Final = frozenset({Kind.TEXT})
_PAYLOAD_CASTS: Final = frozenset({Kind.TEXT, Kind.JSON, Kind.BYTES})


# --- consuming --------------------------------------------------------------------------------------------------------


def parse_consume(cursor: Cursor) -> ConsumeFrom:
    """CONSUME FROM, after the word CONSUME. The clauses may come in any order."""
    cursor.expect("from")
    topic = cursor.topic_name()
    group: GroupName | None = None
    partition: Number | None = None
    start: Position | None = None
    limit: Number | None = None
    while cursor.peek() is not None:
        if group is None and cursor.accept("group"):
            group = _group(cursor)
        elif partition is None and cursor.accept("partition"):
            partition = _number(cursor, "a partition's number")
        elif start is None and cursor.accept("from"):
            start = _position(cursor)
        elif limit is None and cursor.accept("limit"):
            limit = _number(cursor, "a number of messages", least=1)
        elif cursor.word() in ("group", "partition", "from", "limit"):
            cursor.fail(f"{cursor.word().upper()} is given twice.")
        else:
            cursor.fail_expected("GROUP, PARTITION, FROM, LIMIT or the end")
    return ConsumeFrom(topic, group, partition, start, limit)


def parse_ack(cursor: Cursor) -> AckTopic:
    """ACK, after that word."""
    topic = cursor.topic_name()
    cursor.expect("group")
    group = _group(cursor)
    partition = _number(cursor, "a partition's number") if cursor.accept("partition") else 0
    cursor.expect("upto", "offset")
    return AckTopic(topic, group, _number(cursor, "an offset"), partition)


def parse_reset_group(cursor: Cursor) -> ResetGroup:
    """RESET CONSUMER GROUP, after the word RESET."""
    cursor.expect("consumer", "group")
    group = _group(cursor)
    cursor.expect("on")
    topic = cursor.topic_name()
    partition = _number(cursor, "a partition's number") if cursor.accept("partition") else None
    cursor.expect("to")
    return ResetGroup(topic, group, _position(cursor), partition)


def _group(cursor: Cursor) -> GroupName:
    """Takes a group's name: a string, a name or `$n`."""
    parameter = _parameter(cursor)
    if parameter is not None:
        return parameter
    start = cursor.peek()
    name = cursor.name_or_string("a consumer group's name")
    refusal = group_refusal(name)
    if refusal is not None:
        cursor.fail(refusal, start)
    return name


def _position(cursor: Cursor) -> Position:
    """Takes LATEST, EARLIEST, [OFFSET] n or `$n`."""
    edge = EDGES.get(cursor.word())
    if edge is not None:
        cursor.index += 1
        return edge
    return _number(cursor, "an offset" if cursor.accept("offset") else "LATEST, EARLIEST or an offset")


def _number(cursor: Cursor, what: str, *, least: int = 0) -> Number:
    """Takes a whole number of up to 63 bits, or `$n`."""
    parameter = _parameter(cursor)
    if parameter is not None:
        return parameter
    token = cursor.peek()
    text = token.text if token is not None and token.token_type is TokenType.NUMBER else ""
    if not text.isdigit():
        cursor.fail_expected(what)
    number = int(text) if len(text) <= 19 else MAX_NUMBER + 1
    if not least <= number <= MAX_NUMBER:
        cursor.fail(f"Expected {what} from {least} to {MAX_NUMBER}, but found {shown(text)}.")
    cursor.index += 1
    return number


def _parameter(cursor: Cursor) -> RequestParameter | None:
    """Takes `$n` if it is next."""
    token, number = cursor.peek(), cursor.peek(1)
    if token is None or number is None or token.token_type is not TokenType.PARAMETER:
        return None
    cursor.index += 2
    return RequestParameter(int(number.text), token.line, token.col)


# --- publishing -------------------------------------------------------------------------------------------------------


def parse_publish(cursor: Cursor) -> Publish:
    """PUBLISH TO, after the word PUBLISH."""
    cursor.expect("to")
    topic = cursor.topic_name()
    messages: list[PublishedMessage] = []
    while True:
        key = _value(cursor, "KEY", _KEY_CASTS) if cursor.accept("key") else None
        if key is None and not cursor.at("payload"):
            cursor.fail_expected("KEY or PAYLOAD")
        cursor.expect("payload")
        messages.append(PublishedMessage(key, _value(cursor, "PAYLOAD", _PAYLOAD_CASTS)))
        if not cursor.accept(","):
            return Publish(topic, tuple(messages))


def _value(cursor: Cursor, what: str, casts: frozenset[Kind]) -> MessageValue:
    """Takes a literal or `$n`, with `::type` or inside CAST(… AS type)."""
    start = cursor.peek()
    line, column = (start.line, start.col) if start else (1, 1)
    if cursor.accept("cast"):
        cursor.expect("(")
        value = _plain_value(cursor, what)
        cursor.expect("as")
        target = _cast_target(cursor, what, casts)
        cursor.expect(")")
        return MessageValue(value, target, line, column)
    value = _plain_value(cursor, what)
    return MessageValue(value, _cast_target(cursor, what, casts) if cursor.accept("::") else None, line, column)


def _plain_value(cursor: Cursor, what: str) -> str | bytes | int | float | Decimal | RequestParameter | None:
    parameter = _parameter(cursor)
    if parameter is not None:
        return parameter
    token = cursor.peek()
    if token is not None and token.token_type is TokenType.HEX_STRING:
        cursor.index += 1
        return bytes.fromhex(token.text)
    if token is not None and token.token_type is TokenType.STRING:
        cursor.index += 1
        return token.text
    constants: dict[str, bool | None] = {"true": True, "false": False, "null": None}
    if cursor.word() in constants:
        word = cursor.word()
        cursor.index += 1
        return constants[word]
    negative = cursor.accept("-")
    token = cursor.peek()
    if token is None or token.token_type is not TokenType.NUMBER:
        cursor.fail_expected(f"a literal or a parameter after {what}")
    cursor.index += 1
    return _signed(cursor, token, negative)


def _signed(cursor: Cursor, token: Token, negative: bool) -> int | float | Decimal:
    """The number of a token; `negative` when a minus stands before it."""
    text = f"-{token.text}" if negative else token.text
    if "e" in text.lower():
        number = float(text)
        if number - number != 0.0:
            cursor.fail(f"{shown(text)} is beyond the range of DOUBLE.", token)
        return number
    return int(text) if token.text.isdigit() else Decimal(text)


def _cast_target(cursor: Cursor, what: str, casts: frozenset[Kind]) -> ColumnType:
    start = cursor.peek()
    target = parse_type(cursor)
    if target.kind not in casts:
        names = ", ".join(kind.name for kind in Kind if kind in casts)
        cursor.fail(f"{what} may be cast to {names}, but {target} is none of these.", start)
    return target
