"""docs/http-api.md lists every error that the SQL layer can answer with, by status and code."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import sql
from sql.errors import SqlError

PAGE = Path(__file__).parents[1] / "docs" / "http-api.md"


def errors(base: type[SqlError] = SqlError) -> Iterator[type[SqlError]]:
    """The error and all below it."""
    yield base
    for child in base.__subclasses__():
        yield from errors(child)


def documented() -> set[tuple[int, str]]:
    """(status, code) pairs of the table of errors."""
    lines = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGE.read_text(), flags=re.MULTILINE)
    return {(int(status), code) for status, codes in lines for code in re.findall(r"`([A-Z_]+)`", codes)}


def test_every_sql_error_is_documented() -> None:
    for module in pkgutil.walk_packages(sql.__path__, "sql."):
        importlib.import_module(module.name)
    missing = {(error.status, error.code) for error in errors()} - documented()
    assert not missing, f"docs/http-api.md does not list {sorted(missing)}"
