"""What is stored about an export, and what is configured about all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

EXPORT_KIND: Final = "export"
"""Object kind of `ExportDef`, by export id, which is the id of the job that made it."""
FORMATS: Final = ("csv", "parquet")
EXPORT_ID: Final = re.compile(r"UE-[0-9a-f]{23}")
UNFINISHED: Final = ".part"


class ExportDef(msgspec.Struct, frozen=True):
    """An export that can be downloaded. Times are microseconds since the epoch."""

    export_id: str
    user: str
    nbytes: int
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Where exports lie, how long they are kept (seconds), and how large one may be (bytes)."""

    folder: Path
    retention: float = 7 * 86_400.0
    max_bytes: int = 16 << 30

    def path(self, export_id: str) -> Path:
        """The file of an export. Raises ValueError for what is no id."""
        if EXPORT_ID.fullmatch(export_id) is None:
            raise ValueError("not the id of an export")
        return self.folder / f"{export_id}.zip"
