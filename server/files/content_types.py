"""Types of uploaded files: what the part says, what the bytes say, and what the configuration allows.

`puremagic` knows the signatures: pure Python without a system library, and kept up to date. (`filetype` has had no
release since 2022, `python-magic` needs libmagic on the machine.) Text has no signature; it is told by its characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from sql.errors import InvalidMimeType

HEAD_BYTES = 8192
"""How much of a file its type is told by."""
TEXT = "text/plain"
BINARY = "application/octet-stream"

_WORD = r"[a-z0-9!#$&^_.+-]{1,127}"
_TYPE = re.compile(f"{_WORD}/{_WORD}")
_TEXTUAL = re.compile(
    r"text/.+|.+\+(json|xml|yaml)|application/(x-)?(json|ndjson|jsonl|xml|yaml|toml|javascript|sql|sh)"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


class Sniffed(NamedTuple):
    """What the bytes say: the likeliest type first. `known`: by a signature, not only that it is or is no text."""

    types: tuple[str, ...]
    known: bool


class TypeRules:
    """Which types may be uploaded; none named: all."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._exact = frozenset(pattern for pattern in allowed if not pattern.endswith("/*"))
        self._families = tuple(pattern[:-1] for pattern in allowed if pattern.endswith("/*"))
        self.open = not allowed or "*/*" in allowed

    def check_declared(self, part: str, declared: str | None) -> None:
        """Refuse a type before the file comes. Raises InvalidMimeType."""
        if declared is not None and not self.allows(declared):
            raise _refused(part, declared)

    def settle(self, part: str, declared: str | None, head: bytes, name: str) -> str:
        """The file's type; raises InvalidMimeType when it, or what the bytes are, is not allowed."""
        if self.open and declared is not None:
            return declared
        sniffed = sniff(head, name)
        mime = sniffed.types[0] if declared is None else declared
        if self.open:
            return mime
        if not self.allows(mime):
            raise _refused(part, mime)
        if declared is not None and not self._bears_out(declared, sniffed):
            raise InvalidMimeType(f"Part '{part}' says that it is {declared}, but its bytes are {sniffed.types[0]}")
        return mime

    def allows(self, mime: str) -> bool:
        """Whether a type may be uploaded."""
        return self.open or mime in self._exact or mime.startswith(self._families or ("\0",))

    def _bears_out(self, declared: str, sniffed: Sniffed) -> bool:
        """Whether the bytes are of an allowed type, too, as far as they tell."""
        if declared in sniffed.types:
            return True
        if sniffed.known:
            return any(self.allows(mime) for mime in sniffed.types)
        if sniffed.types[0] == TEXT and _TEXTUAL.fullmatch(declared):
            return True
        return not declared.startswith("text/") and declared not in _with_signature()


def declared_type(header: str) -> str | None:
    """The type of a part's Content-Type; None for an empty one. Raises ValueError for what is none."""
    mime = header.partition(";")[0].strip().lower()
    if not mime:
        return None
    if not _TYPE.fullmatch(mime):
        raise ValueError(f"'{mime[:100]}' is no media type")
    return mime


def sniff(head: bytes, name: str = "") -> Sniffed:
    """What a file's first bytes are; the name only decides between formats with the same signature."""
    import puremagic  # loads its table of signatures: only where files are uploaded

    try:
        matches = [match for match in puremagic.magic_string(head, filename=name or None) if match.byte_match]
    except (puremagic.PureError, ValueError):
        matches = []
    best = max((match.confidence for match in matches), default=0.0)
    found = dict.fromkeys(match.mime_type for match in matches if match.confidence == best and match.mime_type)
    if found:
        zipped = ["application/zip"] if head.startswith(b"PK\3\4") and len(found) > 1 else []
        return Sniffed((*zipped, *found), True)
    return Sniffed((TEXT if head and _is_text(head) else BINARY,), bool(matches))


def _is_text(head: bytes) -> bool:
    if _CONTROL.search(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return False
    return True


@cache
def _with_signature() -> frozenset[str]:
    import puremagic

    return frozenset(signature.mime_type for signature in puremagic.magic_header_array)


def _refused(part: str, mime: str) -> InvalidMimeType:
    return InvalidMimeType(f"Part '{part}' is of type {mime}, which may not be uploaded")
