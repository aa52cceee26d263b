"""Literal lifting for the statement cache: texts of one shape share one plan.

`scan_insert` reads `INSERT INTO t (a, b) VALUES (1, 'x'), ($1, NULL) [ON CONFLICT … | RETURNING …]` without a
parser: two regular expressions see that the text has exactly this form, and the values come out as columns.
`lift_literals` turns `SELECT … WHERE id = 5` into `SELECT … WHERE id = $1` and `[5]`.

Both answer None for whatever they are not sure of (comments, casts, functions, several statements, odd quoting);
then the text goes the ordinary way. They never report a malformed text: a plan is only cached for a shape that was
parsed once, so every error comes from `sql.dialect`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

from sql.lexer import MAX_PARAMETER


@dataclass(frozen=True, slots=True)
class ParamRef:
    """The parameter $n in the place of a value."""

    index: int


class DefaultKeyword:
    """The word DEFAULT in the place of a value; its only instance is `DEFAULT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = DefaultKeyword()

Value = int | Decimal | str | bytes | bool | ParamRef | DefaultKeyword | None


class InsertShape:
    """An INSERT of plain values: `key` names the shape, `columns` holds the values, one list for each column.

    `width` is the number of values in a row; `columns[i]` belongs to the i-th column that the statement names.
    """

    __slots__ = ("_head", "_tail", "columns", "key", "rows", "width")

    def __init__(self, head: str, tail: str, columns: list[list[Value]]) -> None:
        self._head = head
        self._tail = tail
        self.columns = columns
        self.width = len(columns)
        self.rows = len(columns[0])
        self.key = f"{head}\0{len(columns)}\0{tail}"

    @property
    def values(self) -> list[Value]:
        """All values, row after row."""
        if self.rows == 1:
            return [column[0] for column in self.columns]
        flat: list[Value] = [None] * (self.rows * self.width)
        for index, column in enumerate(self.columns):
            flat[index :: self.width] = column
        return flat

    @property
    def template(self) -> str:
        """A statement of this shape, with one row of DEFAULT: what to parse and plan for the key."""
        return f"{self._head} ({', '.join(['DEFAULT'] * self.width)}) {self._tail}"


_SPACE = r"[ \t\r\n]*+"
_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*+|\"[^\"\0]++\")"
_VALUE = (
    r"(?:-?+(?:[0-9]{1,40}+(?:\.[0-9]{0,40}+)?+|\.[0-9]{1,40}+)(?:[eE][+-]?+[0-9]{1,3}+)?+"
    r"|'(?:[^'\0]++|'')*+'"
    r"|\$[1-9][0-9]{0,3}+"
    r"|[nN][uU][lL][lL]|[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[dD][eE][fF][aA][uU][lL][tT]"
    r"|[xX]'(?:[0-9a-fA-F]{2})*+')"
)
_HEAD = re.compile(
    rf"{_SPACE}INSERT[ \t\r\n]++INTO[ \t\r\n]++{_NAME}(?:{_SPACE}\.{_SPACE}{_NAME})?+{_SPACE}"
    rf"(?:\({_SPACE}({_NAME}(?:{_SPACE},{_SPACE}{_NAME})*+){_SPACE}\){_SPACE})?+VALUES{_SPACE}(?=\()",
    re.IGNORECASE | re.ASCII,
)
_FIRST_ROW = re.compile(rf"\({_SPACE}{_VALUE}(?:{_SPACE},{_SPACE}{_VALUE})*+{_SPACE}\)")
_TAIL = re.compile(r"(?:ON|RETURNING)\b[^;\0]*+", re.IGNORECASE)
_VALUES = re.compile(r"[(,][ \t\r\n]*+('(?:[^']++|'')*+'|[^', \t\r\n()]++(?:'[0-9a-fA-F]*+')?+)")
"""Each value of rows that are known to be well-formed."""
_COLUMN_NAMES = re.compile(_NAME)
_UNUSUAL_TAIL = ("--", "/*", "$$", "`")


@lru_cache(maxsize=256)
def _rows_of(width: int) -> re.Pattern[str]:
    """Rows of exactly that many plain values, as many as there are."""
    row = rf"\({_SPACE}{_VALUE}" + rf"(?:{_SPACE},{_SPACE}{_VALUE}){{{width - 1}}}+" + rf"{_SPACE}\){_SPACE}"
    return re.compile(rf"{row}(?:,{_SPACE}{row})*+")


def scan_insert(text: str) -> InsertShape | None:
    """The shape and values of a plain INSERT … VALUES, or None for everything else."""
    head = _HEAD.match(text)
    if head is None:
        return None
    start = head.end()
    names = head[1]
    if names is None:
        first = _FIRST_ROW.match(text, start)
        if first is None:
            return None
        width = len(_VALUES.findall(first[0]))
    else:
        width = len(_COLUMN_NAMES.findall(names))
    body = _rows_of(width).match(text, start)
    if body is None:
        return None
    end = body.end()
    tail = text[end:].rstrip(" \t\r\n")
    if tail:
        if tail[-1] == ";":
            tail = tail[:-1].rstrip(" \t\r\n")
        if tail and (not _TAIL.fullmatch(tail) or any(mark in tail for mark in _UNUSUAL_TAIL)):
            return None
    raw = _VALUES.findall(text, start, end)
    if len(raw) == width:
        columns = [[_value(item)] for item in raw]
    else:
        columns = [_column(raw[index::width]) for index in range(width)]
    return InsertShape(text[:start].strip(" \t\r\n"), tail, columns)


def _column(raw: list[str]) -> list[Value]:
    """The values of one column; a column of one kind, or of few different values, converts at C speed."""
    first = raw[0][0]
    if first == "'":
        # Each value begins and ends with a quote of its own: this many quotes mean that none holds another one.
        if "".join(raw).count("'") == 2 * len(raw) and all(item[0] == "'" for item in raw):
            return [item[1:-1] for item in raw]
    elif first == "$":
        if all(item[0] == "$" for item in raw):
            return [_references[item] for item in raw]
    elif first in "-.0123456789":
        try:
            return list(map(int, raw))
        except ValueError:
            if "".join(raw).count(".") == len(raw):
                return _decimals(raw)
    known = {item: _value(item) for item in set(raw)}
    return [known[item] for item in raw]


def _decimals(raw: list[str]) -> list[Value]:
    """The values of a column with as many points as values: decimals, unless strings hold some of the points."""
    try:
        return list(map(Decimal, raw))
    except InvalidOperation:
        return [_value(item) for item in raw]


class _References(dict[str, ParamRef]):
    """`$n` to its ParamRef, made when first asked for; `_VALUE` bounds how many there can be."""

    def __missing__(self, raw: str) -> ParamRef:
        reference = self[raw] = ParamRef(int(raw[1:]))
        return reference


_references = _References()
_WORDS: dict[str, Value] = {"null": None, "true": True, "false": False, "default": DEFAULT}


def _value(raw: str) -> Value:
    """One value from its source text."""
    first = raw[0]
    if first == "'":
        return raw[1:-1].replace("''", "'")
    if first == "$":
        return _references[raw]
    if first in "-.0123456789":
        return int(raw) if raw.isdigit() else _signed_or_decimal(raw)
    if raw[1] == "'":
        return bytes.fromhex(raw[2:-1])
    return _WORDS[raw.lower()]


def _signed_or_decimal(raw: str) -> Value:
    return int(raw) if raw[1:].isdigit() and raw[0] == "-" else Decimal(raw)


# Point statements

_START = re.compile(r"[ \t\r\n]*+(?:SELECT|UPDATE|DELETE)\b", re.IGNORECASE)
_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:
      ([^\W\d]\w*+)(?!')
    | ('(?:[^']++|'')*+')(?!')
    | ([0-9]{1,18}+(?:\.[0-9]{1,18}+)?+)(?![\w.])
    | \$([1-9][0-9]{0,4}+)
    | ("[^"]++")(?!")
    | (<>|!=|<=|>=|[=<>](?![=<>~@|]))
    | ([(),.*;]|->>|->|\|\||::|[-+/%])
    )""",
    re.VERBOSE,
)
_WORD, _STRING, _NUMBER, _PARAMETER, _QUOTED, _COMPARISON, _OTHER = range(7)
_UNUSUAL = ("--", "/*", "$$", "`", "\0")
_REFUSED = frozenset({
    "all", "any", "between", "case", "cast", "escape", "except", "exists", "filter", "for", "format", "glob", "having",
    "intersect", "interval", "into", "lateral", "over", "pivot", "qualify", "similar", "some", "timestamp", "union",
    "unnest", "unpivot", "using", "values", "window", "with",
})  # fmt: skip
_NOT_COLUMNS = frozenset({
    "and", "or", "not", "is", "null", "true", "false", "in", "like", "ilike", "where", "set", "default", "distinct",
    "current_date", "current_time", "current_timestamp", "current_user", "collate", "isnull", "notnull", "from",
})  # fmt: skip
_CLAUSES = frozenset({"group", "order", "limit", "offset", "fetch", "returning", "from", "where"})


def lift_literals(text: str) -> tuple[str, list[int | Decimal | str]] | None:
    """The text with `$n` for the literals of its `column = literal` comparisons and assignments, and the literals.

    Only the WHERE of a SELECT, UPDATE or DELETE and the SET of an UPDATE are looked at, in statements without
    subqueries. The new parameters are numbered after those that the text has. Whoever caches by the template must
    add the types of the values to the key: `a = 5` and `a = '5'` are two shapes.
    """
    if _START.match(text) is None or any(mark in text for mark in _UNUSUAL):
        return None
    tokens = _scan(text)
    if tokens is None:
        return None
    places = _liftable(tokens)
    if not places:
        return None
    next_index = 1 + max((int(value) for kind, value, _, _ in tokens if kind == _PARAMETER), default=0)
    if next_index + len(places) > MAX_PARAMETER:
        return None
    pieces: list[str] = []
    values: list[int | Decimal | str] = []
    position = 0
    for start, end in places:
        pieces.append(text[position:start])
        pieces.append(f"${next_index + len(values)}")
        position = end
        literal = text[start:end]
        if literal[0] == "'":
            values.append(literal[1:-1].replace("''", "'"))
        else:
            values.append(Decimal(literal) if "." in literal else int(literal))
    pieces.append(text[position:])
    return "".join(pieces), values


_Token = tuple[int, str, int, int]


def _scan(text: str) -> list[_Token] | None:
    """Kind, text (words in lower case), start and end of every token; None if there is anything unusual."""
    tokens: list[_Token] = []
    position, size = 0, len(text.rstrip(" \t\r\n;"))
    match_at = _TOKEN.match
    selects = 0
    while position < size:
        match = match_at(text, position)
        if match is None:
            return None
        index = match.lastindex
        assert index is not None
        value = match[index]
        if index == 1:
            value = value.lower()
            if value in _REFUSED:
                return None
            selects += value == "select"
        elif value == ";":
            return None
        position = match.end()
        tokens.append((index - 1, value, match.start(index), position))
    return None if selects > 1 else tokens


def _liftable(tokens: list[_Token]) -> list[tuple[int, int]]:
    """Start and end of the literals that may become parameters."""
    places: list[tuple[int, int]] = []
    update = tokens[0][1] == "update"
    region = ""
    depth = 0
    for index, (kind, value, start, end) in enumerate(tokens):
        if kind == _WORD and depth == 0 and (value in _CLAUSES or (update and value == "set")):
            region = value if value == "where" or (value == "set" and update) else ""
        elif value == "(" and kind == _OTHER:
            depth += 1
        elif value == ")" and kind == _OTHER:
            depth -= 1
        elif region and (kind in (_STRING, _NUMBER)) and not (region == "set" and depth):
            first = index - 1 if kind == _NUMBER and tokens[index - 1][1] == "-" else index
            if tokens[first][3] != start and first != index:
                continue
            if _compares(tokens, first - 1, region) and _ends(tokens, index + 1, region):
                places.append((tokens[first][2], end))
    return places


def _compares(tokens: list[_Token], index: int, region: str) -> bool:
    """Whether the tokens up to `index` are `column op`, at the start of a condition or assignment."""
    kind, value, _, _ = tokens[index]
    if kind != _COMPARISON or (region == "set" and value != "="):
        return False
    index -= 1
    if not _is_column(tokens[index]):
        return False
    if tokens[index - 1][1] == "." and _is_column(tokens[index - 2]):
        index -= 2
    before = tokens[index - 1]
    if before[1] == "(" and tokens[index - 2][1] not in _WHERE_STARTS:
        return False  # an argument of a function
    starts = _SET_STARTS if region == "set" else _WHERE_STARTS
    return before[0] in (_WORD, _OTHER) and before[1] in starts


_WHERE_STARTS = frozenset({"where", "and", "or", "not", "("})
_SET_STARTS = frozenset({"set", ","})
_WHERE_ENDS = frozenset({"and", "or", ")", *_CLAUSES})
_SET_ENDS = frozenset({",", "where", "from", "returning"})


def _is_column(token: _Token) -> bool:
    return token[0] == _QUOTED or (token[0] == _WORD and token[1] not in _NOT_COLUMNS)


def _ends(tokens: list[_Token], index: int, region: str) -> bool:
    """Whether a condition or assignment ends before the token at `index`."""
    if index == len(tokens):
        return True
    kind, value, _, _ = tokens[index]
    return kind in (_WORD, _OTHER) and value in (_SET_ENDS if region == "set" else _WHERE_ENDS)
