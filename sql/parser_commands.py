"""Statements besides queries, DML and tables: namespaces, users, SHOW, DESCRIBE, transactions."""

from __future__ import annotations

from sql.diagnostics import shown
from sql.errors import Unsupported
from sql.identity import ROLE_ALIASES
from sql.parser_cursor import Cursor
from sql.settings_statements import ShowSettings, parse_show_setting
from sql.statements import (
    AlterNamespace,
    AlterUser,
    Begin,
    Commit,
    CreateNamespace,
    CreateUser,
    Describe,
    DropNamespace,
    DropUser,
    Rollback,
    Show,
    UseNamespace,
)

_NAMESPACE = "a namespace's name"
_USER = "a user's name"


def parse_create_namespace(cursor: Cursor) -> CreateNamespace:
    """CREATE NAMESPACE, after that word."""
    if_not_exists = cursor.if_not_exists()
    return CreateNamespace(cursor.name(_NAMESPACE), if_not_exists)


def parse_alter_namespace(cursor: Cursor) -> AlterNamespace:
    """ALTER NAMESPACE, after that word."""
    name = cursor.name(_NAMESPACE)
    cursor.expect("set", "options")
    return AlterNamespace(name, cursor.options())


def parse_drop_namespace(cursor: Cursor) -> DropNamespace:
    """DROP NAMESPACE, after that word."""
    if_exists = cursor.if_exists()
    name = cursor.name(_NAMESPACE)
    restrict = cursor.accept("restrict")
    if not restrict:
        cursor.accept("cascade")
    return DropNamespace(name, if_exists, restrict)


def parse_use(cursor: Cursor) -> UseNamespace:
    """USE n, USE NAMESPACE n, USE SCHEMA n; after the word USE."""
    if cursor.word() in ("namespace", "schema") and cursor.peek(1) is not None:
        cursor.index += 1
    return UseNamespace(cursor.name(_NAMESPACE))


def parse_create_user(cursor: Cursor) -> CreateUser:
    """CREATE USER, after that word. The clauses may come in any order."""
    if_not_exists = cursor.if_not_exists()
    name = _user_name(cursor)
    method: tuple[str, str | None] | None = None
    role = email = None
    while cursor.peek() is not None:
        clause = cursor.peek()
        if method is None and (found := _method(cursor)):
            method = found
        elif role is None and cursor.accept("role"):
            role = _role(cursor)
        elif email is None and cursor.accept("email"):
            email = cursor.string("an e-mail address in quotes")
        elif cursor.word() in ("with", "password", "role", "email"):
            cursor.fail(f"{shown(cursor.word().upper())} is given twice or in the wrong place.", clause)
        else:
            cursor.finish()
    if method is None:
        cursor.fail("CREATE USER needs WITH PASSWORD '…', WITH OAUTH '…' or WITH INTERNAL.")
    return CreateUser(name, method[0], method[1], role or "user", email, if_not_exists)


def _method(cursor: Cursor) -> tuple[str, str | None] | None:
    """Takes how a new user signs in, if that is next."""
    if cursor.accept("with", "password") or cursor.accept("password"):
        return "password", cursor.string("a password in quotes")
    if cursor.accept("with", "oauth"):
        return "oauth", cursor.string("a JSON text in quotes")
    if cursor.accept("with", "internal"):
        return "internal", None
    return None


def _user_name(cursor: Cursor) -> str:
    start = cursor.peek()
    name = cursor.name_or_string(_USER)
    if not name:
        cursor.fail("A user's name may not be empty.", start)
    return name


def _role(cursor: Cursor) -> str:
    start = cursor.peek()
    name = cursor.name_or_string("a role")
    role = ROLE_ALIASES.get(name.lower())
    if role is None:
        cursor.fail(f"{shown(name)} is not a role: user, service, dba, system.", start)
    return role.value


def parse_alter_user(cursor: Cursor) -> AlterUser:
    """ALTER USER, after that word."""
    name = _user_name(cursor)
    cursor.expect("set")
    if cursor.accept("password"):
        password = cursor.string("a password in quotes")
        old = None
        if cursor.accept("old"):
            cursor.accept("password")
            old = cursor.string("the old password in quotes")
        return AlterUser(name, password=password, old_password=old)
    if cursor.accept("role"):
        return AlterUser(name, role=_role(cursor))
    if cursor.accept("email"):
        return AlterUser(name, email=cursor.string("an e-mail address in quotes"))
    raise cursor.expected("PASSWORD, ROLE or EMAIL")


def parse_drop_user(cursor: Cursor) -> DropUser:
    """DROP USER, after that word."""
    if_exists = cursor.if_exists()
    return DropUser(_user_name(cursor), if_exists)


def parse_show(cursor: Cursor) -> Show | ShowSettings:
    """SHOW, after that word."""
    if cursor.accept("namespaces") or cursor.accept("schemas"):
        return Show("namespaces")
    if cursor.accept("tables"):
        if cursor.accept("in") or cursor.accept("from"):
            if cursor.word() in ("namespace", "schema") and cursor.peek(1) is not None:
                cursor.index += 1
            return Show("tables", namespace=cursor.name(_NAMESPACE))
        return Show("tables")
    if cursor.accept("columns"):
        if not cursor.accept("from"):
            cursor.expect("in")
        return Show("columns", table=cursor.table_name())
    if cursor.accept("stats", "for", "table"):
        return Show("stats", table=cursor.table_name())
    if cursor.word(1) == ".":
        return parse_show_setting(cursor)
    what = cursor.word()
    if what:
        cursor.fail(f"SHOW {shown(what.upper())[1:-1]} is not supported.", kind=Unsupported)
    raise cursor.expected("NAMESPACES, TABLES, COLUMNS FROM or STATS FOR TABLE")


def parse_describe(cursor: Cursor) -> Describe:
    """DESCRIBE or DESC, after that word."""
    if cursor.word() in ("select", "with", "values", "("):
        cursor.fail("DESCRIBE of a query is not supported; use EXPLAIN.", kind=Unsupported)
    if cursor.at("table") and cursor.peek(1) is not None and cursor.word(1) != ".":
        last = cursor.peek(2) is None
        if not (cursor.word(1) == "history" and last):
            cursor.index += 1
    table = cursor.table_name()
    return Describe(table, cursor.accept("history"))


def parse_begin(cursor: Cursor) -> Begin:
    """BEGIN or START, after that word."""
    if cursor.at("isolation") or cursor.at("read"):
        cursor.fail("Transaction modes are not supported; every transaction reads one snapshot.", kind=Unsupported)
    return Begin()


def parse_transaction_end(cursor: Cursor, word: str) -> Commit | Rollback:
    """COMMIT, END or ROLLBACK, after that word and TRANSACTION or WORK."""
    if cursor.at("to"):
        cursor.fail("Savepoints are not supported.", kind=Unsupported)
    if cursor.at("and") or cursor.at("prepared"):
        cursor.fail(f"{word.upper()} {cursor.word().upper()} is not supported.", kind=Unsupported)
    return Rollback() if word == "rollback" else Commit()
