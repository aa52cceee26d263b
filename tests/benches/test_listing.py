"""`python -m benches` lists every bench, and the documentation names each."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches.__main__ import BENCHES, main

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def test_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(BENCHES)


def test_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-bench"])
    assert "point-read" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(BENCHES))
def test_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE.read_text()
