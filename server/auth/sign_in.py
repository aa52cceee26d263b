"""Signing in, staying in and signing out: login, refresh, logout and me, as functions over the context."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from server.auth import errors
from server.auth.authenticator import is_local_only
from server.auth.context import AuthContext
from server.auth.lockout import locked_until, submit_failure
from server.auth.options import ROOT, SECOND
from server.auth.sessions import (
    Outcome,
    RefreshAttempt,
    close_families,
    find_purgeable,
    open_family,
    purge,
    rotate,
    seconds_until,
)
from server.auth.store import Writer, find_account, read_account, role_of
from server.auth.tokens import Claims, TokenRefused, TokenType
from sql.audit import Origin, record
from sql.identity import Role
from storage.catalog import USER_KIND, UserDef

PURGE_INTERVAL_SECONDS = 3600.0
REMOTE = "Access denied: this account cannot be used from a remote address"

_audit = logging.getLogger("headrace.audit")
_log = logging.getLogger(__name__)


class SignedIn(msgspec.Struct, frozen=True):
    """A new pair of tokens; the expiries are seconds since the epoch."""

    account: UserDef
    access_token: str
    refresh_token: str
    access_expires: int
    refresh_expires: int


async def login(context: AuthContext, name: str, password: str, *, local: bool, address: str = "") -> SignedIn:
    """Check a password and open a session.

    The answer and its time are the same for a wrong password, an account that does not exist, and one that has no
    password: each costs one argon2id check and counts towards a lock.
    """
    now = context.clock.now_us()
    account = read_account(context.store, name)
    if name == ROOT and not local and not context.options.allow_remote_root:
        raise errors.forbidden(REMOTE)  # before the check, so that nobody from outside can lock root
    stored = None if account is None else account.password_hash
    if account is not None and name == ROOT and stored is None and password == "":
        raise errors.login_setup_required()
    until = (
        context.strangers.locked_until(name, now) if account is None or stored is None else locked_until(account, now)
    )
    if until is not None:
        raise errors.account_locked(seconds_until(until, now))
    usable = len(password) <= context.options.policy.max_length
    right = await context.threads.verify(stored, password if usable else "") and usable
    now = context.clock.now_us()
    if account is None or stored is None:
        context.strangers.record_failure(name, now)
        raise errors.unauthorized()
    if not right:
        submit_failure(context.store, name, stored, now, context.options, address)
        raise errors.unauthorized()
    if is_local_only(account, context.options) and not local:
        raise errors.forbidden(REMOTE)
    renewed = await context.threads.renew(stored, password)
    signed_in = await _open_session(context, account, renewed, now, Origin(account.user_id, address))
    role = role_of(signed_in.account)
    if role is not None and role.is_admin:
        _audit.info("LOGIN %s (%s)", name, role, extra={"fields": {"user": name, "client": address}})
    _purge_now_and_then(context)
    return signed_in


async def _open_session(
    context: AuthContext, verified: UserDef, renewed_hash: str, now: int, origin: Origin
) -> SignedIn:
    """Store the session and the success, if the account is still what the password was checked against."""
    family, jti = context.new_id(), context.new_id()
    expires_at = _last_expiry(context, now)

    def store(writer: Writer) -> UserDef | int | None:
        account = find_account(writer, verified.user_id)
        role = None if account is None else role_of(account)
        if account is None or account.password_hash != verified.password_hash or role is None:
            return None
        until = locked_until(account, now)
        if until is not None:
            return until
        account = msgspec.structs.replace(
            account, password_hash=renewed_hash, failed_login_attempts=0, locked_until=None, last_login_at=now
        )
        writer.put_object(USER_KIND, account.user_id, account)
        open_family(writer, account, family, jti, now, expires_at)
        if role.is_admin:
            record(writer, origin, "LOGIN", account.user_id, {"role": account.role}, account.user_id)
        return account

    stored = await context.store.commit(store)
    if stored is None:
        raise errors.unauthorized()
    if isinstance(stored, int):
        raise errors.account_locked(seconds_until(stored, now))
    return _sign(context, stored, family, jti, now // SECOND)


async def refresh(context: AuthContext, token: str, *, local: bool, address: str = "") -> SignedIn:
    """Exchange a refresh token for the next pair; see `server.auth.sessions` for what an old one does."""
    try:
        claims = context.tokens.read(token)
    except TokenRefused:
        raise errors.unauthorized() from None
    if claims.token_type is not TokenType.REFRESH:
        raise errors.unauthorized("Refresh endpoint requires a refresh token")
    remote_ok = local or context.options.allow_remote_root
    if not remote_ok and (claims.sub == ROOT or claims.role == Role.SYSTEM):
        raise errors.forbidden(REMOTE)
    now = context.clock.now_us()
    attempt = RefreshAttempt(
        family=claims.family,
        user=claims.sub,
        role=claims.role,
        jti=claims.jti,
        next_jti=context.new_id(),
        now=now,
        expires_at=_last_expiry(context, now),
        grace_us=context.options.refresh_grace_seconds * SECOND,
        address=address,
    )
    rotation = await context.store.commit(lambda writer: rotate(writer, attempt))
    account = rotation.account
    if rotation.outcome is Outcome.ROTATED and account is not None:
        return _sign(context, account, claims.family, attempt.next_jti, now // SECOND)
    if rotation.outcome is Outcome.LOCKED and account is not None:
        raise errors.account_locked(seconds_until(account.locked_until or now, now))
    if rotation.outcome is Outcome.REUSED:
        _audit.warning(
            "REFRESH_REUSED by %s: the session is revoked", claims.sub, extra={"fields": {"user": claims.sub}}
        )
        raise errors.unauthorized("The refresh token was used before; its session is closed. Log in again.")
    if rotation.outcome is Outcome.JUST_REPLACED:
        raise errors.unauthorized("The refresh token was just replaced by a newer one.")
    if rotation.outcome is Outcome.ROLE_CHANGED:
        raise errors.unauthorized("The role of the account has changed. Log in again.")
    raise errors.unauthorized()


async def logout(context: AuthContext, tokens: list[str]) -> int:
    """End the sessions that these tokens belong to, also when their time is over; returns how many were open."""
    families = set()
    for token in tokens:
        try:
            families.add(context.tokens.read(token, expired=True).family)
        except TokenRefused:
            continue
    return await context.store.commit(lambda writer: close_families(writer, families)) if families else 0


def _last_expiry(context: AuthContext, now: int) -> int:
    """When every token that is made now is over: the session's record is kept as long."""
    return (now // SECOND + max(context.options.access_seconds, context.options.refresh_seconds)) * SECOND


def _sign(context: AuthContext, account: UserDef, family: str, refresh_jti: str, now: int) -> SignedIn:
    """Make the pair of tokens of a session; `now` in seconds."""
    access_expires = now + context.options.access_seconds
    refresh_expires = now + context.options.refresh_seconds

    def token(kind: TokenType, jti: str, expires: int) -> str:
        return context.tokens.sign(
            Claims(
                sub=account.user_id,
                role=account.role,
                token_type=kind,
                family=family,
                jti=jti,
                iat=now,
                exp=expires,
                email=account.email,
            )
        )

    return SignedIn(
        account=account,
        access_token=token(TokenType.ACCESS, context.new_id(), access_expires),
        refresh_token=token(TokenType.REFRESH, refresh_jti, refresh_expires),
        access_expires=access_expires,
        refresh_expires=refresh_expires,
    )


def _purge_now_and_then(context: AuthContext) -> None:
    """Delete sessions that are over, in the background of a login, at most once an hour."""
    now = context.clock.monotonic()
    if context.last_purge is not None and now - context.last_purge < PURGE_INTERVAL_SECONDS:
        return
    context.last_purge = now
    context.in_background(purge_sessions(context), "purging old sessions")


async def purge_sessions(context: AuthContext) -> int:
    """Delete sessions whose last token is over; returns how many."""
    now = context.clock.now_us()
    leeway_us = context.options.leeway_seconds * SECOND

    def find() -> list[str]:
        with context.store.snapshot() as view:
            return find_purgeable(view, now, leeway_us)

    families = await asyncio.to_thread(find)
    purged = await purge(context.store, families, now, leeway_us)
    if purged:
        _log.info("purged %d sessions that were over", purged)
    return purged
