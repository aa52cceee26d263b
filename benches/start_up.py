"""From the command to the line that says where it listens, and what the process weighs then."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benches.runner import Options, stage
from benches.table import Aim, Report, Row

NAME = "start-up"
SUMMARY = "time from the command to listening, and memory then: empty folder, 5 million rows"
ROWS = 5_000_000
EMPTY, FULL = "empty folder", f"{ROWS:,} rows"


def run(options: Options) -> Iterator[Report]:
    """Start on a folder that does not exist and on one that a server has filled, in turn."""
    with stage(options, insist=True) as running:
        headrace = running.headrace
        headrace.fill(0, ROWS)
        headrace.stop()
        starts: dict[str, list[tuple[float, dict[str, float]]]] = {EMPTY: [], FULL: []}
        for number in range(max(5, options.rounds)):
            starts[EMPTY].append(start(running.folder / f"empty-{number}"))
            starts[FULL].append(start(running.folder / "headrace"))
        yield Report(
            title="Start to listening",
            unit="seconds",
            headings=("VmRSS MB", "RssAnon MB"),
            rows=tuple(_row(name, measured) for name, measured in starts.items()),
            aims=(Aim(None, 1.0, at_most=True, subject=EMPTY), Aim(None, 3.0, at_most=True, subject=FULL)),
            subject=EMPTY,
            note="RssAnon is the process's own memory; the rest are pages of files, those of the database among them",
        )


def start(folder: Path) -> tuple[float, dict[str, float]]:
    """Start a server, wait for its line, stop it: the seconds, and the megabytes of its memory by name."""
    command = [sys.executable, "-m", "headrace", "serve", "--data", str(folder), "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        assert "listens" in line, f"the server did not start on {folder}"
        status = Path(f"/proc/{process.pid}/status").read_text()
        os.kill(process.pid, signal.SIGTERM)
    return seconds, {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}


def _row(name: str, measured: list[tuple[float, dict[str, float]]]) -> Row:
    details = tuple(f"{statistics.median(figures[key] for _, figures in measured):.0f}" for key in ("VmRSS", "RssAnon"))
    return Row("yes", name, statistics.median(seconds for seconds, _ in measured), details, f"python -m benches {NAME}")
