"""The data folder: made on the first start, readable by its owner only."""

from __future__ import annotations

from pathlib import Path


class DataFolderError(Exception):
    """The folder cannot be used; the message is a sentence."""


def prepare(path: Path) -> Path:
    """Make the folder if it is missing; returns its absolute path."""
    path = path.expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise DataFolderError(f"The data folder {path} is a file.") from None
    except OSError as error:
        raise DataFolderError(f"The data folder {path} cannot be made: {error.strerror}.") from error
    if not path.is_dir():
        raise DataFolderError(f"The data folder {path} is not a folder.")
    return path
