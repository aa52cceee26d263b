"""Catalog changes of a group or a transaction: staged definitions, the catalog with them, and an undo.

Definitions are MessagePack in the `catalog` sub-database under (kind, name). Namespaces and tables (by table id, as
ten digits) are also held in the in-memory Catalog, and so are topics (by topic id, likewise) and views (by full name).
A dropped table leaves an object of kind `DROPPED` until its rows are reclaimed, a dropped topic one of kind
`DROPPED_TOPIC`.

Dropping a table ends the sources that topics have in it. Their messages stay, and with them the table's definition and
its rows (`storage.topic_retention`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from storage.catalog import Catalog, NamespaceDef, TableDef
from storage.keys import object_key
from storage.topic_definitions import TopicDef
from storage.view_definitions import ViewDef

NAMESPACE = "namespace"
TABLE = "table"
TOPIC = "topic"
VIEW = "view"
DROPPED = "_dropped_table"
DROPPED_TOPIC = "_dropped_topic"

ObjectName = tuple[str, str]


class ObjectBase(Protocol):
    """Where definitions come from that are not staged."""

    @property
    def catalog(self) -> Catalog:
        """The committed catalog."""

    def object_bytes(self, kind: str, name: str) -> bytes | None:
        """A definition as stored."""

    def object_items(self, kind: str) -> dict[bytes, bytes]:
        """All definitions of a kind as stored, by `catalog` key."""


class DroppedTable(msgspec.Struct, frozen=True):
    """A table whose rows wait to be reclaimed, and its last definition for those who still read them.

    Nothing happened to it after `last_seq`.
    """

    table_id: int
    definition: TableDef | None = None
    last_seq: int = 0


class DroppedTopic(msgspec.Struct, frozen=True):
    """A topic whose messages and groups wait to be reclaimed."""

    topic_id: int


class StagedObjects:
    """Definitions put and deleted over a base."""

    def __init__(self, base: ObjectBase, next_version: Callable[[], int]) -> None:
        self._base = base
        self._next_version = next_version
        self._staged: dict[ObjectName, bytes | None] = {}
        self._undo: list[tuple[ObjectName, bytes | None, bool]] = []
        self._catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The base's catalog with what was staged."""
        return self._base.catalog if self._catalog is None else self._catalog

    @property
    def staged(self) -> dict[ObjectName, bytes | None]:
        """What was put (bytes) or deleted (None)."""
        return self._staged

    @property
    def catalog_changed(self) -> bool:
        """Whether namespaces, tables, views or topics changed."""
        return self._catalog is not None

    def mark(self) -> tuple[int, Catalog | None]:
        """Where the staging stands, for `roll_back`."""
        return len(self._undo), self._catalog

    def roll_back(self, mark: tuple[int, Catalog | None]) -> None:
        """Forget what was staged after the mark."""
        count, self._catalog = mark
        while len(self._undo) > count:
            name, previous, had = self._undo.pop()
            if had:
                self._staged[name] = previous
            else:
                del self._staged[name]

    def get(self, kind: str, name: str) -> bytes | None:
        """A definition as stored or staged."""
        key = (kind, name)
        return self._staged[key] if key in self._staged else self._base.object_bytes(kind, name)

    def items(self, kind: str) -> dict[bytes, bytes]:
        """All definitions of a kind, stored and staged, by `catalog` key."""
        found = self._base.object_items(kind)
        for (staged_kind, name), data in self._staged.items():
            if staged_kind != kind:
                continue
            if data is None:
                found.pop(object_key(kind, name), None)
            else:
                found[object_key(kind, name)] = data
        return found

    def put(self, kind: str, name: str, value: object) -> None:
        """Stage a definition."""
        self._set((kind, name), msgspec.msgpack.encode(value))

    def delete(self, kind: str, name: str) -> None:
        """Stage the end of a definition."""
        self._set((kind, name), None)

    def put_table(self, table: TableDef) -> None:
        """Stage a table's definition."""
        self.put(TABLE, table_name(table.table_id), table)
        self._catalog = self.catalog.evolve(self._next_version(), put=[table])

    def drop_table(self, table_id: int, last_seq: int = 0) -> None:
        """Stage the end of a table after `last_seq`; its rows are reclaimed later."""
        for topic in {topic.topic_id: topic for topic, _ in self.catalog.sources_of(table_id)}.values():
            left = tuple(source for source in topic.sources if source.table_id != table_id)
            self.put_topic(msgspec.structs.replace(topic, sources=left))
        definition = self.catalog.table_by_id(table_id)
        self.delete(TABLE, table_name(table_id))
        self.put(DROPPED, table_name(table_id), DroppedTable(table_id, definition, last_seq))
        self._catalog = self.catalog.evolve(self._next_version(), drop_tables=[table_id])

    def put_topic(self, topic: TopicDef) -> None:
        """Stage a topic's definition."""
        self.put(TOPIC, table_name(topic.topic_id), topic)
        self._catalog = self.catalog.evolve(self._next_version(), put=[topic])

    def drop_topic(self, topic_id: int) -> None:
        """Stage the end of a topic; its messages are reclaimed later."""
        self.delete(TOPIC, table_name(topic_id))
        self.put(DROPPED_TOPIC, table_name(topic_id), DroppedTopic(topic_id))
        self._catalog = self.catalog.evolve(self._next_version(), drop_topics=[topic_id])

    def put_view(self, view: ViewDef) -> None:
        """Stage a view's definition."""
        self.put(VIEW, view.full_name, view)
        self._catalog = self.catalog.evolve(self._next_version(), put=[view])

    def drop_view(self, namespace: str, name: str) -> None:
        """Stage the end of a view."""
        self.delete(VIEW, f"{namespace}.{name}")
        self._catalog = self.catalog.evolve(self._next_version(), drop_views=[(namespace, name)])

    def put_namespace(self, namespace: NamespaceDef) -> None:
        """Stage a namespace."""
        self.put(NAMESPACE, namespace.name, namespace)
        self._catalog = self.catalog.evolve(self._next_version(), put=[namespace])

    def drop_namespace(self, name: str) -> None:
        """Stage the end of a namespace."""
        self.delete(NAMESPACE, name)
        self._catalog = self.catalog.evolve(self._next_version(), drop_namespaces=[name])

    def stage(self, kind: str, name: str, data: bytes | None) -> None:
        """Stage a definition that is encoded already, or its end."""
        self._set((kind, name), data)

    def _set(self, key: ObjectName, data: bytes | None) -> None:
        self._undo.append((key, self._staged.get(key), key in self._staged))
        self._staged[key] = data


def table_name(table_id: int) -> str:
    """The object name of a table or a topic: its id as ten digits."""
    return f"{table_id:010d}"


def load_catalog(base: ObjectBase, version: int) -> Catalog:
    """The catalog from the stored definitions."""
    namespaces = (msgspec.msgpack.decode(data, type=NamespaceDef) for data in base.object_items(NAMESPACE).values())
    tables = (msgspec.msgpack.decode(data, type=TableDef) for data in base.object_items(TABLE).values())
    topics = (msgspec.msgpack.decode(data, type=TopicDef) for data in base.object_items(TOPIC).values())
    views = (msgspec.msgpack.decode(data, type=ViewDef) for data in base.object_items(VIEW).values())
    return Catalog(version, namespaces, tables, topics, views)
