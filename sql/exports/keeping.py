"""Removes exports whose time is over, and what a crash has left of unfinished ones."""

from __future__ import annotations

from sql.exports.definitions import EXPORT_ID, EXPORT_KIND, UNFINISHED, ExportDef, ExportSettings
from storage.engine import StorageEngine
from storage.seams import SYSTEM_CLOCK, Clock
from storage.writer import WriteTransaction


class ExportKeeper:
    """What is done at the start, and now and then. A download refuses an export that has expired at once."""

    def __init__(self, engine: StorageEngine, settings: ExportSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock

    def clear_away(self) -> int:
        """Before jobs run: remove files that no export is known of, left by a crash; how many."""
        if not self._settings.folder.is_dir():
            return 0
        with self._engine.snapshot(purpose="exports") as snapshot:
            known = {one.export_id for one in snapshot.list_objects(EXPORT_KIND, ExportDef)}
        strays = list(self._settings.folder.glob(f"*{UNFINISHED}"))
        archives = self._settings.folder.glob("*.zip")
        strays += [path for path in archives if EXPORT_ID.fullmatch(path.stem) and path.stem not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def remove_expired(self) -> int:
        """Remove what has expired; how many exports."""
        now = self._clock.now_us()
        with self._engine.snapshot(purpose="exports") as snapshot:
            old = [one.export_id for one in snapshot.list_objects(EXPORT_KIND, ExportDef) if one.expires_at <= now]
        for name in old:
            self._settings.path(name).unlink(missing_ok=True)

        def forget(writer: WriteTransaction) -> None:
            for name in old:
                writer.delete_object(EXPORT_KIND, name)

        if old:
            self._engine.commit_sync(forget)
        return len(old)
