"""The latest lines of the log in memory, for system.server_logs: a ring of a fixed number of lines of bounded length.

A file would have to be rotated, guarded and read again; what is older than the ring is where standard error went. A
line is what the text log shows. Of an exception only its kind is kept: what it says may hold values of a request.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

from server.exchange import current_exchange
from server.logging import fields_text
from sql.system_rows import LogLine

LONGEST_MESSAGE = 1_000
"""Characters of a message; what is longer is cut, and says so."""


class _Kept(NamedTuple):
    created: float
    level: str
    thread: str | None
    logger: str
    line: int
    message: str
    request_id: str | None


class LogRing(logging.Handler):
    """Keeps the latest `lines` records that reach the root logger."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self._kept: deque[_Kept] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        try:
            message = record.getMessage() + fields_text(record)
            if record.exc_info and record.exc_info[0] is not None:
                message += f" ({record.exc_info[0].__name__})"
            if len(message) > LONGEST_MESSAGE:
                message = f"{message[: LONGEST_MESSAGE - 1]}…"
            exchange = current_exchange.get()
            self._kept.append(
                _Kept(
                    record.created, record.levelname.lower(), record.threadName, record.name, record.lineno, message,
                    None if exchange is None else exchange.request_id,
                )
            )  # fmt: skip
        except Exception:  # noqa: BLE001  logging must not fail whoever logs; this is what logging itself does
            self.handleError(record)

    def lines(self) -> list[LogLine]:
        """What is kept, newest first. Any thread."""
        self.acquire()
        try:
            kept = list(self._kept)
        finally:
            self.release()
        return [
            LogLine(round(k.created * 1_000_000), k.level, k.thread or "", k.logger, k.line, k.message, k.request_id)
            for k in reversed(kept)
        ]
