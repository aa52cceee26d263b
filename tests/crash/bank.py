"""A bank in SQL over HTTP: what its clients do, what every read must show, and what a server may hold after a cut.

Money moves between accounts of a region, and with each transfer between the slots of its client's own wallet, in one
transaction over a SHARED table, a log of transfers, and a USER table. So what every account and slot has follows from
the transfers that are there, exactly: one that is there twice, by half or not at all is seen.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

REGIONS = 4
PER_REGION = 50
ACCOUNTS = REGIONS * PER_REGION
OPENING = 1_000
CLIENTS = 3
SLOTS = 12
COINS = 100
PASSWORD = "Secret123!x"
TOPIC = "bank.moves"
PARTITIONS = 2

SCHEMA = f"""
CREATE NAMESPACE bank;
CREATE TABLE bank.accounts (id INT PRIMARY KEY, iban TEXT NOT NULL, region INT NOT NULL, balance BIGINT NOT NULL)
  WITH (TYPE = 'SHARED', FLUSH_POLICY = 'rows:150');
CREATE UNIQUE INDEX accounts_iban ON bank.accounts (iban);
CREATE INDEX accounts_region ON bank.accounts (region);
CREATE TABLE bank.transfers (id BIGINT PRIMARY KEY, client INT NOT NULL, giver INT NOT NULL, taker INT NOT NULL,
  amount BIGINT NOT NULL) WITH (TYPE = 'SHARED', FLUSH_POLICY = 'interval:1');
CREATE USER TABLE bank.wallets (slot INT PRIMARY KEY, tag TEXT NOT NULL, coins BIGINT NOT NULL);
CREATE UNIQUE INDEX wallets_tag ON bank.wallets (tag);
CREATE VIEW bank.totals AS SELECT count(*) AS accounts, sum(balance) AS total FROM bank.accounts;
CREATE TOPIC {TOPIC} PARTITIONS {PARTITIONS};
ALTER TOPIC {TOPIC} ADD SOURCE bank.transfers ON INSERT WITH (payload = 'full');
INSERT INTO bank.accounts SELECT i, 'IBAN-' || i, i % {REGIONS}, {OPENING} FROM range({ACCOUNTS}) r(i);
"""
OPEN_WALLET = f"INSERT INTO bank.wallets SELECT i, 'tag-' || i, {COINS} FROM range({SLOTS}) r(i)"
TRANSFER = """
BEGIN;
UPDATE bank.accounts SET balance = balance - $1 WHERE id = $2;
INSERT INTO bank.transfers (id, client, giver, taker, amount) VALUES ($3, $4, $5, $6, $7);
UPDATE bank.accounts SET balance = balance + $8 WHERE iban = $9;
UPDATE bank.wallets SET coins = coins - $10 WHERE slot = $11;
UPDATE bank.wallets SET coins = coins + $12 WHERE tag = $13;
COMMIT
"""
BOUNCE = """
BEGIN;
UPDATE bank.accounts SET balance = balance - $1 WHERE id = $2;
INSERT INTO bank.accounts (id, iban, region, balance) VALUES ($3, $4, 0, 0);
COMMIT
"""
"""Takes an IBAN that is held by another account, mostly a cold row: the whole must fail."""

_LEDGER = f"""
SELECT count(*) FROM bank.accounts a WHERE balance <> {OPENING}
  - coalesce((SELECT sum(amount) FROM bank.transfers t WHERE t.giver = a.id), 0)
  + coalesce((SELECT sum(amount) FROM bank.transfers t WHERE t.taker = a.id), 0)
"""
# Reads that must always give the same, whatever goes on.
CONSTANT: list[tuple[str, list[Any]]] = [
    ("SELECT count(*), sum(balance) FROM bank.accounts", [ACCOUNTS, ACCOUNTS * OPENING]),
    ("SELECT accounts, total FROM bank.totals", [ACCOUNTS, ACCOUNTS * OPENING]),
    ("SELECT count(*), sum(balance) FROM bank.accounts WHERE region = 1", [PER_REGION, PER_REGION * OPENING]),
    ("SELECT count(DISTINCT iban) FROM bank.accounts", [ACCOUNTS]),
    (_LEDGER, [0]),
]
WALLET = "SELECT count(*), sum(coins) FROM bank.wallets"


class Broken(Exception):
    """Something is not as it must be."""


class Cut(Exception):
    """The server is gone."""


class Transfer(NamedTuple):
    """What was moved, without its id."""

    client: int
    giver: int
    taker: int
    amount: int


class Connection:
    """One connection to the server, for one thread."""

    def __init__(self, url: str, token: str) -> None:
        address = urlsplit(url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer of a request. Raises Cut when there was none."""
        try:
            self._http.request("POST", f"/v1/api/{path}", json.dumps(body), self._headers)
            response = self._http.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Cut from error
        return response.status, json.loads(data)

    def results(self, sql: str, params: list[Any] | None = None) -> list[dict[str, Any]]:
        """The results of statements that must succeed. Raises Broken, Cut."""
        status, answer = self.post("sql", {"sql": sql, "params": params})
        if status != 200:
            raise Broken(f"{status} to {sql} {params}: {answer}")
        return list(answer["results"])

    def rows(self, sql: str, params: list[Any] | None = None) -> list[list[Any]]:
        """The rows of a query that must succeed."""
        return list(self.results(sql, params)[-1].get("rows", []))

    def expect(self, sql: str, wanted: list[Any]) -> None:
        """A query of one row that is known."""
        found = self.rows(sql)
        if found != [wanted]:
            raise Broken(f"{found} instead of {wanted} from {sql}")

    def close(self) -> None:
        """Close it."""
        self._http.close()


class Client:
    """Makes transfers, one request at a time, and knows which of them were acknowledged."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.name = f"teller{number}"
        self.token = ""
        self.sent: dict[int, Transfer] = {}
        """Those whose answer is not known."""
        self.done: dict[int, Transfer] = {}
        """Those that are there."""
        self.refused = 0
        self.lock = threading.Lock()
        self._dice = random.Random(seed * 100 + number)
        self._next = 1

    def turn(self, connection: Connection) -> None:
        """One request. Raises Broken, Cut."""
        chosen = self._dice.random()
        if chosen < 0.1:
            connection.expect(WALLET, [SLOTS, SLOTS * COINS])
        elif chosen < 0.2:
            self._bounce(connection)
        else:
            self._transfer(connection)

    def _transfer(self, connection: Connection) -> None:
        giver = self._dice.randrange(ACCOUNTS)
        taker = self._dice.randrange(PER_REGION) * REGIONS + giver % REGIONS
        amount = self._dice.randrange(1, 20)
        number = self.number * 10**9 + self._next
        self._next += 1
        with self.lock:
            self.sent[number] = Transfer(self.number, giver, taker, amount)
        params = [
            amount, giver, number, self.number, giver, taker, amount, amount, f"IBAN-{taker}",
            amount, giver % SLOTS, amount, f"tag-{taker % SLOTS}",
        ]  # fmt: skip
        status, answer = connection.post("sql", {"sql": TRANSFER, "params": params})
        with self.lock:
            moved = self.sent.pop(number)
            if status == 200:
                self.done[number] = moved
                return
        if answer["error"]["code"] != "TRANSACTION_CONFLICT":
            raise Broken(f"{self.name}: {status} {answer} to transfer {number}")
        self.refused += 1

    def _bounce(self, connection: Connection) -> None:
        held = self._dice.randrange(ACCOUNTS)
        params = [5, self._dice.randrange(ACCOUNTS), ACCOUNTS + self.number, f"IBAN-{held}"]
        status, answer = connection.post("sql", {"sql": BOUNCE, "params": params})
        error = {} if status == 200 else answer["error"]
        if error.get("code") != "TRANSACTION_CONFLICT" and "'accounts_iban' violation" not in error.get("message", ""):
            raise Broken(f"{self.name}: {status} {answer} to an account that takes IBAN-{held}")

    def settle(self, found: Collection[int]) -> None:
        """The server was cut off: what it holds of the uncertain ones is what is there for good."""
        with self.lock:
            self.done |= {number: moved for number, moved in self.sent.items() if number in found}
            self.sent.clear()


class Contents(NamedTuple):
    """What a server holds, read by one transaction a table."""

    transfers: dict[int, Transfer]
    balances: dict[int, int]
    wallets: dict[int, dict[int, int]]


def read(teller: Mapping[int, Connection], auditor: Connection) -> Contents:
    """Everything, over HTTP."""
    transfers: dict[int, Transfer] = {}
    last = -1
    while True:
        sql = "SELECT id, client, giver, taker, amount FROM bank.transfers WHERE id > $1 ORDER BY id LIMIT 50000"
        rows = auditor.rows(sql, [last])
        for number, *values in rows:
            if number in transfers:
                raise Broken(f"transfer {number} is there twice")
            transfers[number] = Transfer(*values)
        if len(rows) < 50_000:
            break
        last = rows[-1][0]
    balances = dict(auditor.rows("SELECT id, balance FROM bank.accounts"))
    wallets = {number: dict(one.rows("SELECT slot, coins FROM bank.wallets")) for number, one in teller.items()}
    return Contents(transfers, balances, wallets)


def verify(contents: Contents, there: Mapping[int, Transfer], maybe: Mapping[int, Transfer]) -> None:
    """Hold contents against what must be there and what may be. Raises Broken."""
    found = contents.transfers
    missing = sorted(number for number in there if number not in found)
    if missing:
        raise Broken(f"{len(missing)} acknowledged transfers are gone: {missing[:10]}")
    known = {**there, **maybe}
    strange = sorted(number for number, moved in found.items() if known.get(number) != moved)
    if strange:
        raise Broken(f"{len(strange)} transfers that nobody sent so: {strange[:10]}")
    balances = Counter(dict.fromkeys(range(ACCOUNTS), OPENING))
    wallets = {number: Counter(dict.fromkeys(range(SLOTS), COINS)) for number in range(CLIENTS)}
    for moved in found.values():
        balances[moved.giver] -= moved.amount
        balances[moved.taker] += moved.amount
        wallet = wallets[moved.client]
        wallet[moved.giver % SLOTS] -= moved.amount
        wallet[moved.taker % SLOTS] += moved.amount
    if contents.balances != dict(balances):
        raise Broken(f"balances do not follow from the transfers: {_difference(balances, contents.balances)}")
    for number, wallet in wallets.items():
        if contents.wallets[number] != dict(wallet):
            raise Broken(f"wallet {number} does not follow: {_difference(wallet, contents.wallets[number])}")


def _difference(wanted: Mapping[int, int], found: Mapping[int, int]) -> str:
    keys = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    return ", ".join(f"{key}: {found.get(key)} instead of {wanted.get(key)}" for key in keys[:10])
