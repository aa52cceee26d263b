"""Engines that are not ours reading an open table: delta-rs in this process, DuckDB with its extension in another.

DuckDB 1.5.5 and the extension come from PyPI into a folder of their own (pytest's cache): the project has another
DuckDB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

VERSION = "1.5.5"
_PROGRAM = """
import importlib.resources, os, sys
import duckdb, pyarrow as pa
folder = importlib.resources.files("duckdb_extension_delta").joinpath("extensions")
extension = next(folder.glob("*/delta.duckdb_extension"))
connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
connection.execute("SET TimeZone = 'UTC'")
connection.execute(f"LOAD '{extension}'")
table = connection.execute(sys.argv[2], [sys.argv[1]]).to_arrow_table()
with pa.OSFile(sys.argv[3], "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
    writer.write_table(table)
"""


def delta_rs(root: Path | str, query: str = "SELECT * FROM lake", **options: Any) -> list[dict[str, Any]]:
    """The rows that delta-rs (through DataFusion) sees."""
    deltalake = pytest.importorskip("deltalake", reason="deltalake is not installed: pip install '.[test]'")
    table = deltalake.DeltaTable(str(root), **options)
    found = deltalake.QueryBuilder().register("lake", table).execute(query)
    return pa.table(found.read_all()).to_pylist()


def duckdb_packages(cache: pytest.Cache, building: Path) -> Path:
    """The folder with DuckDB and its extension; skips where they cannot be had."""
    packages = cache.mkdir("lake") / f"packages-{VERSION}"
    if not packages.exists():
        wanted = [f"duckdb=={VERSION}", f"duckdb-extension-delta=={VERSION}"]
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--target"]
        made = subprocess.run([*install, building, *wanted], capture_output=True, text=True, check=False, timeout=600)
        if made.returncode:
            pytest.skip(f"DuckDB's delta extension cannot be installed: {made.stderr.strip().splitlines()[-1]}")
        shutil.copytree(building, packages, dirs_exist_ok=True)
    return packages


def duckdb(packages: Path, root: Path | str, query: str = "SELECT * FROM delta_scan($1)") -> list[dict[str, Any]]:
    """The rows that DuckDB sees."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.arrow"
        command = [sys.executable, "-c", _PROGRAM, str(root), query, str(answer)]
        environment = os.environ | {"PYTHONPATH": str(packages)}
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert made.returncode == 0, made.stderr
        with pa.OSFile(str(answer)) as source:
            rows: list[dict[str, Any]] = pa.ipc.open_stream(source).read_all().to_pylist()
    return rows
