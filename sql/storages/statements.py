"""Statements about storages and cold files: a frozen dataclass each, which imports what does the work when it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from sql.command import Command
from sql.table_name import TableName

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext

StorageType = Literal["filesystem", "s3", "gcs", "azure"]
STORAGE_TYPES: tuple[StorageType, ...] = ("filesystem", "s3", "gcs", "azure")


@dataclass(frozen=True, slots=True)
class StorageClauses:
    """What CREATE and ALTER STORAGE may say; None: not said. The JSON texts are as written.

    `credentials` are left out of the repr, so that no log and no error can show them.
    """

    name: str | None = None
    description: str | None = None
    path: str | None = None
    bucket: str | None = None
    base_directory: str | None = None
    region: str | None = None
    shared_template: str | None = None
    user_template: str | None = None
    credentials: str | None = field(default=None, repr=False)
    config: str | None = None


@dataclass(frozen=True, slots=True)
class CreateStorage(Command):
    """CREATE STORAGE [IF NOT EXISTS] id TYPE type clauses."""

    storage_id: str
    type: StorageType
    clauses: StorageClauses
    if_not_exists: bool = False

    def audit_target(self, namespace: str) -> str:
        """The storage."""
        return self.storage_id

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Create it, once it has been written to and read from."""
        from sql.storages.definitions import create_storage

        return create_storage(self, context, services)


@dataclass(frozen=True, slots=True)
class AlterStorage(Command):
    """ALTER STORAGE id SET clauses."""

    storage_id: str
    clauses: StorageClauses

    def audit_target(self, namespace: str) -> str:
        """The storage."""
        return self.storage_id

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Change it."""
        from sql.storages.definitions import alter_storage

        return alter_storage(self, context, services)


@dataclass(frozen=True, slots=True)
class DropStorage(Command):
    """DROP STORAGE [IF EXISTS] id."""

    storage_id: str
    if_exists: bool = False

    def audit_target(self, namespace: str) -> str:
        """The storage."""
        return self.storage_id

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Forget it; what lies there stays."""
        from sql.storages.definitions import drop_storage

        return drop_storage(self, context, services)


@dataclass(frozen=True, slots=True)
class ShowStorages(Command):
    """SHOW STORAGES."""

    reads_only: ClassVar[bool] = True
    impersonable: ClassVar[bool] = True

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """List them."""
        from sql.storages.tables import show_storages

        return show_storages(context, services)


@dataclass(frozen=True, slots=True)
class StorageCheck(Command):
    """STORAGE CHECK id [EXTENDED]."""

    storage_id: str
    extended: bool = False

    def audit_target(self, namespace: str) -> str:
        """The storage."""
        return self.storage_id

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Write, read, list and delete a file there."""
        from sql.storages.probe import check_storage

        return check_storage(self, context, services)


@dataclass(frozen=True, slots=True)
class StorageFlush(Command):
    """STORAGE FLUSH TABLE t | ALL [IN [NAMESPACE] ns]; no table: all of `namespace`, or of the request's."""

    table: TableName | None
    namespace: str | None = None

    def audit_target(self, namespace: str) -> str:
        """The table, or the namespace."""
        if self.table is None:
            return self.namespace or namespace
        return f"{self.table.namespace or namespace}.{self.table.name}"

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Start the jobs that move rows to cold files."""
        from sql.storages.moving import flush

        return flush(self, context, services)


@dataclass(frozen=True, slots=True)
class StorageCompact(Command):
    """STORAGE COMPACT TABLE t | ALL [IN [NAMESPACE] ns]."""

    table: TableName | None
    namespace: str | None = None

    def audit_target(self, namespace: str) -> str:
        """The table, or the namespace."""
        if self.table is None:
            return self.namespace or namespace
        return f"{self.table.namespace or namespace}.{self.table.name}"

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Start the jobs that merge cold files."""
        from sql.storages.moving import compact

        return compact(self, context, services)


@dataclass(frozen=True, slots=True)
class ShowManifest(Command):
    """SHOW MANIFEST."""

    reads_only: ClassVar[bool] = True
    impersonable: ClassVar[bool] = True

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """List the manifests of tables that the caller may read."""
        from sql.storages.manifest import show_manifest

        return show_manifest(context, services)
