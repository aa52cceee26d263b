"""Wrong passwords: counted for each account, and an account with too many in a row is locked for a while.

The count of an account that has a password is part of its stored record, so a restart does not forgive. Names without
one (no such account, dropped, sign-in by other means) are counted too, in bounded memory: were they never locked, the
fifth wrong password would tell who exists.

A failure is put into the writer's queue and the answer does not wait for it: it must not take a commit longer for a
name that exists. Guesses that run at the same time gain nothing by that: a login with the right password is checked
against the stored count inside its own mutation, which stands in the queue behind the failures before it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import msgspec

from server.auth.options import SECOND, AuthOptions
from server.auth.store import Store, Writer, find_account
from sql.audit import Origin, record
from storage.catalog import USER_KIND, UserDef
from storage.errors import StorageError
from storage.submission import Commit

MAX_STRANGERS = 10_000
_EACH = 10
"""Failures in a row that have an entry each in the audit log; then only the 16th, 32nd, 64th and so on."""

_log = logging.getLogger(__name__)


def locked_until(account: UserDef, now: int) -> int | None:
    """When the lock of an account ends, if it is locked."""
    until = account.locked_until
    return until if until is not None and until > now else None


def submit_failure(
    store: Store, name: str, password_hash: str, now: int, options: AuthOptions, address: str = ""
) -> None:
    """Have a wrong password counted. If that fails, the log says so and the caller's answer is the same."""
    try:
        store.submit(
            lambda writer: record_failure(writer, name, password_hash, now, options, address), on_done=_log_outcome
        )
    except StorageError as error:
        _log.error("a failed login cannot be counted: %s", error)


def _log_outcome(commit: Commit[None]) -> None:
    error = commit.exception()
    if error is not None:
        _log.error("a failed login cannot be counted: %s", error)


def record_failure(
    writer: Writer, name: str, password_hash: str, now: int, options: AuthOptions, address: str = ""
) -> None:
    """Count a wrong password; the last allowed one locks the account. A lock that is over starts a new count.

    Not counted when the password was changed meanwhile, or when the account is locked already: guesses during a lock
    must not prolong it, or anyone could keep the owner out for good.
    """
    account = find_account(writer, name)
    if account is None or account.password_hash != password_hash or locked_until(account, now) is not None:
        return
    failures, until = _next(0 if account.locked_until is not None else account.failed_login_attempts, now, options)
    changed = msgspec.structs.replace(account, failed_login_attempts=failures, locked_until=until)
    writer.put_object(USER_KIND, name, changed)
    origin = Origin(name, address)
    if failures <= _EACH or failures & (failures - 1) == 0:
        record(writer, origin, "LOGIN_FAILED", name, {"failures": failures}, name)
    if until is not None:
        record(writer, origin, "ACCOUNT_LOCKED", name, {"seconds": options.lockout_seconds}, name)


def _next(failures: int, now: int, options: AuthOptions) -> tuple[int, int | None]:
    """The count after one more failure, and the end of the lock if it is reached."""
    failures += 1
    if 0 < options.max_failed_logins <= failures:
        return failures, now + options.lockout_seconds * SECOND
    return failures, None


class Strangers:
    """The counts of names that no password is stored for; the longest unused one is forgotten first."""

    def __init__(self, options: AuthOptions, capacity: int = MAX_STRANGERS) -> None:
        self._options = options
        self._capacity = capacity
        self._counts: OrderedDict[str, tuple[int, int | None]] = OrderedDict()

    def locked_until(self, name: str, now: int) -> int | None:
        """When the lock of a name ends, if it is locked."""
        until = self._counts.get(name, (0, None))[1]
        return until if until is not None and until > now else None

    def record_failure(self, name: str, now: int) -> None:
        """Count a wrong password as `lockout.record_failure` does."""
        if self.locked_until(name, now) is not None:
            return
        failures, until = self._counts.pop(name, (0, None))
        self._counts[name] = _next(0 if until is not None else failures, now, self._options)
        if len(self._counts) > self._capacity:
            self._counts.popitem(last=False)
