"""Which storages there are, and the file system of each: what the cold tier asks (`storage.StorageResolver`).

`local` is always there. Its definition is stored once somebody alters it; until then it is made up here.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa

from sql.errors import ExecutionError
from sql.storages.credentials import CredentialVault
from sql.storages.filesystems import RemoteTimeouts, folder_of_base, open_filesystem, read_options
from storage.engine import StorageEngine
from storage.errors import StorageUnavailable
from storage.storage_definitions import LOCAL, STORAGE, ColdPlace, StorageDef, local_place
from storage.views import ReadView

LOCAL_FOLDER = "cold"
"""The folder of `local` in the data folder."""


def storage_of(view: ReadView, storage_id: str) -> StorageDef | None:
    """A storage's definition."""
    found = view.get_object(STORAGE, storage_id, StorageDef)
    return _local(view) if found is None and storage_id == LOCAL else found


def storages_of(view: ReadView) -> list[StorageDef]:
    """All storages, by id."""
    found = list(view.list_objects(STORAGE, StorageDef))
    if not any(storage.storage_id == LOCAL for storage in found):
        found.append(_local(view))
    return sorted(found, key=lambda storage: storage.storage_id)


def require_storage(view: ReadView, storage_id: str) -> StorageDef:
    """A storage's definition. Raises ExecutionError."""
    found = storage_of(view, storage_id)
    if found is None:
        raise ExecutionError(f"Not found: Storage '{storage_id[:80]}' does not exist")
    return found


def _local(view: ReadView) -> StorageDef:
    oldest = min((namespace.created_at for namespace in view.catalog.namespaces()), default=0)
    return StorageDef(
        storage_id=LOCAL, name="Local", type="filesystem", base_directory="", created_at=oldest, updated_at=oldest,
        description="The folder cold of the data folder",
    )  # fmt: skip


class StorageRegistry:
    """Opens storages and remembers them until their definition changes. Safe from any thread."""

    def __init__(self, engine: StorageEngine, timeouts: RemoteTimeouts | None = None) -> None:
        self.timeouts = timeouts or RemoteTimeouts()
        self.vault = CredentialVault(engine.path)
        self.data_folder: Path = engine.path
        self._engine = engine
        self._lock = threading.Lock()
        self._opened: dict[str, ColdPlace] = {}
        self._generation = 0
        engine.watch_objects(self._on_objects)

    def place(self, storage_id: str) -> ColdPlace:
        """The place of a storage. Raises StorageUnavailable when there is none or it cannot be opened."""
        with self._lock:
            generation = self._generation
            known = self._opened.get(storage_id)
        if known is not None:
            return known
        with self._engine.snapshot(purpose="opening a storage") as snapshot:
            storage = storage_of(snapshot, storage_id)
        if storage is None:
            raise StorageUnavailable(f"storage '{storage_id}' does not exist")
        try:
            place = self.open(storage)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StorageUnavailable(f"storage '{storage_id}' cannot be opened: {error}") from error
        with self._lock:
            if generation == self._generation:  # else a newer definition may be there
                self._opened[storage_id] = place
        return place

    def open(self, storage: StorageDef) -> ColdPlace:
        """The place of a definition, which need not be stored yet. Raises OSError, ValueError, ArrowException."""
        if storage.storage_id == LOCAL:
            folder = self.data_folder / LOCAL_FOLDER
            return local_place(folder, storage.shared_tables_template, storage.user_tables_template)
        text = None if storage.credentials is None else self.vault.unseal(storage.storage_id, storage.credentials)
        system = open_filesystem(
            storage.type,
            storage.base_directory,
            read_options(storage.type, "CONFIG", storage.config_json),
            read_options(storage.type, "CREDENTIALS", text),
            self.timeouts,
        )
        folder_there = folder_of_base(storage.type, storage.base_directory)
        return ColdPlace(system, storage.shared_tables_template, storage.user_tables_template, folder_there)

    def figures(self) -> dict[str, int]:
        """Figures for system.stats. May block."""
        with self._engine.snapshot(purpose="counting storages") as snapshot:
            return {"total_storages": len(storages_of(snapshot))}

    def shown_base(self, storage: StorageDef) -> str:
        """The base as it is shown."""
        return storage.base_directory or str(self.data_folder / LOCAL_FOLDER)

    def _on_objects(self, objects: tuple[tuple[str, str], ...] | None) -> None:
        """On the writer's thread: forget what was opened when definitions of storages change."""
        if objects is None or any(kind == STORAGE for kind, _ in objects):
            with self._lock:
                self._generation += 1
                self._opened.clear()
