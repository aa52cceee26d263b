"""File names that clients send, and how an answer says them (RFC 6266, RFC 8187)."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

MAX_NAME = 255
UNNAMED = "file"

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NOT_QUOTABLE = re.compile(r"[^\x20-\x7e]|[\"\\%;]")
_ATTR_CHARS = "!#$&+-.^_`|~"


def file_name(raw: bytes | None) -> str:
    """The name of an uploaded file; `file` when there is none. Raises ValueError with what is wrong with it."""
    if not raw:
        return UNNAMED
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if len(name) > MAX_NAME:
        raise ValueError(f"has {len(name)} characters, at most {MAX_NAME} are allowed")
    if "/" in name or "\\" in name or name in {".", ".."}:
        raise ValueError("is a path; send the name alone")
    for character in name:
        if character in _BIDI or unicodedata.category(character) in {"Cc", "Zl", "Zp", "Co", "Cn"}:
            raise ValueError(f"has the character U+{ord(character):04X}, which names may not have")
    if not name.strip():
        raise ValueError("is blank")
    return name


def disposition(kind: str, name: str) -> str:
    """`Content-Disposition`: a plain name for old clients, and the exact one when it is not plain."""
    plain = _NOT_QUOTABLE.sub("_", name)
    header = f'{kind}; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"
