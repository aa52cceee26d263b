"""Consumers of a topic, of which many die with what they were handed; each writes into a history."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from tests.chaos.rowset import Violation
from tests.chaos.topic_history import Ack, Entry, History
from tests.chaos.topic_producer import TOPIC, Answer, Connection


def entry_of(message: dict[str, Any]) -> Entry:
    """A message of the wire; a payload carries its identity as text, in `v`, or in the row's column `v`."""
    data = base64.b64decode(message["payload"], validate=True)
    try:
        identity = json.loads(data)["v"]
    except ValueError:
        identity = data.decode()
    return Entry(message["partition_id"], message["offset"], message["key"], identity)


class Consumer:
    """Takes, works and acknowledges, or dies; `run` is for a thread of its own.

    One of an ordered group has a name that ends with it; one of another group is its connection.
    """

    def __init__(
        self, group: str, name: str, port: int, token: str, history: History, seed: str, visibility: int
    ) -> None:
        self.group = group
        self.counts: Counter[str] = Counter()
        self.mortal = True
        """Whether it dies now and then."""
        self._visibility = visibility
        """Seconds for which it may keep what it was handed. Half of them later it leaves it to others: to acknowledge
        too late is to acknowledge what others hold."""
        self._name = name
        self._life = 0
        self._history = history
        self._ordered = group in history.ordered
        self._connection = Connection(port, token)
        self._random = random.Random(seed)

    @property
    def consumer(self) -> str:
        """Who it is in this life."""
        return f"{self._name}.{self._life}"

    def run(self, stop: threading.Event) -> None:
        """Consume until told to stop. Raises Violation when an answer cannot be."""
        while not stop.is_set():
            self._turn()
        self._connection.close()

    def _end_life(self, why: str) -> None:
        self.counts[why] += 1
        self._history.die(self.consumer)
        self._connection.close()
        self._life += 1

    def _turn(self) -> None:
        dies = self._random.random() if self.mortal else 1.0
        body: dict[str, Any] = {
            "topic_id": TOPIC,
            "group_id": self.group,
            "start": "Earliest",
            "limit": self._random.choice([1, 5, 20, 100]),
            "timeout_seconds": self._random.choice([0, 0.5, 2]),
            "visibility_timeout_seconds": self._visibility,
        }
        if self._ordered:
            body |= {"ordered": True, "consumer_id": self.consumer}
        if self._random.random() < 0.2:
            body["partition_id"] = self._random.randrange(self._history.partitions)
        asked, began = self._history.tick(), time.monotonic()
        answer = self._connection.send("/v1/api/topics/consume", body, leave=dies < 0.03)
        if answer.status != 200:
            self._unanswered(answer)
            return
        messages = answer.body["messages"]
        entries = [(entry_of(message), message["delivery_count"]) for message in messages]
        self._history.deliver(self.group, self.consumer, entries, asked)
        self.counts["taken"] += len(entries)
        if dies < 0.12:
            self._end_life("died")
            return
        for partition in sorted({entry.partition for entry, _ in entries}):
            if time.monotonic() - began > self._visibility / 2:
                self._end_life("too slow")
                return
            offsets = [entry.offset for entry, _ in entries if entry.partition == partition]
            if not self._acknowledge(partition, offsets):
                return

    def _acknowledge(self, partition: int, offsets: list[int]) -> bool:
        """Acknowledge all of one partition, or a part and give the others back. Whether this life goes on."""
        part = self.mortal and self._random.random() < 0.2
        upto = self._random.choice(offsets) if part else offsets[-1]
        body = {"topic_id": TOPIC, "group_id": self.group, "partition_id": partition, "upto_offset": upto}
        body |= {"consumer_id": self.consumer} if self._ordered else {}
        body |= {"release": True} if part else {}
        sent = self._history.tick()
        answer = self._connection.send("/v1/api/topics/ack", body)
        known = answer.status == 200
        self._history.acknowledge(
            Ack(
                self.group,
                self.consumer,
                partition,
                upto,
                sent,
                self._history.tick() if known else None,
                answer.body["acknowledged_offset"] if known else None,
                released=part,
            )
        )
        if not known:
            self._unanswered(answer)
            return False
        if not self._connection.is_open and not self._ordered:
            self._end_life("closed")
            return False
        self.counts["acknowledged"] += 1
        return True

    def _unanswered(self, answer: Answer) -> None:
        """What it was handed, if anything, is lost with this life."""
        if answer.status not in {0, 503}:
            raise Violation(f"{self.consumer}: {answer}")
        self._end_life("cut off")
        threading.Event().wait(0.05)
