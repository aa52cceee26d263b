"""Where a storage may lie: the base of each type, paths that must not meet others, templates of folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sql.errors import ExecutionError
from sql.storages.statements import StorageClauses, StorageType
from storage.storage_definitions import LOCAL, StorageDef

SCHEMES: Final = {"s3": ("s3://",), "gcs": ("gs://", "gcs://"), "azure": ("az://", "abfs://", "abfss://")}
"""What bases of object stores begin with; the first is how they are stored."""
MAX_PATH: Final = 1_024
MAX_TEMPLATE: Final = 200

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]\Z", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_TEMPLATE_TEXT = re.compile(r"[A-Za-z0-9_.=-]*\Z")


def check_storage_id(storage_id: str) -> None:
    """Raise ExecutionError unless a new storage may be called so."""
    if not _ID.match(storage_id):
        raise _invalid(
            f"Storage id '{storage_id[:80]}' must have 1 to 64 letters, digits, '_' or '-', and begin with a letter"
        )


def base_of(kind: StorageType, clauses: StorageClauses) -> str:
    """The base that the clauses name: an absolute path, or `scheme://bucket/path`. Raises ExecutionError."""
    given = {
        "PATH": clauses.path, "BUCKET": clauses.bucket, "BASE_DIRECTORY": clauses.base_directory,
    }  # fmt: skip
    named = {word: value for word, value in given.items() if value is not None}
    if len(named) != 1:
        wanted = "PATH or BASE_DIRECTORY" if kind == "filesystem" else "BUCKET or BASE_DIRECTORY"
        raise _invalid(f"a storage of type {kind} takes exactly one of {wanted}")
    ((word, value),) = named.items()
    if len(value) > MAX_PATH or _CONTROL.search(value):
        raise _invalid(f"{word} must have at most {MAX_PATH:,} characters and no control characters")
    if kind == "filesystem":
        if word == "BUCKET":
            raise _invalid("BUCKET names a place in an object store; a storage of type filesystem has a PATH")
        return _absolute(value)
    return _of_object_store(kind, word, value)


def _absolute(text: str) -> str:
    path = Path(text)
    if not path.is_absolute():
        raise _invalid(f"the path '{text}' must be absolute")
    if ".." in path.parts:
        raise _invalid(f"the path '{text}' must not contain '..'")
    return str(path.resolve())


def _of_object_store(kind: str, word: str, value: str) -> str:
    schemes = SCHEMES[kind]
    rest = value
    for scheme in schemes:
        if value.startswith(scheme):
            rest = value.removeprefix(scheme)
            break
    else:
        if "://" in value or word == "PATH":
            raise _invalid(f"{word} of a storage of type {kind} begins with {schemes[0]}, not '{value}'")
    bucket, _, path = rest.partition("/")
    parts = [part for part in path.split("/") if part]
    if not _BUCKET.match(bucket):
        raise _invalid(f"'{bucket}' is not the name of a bucket")
    if any(part in (".", "..") for part in parts) or "?" in rest or "#" in rest or "@" in bucket:
        raise _invalid(f"'{value}' is not a bucket and a path in it")
    return schemes[0] + "/".join([bucket, *parts])


def check_apart(base: str, data_folder: Path, others: Iterable[StorageDef]) -> None:
    """Raise ExecutionError when a base lies in the data folder, holds it, or meets another storage's base."""
    if base.startswith("/"):
        data = str(data_folder.resolve())
        if _meet(base, data):
            raise _invalid(f"the path '{base}' and the data folder must lie apart")
    for other in others:
        if other.storage_id != LOCAL and _meet(base, other.base_directory):
            raise _invalid(f"the path '{base}' and that of storage '{other.storage_id}' must lie apart")


def _meet(one: str, other: str) -> bool:
    a, b = (text.rstrip("/") + "/" for text in (one, other))
    return a.startswith(b) or b.startswith(a)


def check_template(text: str, *, user: bool) -> str:
    """A template of folders below the base. Every table, and every user, must get a folder of its own."""
    what = "USER_TABLES_TEMPLATE" if user else "SHARED_TABLES_TEMPLATE"
    needed = ["namespace", "tableName", *(["userId"] if user else [])]
    parts = text.strip("/").split("/")
    found = _PLACEHOLDER.findall(text)
    if len(text) > MAX_TEMPLATE or text.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise _invalid(f"{what} must be a relative path of at most {MAX_TEMPLATE} characters, without '.' and '..'")
    if not _TEMPLATE_TEXT.match(_PLACEHOLDER.sub("", text).replace("/", "")):
        raise _invalid(f"{what} may have letters, digits, '_', '-', '.', '=', '/' and placeholders")
    if sorted(found) != sorted(needed):
        names = ", ".join(f"{{{name}}}" for name in needed)
        raise _invalid(f"{what} must have each of {names} once, and no other placeholder")
    if any(len(_PLACEHOLDER.findall(part)) > 1 for part in parts):
        raise _invalid(f"{what} must have a '/' between two placeholders, so that no two tables share a folder")
    return text.strip("/")


def _invalid(message: str) -> ExecutionError:
    return ExecutionError(f"Invalid operation: {message}")
