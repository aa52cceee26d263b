r"""Keys and payloads of produced messages: values of SQL and JSON to the text and bytes that a topic keeps.

=====================  =========================  =============================
value                  payload                    key
=====================  =========================  =============================
text                   its UTF-8                  as it is
X'…'                   as it is                   refused
number, boolean        its JSON text              its JSON text
array                  its JSON text, compact     its JSON text, compact
object                 its JSON text, compact     refused
NULL                   refused                    no key
=====================  =========================  =============================

A cast says how the value is meant: TEXT as a TEXT column would take it, JSON as JSON that is checked, BYTES as
`\x0aff` or an array of numbers from 0 to 255. Nothing here bounds sizes; the topic does.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sql.errors import InvalidInput, InvalidParameter, InvalidSql, SqlError
from sql.json_text import compact_json
from sql.topic_statements import MessageValue, RequestParameter
from sql.values import converter


def published_bytes(value: object) -> bytes:
    """The payload that a value becomes. Raises InvalidInput for NULL and for what is no JSON value."""
    if isinstance(value, bytes):
        return value
    if value is None:
        raise InvalidInput("The payload of a message may not be NULL.")
    return _encoded(value if isinstance(value, str) else _json_text(value, "payload"), "payload")


def published_key(value: object) -> str | None:
    """The key that a value becomes, None for NULL. Raises InvalidInput for bytes and objects."""
    if value is None:
        return None
    if isinstance(value, (bytes, dict)):
        what = "bytes" if isinstance(value, bytes) else "an object"
        raise InvalidInput(f"The key of a message is text, a number, a boolean or an array, not {what}.")
    key = value if isinstance(value, str) else _json_text(value, "key")
    _encoded(key, "key")
    return key


def payload_of(written: MessageValue, params: Sequence[object]) -> bytes:
    """The payload of PUBLISH; `params` are the request's JSON values, `$1` first.

    Raises InvalidInput, InvalidParameter or InvalidSql with the place of the value.
    """
    try:
        return published_bytes(_value_of(written, params, "payload"))
    except SqlError as error:
        raise _placed(error, written) from None


def key_of(written: MessageValue | None, params: Sequence[object]) -> str | None:
    """The key of PUBLISH; as `payload_of`. None without KEY and for NULL."""
    if written is None:
        return None
    try:
        return published_key(_value_of(written, params, "key"))
    except SqlError as error:
        raise _placed(error, written) from None


def _value_of(written: MessageValue, params: Sequence[object], what: str) -> object:
    """A literal's or a parameter's value, cast as written."""
    value = written.value
    if not isinstance(value, RequestParameter):
        return value if written.type is None else converter(written.type, what, InvalidSql)(value)
    given = params[value.index - 1]
    return given if written.type is None else converter(written.type, f"${value.index}", InvalidParameter)(given)


def _json_text(value: object, what: str) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")  # never with an exponent: `sql.parser_messages` makes floats of those
    try:
        return compact_json(value)
    except ValueError as error:
        raise InvalidInput(f"The {what} of a message cannot be written: {error}.") from None


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"The {what} of a message holds half of a surrogate pair, which is no text.") from None


def _placed(error: SqlError, written: MessageValue) -> SqlError:
    error.line, error.column = written.line, written.column
    return error
