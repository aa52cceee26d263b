"""The first start: the account `root` and the namespace `default`; the set-up that gives root its password.

`root` has role system and auth type internal. It cannot sign in until it has a password: from the configuration
(`auth.root_password`, `HEADRACE_AUTH_ROOT_PASSWORD`), or from the set-up, which also makes the first dba. A configured
password is taken once, when root has none: changing it later is `ALTER USER root SET PASSWORD`.
"""

from __future__ import annotations

import asyncio

import msgspec

from server.auth import errors
from server.auth.authenticator import lacks_setup
from server.auth.context import AuthContext
from server.auth.options import ROOT, AuthOptions
from server.auth.store import Reader, Store, Writer, find_account
from server.errors import HttpError
from sql.audit import Origin, record
from sql.errors import ExecutionError
from sql.identity import Role
from sql.names import check_user_id
from sql.namespaces import DEFAULT_NAMESPACE
from sql.passwords import WeakPassword, check_policy, hash_password
from storage.catalog import USER_KIND, NamespaceDef, UserDef

NEEDS_SETUP = "Server requires initial setup: POST /v1/api/auth/setup with a user, a password and a root_password."
CONFIGURED = "Server is configured."


async def bootstrap(store: Store, options: AuthOptions, root_password: str | None = None) -> bool:
    """Make what is missing; returns whether the server still needs its set-up.

    Raises WeakPassword if the configured root password is needed and the policy refuses it.
    """
    with store.snapshot() as view:
        missing = _is_missing(view)
        needs_setup = lacks_setup(view)
    if not missing and not (needs_setup and root_password):
        return needs_setup
    digest = None
    if needs_setup and root_password:
        check_policy(root_password, options.policy, user=ROOT)
        digest = await asyncio.to_thread(hash_password, root_password, options.parameters)

    def create(writer: Writer) -> bool:
        now = writer.now_us()
        if writer.catalog.namespace(DEFAULT_NAMESPACE) is None:
            writer.put_namespace(NamespaceDef(name=DEFAULT_NAMESPACE, created_at=now))
        root = find_account(writer, ROOT)
        if root is None:
            root = UserDef(user_id=ROOT, role=Role.SYSTEM.value, auth_type="internal", created_at=now, updated_at=now)
            writer.put_object(USER_KIND, ROOT, root)
        if digest is not None and root.password_hash is None:
            writer.put_object(USER_KIND, ROOT, msgspec.structs.replace(root, password_hash=digest, updated_at=now))
            record(writer, Origin(ROOT), "ROOT_PASSWORD", ROOT, {"password": "from the configuration"}, ROOT)
        return lacks_setup(writer)

    return await store.commit(create)


def _is_missing(view: Reader) -> bool:
    return view.catalog.namespace(DEFAULT_NAMESPACE) is None or find_account(view, ROOT) is None


async def set_up(
    context: AuthContext, name: str, password: str, root_password: str, email: str | None, *, address: str = ""
) -> UserDef:
    """Give root its password and make the first dba, in one mutation; returns the dba. Does not sign in."""
    with context.store.snapshot() as view:
        _check_open(view, name)
    _check_name(name)
    if email is not None:
        _check_email(email)
    for what, new, user in (("password", password, name), ("root_password", root_password, ROOT)):
        try:
            check_policy(new, context.options.policy, user=user)
        except WeakPassword as error:
            raise HttpError(400, "weak_password", f"{what}: {error.message}") from None
    digest, root_digest = await context.threads.hash_all([password, root_password])

    def create(writer: Writer) -> UserDef:
        _check_open(writer, name)
        now = writer.now_us()
        root = find_account(writer, ROOT) or UserDef(
            user_id=ROOT, role=Role.SYSTEM.value, auth_type="internal", created_at=now
        )
        writer.put_object(USER_KIND, ROOT, msgspec.structs.replace(root, password_hash=root_digest, updated_at=now))
        account = UserDef(
            user_id=name,
            role=Role.DBA.value,
            password_hash=digest,
            email=email or None,
            created_at=now,
            updated_at=now,
        )
        writer.put_object(USER_KIND, name, account)
        record(writer, Origin(name, address), "SETUP", name, {"role": account.role}, name)
        return account

    return await context.store.commit(create)


def _check_open(view: Reader, name: str) -> None:
    """Raise unless the set-up may still be done, with that name."""
    if not lacks_setup(view):
        raise HttpError(409, "already_configured", "Server is already configured: root has a password")
    if name != ROOT and find_account(view, name) is not None:
        raise HttpError(409, "user_exists", f"User '{name}' already exists")


def _check_name(name: str) -> None:
    if name.lower() == ROOT:
        raise HttpError(400, "invalid_user", "The name 'root' is taken by the system; choose another for your account")
    try:
        check_user_id(name)
    except ExecutionError as error:
        raise HttpError(400, "invalid_user", error.message.removeprefix("Invalid operation: ")) from None


def _check_email(email: str) -> None:
    local, at, domain = email.rpartition("@")
    if email and (not at or not local or not domain or any(c.isspace() or ord(c) < 32 for c in email)):
        raise errors.invalid_request("email: not an e-mail address")
