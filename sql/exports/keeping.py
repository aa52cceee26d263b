"""Removes exports whose time is over, and what a crash has left of unfinished ones."""

from __future__ import annotations

import logging
import threading

from sql.exports.definitions import EXPORT_ID, EXPORT_KIND, UNFINISHED, ExportDef, ExportSettings
from storage.engine import StorageEngine
from storage.errors import StorageError
from storage.seams import SYSTEM_CLOCK, Clock
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.exports")

_INTERVAL = 3_600.0


class ExportKeeper:
    """A thread that looks for expired exports every hour; a download refuses them at once. `start` and `stop` it."""

    def __init__(self, engine: StorageEngine, settings: ExportSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-exports", daemon=True)

    def start(self) -> None:
        """Clear away what was left, and begin. Call it before jobs run. Raises StorageError."""
        if self._settings.folder.is_dir():
            for path in self._settings.folder.glob(f"*{UNFINISHED}"):
                path.unlink(missing_ok=True)
            self.remove_strays()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def remove_expired(self) -> int:
        """Remove what has expired; how many exports."""
        now = self._clock.now_us()
        with self._engine.snapshot(purpose="exports") as snapshot:
            known = {one.export_id: one for one in snapshot.list_objects(EXPORT_KIND, ExportDef)}
        old = [name for name, one in known.items() if one.expires_at <= now]
        for name in old:
            self._settings.path(name).unlink(missing_ok=True)

        def forget(writer: WriteTransaction) -> None:
            for name in old:
                writer.delete_object(EXPORT_KIND, name)

        if old:
            self._engine.commit_sync(forget)
        return len(old)

    def remove_strays(self) -> int:
        """Remove files that no export is known of: of a crash between the file and its record. Before jobs run."""
        if not self._settings.folder.is_dir():
            return 0
        with self._engine.snapshot(purpose="exports") as snapshot:
            known = {one.export_id for one in snapshot.list_objects(EXPORT_KIND, ExportDef)}
        strays = [
            path
            for path in self._settings.folder.glob("*.zip")
            if EXPORT_ID.fullmatch(path.stem) and path.stem not in known
        ]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            try:
                self.remove_expired()
            except (StorageError, OSError) as error:
                if not self._stopping.is_set():
                    log.warning("exports that have expired could not be removed yet: %s", error)
            wait = _INTERVAL
