"""Golden scripts (`tests/scripts`): what users, plans, transactions and the storage answer, as reviewed text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scripts.runner import ROOT, parse, run, scripts
from tests.scripts.worlds import WORLDS

RECORD = bool(os.environ.get("HEADRACE_RECORD"))


@pytest.mark.parametrize("script", scripts(), ids=lambda path: str(path.relative_to(ROOT).with_suffix("")))
def test_script(script: Path, tmp_path: Path) -> None:
    world = WORLDS[script.parent.name](tmp_path / "data")
    try:
        expected, found = run(script, world, record=RECORD)
    finally:
        world.close()
    assert found.split("\n") == expected.split("\n")


def test_every_layer_has_scripts() -> None:
    assert {script.parent.name for script in scripts()} == set(WORLDS)


@pytest.mark.parametrize(
    "text",
    ["SELECT 1\n---\n1", "# heading\n\nSELECT 1", "# heading\n\n---\n1", "# heading\n\nSELECT 1\n# late\n---\n1"],
)
def test_malformed_scripts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"heading|block"):
        parse(text)
