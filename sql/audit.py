"""The audit log: one entry for each deed that somebody may have to answer for, written in the commit of the deed.

An entry is an object of kind `audit`. Its name is a version 7 UUID (RFC 9562, 6.2 method 3) made from the commit's time
in microseconds and a counter, so that entries lie in the order in which they were written. Statements have no way to
such objects: they are added by `record`, shown by `system.audit_log`, and removed by age alone (`sql.audit_log`).

No entry holds a password, its hash or another secret: texts of statements go in by `masked`, accounts by the names of
what changed.
"""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from sql.masking import masked
from storage.seams import SYSTEM_CLOCK

AUDIT_KIND: Final = "audit"
EXECUTE_AS: Final = "EXECUTE_AS_USER"
EXECUTE_AS_DENIED: Final = "EXECUTE_AS_USER_DENIED"

MAX_TARGET: Final = 512
MAX_TEXT: Final = 2_000
"""Characters of a target and of a text in the details; what is longer is cut."""

_process = secrets.randbits(30)
_counter = itertools.count()


class AuditEntry(msgspec.Struct, frozen=True):
    """Who did what to what, from where. `timestamp` is microseconds since the epoch, `details` JSON text.

    `subject` is the account that it concerned: whose rights were used, or who was changed.
    """

    audit_id: str
    timestamp: int
    actor: str
    action: str
    target: str
    details: str | None = None
    ip_address: str | None = None
    subject: str | None = None


class Acting(Protocol):
    """Who acts, and from which address (empty when there is none)."""

    @property
    def actor(self) -> str:
        """The account that signed in, also under EXECUTE AS USER."""
        ...

    @property
    def client_ip(self) -> str:
        """The address of the request."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts where no statement runs: a sign-in, a download."""

    actor: str
    client_ip: str = ""


class Trail:
    """Whether the deed under way has an entry already; see `sql.audited`."""

    __slots__ = ("recorded",)

    def __init__(self) -> None:
        self.recorded = False


class AuditWriter(Protocol):
    """The part of a writer's transaction that an entry needs."""

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        """Create or replace a catalog object."""
        ...


def record(
    writer: AuditWriter,
    acting: Acting,
    action: str,
    target: str,
    details: Mapping[str, object] | None = None,
    subject: str | None = None,
) -> None:
    """Add an entry to the commit that `writer` makes. `details` must hold no secret; long texts in it are cut."""
    clock = getattr(writer, "now_us", SYSTEM_CLOCK.now_us)  # a Transaction has no time of its own
    now: int = clock()
    audit_id = _new_id(now)
    entry = AuditEntry(
        audit_id=audit_id,
        timestamp=now,
        actor=acting.actor,
        action=action,
        target=_cut(target, MAX_TARGET),
        details=_encoded(details) if details else None,
        ip_address=acting.client_ip or None,
        subject=subject,
    )
    writer.put_object(AUDIT_KIND, audit_id, entry)
    trail = getattr(acting, "trail", None)
    if trail is not None:
        trail.recorded = True


def statement_text(text: str) -> str:
    """What an entry may say of a statement: its text without comments, every string in it masked, cut."""
    return _cut(masked(text), MAX_TEXT)


def oldest_name(moment_us: int) -> str:
    """The least name that an entry of that time or later can have."""
    return _stamped(moment_us, 0)


def _new_id(now_us: int) -> str:
    return _stamped(now_us, (next(_counter) & 0xFFFFFFFF) << 30 | _process)


def _stamped(now_us: int, low: int) -> str:
    """48 bits of milliseconds, 12 of their fraction, 62 others, around version and variant."""
    milliseconds, microseconds = divmod(now_us, 1_000)
    fraction = microseconds * 4_096 // 1_000
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | low))


def _encoded(details: Mapping[str, object]) -> str:
    return msgspec.json.encode({name: _bounded(value) for name, value in details.items()}).decode()


def _bounded(value: object) -> object:
    if isinstance(value, str):
        return _cut(value, MAX_TEXT)
    if isinstance(value, (list, tuple)) and len(value) > 100:
        return [*value[:100], f"… {len(value) - 100} more"]
    return value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
