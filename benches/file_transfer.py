"""Upload and download of one file of 100 MB, beside bare Starlette."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benches.file_peers import BareFiles, HeadraceFiles
from benches.live_client import ClientFailed
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "file-transfer"
SUMMARY = "upload and download of a file of 100 MB, beside bare Starlette"
SIZE = 100_000_000
BARE, DURABLE, FORM = "bare stream", "bare stream, SHA-256, fsync", "Starlette's form(), SHA-256, fsync"
RESPONSE = "bare FileResponse"
SYNCS: Mapping[str, str] = {"Headrace": "yes", BARE: "no", DURABLE: "yes", FORM: "yes"}
UPLOAD_NOTE = "Headrace: multipart INSERT, hashed and synced, with its row; a bare stream has no multipart to parse"
Transfer = Callable[[int], float]
"""Moves the file of that number; the seconds that it took."""


def run(options: Options) -> Iterator[Report]:
    """One table for uploads, one for downloads; each system once a round, after one that is not counted."""
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder)))
        uploads: dict[str, Transfer] = {}
        downloads: dict[str, Transfer] = {}
        content, target = bytearray(os.urandom(SIZE)), bytearray(SIZE)
        if "headrace" in options.only:
            headrace = HeadraceFiles()
            cleanup.callback(headrace.stop)
            headrace.start(folder)
            headrace.upload(0, memoryview(content))
            uploads["Headrace"] = _fresh(content, headrace.upload, headrace.remove)
            downloads["Headrace"] = _checked(content, target, headrace.download)
        if "echo" in options.only:
            bare = BareFiles()
            cleanup.callback(bare.stop)
            bare.start(folder)
            bare.upload("stream", 0, memoryview(content))
            for name, route in ((BARE, "stream"), (DURABLE, "durable"), (FORM, "form")):
                uploads[name] = _fresh(content, lambda n, c, route=route: bare.upload(route, n, c), bare.remove)  # type: ignore[misc]
            downloads[RESPONSE] = _checked(content, target, bare.download)
        for title, transfers, number, aims, note in (
            ("Download", downloads, lambda: 0, (Aim(RESPONSE, 0.7),), "each download is compared with what was sent"),
            ("Upload", uploads, options.next_keys, (Aim(BARE, 0.7), Aim(DURABLE, 0.7)), UPLOAD_NOTE),
        ):
            yield Report(
                title=f"{title} of {SIZE // 1_000_000} MB, 1 connection",
                unit="MB/s",
                headings=("seconds",),
                rows=tuple(_rows(_in_turn(options, transfers, number), SYNCS if transfers is uploads else {})),
                aims=aims,
                note=note,
            )


def _fresh(content: bytearray, upload: Callable[[int, memoryview], float], remove: Callable[[int], None]) -> Transfer:
    """Upload bytes that no upload had before, and remove them again when their time is taken."""

    def transfer(number: int) -> float:
        content[:8] = number.to_bytes(8, "big")
        seconds = upload(number, memoryview(content))
        remove(number)
        return seconds

    return transfer


def _checked(content: bytearray, target: bytearray, download: Callable[[int, bytearray], float]) -> Transfer:
    """Download, and compare when the time is taken."""

    def transfer(number: int) -> float:
        target[:] = bytes(len(target))
        seconds = download(number, target)
        if target != content:
            message = "a download differs from its upload"
            raise ClientFailed(message)
        return seconds

    return transfer


def _in_turn(
    options: Options, transfers: Mapping[str, Transfer], number: Callable[[], int]
) -> Mapping[str, list[float]]:
    """Seconds of each system in each round; one before the first is not counted."""
    measured: dict[str, list[float]] = {name: [] for name in transfers}
    for count in range(options.rounds + 1):
        for name, transfer in transfers.items():
            seconds = transfer(number())
            if count:
                measured[name].append(seconds)
    return measured


def _rows(measured: Mapping[str, list[float]], syncs: Mapping[str, str]) -> Iterator[Row]:
    for name, seconds in measured.items():
        median = statistics.median(seconds)
        yield Row(
            syncs=syncs.get(name, "-"),
            system=name,
            figure=SIZE / 1e6 / median,
            details=(f"{median:.3f}",),
            command=f"python -m benches {NAME} --only {'headrace' if name == 'Headrace' else 'echo'}",
        )
