"""Values of PUBLISH as the bytes and keys of messages."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sql.errors import InvalidInput, InvalidParameter, InvalidSql, SqlError
from sql.topic_statements import MessageValue, RequestParameter
from sql.topic_values import key_of, payload_of, published_bytes, published_key
from storage.types import BYTES, JSON, TEXT, ColumnType


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ("", b""),
        ("grün", "grün".encode()),
        ('{"a": 1}', b'{"a": 1}'),
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        (0, b"0"),
        (-(2**70), b"-1180591620717411303424"),
        (1.5, b"1.5"),
        (Decimal("1.50"), b"1.50"),
        (Decimal("0.00000000001"), b"0.00000000001"),
        (True, b"true"),
        (False, b"false"),
        ([1, "ä", None, {}], '[1,"ä",null,{}]'.encode()),
        ({"b": {"c": [1.0]}, "a": True}, b'{"b":{"c":[1.0]},"a":true}'),
        ([2**70], b"[1180591620717411303424]"),
    ],
)
def test_payloads(value: object, payload: bytes) -> None:
    assert published_bytes(value) == payload


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, None),
        ("", ""),
        ("a b", "a b"),
        (42, "42"),
        (Decimal("1.50"), "1.50"),
        (1.5, "1.5"),
        (True, "true"),
        ([1, "b"], '[1,"b"]'),
    ],
)
def test_keys(value: object, key: str | None) -> None:
    assert published_key(value) == key


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "The payload of a message may not be NULL."),
        ("\ud800", "The payload of a message holds half of a surrogate pair, which is no text."),
        (["\ud800"], "The payload of a message cannot be written: not a JSON value."),
        (object(), "The payload of a message cannot be written: not a JSON value."),
    ],
)
def test_what_is_no_payload_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        published_bytes(value)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"x", "The key of a message is text, a number, a boolean or an array, not bytes."),
        ({}, "The key of a message is text, a number, a boolean or an array, not an object."),
        ("\ud800", "The key of a message holds half of a surrogate pair, which is no text."),
    ],
)
def test_what_is_no_key_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        published_key(value)
    assert caught.value.message == message


def test_nesting_is_bounded() -> None:
    value: object = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInput, match="nested too deeply"):
        published_bytes(value)
    while isinstance(value, list):  # taken apart slowly: Python's own destructor would recurse, too
        (value,) = value


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
    st.characters(exclude_categories=("Cs",))
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(
    st.characters(exclude_categories=("Cs",))), inner), max_leaves=8)  # fmt: skip


@given(VALUES)
def test_whatever_is_no_text_reads_back_as_json(value: object) -> None:
    if value is None:
        return
    payload = published_bytes(value)
    if isinstance(value, str):
        assert payload.decode() == value
    else:
        assert json.loads(payload) == value
        assert isinstance(json.loads(payload), bool) == isinstance(value, bool)


@given(SCALARS)
def test_a_key_is_the_text_of_the_payload(value: object) -> None:
    key = published_key(value)
    assert key is None if value is None else (key or "").encode() == published_bytes(value)


# --- as PUBLISH writes them -------------------------------------------------------------------------------------------


def parameter(cast: ColumnType | None = None) -> MessageValue:
    return MessageValue(RequestParameter(1, 2, 5), cast, 2, 5)


@pytest.mark.parametrize(
    ("written", "given", "payload"),
    [
        (MessageValue("x"), None, b"x"),
        (parameter(), "x", b"x"),
        (parameter(), {"a": 1}, b'{"a":1}'),
        (parameter(TEXT), 5, b"5"),
        (parameter(JSON), '{"a": 1}', b'{"a": 1}'),
        (parameter(JSON), {"a": 1}, b'{"a":1}'),
        (parameter(BYTES), r"\x00ff", b"\x00\xff"),
        (parameter(BYTES), [0, 255], b"\x00\xff"),
        (MessageValue("[1, 2]", JSON), None, b"[1, 2]"),
        (MessageValue(r"\x0a", BYTES), None, b"\n"),
        (MessageValue(Decimal("1.5"), TEXT), None, b"1.5"),
    ],
)
def test_payloads_of_statements(written: MessageValue, given: object, payload: bytes) -> None:
    assert payload_of(written, [given]) == payload


def test_keys_of_statements() -> None:
    assert key_of(None, []) is None
    assert key_of(MessageValue(None), []) is None
    assert key_of(MessageValue("k"), []) == "k"
    assert key_of(parameter(), [7]) == "7"
    assert key_of(parameter(), [None]) is None
    assert key_of(parameter(TEXT), [True]) == "true"


@pytest.mark.parametrize(
    ("written", "given", "kind", "message"),
    [
        (parameter(), None, InvalidInput, "The payload of a message may not be NULL."),
        (parameter(JSON), None, InvalidInput, "The payload of a message may not be NULL."),
        (parameter(JSON), "{", InvalidParameter, "parameter $1 (JSON) cannot hold '{'"),
        (parameter(TEXT), {}, InvalidParameter, "parameter $1 (TEXT) cannot take an object: not text"),
        (parameter(BYTES), "x", InvalidParameter, "parameter $1 (BYTES) cannot take 'x'"),
        (MessageValue("{", JSON, 2, 5), None, InvalidSql, "column 'payload' (JSON) cannot hold '{'"),
        (MessageValue(b"x", TEXT, 2, 5), None, InvalidSql, "column 'payload' (TEXT) cannot take 1 bytes: not text"),
    ],
)
def test_errors_of_statements_have_their_place(
    written: MessageValue, given: object, kind: type[SqlError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        payload_of(written, [given])
    assert caught.value.message.startswith(message)
    assert (caught.value.line, caught.value.column) == (2, 5)


def test_a_key_that_is_none_has_its_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        key_of(MessageValue(b"x", None, 3, 9), [])
    assert (caught.value.line, caught.value.column) == (3, 9)


@given(st.binary())
def test_bytes_of_a_request_arrive(value: bytes) -> None:
    sent = msgspec.json.decode(msgspec.json.encode(list(value)))
    assert payload_of(parameter(BYTES), [sent]) == value
    assert payload_of(parameter(BYTES), ["\\x" + value.hex()]) == value
