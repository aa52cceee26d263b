"""CREATE, ALTER and DROP STORAGE.

A new or changed storage is tried out before its definition is committed: then it can be written to, read, listed and
deleted from. The trial takes as long as the network does and so runs outside of the writer; what it does not depend on
is looked at again inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sql.audited import action_of
from sql.errors import ExecutionError
from sql.results import StatementResult
from sql.storage_errors import storage_errors
from sql.storages.filesystems import check_config, check_credentials, read_options
from sql.storages.locations import base_of, check_apart, check_storage_id, check_template
from sql.storages.probe import probe, require_healthy, secrets_of
from sql.storages.registry import require_storage, storage_of, storages_of
from sql.storages.rights import require_admin
from storage.storage_definitions import LOCAL, SHARED_TEMPLATE, STORAGE, USER_TEMPLATE, StorageDef

if TYPE_CHECKING:
    from sql.services import Services, StatementContext
    from sql.storages.registry import StorageRegistry
    from sql.storages.statements import AlterStorage, CreateStorage, DropStorage
    from storage.writer import WriteTransaction

MAX_STORAGES = 1_000
MAX_TEXT = 10_000


def create_storage(statement: CreateStorage, context: StatementContext, services: Services) -> StatementResult:
    """CREATE STORAGE: for dba and system."""
    require_admin(context.identity, "create storages")
    registry, clauses, kind = services.storages, statement.clauses, statement.type
    check_storage_id(statement.storage_id)
    message = f"Storage '{statement.storage_id}' already exists"
    with storage_errors(), services.snapshot(context) as snapshot:
        if storage_of(snapshot, statement.storage_id) is not None:
            if statement.if_not_exists:
                return StatementResult(message=f"{message} (skipped)")
            raise ExecutionError(f"Already exists: {message}")
    config = read_options(kind, "CONFIG", clauses.config, clauses.region)
    check_config(kind, config)
    storage = StorageDef(
        storage_id=statement.storage_id,
        name=_text("NAME", clauses.name) or statement.storage_id,
        type=kind,
        base_directory=base_of(kind, clauses),
        description=_text("DESCRIPTION", clauses.description),
        credentials=_sealed(registry, statement.storage_id, kind, clauses.credentials),
        config_json=msgspec.json.encode(config, order="deterministic").decode() if config else None,
        shared_tables_template=check_template(clauses.shared_template or SHARED_TEMPLATE, user=False),
        user_tables_template=check_template(clauses.user_template or USER_TEMPLATE, user=True),
    )

    def allowed(wtxn: WriteTransaction) -> None:
        others = storages_of(wtxn)
        if len(others) > MAX_STORAGES:
            raise ExecutionError(f"Invalid operation: there are at most {MAX_STORAGES:,} storages")
        check_apart(storage.base_directory, registry.data_folder, others)

    with storage_errors(), services.snapshot(context) as snapshot:
        check_apart(storage.base_directory, registry.data_folder, storages_of(snapshot))
    _try_out(registry, storage, context)

    def work(wtxn: WriteTransaction) -> None:
        if storage_of(wtxn, storage.storage_id) is not None:
            raise ExecutionError(f"Already exists: {message}")
        allowed(wtxn)
        now = wtxn.now_us()
        put = msgspec.structs.replace(storage, created_at=now, updated_at=now)
        wtxn.put_object(STORAGE, storage.storage_id, put)
        details = {"type": put.type, "base_directory": put.base_directory}
        services.audit.record(wtxn, context, action_of(statement), put.storage_id, details)

    with storage_errors():
        services.engine.commit_sync(work)
    return StatementResult(message=f"Storage '{storage.storage_id}' created successfully")


def alter_storage(statement: AlterStorage, context: StatementContext, services: Services) -> StatementResult:
    """ALTER STORAGE: for dba and system."""
    require_admin(context.identity, "alter storages")
    registry, clauses = services.storages, statement.clauses
    with storage_errors(), services.snapshot(context) as snapshot:
        before = require_storage(snapshot, statement.storage_id)
    if before.storage_id == LOCAL and (clauses.config is not None or clauses.credentials is not None):
        raise ExecutionError("Invalid operation: Storage 'local' is a folder and has no CONFIG and no CREDENTIALS")
    changes: dict[str, object] = {}
    if clauses.name is not None:
        changes["name"] = _text("NAME", clauses.name) or before.storage_id
    if clauses.description is not None:
        changes["description"] = _text("DESCRIPTION", clauses.description)
    if clauses.shared_template is not None:
        changes["shared_tables_template"] = check_template(clauses.shared_template, user=False)
    if clauses.user_template is not None:
        changes["user_tables_template"] = check_template(clauses.user_template, user=True)
    if clauses.config is not None:
        config = read_options(before.type, "CONFIG", clauses.config)
        check_config(before.type, config)
        changes["config_json"] = msgspec.json.encode(config, order="deterministic").decode() if config else None
    if clauses.credentials is not None:
        changes["credentials"] = _sealed(registry, before.storage_id, before.type, clauses.credentials)
    after = msgspec.structs.replace(before, **changes)
    if {"config_json", "credentials"} & changes.keys():
        _try_out(registry, after, context)

    def work(wtxn: WriteTransaction) -> None:
        present = require_storage(wtxn, statement.storage_id)
        put = msgspec.structs.replace(present, **changes, updated_at=wtxn.now_us())
        wtxn.put_object(STORAGE, put.storage_id, put)
        services.audit.record(wtxn, context, action_of(statement), put.storage_id, {"changed": sorted(changes)})

    with storage_errors():
        services.engine.commit_sync(work)
    return StatementResult(message=f"Storage '{after.storage_id}' altered successfully")


def drop_storage(statement: DropStorage, context: StatementContext, services: Services) -> StatementResult:
    """DROP STORAGE: for dba and system. Files that lie there and belong to no table of ours stay."""
    require_admin(context.identity, "drop storages")
    storage_id = statement.storage_id
    with storage_errors(), services.snapshot(context) as snapshot:
        if storage_of(snapshot, storage_id) is None:
            if statement.if_exists:
                return StatementResult(message=f"Storage '{storage_id[:80]}' does not exist (skipped)")
            require_storage(snapshot, storage_id)
    if storage_id == LOCAL:
        raise ExecutionError("Invalid operation: Storage 'local' cannot be dropped")

    def work(wtxn: WriteTransaction) -> None:
        require_storage(wtxn, storage_id)
        tables = {t.table_id for t in wtxn.catalog.tables() if t.options.get("storage_id", LOCAL) == storage_id}
        files = [segment for segment in wtxn.segments() if segment.storage_id == storage_id]
        known = {segment.table_id for segment in files if wtxn.catalog.table_by_id(segment.table_id) is not None}
        if tables | known:
            raise ExecutionError(f"Cannot drop storage '{storage_id}': {len(tables | known)} table(s) still using it")
        if files:
            raise ExecutionError(
                f"Cannot drop storage '{storage_id}': {len(files)} file(s) of dropped tables are still to be deleted"
            )
        wtxn.delete_object(STORAGE, storage_id)
        services.audit.record(wtxn, context, action_of(statement), storage_id)

    with storage_errors():
        services.engine.commit_sync(work)
    return StatementResult(message=f"Storage '{storage_id}' dropped successfully")


def _try_out(registry: StorageRegistry, storage: StorageDef, context: StatementContext) -> None:
    context.control.check()
    probed = probe(lambda: registry.open(storage), secrets_of(registry, storage))
    context.control.check()
    require_healthy(storage, probed)


def _sealed(registry: StorageRegistry, storage_id: str, kind: str, text: str | None) -> bytes | None:
    """Credentials as they are stored; None for none, or for the empty object."""
    found = read_options(kind, "CREDENTIALS", text)
    check_credentials(kind, found)
    if not found or text is None:
        return None
    with storage_errors():
        return registry.vault.seal(storage_id, text)


def _text(what: str, value: str | None) -> str | None:
    if value is not None and len(value) > MAX_TEXT:
        raise ExecutionError(f"Invalid operation: {what} of a storage has at most {MAX_TEXT:,} characters")
    return value or None
