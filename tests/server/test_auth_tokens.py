"""Texts that claim to be tokens: whatever they are, the answer is a refusal, never another error."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.auth.tokens import MAX_TOKEN_BYTES, Claims, TokenRefused, Tokens, TokenTooOld, TokenType
from tests.server.auth_fakes import SECRET, START, FakeClock

TOKENS = Tokens(SECRET, FakeClock())
NOW = START // 1_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
HEADER_KEYS = st.sampled_from(["alg", "typ", "crit", "b64", "kid", "jwk", "x5u", "zip", "exp"])
HEADERS = st.dictionaries(HEADER_KEYS, JSON | st.sampled_from(["HS256", "none", "RS256", ["exp"]]), max_size=4) | JSON
CLAIM_KEYS = st.sampled_from(["sub", "iss", "exp", "iat", "nbf", "aud", "jti", "role", "token_type", "family", "email"])


def encode(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(head: bytes, body: bytes) -> bytes:
    """Any head and body under our key."""
    return b".".join([head, body, encode(hmac.digest(SECRET, head + b"." + body, hashlib.sha256))])


def good(**changes: object) -> dict[str, object]:
    claims = {
        "sub": "a", "iss": "headrace", "role": "user", "token_type": "access", "family": "f", "jti": "j",
        "iat": NOW, "exp": NOW + 60, "email": None,
    }  # fmt: skip
    return {**claims, **changes}


def read(token: bytes | str) -> Claims | None:
    try:
        return TOKENS.read(token)
    except TokenRefused:
        return None


def test_the_helper_makes_good_tokens() -> None:
    claims = read(sign(encode({"alg": "HS256"}), encode(good())))
    assert claims is not None
    assert claims.token_type is TokenType.ACCESS


@settings(max_examples=300, deadline=None)
@given(HEADERS, st.dictionaries(CLAIM_KEYS, JSON, max_size=4), st.booleans())
def test_signed_oddities_are_refused_or_harmless(header: object, changes: dict[str, object], plain: bool) -> None:
    head = encode({"alg": "HS256"} if plain else header)
    claims = read(sign(head, encode(good(**changes))))
    if claims is not None:
        assert claims.iss == "headrace"
        assert isinstance(claims.sub, str)


@settings(max_examples=300, deadline=None)
@given(HEADERS, st.dictionaries(CLAIM_KEYS, JSON, max_size=4), st.binary(max_size=64))
def test_unsigned_ones_are_always_refused(header: object, changes: dict[str, object], signature: bytes) -> None:
    assert read(b".".join([encode(header), encode(good(**changes)), encode(signature)])) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40).map(encode), max_size=5).map(b".".join))
def test_any_bytes_are_refused(token: bytes) -> None:
    assert read(token) is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
def test_any_text_is_refused(token: str) -> None:
    assert read(token) is None


@pytest.mark.parametrize("depth", [100, 1000])
def test_deep_nesting_is_refused(depth: int) -> None:
    body = encode(b"[" * depth)
    assert read(sign(encode({"alg": "HS256"}), body)) is None
    assert read(sign(body, encode(good()))) is None


def test_a_long_token_is_refused_before_it_is_decoded() -> None:
    assert read(sign(encode({"alg": "HS256"}), encode(good(email="x" * MAX_TOKEN_BYTES)))) is None


def test_an_expired_one_is_readable_for_logging_out() -> None:
    old = sign(encode({"alg": "HS256"}), encode(good(iat=NOW - 999, exp=NOW - 60)))
    with pytest.raises(TokenTooOld):
        TOKENS.read(old)
    assert TOKENS.read(old, expired=True).sub == "a"
    with pytest.raises(TokenRefused):
        TOKENS.read(old[:-4], expired=True)


def test_the_longest_names_still_make_a_token_that_is_read() -> None:
    claims = Claims(
        sub="🌊" * 128,
        role="service",
        token_type=TokenType.REFRESH,
        family="f" * 32,
        jti="j" * 32,
        iat=NOW,
        exp=NOW + 1,
        email="🌊" * 252 + "@x",
    )
    assert TOKENS.read(TOKENS.sign(claims)) == claims
