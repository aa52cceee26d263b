"""Producers and consumers of one topic on a server that is killed and started again, until all is delivered to all."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.chaos.rowset import Violation
from tests.chaos.topic_checker import check
from tests.chaos.topic_consumer import Consumer, entry_of
from tests.chaos.topic_history import Entry, History
from tests.chaos.topic_producer import PATIENCE, TABLE, TOPIC, Producer
from tests.e2e.running import RunningServer

log = logging.getLogger(__name__)

PARTITIONS, PRODUCERS, CONSUMERS = 6, 4, 4
GROUPS = ("ordered", "plain")
SCHEMA = f"""
CREATE NAMESPACE chaos;
CREATE SHARED TABLE {TABLE} (id INT PRIMARY KEY, v TEXT NOT NULL);
CREATE TOPIC {TOPIC} PARTITIONS {PARTITIONS};
ALTER TOPIC {TOPIC} ADD SOURCE {TABLE} ON INSERT;
ALTER TOPIC {TOPIC} ADD SOURCE {TABLE} ON UPDATE
"""


class TopicCampaign:
    """One run; its history is checked as a whole at its end."""

    def __init__(self, server: RunningServer, seed: str, *, calm: bool) -> None:
        self.server = server
        self.calm = calm
        self.kills = 0
        self.history = History(PARTITIONS, frozenset({"ordered"}), GROUPS)
        self._random = random.Random(seed)
        port, token = server.port, server.token
        self.producers = [
            Producer(f"p{each}", port, token, self.history, f"{seed}/p{each}", pause=0.05) for each in range(PRODUCERS)
        ]
        self.consumers = [
            Consumer(group, f"{group}{each}", port, token, self.history, f"{seed}/{group}{each}", 60 if calm else 3)
            for group in GROUPS
            for each in range(CONSUMERS)
        ]
        for consumer in self.consumers:
            consumer.mortal = not calm

    def run(self, seconds: float) -> None:
        """Let everybody go for a while, let the consumers finish, and check. Raises Violation."""
        producing, consuming = threading.Event(), threading.Event()
        with ThreadPoolExecutor(PRODUCERS + len(self.consumers)) as threads:
            senders = [threads.submit(producer.run, producing) for producer in self.producers]
            takers = [threads.submit(consumer.run, consuming) for consumer in self.consumers]
            try:
                self._accidents(seconds, [*senders, *takers])
                producing.set()
                for sender in senders:
                    sender.result(PATIENCE)
                for consumer in self.consumers:
                    consumer.mortal = False
                self._settle(takers)
            finally:
                producing.set()
                consuming.set()
            for taker in takers:
                taker.result(PATIENCE)
        self._nothing_is_left()
        self.history.log = self._read_log()
        self.history.rows = {str(key): value for key, value in self.server.rows(f"SELECT id, v FROM {TABLE}")}
        check(self.history, calm=self.calm)

    def report(self) -> dict[str, Any]:
        """What happened."""
        consumers: Counter[str] = Counter()
        producers: Counter[str] = Counter()
        for consumer in self.consumers:
            consumers += consumer.counts
        for producer in self.producers:
            producers += producer.counts
        again = sum(each.times > 1 for each in self.history.deliveries)
        return {
            "kills": self.kills,
            "messages": len(self.history.log),
            "deliveries": len(self.history.deliveries),
            "redeliveries": again,
            "producers": dict(producers),
            "consumers": dict(consumers),
        }

    def _accidents(self, seconds: float, running: list[Future[None]]) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = self._random.uniform(1.0, 4.0)
            threading.Event().wait(min(pause, left))
            for each in running:
                if each.done():
                    each.result()
            self._look()
            if not self.calm:
                self.server.restart()
                self.kills += 1
                self.history.die("server")

    def _goal(self) -> dict[tuple[str, int], int]:
        """The last offset of each partition, for each group."""
        ends = Counter(entry.partition for entry in self._read_log())
        return {(group, partition): end - 1 for group in GROUPS for partition, end in ends.items()}

    def _settle(self, running: list[Future[None]]) -> None:
        """Wait until the groups have acknowledged everything, as the server says; an answer to that may be lost."""
        goal, end = self._goal(), time.monotonic() + PATIENCE
        while (committed := self._look()) != goal:
            for each in running:
                if each.done():
                    each.result()
            if time.monotonic() > end:
                raise Violation(f"after {PATIENCE} seconds acknowledged is {committed}, not {goal}; {self.report()}")
            threading.Event().wait(0.2)

    def _consume(self, **more: Any) -> dict[str, Any]:
        answer = self.server.client.post("/v1/api/topics/consume", json={"topic_id": TOPIC} | more)
        if answer.status_code != 200:
            raise Violation(f"{more} was answered {answer.text[:500]}")
        body: dict[str, Any] = answer.json()
        return body

    def _read_log(self) -> list[Entry]:
        """Everything that the topic holds."""
        found: list[Entry] = []
        for partition in range(PARTITIONS):
            at: Any = "Earliest"
            while messages := self._consume(partition_id=partition, start=at, limit=5_000)["messages"]:
                found += [entry_of(message) for message in messages]
                at = {"Offset": messages[-1]["offset"] + 1}
        return found

    def _look(self) -> dict[tuple[str, int], int]:
        """How far the groups have acknowledged."""
        sql = "SELECT group_id, partition_id, last_acked_offset FROM system.topic_offsets WHERE topic_id = $1"
        asked = self.history.tick()
        found = [
            (group, partition, int(offset))
            for group, partition, offset in self.server.rows(sql, [TOPIC])
            if offset is not None and int(offset) >= 0
        ]
        self.history.commit(found, asked)
        return {(group, partition): offset for group, partition, offset in found}

    def _nothing_is_left(self) -> None:
        """All was acknowledged, so nobody is handed anything any more."""
        if (committed := self._look()) != (goal := self._goal()):
            raise Violation(f"acknowledged is {committed}, and the end is {goal}")
        for group in GROUPS:
            left = self._consume(group_id=group, consumer_id="last", timeout_seconds=0.5)["messages"]
            if left:
                raise Violation(f"group {group} has acknowledged all, and is handed {left[:3]}")
