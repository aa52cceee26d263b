"""Writers over HTTP that change everything that subscribers look at, in every way that SQL has."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tests.chaos.selects import GROUPS, HUGE, LARGEST, OWNERS, WORDS, TableShape

COLUMNS = ("grp", "n", "name", "owner", "ok", "big")
TYPES = "grp INT NOT NULL, n BIGINT, name TEXT, owner TEXT, ok BOOLEAN, big BIGINT"
SHARED, OWN, PAIRS, BARE = "live.shared", "live.own", "live.pairs", "live.bare"
BRIEF, LASTING = "live.brief", "live.lasting"
BRIEF_SECONDS = 3

SCHEMA = f"""
CREATE NAMESPACE live;
CREATE SHARED TABLE {SHARED} (id BIGINT PRIMARY KEY, {TYPES}) WITH (ACCESS_LEVEL = 'PUBLIC');
CREATE USER TABLE {OWN} (id BIGINT PRIMARY KEY, {TYPES});
CREATE SHARED TABLE {PAIRS} (a INT, b TEXT, {TYPES}, PRIMARY KEY (a, b)) WITH (ACCESS_LEVEL = 'PUBLIC');
CREATE SHARED TABLE {BARE} ({TYPES}) WITH (ACCESS_LEVEL = 'PUBLIC');
CREATE SHARED TABLE live.marks (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL = 'PUBLIC');
"""
STREAMS = f"""
CREATE STREAM TABLE {BRIEF} ({TYPES}) WITH (TTL_SECONDS = {BRIEF_SECONDS});
CREATE STREAM TABLE {LASTING} ({TYPES}) WITH (TTL_SECONDS = 86400)
"""
KEYED = (TableShape(SHARED, ("id", *COLUMNS), ("id",)), TableShape(OWN, ("id", *COLUMNS), ("id",)))
OTHERS = (TableShape(PAIRS, ("a", "b", *COLUMNS), ("a", "b")), TableShape(BARE, COLUMNS))
STREAMED = (TableShape(BRIEF, COLUMNS, expires=True), TableShape(LASTING, COLUMNS))

KEYS = 120
"""Different keys of a table: few, so that writers meet."""

ALLOWED = {"TRANSACTION_CONFLICT"}

Statement = tuple[str, list[Any]]


def _shifted(sql: str, by: int) -> str:
    """The statement with other numbers for its parameters."""
    return re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + by}", sql)


class Refused(AssertionError):
    """The server refused a statement that it should take."""


class Writer:
    """Random statements of one account; `run` is for a thread of its own."""

    def __init__(
        self,
        port: int,
        token: Callable[[], str],
        seed: str,
        tables: Sequence[TableShape],
        pause: float = 0.01,
    ) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.pause = pause
        """Most seconds between two statements."""
        self._port = port
        self._token = token
        self._tables = [table.name for table in tables]
        self._connection: http.client.HTTPConnection | None = None

    def run(self, stop: threading.Event) -> None:
        """Write until told to stop; a server that is away is waited for. Raises Refused."""
        try:
            while not stop.is_set():
                for sql, params in self.next_request():
                    self.send(sql, params)
                stop.wait(self.random.uniform(0.0, self.pause))
        finally:
            self._close()

    def send(self, sql: str, params: list[Any]) -> None:
        """Send one request; whether it took effect is nobody's business here."""
        body = json.dumps({"sql": sql, "params": params}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            self._connection.request("POST", "/v1/api/sql", body, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._close()
            self.counts["away"] += 1
            threading.Event().wait(0.05)
            return
        if answer.status == 200:
            self.counts["done"] += 1
            return
        code = json.loads(text)["error"]["code"]
        self.counts[code] += 1
        if code not in ALLOWED and answer.status != 503:
            raise Refused(f"{sql} {params}: {text[:1000]!r}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- what it writes ----------------------------------------------------------------------------------------

    def next_request(self) -> list[Statement]:
        """One request, or a few that belong together."""
        table = self.random.choice(self._tables)
        if table in {BRIEF, LASTING}:
            return [self._stream(table)]
        chosen = self.random.random()
        if chosen < 0.15:
            return [self._transaction()]
        if chosen < 0.155:
            return [self._flood(table)]
        return [self._one(table)]

    def _one(self, table: str) -> Statement:
        chosen = self.random.random()
        if table == BARE and chosen < 0.5:
            return self._plain_insert(table, self.random.choice([1, 1, 2, 9]))
        if chosen < 0.3:
            return self._upsert(table, 1)
        if chosen < 0.4:
            return self._upsert(table, self.random.randrange(2, 25))
        if chosen < 0.65:
            return self._update_one(table)
        if chosen < 0.78:
            return self._update_many(table)
        if chosen < 0.95:
            return self._delete_one(table)
        return self._delete_many(table)

    def _values(self) -> list[Any]:
        chance = self.random
        return [
            chance.randrange(GROUPS),
            chance.choice([None, chance.randrange(LARGEST), chance.randrange(LARGEST)]),
            chance.choice([None, *WORDS]),
            chance.choice([None, *OWNERS]),
            chance.choice([None, True, False]),
            chance.choice([None, HUGE - 1, HUGE, HUGE + 1, chance.randrange(100)]),
        ]

    def _key(self, table: str) -> list[Any]:
        number = self.random.randrange(KEYS)
        if table == PAIRS:
            return [number % 10, f"b{number // 10}"]
        return [number + (2**60 if number % 5 == 0 else 0)]

    @staticmethod
    def _key_columns(table: str) -> list[str]:
        return ["a", "b"] if table == PAIRS else ["id"]

    def _rows(self, table: str, count: int) -> tuple[list[str], str, list[Any]]:
        key = [] if table in {BARE, BRIEF, LASTING} else self._key_columns(table)
        rows: dict[tuple[Any, ...], list[Any]] = {}
        for number in range(count):
            identity = self._key(table) if key else []
            rows[tuple(identity) or (number,)] = identity + self._values()
        names = [*key, *COLUMNS]
        width = len(names)
        places = [f"({', '.join(f'${at * width + n}' for n in range(1, width + 1))})" for at in range(len(rows))]
        return names, ", ".join(places), [value for row in rows.values() for value in row]

    def _plain_insert(self, table: str, count: int) -> Statement:
        names, places, params = self._rows(table, count)
        return f"INSERT INTO {table} ({', '.join(names)}) VALUES {places}", params

    def _upsert(self, table: str, count: int) -> Statement:
        if table == BARE:
            return self._plain_insert(table, count)
        sql, params = self._plain_insert(table, count)
        sql += f" ON CONFLICT ({', '.join(self._key_columns(table))}) DO "
        if self.random.random() < 0.3:
            return sql + "NOTHING", params
        changed = self.random.sample(COLUMNS, self.random.randrange(1, 4))
        return sql + "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in changed), params

    def _where_key(self, table: str, first: int) -> tuple[str, list[Any]]:
        if table == BARE:
            return f"n = ${first} AND grp = ${first + 1}", [
                self.random.randrange(LARGEST),
                self.random.randrange(GROUPS),
            ]
        names = self._key_columns(table)
        return " AND ".join(f"{name} = ${first + at}" for at, name in enumerate(names)), self._key(table)

    def _update_one(self, table: str) -> Statement:
        drawn = dict(zip(COLUMNS, self._values(), strict=True))
        changed = self.random.sample(COLUMNS, self.random.randrange(1, 4))
        where, key = self._where_key(table, len(changed) + 1)
        sets = ", ".join(f"{name} = ${at}" for at, name in enumerate(changed, 1))
        return f"UPDATE {table} SET {sets} WHERE {where}", [*(drawn[name] for name in changed), *key]

    def _update_many(self, table: str) -> Statement:
        low = self.random.randrange(LARGEST)
        high, group = low + self.random.randrange(60), self.random.randrange(GROUPS)
        sets = self.random.choice(
            [f"grp = {group}", "ok = NOT ok", "n = n + 1, name = NULL", f"owner = 'bob', big = {HUGE}", "name = owner"]
        )
        return f"UPDATE {table} SET {sets} WHERE n BETWEEN $1 AND $2", [low, high]

    def _delete_one(self, table: str) -> Statement:
        where, key = self._where_key(table, 1)
        return f"DELETE FROM {table} WHERE {where}", key

    def _delete_many(self, table: str) -> Statement:
        low = self.random.randrange(LARGEST)
        if table == BARE and self.random.random() < 0.5:
            return f"DELETE FROM {table} WHERE grp = $1", [self.random.randrange(GROUPS)]
        return f"DELETE FROM {table} WHERE n BETWEEN $1 AND $2", [low, low + self.random.randrange(40)]

    def _transaction(self) -> Statement:
        """Several changes in one commit, of different tables, and often of one row twice."""
        tables = [name for name in self._tables if name not in {BRIEF, LASTING}]
        sql, params = ["BEGIN"], []
        for _ in range(self.random.randrange(2, 7)):
            statement, values = self._one(self.random.choice(tables))
            sql.append(_shifted(statement, len(params)))
            params += values
        return "; ".join([*sql, "COMMIT"]), params

    def _flood(self, table: str) -> Statement:
        """So many rows in one commit that they are several messages; others delete them again."""
        if table != BARE:
            sets = f"grp = (grp + 1) % {GROUPS}"
            return f"UPDATE {table} SET {sets} WHERE true", []
        values = f"range % {GROUPS}, range % {LARGEST}, 'flood', NULL, range % 2 = 0, range"
        count = self.random.choice([300, 1_500, 2_500])
        return f"INSERT INTO {BARE} ({', '.join(COLUMNS)}) SELECT {values} FROM range({count})", []

    def _stream(self, table: str) -> Statement:
        if table == LASTING and self.random.random() < 0.1:
            return f"DELETE FROM {table} WHERE grp = $1", [self.random.randrange(GROUPS)]
        return self._plain_insert(table, self.random.choice([1, 1, 1, 4, 30]))
