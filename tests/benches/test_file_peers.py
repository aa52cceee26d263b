"""Uploads and downloads of the benches: the bytes that went in are in the file, by every way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.file_peers import BareFiles, form
from benches.live_client import ClientFailed

CONTENT = os.urandom(3_000_001)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[BareFiles]:
    running = BareFiles()
    running.start(tmp_path)
    yield running
    running.stop()


@pytest.mark.parametrize("route", ["stream", "durable", "form"])
def test_what_goes_in_comes_out(bare: BareFiles, tmp_path: Path, route: str) -> None:
    assert bare.upload(route, 5, memoryview(CONTENT)) > 0
    assert (tmp_path / "bare-files" / "5.bin").read_bytes() == CONTENT
    target = bytearray(len(CONTENT))
    assert bare.download(5, target) > 0
    assert target == CONTENT
    bare.remove(5)
    with pytest.raises(ClientFailed):
        bare.download(5, target)


def test_another_length_is_another_file(bare: BareFiles) -> None:
    bare.upload("stream", 1, memoryview(CONTENT))
    with pytest.raises(ClientFailed, match="a download failed"):
        bare.download(1, bytearray(len(CONTENT) - 1))


def test_a_form_has_its_fields_before_its_file() -> None:
    text = b"".join(bytes(part) for part in form({"sql": "SELECT 1"}, "file:f", memoryview(b"content")))
    before, _, after = text.partition(b'name="sql"\r\n\r\nSELECT 1\r\n')
    assert before.startswith(b"--headrace-bench-boundary\r\n")
    assert b'name="file:f"; filename="bench.bin"' in after
    assert after.endswith(b"\r\n\r\ncontent\r\n--headrace-bench-boundary--\r\n")
