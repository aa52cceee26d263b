"""Which statement of a request an error came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sql.errors import ExecutionError, SqlError


@contextmanager
def numbered(position: int, *, applied: int) -> Iterator[None]:
    """Say of an error which statement (position from 0) it came from and how many before it took effect.

    Execution errors get the prefix `Statement N failed: `, as clients know it.
    """
    try:
        yield
    except SqlError as error:
        if error.statement is None:
            error.statement = position + 1
            error.applied = applied
            if type(error) is ExecutionError:
                error.message = f"Statement {position + 1} failed: {error.message}"
                error.args = (error.message,)
        raise
