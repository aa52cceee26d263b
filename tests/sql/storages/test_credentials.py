"""Credentials at rest: only the key of the data folder opens them, and only for their own storage."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.storages.credentials import KEY_FILE, CredentialsLost, CredentialVault


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=300), storage=st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
def test_what_is_sealed_is_unsealed(tmp_path_factory: pytest.TempPathFactory, text: str, storage: str) -> None:
    vault = CredentialVault(tmp_path_factory.mktemp("vault"))
    sealed = vault.seal(storage, text)
    assert CredentialVault(vault._path.parent).unseal(storage, sealed) == text
    assert len(text) < 8 or text.encode() not in sealed
    assert vault.seal(storage, text) != sealed  # a nonce of its own each time
    with pytest.raises(CredentialsLost):
        vault.unseal(storage + "x", sealed)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 80), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    vault = CredentialVault(tmp_path_factory.mktemp("vault"))
    sealed = bytearray(vault.seal("s", '{"secret_key": "0123456789abcdef"}'))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(CredentialsLost):
        vault.unseal("s", bytes(sealed))


def test_the_key_is_the_owners_alone_and_is_made_once(tmp_path: Path) -> None:
    sealed: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: sealed.append(CredentialVault(tmp_path).seal("s", "text"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert {CredentialVault(tmp_path).unseal("s", one) for one in sealed} == {"text"}


@pytest.mark.parametrize("damage", ["gone", "other", "short", "no hex"])
def test_without_the_key_they_are_lost_and_the_error_says_so(tmp_path: Path, damage: str) -> None:
    vault = CredentialVault(tmp_path)
    sealed = vault.seal("main", "text")
    path = tmp_path / KEY_FILE
    if damage == "gone":
        path.unlink()
    else:
        path.write_text({"other": "ab" * 32, "short": "ab", "no hex": "zz" * 32}[damage])
    with pytest.raises(CredentialsLost, match="storage_key"):
        vault.unseal("main", sealed)


def test_a_lost_key_is_not_made_anew_by_reading(tmp_path: Path) -> None:
    vault = CredentialVault(tmp_path)
    sealed = vault.seal("main", "text")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(CredentialsLost):
        vault.unseal("main", sealed)
    assert not (tmp_path / KEY_FILE).exists()
