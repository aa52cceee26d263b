"""Renders `config.toml` and `docs/configuration.md` from the structs of `server/config.py`.

`python -m server.config_reference` writes both files into the current folder; a test fails when they differ.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from server.config import keys, sections

_TOML_HEAD = """\
# Headrace: every setting, its default and what it means. Start with it: headrace serve --config config.toml
# Each key can be overridden by the environment variable HEADRACE_<SECTION>_<KEY>, e.g. HEADRACE_SERVER_PORT=8080.
# Sizes are bytes and times seconds unless the name says otherwise.
"""

_MARKDOWN_HEAD = """\
# Configuration

`headrace serve` needs no configuration. Settings come from, each overriding the one before:

1. the defaults below,
2. the file given with `--config` (TOML; [config.toml](../config.toml) lists every key with its default),
3. environment variables, `HEADRACE_<SECTION>_<KEY>` (lists: items separated by commas),
4. the flags `--data` (`storage.data_path`), `--host`, `--port` and `--log-format` (`logging.format`).

An unknown section, key or variable, or a value that does not fit, ends the start with a sentence that names it and exit
code 2. Sizes are bytes and times seconds unless the name says otherwise.

This page is rendered from `server/config.py`: `python -m server.config_reference`.
"""


def toml() -> str:
    """The text of `config.toml`."""
    parts = [_TOML_HEAD]
    for section, struct in sections().items():
        parts.append(f"\n# {_summary(struct)}\n[{section}]\n")
        parts += [f"# {key.meaning}\n{key.name} = {_literal(key.default)}\n" for key in keys(section)]
    return "".join(parts)


def markdown() -> str:
    """The text of `docs/configuration.md`."""
    parts = [_MARKDOWN_HEAD]
    for section, struct in sections().items():
        parts.append(
            f"\n## `[{section}]`\n\n{_summary(struct)}\n\n| Key | Default | Meaning | Variable |\n|---|---|---|---|\n"
        )
        parts += [
            f"| `{key.name}` | `{_literal(key.default)}` | {key.meaning} | `{key.variable}` |\n"
            for key in keys(section)
        ]
    return "".join(parts)


def _literal(value: object) -> str:
    """Write a default as TOML does; JSON agrees with TOML for all types that we use."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _summary(struct: type) -> str:
    return (inspect.getdoc(struct) or "").partition("\n")[0]


if __name__ == "__main__":
    Path("config.toml").write_text(toml(), "utf-8")
    Path("docs/configuration.md").write_text(markdown(), "utf-8")
