"""SQL texts for logs: without what was written in quotes, so that passwords, keys and data stay out of them."""

from __future__ import annotations

import re
from typing import Final

_LITERALS: Final = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)"""
    r"""|(?P<string>(?<!\w)[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z)"""
    r"""|\$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z))""",
    re.DOTALL,
)
_SPACE: Final = re.compile(r"\s+")


def mask_literals(sql: str) -> str:
    """Replace every string literal of an SQL text by '***'; a quote that is never closed ends with the text."""
    return _LITERALS.sub(lambda match: "'***'" if match["string"] is not None else match[0], sql)


def masked(sql: str) -> str:
    """The same without comments, in one line: what may be kept for long."""

    def shown(match: re.Match[str]) -> str:
        if match["string"] is not None:
            return "'***'"
        return " " if match["comment"] is not None else match[0]

    return _SPACE.sub(" ", _LITERALS.sub(shown, sql)).strip()
