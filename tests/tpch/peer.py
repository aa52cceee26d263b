"""The TPC-H data, queries and answers of DuckDB's tpch extension, written to a folder. A program, not a module.

Run with the packages of the extension and of its own DuckDB before all others on PYTHONPATH:
`python peer.py SCALE FOLDER` writes `<table>.arrow` for each table, `q<n>.arrow` for the answer of each query, and
`tpch.json`: the texts of the queries, the seconds of each (the best of three), and the answers that the package brings.
"""

import importlib.resources
import json
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa

TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")


def main(scale: str, folder: Path) -> None:
    """Generate and write everything."""
    connection = duckdb.connect()
    extension = next(
        importlib.resources.files("duckdb_extension_tpch").joinpath("extensions").glob("*/tpch.duckdb_extension")  # type: ignore[attr-defined]
    )
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"CALL dbgen(sf = {float(scale)})")
    for table in TABLES:
        _write(connection.sql(f"FROM {table}").to_arrow_table(), folder / f"{table}.arrow")
    queries = dict(connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall())
    answers = connection.execute(
        "SELECT query_nr, answer FROM tpch_answers() WHERE scale_factor = $1", [float(scale)]
    ).fetchall()
    seconds = {}
    for number, text in queries.items():
        times = []
        for _ in range(3):
            started = time.perf_counter()
            answer = connection.sql(text).to_arrow_table()
            times.append(time.perf_counter() - started)
        seconds[number] = min(times)
        _write(answer, folder / f"q{number}.arrow")
    facts = {"version": duckdb.__version__, "queries": queries, "seconds": seconds, "answers": dict(answers)}
    (folder / "tpch.json").write_text(json.dumps(facts))


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
