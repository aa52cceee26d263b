"""Where in the request's text something stands, and errors that show it: line, column and a caret excerpt."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlglot.errors import ParseError

from sql.errors import InvalidSql, SqlError

ErrorT = TypeVar("ErrorT", bound=SqlError)

_EXCERPT_WIDTH = 80
_SHOWN_TOKEN = 40


class Source:
    """The text of a whole request; turns offsets into lines, columns and excerpts."""

    __slots__ = ("_starts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts: list[int] | None = None

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        if self._starts is None:
            self._starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def excerpt(self, offset: int) -> str:
        """The source line around an offset, cut to about 80 characters, and a line with a caret under it."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        line = self.text[start : len(self.text) if end < 0 else end]
        column = offset - start
        first = max(0, min(column - _EXCERPT_WIDTH // 2, len(line) - _EXCERPT_WIDTH))
        shown = _printable(line[first : first + _EXCERPT_WIDTH])
        prefix = "…" if first else ""
        suffix = "…" if first + _EXCERPT_WIDTH < len(line) else ""
        return f"{prefix}{shown}{suffix}\n{' ' * (len(prefix) + column - first)}^"

    def error(self, message: str, offset: int, kind: type[ErrorT] = InvalidSql) -> ErrorT:  # type: ignore[assignment]
        """An error of that kind at that offset."""
        line, column = self.position(offset)
        return kind(message, line=line, column=column, excerpt=self.excerpt(offset))


@contextmanager
def shown_in(text: str) -> Iterator[None]:
    """Give errors that know their line and column the excerpt of the request's text."""
    try:
        yield
    except SqlError as error:
        if error.line is not None and error.column is not None and error.excerpt is None:
            lines = text.split("\n", error.line)
            if error.line <= len(lines):
                start = sum(len(line) + 1 for line in lines[: error.line - 1])
                error.excerpt = Source(text).excerpt(min(start + error.column - 1, len(text)))
        raise


def _printable(text: str) -> str:
    """One character for one, so that the caret stays in place; control characters become spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def shown(text: str) -> str:
    """A piece of the request's text as error messages quote it: one line, cut to 40 characters."""
    text = _printable(text)
    return repr(text if len(text) <= _SHOWN_TOKEN else text[: _SHOWN_TOKEN - 1] + "…")


_EXPECTING = re.compile(r"Expect(?:ed|ing):? (.+)")
_PLAIN_EXPECTED = {
    "(": "an opening parenthesis",
    ")": "a closing parenthesis",
    "]": "a closing bracket",
    "}": "a closing brace",
    "END after CASE": "END to close CASE",
    "THEN after WHEN": "THEN after WHEN",
    "AS after CAST": "AS inside CAST",
    "TYPE after CAST": "a type name inside CAST",
    "identifier": "a name",
    "table name": "a table name",
    "table name but got None": "a table name",
}


def explain_parse_error(error: ParseError, found: str | None) -> str:
    """A plain sentence for what sqlglot reports; `found` is the source text where it stopped, None at the end."""
    description = str(error.errors[0].get("description") or "") if error.errors else ""
    place = f"found {shown(found)}" if found is not None else "the statement ended"
    if match := _EXPECTING.fullmatch(description.split("\n")[0].rstrip(".")):
        wanted = match[1].strip()
        if "<" not in wanted:
            return f"Expected {_PLAIN_EXPECTED.get(wanted, wanted)}, but {place}."
    if description.startswith("Required argument"):
        return f"Something is missing before {shown(found)}." if found else "The statement ends too early."
    if description.startswith("The number of provided arguments"):
        return "A function has more arguments than it takes."
    if found is None:
        return "The statement ends too early."
    return f"{shown(found)} was not expected here."
