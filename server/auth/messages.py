"""Requests and answers of the auth routes; `/openapi.json` is generated from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from server.auth.store import role_of
from storage.catalog import UserDef

MAX_USER = 128

UserName = Annotated[str, Meta(max_length=MAX_USER, description="Name of the account")]
Password = Annotated[str, Meta(max_length=4096, description="Password, up to auth.max_password_length characters")]
Email = Annotated[str, Meta(max_length=254, description="E-mail address")]
Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]


class LoginRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/api/auth/login`; `username` is accepted in place of `user`."""

    password: Password
    user: UserName | None = None
    username: UserName | None = None


class SetupRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/api/auth/setup`; `username` is accepted in place of `user`."""

    password: Password
    root_password: Password
    user: UserName | None = None
    username: UserName | None = None
    email: Email | None = None


class UserInfo(msgspec.Struct):
    """An account, without its secrets."""

    id: str
    role: str
    email: str | None
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, account: UserDef) -> UserInfo:
        """Describe a stored account."""
        return cls(
            id=account.user_id,
            role=account.role,
            email=account.email,
            created_at=rfc3339(account.created_at),
            updated_at=rfc3339(account.updated_at),
        )


class LoginResponse(msgspec.Struct):
    """Answer to login and refresh: the account and a new pair of tokens."""

    user: UserInfo
    admin_ui_access: bool
    expires_at: Time
    access_token: str
    refresh_token: str
    refresh_expires_at: Time


class MeResponse(msgspec.Struct):
    """Answer of `GET /v1/api/auth/me`."""

    user: UserInfo
    admin_ui_access: bool


class SetupResponse(msgspec.Struct):
    """Answer to a set-up: the account that was made; signing in is a request of its own."""

    user: UserInfo
    message: str


class StatusResponse(msgspec.Struct):
    """Answer of `GET /v1/api/auth/status`."""

    needs_setup: bool
    message: str


class MessageResponse(msgspec.Struct):
    """Answer that is only a sentence."""

    message: str


class ErrorResponse(msgspec.Struct):
    """Every answer of the auth routes that is not a success."""

    error: Annotated[str, Meta(description="Stable id in lower case, such as unauthorized or rate_limited")]
    message: str


def has_admin_ui(account: UserDef) -> bool:
    """Whether the account may use the admin page: dba and system."""
    role = role_of(account)
    return role is not None and role.is_admin


def rfc3339(microseconds: int) -> str:
    """A time as text; fractions of a second only where there are any."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.isoformat().replace("+00:00", "Z")
