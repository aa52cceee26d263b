"""Trying a storage out: write a small file, read it back, find it in a listing, delete it. STORAGE CHECK.

The probe's name is random, so that checks at the same time do not meet, and it lies in the base itself, where no table
has files.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow as pa

from sql.computed_results import result_of
from sql.errors import ExecutionError
from sql.results import StatementResult
from sql.storages.registry import require_storage
from sql.storages.rights import require_admin
from sql.system_tables import SystemColumn
from storage.errors import StorageError
from storage.seams import SYSTEM_CLOCK
from storage.storage_definitions import ColdPlace, StorageDef
from storage.types import BIGINT, BOOLEAN, DOUBLE, TEXT, TIMESTAMP

if TYPE_CHECKING:
    from sql.services import Services, StatementContext
    from sql.storages.registry import StorageRegistry
    from sql.storages.statements import StorageCheck

_LISTED: Final = 1_000_000
"""Files whose sizes EXTENDED adds up at most."""
_LONGEST_ERROR: Final = 500
_FAILURES: Final = (OSError, ValueError, pa.ArrowException, StorageError)

COLUMNS: Final = (
    SystemColumn("storage_id", TEXT, nullable=False),
    SystemColumn("status", TEXT, nullable=False),
    SystemColumn("readable", BOOLEAN, nullable=False),
    SystemColumn("writable", BOOLEAN, nullable=False),
    SystemColumn("listable", BOOLEAN, nullable=False),
    SystemColumn("deletable", BOOLEAN, nullable=False),
    SystemColumn("latency_ms", DOUBLE, nullable=False),
    SystemColumn("total_bytes", BIGINT),
    SystemColumn("used_bytes", BIGINT),
    SystemColumn("error", TEXT),
    SystemColumn("tested_at", TIMESTAMP, nullable=False),
)


class Probed(msgspec.Struct, frozen=True):
    """What worked; `errors` says of each step that failed why, secrets left out."""

    readable: bool
    writable: bool
    listable: bool
    deletable: bool
    latency_ms: float
    errors: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """healthy, degraded or unreachable."""
        worked = (self.readable, self.writable, self.listable, self.deletable)
        return "healthy" if all(worked) else "degraded" if any(worked) else "unreachable"


def probe(open_place: Callable[[], ColdPlace], secret: Iterable[str] = ()) -> Probed:
    """Try a place out. `secret` are texts that no error may show."""
    began = time.perf_counter()
    errors: list[str] = []
    name, content = f".headrace-probe-{secrets.token_hex(8)}", secrets.token_bytes(64)
    done: dict[str, bool] = {}

    def attempt(step: str, action: Callable[[], bool]) -> None:
        try:
            done[step] = action()
            if not done[step]:
                errors.append(f"{step}: what was written is not there")
        except _FAILURES as error:
            done[step] = False
            errors.append(f"{step}: {_shown(error, secret)}")

    try:
        place = open_place()
    except _FAILURES as error:
        return Probed(False, False, False, False, _since(began), (f"open: {_shown(error, secret)}",))
    attempt("write", lambda: _write(place, name, content))
    if done["write"]:
        attempt("read", lambda: _read(place, name) == content)
    attempt("list", lambda: name in set(_names(place)) or not done["write"])
    if done["write"]:
        attempt("delete", lambda: _delete(place, name))
    return Probed(
        done.get("read", False), done["write"], done["list"], done.get("delete", False), _since(began), tuple(errors)
    )


def require_healthy(storage: StorageDef, probed: Probed) -> None:
    """Raise ExecutionError unless everything worked."""
    if probed.status != "healthy":
        raise ExecutionError(
            f"Invalid operation: Storage '{storage.storage_id}' is {probed.status}: {probed.errors[0]}"
        )


def check_storage(statement: StorageCheck, context: StatementContext, services: Services) -> StatementResult:
    """STORAGE CHECK id [EXTENDED]: for dba and system."""
    require_admin(context.identity, "check storages")
    registry = services.storages
    with services.snapshot(context) as snapshot:
        storage = require_storage(snapshot, statement.storage_id)
    context.control.check()
    secret = secrets_of(registry, storage)
    tested = SYSTEM_CLOCK.now_us()
    probed = probe(lambda: registry.open(storage), secret)
    total = used = None
    errors = list(probed.errors)
    if statement.extended and probed.listable:
        try:
            total, used = _sizes(registry.open(storage), context.control.check)
        except _FAILURES as error:
            errors.append(f"sizes: {_shown(error, secret)}")
    row = (
        storage.storage_id, probed.status, probed.readable, probed.writable, probed.listable, probed.deletable,
        round(probed.latency_ms, 3), total, used, "; ".join(errors) or None, tested,
    )  # fmt: skip
    return result_of(COLUMNS, [row])


def secrets_of(registry: StorageRegistry, storage: StorageDef) -> tuple[str, ...]:
    """The values of a storage's credentials, to be left out of what is said."""
    if storage.credentials is None:
        return ()
    with suppress(StorageError):  # then they cannot be in an error either
        values: Mapping[str, object] = msgspec.json.decode(
            registry.vault.unseal(storage.storage_id, storage.credentials), type=dict[str, object]
        )
        return tuple(str(value) for value in values.values())
    return ()


def _write(place: ColdPlace, name: str, content: bytes) -> bool:
    if place.folder is not None:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with place.filesystem.open_output_stream(name) as stream:
        stream.write(content)
    return True


def _read(place: ColdPlace, name: str) -> bytes:
    with place.filesystem.open_input_stream(name) as stream:
        data: bytes = stream.read()
    return data


def _delete(place: ColdPlace, name: str) -> bool:
    from pyarrow import fs

    place.filesystem.delete_file(name)
    found: fs.FileInfo = place.filesystem.get_file_info(name)
    return bool(found.type == fs.FileType.NotFound)


def _names(place: ColdPlace) -> Iterator[str]:
    from pyarrow import fs

    if place.folder is not None and not place.folder.is_dir():
        raise NotADirectoryError(f"'{place.folder}' is not a folder")
    for info in place.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True)):
        yield info.path.lstrip("/")


def _sizes(place: ColdPlace, check: Callable[[], None]) -> tuple[int | None, int]:
    """The size of the disk, where there is one, and what the files below the base take."""
    from pyarrow import fs

    used = 0
    total = None
    if place.folder is not None:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        total = shutil.disk_usage(place.folder).total
    left = [""]
    counted = 0
    while left:
        check()
        for info in place.filesystem.get_file_info(fs.FileSelector(left.pop(), allow_not_found=True)):
            if info.type == fs.FileType.Directory:
                left.append(info.path)
            else:
                used += info.size or 0
                counted += 1
        if counted > _LISTED:
            raise ValueError(f"there are more than {_LISTED:,} files")
    return total, used


def _shown(error: BaseException, secret: Iterable[str]) -> str:
    text = " ".join(str(error).split())
    for value in secret:
        text = text.replace(value, "***")
    return text[:_LONGEST_ERROR]


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
