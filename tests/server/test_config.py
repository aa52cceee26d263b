"""The configuration: one definition, three places that agree, and sentences for whoever gets it wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from server.config import Config, keys, sections
from server.config_load import ConfigError, load
from server.config_reference import markdown, toml

ROOT = Path(__file__).parents[2]


def test_config_toml_structs_and_documentation_are_equal() -> None:
    assert (ROOT / "config.toml").read_text("utf-8") == toml()
    assert (ROOT / "docs/configuration.md").read_text("utf-8") == markdown()


def test_config_toml_is_the_defaults() -> None:
    assert load(ROOT / "config.toml", {}) == Config()


def test_every_key_has_a_meaning() -> None:
    for section in sections():
        for key in keys(section):
            assert len(key.meaning) > 10, (section, key.name)
            assert not key.meaning.endswith(".")


def test_every_variable_is_unique() -> None:
    variables = [key.variable for section in sections() for key in keys(section)]
    assert len(set(variables)) == len(variables)


def test_file_variable_and_flag_override_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[server]\nhost = "0.0.0.0"\nport = 1\n[security.cors]\nmax_age = 5\n[authentication]\ncookie_secure = false\n'
    )
    environment = {
        "HEADRACE_SERVER_PORT": "2",
        "HEADRACE_SECURITY_CORS_ALLOWED_ORIGINS": "https://a.example, https://b.example",
    }
    config = load(file, environment, {("logging", "format"): "json"})
    assert config.server.host == "0.0.0.0"
    assert config.server.port == 2
    assert config.security.cors.max_age == 5
    assert config.security.cors.allowed_origins == ("https://a.example", "https://b.example")
    assert config.auth.cookie_secure is False
    assert config.logging.format == "json"
    assert load(file, environment, {("server", "port"): 3}).server.port == 3


def test_variables_convert(tmp_path: Path) -> None:
    environment = {
        "HEADRACE_AUTH_ALLOW_REMOTE_SETUP": "true",
        "HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS": "2.5",
        "HEADRACE_WIRE_BIGINT": "string",
        "HEADRACE_URL": "of the client, not ours",
    }
    config = load(None, environment)
    assert config.auth.allow_remote_setup is True
    assert config.execution.handler_timeout_seconds == 2.5
    assert config.wire.bigint == "string"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[sever]\n", r"there is no section \[sever\]; did you mean 'server'\?"),
        ("[server]\nprot = 1\n", r"section \[server\] has no key 'prot'; did you mean 'port'\?"),
        (
            "[security.cors]\nmax_ages = 1\n",
            r"section \[security\.cors\] has no key 'max_ages'; did you mean 'max_age'\?",
        ),
        ("[server]\nport = '1'\n", r"section \[server\], key 'port': Expected int, got str, got '1'"),
        ("[server]\nport = 70000\n", r"section \[server\], key 'port': Expected int <= 65535, got 70000"),
        ("[wire]\nbigint = 'auot'\n", r"section \[wire\], key 'bigint': Invalid enum value 'auot', got 'auot'"),
        ("port = 1\n", r"key 'port' stands outside of any section"),
        ("[server\n", r"is not valid TOML"),
        (
            "[security]\ntrusted_proxy_ranges = ['10.0.0.0/40']\n",
            r"section \[security\]: key 'trusted_proxy_ranges': '10",
        ),
        ("[security.cors]\nallow_credentials = true\n", r"section \[security\.cors\]: key 'allow_credentials' needs"),
        ("[auth]\njwt_secret = 'short'\n", r"section \[auth\]: key 'jwt_secret' must have at least 32 characters"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load(file, {})
    message = str(caught.value)
    assert message.startswith(str(file))
    assert message.endswith((".", "?"))


def test_missing_file_and_wrong_variables_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'no.toml'}: there is no such file.")):
        load(tmp_path / "no.toml", {})
    with pytest.raises(
        ConfigError, match=r"HEADRACE_SERVER_PROT: there is no such setting; did you mean 'HEADRACE_SERVER_PORT'"
    ):
        load(None, {"HEADRACE_SERVER_PROT": "1"})
    with pytest.raises(
        ConfigError, match=r"HEADRACE_SERVER_PORT: section \[server\], key 'port': Expected int, got str"
    ):
        load(None, {"HEADRACE_SERVER_PORT": "many"})


def test_toml_is_valid() -> None:
    assert set(tomllib.loads(toml())) == {name.partition(".")[0] for name in sections()}


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[auth]\nroot_password = 20260101\n")
    with pytest.raises(ConfigError, match="root_password") as caught:
        load(file, {})
    assert "20260101" not in str(caught.value)
