"""From a request's text to its statements, with the checks that every request gets."""

from __future__ import annotations

from collections.abc import Sequence

from sql.dialect import parse_batch
from sql.errors import InvalidParameter, InvalidSql
from sql.statements import Parsed


def parse_request(sql: str, parameters: int, *, max_statements: int) -> list[Parsed]:
    """The statements of a request that brings so many parameters and no files; exactly those must be used.

    Raises InvalidSql, BatchParseError, EmptySql, Unsupported, InvalidParameter and, for FILE("name"), InvalidInput.
    """
    batch = parse_statements(sql, parameters, max_statements=max_statements)
    if "file" in sql.lower():
        from sql.files.placeholders import refuse_placeholders

        refuse_placeholders(batch)
    return batch


def parse_statements(sql: str, parameters: int, *, max_statements: int) -> list[Parsed]:
    """The statements of a request that may bring files, as `parse_request`."""
    if "\0" in sql:
        raise InvalidSql("The SQL text contains a NUL character.")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise InvalidSql("The SQL text contains a lone surrogate, which is no character.") from None
    batch = parse_batch(sql, max_statements=max_statements)
    check_parameters(batch, parameters)
    return batch


def check_parameters(batch: Sequence[Parsed], parameters: int) -> None:
    """Raise InvalidParameter unless the statements use exactly so many parameters."""
    used = frozenset().union(*(parsed.parameters for parsed in batch))
    for index in sorted(used):
        if index > parameters:
            raise InvalidParameter(f"Parameter ${index} is missing: the request has {parameters} parameter(s).")
    for index in range(1, parameters + 1):
        if index not in used:
            raise InvalidParameter(
                f"Parameter ${index} is not used: the request has {parameters} parameter(s), "
                f"the SQL uses {', '.join(f'${n}' for n in sorted(used)) or 'none'}."
            )
