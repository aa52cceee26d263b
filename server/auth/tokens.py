"""Signed tokens (JWT, HS256): what they claim, and when a text is one of ours.

Two kinds are made at every login and refresh, for one session (`family`):
- `access`: opens the routes, for a day.
- `refresh`: is exchanged once for the next pair, within seven days.

Verification here is about the text alone: signature, issuer, kind and time. Whether the account and the session still
stand is the authenticator's business.
"""

from __future__ import annotations

import enum

import jwt
import msgspec
from jwt.types import Options

from server.auth.options import SECOND
from storage.seams import Clock

ISSUER = "headrace"
ALGORITHM = "HS256"
MAX_TOKEN_BYTES = 8192

_DECODE_OPTIONS: Options = {
    "require": ["sub", "iss", "exp", "iat", "jti"],
    "verify_exp": False,  # checked against our own clock below
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}


class TokenType(enum.StrEnum):
    """What a token may be used for."""

    ACCESS = "access"
    REFRESH = "refresh"


class Claims(msgspec.Struct, frozen=True):
    """What a token says; times are seconds since the epoch, as in every JWT."""

    sub: str
    role: str
    token_type: TokenType
    family: str
    jti: str
    iat: int
    exp: int
    email: str | None = None
    iss: str = ISSUER


class TokenRefused(Exception):
    """The text is no valid token of ours."""


class TokenTooOld(TokenRefused):
    """A token of ours whose time is over."""


class Tokens:
    """Signs and verifies tokens with one key."""

    def __init__(self, secret: bytes, clock: Clock, leeway_seconds: int = 60) -> None:
        self._secret = secret
        self._clock = clock
        self._leeway = leeway_seconds
        self._jwt = jwt.PyJWT()

    def sign(self, claims: Claims) -> str:
        """The token that makes these claims."""
        return self._jwt.encode(msgspec.to_builtins(claims), self._secret, algorithm=ALGORITHM)

    def read(self, token: str | bytes, *, expired: bool = False) -> Claims:
        """The claims of a token, of either kind; raises TokenTooOld or TokenRefused.

        With `expired`, one whose time is over is read too (so that logging out works with it).
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenRefused("too long")
        try:
            payload = self._jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], issuer=ISSUER, options=_DECODE_OPTIONS
            )
            claims = msgspec.convert(payload, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError, RecursionError) as error:
            raise TokenRefused(type(error).__name__) from None
        now = self._clock.now_us() // SECOND
        if claims.iat > now + self._leeway:
            raise TokenRefused("issued in the future")
        if claims.exp + self._leeway <= now and not expired:
            raise TokenTooOld("expired")
        return claims
