"""Sessions: one stored refresh family for each login, with rotation and reuse detection.

A login opens a family. Its refresh token is good once: exchanging it makes the next one and closes the old one, in one
mutation, so that of two exchanges at the same time exactly one wins. The family's record holds only digests of token
ids, so reading the data folder yields no token.

An old refresh token that comes again means that two parties hold it. What happens depends on when:

- It is the *previous* one and was replaced less than the grace period (10 s) ago: refused, and that is all. Two tabs of
  one browser, or a client that repeats a request whose answer was lost, do this; ending the session would punish them.
  Nobody gains a token by it, a thief included, so the grace costs no safety: it only postpones the verdict.
- Anything else: the family is revoked. Whoever stole a token loses it, and the owner signs in again.

Revoking is deleting the record: a token whose family has no record is refused, the access tokens of the family
included. A record ends in the same way by logging out, and by purging some time after its last token expired.

`stamp` ties a family to the password that opened it (see `password_stamp`): a new password ends all sessions.
"""

from __future__ import annotations

import enum
import hashlib
from functools import partial

import msgspec

from server.auth.options import SECOND
from server.auth.store import FAMILY_KIND, Reader, Store, Writer, find_account
from sql import audit
from sql.audit import Origin
from storage.catalog import UserDef

PURGE_SLICE = 500
"""Most records that one mutation of the purge deletes."""


class RefreshFamily(msgspec.Struct, frozen=True):
    """One session; times are microseconds since the epoch. `current` and `previous` are digests of token ids."""

    family: str
    user: str
    stamp: str
    current: str
    previous: str | None
    rotated_at: int
    created_at: int
    expires_at: int


class Outcome(enum.Enum):
    """What became of an attempt to exchange a refresh token."""

    ROTATED = enum.auto()
    JUST_REPLACED = enum.auto()
    REUSED = enum.auto()
    CLOSED = enum.auto()
    ROLE_CHANGED = enum.auto()
    LOCKED = enum.auto()


class Rotation(msgspec.Struct, frozen=True):
    """The outcome, with the account as it was in that mutation (when it exists)."""

    outcome: Outcome
    account: UserDef | None = None


class RefreshAttempt(msgspec.Struct, frozen=True):
    """A refresh token that is handed in, and what it should be replaced by."""

    family: str
    user: str
    role: str
    jti: str
    next_jti: str
    now: int
    expires_at: int
    grace_us: int
    address: str = ""


def digest(jti: str) -> str:
    """What a record keeps of a token id."""
    return hashlib.blake2b(jti.encode(), digest_size=16).hexdigest()


def password_stamp(password_hash: str | None) -> str:
    """What marks the password behind a hash, the same for every hash of it that `rehash` made: its salt.

    An argon2 string is `$argon2id$v=..$m=..,t=..,p=..$salt$digest`. Setting a password draws a new salt.
    """
    if password_hash is None:
        return ""
    parts = password_hash.split("$")
    return parts[4] if len(parts) == 6 else digest(password_hash)


def open_family(writer: Writer, account: UserDef, family: str, jti: str, now: int, expires_at: int) -> None:
    """Store a new session of an account."""
    stamp = password_stamp(account.password_hash)
    writer.put_object(
        FAMILY_KIND,
        family,
        RefreshFamily(
            family=family,
            user=account.user_id,
            stamp=stamp,
            current=digest(jti),
            previous=None,
            rotated_at=now,
            created_at=now,
            expires_at=expires_at,
        ),
    )


def find_open_family(view: Reader, family: str, account: UserDef) -> RefreshFamily | None:
    """The session, if it is open, belongs to the account, and was opened with its present password."""
    record = view.get_object(FAMILY_KIND, family, RefreshFamily)
    if record is None or record.user != account.user_id or record.stamp != password_stamp(account.password_hash):
        return None
    return record


def rotate(writer: Writer, attempt: RefreshAttempt) -> Rotation:
    """Exchange a refresh token inside a mutation.

    Every refusal is returned, not raised: raising would undo the mutation, and with it the revocation.
    """
    account = find_account(writer, attempt.user)
    record = None if account is None else find_open_family(writer, attempt.family, account)
    if account is None or record is None:
        return Rotation(Outcome.CLOSED)
    if account.role != attempt.role:
        return Rotation(Outcome.ROLE_CHANGED, account)
    if account.locked_until is not None and account.locked_until > attempt.now:
        return Rotation(Outcome.LOCKED, account)
    presented = digest(attempt.jti)
    if presented != record.current:
        if presented == record.previous and attempt.now - record.rotated_at < attempt.grace_us:
            return Rotation(Outcome.JUST_REPLACED, account)
        writer.delete_object(FAMILY_KIND, record.family)
        origin = Origin(account.user_id, attempt.address)
        audit.record(writer, origin, "REFRESH_REUSED", account.user_id, subject=account.user_id)
        return Rotation(Outcome.REUSED, account)
    rotated = msgspec.structs.replace(
        record,
        current=digest(attempt.next_jti),
        previous=presented,
        rotated_at=attempt.now,
        expires_at=attempt.expires_at,
    )
    writer.put_object(FAMILY_KIND, record.family, rotated)
    return Rotation(Outcome.ROTATED, account)


def close_families(writer: Writer, families: set[str]) -> int:
    """End sessions; returns how many there were."""
    closed = 0
    for family in sorted(families):
        if writer.get_object(FAMILY_KIND, family, RefreshFamily) is not None:
            writer.delete_object(FAMILY_KIND, family)
            closed += 1
    return closed


def find_purgeable(view: Reader, now: int, leeway_us: int) -> list[str]:
    """Sessions all of whose tokens are over (their refresh token is the one that lives longest)."""
    families = view.list_objects(FAMILY_KIND, RefreshFamily)
    return [record.family for record in families if record.expires_at + leeway_us <= now]


async def purge(store: Store, families: list[str], now: int, leeway_us: int) -> int:
    """Delete sessions that are over, a bounded slice at a time; one that was renewed meanwhile stays."""

    def delete(names: list[str], writer: Writer) -> int:
        count = 0
        for name in names:
            record = writer.get_object(FAMILY_KIND, name, RefreshFamily)
            if record is not None and record.expires_at + leeway_us <= now:
                writer.delete_object(FAMILY_KIND, name)
                count += 1
        return count

    purged = 0
    for start in range(0, len(families), PURGE_SLICE):
        purged += await store.commit(partial(delete, families[start : start + PURGE_SLICE]))
    return purged


def seconds_until(moment: int, now: int) -> int:
    """Whole seconds from now to a moment, rounded up, at least 1: what `Retry-After` says."""
    return max(1, -(-(moment - now) // SECOND))
