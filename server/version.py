"""What is running: the version and the date of the files."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path


@cache
def version() -> str:
    """The version of the installed distribution."""
    from importlib import metadata

    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "0+unknown"


@cache
def build_date() -> str:
    """When the newest of the server's files was changed, RFC 3339."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.rglob("*.py"))
    return dt.datetime.fromtimestamp(newest, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
