"""The figures of `system.stats` that the server itself knows: the process, its limits, what is defined and stored."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from server.config import Config
from server.process_figures import (
    MIB,
    ProcessFigures,
    hostname,
    logical_cores,
    machine_memory_bytes,
    memory_bytes,
    open_files,
    physical_cores,
    system,
)
from server.version import build_date, version
from sql.system_rows import CLUSTER_ID, NODE_ID, NodeFigures
from storage.catalog import USER_KIND
from storage.engine import StorageEngine
from storage.stored_size import count_objects


class AccountCount:
    """How many accounts there are. Counted when somebody asks and accounts have changed since."""

    def __init__(self, engine: StorageEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._changes = 0
        self._counted: tuple[int, int] | None = None

    def changed(self, objects: Sequence[tuple[str, str]]) -> None:
        """Tell what a commit changed. Any thread."""
        if any(kind == USER_KIND for kind, _ in objects):
            with self._lock:
                self._changes += 1

    def count(self) -> int:
        """The accounts, dropped ones that are kept included. May block."""
        with self._lock:
            changes, counted = self._changes, self._counted
        if counted is not None and counted[0] == changes:
            return counted[1]
        with self._engine.snapshot(purpose="counting accounts") as snapshot, snapshot.reading() as reader:
            found = count_objects(reader, USER_KIND)
        with self._lock:
            self._counted = changes, found
        return found


def texts_of(process: ProcessFigures) -> dict[str, str]:
    """Return the figures that are no numbers. The version costs an idle server some megabytes the first time."""
    return {
        "server_uptime_human": process.uptime_human,
        "server_version": version(),
        "server_build_date": build_date(),
        "cluster_mode": "false",
        "cluster_id": CLUSTER_ID,
    }


def numbers_of(
    engine: StorageEngine, process: ProcessFigures, config: Config, accounts: AccountCount
) -> dict[str, float]:
    """Return the figures that are numbers. May block."""
    opened, may_open = open_files()
    performance, duckdb = config.performance, config.duckdb
    memory = memory_bytes()
    figures: dict[str, float] = {
        "server_uptime_seconds": process.uptime_seconds,
        "node_id": NODE_ID,
        "cluster_nodes": 1,
        "memory_usage_bytes": memory,
        "memory_usage_mb": memory // MIB,
        "memory_total_mb": machine_memory_bytes() // MIB,
        "cpu_usage_percent": process.cpu_percent(),
        "cpu_logical_cores": logical_cores(),
        "cpu_physical_cores": physical_cores(),
        "open_files_current": opened,
        "open_files_limit": may_open,
        "server_workers_configured": performance.worker_max_blocking_threads,
        "max_connections": performance.max_connections,
        "max_connections_configured": performance.max_connections,
        "connection_backlog": performance.backlog,
        "duckdb_connections": duckdb.connections,
        "duckdb_memory_limit_bytes": duckdb.memory_limit_bytes,
        "total_users": accounts.count(),
        "total_namespaces": sum(1 for _ in engine.catalog.namespaces()),
        "total_tables": sum(1 for _ in engine.catalog.tables()),
    }
    return figures | {f"storage_{name}": value for name, value in msgspec.structs.asdict(engine.stats()).items()}


def node_figures(engine: StorageEngine, process: ProcessFigures, address: str) -> NodeFigures:
    """Return what system.cluster shows; `address` is where the API is served."""
    name, processor = system()
    return NodeFigures(
        api_addr=address,
        hostname=hostname(),
        version=version(),
        machine_memory_mb=machine_memory_bytes() // MIB,
        memory_usage_mb=memory_bytes() // MIB,
        cpu_usage_percent=process.cpu_percent(),
        uptime_seconds=process.uptime_seconds,
        uptime_human=process.uptime_human,
        os=name,
        arch=processor,
        first_retained_seq=engine.stats().first_retained_seq,
    )
