"""All subscriptions of a hub, by name, user, connection and table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from sql.live.subscription import Subscription

K = TypeVar("K")


class _Groups(Generic[K]):
    """Subscriptions by a property. Most groups have one member, so one alone stands for itself."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[K, Subscription | dict[Subscription, None]] = {}

    def add(self, key: K, subscription: Subscription) -> None:
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = subscription
        elif isinstance(group, Subscription):
            self._groups[key] = {group: None, subscription: None}
        else:
            group[subscription] = None

    def remove(self, key: K, subscription: Subscription) -> None:
        group = self._groups[key]
        if isinstance(group, Subscription):
            del self._groups[key]
            return
        del group[subscription]
        if len(group) == 1:
            self._groups[key] = next(iter(group))

    def get(self, key: K) -> list[Subscription]:
        group = self._groups.get(key)
        if group is None:
            return []
        return [group] if isinstance(group, Subscription) else list(group)

    def count(self, key: K) -> int:
        group = self._groups.get(key)
        if group is None:
            return 0
        return 1 if isinstance(group, Subscription) else len(group)


class Registry:
    """Every subscription that has not ended, in the order in which they came."""

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._users: _Groups[str] = _Groups()
        self._connections: _Groups[str] = _Groups()
        self._tables: _Groups[int | None] = _Groups()
        self.peak = 0
        """The most that there ever were."""

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, subscription: Subscription) -> None:
        """Add one whose `live_id` is free."""
        request = subscription.request
        self._by_id[request.live_id] = subscription
        self._users.add(request.identity.user, subscription)
        self._connections.add(request.connection_id, subscription)
        self._tables.add(subscription.query.table_id, subscription)
        self.peak = max(self.peak, len(self._by_id))

    def remove(self, subscription: Subscription) -> None:
        """Remove one that is there. Its query may have been bound anew, but not to another table."""
        request = subscription.request
        del self._by_id[request.live_id]
        self._users.remove(request.identity.user, subscription)
        self._connections.remove(request.connection_id, subscription)
        self._tables.remove(subscription.query.table_id, subscription)

    def get(self, live_id: str) -> Subscription | None:
        """The one of that name."""
        return self._by_id.get(live_id)

    def all(self) -> list[Subscription]:
        """All of them. Safe from any thread."""
        return list(self._by_id.values())

    def of_user(self, user: str) -> list[Subscription]:
        """Those of a user."""
        return self._users.get(user)

    def of_connection(self, connection_id: str) -> list[Subscription]:
        """Those of a connection."""
        return self._connections.get(connection_id)

    def of_tables(self, table_ids: Iterable[int]) -> list[Subscription]:
        """Those of some tables."""
        return [subscription for table_id in table_ids for subscription in self._tables.get(table_id)]

    def count_of_user(self, user: str) -> int:
        """How many a user has."""
        return self._users.count(user)
