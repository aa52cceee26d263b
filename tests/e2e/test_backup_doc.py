"""The examples of docs/backup.md run one after the other in one shell, and print what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import RunningServer, environment

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text(encoding="utf-8")


def test_the_page(fresh_server: RunningServer, tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "headrace").write_text(f'#!/bin/sh\nexec {sys.executable} -m headrace "$@"\n')
    (bin_folder / "headrace").chmod(0o755)
    (tmp_path / "work").mkdir()
    if shutil.which("curl") is None:
        pytest.skip("the examples need curl, and it is not installed")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    script = "set -eu\n" + "".join(content for language, content in blocks if language == "bash")
    expected = "".join(content for language, content in blocks if language == "text")
    assert {language for language, _ in blocks} == {"bash", "text"}
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path / "work",
        env=environment({"SERVER": fresh_server.url, "PATH": f"{bin_folder}:{os.environ['PATH']}"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
