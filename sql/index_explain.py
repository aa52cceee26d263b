"""Accesses by index in words, for EXPLAIN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sql.plan import Bound, Constant, IndexAccess, IndexOrder, ListRef, Operand, Scan

_SHOWN_VALUE = 40
_SHOWN_VALUES = 5


def describe_indexes(scan: Scan) -> Iterator[str]:
    """A line for each index that a scan may use; it takes the one with the fewest entries, if they are few."""
    for access in scan.indexes:
        yield f"index: {describe_access(access)}"


def describe_order(order: IndexOrder) -> str:
    """An order by index."""
    direction = " descending" if order.descending else ""
    return f"{', '.join(order.columns)}{direction}, as in index {describe_access(order.access)}"


def describe_access(access: IndexAccess) -> str:
    """`name (a = 1, b > 2)`."""
    terms = [_equality(name, choices) for name, choices in zip(access.columns, access.equal, strict=False)]
    if len(terms) < len(access.columns):
        name = access.columns[len(terms)]
        terms += [f"{name} {sign('>', bound)} {operand_text(bound.operand)}" for bound in (access.low,) if bound]
        terms += [f"{name} {sign('<', bound)} {operand_text(bound.operand)}" for bound in (access.high,) if bound]
    return f"{access.name} ({', '.join(terms)})" if terms else access.name


def _equality(name: str, choices: Sequence[Operand | ListRef]) -> str:
    if len(choices) == 1:
        [choice] = choices
        if isinstance(choice, ListRef):
            return f"{name} = ANY (${choice.index})"
        if choice == Constant(None):
            return f"{name} IS NULL"
        return f"{name} = {operand_text(choice)}"
    shown = [operand_text(choice) for choice in choices[:_SHOWN_VALUES] if not isinstance(choice, ListRef)]
    more = ", …" if len(choices) > _SHOWN_VALUES else ""
    return f"{name} IN ({', '.join(shown)}{more})"


def sign(text: str, bound: Bound) -> str:
    """`>` or `>=`."""
    return f"{text}=" if bound.inclusive else text


def operand_text(operand: Operand) -> str:
    """A value or `$n`, cut to 40 characters."""
    if not isinstance(operand, Constant):
        return f"${operand.index}"
    text = operand.value.hex() if isinstance(operand.value, bytes) else str(operand.value)
    return text if len(text) <= _SHOWN_VALUE else text[: _SHOWN_VALUE - 1] + "…"
