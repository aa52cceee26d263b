"""docs/catalogue.md has every system table with every column, in order, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from sql.dba_tables import NOTIFICATIONS_TABLE, STATS_TABLE
from sql.system_tables import INFORMATION_SCHEMA, default_registry

PAGE = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")


def sections() -> dict[str, list[str]]:
    """The columns of each table that has a section."""
    found = {}
    for title, text in re.findall(r"^### `([a-z_.]+)`\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, flags=re.MULTILINE)
        assert all(meaning.strip() for _, meaning in rows), title
        found[title] = [name for name, _ in rows]
    return found


def listed() -> dict[str, list[str]]:
    """The columns of each table of information_schema."""
    lines = re.findall(r"^\| `(information_schema\.\w+)` \| .+? \| (.+) \|$", PAGE, flags=re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", columns) for name, columns in lines}


def test_every_table_and_column_is_documented() -> None:
    ours = {table.full_name: [column.name for column in table.columns] for table in default_registry()}
    ours |= {t.full_name: [column.name for column in t.columns] for t in (NOTIFICATIONS_TABLE, STATS_TABLE)}
    standard = {name: columns for name, columns in ours.items() if name.startswith(f"{INFORMATION_SCHEMA}.")}
    assert listed() == standard
    assert sections() == {name: columns for name, columns in ours.items() if name not in standard}
