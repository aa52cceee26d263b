"""`headrace check`: reports every inconsistency of a data folder, also of one that is being served.

Exit codes: 0 nothing found, 1 something found or the folder cannot be opened.
"""

from __future__ import annotations

import sys
from pathlib import Path

import storage.check
from storage.errors import StorageError


def check(folder: Path) -> int:
    """Print one line a problem, or that there is none; returns the exit code."""
    try:
        problems = storage.check.check(folder)
    except (StorageError, OSError) as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for problem in problems:
        print(problem)  # noqa: T201
    if not problems:
        print(f"{folder} is consistent.")  # noqa: T201
    return 1 if problems else 0
