"""Producers of a topic: row versions of its source by SQL, and messages by `/produce`; they write into a history."""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
from collections import Counter
from typing import Any, NamedTuple

from tests.chaos.rowset import Violation
from tests.chaos.topic_history import History, Place, Sent

TOPIC, TABLE = "chaos.events", "chaos.items"
KEYS = 40
"""Different keys of each kind: few, so that order has a meaning."""

PATIENCE = 90.0
"""Seconds for which an answer may take, however busy the machine is."""


class Answer(NamedTuple):
    """What came back; status 0: nothing."""

    status: int
    body: Any


class Connection:
    """One HTTP connection that is never opened again without being asked to."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        self._http: http.client.HTTPConnection | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection of the last answer is still there."""
        return self._http is not None

    def send(self, path: str, body: Any, *, leave: bool = False) -> Answer:
        """Send a request; with `leave` nobody waits for its answer. Any failure closes the connection."""
        try:
            if self._http is None:
                self._http = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
                self._http.connect()
                self._http.auto_open = 0
            self._http.request("POST", path, json.dumps(body).encode(), self._headers)
            if leave:
                self.close()
                return Answer(0, None)
            answer = self._http.getresponse()
            content = answer.read()
            if answer.will_close:
                self.close()
            return Answer(answer.status, json.loads(content))
        except TimeoutError:
            self.close()
            raise Violation(f"no answer in {PATIENCE} seconds: {path} {str(body)[:300]}") from None
        except (OSError, http.client.HTTPException):
            self.close()
            return Answer(0, None)

    def close(self) -> None:
        """Close it without a word."""
        if self._http is not None:
            self._http.close()
            self._http = None


class Producer:
    """Sends random messages; `run` is for a thread of its own."""

    def __init__(self, name: str, port: int, token: str, history: History, seed: str, pause: float) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self._connection = Connection(port, token)
        self._history = history
        self._random = random.Random(seed)
        self._pause = pause
        self._number = 0
        self._requests = 0

    def run(self, stop: threading.Event) -> None:
        """Produce until told to stop. Raises Violation when the server refuses what it should take."""
        while not stop.is_set():
            chosen = self._random.random()
            if chosen < 0.4:
                self._produce()
            elif chosen < 0.85:
                self._write(self._random.choice(["one", "one", "many", "transaction", "update"]))
            else:
                self._fail()
            stop.wait(self._random.uniform(0, self._pause))
        self._connection.close()

    def _next(self) -> tuple[int, str]:
        self._number += 1
        return self._number, f"{self.name}/{self._number}"

    def _request(self) -> str:
        self._requests += 1
        return f"{self.name}#{self._requests}"

    def _settle(self, messages: list[Sent], answer: Answer, places: list[Place] | None = None) -> None:
        """Write down what is known of a request."""
        if answer.status == 200:
            self.counts["done"] += 1
            found: list[Place | None] = [*places] if places else [None] * len(messages)
            self._history.send(
                [each._replace(certain=True, place=place) for each, place in zip(messages, found, strict=True)]
            )
            return
        if answer.status in {0, 503}:  # it may have taken effect
            self.counts["uncertain"] += 1
            self._history.send(messages)
            threading.Event().wait(0.1)
            return
        code = answer.body.get("code") or answer.body["error"]["code"]
        if code != "TRANSACTION_CONFLICT":
            raise Violation(f"{self.name}: {answer}")
        self.counts["refused"] += 1

    def _produce(self) -> None:
        messages, sent, request = [], [], self._request()
        for _ in range(self._random.choice([1, 1, 1, 4, 20])):
            number, identity = self._next()
            key = f"k{self._random.randrange(KEYS)}"
            payload = base64.b64encode(identity.encode()).decode() if number % 2 else {"v": identity}
            messages.append({"key": key, "payload": payload})
            sent.append(Sent(request, self.name, number, key, identity, certain=False))
        answer = self._connection.send("/v1/api/topics/produce", {"topic_id": TOPIC, "messages": messages})
        places = None
        if answer.status == 200:
            places = [(each["partition_id"], each["offset"]) for each in answer.body["results"]]
        self._settle(sent, answer, places)

    def _write(self, kind: str) -> None:
        count = {"one": 1, "update": 1, "many": self._random.randrange(2, 8), "transaction": 3}[kind]
        ids = self._random.sample(range(KEYS), count)
        request, params, sent = self._request(), [], []
        for each in ids:
            number, identity = self._next()
            params += [each, identity]
            sent.append(Sent(request, self.name, number, str(each), identity, certain=False))
        upsert = f"INSERT INTO {TABLE} (id, v) VALUES {{}} ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        places = [f"(${at}, ${at + 1})" for at in range(1, 2 * count, 2)]
        sql = upsert.format(", ".join(places))
        if kind == "transaction":
            sql = "; ".join(["BEGIN", *(upsert.format(place) for place in places), "COMMIT"])
        elif kind == "update":
            sql = f"UPDATE {TABLE} SET v = $2 WHERE id = $1"
        answer = self._connection.send("/v1/api/sql", {"sql": sql, "params": params})
        if kind == "update" and answer.status == 200 and answer.body["results"][0]["row_count"] == 0:
            return
        self._settle(sent, answer)

    def _fail(self) -> None:
        """What must leave nothing: its identities are in no history, so a message of them is an invented one."""
        _, identity = self._next()
        one, other = self._random.sample(range(KEYS), 2)
        upsert = f"INSERT INTO {TABLE} (id, v) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        path, body = "/v1/api/sql", {"sql": f"BEGIN; {upsert}; ROLLBACK", "params": [one, f"rolled back {identity}"]}
        chosen = self._random.randrange(3)
        if chosen == 1:
            twice = f"INSERT INTO {TABLE} (id, v) VALUES ($1, $2), ($3, $2), ($3, $2)"
            body = {"sql": twice, "params": [one + 1000, f"failed {identity}", other + 1000]}
        elif chosen == 2:
            messages = [{"key": f"k{one}", "payload": {"v": f"failed {identity}"}}, {"payload": "no base64!"}]
            path, body = "/v1/api/topics/produce", {"topic_id": TOPIC, "messages": messages}
        answer = self._connection.send(path, body)
        if answer.status not in ({0, 503, 200} if chosen == 0 else {0, 503, 400}):
            raise Violation(f"{self.name}: {body} was answered {answer}")
        self.counts["in vain"] += 1
