"""The flights example: load all of it over HTTP, and answer as DuckDB does from the original CSV files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tests.e2e.running import RunningServer

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
sys.path.insert(0, str(FLIGHTS))

import client as example_client  # noqa: E402  # the example's folder comes first
import load  # noqa: E402
import questions  # noqa: E402

COUNTS = {"airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 26_115, "flights": 336_776}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """DuckDB over the CSV files, with its own idea of their types."""
    folder = tmp_path_factory.mktemp("csv")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE SCHEMA nyc")
    for table in load.TABLES:
        path = load.data_folder() / f"{table}.csv"
        if not path.exists():
            with zipfile.ZipFile(path.with_suffix(".csv.zip")) as archive:
                path = Path(archive.extract(path.name, folder))
        connection.execute(
            f"CREATE TABLE nyc.{table} AS SELECT * FROM read_csv('{path}', nullstr = ['NA', ''], sample_size = -1)"
        )
    return connection


def plain(value: object, data_type: object) -> object:
    """A wire value as the number or text it stands for."""
    if isinstance(value, str) and (data_type == "BigInt" or (isinstance(data_type, dict) and "Decimal" in data_type)):
        return Decimal(value)
    return value


def comparable(table: pa.Table) -> list[list[object]]:
    """DuckDB's rows with dates and times as the wire counts them."""
    columns = []
    for column in table.columns:
        if pa.types.is_date32(column.type):
            columns.append(column.cast(pa.int32()).to_pylist())
        elif pa.types.is_timestamp(column.type):
            columns.append(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_pylist())
        else:
            columns.append(column.to_pylist())
    return [list(row) for row in zip(*columns, strict=True)]


def assert_same(question: str, ours: list[list[object]], theirs: list[list[object]]) -> None:
    """Equal in order; floating-point numbers to nine digits, since sums may be taken in another order."""
    assert len(ours) == len(theirs), question
    for our_row, their_row in zip(ours, theirs, strict=True):
        for our, their in zip(our_row, their_row, strict=True):
            if isinstance(our, float) or isinstance(their, float):
                assert our == pytest.approx(their, rel=1e-9, abs=1e-9), (question, our_row, their_row)
            else:
                assert our == their, (question, our_row, their_row)


def test_there_are_ten_questions() -> None:
    numbers = [int(question.split(".")[0]) for question, _ in questions.questions()]
    assert numbers == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--ingest"]], ids=["insert", "ingest"])
def test_loads_all_and_answers_as_duckdb_does(
    fresh_server: RunningServer, reference: duckdb.DuckDBPyConnection, options: list[str]
) -> None:
    server = fresh_server
    arguments = ["--url", server.url, "--user", server.user, "--password", server.password]
    done = subprocess.run(
        [sys.executable, FLIGHTS / "load.py", *arguments, *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    bars = re.findall(r"^(\w+)\s*\[#+\]\s*([\d,]+) rows", done.stderr, flags=re.MULTILINE)
    assert {table: int(count.replace(",", "")) for table, count in bars} == COUNTS

    with example_client.Client(*arguments[1::2]) as client:
        for table, count in COUNTS.items():
            (result,) = client.sql(f"SELECT count(*) FROM nyc.{table}")
            assert [int(value) for value in result["rows"][0]] == [count]
        for question, sql in questions.questions():
            (result,) = client.sql(sql)
            types = [column["data_type"] for column in result["schema"]]
            ours = [[plain(value, kind) for value, kind in zip(row, types, strict=True)] for row in result["rows"]]
            assert_same(question, ours, comparable(reference.sql(sql).to_arrow_table()))

    printed = subprocess.run(
        [sys.executable, FLIGHTS / "questions.py", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert "Newark Liberty Intl" in printed.stdout
    assert len(re.findall(r"^\d+\. ", printed.stdout, flags=re.MULTILINE)) == 10
