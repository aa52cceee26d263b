r"""Credentials of storages at rest: encrypted with a key that lies beside the database, not in it.

AES-256-GCM of the library `cryptography`. The key is derived (HKDF-SHA-256) from 32 random bytes in the file
`storage_key` of the data folder, which is made with the first credentials and which only its owner can read.
A copy of the database file alone, or of what `system.storages` shows, gives nothing away; whoever has the whole
folder has the credentials, because the server must be able to use them without anybody's help.

    stored = b"\x01" | nonce (12 bytes) | ciphertext and tag; the storage's id is authenticated with it
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from storage.errors import StorageError

KEY_FILE = "storage_key"
_VERSION = b"\x01"
_NONCE = 12
_KEY = 32


class CredentialsLost(StorageError):
    """Stored credentials cannot be read: the key is another one, or gone, or the bytes are damaged."""


class CredentialVault:
    """Encrypts and decrypts; one a data folder. The library is imported when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEY_FILE

    def seal(self, storage_id: str, text: str) -> bytes:
        """Encrypt credentials of a storage. Raises StorageError when the key can be neither read nor made."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(self._key(create=True)).encrypt(nonce, text.encode(), storage_id.encode())
        return _VERSION + nonce + sealed

    def unseal(self, storage_id: str, sealed: bytes) -> str:
        """Decrypt them. Raises CredentialsLost."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if sealed[:1] != _VERSION:
            raise CredentialsLost(f"the credentials of storage '{storage_id}' have an unknown form")
        nonce, data = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return AESGCM(self._key(create=False)).decrypt(nonce, data, storage_id.encode()).decode()
        except InvalidTag:
            raise CredentialsLost(
                f"the credentials of storage '{storage_id}' were encrypted with another key than {self._path.name}; "
                "set them again: ALTER STORAGE … SET CREDENTIALS"
            ) from None

    def _key(self, *, create: bool) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        secret = self._secret(create=create)
        return HKDF(SHA256(), _KEY, salt=None, info=b"headrace storage credentials").derive(secret)

    def _secret(self, *, create: bool) -> bytes:
        try:
            if create and not self._path.exists():
                self._make()
            secret = bytes.fromhex(self._path.read_text("ascii").strip())
        except FileNotFoundError:
            raise CredentialsLost(f"the file {self._path.name} of the data folder is gone") from None
        except (OSError, ValueError) as error:
            raise CredentialsLost(f"the file {self._path.name} of the data folder cannot be read: {error}") from None
        if len(secret) != _KEY:
            raise CredentialsLost(f"the file {self._path.name} of the data folder is damaged")
        return secret

    def _make(self) -> None:
        """Make the secret so that a crash leaves all of it or nothing, and a second maker keeps the first one's."""
        staged = self._path.with_name(f"{KEY_FILE}.{secrets.token_hex(8)}.new")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                self._path.hardlink_to(staged)
            except FileExistsError:
                return
        finally:
            staged.unlink(missing_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
