"""system.audit_log: the entries of the audit log, oldest first. It is only read: nothing changes an entry."""

from __future__ import annotations

from sql.audit import AUDIT_KIND, AuditEntry
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import JSON, TEXT, TIMESTAMP
from storage.views import ReadView

_COLUMNS = (
    SystemColumn("audit_id", TEXT, nullable=False),
    SystemColumn("timestamp", TIMESTAMP, nullable=False),
    SystemColumn("actor_user_id", TEXT, nullable=False),
    SystemColumn("action", TEXT, nullable=False),
    SystemColumn("target", TEXT, nullable=False),
    SystemColumn("details", JSON),
    SystemColumn("ip_address", TEXT),
    SystemColumn("subject_user_id", TEXT),
)


def _rows(view: ReadView, context: SystemContext) -> Rows:
    for entry in view.list_objects(AUDIT_KIND, AuditEntry):
        yield (
            entry.audit_id, entry.timestamp, entry.actor, entry.action, entry.target, entry.details,
            entry.ip_address, entry.subject,
        )  # fmt: skip


AUDIT_TABLE = SystemTable(SYSTEM, "audit_log", _COLUMNS, _rows, key=("audit_id",))
