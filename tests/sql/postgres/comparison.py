"""What both databases are asked, and how their answers are brought to one form.

A case is one line of `cases/*.txt`: an expression, or a SELECT with one column `v`. An answer is `None` for an error,
else the class of its type and its values in a form that both databases share.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import subprocess
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from sql.results import StatementResult
from storage.types import Kind

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "answers.json"
DIFFERENCES = FOLDER / "differences.txt"

Answer = list[object] | None
"""`[class, value, …]`, or None for an error."""

COLUMNS = (
    ("id", "INT PRIMARY KEY"), ("i", "INT"), ("n", "DECIMAL(10, 2)"), ("d", "DOUBLE PRECISION"), ("t", "TEXT"),
    ("b", "BOOLEAN"), ("day", "DATE"), ("at", "TIMESTAMP"), ("j", "JSONB"), ("raw", "BYTEA"),
)  # fmt: skip
ROWS = (
    """(1, 7, 12.34, 1.5, 'hello world', true, '2024-01-31', '2024-01-31 23:59:59.25',
        '{"k":"v","list":[1,2]}', '\\x00ff')""",
    """(2, -7, -0.5, 2.5, 'Bob', false, '2024-02-29', '2024-02-29 00:00:00', '{"k":null,"deep":{"er":5},"Bob":1}',
        '\\x616263')""",
    "(3, 0, 99.95, -2.25, 'k', true, '1999-12-31', '1999-12-31 12:30:15.123456', '[\"k\",\"z\"]', '\\x')",
    "(4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
)
TABLE = (
    f"CREATE SHARED TABLE typed ({', '.join(map(' '.join, COLUMNS))});"
    f"INSERT INTO typed ({', '.join(name for name, _ in COLUMNS)}) VALUES {', '.join(ROWS)};"
)

_CLASSES = {
    Kind.BOOLEAN: "boolean", Kind.SMALLINT: "number", Kind.INT: "number", Kind.BIGINT: "number",
    Kind.FLOAT: "number", Kind.DOUBLE: "number", Kind.DECIMAL: "number", Kind.TEXT: "text", Kind.DATE: "date",
    Kind.TIME: "time", Kind.TIMESTAMP: "timestamp", Kind.DATETIME: "timestamp", Kind.JSON: "json",
    Kind.BYTES: "bytes", Kind.UUID: "uuid", Kind.EMBEDDING: "json",
}  # fmt: skip
_THEIRS = {
    "boolean": "boolean", "smallint": "number", "integer": "number", "bigint": "number", "numeric": "number",
    "real": "number", "double precision": "number", "text": "text", "character varying": "text", "name": "text",
    "character": "text", "date": "date", "time without time zone": "time", "interval": "text", "unknown": "text",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamp", "json": "json",
    "jsonb": "json", "bytea": "bytes", "uuid": "uuid",
}  # fmt: skip


def cases() -> list[tuple[str, str]]:
    """Every case with the name of its family."""
    found = []
    for path in sorted(FOLDER.glob("cases/*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [(path.stem, line) for line in lines if line and not line.startswith("# ")]
    return found


def differences() -> dict[str, str]:
    """The cases that are known to differ, each with its reason: in the file a reason stands above its cases."""
    found: dict[str, str] = {}
    reason = ""
    for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            assert reason, line
            assert line not in found, line
            found[line] = reason
    return found


def query_of(case: str) -> str:
    """The query that answers a case in one column `v`."""
    return case if case.startswith("SELECT ") else f"SELECT {case} AS v"


def _number(text: object) -> object:
    """Twelve digits of a number: the last bits of a float are nobody's promise."""
    value = float(str(text))
    if not math.isfinite(value):
        return str(value)
    exact = Decimal(str(text))
    shown = exact if exact == exact.to_integral_value() and abs(exact) < 10**38 else Decimal(f"{value:.12g}")
    return format(shown.normalize() + 0, "f") if abs(shown.adjusted()) < 40 else str(shown.normalize())


def _json(value: object) -> object:
    """A JSON value with its numbers in one form."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, Decimal)):
        return {"number": _number(value)}
    return value.replace("T", " ") if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) else value


def json_value(text: str) -> object:
    """The meaning of a JSON text; the members' order and the `T` inside of times are none of it."""
    return _json(json.loads(text, parse_float=Decimal, parse_int=int))


def ours(result: StatementResult) -> Answer:
    """Headrace's answer."""
    table = result.table
    assert table is not None
    kind = _CLASSES[result.columns[0].type.kind]
    column = table.column(0)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    return [kind, *(None if v is None else _our_value(kind, v) for v in column.to_pylist())]


def _our_value(kind: str, value: object) -> object:
    if kind == "number":
        return _number(value)
    if kind == "json":
        return json_value(value if isinstance(value, str) else json.dumps(value))
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return _time(str(value))
    if kind == "uuid":
        return str(uuid.UUID(bytes=value) if isinstance(value, bytes) else value)
    return value.hex() if isinstance(value, bytes) else value if isinstance(value, bool) else str(value)


def _time(text: str) -> str:
    """A date or time without a zone of zero and without zeros behind its seconds."""
    text = re.sub(r"\+00(:00)?$", "", text)
    return re.sub(r"(\.\d*?)0+$", r"\1", text).removesuffix(".")


def _interval(text: str) -> str:
    """PostgreSQL's interval in Headrace's words."""
    return _time(re.sub(r"\bmon(s?)\b", r"month\1", text))


def _their_value(name: str, kind: str, text: str, as_json: object) -> object:
    if name.endswith("]") or kind == "json":
        return as_json
    if kind == "number":
        return _number(text)
    if kind in {"date", "time", "timestamp"}:
        return _time(text)
    if name == "interval":
        return _interval(text)
    if name == "character":
        return text
    return text == "true" if kind == "boolean" else text.removeprefix("\\x") if kind == "bytes" else text


def theirs(command: list[str]) -> dict[str, Answer]:
    """PostgreSQL's answers to every case; `command` is psql with its connection. Each case is its own statement."""
    script = ["SET TimeZone = 'UTC';", TABLE.replace("SHARED ", "")]
    asked = [case for _, case in cases()]
    for case in asked:
        script.append(
            "SELECT json_build_array(pg_typeof(v)::text, v::text, CASE WHEN pg_typeof(v)::text ~ '(json|])' "
            f"THEN to_json(v) END)::text FROM ({query_of(case)}) AS asked;"
        )
        script.append("\\echo = :ERROR :ROW_COUNT")
    made = subprocess.run(command, input="\n".join(script), capture_output=True, text=True, check=True, timeout=60)
    answers = list(_answers(made.stdout.splitlines()))
    assert len(answers) == len(asked)
    return dict(zip(asked, answers, strict=True))


def _answers(lines: list[str]) -> Iterator[Answer]:
    kind = ""
    values: list[object] = []
    for line in lines:
        if line.startswith("= "):
            yield None if line.startswith("= true") else [kind, *values]
            kind, values = "", []
            continue
        name, text, as_json = json.loads(line, parse_float=Decimal)
        kind = "json" if name.endswith("]") or name == "record" else _THEIRS.get(name, name)
        values.append(None if text is None else _their_value(name, kind, text, _json(as_json)))


def same(ours: Answer, theirs: Answer) -> bool:
    """Whether two answers are the same; without a row, and for a bare NULL, there is no class to compare."""
    if ours is None or theirs is None:
        return ours is theirs
    untyped = all(value is None for value in theirs[1:])
    return ours[1:] == theirs[1:] and (untyped or ours[0] == theirs[0])
