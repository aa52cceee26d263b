"""CREATE, ALTER and DROP USER.

Each statement has two steps. `prepare` checks rights and the password policy, verifies an old password and
hashes a new one: that costs tens of milliseconds by design, so it runs in a worker thread over a snapshot, never on
the event loop and never on the writer thread. What it returns is the mutation: quick, and carried out on the writer,
where the rules that depend on other accounts (does the name exist, is this the last admin) are checked against the
newest state.

An account is dropped softly: its row stays, with `deleted_at`, because rows of USER tables stay under its name.
CREATE USER with the name of a dropped account makes the account anew; the rows under the name become its rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from sql.errors import ExecutionError, PermissionDenied, TransactionConflict
from sql.identity import ROLE_ALIASES, Identity, Role
from sql.names import check_user_id
from sql.passwords import (
    DEFAULT_PARAMETERS,
    DEFAULT_POLICY,
    HashParameters,
    PolicyOptions,
    check_policy,
    hash_password,
    verify_password,
)
from sql.results import StatementResult
from sql.statements import AlterUser, CreateUser, DropUser
from sql.writing import DefinitionWriter, time_of
from storage.catalog import USER_KIND, UserDef

Mutation = Callable[[DefinitionWriter], StatementResult]
T = TypeVar("T")


class ObjectReader(Protocol):
    """The part of a ReadView that preparing needs."""

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002 - storage's name
        """A catalog object, if it exists."""
        ...


class PasswordSettings(msgspec.Struct, frozen=True):
    """The policy for new passwords and the cost of their hashes."""

    policy: PolicyOptions = DEFAULT_POLICY
    parameters: HashParameters = DEFAULT_PARAMETERS


DEFAULT_SETTINGS = PasswordSettings()


def prepare(
    statement: CreateUser | AlterUser | DropUser,
    view: ObjectReader,
    identity: Identity,
    settings: PasswordSettings = DEFAULT_SETTINGS,
) -> Mutation:
    """Check the statement and do its slow work; the answer runs on the writer (or in a Transaction)."""
    if isinstance(statement, CreateUser):
        return _prepare_create(statement, view, identity, settings)
    if isinstance(statement, AlterUser):
        return _prepare_alter(statement, view, identity, settings)
    _require_admin(identity, "DROP USER")
    return lambda txn: _drop(statement, txn, identity)


def parse_role(text: str) -> Role:
    """A role by its name or alias."""
    role = ROLE_ALIASES.get(text.strip().lower())
    if role is None:
        raise ExecutionError(f"Invalid operation: Unknown role '{text}' (roles: user, service, dba, system)")
    return role


def live_user(view: ObjectReader, name: str) -> UserDef | None:
    """The account of that name, unless it does not exist or was dropped."""
    user = view.get_object(USER_KIND, name, UserDef)
    return None if user is None or user.deleted_at is not None else user


def _prepare_create(
    statement: CreateUser, view: ObjectReader, identity: Identity, settings: PasswordSettings
) -> Mutation:
    _require_admin(identity, "CREATE USER")
    role = parse_role(statement.role)
    _check_grant(identity, role)
    check_user_id(statement.name)
    if live_user(view, statement.name) is not None:
        return lambda txn: _create(statement, txn, None)
    user = UserDef(user_id=statement.name, role=role.value, email=_email(statement.email), auth_type=statement.method)
    if statement.method == "password":
        check_policy(statement.secret or "", settings.policy, user=statement.name)
        digest = hash_password(statement.secret or "", settings.parameters)
        user = msgspec.structs.replace(user, password_hash=digest)
    elif statement.method == "oauth":
        user = msgspec.structs.replace(user, auth_data=_oauth_data(statement.secret))
    elif statement.method != "internal":
        raise ExecutionError(f"Invalid operation: Unknown sign-in method '{statement.method}'")
    return lambda txn: _create(statement, txn, user)


def _create(statement: CreateUser, txn: DefinitionWriter, user: UserDef | None) -> StatementResult:
    if live_user(txn, statement.name) is not None:
        if statement.if_not_exists:
            return StatementResult(message=f"User '{statement.name}' already exists (skipped)")
        raise ExecutionError(f"Already exists: User '{statement.name}' already exists")
    if user is None:  # it existed when the statement was prepared, and was dropped since
        raise TransactionConflict(f"Conflict: User '{statement.name}' was dropped meanwhile; try again")
    now = time_of(txn)
    txn.put_object(USER_KIND, user.user_id, msgspec.structs.replace(user, created_at=now, updated_at=now))
    return StatementResult(message=f"User '{user.user_id}' created")


def _prepare_alter(
    statement: AlterUser, view: ObjectReader, identity: Identity, settings: PasswordSettings
) -> Mutation:
    own_password = identity.user == statement.name and statement.password is not None
    if not (own_password and statement.role is None and statement.email is None):
        _require_admin(identity, "ALTER USER")
    role = None if statement.role is None else parse_role(statement.role)
    if role is not None:
        _check_grant(identity, role)
    user = _require_user(view, statement.name)
    _check_target(identity, user)
    verified: str | None = None
    digest: str | None = None
    if statement.password is not None:
        if user.auth_type == "oauth":
            raise ExecutionError(f"Invalid operation: User '{user.user_id}' signs in by OAuth and has no password")
        if not identity.role.is_admin or statement.old_password is not None:
            verified = _verify_old(statement, user, settings)
        check_policy(statement.password, settings.policy, user=user.user_id)
        digest = hash_password(statement.password, settings.parameters)
    return lambda txn: _alter(statement, txn, identity, role, digest, verified)


def _verify_old(statement: AlterUser, user: UserDef, settings: PasswordSettings) -> str | None:
    """The hash that the old password was verified against."""
    if statement.old_password is None:
        raise PermissionDenied(
            "Permission denied: the old password is required: ALTER USER <you> SET PASSWORD 'new' OLD 'old'"
        )
    if not verify_password(user.password_hash, statement.old_password, settings.parameters):
        raise PermissionDenied("Permission denied: the old password is not right")
    return user.password_hash


def _alter(
    statement: AlterUser,
    txn: DefinitionWriter,
    identity: Identity,
    role: Role | None,
    digest: str | None,
    verified: str | None,
) -> StatementResult:
    user = _require_user(txn, statement.name)
    _check_target(identity, user)
    if verified is not None and user.password_hash != verified:
        raise TransactionConflict(f"Conflict: the password of user '{user.user_id}' was changed meanwhile; try again")
    changed = user
    if role is not None:
        if not role.is_admin:
            _check_not_last_admin(txn, user, "demoted")
        changed = msgspec.structs.replace(changed, role=role.value)
    if statement.email is not None:
        changed = msgspec.structs.replace(changed, email=_email(statement.email))
    if digest is not None:
        changed = msgspec.structs.replace(changed, password_hash=digest, failed_login_attempts=0, locked_until=None)
    txn.put_object(USER_KIND, user.user_id, msgspec.structs.replace(changed, updated_at=time_of(txn)))
    return StatementResult(message=f"User '{user.user_id}' updated")


def _drop(statement: DropUser, txn: DefinitionWriter, identity: Identity) -> StatementResult:
    user = live_user(txn, statement.name)
    if user is None:
        if statement.if_exists:
            return StatementResult(message=f"User '{statement.name}' does not exist (skipped)")
        raise ExecutionError(f"Not found: User '{statement.name}' does not exist")
    _check_target(identity, user)
    _check_not_last_admin(txn, user, "dropped")
    now = time_of(txn)
    txn.put_object(
        USER_KIND,
        user.user_id,
        msgspec.structs.replace(user, password_hash=None, deleted_at=now, updated_at=now),
    )
    return StatementResult(message=f"User '{user.user_id}' dropped (soft delete)")


def _require_admin(identity: Identity, what: str) -> None:
    if not identity.role.is_admin:
        raise PermissionDenied(f"Permission denied: {what} requires the role dba or system")


def _check_grant(identity: Identity, role: Role) -> None:
    if role is Role.SYSTEM and identity.role is not Role.SYSTEM:
        raise PermissionDenied("Permission denied: only the role system can grant the role system")


def _check_target(identity: Identity, user: UserDef) -> None:
    """Accounts of role system are changed by system, or by themselves."""
    if user.role == Role.SYSTEM and identity.role is not Role.SYSTEM and identity.user != user.user_id:
        raise PermissionDenied(f"Permission denied: user '{user.user_id}' has the role system")


def _check_not_last_admin(txn: DefinitionWriter, user: UserDef, verb: str) -> None:
    """Some account must remain that can sign in and administer."""
    if not _is_admin(user):
        return
    if not any(other.user_id != user.user_id and _is_admin(other) for other in txn.list_objects(USER_KIND, UserDef)):
        raise ExecutionError(
            f"Invalid operation: User '{user.user_id}' is the last account with the role dba or system "
            f"and a password; it cannot be {verb}"
        )


def _is_admin(user: UserDef) -> bool:
    return user.deleted_at is None and user.password_hash is not None and Role(user.role).is_admin


def _require_user(view: ObjectReader, name: str) -> UserDef:
    user = live_user(view, name)
    if user is None:
        raise ExecutionError(f"Not found: User '{name}' does not exist")
    return user


def _email(text: str | None) -> str | None:
    """An e-mail address as given; an empty one means none."""
    if not text:
        return None
    local, at, domain = text.rpartition("@")
    if len(text) > 254 or not at or not local or not domain or any(c.isspace() or ord(c) < 32 for c in text):
        raise ExecutionError(f"Invalid operation: '{text[:254]}' is not an e-mail address")
    return text


def _oauth_data(text: str | None) -> str:
    """The canonical JSON of an OAuth account: provider and subject, both required."""
    try:
        data = json.loads(text or "")
    except (ValueError, RecursionError):
        raise ExecutionError("Invalid operation: WITH OAUTH needs a JSON object") from None
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), str) and data[key] for key in ("provider", "subject")
    ):
        raise ExecutionError("Invalid operation: WITH OAUTH needs the keys 'provider' and 'subject'")
    return json.dumps(data, ensure_ascii=False)
