"""Eight clients that write, and a model that knows what a server may hold after they were cut off at any moment.

Each client sends one request at a time over a connection of its own, so what the server holds of a client is the
effect of its first k operations for some k: at least all that were acknowledged, at most all that were sent, and
never half of one. Clients own their rows in `items`; they share the accounts, between which they move money in
transactions over three tables (`checking`, `savings`, and `transfers`, which says what was moved). Now and then they
append to a STREAM table, whose rows expire and are evicted meanwhile: what is left of it is for the check command.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ACCOUNTS = 16
OPENING = 1_000
CLIENTS = 8
MOST_ITEMS = 60

SCHEMA = f"""
CREATE NAMESPACE app;
CREATE TABLE app.items (id BIGINT PRIMARY KEY, client INT NOT NULL, n BIGINT NOT NULL, note TEXT)
  WITH (TYPE = 'SHARED');
CREATE TABLE app.checking (id INT PRIMARY KEY, balance BIGINT NOT NULL) WITH (TYPE = 'SHARED');
CREATE TABLE app.savings (id INT PRIMARY KEY, balance BIGINT NOT NULL) WITH (TYPE = 'SHARED');
CREATE TABLE app.transfers (id BIGINT PRIMARY KEY, client INT NOT NULL, giver INT NOT NULL, taker INT NOT NULL,
  amount BIGINT NOT NULL) WITH (TYPE = 'SHARED');
CREATE STREAM TABLE app.pulse (client INT, n BIGINT) WITH (TTL_SECONDS = 1);
INSERT INTO app.checking VALUES {", ".join(f"({i}, {OPENING})" for i in range(ACCOUNTS))};
INSERT INTO app.savings VALUES {", ".join(f"({i}, {OPENING})" for i in range(ACCOUNTS))}
"""
TABLES = {
    "items": ("id", "client", "n", "note"),
    "checking": ("id", "balance"),
    "savings": ("id", "balance"),
    "transfers": ("id", "client", "giver", "taker", "amount"),
}
TRANSFER = """
BEGIN;
UPDATE app.checking SET balance = balance - $1 WHERE id = $2;
INSERT INTO app.transfers (id, client, giver, taker, amount) VALUES ($3, $4, $5, $6, $7);
UPDATE app.savings SET balance = balance + $8 WHERE id = $9;
COMMIT
"""

Row = tuple[Any, ...]
Rows = dict[int, Row]
Contents = Mapping[str, Mapping[int, tuple[int, Row]]]
"""By table and id: the row's `_seq` and its values without the id."""


class Broken(Exception):
    """What the server holds is not what it may hold."""


class Operation(NamedTuple):
    """A request, and what it does to the client's items (None: deletes) or moves."""

    sql: str
    params: list[Any]
    items: dict[int, Row | None]
    transfers: Rows


class Client:
    """One writer and what it knows."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.random = random.Random(seed * 1_000 + number)
        self.lock = threading.Lock()
        self.items: Rows = {}
        self.transfers: Rows = {}
        self.pending: list[Operation] = []
        """Sent since the items and transfers above; all but the last of them are settled."""
        self.settled = 0
        self.refused = 0
        self.acknowledged = 0
        self._ahead: Rows = {}
        self._next = 1

    # --- what it does --------------------------------------------------------------------------------------------

    def next_operation(self) -> Operation:
        """Some change to what it will have when everything pending is done."""
        live = self._ahead
        if self.random.random() < 0.1:
            return Operation("INSERT INTO app.pulse VALUES ($1, $2)", [self.number, len(live)], {}, {})
        chosen = self.random.random()
        if chosen < 0.3:
            return self._transfer()
        if len(live) < 5 or (chosen < 0.65 and len(live) < MOST_ITEMS):
            return self._insert(1 if self.random.random() < 0.6 else self.random.randrange(2, 7))
        keys = sorted(live)
        key = self.random.choice(keys)
        if chosen < 0.85:
            n = self.random.randrange(10**6)
            after: dict[int, Row | None] = {key: (self.number, n, live[key][2])}
            return Operation("UPDATE app.items SET n = $1 WHERE id = $2", [n, key], after, {})
        if chosen < 0.9:
            some = keys[: self.random.randrange(2, 9)]
            after = {k: (self.number, live[k][1] + 1, live[k][2]) for k in some}
            sql = "UPDATE app.items SET n = n + 1 WHERE client = $1 AND id <= $2"
            return Operation(sql, [self.number, some[-1]], after, {})
        if chosen < 0.97:
            return Operation("DELETE FROM app.items WHERE id = $1", [key], {key: None}, {})
        some = keys[: self.random.randrange(2, 9)]
        sql = "DELETE FROM app.items WHERE client = $1 AND id <= $2"
        return Operation(sql, [self.number, some[-1]], dict.fromkeys(some), {})

    def _new_id(self) -> int:
        self._next += 1
        return self.number * 10**9 + self._next

    def _insert(self, count: int) -> Operation:
        rows: dict[int, Row | None] = {}
        params: list[Any] = []
        for _ in range(count):
            key, n = self._new_id(), self.random.randrange(10**6)
            note = self.random.choice((None, "", "x" * self.random.randrange(300), f"note {n}"))
            rows[key] = (self.number, n, note)
            params += [key, self.number, n, note]
        groups = ", ".join(f"(${i}, ${i + 1}, ${i + 2}, ${i + 3})" for i in range(1, 4 * count, 4))
        return Operation(f"INSERT INTO app.items (id, client, n, note) VALUES {groups}", params, rows, {})

    def _transfer(self) -> Operation:
        key, amount = self._new_id(), self.random.randrange(1, 50)
        giver, taker = self.random.randrange(ACCOUNTS), self.random.randrange(ACCOUNTS)
        params = [amount, giver, key, self.number, giver, taker, amount, amount, taker]
        return Operation(TRANSFER, params, {}, {key: (self.number, giver, taker, amount)})

    def write(self, url: str, token: str, gate: Gate) -> None:
        """Send operations until the server is gone or the gate is shut for good. Runs on a thread."""
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            while gate.enter():
                operation = self.next_operation()
                with self.lock:
                    self.pending.append(operation)
                    self._note(operation)
                body = json.dumps({"sql": operation.sql, "params": operation.params})
                connection.request("POST", "/v1/api/sql", body, headers)
                response = connection.getresponse()
                answer = response.read()
                self._settle(operation, response.status, answer)
                gate.count()
        except (OSError, http.client.HTTPException):
            pass  # the server was killed; what was sent last is uncertain
        except Exception as error:
            gate.fail(error)
            raise
        finally:
            connection.close()
            gate.left()

    def _settle(self, operation: Operation, status: int, answer: bytes) -> None:
        with self.lock:
            self.settled += 1
            if status == 200:
                self.acknowledged += 1
                return
            if json.loads(answer)["error"]["code"] != "TRANSACTION_CONFLICT":
                raise Broken(f"client {self.number}: {status} {answer!r} to {operation}")
            self.refused += 1
            self.pending[-1] = Operation("", [], {}, {})  # it must have left nothing

    def _note(self, operation: Operation) -> None:
        _apply(self._ahead, operation.items)

    # --- what it may find ----------------------------------------------------------------------------------------

    def bounds(self) -> tuple[int, int]:
        """How many of the pending operations are settled, and how many were sent."""
        with self.lock:
            return self.settled, len(self.pending)

    def match(self, items: Rows, transfers: Rows, low: int, high: int) -> int:
        """The k from `low` to `high` whose first k operations left exactly these rows. Raises Broken."""
        with self.lock:
            pending = self.pending[:high]
        have, moved = dict(self.items), dict(self.transfers)
        for operation in pending[:low]:
            _apply(have, operation.items)
            moved |= operation.transfers
        acknowledged = dict(have), dict(moved)
        for k in range(low, high + 1):
            if have == items and moved == transfers:
                return k
            if k < high:
                _apply(have, pending[k].items)
                moved |= pending[k].transfers
        sentence = f"client {self.number}: acknowledged, but not as found: "
        sentence += _difference(acknowledged[0], items) + "; transfers " + _difference(acknowledged[1], transfers)
        raise Broken(f"{sentence}; uncertain: {[o[2:] for o in pending[low:]]}")

    def accept(self, k: int, *, cut_off: bool) -> None:
        """The first k pending operations took effect. `cut_off`: no other ever will."""
        with self.lock:
            for operation in self.pending[:k]:
                _apply(self.items, operation.items)
                self.transfers |= operation.transfers
            self.pending = [] if cut_off else self.pending[k:]
            self.settled = 0 if cut_off else self.settled - k
            if cut_off:
                self._ahead = dict(self.items)


class Gate:
    """Lets the clients through, counts what they had acknowledged, and stops them."""

    def __init__(self, clients: int) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._over = False
        self._inside = clients
        self._failure: Exception | None = None
        self.counted = 0

    def enter(self) -> bool:
        """Wait until the gate is open; False when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._over)
            return not self._over

    def count(self) -> None:
        """One more answer."""
        with self._changed:
            self.counted += 1
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """A client met what should not be."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def left(self) -> None:
        """A client has ended."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until that many answers have come in all."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.counted >= count or not self._inside or self._failure, 120)
            self.raise_failure()
            assert done, f"only {self.counted} of {count} answers in two minutes"

    def raise_failure(self) -> None:
        """Raise what a client met."""
        if self._failure is not None:
            raise self._failure

    def shut(self) -> None:
        """Let nobody through for now."""
        with self._changed:
            self._open = False

    def reopen(self) -> None:
        """Let them through again."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody through any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Writers:
    """The clients at work on a server."""

    def __init__(self, clients: Sequence[Client], url: str, token: str) -> None:
        self.gate = Gate(len(clients))
        self._threads = [threading.Thread(target=client.write, args=(url, token, self.gate)) for client in clients]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all have ended; raises what one of them met."""
        self.gate.end()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a client got no answer"
        self.gate.raise_failure()


class Book:
    """What was found so far: proves that `_seq` goes up and is never used twice."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, Row]] = {}
        self._highest = 0

    def verify(self, contents: Contents, *, remember: bool = True) -> None:
        """A row whose `_seq` is not new must be the very row that had it before; no two rows have one."""
        found = {(table, key): version for table, rows in contents.items() for key, version in rows.items()}
        owners: dict[int, tuple[str, int]] = {}
        for place, (seq, row) in found.items():
            if seq in owners:
                raise Broken(f"_seq {seq} is both {place} and {owners[seq]}")
            owners[seq] = place
            if seq <= self._highest and self._known.get(place) != (seq, row):
                raise Broken(f"{place} has _seq {seq}, which was given before (to {self._known.get(place)} then)")
        if remember:
            self._known = found
            self._highest = max([self._highest, *owners])


def verify(clients: Sequence[Client], contents: Contents, bounds: Sequence[tuple[int, int]]) -> list[int]:
    """Prove that the contents are what may be found; how many pending operations of each client took effect."""
    accepted = []
    for client, (low, high) in zip(clients, bounds, strict=True):
        mine = [
            {key: row for key, (_, row) in contents[table].items() if row[0] == client.number}
            for table in ("items", "transfers")
        ]
        accepted.append(client.match(mine[0], mine[1], low, high))
        seqs = [seq for key, (seq, row) in sorted(contents["transfers"].items()) if row[0] == client.number]
        if any(later <= earlier for earlier, later in itertools.pairwise(seqs)):
            raise Broken(f"the transfers of client {client.number} do not have ascending _seq")
    checking = dict.fromkeys(range(ACCOUNTS), OPENING)
    savings = dict.fromkeys(range(ACCOUNTS), OPENING)
    for _, (_, giver, taker, amount) in contents["transfers"].values():
        checking[giver] -= amount
        savings[taker] += amount
    for table, expected in (("checking", checking), ("savings", savings)):
        found = {key: row[0] for key, (_, row) in contents[table].items()}
        if found != expected:
            raise Broken(f"{table} does not agree with the transfers: {_difference(expected, found)}")
    total = sum(row[0] for table in ("checking", "savings") for _, row in contents[table].values())
    if total != 2 * ACCOUNTS * OPENING:
        raise Broken(f"the sum of all accounts is {total}")
    return accepted


def _apply(rows: Rows, changes: Mapping[int, Row | None]) -> None:
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def _difference(expected: Mapping[int, Any], found: Mapping[int, Any]) -> str:
    lost = {key: (row, found.get(key)) for key, row in expected.items() if found.get(key) != row}
    surplus = {key: row for key, row in found.items() if key not in expected}
    return f"expected and found {str(lost)[:400]}, surplus {str(surplus)[:400]}"
