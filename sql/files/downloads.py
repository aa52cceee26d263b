"""Who may download which file: only one that a live row refers to, and only who may read that row.

The file's record, kept in the commits of the rows, says whether there is such a row and in whose partition. So a
download reads one record and no table.
"""

from __future__ import annotations

import re

import msgspec

from sql.audit import Acting, Origin
from sql.errors import FileNotFound, InvalidInput, PermissionDenied, StorageUnavailable, TableNotFound
from sql.files.references import decode_ref
from sql.identity import Identity
from sql.json_text import FileRef
from sql.rights import SHARED_PARTITION, may_impersonate, may_read
from sql.services import Services
from sql.storage_errors import storage_errors
from sql.system_tables import SYSTEM_NAMESPACES
from storage.blobs import BlobError, BlobReader
from storage.catalog import TableDef
from storage.file_records import FileKey, FileRecord, read_record
from storage.file_references import file_columns
from storage.snapshots import Snapshot

DOWNLOAD = "DOWNLOAD"
"""What the audit log calls it."""
_FOLDER = re.compile(r"f[0-9]{4}")
_ID = re.compile(r"([0-9]{1,19})([-.].+)?", re.DOTALL)
_NOT_IN_A_PATH = re.compile(r"\.\.|[/\\\x00]")


class FileRequest(msgspec.Struct, frozen=True):
    """What a download names. `file_id` is the id of a FileRef or the stored name; `user_id` is of the query string."""

    namespace: str
    table: str
    folder: str
    file_id: str
    user_id: str | None = None


class StoredFile(msgspec.Struct, frozen=True):
    """A file that may be read. `modified_us` is when it was uploaded."""

    key: FileKey
    record: FileRecord
    ref: FileRef

    @property
    def modified_us(self) -> int:
        """When it was uploaded, microseconds since the epoch."""
        return self.record.created_us


def find_file(services: Services, request: FileRequest, identity: Identity, acting: Acting | None = None) -> StoredFile:
    """The file, if the caller may read it. Raises InvalidInput, TableNotFound, PermissionDenied and FileNotFound.

    Asking for a file of another user is in the audit log like EXECUTE AS USER, allowed or not.
    """
    origin = acting or Origin(identity.user)
    for part in (request.namespace, request.table, request.folder, request.file_id):
        if not part or _NOT_IN_A_PATH.search(part):
            raise InvalidInput("Invalid file path")
    if request.namespace.lower() in SYSTEM_NAMESPACES:
        raise InvalidInput("System tables hold no files")
    with storage_errors(), services.engine.snapshot(purpose="file") as snapshot:
        table = _table(snapshot, request)
        user, is_allowed = _partition(snapshot, table, request, identity)
        if not is_allowed:
            services.audit.denied(origin, user, DOWNLOAD)
            raise PermissionDenied("Requested user is not allowed for the current role")
        if table.per_user and user != identity.user:
            services.audit.impersonated(origin, user, DOWNLOAD, [table.full_name])
        found = _ID.fullmatch(request.file_id)
        if found is None or not _FOLDER.fullmatch(request.folder):
            raise FileNotFound("File not found")
        key = table.table_id, int(found[1])
        with snapshot.reading() as reader:
            record = read_record(reader, key) if key[1] < 1 << 63 else None
    if (
        record is None
        or record.user != user
        or record.folder != request.folder
        or (found[2] and record.stored_name != request.file_id)
        or not record.is_live(file_columns(table))
    ):
        raise FileNotFound("File not found")
    return StoredFile(key, record, decode_ref(record.text))


def open_bytes(services: Services, file: StoredFile) -> BlobReader:
    """Open a file's bytes. Raises FileNotFound when they went meanwhile, StorageUnavailable if they cannot be read."""
    try:
        reader = None if services.files is None else services.files.open(file.key, file.record)
    except BlobError as error:
        raise StorageUnavailable(str(error)) from error
    if reader is None:
        raise FileNotFound("File not found")
    return reader


def _table(snapshot: Snapshot, request: FileRequest) -> TableDef:
    catalog = snapshot.catalog
    table = catalog.table(request.namespace, request.table) or catalog.table(
        request.namespace.lower(), request.table.lower()
    )
    if table is None:
        raise TableNotFound(f"Table '{request.namespace}.{request.table}' not found")
    if table.expires:
        raise InvalidInput(f"STREAM tables hold no files (table '{table.full_name}')")
    return table


def _partition(snapshot: Snapshot, table: TableDef, request: FileRequest, identity: Identity) -> tuple[str, bool]:
    """Whose files are asked for, and whether the caller may act as that user. Raises SqlError."""
    if not table.per_user:
        if not may_read(identity.role, table):
            role = identity.role.value
            raise PermissionDenied(f"Permission denied: role {role} may not read table '{table.full_name}'")
        if request.user_id is not None:
            raise InvalidInput(f"user_id is for USER tables; '{table.full_name}' is SHARED")
        return SHARED_PARTITION, True
    user = identity.user if request.user_id is None else request.user_id
    return user, user == identity.user or may_impersonate(identity, user, snapshot)
