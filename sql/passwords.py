"""Passwords: argon2id hashes, verification that tells nothing by its time, and the policy for new ones.

A hash is the usual encoded string (`$argon2id$v=19$m=...,t=...,p=...$salt$digest`), so it carries its own
parameters: hashes made under older ones go on working, and `needs_rehash` says when a login should renew one.

Passwords are normalised (NFKC) before they are hashed, so that one typed on another keyboard or system, where an
accented letter may be composed differently, is still the same password. Hashing costs tens of milliseconds by
design: never call `hash_password` or `verify_password` on the event loop or on the writer thread.
"""

from __future__ import annotations

import base64
import unicodedata
from functools import lru_cache

import argon2
import msgspec

from sql.common_passwords import COMMON_PASSWORDS
from sql.errors import ExecutionError


class HashParameters(msgspec.Struct, frozen=True):
    """The cost of a hash. The defaults follow OWASP's minimum for argon2id and take about 40 ms of one core."""

    memory_kib: int = 19_456
    iterations: int = 3
    parallelism: int = 1


class PolicyOptions(msgspec.Struct, frozen=True):
    """What a new password must satisfy: lengths in characters; complexity = upper, lower, digit and special."""

    min_length: int = 8
    max_length: int = 1024
    require_complexity: bool = False


class WeakPassword(ExecutionError):
    """A new password that the policy refuses; the message is a sentence that says why."""

    code = "WEAK_PASSWORD"


DEFAULT_PARAMETERS = HashParameters()
DEFAULT_POLICY = PolicyOptions()


def hash_password(password: str, parameters: HashParameters = DEFAULT_PARAMETERS) -> str:
    """The argon2id hash of a password, with a fresh salt."""
    return _hasher(parameters).hash(_encode(password))


def verify_password(password_hash: str | None, password: str, parameters: HashParameters = DEFAULT_PARAMETERS) -> bool:
    """Whether the password belongs to the hash; a hash of None is never right, and takes as long to say so.

    None stands for an account that does not exist, is deleted, or has no password: the same work is done against
    a stand-in hash made with `parameters`, so the time of the answer does not tell which it was. A stored string
    that is no hash at all counts as wrong too.
    """
    try:
        _hasher(parameters).verify(password_hash or _stand_in(parameters), _encode(password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
    return bool(password_hash)


def needs_rehash(password_hash: str, parameters: HashParameters = DEFAULT_PARAMETERS) -> bool:
    """Whether a hash was made with other parameters than these."""
    try:
        return _hasher(parameters).check_needs_rehash(password_hash)
    except argon2.exceptions.InvalidHashError:
        return True


def rehash_password(password_hash: str, password: str, parameters: HashParameters = DEFAULT_PARAMETERS) -> str:
    """The hash of the same password under other parameters, with the salt of its old hash.

    Keeping the salt keeps what marks the password: sessions are tied to it, and end when a new one is set.
    """
    salt = password_hash.split("$")[4]
    raw = base64.b64decode(salt + "=" * (-len(salt) % 4))
    return _hasher(parameters).hash(_encode(password), salt=raw)


def check_policy(password: str, options: PolicyOptions = DEFAULT_POLICY, *, user: str | None = None) -> None:
    """Raise WeakPassword unless a new password is acceptable (for that user name, if one is given)."""
    if len(password) < options.min_length:
        raise WeakPassword(f"The password must have at least {options.min_length} characters.")
    if len(password) > options.max_length:
        raise WeakPassword(f"The password must have at most {options.max_length} characters.")
    folded = _normalise(password).strip().casefold()
    if folded in COMMON_PASSWORDS or len(set(folded)) <= 1:
        raise WeakPassword("The password is among the most common ones; choose another.")
    if user is not None and folded == _normalise(user).strip().casefold():
        raise WeakPassword("The password must not be the user name.")
    if options.require_complexity:
        _check_complexity(password)


def _check_complexity(password: str) -> None:
    """Raise WeakPassword that lists every kind of character that is missing."""
    kinds = {
        "an upper-case letter": any(c.isupper() for c in password),
        "a lower-case letter": any(c.islower() for c in password),
        "a digit": any(c.isdigit() for c in password),
        "a special character": any(not c.isalnum() and not c.isspace() for c in password),
    }
    missing = [name for name, present in kinds.items() if not present]
    if missing:
        listed = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
        raise WeakPassword(f"The password must also contain {listed}.")


@lru_cache(maxsize=16)
def _hasher(parameters: HashParameters) -> argon2.PasswordHasher:
    """The hasher of one set of parameters."""
    return argon2.PasswordHasher(
        time_cost=parameters.iterations, memory_cost=parameters.memory_kib, parallelism=parameters.parallelism
    )


@lru_cache(maxsize=16)
def _stand_in(parameters: HashParameters) -> str:
    """A hash that no password is checked against in earnest; made once per set of parameters."""
    return _hasher(parameters).hash(b"no account has this password")


def prepare_stand_in(parameters: HashParameters = DEFAULT_PARAMETERS) -> None:
    """Make the stand-in hash now, so that the first unknown user does not take twice as long as a known one."""
    _stand_in(parameters)


def _normalise(password: str) -> str:
    """The form that is hashed and compared: NFKC."""
    return unicodedata.normalize("NFKC", password)


def _encode(password: str) -> bytes:
    """The bytes that are hashed; also a text with lone surrogates has some."""
    return _normalise(password).encode("utf-8", "surrogatepass")
