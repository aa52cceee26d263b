"""What the server does for one table, in memory: a log of events, snapshots in batches, resuming. No input or output.

It answers as the protocol says, message by message, so that the client's state machine can be driven through any
order of commits, cuts and resumes, and compared with the table itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Message = dict[str, Any]


@dataclass
class Event:
    """One change, as the log has it."""

    kind: str
    seq: int
    row: Row
    old: Row


@dataclass
class ModelTable:
    """Rows `id`, `value`, `_seq` by `id`, and the log of how they came about; `keyless` hides that `id` is a key."""

    keyless: bool = False
    rows: dict[int, Row] = field(default_factory=dict)
    log: list[Event] = field(default_factory=list)
    seq: int = 0
    begins: int = 0
    """The log holds what is later than this."""
    overlap: int = 0
    """A resumed subscription is told this many events again, as a careless server might."""

    def put(self, key: int, value: Any) -> None:
        """Insert or update a row."""
        self.seq += 1
        row = {"id": key, "value": value, "_seq": self.seq}
        old = self.rows.get(key)
        self.rows[key] = row
        if old is None:
            self.log.append(Event("insert", self.seq, row, {}))
        else:
            self.log.append(Event("update", self.seq, row, {"id": key, "value": old["value"], "_seq": old["_seq"]}))

    def delete(self, key: int) -> None:
        """Delete a row, if there is one."""
        old = self.rows.pop(key, None)
        if old is not None:
            self.seq += 1
            self.log.append(Event("delete", self.seq, {}, old))

    def forget_log(self) -> None:
        """Drop the whole log: nobody can resume from before now."""
        self.begins = self.seq
        self.log = []

    def by_seq(self) -> list[Row]:
        """All rows in the order of a snapshot."""
        return sorted(self.rows.values(), key=lambda row: int(row["_seq"]))

    @property
    def schema(self) -> list[Message]:
        flags = {} if self.keyless else {"flags": ["pk", "nn", "uq"]}
        return [
            {"name": "id", "data_type": "BigInt", "index": 0, **flags},
            {"name": "value", "data_type": "Text", "index": 1},
            {"name": "_seq", "data_type": "BigInt", "index": 2},
        ]


class ModelSubscription:
    """One subscription of the table on one connection."""

    def __init__(self, table: ModelTable, name: str, options: Message | None) -> None:
        self.name = name
        self._table = table
        self._waiting: deque[Row] = deque()
        self._size = (options or {}).get("batch_size") or 1000
        self._batch = 0
        self._seq = table.seq
        self._fresh = False
        self._live = True
        self.first = self._begin(options)
        """The messages with which it begins."""

    def _begin(self, options: Message | None) -> list[Message]:
        table = self._table
        if options is None:
            return [self._ack(0, "ready")]
        start = options.get("from") or 0
        messages: list[Message] = []
        if start > table.seq:
            self._live = False
            return [self._error("INVALID_CURSOR", f"there is no commit {start} yet")]
        if start and start < table.begins:
            messages.append(self._error("RESUME_TOO_OLD", "the log begins later"))
            self._fresh = True
        elif start:
            return self._resume(start)
        rows = table.by_seq()
        if options.get("last_rows") is not None:
            rows = rows[-options["last_rows"] :]
        self._waiting.extend(rows)
        self._live = False
        status = "loading" if len(rows) > self._size else "ready"
        return [*messages, self._ack(len(rows), status), *self.next_batch()]

    def _resume(self, start: int) -> list[Message]:
        start = max(start - self._table.overlap, self._table.begins)
        missed = [event for event in self._table.log if event.seq > start]
        head = []
        while missed and len(head) < self._size and missed[0].kind != "delete":
            head.append(missed.pop(0))
        self._seq = head[-1].seq if head else start
        ack = self._ack(len(head), "ready") | {"resumed": True}
        batch = {
            "type": "initial_data_batch",
            "subscription_id": self.name,
            "rows": [dict(event.row) for event in head],
            "batch_control": self._control("ready", self._table.seq),
        }
        return [ack, batch]

    def next_batch(self) -> list[Message]:
        """The next rows of the snapshot."""
        rows = [dict(self._waiting.popleft()) for _ in range(min(self._size, len(self._waiting)))]
        more = bool(self._waiting)
        status = ("loading_batch" if self._batch else "loading") if more else "ready"
        message = {
            "type": "initial_data_batch",
            "subscription_id": self.name,
            "rows": rows,
            "batch_control": self._control(status, self._seq),
        }
        self._batch += 1
        self._live = not more
        return [message]

    def pump(self) -> list[Message]:
        """What has happened since the last message; nothing while a snapshot is being fetched."""
        if not self._live:
            return []
        events = [event for event in self._table.log if event.seq > self._seq]
        if events:
            self._seq = events[-1].seq
        return [self._change(event) for event in events]

    @property
    def reached(self) -> int:
        """Up to where it is."""
        return self._seq

    def _change(self, event: Event) -> Message:
        message = {"type": "change", "subscription_id": self.name, "change_type": event.kind, "seq": str(event.seq)}
        if event.row:
            message["rows"] = [dict(event.row)]
        if event.old:
            message["old_values"] = [dict(event.old)]
        return message

    def _ack(self, total: int, status: str) -> Message:
        return {
            "type": "subscription_ack",
            "subscription_id": self.name,
            "total_rows": total,
            "batch_control": self._control(status, self._seq),
            "schema": self._table.schema,
            "resumed": False,
        }

    def _control(self, status: str, seq: int) -> Message:
        return {
            "batch_num": self._batch,
            "has_more": status != "ready",
            "status": status,
            "last_seq_id": seq,
            "fresh": self._fresh,
        }

    def _error(self, code: str, message: str) -> Message:
        return {"type": "error", "subscription_id": self.name, "code": code, "message": message}
