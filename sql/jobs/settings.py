"""What is configured about jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Bounds and times of the job engine; times in seconds."""

    max_concurrent: int = 10
    """Jobs that run at once."""
    max_waiting: int = 10_000
    """Jobs that may wait; a statement that would add one more is refused."""
    max_retries: int = 3
    """How often a job that failed runs again."""
    retry_backoff: float = 0.1
    """How long it waits for that, doubled each time."""
    retention: float = 7 * 86_400.0
    """How long finished jobs are kept."""
    max_finished: int = 10_000
    """How many finished jobs are kept at most."""
    cleanup_interval: float = 600.0
    """How often old jobs are looked for."""
    stop: float = 10.0
    """How long running jobs may take to stop when the server does."""
