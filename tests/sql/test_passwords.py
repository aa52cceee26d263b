"""Password hashes and the policy for new passwords."""

from __future__ import annotations

import statistics
import time

import pytest

from sql.errors import ExecutionError
from sql.passwords import (
    DEFAULT_PARAMETERS,
    HashParameters,
    PolicyOptions,
    WeakPassword,
    check_policy,
    hash_password,
    needs_rehash,
    prepare_stand_in,
    rehash_password,
    verify_password,
)

CHEAP = HashParameters(memory_kib=8, iterations=1)


def test_a_hash_verifies_only_its_own_password() -> None:
    hashed = hash_password("Secret123!", CHEAP)
    assert hashed.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert verify_password(hashed, "Secret123!", CHEAP)
    assert not verify_password(hashed, "Secret123", CHEAP)
    assert not verify_password(hashed, "secret123!", CHEAP)
    assert not verify_password(hashed, "", CHEAP)


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("Secret123!", CHEAP) != hash_password("Secret123!", CHEAP)


def test_a_missing_hash_is_never_right() -> None:
    for missing in (None, ""):
        assert not verify_password(missing, "no account has this password", CHEAP)
        assert not verify_password(missing, "", CHEAP)


def test_a_missing_hash_takes_as_long_as_a_real_one() -> None:
    parameters = HashParameters(memory_kib=4096, iterations=2)
    prepare_stand_in(parameters)
    hashed = hash_password("Secret123!", parameters)

    def cost(stored: str | None) -> float:
        times = []
        for _ in range(7):
            start = time.thread_time()
            verify_password(stored, "wrong", parameters)
            times.append(time.thread_time() - start)
        return statistics.median(times)

    assert cost(None) > 0.5 * cost(hashed)


def test_a_stored_string_that_is_no_hash_is_wrong() -> None:
    assert not verify_password("plain text", "plain text", CHEAP)
    assert needs_rehash("plain text", CHEAP)


def test_hashes_of_older_parameters_work_and_are_renewed() -> None:
    hashed = hash_password("Secret123!", CHEAP)
    dearer = HashParameters(memory_kib=16, iterations=1)
    assert verify_password(hashed, "Secret123!", dearer)
    assert needs_rehash(hashed, dearer)
    assert not needs_rehash(hashed, CHEAP)
    renewed = rehash_password(hashed, "Secret123!", dearer)
    assert verify_password(renewed, "Secret123!", dearer)
    assert not verify_password(renewed, "Secret123", dearer)
    assert not needs_rehash(renewed, dearer)
    assert renewed.split("$")[4] == hashed.split("$")[4]


def test_defaults_are_at_least_what_owasp_asks() -> None:
    assert DEFAULT_PARAMETERS.memory_kib >= 19 * 1024
    assert DEFAULT_PARAMETERS.iterations >= 2


@pytest.mark.parametrize("password", ["pässwörter-🌊", "x" * 1024, "nul\0inside it", "lone \ud800 half"])
def test_any_text_can_be_a_password(password: str) -> None:
    hashed = hash_password(password, CHEAP)
    assert verify_password(hashed, password, CHEAP)
    assert not verify_password(hashed, password + "x", CHEAP)


def test_composed_and_decomposed_letters_are_the_same_password() -> None:
    hashed = hash_password("caf\u00e9-au-lait", CHEAP)
    assert verify_password(hashed, "cafe\u0301-au-lait", CHEAP)


@pytest.mark.parametrize("password", ["Secret123!", "AdminPass123!", "RootPass123!", "correct horse battery"])
def test_the_passwords_of_the_documentation_are_accepted(password: str) -> None:
    check_policy(password, user="alice")


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("", "at least 8 characters"),
        ("1234567", "at least 8 characters"),
        ("x1" * 513, "at most 1024 characters"),
        ("password", "among the most common"),
        ("PassWord123", "among the most common"),
        ("  password ", "among the most common"),
        ("zzzzzzzzzz", "among the most common"),
        ("\uff50assword1", "among the most common"),
        ("Alice.Lidell", "must not be the user name"),
    ],
)
def test_weak_passwords_are_refused_with_a_sentence(password: str, sentence: str) -> None:
    with pytest.raises(WeakPassword, match=sentence) as caught:
        check_policy(password, user="alice.lidell")
    assert isinstance(caught.value, ExecutionError)
    assert caught.value.code == "WEAK_PASSWORD"
    assert caught.value.message.endswith(".")


def test_lengths_are_configurable() -> None:
    options = PolicyOptions(min_length=12, max_length=20)
    check_policy("a" * 6 + "b" * 6, options)
    with pytest.raises(WeakPassword, match="at least 12"):
        check_policy("elevenchars", options)
    with pytest.raises(WeakPassword, match="at most 20"):
        check_policy("twenty-one-characters", options)


def test_complexity_is_off_by_default_and_lists_all_that_is_missing() -> None:
    options = PolicyOptions(require_complexity=True)
    check_policy("only lower case letters")
    check_policy("Secret123!", options)
    with pytest.raises(WeakPassword, match="an upper-case letter, a digit and a special character"):
        check_policy("onlylowercase", options)
    with pytest.raises(WeakPassword, match="also contain a digit"):
        check_policy("Secret-word", options)
