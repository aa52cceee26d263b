"""Topics by the names that statements write, and who may use them."""

from __future__ import annotations

from sql.errors import PermissionDenied, TopicNotFound
from sql.identity import Identity, Role
from sql.rights import nearest
from sql.table_name import TableName
from sql.writing import StatementContext
from storage.catalog import Catalog
from storage.topic_definitions import TopicDef


def require_topic(name: TableName, catalog: Catalog, context: StatementContext) -> TopicDef:
    """The topic of that name; without a namespace it takes the request's. Raises TopicNotFound with the place."""
    namespace = name.namespace or context.namespace
    found = catalog.topic(namespace, name.name)
    if found is not None:
        return found
    full_name = f"{namespace}.{name.name}"
    near = nearest(full_name, [topic.full_name for topic in catalog.topics()])
    hint = f". Did you mean '{near}'?" if near else ""
    raise TopicNotFound(f"Topic '{full_name}' does not exist{hint}", line=name.line, column=name.column)


def check_may_define(identity: Identity) -> None:
    """Raise PermissionDenied unless the caller may create, change and drop topics."""
    if not identity.role.is_admin:
        raise PermissionDenied("Permission denied: topics are managed by the roles dba and system")


def check_may_use(identity: Identity) -> None:
    """Raise PermissionDenied unless the caller may read topics and write to them."""
    if identity.role.rank < Role.SERVICE.rank:
        raise PermissionDenied("Permission denied: topics are read and written by the roles service, dba and system")
