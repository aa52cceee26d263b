"""A server for the topic routes inside the test: faithful to the contract, and made to fail on purpose.

`FakeTopics` serves one topic, `app.orders`, as a handler of `httpx.MockTransport`. What it does with claims and
acknowledgements is what the server's groups do. Faults are taken one by one by the requests that come.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Body = dict[str, Any]
LOST = "lost"
"""The request takes effect, and its answer is cut."""
UNREACHED = "unreached"
"""Nobody answers, and nothing happens."""
Fault = str | int | None
"""One of the above, a status with which the request is refused, or None: answer it."""


@dataclass
class Claim:
    """Offsets handed out to a holder."""

    first: int
    last: int
    deadline: float
    deliveries: int
    holder: str


@dataclass
class Group:
    """What a group has had of a partition."""

    position: int
    acked: int = -1
    claims: list[Claim] = field(default_factory=list)

    def acknowledge(self, upto: int, holder: str) -> None:
        """As `storage.topic_groups` has it for consumers that name themselves."""
        reach = [claim for claim in self.claims if claim.first <= upto]
        covered = [claim for claim in reach if claim.holder == holder]
        whole = not covered and not self.claims
        if not covered:
            covered = [claim for claim in reach if claim.last >= upto]
        for claim in covered:
            if claim.last > upto:
                claim.first = upto + 1
            else:
                self.claims.remove(claim)
        if whole:
            self.position = max(self.position, upto + 1)
        behind = min((claim.first for claim in self.claims), default=self.position)
        self.acked = max(self.acked, behind - 1)


class FakeTopics:
    """The topic `app.orders`; `clock` gives the seconds by which claims end."""

    topic = "app.orders"

    def __init__(self, partitions: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        self.messages: list[list[Body]] = [[] for _ in range(partitions)]
        self.groups: dict[str, list[Group]] = {}
        self.first_offsets = [0] * partitions
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, Body]] = []
        self.timeouts: list[float | None] = []
        self.claims_for_those_gone = False
        """Whether a poll that is cut still claims what is there: the server had not noticed yet."""
        self.visibility = 60.0
        self.waiting = 0
        self._clock = clock
        self._turn = 0
        self._written = asyncio.Event()
        self.polled = asyncio.Event()
        """Set while a poll waits."""
        self.polled_of_threads = threading.Event()
        """The same, for other threads."""

    def publish(self, *payloads: Any, partition: int | None = None, key: str | None = None) -> None:
        """Write messages; without a partition in turns."""
        for payload in payloads:
            number = partition if partition is not None else self._turn % len(self.messages)
            self._turn += 1
            log = self.messages[number]
            log.append(
                {
                    "topic_id": self.topic,
                    "partition_id": number,
                    "offset": len(log),
                    "payload": base64.b64encode(json.dumps(payload).encode()).decode(),
                    "key": key,
                    "timestamp_ms": 1_767_225_600_000 + len(log),
                    "op": "Insert",
                }
            )
        self._written.set()

    def of(self, route: str) -> list[Body]:
        """The bodies of the requests of a route."""
        return [body for each, body in self.requests if each == route]

    def acked(self, group: str) -> list[int]:
        """The last acknowledged offset of each partition."""
        return [each.acked for each in self.groups[group]]

    def held(self, group: str) -> list[tuple[int, int, int]]:
        """What is handed out and neither acknowledged nor given back: partition, first, last."""
        now = self._clock()
        found = [(n, claim) for n, each in enumerate(self.groups[group]) for claim in each.claims]
        return [(number, claim.first, claim.last) for number, claim in found if claim.deadline > now]

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        route = request.url.path.removeprefix("/v1/api/topics/")
        body = json.loads(await request.aread())
        self.requests.append((route, body))
        self.timeouts.append(request.extensions["timeout"]["read"])
        fault = self.faults.popleft() if self.faults else None
        if fault == UNREACHED:
            raise httpx.ConnectError("refused")
        if isinstance(fault, int):
            return httpx.Response(fault, json={"error": "not now", "code": "NOT_NOW"}, headers={"Retry-After": "0.001"})
        answer = await getattr(self, f"_{route}")(body)
        if fault == LOST:
            raise httpx.ReadError("cut")
        return httpx.Response(200, json=answer) if isinstance(answer, dict) else answer

    # --- routes -------------------------------------------------------------------------------------------------------

    async def _produce(self, body: Body) -> Body | httpx.Response:
        results = []
        for message in body["messages"]:
            payload = base64.b64decode(message["payload"], validate=True)
            if len(payload) > 1000:
                answer = {"error": "a message has at most 1000 bytes", "code": "MESSAGE_TOO_LARGE"}
                return httpx.Response(413, json=answer)
            number = message.get("partition_id", len(message.get("key", "")) % len(self.messages))
            self.publish(None, partition=number, key=message.get("key"))
            self.messages[number][-1]["payload"] = message["payload"]
            results.append({"partition_id": number, "offset": len(self.messages[number]) - 1})
        return {"success": True, "count": len(results), "results": results}

    async def _ack(self, body: Body) -> Body:
        if body["group_id"] not in self.groups:
            return {"success": True, "acknowledged_offset": -1}
        group = self.groups[body["group_id"]][body.get("partition_id", 0)]
        holder = body["consumer_id"]
        if body["upto_offset"] is not None:
            group.acknowledge(body["upto_offset"], holder)
        if body["release"]:
            for claim in group.claims:
                if claim.holder == holder:
                    claim.deadline = self._clock()
            self._written.set()
        return {"success": True, "acknowledged_offset": group.acked}

    async def _consume(self, body: Body) -> Body | httpx.Response:
        if body["topic_id"] != self.topic:
            return httpx.Response(404, json={"error": "there is no such topic", "code": "NOT_FOUND"})
        if body["group_id"] == "strangers":
            return httpx.Response(403, json={"error": "the role may not consume", "code": "FORBIDDEN"})
        groups = self.groups.setdefault(body["group_id"], [])
        if not groups:
            groups += [Group(self._first(number, body["start"])) for number in range(len(self.messages))]
        numbers = [body["partition_id"]] if "partition_id" in body else list(range(len(self.messages)))
        for number in numbers:
            if groups[number].position < self.first_offsets[number]:
                answer = {
                    "error": "the offset is gone",
                    "code": "OFFSET_OUT_OF_RANGE",
                    "partition_id": number,
                    "first_offset": self.first_offsets[number],
                    "next_offset": len(self.messages[number]),
                }
                return httpx.Response(410, json=answer)
        found = await self._found(groups, numbers, body)
        return {
            "messages": found,
            "next_offset": 0,
            "has_more": len(found) == body["limit"],
            "positions": [{"partition_id": number, "next_offset": groups[number].position} for number in numbers],
        }

    async def _found(self, groups: list[Group], numbers: list[int], body: Body) -> list[Body]:
        deadline = time.monotonic() + body["timeout_seconds"]
        while True:
            found = self._claimed(groups, numbers, body)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            self._written.clear()
            self.waiting += 1
            self.polled.set()
            self.polled_of_threads.set()
            try:
                await asyncio.wait_for(self._written.wait(), left)
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                if self.claims_for_those_gone:
                    self._claimed(groups, numbers, body)
                raise
            finally:
                self.waiting -= 1
                self.polled.clear()
                self.polled_of_threads.clear()

    def _claimed(self, groups: list[Group], numbers: list[int], body: Body) -> list[Body]:
        now = self._clock()
        deadline = now + body.get("visibility_timeout_seconds", self.visibility)
        holder, left = body["consumer_id"], body["limit"]
        found: list[Body] = []
        for number in numbers:
            group = groups[number]
            if body.get("ordered") and any(c.deadline > now and c.holder != holder for c in group.claims):
                continue
            for claim in sorted(group.claims, key=lambda claim: claim.first):
                if claim.deadline <= now and left:
                    last = min(claim.last, claim.first + left - 1)
                    if last < claim.last:
                        group.claims.append(Claim(last + 1, claim.last, claim.deadline, claim.deliveries, claim.holder))
                    claim.last, claim.deadline, claim.holder = last, deadline, holder
                    claim.deliveries += 1
                    found += self._delivered(number, claim)
                    left -= last + 1 - claim.first
            last = min(len(self.messages[number]) - 1, group.position + left - 1)
            if last >= group.position:
                claim = Claim(group.position, last, deadline, 1, holder)
                group.claims.append(claim)
                group.position = last + 1
                found += self._delivered(number, claim)
                left -= last + 1 - claim.first
        return found

    def _delivered(self, number: int, claim: Claim) -> list[Body]:
        log = self.messages[number]
        return [log[at] | {"delivery_count": claim.deliveries} for at in range(claim.first, claim.last + 1)]

    def _first(self, number: int, start: Any) -> int:
        if isinstance(start, dict):
            return int(start["Offset"])
        return {"Latest": len(self.messages[number]), "Earliest": self.first_offsets[number]}[start]
