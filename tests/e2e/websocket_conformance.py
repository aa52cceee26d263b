"""Runs Autobahn's WebSocket test suite against the server and writes `docs/websocket-conformance.md`.

    python -m tests.e2e.websocket_conformance WSTEST [--write]

WSTEST is the suite's command, from an environment of its own: version 0.8.2 of autobahntestsuite for Python 2.7. The
exit code is 1 if a case fails or passes only loosely.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from tests.server.websocket.serving import run, serving

PAGE = Path(__file__).parents[2] / "docs" / "websocket-conformance.md"
AGENT = "Headrace"
SECTIONS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8, also cut anywhere and failing early",
    "7": "Closing handshake, codes and reasons",
    "9": "Limits: messages of up to 16 MiB in any fragments, thousands of small ones",
    "10": "Automatic fragmentation",
    "12": "Compression with permessage-deflate",
    "13": "Compression with permessage-deflate, parameters",
}
FINE = {"OK", "INFORMATIONAL", "UNIMPLEMENTED"}
HEAD = """# WebSocket conformance

The WebSocket of Headrace is tested with Autobahn's test suite, whose client speaks {total} small conversations, most of
them wrong in one way, with an endpoint that echoes. The endpoint is an application over the server's own transport
(`server/websocket/`) with `security.max_ws_message_size` raised to 64 MiB, as the suite sends messages of 16 MiB.

Last run on {date} with websockets {websockets}, uvicorn {uvicorn}, uvloop {uvloop}, Python {python} and
autobahntestsuite {suite}.

| Section | Subject | Cases | Passed | Informational | Not offered | Failed |
|---|---|---|---|---|---|---|
"""
TAIL = """
*Passed* is the suite's `OK`: the strict behaviour, not the `NON-STRICT` that it lets pass as well. *Informational* are
cases for which the standard prescribes no behaviour ({informational}).
*Not offered*: the compression extension is never agreed to, because the messages of live queries are compressed by
their own protocol, once for all receivers.

To repeat it, install version 0.8.2 of `autobahntestsuite` into an environment of Python 2.7 and name its command:

```
python -m tests.e2e.websocket_conformance path/to/wstest --write
```

It takes about twenty seconds, fails if a case does not pass strictly, and writes this page. It is no part of the
ordinary tests, which need no Python 2. These hold the same ground: `tests/server/websocket/test_reader.py` compares the
frame reader with that of `websockets` on sound and broken streams in any pieces, and
`tests/e2e/test_websocket_transport.py` attacks a running server.
"""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def fuzz(command: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Run all cases; what the suite says of each."""
    changes = {"security": {"max_ws_message_size": 64 * 2**20}}
    async with serving(folder, echo, changes) as site:
        plan = {
            "outdir": str(folder / "reports"),
            "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{site.port}/ws"}],
            "cases": [f"{section}.*" for section in SECTIONS],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        process = await asyncio.create_subprocess_exec(
            command, "-m", "fuzzingclient", "-s", str(folder / "plan.json"), cwd=folder, stdout=subprocess.DEVNULL
        )
        assert await process.wait() == 0
    found: dict[str, dict[str, Any]] = json.loads((folder / "reports" / "index.json").read_text())[AGENT]
    return found


def suite_version(command: str) -> str:
    """The version that the suite's command tells."""
    told = subprocess.run([command, "-a"], capture_output=True, text=True, check=True).stdout
    return told.split()[-1]


def render(found: dict[str, dict[str, Any]], suite: str) -> str:
    """The page."""
    page = HEAD.format(
        total=len(found),
        date=dt.datetime.now(dt.UTC).date(),
        websockets=version("websockets"),
        uvicorn=version("uvicorn"),
        uvloop=version("uvloop"),
        python=platform.python_version(),
        suite=suite,
    )
    whole: Counter[str] = Counter()
    for section, subject in SECTIONS.items():
        counts = Counter(verdict(outcome) for case, outcome in found.items() if case.partition(".")[0] == section)
        whole += counts
        page += row(section, subject, counts)
    informational = [f"`{case}`" for case, outcome in found.items() if verdict(outcome) == "INFORMATIONAL"]
    return page + row("", "All", whole) + TAIL.format(informational=", ".join(informational))


def row(section: str, subject: str, counts: Counter[str]) -> str:
    """A line of the table."""
    failed = sum(count for name, count in counts.items() if name not in FINE)
    cells = [section, subject, counts.total(), counts["OK"], counts["INFORMATIONAL"], counts["UNIMPLEMENTED"], failed]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def verdict(outcome: dict[str, Any]) -> str:
    """The worse of what is said of the conversation and of its end."""
    behavior, closing = outcome["behavior"], outcome["behaviorClose"]
    return str(behavior if closing in FINE else closing)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wstest")
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            found.update(await fuzz(str(Path(options.wstest).resolve()), Path(folder)))

    run(scenario())
    bad = {case: verdict(outcome) for case, outcome in found.items() if verdict(outcome) not in FINE}
    sys.stdout.write(f"{Counter(map(verdict, found.values()))} {bad or ''}\n")
    if options.write:
        PAGE.write_text(render(found, suite_version(options.wstest)), "utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
