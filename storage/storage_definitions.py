"""Where cold files lie: the definition of a storage, and the place that it resolves to.

A storage is a definition of kind `STORAGE` with its id as name. `local` is always there: the folder `cold` of the data
folder. What credentials mean, and which file system a definition of another type opens, is the SQL room's business; it
gives the engine a `StorageResolver` (`engine.cold.resolver`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from pyarrow import fs  # a server at rest does without it

STORAGE = "storage"
"""The object kind of storages."""
LOCAL = "local"
"""The storage that always exists."""
SHARED_TEMPLATE = "{namespace}/{tableName}"
USER_TEMPLATE = "{namespace}/{tableName}/{userId}"


class StorageDef(msgspec.Struct, frozen=True, kw_only=True):
    """A storage. `type` is filesystem, s3, gcs or azure; `base_directory` a path or a URI; times are microseconds.

    `credentials` are encrypted and never shown. `local` has an empty `base_directory`: it moves with the data folder.
    """

    storage_id: str
    name: str
    type: str
    base_directory: str
    description: str | None = None
    credentials: bytes | None = None
    config_json: str | None = None
    shared_tables_template: str = SHARED_TEMPLATE
    user_tables_template: str = USER_TEMPLATE
    created_at: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class ColdPlace:
    """A file system rooted at a storage's base, and how the folder of a table is named below it.

    `folder` is the base as a path of this machine, None for object stores: files there are synced and renamed.
    """

    filesystem: fs.FileSystem
    shared_template: str = SHARED_TEMPLATE
    user_template: str = USER_TEMPLATE
    folder: Path | None = None


class StorageResolver(Protocol):
    """Opens storages."""

    def place(self, storage_id: str) -> ColdPlace:
        """The place of a storage. Raises StorageUnavailable when there is none or it cannot be opened."""


def local_place(folder: Path, shared: str = SHARED_TEMPLATE, user: str = USER_TEMPLATE) -> ColdPlace:
    """A place below a folder of this machine, which is made when the first file is written."""
    from pyarrow import fs

    return ColdPlace(fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), shared, user, folder)
