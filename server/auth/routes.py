"""The six auth routes: login, refresh, logout, me, setup and status.

Each reads the request, calls one function and renders the answer; errors are `{"error": id, "message": sentence}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from server.auth import errors
from server.auth.bootstrap import CONFIGURED, NEEDS_SETUP, set_up
from server.auth.context import AuthContext
from server.auth.messages import (
    LoginRequest,
    LoginResponse,
    MeResponse,
    MessageResponse,
    SetupRequest,
    SetupResponse,
    StatusResponse,
    UserInfo,
    has_admin_ui,
    rfc3339,
)
from server.auth.options import SECOND
from server.auth.sign_in import SignedIn, login, logout, refresh
from server.auth.store import read_account
from server.errors import AuthError, ClientGone
from server.exchange import exchange_of
from storage.errors import StorageError

PREFIX = "/v1/api/auth"
MAX_BODY = 64 * 1024

_T = TypeVar("_T", LoginRequest, SetupRequest)
_NO_STORE = {"Cache-Control": "no-store"}


def routes(context: AuthContext) -> list[Route]:
    """The routes of `/v1/api/auth`."""
    handlers = AuthRoutes(context)
    return [
        Route(f"{PREFIX}/login", _plain(handlers.login), methods=["POST"]),
        Route(f"{PREFIX}/refresh", _plain(handlers.refresh), methods=["POST"]),
        Route(f"{PREFIX}/logout", _plain(handlers.logout), methods=["POST"]),
        Route(f"{PREFIX}/me", _plain(handlers.me), methods=["GET"]),
        Route(f"{PREFIX}/setup", _plain(handlers.setup), methods=["POST"]),
        Route(f"{PREFIX}/status", _plain(handlers.status), methods=["GET"]),
    ]


class AuthRoutes:
    """The handlers, over one context."""

    def __init__(self, context: AuthContext) -> None:
        self._context = context

    async def login(self, request: Request) -> Response:
        """Check a password; answer with a pair of tokens and set them as cookies."""
        self._limit(request)
        body = await _read(request, LoginRequest)
        exchange = exchange_of(request.scope)
        signed_in = await login(
            self._context, _name(body), body.password, local=exchange.loopback, address=exchange.client
        )
        return self._signed_in(request, signed_in)

    async def refresh(self, request: Request) -> Response:
        """Exchange a refresh token, from the cookie or else the header, for the next pair."""
        self._limit(request)
        token = self._context.cookies.find_refresh(request.cookies) or _bearer(request)
        if token is None:
            raise errors.unauthorized("Authentication required")
        exchange = exchange_of(request.scope)
        signed_in = await refresh(self._context, token, local=exchange.loopback, address=exchange.client)
        return self._signed_in(request, signed_in)

    async def logout(self, request: Request) -> Response:
        """End the session of every token that the request carries, and clear the cookies."""
        tokens = self._context.cookies.find_all(request.cookies)
        bearer = _bearer(request)
        await logout(self._context, tokens if bearer is None else [*tokens, bearer])
        response = _json(MessageResponse(message="Logged out successfully"))
        self._context.cookies.clear(response, https=_is_https(request))
        return response

    async def me(self, request: Request) -> Response:
        """Tell who the caller is, by the header or else the cookie."""
        exchange = exchange_of(request.scope)
        header = exchange.headers.get(b"authorization")
        cookie = self._context.cookies.find_access(request.cookies)
        if header is None and cookie is not None:
            identity = self._context.authenticator.authenticate_token(cookie, local=exchange.loopback)
            exchange.user = identity.user
        else:
            identity = self._context.authenticator.authenticate(header, exchange)
        account = read_account(self._context.store, identity.user)
        if account is None:
            raise errors.unauthorized()
        return _json(MeResponse(user=UserInfo.of(account), admin_ui_access=has_admin_ui(account)))

    async def setup(self, request: Request) -> Response:
        """Give root a password and make the first dba, once."""
        self._require_local(request)
        self._limit(request)
        body = await _read(request, SetupRequest)
        address = exchange_of(request.scope).client
        account = await set_up(
            self._context, _name(body), body.password, body.root_password, body.email, address=address
        )
        message = f"Setup complete. User '{account.user_id}' has the role dba; log in to continue."
        return _json(SetupResponse(user=UserInfo.of(account), message=message))

    async def status(self, request: Request) -> Response:
        """Tell whether the server needs its set-up."""
        self._require_local(request)
        needs_setup = self._context.authenticator.needs_setup()
        return _json(StatusResponse(needs_setup=needs_setup, message=NEEDS_SETUP if needs_setup else CONFIGURED))

    def _limit(self, request: Request) -> None:
        if not self._context.limit.allow_sign_in(exchange_of(request.scope)):
            raise errors.rate_limited(1)

    def _require_local(self, request: Request) -> None:
        if not exchange_of(request.scope).loopback and not self._context.options.allow_remote_setup:
            raise errors.forbidden("Setup is possible from this machine only (auth.allow_remote_setup is false)")

    def _signed_in(self, request: Request, signed_in: SignedIn) -> Response:
        exchange_of(request.scope).user = signed_in.account.user_id
        response = _json(
            LoginResponse(
                user=UserInfo.of(signed_in.account),
                admin_ui_access=has_admin_ui(signed_in.account),
                expires_at=rfc3339(signed_in.access_expires * SECOND),
                access_token=signed_in.access_token,
                refresh_token=signed_in.refresh_token,
                refresh_expires_at=rfc3339(signed_in.refresh_expires * SECOND),
            )
        )
        tokens = (signed_in.access_token, signed_in.refresh_token)
        expires = (signed_in.access_expires, signed_in.refresh_expires)
        self._context.cookies.put(response, tokens, expires, https=_is_https(request))
        return response


def _plain(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Give the errors of the authenticator and of storage the shape of the auth routes."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except (AuthError, StorageError) as error:
            raise errors.on_auth_route(error) from error
        except ClientDisconnect:
            raise ClientGone from None

    return endpoint


async def _read(request: Request, message: type[_T]) -> _T:
    """Read and check a JSON body; every fault is an answer that names it."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise errors.invalid_request(
            "The body must be JSON (Content-Type: application/json)", 415, "unsupported_media_type"
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise errors.invalid_request(f"The body is larger than {MAX_BODY} bytes", 413, "body_too_large")
    try:
        return msgspec.json.decode(body, type=message)
    except msgspec.ValidationError as error:
        raise errors.invalid_request(f"Invalid request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.invalid_request(f"Invalid JSON: {error}") from None


def _name(body: LoginRequest | SetupRequest) -> str:
    """The user name, which may stand under either key but not under both."""
    if body.user is not None and body.username is not None:
        raise errors.invalid_request("Invalid request: `username` means the same as `user`; give one of them")
    name = body.user if body.user is not None else body.username
    if not name:
        raise errors.invalid_request("Invalid request: `user` is required")
    return name


def _bearer(request: Request) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_https(request: Request) -> bool:
    """Whether the client speaks https, to us or to a proxy.

    The header is believed from anybody: who lies about it only gets a cookie that his own browser keeps back.
    """
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").strip().lower() == "https"


def _json(message: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json", headers=_NO_STORE)
