"""Every answer of authentication that is not a success, in both of its shapes.

Bearer routes (SQL, files, topics) answer with a code in capitals, auth routes with an id in lower case:

meaning                      bearer routes                    auth routes
no token                     401 MISSING_AUTHORIZATION        401 unauthorized
not valid (any more)         401 INVALID_CREDENTIALS          401 unauthorized
expired                      401 TOKEN_EXPIRED                401 unauthorized
too many failed logins       401 ACCOUNT_LOCKED               401 account_locked, with Retry-After
not from a remote address    403 REMOTE_ACCESS_DENIED         403 forbidden
role too low                 403 INSUFFICIENT_PERMISSIONS     403 forbidden
root has no password yet     401 SETUP_REQUIRED               401 unauthorized; login: 428 setup_required
anything else                500 AUTHENTICATION_ERROR         500 internal_error

Only auth routes have: 400 invalid_request, weak_password, invalid_user; 409 already_configured, user_exists;
413 body_too_large; 415 unsupported_media_type; 429 rate_limited and 503 overloaded (both with Retry-After);
503 storage_unavailable; 507 storage_full.
"""

from __future__ import annotations

from server.errors import AuthError, HttpError
from storage.errors import StorageError, StorageFull

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="headrace"'}
_CHALLENGE_INVALID = {"WWW-Authenticate": 'Bearer realm="headrace", error="invalid_token"'}


def missing_authorization() -> AuthError:
    """Answer that there is no `Authorization` header."""
    return AuthError(401, "MISSING_AUTHORIZATION", "Authentication required", headers=_CHALLENGE)


def invalid_credentials() -> AuthError:
    """Answer that the token is malformed, forged, revoked, of another role, or of no account; it does not say which."""
    return AuthError(401, "INVALID_CREDENTIALS", "Invalid credentials", headers=_CHALLENGE_INVALID)


def token_expired() -> AuthError:
    """Answer that the token was good once."""
    return AuthError(401, "TOKEN_EXPIRED", "Invalid credentials", headers=_CHALLENGE_INVALID)


def token_of_locked_account(retry_after: int) -> AuthError:
    """Answer that the account is locked, to a request with a token."""
    return AuthError(401, "ACCOUNT_LOCKED", "Account locked", headers={**_CHALLENGE, "Retry-After": str(retry_after)})


def remote_access_denied() -> AuthError:
    """Answer that the account works from this machine only."""
    return AuthError(403, "REMOTE_ACCESS_DENIED", "Access denied")


def insufficient_permissions() -> AuthError:
    """Answer that the role is too low for the route."""
    return AuthError(403, "INSUFFICIENT_PERMISSIONS", "Insufficient permissions")


def setup_required() -> AuthError:
    """Answer that root has no password yet, to a request with a token."""
    return AuthError(401, "SETUP_REQUIRED", "Server requires initial setup", headers=_CHALLENGE)


def authentication_error() -> AuthError:
    """Answer that the check itself failed."""
    return AuthError(500, "AUTHENTICATION_ERROR", "Authentication failed")


def unauthorized(message: str = "Invalid credentials") -> HttpError:
    """Answer on an auth route that the password or token is not valid."""
    return HttpError(401, "unauthorized", message, headers=_CHALLENGE)


def account_locked(retry_after: int) -> HttpError:
    """Answer on an auth route that the account is locked, and for how long."""
    minutes = max(1, -(-retry_after // 60))
    unit = "minute" if minutes == 1 else "minutes"
    message = f"Account is locked after too many failed logins. Try again in {minutes} {unit}."
    return HttpError(401, "account_locked", message, headers={**_CHALLENGE, "Retry-After": str(retry_after)})


def forbidden(message: str) -> HttpError:
    """Answer on an auth route that this caller may not do this, whatever the password."""
    return HttpError(403, "forbidden", message)


def login_setup_required() -> HttpError:
    """Answer on login that root has no password yet."""
    return HttpError(428, "setup_required", "Server requires initial setup: POST /v1/api/auth/setup")


def rate_limited(retry_after: int) -> HttpError:
    """Answer that this address tries too often."""
    message = "Too many authentication attempts from your IP address"
    return HttpError(429, "rate_limited", message, headers={"Retry-After": str(retry_after)})


def overloaded() -> HttpError:
    """Answer that too many passwords are being checked already."""
    message = "Too many logins are being checked at this moment. Try again shortly."
    return HttpError(503, "overloaded", message, headers={"Retry-After": "1"})


def invalid_request(message: str, status: int = 400, code: str = "invalid_request") -> HttpError:
    """Answer that the request's body is not what the route takes."""
    return HttpError(status, code, message)


_ON_AUTH_ROUTES = {
    "REMOTE_ACCESS_DENIED": (403, "forbidden", "Access denied: this account cannot be used from a remote address"),
    "INSUFFICIENT_PERMISSIONS": (403, "forbidden", "Insufficient permissions"),
    "ACCOUNT_LOCKED": (401, "account_locked", "Account locked"),
    "AUTHENTICATION_ERROR": (500, "internal_error", "Authentication failed"),
    "MISSING_AUTHORIZATION": (401, "unauthorized", "Authentication required"),
}


def on_auth_route(error: AuthError | StorageError) -> HttpError:
    """Turn an error of the authenticator or of storage into the shape of the auth routes."""
    if isinstance(error, AuthError):
        status, code, message = _ON_AUTH_ROUTES.get(error.code, (401, "unauthorized", "Invalid credentials"))
        return HttpError(status, code, message, headers=error.headers)
    if isinstance(error, StorageFull):
        return HttpError(507, "storage_full", "The storage is full; nothing was changed")
    return HttpError(503, "storage_unavailable", "The storage is not available", headers={"Retry-After": "1"})
