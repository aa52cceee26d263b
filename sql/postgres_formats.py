"""PostgreSQL's little languages in DuckDB's: formats of times, SIMILAR TO patterns, paths and format strings.

Each function returns None where the text has no counterpart that means exactly the same; the caller refuses it.
"""

from __future__ import annotations

import re

_TIMES = {
    "YYYY": "%Y", "YY": "%y", "MM": "%m", "DDD": "%j", "DD": "%d", "HH24": "%H", "HH12": "%I", "HH": "%I",
    "MI": "%M", "SS": "%S", "MS": "%g", "US": "%f", "IYYY": "%G", "IW": "%V", "ID": "%u", "FMMM": "%-m",
    "FMDD": "%-d", "FMHH24": "%-H", "FMHH12": "%-I", "FMMI": "%-M", "FMSS": "%-S",
}  # fmt: skip
_WORDS = {"AM": "%p", "PM": "%p", "Mon": "%b", "Dy": "%a", "FMMonth": "%B", "FMDay": "%A"}
"""Patterns whose letters' case is that of the answer."""
_PIECE = re.compile(
    r'"([^"]*)"|((?:FM)?(?:HH24|HH12|HH|MI|MM|MS|DDD|DD|SS)|FMMonth|FMDay|IYYY|YYYY|YY|US|IW|ID|AM|PM|Mon|Dy)'
    r"|([^A-Za-z\"\\]+)",
    re.IGNORECASE,
)


def time_format(text: str) -> str | None:
    """The strftime format of a to_char format for dates and timestamps."""
    out: list[str] = []
    place = 0
    while place < len(text):
        match = _PIECE.match(text, place)
        if match is None:
            return None
        quoted, pattern, other = match.groups()
        if pattern is None:
            out.append((quoted if quoted is not None else other).replace("%", "%%"))
        else:
            found = _WORDS.get(pattern) if pattern.upper() in _UPPER_WORDS else _TIMES.get(pattern.upper())
            if found is None:
                return None
            out.append(found)
        place = match.end()
    return "".join(out)


_UPPER_WORDS = frozenset(word.upper() for word in _WORDS)


def similar_pattern(pattern: str, escape: str = "\\") -> str | None:
    """The regular expression of a SIMILAR TO pattern; it must match the whole text."""
    if len(escape) > 1:
        return None
    out: list[str] = []
    bracket = False
    place = 0
    while place < len(pattern):
        sign = pattern[place]
        if escape and sign == escape:
            place += 1
            if place == len(pattern):
                return None
            out.append(re.escape(pattern[place]))
        elif bracket:
            bracket = sign != "]"
            out.append("\\\\" if sign == "\\" else sign)
        elif sign == "[":
            bracket = True
            out.append(sign)
        elif sign in "%_":
            out.append(".*" if sign == "%" else ".")
        else:
            out.append("\\" + sign if sign in ".^$\\" else sign)
        place += 1
    return None if bracket else "(?:" + "".join(out) + ")"


def text_array(text: str) -> list[str] | None:
    """The elements of an array literal such as `{a,b,0}`."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    inner = text[1:-1]
    if not inner:
        return []
    if not re.fullmatch(f"{_ELEMENT}(,{_ELEMENT})*", inner):
        return None
    return [
        re.sub(r"\\(.)", r"\1", quoted) if plain == "" else plain.strip()
        for quoted, plain in re.findall(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,"{}\\]+))\s*(?:,|$)', inner)
    ]


_ELEMENT = r'\s*(?:"(?:[^"\\]|\\.)*"\s*|[^,"{}\\\s][^,"{}\\]*)'


def format_pieces(text: str, arguments: int) -> list[str | int] | None:
    """The pieces of a format() string: texts, and numbers of arguments (from 0), each at most once."""
    out: list[str | int] = []
    following = 0
    place = 0
    for match in re.finditer(r"%(?:(\d+)\$)?([%sIL])?", text):
        out.append(text[place : match.start()])
        place = match.end()
        number, kind = match.groups()
        if kind == "%" and number is None:
            out.append("%")
            continue
        index = following if number is None else int(number[:6]) - 1
        if kind != "s" or not 0 <= index < arguments or index in out:
            return None
        out.append(index)
        following = index + 1
    out.append(text[place:])
    return [piece for piece in out if piece != ""]


def json_key(key: str) -> str:
    """The JSON path of a member; for an empty name in the form of a JSON pointer, as the other has none for it."""
    if not key:
        return "/"
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'
