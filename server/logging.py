"""The log: lines on standard error, as text or as JSON, each with the id of the request that it belongs to.

One line a request: at level debug if it went well, info if the client was wrong (4xx), error if we were (5xx). Slow SQL
requests are warnings with their text, in which every string literal is masked: passwords and data stay out of the log.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys

import msgspec

from server.config import LoggingSection
from server.exchange import Exchange, current_exchange
from sql.masking import mask_literals

_log = logging.getLogger("headrace.request")

_MAX_SQL = 2000


def configure(config: LoggingSection) -> None:
    """Send all logs of this process to standard error in the configured format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    if config.level != "debug":
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        logging.getLogger("asyncio").setLevel(logging.WARNING)


class RequestLog:
    """Logs requests when they are finished."""

    def finished(self, exchange: Exchange) -> None:
        """Log one line about a request."""
        status = exchange.status
        level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.ERROR
        if not _log.isEnabledFor(level):
            return
        scope = exchange.scope
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "took_ms": exchange.took_ms,
            "client": exchange.client,
            "user": exchange.user,
        }
        _log.log(level, "%s %r %d", fields["method"], fields["path"], status, extra={"fields": fields})

    def ended(self, exchange: Exchange) -> None:
        """Log that a WebSocket is over, and how long it lasted."""
        path = exchange.scope["path"]
        fields = {"path": path, "took_ms": exchange.took_ms, "client": exchange.client, "user": exchange.user}
        _log.debug("WebSocket %r ended", path, extra={"fields": fields})

    def failed(self, error: Exception, exchange: Exchange) -> None:
        """Log what went wrong inside a request, with its traceback."""
        path = exchange.scope["path"]
        _log.error("unexpected error in %s %r", exchange.scope["method"], path, exc_info=error)

    def cut(self, error: Exception, exchange: Exchange) -> None:
        """Log that an answer could not be completed."""
        _log.warning("answer to %s %r cut off: %s", exchange.scope["method"], exchange.scope["path"], error)


def log_slow_sql(sql: str, exchange: Exchange) -> None:
    """Log an SQL request that took longer than the threshold."""
    fields = {"took_ms": exchange.took_ms, "user": exchange.user, "sql": mask_literals(sql[:_MAX_SQL])}
    _log.warning("slow SQL request", extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record's time, level, logger, message, request id and further fields."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        exchange = current_exchange.get()
        if exchange is not None:
            line["request_id"] = exchange.request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """One line for people; control characters are written escaped, a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the same as JSON does, in the order in which one reads."""
        parts = [_time(record), f"{record.levelname:<7}", _escape(record.getMessage())]
        parts += _fields(record)
        exchange = current_exchange.get()
        if exchange is not None:
            parts.append(f"request={exchange.request_id}")
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return " ".join(parts)


def fields_text(record: logging.LogRecord) -> str:
    """The further fields of a record as the text log writes them behind the message, a space before each."""
    return "".join(f" {field}" for field in _fields(record))


def _fields(record: logging.LogRecord) -> list[str]:
    return [
        f"{name}={_escape(str(value))}"
        for name, value in getattr(record, "fields", {}).items()
        if name not in {"method", "path", "status"} and value is not None
    ]


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")


def _escape(text: str) -> str:
    """Keep a line one line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
