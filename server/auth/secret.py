"""The key that signs tokens: configured, or made at random on the first start and kept in the data folder.

The file holds 64 hexadecimal digits (256 random bits) and is readable by its owner only. Whoever can read it can
make a token for any account: it belongs into no image and no repository. Deleting it signs everybody out.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

SECRET_FILE = "jwt_secret"  # noqa: S105  a file name
MINIMUM_LENGTH = 32

_KNOWN = (
    "change_me", "changeme", "change-me", "change_this", "change-this", "your-secret", "your_secret", "yoursecret",
    "my-secret", "my_secret", "mysecret", "default", "example", "placeholder", "insecure", "jwt-secret", "jwt_secret",
    "kalamdb", "headrace", "supersecret", "super-secret", "super_secret", "password", "0123456789", "1234567890",
)  # fmt: skip

_log = logging.getLogger(__name__)


class SecretRefused(Exception):
    """The configured or stored secret does not protect anything; the message says why."""


def load_or_create_secret(
    data_dir: Path, configured: str | None = None, *, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> bytes:
    """The signing key: the configured one if there is one, else that of the data folder, made now if need be."""
    if configured:
        _check(configured, "auth.jwt_secret")
        return configured.encode()
    path = data_dir / SECRET_FILE
    try:
        return _load(path)
    except FileNotFoundError:
        _create(path, random_bytes(32).hex())
        return _load(path)


def _check(secret: str, origin: str) -> None:
    """Raise SecretRefused for a secret that is short, well known or monotonous."""
    if len(secret.encode()) < MINIMUM_LENGTH:
        raise SecretRefused(f"{origin} must have at least {MINIMUM_LENGTH} bytes; it has {len(secret.encode())}.")
    lowered = secret.lower()
    if any(lowered.startswith(known) for known in _KNOWN):
        raise SecretRefused(f"{origin} begins like a known default or example; use random text.")
    if len(set(secret)) < 8:
        raise SecretRefused(f"{origin} repeats only {len(set(secret))} different characters; use random text.")


def _load(path: Path) -> bytes:
    """Read the stored key; a file that others can read is closed to them, with a warning."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        _log.warning("%s could be read by others (mode %04o); its mode is set to 0600", path, mode)
        path.chmod(0o600)
    text = path.read_text("ascii", errors="replace").strip()
    _check(text, str(path))
    return text.encode()


def _create(path: Path, text: str) -> None:
    """Write the key so that a crash leaves the whole file or none, and another process's file is kept."""
    staged = path.with_name(f"{path.name}.{os.getpid()}.new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(staged)
        except FileExistsError:
            return
    finally:
        staged.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
