"""Which open tables a table has, where they lie, and whether they show what they are to show.

A table's folder is where its files lie: `<namespace>/<table>` for SHARED tables, and for USER tables the part of
the template before the user's folder, with the user as partition column. Where a template puts the user first there is
no such folder: then each user has an open table, in the folder of the user's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from storage.catalog import TableDef
from storage.cold_files import folder_of
from storage.cold_publication import LiveFile, digest_of
from storage.objects import table_name
from storage.storage_definitions import ColdPlace

LAKE: Final = "lake"
"""The object kind of `LakeDef`, by table id, and user where each user has an open table."""
_USER: Final = "{userId}"


class LakeDef(msgspec.Struct, frozen=True):
    """What was published of a table: where, the version of the log, what it shows. Times are microseconds.

    `user` says whose rows, where each user has an open table.
    """

    table_id: int
    storage_id: str
    root: str
    version: int
    digest: str
    published_at: int = 0
    user: str = ""

    @property
    def name(self) -> str:
        """The name of the object."""
        return f"{table_name(self.table_id)}:{self.user}" if self.user else table_name(self.table_id)


class Unit(NamedTuple):
    """One open table: a table, or what one user has of it. `known` is what was published of it last."""

    table: TableDef
    user: str
    storage_id: str
    root: str
    partitioned: bool
    files: list[LiveFile]
    known: LakeDef | None

    @property
    def digest(self) -> str:
        """Changes with what is to be shown."""
        return digest_of(self.table, ((file.segment.segment_id, file.dead) for file in self.files))

    @property
    def stale(self) -> bool:
        """Whether it shows something else, or elsewhere."""
        known = self.known
        if known is None:
            return bool(self.files)
        return (known.digest, known.storage_id, known.root) != (self.digest, self.storage_id, self.root)


def units_of(
    table: TableDef, storage_id: str, place: ColdPlace, files: list[LiveFile], known: Mapping[str, LakeDef]
) -> list[Unit]:
    """The open tables that a table is to have; `known` are those that it has, by user."""
    each = table.per_user and not one_for_all(place)
    by_user: dict[str, list[LiveFile]] = {user: [] for user in known if bool(user) == each}
    for file in files:
        by_user.setdefault(file.segment.user if each else "", []).append(file)
    partitioned = table.per_user and not each
    return [
        Unit(table, user, storage_id, root_of(place, table, user), partitioned, found, known.get(user))
        for user, found in by_user.items()
    ]


def is_behind(
    table: TableDef,
    storage_id: str,
    place: ColdPlace,
    files: Iterable[tuple[str, int, int]],
    known: Mapping[str, LakeDef],
) -> bool:
    """Whether some open table is stale, missing or superfluous; `files` are users, segment ids and dead rows, in order.

    The same as asking `units_of`, without the records of the files.
    """
    each = table.per_user and not one_for_all(place)
    if any(bool(user) != each for user in known):
        return True
    by_user: dict[str, list[tuple[int, int]]] = {user: [] for user in known}
    for user, segment_id, dead in files:
        by_user.setdefault(user if each else "", []).append((segment_id, dead))
    for user, found in by_user.items():
        last = known.get(user)
        present = (digest_of(table, found), storage_id, root_of(place, table, user))
        if last is None or (last.digest, last.storage_id, last.root) != present:
            return True
    return False


def one_for_all(place: ColdPlace) -> bool:
    """Whether the users of a USER table have one open table together."""
    return "{" not in place.user_template.partition(_USER)[2]


def root_of(place: ColdPlace, table: TableDef, user: str) -> str:
    """The folder of an open table, below the storage's base."""
    if not table.per_user or not one_for_all(place):
        return folder_of(place, table, user)
    shared = place.user_template.partition(_USER)[0].rpartition("/")[0]
    return folder_of(ColdPlace(place.filesystem, user_template=shared), table, "")
