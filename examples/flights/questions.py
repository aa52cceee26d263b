"""Ask the ten questions of questions.sql and print the answers as tables."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from client import Client, arguments

HERE = Path(__file__).parent
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def questions() -> Iterator[tuple[str, str]]:
    """(question, SQL) pairs: a comment line, then one statement."""
    for part in re.split(r"^-- (?=\d+\. )", (HERE / "questions.sql").read_text(), flags=re.MULTILINE)[1:]:
        question, _, sql = part.partition("\n")
        yield question, sql.strip().rstrip(";")


def shown(value: object, data_type: object) -> str:
    """A value as a person reads it: dates and times of the wire format are counts since the epoch."""
    if value is None:
        return ""
    if data_type == "Date" and isinstance(value, int):
        return (EPOCH + datetime.timedelta(days=value)).date().isoformat()
    if data_type in {"Timestamp", "DateTime"} and isinstance(value, int):
        return (EPOCH + datetime.timedelta(microseconds=value)).strftime("%Y-%m-%d %H:%M")
    return str(value)


def table(columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[object]]) -> str:
    """Rows under their names, numbers to the right."""
    names = [column["name"] for column in columns]
    types = [column["data_type"] for column in columns]
    cells = [[shown(value, kind) for value, kind in zip(row, types, strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [kind != "Text" for kind in types]

    def line(values: Sequence[str]) -> str:
        pairs = zip(values, widths, right, strict=True)
        return "  " + "  ".join(value.rjust(w) if r else value.ljust(w) for value, w, r in pairs).rstrip()

    return "\n".join([line(names), line(["-" * width for width in widths]), *map(line, cells)])


def main() -> None:
    """Print question, answer and time of each."""
    options = arguments("Ask ten questions about the flights of 2013.").parse_args()
    with Client(options.url, options.user, options.password) as client:
        for question, sql in questions():
            (result,) = client.sql(sql)
            print(question, table(result["schema"], result["rows"]), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
