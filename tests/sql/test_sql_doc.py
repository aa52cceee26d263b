"""Every example of the pages about SQL runs, in order, and gives what the page says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from sql.database import Database
from sql.defaults import _FITTING
from sql.identity import Identity, Role
from sql.results import StatementResult
from sql.vectors.functions import NAMES as DISTANCES
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sql.md").read_text(encoding="utf-8")
ANN = Identity("ann", Role.DBA)


def blocks(page: str) -> list[tuple[str, str | None]]:
    """Statements, and the rows that the last one of them gives, where the page shows them."""
    found: list[tuple[str, str | None]] = []
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        if language == "sql":
            found.append((content, None))
        else:
            assert language == "text"
            found[-1] = (found[-1][0], content.rstrip("\n"))
    return found


def shown(result: StatementResult) -> str:
    """Rows as the page writes them."""
    if result.rows is not None:
        rows = result.rows
    else:
        assert result.table is not None
        rows = list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))
    return "\n".join(" | ".join(map(str, row)) for row in rows)


@pytest.mark.parametrize("name", ["sql.md", "catalogue.md", "vectors.md", "functions.md"])
def test_examples_run_and_give_what_the_page_says(tmp_path: Path, name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")

    async def run() -> None:
        with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20)) as engine:
            engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))
            database = Database(engine, temp_folder=tmp_path / "duck")
            for text, expected in blocks(page):
                results = await database.execute(text, None, None, ANN)
                if expected is not None:
                    assert shown(results[-1]) == expected, text
            database.close()

    asyncio.run(run())


def test_every_function_of_ours_is_documented() -> None:
    for name in (*_FITTING, "CURRENT_ROLE", *DISTANCES):
        assert f"`{name}" in PAGE, name
