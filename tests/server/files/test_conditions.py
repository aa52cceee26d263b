"""Conditions and ranges of downloads, case by case and against a reading of the standard for single ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.files.conditions import Part, judge

DIGEST = "ab" * 32
TAG = f'"{DIGEST}"'.encode()
UPLOADED = 1_767_225_600_000_000
DATE, BEFORE, AFTER = (
    b"Thu, 01 Jan 2026 00:00:00 GMT", b"Wed, 31 Dec 2025 23:59:59 GMT", b"Thu, 01 Jan 2026 00:00:01 GMT",
)  # fmt: skip
SIZE = 100


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-0"}, 206, Part(0, 1)),
        ({b"range": b"bytes=10-19"}, 206, Part(10, 10)),
        ({b"range": b"bytes=90-"}, 206, Part(90, 10)),
        ({b"range": b"bytes=90-1000"}, 206, Part(90, 10)),
        ({b"range": b"bytes=-10"}, 206, Part(90, 10)),
        ({b"range": b"bytes=-1000"}, 206, Part(0, 100)),
        ({b"range": b"bytes=-0"}, 416, None),
        ({b"range": b"bytes=100-"}, 416, None),
        ({b"range": b"bytes=9-1"}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-1,3-4"}, 200, Part(0, 100)),
        ({b"range": b"bytes=-"}, 200, Part(0, 100)),
        ({b"range": b"lines=1-2"}, 200, Part(0, 100)),
        ({b"range": b"bytes=" + b"9" * 30 + b"-"}, 200, Part(0, 100)),
        ({b"if-none-match": TAG}, 304, None),
        ({b"if-none-match": b"W/" + TAG}, 304, None),
        ({b"if-none-match": b'"x", ' + TAG}, 304, None),
        ({b"if-none-match": b"*"}, 304, None),
        ({b"if-none-match": b'"x"'}, 200, Part(0, 100)),
        ({b"if-none-match": b'"x"', b"if-modified-since": DATE}, 200, Part(0, 100)),
        ({b"if-modified-since": DATE}, 304, None),
        ({b"if-modified-since": AFTER}, 304, None),
        ({b"if-modified-since": BEFORE}, 200, Part(0, 100)),
        ({b"if-modified-since": b"yesterday"}, 200, Part(0, 100)),
        ({b"if-match": TAG}, 200, Part(0, 100)),
        ({b"if-match": b"*"}, 200, Part(0, 100)),
        ({b"if-match": b"W/" + TAG}, 412, None),
        ({b"if-match": b'"x"'}, 412, None),
        ({b"if-unmodified-since": BEFORE}, 412, None),
        ({b"if-unmodified-since": DATE}, 200, Part(0, 100)),
        ({b"if-match": TAG, b"if-unmodified-since": BEFORE}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-0", b"if-range": TAG}, 206, Part(0, 1)),
        ({b"range": b"bytes=0-0", b"if-range": b'"x"'}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-0", b"if-range": b"W/" + TAG}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-0", b"if-range": DATE}, 206, Part(0, 1)),
        ({b"range": b"bytes=0-0", b"if-range": AFTER}, 200, Part(0, 100)),
        ({b"range": b"bytes=0-0", b"if-none-match": TAG}, 304, None),
    ],
)
def test_a_verdict(headers: dict[bytes, bytes], status: int, part: Part | None) -> None:
    verdict = judge(headers, DIGEST, UPLOADED, SIZE)
    assert (verdict.status, verdict.part) == (status, part)
    sent = dict(verdict.headers)
    assert sent[b"etag"] == TAG
    assert sent[b"last-modified"] == DATE
    if status == 416:
        assert sent[b"content-range"] == b"bytes */100"


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_a_range_gives_the_bytes_of_a_slice(size: int, first: int, last: int | None) -> None:
    content = bytes(range(size))
    header = b"bytes=%d-" % first + (b"" if last is None else b"%d" % last)
    verdict = judge({b"range": header}, DIGEST, UPLOADED, size)
    if last is not None and last < first:
        assert verdict.status == 200
        return
    wanted = content[first : None if last is None else last + 1]
    if not wanted:
        assert verdict.status == 416
        return
    assert verdict.part is not None
    assert content[verdict.part.first : verdict.part.first + verdict.part.length] == wanted
    shown = b"bytes %d-%d/%d" % (first, first + len(wanted) - 1, size)
    assert dict(verdict.headers)[b"content-range"] == shown


@given(header=st.binary(max_size=40), name=st.sampled_from([b"range", b"if-match", b"if-none-match", b"if-range"]))
def test_no_header_breaks_it(header: bytes, name: bytes) -> None:
    verdict = judge({b"range": b"bytes=0-1"} | {name: header}, DIGEST, UPLOADED, SIZE)
    assert verdict.status in {200, 206, 304, 412, 416}
