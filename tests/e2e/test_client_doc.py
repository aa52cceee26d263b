"""The examples of docs/client.md and examples/python/ run against a server, and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import RunningServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples" / "python").glob("*.py"))


def examples() -> list[tuple[str, str]]:
    """Each example and what it prints."""
    found: list[tuple[str, str]] = []
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        if language == "python":
            found.append((content, ""))
        else:
            assert language == "text"
            found[-1] = (found[-1][0], content)
    return found


def run(*command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page(fresh_server: RunningServer) -> None:
    assert len(examples()) > 5
    for code, expected in examples():
        moved = code.replace('connect("http://127.0.0.1:2900", ', "connect(")
        moved = moved.replace("connect(", f'connect("{fresh_server.url}", ')
        moved = moved.replace("AsyncClient(", f'AsyncClient("{fresh_server.url}", ')
        assert run("-c", moved) == expected, code


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path: Path, fresh_server: RunningServer) -> None:
    first = path.read_text(encoding="utf-8").split('"""')[1]
    output = run(str(path), fresh_server.url, fresh_server.user, fresh_server.password)
    assert output
    assert path.name in first


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
