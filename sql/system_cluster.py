"""system.cluster and system.cluster_groups: the truth of a single node, in the shape that clients of a cluster read.

There is no consensus: the node leads itself, and the numbers of a log are `_seq`s of commits.
"""

from __future__ import annotations

from sql.system_rows import CLUSTER_ID, NODE_ID
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import BIGINT, BOOLEAN, DOUBLE, TEXT, ColumnType
from storage.views import ReadView

_LEADER = "leader"
_HEALTHY = "healthy"
_TERM = 1
_GROUP_ID = 1
_GROUP_TYPE = "all"


def _columns(*columns: tuple[str, ColumnType, bool]) -> tuple[SystemColumn, ...]:
    return tuple(SystemColumn(name, kind, nullable) for name, kind, nullable in columns)


_CLUSTER_COLUMNS = _columns(
    ("cluster_id", TEXT, False),
    ("node_id", BIGINT, False),
    ("role", TEXT, False),
    ("status", TEXT, False),
    ("rpc_addr", TEXT, True),
    ("api_addr", TEXT, False),
    ("is_self", BOOLEAN, False),
    ("is_leader", BOOLEAN, False),
    ("groups_leading", BIGINT, False),
    ("total_groups", BIGINT, False),
    ("current_term", BIGINT, True),
    ("last_applied_log", BIGINT, True),
    ("leader_last_log_index", BIGINT, True),
    ("snapshot_index", BIGINT, True),
    ("catchup_progress_pct", BIGINT, True),
    ("replication_lag", BIGINT, True),
    ("hostname", TEXT, True),
    ("version", TEXT, True),
    ("memory_mb", BIGINT, True),
    ("memory_usage_mb", BIGINT, True),
    ("cpu_usage_percent", DOUBLE, True),
    ("uptime_seconds", BIGINT, True),
    ("uptime_human", TEXT, True),
    ("os", TEXT, True),
    ("arch", TEXT, True),
)
_GROUP_COLUMNS = _columns(
    ("group_id", BIGINT, False),
    ("cluster_id", TEXT, False),
    ("node_id", BIGINT, False),
    ("group_type", TEXT, False),
    ("current_term", BIGINT, True),
    ("vote", BIGINT, True),
    ("last_log_index", BIGINT, True),
    ("last_applied", BIGINT, True),
    ("snapshot", BIGINT, True),
    ("purged", BIGINT, True),
    ("committed", BIGINT, True),
    ("state", TEXT, False),
    ("current_leader", BIGINT, True),
    ("millis_since_quorum_ack", BIGINT, True),
)


def _cluster_rows(view: ReadView, context: SystemContext) -> Rows:
    """This node. Nothing replicates, so there is no lag and no snapshot to catch up from."""
    node = context.node()
    if node is not None:
        yield (
            CLUSTER_ID, NODE_ID, _LEADER, _HEALTHY, None, node.api_addr, True, True, 1, 1, _TERM, view.seq, view.seq,
            None, None, None, node.hostname, node.version, node.machine_memory_mb, node.memory_usage_mb,
            node.cpu_usage_percent, node.uptime_seconds, node.uptime_human, node.os, node.arch,
        )  # fmt: skip


def _group_rows(view: ReadView, context: SystemContext) -> Rows:
    """One group that holds everything. `purged` is the last `_seq` that the change log no longer tells of."""
    node = context.node()
    if node is not None:
        yield (
            _GROUP_ID, CLUSTER_ID, NODE_ID, _GROUP_TYPE, _TERM, None, view.seq, view.seq, None,
            node.first_retained_seq - 1, view.seq, _LEADER, NODE_ID, 0,
        )  # fmt: skip


CLUSTER_TABLES = (
    SystemTable(SYSTEM, "cluster", _CLUSTER_COLUMNS, _cluster_rows, key=("node_id",)),
    SystemTable(SYSTEM, "cluster_groups", _GROUP_COLUMNS, _group_rows, key=("group_id",)),
)
