"""DuckDB called directly, in process, on its own table in its own file: for scans, exports and bulk loads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

NAME = "DuckDB, in process"


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database file in the folder where the servers keep theirs."""
    return duckdb.connect(folder / "peer.duckdb")


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of the work, after one run that is not counted."""
    times = []
    for _ in range(max(5, rounds) + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) * 1000


def fill(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Create the table from Arrow rows, or append to it."""
    connection.register("incoming", rows)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS FROM incoming LIMIT 0")
    connection.execute(f"INSERT INTO {table} FROM incoming")
    connection.unregister("incoming")


def export(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Write a result as an Arrow IPC stream into memory; its size."""
    reader = connection.sql(sql).to_arrow_reader(1 << 17)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return int(sink.getvalue().size)
