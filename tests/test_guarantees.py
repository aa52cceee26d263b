"""docs/guarantees.md names a proof for every promise, and every proof exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guarantees.md"


def rows() -> list[tuple[str, str, str]]:
    """(number, promise, proofs) of each line of the table."""
    return re.findall(r"^\| (\d+) \| \*\*(.+?)\*\* \|.*\| ([^|]*) \|$", PAGE.read_text(), flags=re.MULTILINE)


def test_promises_are_numbered() -> None:
    assert [int(number) for number, _, _ in rows()] == list(range(1, len(rows()) + 1))


def test_every_promise_names_tests_that_exist() -> None:
    for _, promise, proofs in rows():
        paths = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", proofs)
        assert paths, f"{promise}: no test is named"
        for path, function in paths:
            assert (ROOT / path).exists(), f"{promise}: {path} does not exist"
            if function:
                assert f"def {function}(" in (ROOT / path).read_text(), f"{promise}: {path} has no {function}"


def test_says_what_is_not_promised() -> None:
    assert "## What Headrace does not promise" in PAGE.read_text()
