"""What happened to a topic in a run: who sent what, who was handed what, who acknowledged what, and what died.

Every producer, consumer and accident writes into one `History`; ticks order what happened. A request has the tick at
which it was sent and the one at which its answer was there: whatever it did, it did between the two.

A message is known by its *identity*, a text that no other message has: a produced message carries it in its payload, a
row version in its column `v`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Place = tuple[int, int]
"""Partition and offset."""


class Sent(NamedTuple):
    """One message that a producer asked for."""

    request: str
    """Messages of one request appear all or not at all."""
    producer: str
    number: int
    """Ascends for each producer."""
    key: str
    identity: str
    certain: bool
    """Whether the request was answered with success; otherwise nobody knows."""
    place: Place | None = None
    """Where the answer said that it is; row versions are not told where."""


class Entry(NamedTuple):
    """One message, as the log holds it or a consumer was handed it."""

    partition: int
    offset: int
    key: str
    identity: str

    @property
    def place(self) -> Place:
        """Partition and offset."""
        return self.partition, self.offset


class Delivery(NamedTuple):
    """One message in the answer to a consumer."""

    group: str
    consumer: str
    entry: Entry
    times: int
    """The delivery count."""
    asked: int
    received: int


class Ack(NamedTuple):
    """One acknowledgement. `answered` and `acknowledged` are None when no answer came.

    `released`: the consumer gave the rest of what it held in the partition back with it.
    """

    group: str
    consumer: str
    partition: int
    upto: int
    sent: int
    answered: int | None
    acknowledged: int | None
    released: bool = False


class Committed(NamedTuple):
    """What the server said at some moment that a group has acknowledged: everything up to an offset."""

    group: str
    partition: int
    offset: int
    asked: int
    received: int


class Death(NamedTuple):
    """Something ended without saying so."""

    who: str
    at: int


@dataclass
class History:
    """A run, whole or as far as it has come. Threads may write into it at the same time."""

    partitions: int
    ordered: frozenset[str]
    """The groups whose consumers ask for order."""
    groups: tuple[str, ...]
    sent: list[Sent] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    """Everything that the topic holds at the end, by partition and offset."""
    rows: dict[str, str] = field(default_factory=dict)
    """What the table holds at the end: the identity of the version by key."""
    _ticks: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self) -> int:
        """A moment, later than all before it."""
        return next(self._ticks)

    def send(self, sent: Sequence[Sent]) -> None:
        """A producer knows what became of a request, or that nobody will."""
        with self._lock:
            self.sent += sent

    def deliver(self, group: str, consumer: str, entries: Sequence[tuple[Entry, int]], asked: int) -> None:
        """A consumer has an answer: the messages and their delivery counts."""
        with self._lock:
            received = self.tick()
            self.deliveries += [Delivery(group, consumer, entry, times, asked, received) for entry, times in entries]

    def acknowledge(self, ack: Ack) -> None:
        """A consumer knows what became of an acknowledgement, or that nobody will."""
        with self._lock:
            self.acks.append(ack)

    def commit(self, offsets: Sequence[tuple[str, int, int]], asked: int) -> None:
        """Somebody was told the acknowledged offsets: group, partition and offset."""
        with self._lock:
            received = self.tick()
            self.committed += [Committed(*each, asked, received) for each in offsets]

    def die(self, who: str) -> None:
        """Something ended."""
        with self._lock:
            self.deaths.append(Death(who, self.tick()))


def covered(deliveries: Sequence[Delivery], acks: Sequence[Ack]) -> list[tuple[Place, Ack]]:
    """What each acknowledgement of one group covers: what its consumer holds, up to its offset.

    It holds what it was handed since it last gave something back in this partition. Its claims have not expired: a
    consumer of ours acknowledges in time or not at all.
    """
    handed: dict[tuple[str, int], list[Delivery]] = {}
    for delivery in deliveries:
        handed.setdefault((delivery.consumer, delivery.entry.partition), []).append(delivery)
    found: list[tuple[Place, Ack]] = []
    given_back: dict[tuple[str, int], int] = {}
    for ack in sorted(acks, key=lambda each: each.sent):
        holder = (ack.consumer, ack.partition)
        since = given_back.get(holder, 0)
        found += [
            (delivery.entry.place, ack)
            for delivery in handed.get(holder, ())
            if delivery.entry.offset <= ack.upto and since < delivery.received < ack.sent
        ]
        if ack.released:
            given_back[holder] = ack.sent
    return found
