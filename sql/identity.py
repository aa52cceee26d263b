"""Who runs a statement: user id and role, and what each role may do."""

from __future__ import annotations

import enum

import msgspec

from storage.catalog import AccessLevel


class Role(enum.StrEnum):
    """Roles in ascending order of rights."""

    USER = "user"
    SERVICE = "service"
    DBA = "dba"
    SYSTEM = "system"

    @property
    def rank(self) -> int:
        """Position in the order user < service < dba < system."""
        return _RANK[self]

    @property
    def is_admin(self) -> bool:
        """True for dba and system."""
        return self.rank >= 2


_RANK = {Role.USER: 0, Role.SERVICE: 1, Role.DBA: 2, Role.SYSTEM: 3}

ROLE_ALIASES = {
    "user": Role.USER, "viewer": Role.USER, "readonly": Role.USER,
    "service": Role.SERVICE, "developer": Role.SERVICE, "analyst": Role.SERVICE,
    "dba": Role.DBA, "admin": Role.DBA,
    "system": Role.SYSTEM,
}  # fmt: skip


class Identity(msgspec.Struct, frozen=True):
    """The caller of a statement, or the target of EXECUTE AS USER."""

    user: str
    role: Role


def may_read_shared(role: Role, level: AccessLevel) -> bool:
    """Whether a role may read a SHARED table of that access level."""
    if level is AccessLevel.PUBLIC:
        return True
    if level is AccessLevel.DBA:
        return role.is_admin
    return role.rank >= Role.SERVICE.rank


def may_write_shared(role: Role, level: AccessLevel) -> bool:
    """Whether a role may write a SHARED table of that access level."""
    if level is AccessLevel.DBA:
        return role.is_admin
    return role.rank >= Role.SERVICE.rank


def may_execute_as(caller: Identity, target_user: str, target_role: Role) -> bool:
    """Whether `caller` may run a statement as `target_user`, whose stored role is `target_role`."""
    if caller.user == target_user:
        return True
    if caller.role is Role.SYSTEM:
        return True
    if caller.role is Role.USER:
        return False
    return target_role.rank <= caller.role.rank
