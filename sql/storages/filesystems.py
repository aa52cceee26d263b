"""From a storage's type, base, configuration and credentials to a file system of `pyarrow.fs`.

Every option that may be written is listed here; others are refused, and so is a secret in CONFIG, which is shown.
Object stores that answer slowly or not at all end after the timeouts of `RemoteTimeouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sql.errors import ExecutionError

if TYPE_CHECKING:
    from pyarrow import fs

_ATTEMPTS = 2
"""How often a request to S3 is made before it has failed; jobs repeat what matters."""

SECRETS: Final[dict[str, dict[str, str]]] = {
    "filesystem": {},
    "s3": {
        "access_key_id": "access_key", "access_key": "access_key", "secret_access_key": "secret_key",
        "secret_key": "secret_key", "session_token": "session_token",
    },
    "gcs": {"access_token": "access_token", "expiration": "expiration"},
    "azure": {
        "account_key": "account_key", "sas_token": "sas_token", "client_id": "client_id",
        "client_secret": "client_secret", "tenant_id": "tenant_id",
    },
}  # fmt: skip
"""Keys of CREDENTIALS by type, and what each means."""

OPTIONS: Final[dict[str, dict[str, str]]] = {
    "filesystem": {},
    "s3": {
        "region": "region", "endpoint": "endpoint", "endpoint_override": "endpoint", "allow_http": "allow_http",
        "virtual_addressing": "virtual_addressing", "anonymous": "anonymous", "role_arn": "role_arn",
        "external_id": "external_id",
    },
    "gcs": {
        "endpoint": "endpoint", "allow_http": "allow_http", "anonymous": "anonymous", "project_id": "project_id",
        "target_service_account": "target_service_account",
    },
    "azure": {"account_name": "account_name", "endpoint": "endpoint", "allow_http": "allow_http"},
}  # fmt: skip
"""Keys of CONFIG by type, and what each means."""

_FLAGS: Final = frozenset({"allow_http", "virtual_addressing", "anonymous"})


@dataclass(frozen=True, slots=True)
class RemoteTimeouts:
    """Seconds that an object store may take."""

    connect: float = 10.0
    request: float = 60.0


def read_options(kind: str, what: str, text: str | None, region: str | None = None) -> dict[str, object]:
    """The JSON text of CREDENTIALS or CONFIG, checked, by meaning. Raises ExecutionError, which shows no value."""
    known = (SECRETS if what == "CREDENTIALS" else OPTIONS)[kind]
    found: dict[str, object] = {}
    if text is not None:
        try:
            written = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            raise _invalid(f'{what} must be a JSON object: \'{{"key": "value"}}\'') from None
        for name, value in written.items():
            if name not in known:
                raise _unknown(kind, what, name, known)
            if type(value) is not (bool if known[name] in _FLAGS else str) or value == "":
                wanted = "true or false" if known[name] in _FLAGS else "a text"
                raise _invalid(f"'{name}' in {what} must be {wanted}")
            if known[name] in found:
                raise _invalid(f"'{name}' in {what} is given twice, under two names")
            found[known[name]] = value
    if region is not None:
        if "region" not in known:
            raise _invalid(f"REGION belongs to a storage of type s3, not {kind}")
        if found.setdefault("region", region) != region:
            raise _invalid("REGION and the region in CONFIG differ")
    return found


def check_credentials(kind: str, found: Mapping[str, object]) -> None:
    """Raise ExecutionError when credentials do not belong together."""
    if kind == "s3" and ("access_key" in found) != ("secret_key" in found):
        raise _invalid("CREDENTIALS of type s3 take access_key_id and secret_access_key together")
    if kind == "s3" and "session_token" in found and "access_key" not in found:
        raise _invalid("session_token in CREDENTIALS needs access_key_id and secret_access_key")
    if kind == "azure" and len({"account_key", "sas_token", "client_secret"} & found.keys()) > 1:
        raise _invalid("CREDENTIALS of type azure take one of account_key, sas_token and client_secret")
    if kind == "azure" and "client_secret" in found and not {"client_id", "tenant_id"} <= found.keys():
        raise _invalid("client_secret in CREDENTIALS needs client_id and tenant_id")
    if kind == "gcs" and "expiration" in found and _time(found["expiration"]) is None:
        raise _invalid("'expiration' in CREDENTIALS must be a time such as 2030-01-31T12:00:00Z")


def check_config(kind: str, found: Mapping[str, object]) -> None:
    """Raise ExecutionError when something needed is missing from CONFIG."""
    if kind == "azure" and "account_name" not in found:
        raise _invalid('a storage of type azure needs CONFIG \'{"account_name": "…"}\'')
    endpoint = found.get("endpoint")
    if isinstance(endpoint, str):
        scheme = endpoint.partition("://")[0] if "://" in endpoint else ""
        if scheme not in ("", "http", "https") or "@" in endpoint:
            raise _invalid("'endpoint' in CONFIG must be host:port, http://host:port or https://host:port")
        if scheme == "http" and not found.get("allow_http"):
            raise _invalid('an endpoint without TLS needs "allow_http": true in CONFIG')


def open_filesystem(
    kind: str,
    base: str,
    config: Mapping[str, object],
    credentials: Mapping[str, object],
    timeouts: RemoteTimeouts,
) -> fs.FileSystem:
    """A file system rooted at the base; nothing is asked of it yet. Raises OSError, ValueError or ArrowException."""
    from pyarrow import fs

    if kind == "filesystem":
        return fs.SubTreeFileSystem(base, fs.LocalFileSystem())
    system = _OPENERS[kind](config, credentials, timeouts)
    return fs.SubTreeFileSystem(base.partition("://")[2], system)


def folder_of_base(kind: str, base: str) -> Path | None:
    """The base as a folder of this machine, if it is one."""
    return Path(base) if kind == "filesystem" else None


def _s3(config: Mapping[str, object], credentials: Mapping[str, object], timeouts: RemoteTimeouts) -> fs.FileSystem:
    from pyarrow import fs

    given: dict[str, object] = {
        name: credentials[name] for name in ("secret_key", "session_token") if name in credentials
    }
    given |= {name: config[name] for name in ("region", "role_arn", "external_id") if name in config}
    host, scheme = _endpoint(config)
    if host is not None:
        given |= {"endpoint_override": host, "scheme": scheme}
        given.setdefault("region", "us-east-1")
    return fs.S3FileSystem(
        access_key=credentials.get("access_key"),
        anonymous=bool(config.get("anonymous")),
        connect_timeout=timeouts.connect,
        request_timeout=timeouts.request,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        force_virtual_addressing=bool(config.get("virtual_addressing")),
        background_writes=False,
        **given,
    )


def _gcs(config: Mapping[str, object], credentials: Mapping[str, object], timeouts: RemoteTimeouts) -> fs.FileSystem:
    from pyarrow import fs

    given: dict[str, object] = {
        name: config[name] for name in ("project_id", "target_service_account") if name in config
    }
    host, scheme = _endpoint(config)
    if host is not None:
        given |= {"endpoint_override": host, "scheme": scheme}
    if "access_token" in credentials:
        ends = _time(credentials.get("expiration")) or datetime.now(UTC) + timedelta(days=3650)
        given |= {"access_token": credentials["access_token"], "credential_token_expiration": ends}
    return fs.GcsFileSystem(
        anonymous=bool(config.get("anonymous")), retry_time_limit=timedelta(seconds=timeouts.request), **given
    )


def _azure(config: Mapping[str, object], credentials: Mapping[str, object], timeouts: RemoteTimeouts) -> fs.FileSystem:
    from pyarrow import fs

    given: dict[str, object] = dict(credentials)
    host, scheme = _endpoint(config)
    if host is not None:
        given |= {"blob_storage_authority": host, "dfs_storage_authority": host}
        given |= {"blob_storage_scheme": scheme, "dfs_storage_scheme": scheme}
    return fs.AzureFileSystem(config["account_name"], **given)


_OPENERS: Final[dict[str, Callable[[Mapping[str, object], Mapping[str, object], RemoteTimeouts], fs.FileSystem]]] = {
    "s3": _s3,
    "gcs": _gcs,
    "azure": _azure,
}


def _endpoint(config: Mapping[str, object]) -> tuple[str | None, str]:
    """Host and port of an endpoint, and its scheme."""
    text = config.get("endpoint")
    if not isinstance(text, str):
        return None, "https"
    scheme, separator, host = text.partition("://")
    if not separator:
        return text.rstrip("/"), "http" if config.get("allow_http") else "https"
    return host.rstrip("/"), scheme


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _unknown(kind: str, what: str, name: str, known: Mapping[str, str]) -> ExecutionError:
    if what == "CONFIG" and name in SECRETS[kind]:
        return _invalid(f"'{name}' belongs in CREDENTIALS, which are encrypted and never shown, not in CONFIG")
    allowed = ", ".join(sorted(known)) or "nothing"
    return _invalid(f"unknown key '{name[:80]}' in {what} of type {kind} (known: {allowed})")


def _invalid(message: str) -> ExecutionError:
    return ExecutionError(f"Invalid operation: {message}")
