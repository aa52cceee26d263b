"""Who may do what with storages and cold files."""

from __future__ import annotations

from sql.errors import PermissionDenied
from sql.identity import Identity, Role


def require_admin(identity: Identity, deed: str) -> None:
    """Raise PermissionDenied unless the caller is dba or system."""
    if not identity.role.is_admin:
        raise PermissionDenied(
            f"Permission denied: only the roles dba and system may {deed}, not {identity.role.value}"
        )


def require_service(identity: Identity, deed: str) -> None:
    """Raise PermissionDenied unless the caller is service, dba or system."""
    if identity.role.rank < Role.SERVICE.rank:
        raise PermissionDenied(
            f"Permission denied: only the roles service, dba and system may {deed}, not {identity.role.value}"
        )
