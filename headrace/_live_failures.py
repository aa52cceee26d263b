"""What can go wrong with the live connection, as exceptions of ours, and which of it may pass by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import websockets

from headrace._answers import retry_after_seconds
from headrace._backoff import is_transient
from headrace._exceptions import (
    AuthenticationFailed,
    ConnectionFailed,
    HeadraceError,
    InvalidAnswer,
    RequestTimedOut,
    ResponseError,
    ServerFault,
    response_error_type,
)


def is_worth_reconnecting(error: HeadraceError) -> bool:
    """Whether another attempt may work: whatever is transient, and a server or proxy that failed in another way."""
    return is_transient(error) or isinstance(error, (ServerFault, InvalidAnswer))


@contextmanager
def failures() -> Iterator[None]:
    """Failures of a WebSocket as ours."""
    try:
        yield
    except HeadraceError:
        raise
    except TimeoutError as error:
        raise RequestTimedOut("the live connection was not opened in time") from error
    except websockets.InvalidStatus as error:
        raise _refusal(error) from error
    except websockets.ConnectionClosed as error:
        raise _closed(error) from error
    except (websockets.WebSocketException, OSError, EOFError) as error:
        reason = str(error) or type(error).__name__
        raise ConnectionFailed(f"the live connection could not be opened: {reason}") from error


def unauthenticated(reason: str) -> AuthenticationFailed:
    """What a sign-in that the server refused stands for."""
    return AuthenticationFailed(reason or "the server refused the token", code="INVALID_CREDENTIALS")


def _refusal(error: websockets.InvalidStatus) -> ResponseError:
    response = error.response
    status = response.status_code
    body = (response.body or b"").decode("utf-8", "replace")
    kind = response_error_type(status)
    code = "INVALID_CREDENTIALS" if kind is AuthenticationFailed else ""
    message = f"the server refused a live connection: {status} {response.reason_phrase}"
    return kind(
        f"{message} {body[:300]}".strip(),
        code=code,
        status=status,
        request_id=response.headers.get("X-Request-ID"),
        retry_after=retry_after_seconds(response.headers.get("Retry-After", "")),
    )


def _closed(error: websockets.ConnectionClosed) -> HeadraceError:
    close = error.rcvd
    if close is None:
        return ConnectionFailed("the live connection was cut")
    return ConnectionFailed(f"the server closed the live connection: {close.code} {close.reason}".strip())
