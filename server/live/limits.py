"""Bounds of what one client may ask: messages a second, subscriptions a user."""

from __future__ import annotations

MAX_SUBSCRIPTION_ID = 256
"""Longest subscription id, in bytes."""

QUEUED_BATCHES = 16
"""How many `next_batch` a client may send ahead of the answers, for each subscription."""

LOADING_AT_ONCE = 4
"""How many snapshots of one connection are read at a time; others wait for their turn."""


def is_sound_id(name: str) -> bool:
    """Whether a text may name a subscription."""
    try:
        return 0 < len(name.encode()) <= MAX_SUBSCRIPTION_ID
    except UnicodeEncodeError:
        return False


class MessageRate:
    """A token bucket that holds one second's messages. A rate of 0 is no limit."""

    __slots__ = ("_filled", "_rate", "_tokens")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = float(rate)
        self._tokens = self._rate
        self._filled = now

    def take(self, now: float) -> bool:
        """Count a message at a time of the event loop's clock; False if it is one too many."""
        if not self._rate:
            return True
        tokens = min(self._rate, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True


class UserSubscriptions:
    """How many live queries each user has, over all sockets and event streams. A maximum of 0 is no limit."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._counts: dict[str, int] = {}
        self.total = 0

    def acquire(self, user: str) -> bool:
        """Count one more; False, and not counted, if the user has as many as allowed."""
        count = self._counts.get(user, 0)
        if self._maximum and count >= self._maximum:
            return False
        self._counts[user] = count + 1
        self.total += 1
        return True

    def release(self, user: str) -> None:
        """Count one less."""
        count = self._counts[user] - 1
        self.total -= 1
        if count:
            self._counts[user] = count
        else:
            del self._counts[user]
