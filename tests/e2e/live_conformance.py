"""A strict client of the live protocol, made from the reference alone: each message is checked as it comes."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec.msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.e2e.running import RunningServer

PATIENCE = 20.0
"""Seconds that a message may take; a message that comes costs no more than it takes."""

PASSWORD = "GoodPass99"
MARKS = "CREATE NAMESPACE marks; CREATE SHARED TABLE marks.marks (id BIGINT DEFAULT SNOWFLAKE_ID() PRIMARY KEY)"
"""What `Socket.barrier` needs."""

Message = dict[str, Any]
Row = dict[str, Any]

FIELDS = {
    "auth_success": {"user", "user_id", "role", "protocol"},
    "auth_error": {"message"},
    "subscription_ack": {"subscription_id", "total_rows", "batch_control", "schema", "resumed"},
    "initial_data_batch": {"subscription_id", "rows", "batch_control"},
    "error": {"subscription_id", "code", "message"},
    "unsubscribed": {"subscription_id"},
}
CHANGES = {
    "insert": {"subscription_id", "change_type", "seq", "rows"},
    "update": {"subscription_id", "change_type", "seq", "rows", "old_values"},
    "delete": {"subscription_id", "change_type", "seq", "old_values"},
}


def number(value: object) -> int:
    """A `_seq` of a row or a change: a BIGINT, so a number or digits."""
    assert isinstance(value, int) or (isinstance(value, str) and value.isdigit()), value
    return int(value)


def check(message: Message) -> None:
    """Every field of a message: none is missing, none is there that nobody documents."""
    kind = message["type"]
    fields = set(message) - {"type"}
    if kind == "change":
        assert fields == CHANGES[message["change_type"]], message
        told = [message[part] for part in ("rows", "old_values") if part in message]
        assert len({len(rows) for rows in told}) == 1, message
        assert told[0], message
        assert all(number(row["_seq"]) for rows in told for row in rows)
    elif kind == "pong":
        assert {"id"} <= fields <= {"id", "seq"}, message
    else:
        assert fields == FIELDS[kind], message
    if kind == "auth_success":
        assert message["user"] == message["user_id"]
        assert message["role"] in {"user", "service", "dba", "system"}
        assert set(message["protocol"]) == {"serialization", "compression"}
    if "batch_control" in message:
        control = message["batch_control"]
        assert set(control) - {"fresh"} == {"batch_num", "has_more", "status", "last_seq_id"}, control
        assert control.get("fresh", True) is True
        assert control["status"] in {"loading", "loading_batch", "ready"}
        assert control["has_more"] is (control["status"] != "ready")
        assert control["last_seq_id"] is None or type(control["last_seq_id"]) is int
        assert type(control["batch_num"]) is int
    if kind == "error":
        assert message["code"] == message["code"].upper()
        assert message["message"]
        assert "Traceback" not in message["message"]
    for index, column in enumerate(message.get("schema", [])):
        assert set(column) - {"flags"} == {"name", "data_type", "index"}
        assert column["index"] == index


class Socket:
    """One connection, opened and signed in to when it is made; use it with `with`."""

    def __init__(
        self,
        server: RunningServer,
        token: str | None = None,
        *,
        query: str = "",
        sign_in: bool = True,
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
        protocol: dict[str, str] | None = None,
    ) -> None:
        self.server = server
        opening = connect(
            server.url.replace("http", "ws", 1) + "/v1/ws" + query,
            additional_headers=headers,
            subprotocols=[Subprotocol(name) for name in subprotocols or []] or None,
            compression=None,
            ping_interval=None,
            max_size=None,
            max_queue=None,
            proxy=None,
        )
        self.wire: ClientConnection = opening.__enter__()
        self.binary = False
        self.frames: list[tuple[bool, int]] = []
        self._waiting: dict[str | None, deque[Message]] = defaultdict(deque)
        self._seqs: dict[str, int] = {}
        self._open: set[str] = set()
        self._names = count(1)
        if sign_in:
            more = {"protocol": protocol} if protocol else {}
            self.send("authenticate", method="jwt", token=token or server.token, **more)
            assert self.next()["type"] == "auth_success"

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message as JSON text."""
        if kind == "unsubscribe":
            self._open.discard(fields["subscription_id"])
        self.wire.send(json.dumps({"type": kind, **fields}))

    def receive(self) -> Message:
        """The next message, whatever it is about."""
        frame = self.wire.recv(timeout=PATIENCE)
        zipped = isinstance(frame, bytes) and frame[:2] == b"\x1f\x8b"
        data = gzip.decompress(frame) if isinstance(frame, bytes) and zipped else frame
        self.frames.append((zipped, len(data)))
        assert not zipped or (len(data) >= 512 and len(frame) < len(data)), "compressed for nothing"
        if isinstance(frame, str) or (zipped and not self.binary):
            message: Message = json.loads(data)
        else:
            assert self.binary, "a binary frame in JSON mode"
            message = msgspec.msgpack.decode(data)
        check(message)
        if message["type"] == "change":
            name, seq = message["subscription_id"], number(message["seq"])
            assert self._seqs.get(name, -1) < seq, f"{message} came after {self._seqs}"
            self._seqs[name] = seq
        elif message["type"] == "subscription_ack":
            self._seqs.pop(message["subscription_id"], None)
            self._open.add(message["subscription_id"])
        elif message["type"] == "error":
            self._open.discard(message["subscription_id"])
        return message

    def next(self, name: str | None = None) -> Message:
        """The next message of a subscription; without a name, the next that names none."""
        while not self._waiting[name]:
            message = self.receive()
            self._waiting[message.get("subscription_id")].append(message)
        return self._waiting[name].popleft()

    def barrier(self) -> Message:
        """Read until all commits of this moment were told, as pongs say; what comes before waits. The last pong.

        While a snapshot is being fetched pongs say nothing, and without subscriptions there is nothing to say.
        """
        self.server.sql("INSERT INTO marks.marks DEFAULT VALUES")
        ((newest,),) = self.server.rows("SELECT max(_seq) FROM marks.marks")
        while True:
            asked = next(self._names)
            self.send("ping", id=asked)
            while (message := self.receive())["type"] != "pong":
                self._waiting[message.get("subscription_id")].append(message)
            assert message["id"] == asked
            if not self._open or "seq" not in message or number(message["seq"]) >= int(newest):
                return message

    def waiting(self) -> list[Message]:
        """What came and nobody asked for."""
        return [message for messages in self._waiting.values() for message in messages]

    def drain(self) -> list[Message]:
        """Take all that comes before the answer to a ping."""
        self.barrier()
        found = self.waiting()
        self._waiting.clear()
        return found

    def closed(self) -> tuple[int, str]:
        """Read on to the close: its code and reason."""
        with pytest.raises(ConnectionClosed) as end:
            self._read_on()
        frame = end.value.rcvd
        assert frame is not None, "no close frame"
        return frame.code, frame.reason

    def _read_on(self) -> None:
        while True:
            message = self.receive()
            self._waiting[message.get("subscription_id")].append(message)

    def subscribe(self, sql: str, options: Any = ..., name: str | None = None, **more: Any) -> Live:
        """Subscribe; fails if the answer is not an acknowledgement. Without `options` the field is absent."""
        live = self.ask(sql, options, name, **more)
        live.acknowledged()
        return live

    def ask(self, sql: Any, options: Any = ..., name: str | None = None, **more: Any) -> Live:
        """Send a subscribe message and wait for nothing."""
        name = f"s{next(self._names)}" if name is None else name
        body = {"id": name, "sql": sql} | ({} if options is ... else {"options": options}) | more
        self.send("subscribe", subscription=body)
        return Live(self, name, has_snapshot=options not in (..., None))

    def refused(self, sql: Any, options: Any = ..., name: str | None = None, **more: Any) -> tuple[str, str]:
        """Subscribe in vain: code and message."""
        return self.ask(sql, options, name, **more).error()


class Live:
    """One subscription of a socket."""

    def __init__(self, socket: Socket, name: str, *, has_snapshot: bool) -> None:
        self.socket = socket
        self.name = name
        self.has_snapshot = has_snapshot
        self.ack: Message = {}
        self.rows: list[Row] = []
        self.controls: list[dict[str, Any]] = []

    def acknowledged(self) -> Message:
        """Take the acknowledgement, and the first batch if there is one."""
        self.ack = self.next()
        assert self.ack["type"] == "subscription_ack", self.ack
        self.rows, self.controls = [], []
        if self.has_snapshot:
            self._batch()
        else:
            assert (self.ack["total_rows"], self.ack["batch_control"]["status"]) == (0, "ready")
        return self.ack

    def _batch(self) -> None:
        message = self.next()
        assert message["type"] == "initial_data_batch", message
        self.rows += message["rows"]
        self.controls.append(message["batch_control"])

    def fetch(self) -> None:
        """Ask for the next batch and take it."""
        self.socket.send("next_batch", subscription_id=self.name, last_seq_id=self.controls[-1]["last_seq_id"])
        self._batch()

    def load(self) -> Live:
        """Fetch all batches."""
        while self.controls[-1]["has_more"]:
            self.fetch()
        return self

    def next(self) -> Message:
        """The next message of this subscription."""
        return self.socket.next(self.name)

    def change(self, kind: str) -> Message:
        """The next message, which must be a change of that kind."""
        message = self.next()
        assert (message["type"], message.get("change_type")) == ("change", kind), message
        return message

    def inserted(self) -> list[Row]:
        """The rows of the next message, an insert, without `_seq`."""
        return plain(self.change("insert")["rows"])

    def deleted(self) -> list[Row]:
        """The old values of the next message, a delete, without `_seq`."""
        return plain(self.change("delete")["old_values"])

    def updated(self) -> tuple[list[Row], list[Row]]:
        """Rows and old values of the next message, an update, without `_seq`."""
        message = self.change("update")
        return plain(message["rows"]), plain(message["old_values"])

    def error(self) -> tuple[str, str]:
        """The next message, an error: code and message."""
        message = self.next()
        assert message["type"] == "error", message
        return message["code"], message["message"]

    @property
    def columns(self) -> list[str]:
        """The names of the acknowledged schema."""
        return [column["name"] for column in self.ack["schema"]]


def plain(rows: Iterable[Row]) -> list[Row]:
    """The rows without `_seq`."""
    return [{name: value for name, value in row.items() if name != "_seq"} for row in rows]


@contextmanager
def unlimited_server(folder: Path, **changes: str) -> Iterator[RunningServer]:
    """A server without limits for clients that subscribe often; it must log no traceback and stop in good order."""
    limits = {"HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "0", "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "0"}
    running = RunningServer(folder / "data", changes=limits | changes)
    try:
        running.start().set_up()
        running.sql(MARKS)
        yield running
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    finally:
        running.kill()


def member(server: RunningServer, name: str, role: str = "user") -> str:
    """Make an account; its token."""
    server.sql(f"CREATE USER '{name}' WITH PASSWORD '{PASSWORD}' ROLE {role}")
    return server.login(name, PASSWORD)
