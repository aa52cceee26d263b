"""The part of the storage engine that authentication uses, and the accounts in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import msgspec

from sql.identity import Role
from storage.catalog import USER_KIND, Catalog, NamespaceDef, UserDef
from storage.submission import Commit

FAMILY_KIND = "refresh_family"

T = TypeVar("T")


class Reader(Protocol):
    """One committed state."""

    @property
    def catalog(self) -> Catalog:
        """Namespaces and tables."""
        ...

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        """An object, if it exists."""
        ...

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        """All objects of a kind."""
        ...


class Writer(Reader, Protocol):
    """The writer's current state, inside a mutation."""

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        """Create or replace an object."""
        ...

    def delete_object(self, kind: str, name: str) -> None:
        """Remove an object."""
        ...

    def put_namespace(self, namespace: NamespaceDef) -> None:
        """Create or replace a namespace."""
        ...

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...


class Store(Protocol):
    """`storage.engine.StorageEngine`, as far as it matters here."""

    @property
    def last_seq(self) -> int:
        """The last `_seq` of the newest commit."""
        ...

    def snapshot(self) -> AbstractContextManager[Reader]:
        """The newest committed state."""
        ...

    def submit(self, work: Callable[[Writer], T], *, on_done: Callable[[Commit[T]], None] | None = None) -> object:
        """Queue `work` now, behind everything queued before; `on_done` hears of the outcome on the writer thread."""
        ...

    async def commit(self, work: Callable[[Writer], T]) -> T:
        """Run `work` on the writer thread and commit what it staged; if it raises, nothing is kept."""
        ...


def find_account(view: Reader, name: str) -> UserDef | None:
    """The account of that name, unless there is none or it was dropped."""
    user = view.get_object(USER_KIND, name, UserDef)
    return None if user is None or user.deleted_at is not None else user


def role_of(account: UserDef) -> Role | None:
    """The role of an account; None for a stored text that is no role."""
    try:
        return Role(account.role)
    except ValueError:
        return None


def read_account(store: Store, name: str) -> UserDef | None:
    """`find_account` in the newest committed state."""
    with store.snapshot() as view:
        return find_account(view, name)
