"""When and how often to try again: what may pass by itself, how long to wait, and when to give up.

`websockets` has the steps of an exponential back-off; they are taken in random parts here, so that many clients of a
restarted server do not come back at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from websockets.client import backoff

from headrace._exceptions import ConnectionFailed, HeadraceError, RateLimited, ResponseError, ServerFault, Unavailable

GATEWAY_STATUSES = frozenset({502, 504})
"""What a proxy says for a server that it does not reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to try, and how long to wait in between.

    The waits are random: up to `base_seconds`, then half to all of `base_seconds`, of twice as much, and so on. A
    longer `Retry-After` of the server is waited out.
    """

    attempts: int | None = None
    """How often in all; None tries for ever."""
    base_seconds: float = 0.25
    max_seconds: float = 30.0
    """Longest wait."""
    on_exhausted: Literal["raise", "skip"] = "raise"
    """Of a message whose handler failed the last time: raise what it raised, or acknowledge the message and go on."""

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.base_seconds <= self.max_seconds:
            raise ValueError("base_seconds and max_seconds must not be negative, nor the first greater than the other")
        if self.on_exhausted not in {"raise", "skip"}:
            raise ValueError(f"on_exhausted is 'raise' or 'skip', not {self.on_exhausted!r}")


class Retries:
    """What is left of a policy for one piece of work."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._attempts = policy.attempts
        self._delays = delays(policy.base_seconds, policy.max_seconds)
        self.failed = 0
        """Attempts that have failed."""

    def next_delay(self, error: Exception) -> float | None:
        """Seconds to wait after an attempt that failed; None if there is none left."""
        self.failed += 1
        if self._attempts is not None and self.failed >= self._attempts:
            return None
        wished = error.retry_after if isinstance(error, ResponseError) else None
        return max(next(self._delays), wished or 0.0)


def delays(first: float, longest: float) -> Iterator[float]:
    """Seconds to wait before each further attempt: random parts of `first`, `first`, twice as much, up to `longest`."""
    return (step * random.uniform(0.5, 1) for step in backoff(first, first, longest, 2.0))


def is_transient(error: HeadraceError) -> bool:
    """Whether the same request may work in a while: nobody answered, or whoever did could not work on it now."""
    if isinstance(error, ServerFault):
        return error.status in GATEWAY_STATUSES
    return isinstance(error, (ConnectionFailed, RateLimited, Unavailable))


def outcome_is_unknown(error: BaseException) -> bool:
    """Whether a request that failed or was cancelled may have taken effect all the same: no answer says that not."""
    return not isinstance(error, ResponseError) or isinstance(error, ServerFault)
