"""The examples of docs/topics.md run in order against a server, and answer what the page says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.running import RunningServer

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")


def steps() -> list[tuple[str, str, str | None]]:
    """(language, content, the answer that the page shows) of every example but those of answers alone."""
    found: list[tuple[str, str, str | None]] = []
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        if language == "json":
            if "OFFSET_OUT_OF_RANGE" not in content:
                found[-1] = (*found[-1][:2], content)
        else:
            found.append((language, content, None))
    return found


def comparable(value: Any) -> Any:
    """An answer without what differs from run to run: times and `_seq`s."""
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: comparable(item) for name, item in value.items() if name not in {"timestamp_ms", "took"}}
    if "payload" in kept:
        payload = json.loads(base64.b64decode(kept["payload"]))
        kept["payload"] = {name: item for name, item in payload.items() if name not in {"_seq", "_commit_seq"}}
    return kept


def run(server: RunningServer, content: str) -> Any:
    (_, functions, _), *_ = steps()
    script = f"set -euo pipefail\nTOKEN={server.token}\n{functions}\n{content}"
    script = script.replace("http://127.0.0.1:2900", server.url)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_the_page(fresh_server: RunningServer) -> None:
    checked = 0
    for language, content, expected in steps()[1:]:
        answer = run(fresh_server, content) if language == "bash" else fresh_server.post(content).json()
        assert answer.get("status", "success") == "success", f"{content}\n{answer}"
        assert "code" not in answer, f"{content}\n{answer}"
        if expected is not None:
            assert comparable(answer) == comparable(json.loads(expected)), content
            checked += 1
    assert checked == 3
