"""Reading the configuration: defaults, then a TOML file, then environment variables, then flags.

Whatever is wrong with it ends in one sentence (`ConfigError`) that names the file or variable, the section and the key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.config import SECRETS, Config, Key, keys, sections

_ALIASES = {"authentication": "auth"}


class ConfigError(Exception):
    """The configuration cannot be used; the message is a sentence for whoever wrote it."""


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[tuple[str, str], object] | None = None
) -> Config:
    """Put the configuration together; `flags` maps (section, key) to values from the command line."""
    values: dict[str, dict[str, object]] = {name: {} for name in sections()}
    if path is not None:
        _merge_file(path, values)
    _merge_environment(environment, values)
    for (section, name), value in (flags or {}).items():
        key = next(key for key in keys(section) if key.name == name)
        values[section][name] = _convert(value, key, f"--{name.removesuffix('_path').replace('_', '-')}", lax=False)
    return _build(values, str(path) if path is not None else "the configuration")


def _build(values: Mapping[str, Mapping[str, object]], source: str) -> Config:
    """Make the structs, innermost first, so that rules between keys are checked with the section's name at hand."""
    built: dict[str, msgspec.Struct] = {}
    for name in sorted(sections(), key=lambda name: -name.count(".")):
        inner = {path.rpartition(".")[2]: struct for path, struct in built.items() if path.rpartition(".")[0] == name}
        try:
            built[name] = sections()[name](**values[name], **inner)
        except ValueError as error:
            raise ConfigError(f"{source}: section [{name}]: {error}.") from error
    return Config(**{name: struct for name, struct in built.items() if "." not in name})  # type: ignore[arg-type]


def _merge_file(path: Path, values: dict[str, dict[str, object]]) -> None:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}.") from error
    for name, content in document.items():
        section = _ALIASES.get(name, name)
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: key '{name}' stands outside of any section.")
        if section not in values:
            raise ConfigError(f"{path}: there is no section [{name}]{_suggest(name, values)}.")
        _merge_section(path, section, content, values)


def _merge_section(
    path: Path, section: str, content: Mapping[str, object], values: dict[str, dict[str, object]]
) -> None:
    known = {key.name: key for key in keys(section)}
    for name, value in content.items():
        nested = f"{section}.{name}"
        if isinstance(value, dict) and nested in values:
            _merge_section(path, nested, value, values)
        elif name in known:
            values[section][name] = _convert(value, known[name], str(path), lax=False)
        else:
            raise ConfigError(f"{path}: section [{section}] has no key '{name}'{_suggest(name, known)}.")


def _merge_environment(environment: Mapping[str, str], values: dict[str, dict[str, object]]) -> None:
    known = {key.variable: key for section in sections() for key in keys(section)}
    prefixes = tuple(f"HEADRACE_{section}_".upper().replace(".", "_") for section in sections())
    for variable, text in environment.items():
        key = known.get(variable)
        if key is not None:
            values[key.section][key.name] = _convert(text, key, f"environment variable {variable}", lax=True)
        elif variable.startswith(prefixes):
            raise ConfigError(f"environment variable {variable}: there is no such setting{_suggest(variable, known)}.")


def _convert(value: object, key: Key, source: str, *, lax: bool) -> object:
    """Check one value against its key's type; `lax` reads text (of a variable) as what the type needs."""
    if lax and isinstance(value, str) and isinstance(key.default, tuple):
        value = [item.strip() for item in value.split(",") if item.strip()]
    try:
        return msgspec.convert(value, key.type, strict=not lax)
    except msgspec.ValidationError as error:
        text = str(error).partition(" - at ")[0].replace("`", "")
        got = "" if key.name in SECRETS else f", got {value!r}"
        raise ConfigError(f"{source}: section [{key.section}], key '{key.name}': {text}{got}.") from error


def _suggest(name: str, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""
