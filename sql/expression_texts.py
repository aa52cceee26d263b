"""What compiled expressions compute with texts; the companion of `sql.expression_kernels`.

LOWER, UPPER and ILIKE are computed for ASCII only: for other letters DuckDB's tables are not Arrow's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sql.expression_kernels import all_true, strict
from sql.expression_nodes import Datum, Inputs, Node, NotCovered, RowFunction, boolean
from storage.types import BIGINT, TEXT


def like(value: Node, pattern: Node, *, folded: bool) -> Node:
    """LIKE, or with `folded` ILIKE; the pattern is the same for all rows."""

    def run(inputs: Inputs) -> Datum:
        wanted = pattern.run(inputs)
        if not isinstance(wanted, pa.Scalar):
            raise NotCovered("the pattern is not a constant")
        texts = value.run(inputs)
        if not wanted.is_valid:
            return pa.scalar(None, pa.bool_())
        text = wanted.as_py()
        if "\\" in text:
            raise NotCovered("Arrow reads a backslash as an escape")
        if folded:
            texts, text = _ascii_lower(texts), _ascii_lower(wanted).as_py()
        if isinstance(texts, pa.Scalar):
            return pc.match_like(pa.array([texts.as_py()], pa.string()), text)[0]
        return pc.match_like(texts, text)

    return boolean(run, _row_like(value, pattern, folded=folded))


def _row_like(value: Node, pattern: Node, *, folded: bool) -> RowFunction | None:
    """LIKE for one row, for literal patterns of texts between `%`: found from left to right, in linear time."""
    literal = pattern.literal
    if not isinstance(literal, str) or "_" in literal or "\\" in literal or (folded and not literal.isascii()):
        return None
    parts = (literal.lower() if folded else literal).split("%")
    first, last, middle = parts[0], parts[-1], [part for part in parts[1:-1] if part]

    def matches(text: Any) -> object:
        if folded:
            text = _row_case(str.lower)(text)
        if len(parts) == 1:
            return text == first
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return strict(matches, value)


def _ascii_lower(texts: Any) -> Any:
    if not _is_ascii(texts):
        raise NotCovered("letters beyond ASCII")
    return pc.ascii_lower(texts)


def _is_ascii(texts: Datum) -> bool:
    return all_true(pc.string_is_ascii(texts))


def concatenation(left: Node, right: Node) -> Node:
    """`left || right`, both TEXT."""

    def run(inputs: Inputs) -> Datum:
        return pc.binary_join_element_wise(left.run(inputs), right.run(inputs), "")

    return Node(TEXT, run, strict(operator.add, left, right))


def integer_text(node: Node) -> Node:
    """An integer as TEXT."""
    return Node(TEXT, lambda inputs: pc.cast(node.run(inputs), pa.string()), strict(str, node))


def lower(node: Node) -> Node:
    """LOWER of ASCII text."""
    return Node(TEXT, lambda inputs: _ascii_lower(node.run(inputs)), strict(_row_case(str.lower), node))


def upper(node: Node) -> Node:
    """UPPER of ASCII text."""

    def run(inputs: Inputs) -> Datum:
        texts = node.run(inputs)
        if not _is_ascii(texts):
            raise NotCovered("letters beyond ASCII")
        return pc.ascii_upper(texts)

    return Node(TEXT, run, strict(_row_case(str.upper), node))


def _row_case(convert: Callable[[str], str]) -> Callable[[Any], object]:
    def apply(text: Any) -> object:
        if not text.isascii():
            raise NotCovered("letters beyond ASCII")
        return convert(text)

    return apply


def length(node: Node) -> Node:
    """LENGTH of TEXT in code points, a BIGINT."""

    def run(inputs: Inputs) -> Datum:
        return pc.cast(pc.utf8_length(node.run(inputs)), pa.int64())

    return Node(BIGINT, run, strict(len, node))
