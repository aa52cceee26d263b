"""DuckDB's errors as the errors that a client sees: our words, our positions, none of our private names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

import duckdb
import msgspec

from sql.errors import ExecutionError, InvalidSql, MemoryLimitExceeded, ProcessMemoryExceeded, QueryTimeout, SqlError
from sql.generate import Places, Positions, source_position
from sql.postgres_macros import TOO_LONG_TEXT
from sql.rights import nearest
from sql.workers import Control

log = logging.getLogger(__name__)

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_ADVICE = re.compile(
    r"\s*(?:Did you mean|Candidate|Use \"?SET|Use TRY\(|\* SET|Possible solutions|You might need to add|For more inf"
    r"|See also|Please transition|Either add it|Use SET| or SET |LINE \d).*",
    re.DOTALL,
)
_NO_MEMORY = "The query needs more memory than the server has."
_NO_ALLOCATION = "bad allocation"
"""What DuckDB says when the operating system refuses memory, rather than its own limit."""
_FIXED: tuple[tuple[type[Exception], type[SqlError], str], ...] = (
    (
        duckdb.OutOfMemoryException,
        MemoryLimitExceeded,
        "The query needs more memory than one query may use. Ask for fewer rows or columns, or in smaller steps.",
    ),
    (MemoryError, ProcessMemoryExceeded, _NO_MEMORY),
)
_INVALID = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.NotImplementedException,
)
_FATAL = (duckdb.FatalException, duckdb.InternalException)

_LONGEST = 600
"""Characters of a message at most."""


def is_fatal(error: BaseException) -> bool:
    """Whether the connection must not be used again after this error."""
    return isinstance(error, _FATAL)


def translate(
    error: BaseException,
    positions: Positions = (),
    *,
    columns: Iterable[str] = (),
    scans: Mapping[str, str] | None = None,
    control: Control | None = None,
    shift: int = 0,
    places: Places | None = None,
) -> SqlError:
    """The client's error. `columns` are names to suggest; `scans` what the query calls our private scans.

    `shift` is how many bytes stood before the query in the text that failed, `places` where functions are called.
    """
    if isinstance(error, SqlError):
        return error
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT" in str(error)[:60]:
        return _interrupted(control)
    if _NO_ALLOCATION in str(error):
        return ProcessMemoryExceeded(_NO_MEMORY)
    for kind, ours, sentence in _FIXED:
        if isinstance(error, kind):
            return ours(sentence)
    if is_fatal(error):
        return ExecutionError("The query engine failed on this query and was restarted; the failure was logged.")
    if isinstance(error, (duckdb.IOException, OSError)):
        log.error("the query engine could not use its files: %s", error)
        return ExecutionError("The query needs temporary files, which could not be written; the failure was logged.")
    message, details = _parts(error)
    if "maximum total string size" in message or "Arrow Appender" in message:
        return MemoryLimitExceeded("A result column holds more than 2 GiB in one batch of rows.")
    if message.startswith(TOO_LONG_TEXT):
        return MemoryLimitExceeded(f"{TOO_LONG_TEXT}.")
    line, column = _place(details, positions, shift)
    if details.get("error_subtype") == "NO_MATCHING_FUNCTION":
        line, column = (places or {}).get(details.get("name", ""), (line, column))
    sentence = _cut(_sentence(message, details, columns, scans or {}))
    kind_of_error = InvalidSql if isinstance(error, _INVALID) or type(error) is duckdb.Error else ExecutionError
    return kind_of_error(sentence, line=line, column=column)


def _cut(sentence: str) -> str:
    """DuckDB quotes whole values; a message says where, it does not carry the data."""
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST // 2]} … {sentence[-_LONGEST // 4 :]}"


def _interrupted(control: Control | None) -> SqlError:
    if control is not None:
        if control.stopped is not None:
            return control.stopped
        try:
            control.check()
        except SqlError as reason:
            return reason
    return QueryTimeout("The query was stopped before it was done.")


def _parts(error: BaseException) -> tuple[str, Mapping[str, str]]:
    """The message and the details of an error, which come as JSON after the kind when the connection says so."""
    text = str(error)
    start = text.find("{")
    if start >= 0 and '"exception_message"' in text:
        try:
            details = msgspec.json.decode(text[start:], type=dict[str, str])
        except (msgspec.DecodeError, msgspec.ValidationError):
            details = {}
        if "exception_message" in details:
            return details["exception_message"], details
    kind, _, rest = text.partition("Error: ")
    return (rest or kind), {}


def _place(details: Mapping[str, str], positions: Positions, shift: int) -> tuple[int | None, int | None]:
    offset = details.get("position", "")
    return source_position(positions, int(offset) - shift) if offset.isdecimal() else (None, None)


def _sentence(message: str, details: Mapping[str, str], columns: Iterable[str], scans: Mapping[str, str]) -> str:
    if details.get("error_subtype") == "COLUMN_NOT_FOUND" or message.startswith("Referenced column"):
        match = _QUOTED.search(message)
        name = details.get("name") or (match[1] if match else "?")
        near = nearest(name.lower(), columns)
        return f"Column not found: '{name}'" + (f". Did you mean '{near}'?" if near else "")
    if message.startswith("Referenced table"):
        match = _QUOTED.search(message)
        return f"Table or alias not found in this part of the query: '{match[1] if match else '?'}'"
    if "does not have a column named" in message or ("Table function" in message and "not found" in message):
        names = _QUOTED.findall(message)
        name = names[-1] if names else "?"
        near = nearest(name.lower(), columns)
        return f"Column not found: '{name}'" + (f". Did you mean '{near}'?" if near else "")
    text = _ADVICE.sub("", message).strip() or "The query failed."
    for private, alias in scans.items():
        text = text.replace(private, alias)
    return text if text.endswith((".", "!", "?")) else f"{text}."
