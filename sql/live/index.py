"""Which live queries can a change concern? From (table, partition, column, value) to those who listen.

A query whose every row has `column = value` is found by that value, so a change costs what its listeners cost, however
many queries there are. The others of the partition are asked for every change of it. Nothing empty stays behind.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Protocol

from sql.identity import Identity
from sql.live.changed_rows import ChangedRows
from sql.live.interface import LiveQuery

if TYPE_CHECKING:
    from sql.live.subscription import Subscription


class Follower(Protocol):
    """Who hands the commits to listeners, one after the other."""

    @property
    def position(self) -> int:
        """The last `_seq` of the newest commit that all its listeners have."""

    @property
    def claimed(self) -> int:
        """The last `_seq` of the commit that it is handing out, or `position`: who has that may join."""


class Listeners:
    """The LIVE subscriptions of queries with one key: evaluated once, delivered to each."""

    __slots__ = ("follower", "identity", "query", "subscriptions")

    def __init__(self, query: LiveQuery, identity: Identity, follower: Follower) -> None:
        self.query = query
        self.identity = identity
        """Whose query it is; the others may have other rights, and are bound anew with theirs."""
        self.follower = follower
        self.subscriptions: dict[Subscription, None] = {}

    @property
    def position(self) -> int:
        """What all of them have."""
        return self.follower.position


_Slot = Listeners | dict[Hashable, Listeners]


class PartitionIndex:
    """Those who listen to one partition of a table."""

    __slots__ = ("_equal", "_others")

    def __init__(self) -> None:
        self._equal: dict[str, dict[object, _Slot]] = {}
        self._others: dict[Hashable, Listeners] = {}

    def __bool__(self) -> bool:
        return bool(self._equal or self._others)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns by whose values queries are found."""
        return tuple(self._equal)

    def candidates(self, rows: ChangedRows) -> list[Listeners]:
        """Those whom a change can concern."""
        found = list(self._others.values())
        for column, by_value in self._equal.items():
            values = rows.values(column)
            if len(values) > len(by_value):
                hits = [slot for value, slot in by_value.items() if value in values]
            else:
                hits = [by_value[value] for value in values if value in by_value]
            for slot in hits:
                if isinstance(slot, Listeners):
                    found.append(slot)
                else:
                    found += slot.values()
        return found

    def all(self) -> Iterator[Listeners]:
        """Everybody."""
        yield from tuple(self._others.values())
        for by_value in tuple(self._equal.values()):
            for slot in tuple(by_value.values()):
                if isinstance(slot, Listeners):
                    yield slot
                else:
                    yield from tuple(slot.values())

    def get(self, query: LiveQuery) -> Listeners | None:
        """Those who listen to an equal query."""
        equality = query.equality
        if equality is None:
            return self._others.get(query.key)
        slot = self._equal.get(equality.column, {}).get(equality.value)
        if isinstance(slot, Listeners):
            return slot if slot.query.key == query.key else None
        return None if slot is None else slot.get(query.key)

    def add(self, listeners: Listeners) -> None:
        """Add those of a query that is not there yet."""
        query = listeners.query
        equality = query.equality
        if equality is None:
            self._others[query.key] = listeners
            return
        by_value = self._equal.setdefault(equality.column, {})
        slot = by_value.get(equality.value)
        if slot is None:
            by_value[equality.value] = listeners
        elif isinstance(slot, Listeners):
            by_value[equality.value] = {slot.query.key: slot, query.key: listeners}
        else:
            slot[query.key] = listeners

    def remove(self, listeners: Listeners) -> None:
        """Remove those of a query that is there."""
        query = listeners.query
        equality = query.equality
        if equality is None:
            del self._others[query.key]
            return
        by_value = self._equal[equality.column]
        slot = by_value[equality.value]
        if isinstance(slot, Listeners):
            del by_value[equality.value]
            if not by_value:
                del self._equal[equality.column]
            return
        del slot[query.key]
        if len(slot) == 1:
            by_value[equality.value] = next(iter(slot.values()))


class LiveIndex:
    """Those who listen, by what they listen to."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[int | None, str], PartitionIndex] = {}
        self.queries = 0
        """How many distinct queries are listened to."""

    def partition(self, table_id: int | None, partition: str) -> PartitionIndex | None:
        """Who listens to a partition; `table_id` None means system tables."""
        return self._partitions.get((table_id, partition))

    def system(self) -> Iterator[Listeners]:
        """Those who listen to system tables: every change of the catalog concerns them."""
        for (table_id, _), index in tuple(self._partitions.items()):
            if table_id is None:
                yield from index.all()

    def all(self) -> Iterator[Listeners]:
        """Everybody."""
        for index in tuple(self._partitions.values()):
            yield from index.all()

    def get(self, query: LiveQuery) -> Listeners | None:
        """Those who listen to an equal query."""
        index = self._partitions.get((query.table_id, query.partition))
        return None if index is None else index.get(query)

    def add(self, listeners: Listeners) -> None:
        """Let changes find those of a query that is not there yet."""
        place = (listeners.query.table_id, listeners.query.partition)
        index = self._partitions.get(place)
        if index is None:
            index = self._partitions[place] = PartitionIndex()
        index.add(listeners)
        self.queries += 1

    def remove(self, listeners: Listeners) -> None:
        """Let no change find them any more."""
        place = (listeners.query.table_id, listeners.query.partition)
        index = self._partitions[place]
        index.remove(listeners)
        if not index:
            del self._partitions[place]
        self.queries -= 1
