"""Limits of the SQL layer: sizes, counts, times and memory, with their defaults."""

from __future__ import annotations

import msgspec


class SqlLimits(msgspec.Struct, frozen=True):
    """Bounds that a statement, a batch or a result must keep. Sizes are bytes, times seconds.

    A value of 0 is not "no limit": every limit is real.
    """

    max_sql_bytes: int = 1_048_576
    max_statements: int = 1_000
    max_parameters: int = 32_767
    max_parameter_bytes: int = 16 * 1024 * 1024
    max_result_rows: int = 100_000
    statement_timeout: float = 30.0
    stream_timeout: float = 300.0
    transaction_timeout: float = 300.0
    max_transaction_bytes: int = 100 * 1024 * 1024
    plan_cache_entries: int = 2_000
    workers: int = 16
    max_waiting: int = 256
    """Statements that may wait for a worker before new ones are refused with SERVER_OVERLOADED."""
    conflict_retries: int = 8
    """How often a write is tried again on a fresh snapshot before it runs inside the writer."""
