"""The first start: root, the namespace default, a configured root password, and the signing key."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from server.auth.bootstrap import bootstrap
from server.auth.secret import SECRET_FILE, SecretRefused, load_or_create_secret
from server.auth.service import options_of
from server.auth.tokens import ISSUER
from server.config import AuthSection, CompatSection, Config
from sql.passwords import WeakPassword, verify_password
from tests.server.auth_fakes import ROOT_PASSWORD, START, World, run

GOOD = "9f3c1d7e5b8a4620c7d1e9f2a3b4c5d6"


def test_the_first_start_makes_root_and_the_default_namespace() -> None:
    async def scenario(world: World) -> None:
        assert await bootstrap(world.engine, world.context.options) is True
        root = world.engine.user("root")
        assert (root.role, root.auth_type, root.password_hash, root.created_at) == ("system", "internal", None, START)
        assert list(world.engine.namespaces) == ["default"]
        assert world.context.authenticator.needs_setup()
        assert await bootstrap(world.engine, world.context.options) is True
        assert world.engine.commits == 1  # the second start wrote nothing

    run(scenario, ready=False)


def test_a_configured_password_is_taken_once() -> None:
    async def scenario(world: World) -> None:
        options = world.context.options
        assert await bootstrap(world.engine, options, ROOT_PASSWORD) is False
        assert not world.context.authenticator.needs_setup()
        await world.login("root", ROOT_PASSWORD)
        assert await bootstrap(world.engine, options, "Another-Pass-1") is False
        assert verify_password(world.engine.user("root").password_hash, ROOT_PASSWORD)

    run(scenario, ready=False)


def test_a_configured_password_reaches_a_root_that_has_none() -> None:
    async def scenario(world: World) -> None:
        await bootstrap(world.engine, world.context.options)
        assert await bootstrap(world.engine, world.context.options, ROOT_PASSWORD) is False

    run(scenario, ready=False)


@pytest.mark.parametrize("password", ["short", "password1", "root"])
def test_a_weak_configured_password_stops_the_start(password: str) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(WeakPassword):
            await bootstrap(world.engine, world.context.options, password)
        assert world.engine.commits == 0

    run(scenario, ready=False)


def test_existing_objects_are_left_alone() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("root", role="system")
        before = world.engine.user("root")
        assert await bootstrap(world.engine, world.context.options) is False
        assert world.engine.user("root") == before
        assert list(world.engine.namespaces) == ["default"]

    run(scenario, ready=False)


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = load_or_create_secret(tmp_path)
    assert len(first) == 64
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert load_or_create_secret(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]
    other = tmp_path / "other"
    other.mkdir()
    assert load_or_create_secret(other) != first


def test_a_configured_key_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert load_or_create_secret(tmp_path, GOOD) == GOOD.encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("short", "at least 32 bytes"),
        ("CHANGE_ME_IN_PRODUCTION_CHANGE_ME_IN_PRODUCTION", "known default"),
        ("your-secret-key-change-this-in-production", "known default"),
        ("kalamdb-development-secret-key-0000", "known default"),
        ("a" * 64, "different characters"),
        ("0101" * 16, "different characters"),
    ],
)
def test_a_key_that_protects_nothing_is_refused(tmp_path: Path, secret: str, sentence: str) -> None:
    with pytest.raises(SecretRefused, match=sentence):
        load_or_create_secret(tmp_path, secret)


def test_a_readable_key_file_is_closed_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_or_create_secret(tmp_path)
    path = tmp_path / SECRET_FILE
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert load_or_create_secret(tmp_path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


@pytest.mark.parametrize("content", [b"", b"abc\n", b"\xff\xfe", b"0" * 64])
def test_a_damaged_key_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SECRET_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretRefused, match=SECRET_FILE):
        load_or_create_secret(tmp_path)


def test_a_staged_file_of_a_crash_is_no_key(tmp_path: Path) -> None:
    (tmp_path / f"{SECRET_FILE}.123.new").write_bytes(b"")
    assert len(load_or_create_secret(tmp_path)) == 64


def test_options_come_from_the_configuration() -> None:
    auth = AuthSection(
        jwt_expiry_hours=0.5,
        refresh_expiry_hours=2,
        cookie_secure=False,
        allow_remote_setup=True,
        min_password_length=12,
        enforce_password_complexity=True,
        argon2_iterations=5,
        max_failed_logins=3,
        lockout_minutes=2,
    )
    options = options_of(Config(auth=auth, compat=CompatSection(kalamdb_cookies=False)))
    assert (options.access_seconds, options.refresh_seconds, options.lockout_seconds) == (1800, 7200, 120)
    assert (options.cookie_secure, options.allow_remote_setup, options.kalamdb_cookies) == (False, True, False)
    assert (options.policy.min_length, options.policy.require_complexity) == (12, True)
    assert (options.parameters.iterations, options.max_failed_logins) == (5, 3)
    assert ISSUER == "headrace"


def test_the_defaults_of_options_and_configuration_are_the_same() -> None:
    from server.auth.options import AuthOptions

    assert options_of(Config()) == AuthOptions()
