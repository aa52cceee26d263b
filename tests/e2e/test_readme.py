"""README.md works when it is pasted line by line: every command block runs against a real server.

The server is the one that README's own `headrace serve` starts, moved to a free port and a temporary folder by the
environment. The blocks after it run in order in one shell, so that what one sets the next can use; a `json` or `text`
block is what the block before it must print.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
INSTALL = ["pip install .", "headrace serve"]
TEST = ["pip install '.[test]' && pytest"]
DOCUMENTED = "http://127.0.0.1:2900"
END = "--- end of block ---"


def blocks() -> list[tuple[str, str]]:
    """(language, content) of every fenced block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def runnable() -> list[tuple[str, str, str | None]]:
    """(language, commands, expected output) of what the reader pastes after the server is up."""
    found: list[tuple[str, str, str | None]] = []
    for language, content in blocks():
        if language in {"json", "text"}:
            previous, commands, _ = found[-1]
            found[-1] = (previous, commands, content)
        elif content.splitlines() not in (INSTALL, TEST):
            found.append((language, content, None))
    return found


@pytest.fixture
def command_path(tmp_path: Path) -> str:
    """A PATH on which `headrace` is the code under test, and `python3` this interpreter."""
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    installed = Path(sys.executable).with_name("headrace")
    if not installed.exists():
        script = programs / "headrace"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m headrace "$@"\n')
        script.chmod(0o755)
    return os.pathsep.join([str(programs), str(installed.parent), os.environ["PATH"]])


@pytest.fixture
def served(tmp_path: Path, command_path: str) -> Iterator[str]:
    """README's server; its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PATH": command_path,
        "HEADRACE_SERVER_PORT": str(port),
        "HEADRACE_STORAGE_DATA_PATH": str(tmp_path / "data"),
    }
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            INSTALL[1], shell=True, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def uninstalled() -> dict[str, str]:
    """Where Python finds the client if this is a working copy that was never installed."""
    return {} if Path(sys.executable).with_name("headrace").exists() else {"PYTHONPATH": str(ROOT)}


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def as_script(language: str, commands: str, base: str) -> str:
    """Shell text for a block, with the documented address replaced by the real one."""
    commands = commands.replace(DOCUMENTED, base)
    if language == "bash":
        return commands
    assert language == "python"
    return f"python3 <<'END_OF_PYTHON'\n{commands}\nEND_OF_PYTHON\n"


def test_names_the_two_commands_first() -> None:
    language, content = blocks()[0]
    assert language == "bash"
    assert content.splitlines() == INSTALL


def test_names_the_test_command() -> None:
    assert any(content.splitlines() == TEST for _, content in blocks())


def test_every_command_block_works(served: str, tmp_path: Path, command_path: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("README's commands need curl, which is not installed")
    steps = runnable()
    script = "set -euo pipefail\n" + "".join(
        f"{as_script(language, commands, served)}\nprintf '\\n%s\\n' '{END}'\n" for language, commands, _ in steps
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": command_path} | uninstalled(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [output.strip() for output in done.stdout.split(END)[:-1]]
    assert len(outputs) == len(steps)
    for (_, commands, expected), output in zip(steps, outputs, strict=True):
        assert '"error"' not in output, f"{commands}\n{output}"
        if expected is None:
            continue
        if expected.startswith("{"):
            assert without_time(output) == without_time(expected)
        else:
            assert output == expected.strip()


def without_time(text: str) -> object:
    """A JSON answer without how long it took."""
    document = json.loads(text)
    del document["took"]
    return document


def test_links_lead_somewhere() -> None:
    for page in [
        README,
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples/flights/README.md",
        ROOT / "examples/chat/README.md",
        *(ROOT / "docs").glob("*.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
