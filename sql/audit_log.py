"""AuditLog: entries that belong to no other commit, and the end of those that are too old.

Three ways in, by what may be lost:

- `note` commits an entry and waits: KILL, and other deeds that write nothing themselves.
- `denied` too, for the first refusals of an account in a minute. Someone who is refused all day long must not fill the
  disk, so those beyond are counted, and the count is an entry when the minute is over or the log is closed.
- `impersonated` is for reads under EXECUTE AS USER: one entry a minute for each account, user, statement and set of
  tables, put into the writer's queue without waiting for it. The read costs no sync of its own; what was read in the
  moment before a crash may be missing.

`tick`, once a minute, writes the counts that are due, and once an hour removes the entries that are older than the
configured time, in works of `SLICE` entries, so that nobody waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from sql.audit import AUDIT_KIND, EXECUTE_AS, EXECUTE_AS_DENIED, Acting, Origin, oldest_name, record
from sql.storage_errors import storage_errors
from storage.engine import StorageEngine
from storage.errors import StorageError
from storage.object_names import names_below
from storage.seams import SYSTEM_CLOCK, Clock
from storage.submission import Commit
from storage.writer import WriteTransaction

SLICE = 500
"""Most entries that one work removes."""
EACH = 10
"""Refusals of an account in a minute that have an entry each."""
MINUTE = 60.0
HOUR = 3600.0
DAY_US = 86_400_000_000
REMEMBERED = 10_000
"""Reads and accounts that are remembered at a time; the oldest is forgotten first."""

_log = logging.getLogger("headrace.audit")

Details = Mapping[str, object]
_Read = tuple[str, str, str, str, tuple[str, ...]]


class AuditSettings(msgspec.Struct, frozen=True):
    """How long entries are kept; 0 days: for ever."""

    retention_days: int = 90


class _Refusals:
    """What an account was refused in the minute that began at `since`."""

    __slots__ = ("origin", "since", "total")

    def __init__(self, since: float, origin: Origin) -> None:
        self.since = since
        self.origin = origin
        self.total = 0


class AuditLog:
    """The audit log of one database. Safe from any thread; `close` it before the engine."""

    def __init__(
        self, engine: StorageEngine, settings: AuditSettings | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.settings = settings or AuditSettings()
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._reads: OrderedDict[_Read, float] = OrderedDict()
        self._refusals: OrderedDict[str, _Refusals] = OrderedDict()
        self._pruned: float | None = None

    # --- entries -------------------------------------------------------------------------------------------------

    record = staticmethod(record)
    """`sql.audit.record`: an entry within a commit."""

    def note(
        self, acting: Acting, action: str, target: str, details: Details | None = None, subject: str | None = None
    ) -> None:
        """Commit an entry; it is durable when this returns. Raises SqlError."""
        with storage_errors():
            self._engine.commit_sync(lambda writer: record(writer, acting, action, target, details, subject))

    def impersonated(self, acting: Acting, subject: str, what: str, tables: Sequence[str]) -> None:
        """Tell of a statement that was run as `subject` and left no entry of its own: once a minute."""
        now = self._clock.monotonic()
        key = (acting.actor, acting.client_ip, subject, what, tuple(tables))
        with self._lock:
            last = self._reads.get(key)
            if last is not None and now - last < MINUTE:
                return
            self._reads[key] = now
            self._reads.move_to_end(key)
            if len(self._reads) > REMEMBERED:
                self._reads.popitem(last=False)
        self._submit(acting, EXECUTE_AS, *impersonation(subject, what, tables))

    def denied(self, acting: Acting, subject: str, what: str) -> None:
        """Tell of a refusal to act as `subject`; durable when this returns, or counted. Raises SqlError."""
        now = self._clock.monotonic()
        over = None
        with self._lock:
            refusals = self._refusals.get(acting.actor)
            if refusals is None or now - refusals.since >= MINUTE:
                over = refusals
                refusals = self._refusals[acting.actor] = _Refusals(now, Origin(acting.actor, acting.client_ip))
                self._refusals.move_to_end(acting.actor)
            refusals.total += 1
            is_counted = refusals.total > EACH
            forgotten = self._refusals.popitem(last=False)[1] if len(self._refusals) > REMEMBERED else None
        for ended in (over, forgotten):
            self._submit_count(ended)
        if not is_counted:
            self.note(acting, EXECUTE_AS_DENIED, subject, {"statement": what}, subject)

    def _submit(
        self, acting: Acting, action: str, target: str, details: Details | None, subject: str | None = None
    ) -> None:
        """Queue an entry for the next commit; one that cannot be written is in the log of the server."""
        origin = Origin(acting.actor, acting.client_ip)

        def ended(commit: Commit[None]) -> None:
            error = commit.exception()
            if error is not None:
                failed(error)

        def failed(error: BaseException) -> None:
            _log.error("not in the audit log (%s): %s %s %r %s", error, action, origin, target, details)

        try:
            self._engine.submit(lambda writer: record(writer, origin, action, target, details, subject), on_done=ended)
        except StorageError as error:
            failed(error)

    def _submit_count(self, refusals: _Refusals | None) -> None:
        if refusals is not None and refusals.total > EACH:
            self._submit(refusals.origin, EXECUTE_AS_DENIED, "", {"further_refusals": refusals.total - EACH})

    # --- housekeeping --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what was only counted."""
        self._write_counts(every=True)

    def tick(self) -> None:
        """Write counts whose minute is over; once an hour remove what is too old. Raises StorageError."""
        self._write_counts(every=False)
        now = self._clock.monotonic()
        if self._pruned is None or now - self._pruned >= HOUR:
            self._pruned = now
            self.prune()

    def _write_counts(self, *, every: bool) -> None:
        now = self._clock.monotonic()
        with self._lock:
            due = [name for name, r in self._refusals.items() if every or now - r.since >= MINUTE]
            over = [self._refusals.pop(name) for name in due]
        for refusals in over:
            self._submit_count(refusals)

    def prune(self) -> int:
        """Remove every entry that is too old; returns how many. Raises StorageError."""
        if self.settings.retention_days == 0:
            return 0
        bound = oldest_name(max(0, self._clock.now_us() - self.settings.retention_days * DAY_US))
        removed = 0
        while True:
            with self._engine.snapshot(purpose="audit log") as snapshot, snapshot.reading() as reader:
                names = names_below(reader, AUDIT_KIND, bound, SLICE)
            if not names:
                break
            self._engine.commit_sync(partial(_remove, names))
            removed += len(names)
        return removed


def impersonation(subject: str, what: str, tables: Sequence[str]) -> tuple[str, dict[str, object], str]:
    """Target, details and subject of an entry about EXECUTE AS USER."""
    return ", ".join(tables), {"statement": what}, subject


def _remove(names: Sequence[str], writer: WriteTransaction) -> None:
    for name in names:
        writer.delete_object(AUDIT_KIND, name)
