"""A client that follows all accounts as a live query, through cuts: what it shows must add up after every commit."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.crash.bank import ACCOUNTS, OPENING, Broken


class Follower:
    """Server-sent events; it comes back with its cursor."""

    def __init__(self) -> None:
        self.balances: dict[int, int] = {}
        self.lock = threading.Lock()
        self.changes = 0
        self.resumed = 0
        self._cursor = ""
        self._ready = False

    def run(self, url: str, token: str) -> None:
        """Follow until the server is gone. Raises Broken."""
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        query = {"sql": "SELECT id, balance FROM bank.accounts"} | ({"from": self._cursor} if self._cursor else {})
        try:
            path = f"/v1/api/live?{urlencode(query)}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            if response.status != 200:
                raise Broken(f"{response.status} to the live query: {response.read()!r}")
            self._ready = False
            event: dict[str, str] = {}
            while line := response.readline():
                name, colon, value = line.decode().rstrip("\r\n").partition(": ")
                if colon and name:
                    event[name] = value
                elif "data" in event:
                    self._take(event)
                    event = {}
        except (OSError, http.client.HTTPException):
            return  # the server is gone; the cursor tells where to go on
        finally:
            connection.close()

    def matches(self, balances: dict[int, int]) -> bool:
        """Whether it shows just these."""
        with self.lock:
            return self._ready and self.balances == balances

    def _take(self, event: dict[str, str]) -> None:
        name, data = event.get("event", ""), json.loads(event["data"])
        if name == "error":
            if data["code"] != "RESUME_TOO_OLD":
                raise Broken(f"the live query ended: {data}")
            return
        with self.lock:
            if name == "ack":
                self.resumed += bool(data["resumed"])
                self._ready = data["batch_control"]["status"] == "ready" and not data["total_rows"]
                if not data["resumed"]:
                    self.balances.clear()
                return
            self._apply(name, data)
            if "id" in event:
                self._cursor = event["id"]
            total = sum(self.balances.values())
            if self._ready and (len(self.balances) != ACCOUNTS or total != ACCOUNTS * OPENING):
                raise Broken(f"the live query shows {len(self.balances)} accounts with {total} after {data}")

    def _apply(self, name: str, data: dict[str, Any]) -> None:
        for row in data.get("rows", ()):
            self.balances[int(row["id"])] = int(row["balance"])
        if name == "rows":
            self._ready = data["batch_control"]["status"] == "ready"
        elif name == "change":
            self.changes += 1
            if data["change_type"] != "update" or not self._ready:
                raise Broken(f"a {data['change_type']} of an account: {data}")
