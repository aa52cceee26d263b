"""What a download's conditions and range ask for (RFC 9110, sections 13 and 14): a verdict from headers alone.

One range is served; a request for several gets the whole file, as a server may do. Times have seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

_RANGE = re.compile(rb"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*")
_TAG = re.compile(rb'(?:W/)?"[^"]*"')

Headers = list[tuple[bytes, bytes]]


class Part(NamedTuple):
    """The bytes to send."""

    first: int
    length: int


class Verdict(NamedTuple):
    """How to answer. Without a part, with `code` and `sentence` (but for 304)."""

    status: int
    headers: Headers
    part: Part | None
    code: str = ""
    sentence: str = ""


def judge(headers: Mapping[bytes, bytes], digest: str, modified_us: int, size: int) -> Verdict:
    """The answer to a download of a file with this SHA-256 (hexadecimal), upload time and size in bytes."""
    tag = b'"%b"' % digest.encode()
    modified = modified_us // 1_000_000
    validators = [
        (b"etag", tag),
        (b"last-modified", formatdate(modified, usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
    ]
    if_match = headers.get(b"if-match")
    since = _seconds(headers.get(b"if-unmodified-since"))
    if (if_match is not None and not _names(if_match, tag, weakly=False)) or (
        if_match is None and since is not None and modified > since
    ):
        return Verdict(412, validators, None, "PRECONDITION_FAILED", "The file is not the one of If-Match")
    if_none_match = headers.get(b"if-none-match")
    since = _seconds(headers.get(b"if-modified-since"))
    if (if_none_match is not None and _names(if_none_match, tag, weakly=True)) or (
        if_none_match is None and since is not None and modified <= since
    ):
        return Verdict(304, validators, None)
    wanted = headers.get(b"range")
    if wanted is None or not _range_holds(headers.get(b"if-range"), tag, modified):
        return Verdict(200, validators, Part(0, size))
    found = _RANGE.fullmatch(wanted)
    if found is None or found[1] == found[2] == b"" or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return Verdict(200, validators, Part(0, size))  # not a range that we know: it is ignored
    part = _part(found[1], found[2], size)
    if part is None:
        unmet = [*validators, (b"content-range", b"bytes */%d" % size)]
        return Verdict(
            416, unmet, None, "RANGE_NOT_SATISFIABLE", f"The file has {size} bytes; the range has none of them"
        )
    shown = b"bytes %d-%d/%d" % (part.first, part.first + part.length - 1, size)
    return Verdict(206, [*validators, (b"content-range", shown)], part)


def _part(first: bytes, last: bytes, size: int) -> Part | None:
    """The bytes of a range, cut at the file's end; None when it has none."""
    if not first:
        length = min(int(last), size)
        return Part(size - length, length) if length else None
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    return Part(start, end - start + 1) if start < size else None


def _names(header: bytes, tag: bytes, *, weakly: bool) -> bool:
    """Whether a list of entity tags names this one."""
    if header.strip() == b"*":
        return True
    found = (match[0] for match in _TAG.finditer(header))
    return any((given.removeprefix(b"W/") if weakly else given) == tag for given in found)


def _range_holds(if_range: bytes | None, tag: bytes, modified: int) -> bool:
    """Whether a range still means the bytes that the client has the rest of."""
    if if_range is None:
        return True
    given = if_range.strip()
    return given == tag if given.startswith((b'"', b"W/")) else _seconds(given) == modified


def _seconds(header: bytes | None) -> int | None:
    """A date as seconds since the epoch; None for none, and for what is no date, which is ignored."""
    if header is None:
        return None
    try:
        return int(parsedate_to_datetime(header.decode("latin-1").strip()).timestamp())
    except (ValueError, OverflowError, TypeError):
        return None
