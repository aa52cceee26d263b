"""Renders an OpenAPI document as one HTML page: no script, nothing from the network."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0a6c8f; }
@media (prefers-color-scheme: dark) { :root { --accent: #58b8d8; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
code, pre { font: 0.9em ui-monospace, monospace; } a { color: var(--accent); }
details { border: 1px solid var(--line); border-radius: 6px; margin: 0.6rem 0; padding: 0 1rem; }
details[open] { padding-bottom: 0.8rem; }
summary { cursor: pointer; padding: 0.6rem 0; } summary code { font-weight: 600; }
.method { color: var(--accent); font-weight: 700; margin-right: 0.4rem; }
.lock { font-size: 0.8em; border: 1px solid var(--line); border-radius: 4px; padding: 0 0.4em; margin-left: 0.5em; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-top: 1px solid var(--line); }
nav a { margin-right: 1rem; } .muted { opacity: 0.75; }
"""


def render(document: dict[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in [*groups, "Structures"])
    body = "".join(f'<h2 id="{escape(name)}">{escape(name)}</h2>{"".join(items)}' for name, items in groups.items())
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} HTTP API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} HTTP API</h1>"
        f'<p class="muted">Version {escape(info["version"])} · <a href="/openapi.json">openapi.json</a></p>'
        f"<p>{_text(info['description'])}</p><nav>{links}</nav>{body}"
        f'<h2 id="Structures">Structures</h2>{schemas}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lock = '<span class="lock">bearer</span>' if "security" in operation else ""
    title = f'<span class="method">{method.upper()}</span><code>{escape(path)}</code>{lock}'
    parts = [
        f'<details id="{escape(operation["operationId"])}"><summary>{title} {escape(operation["summary"])}</summary>'
    ]
    if "description" in operation:
        parts.append(f"<p>{_text(operation['description'])}</p>")
    if "parameters" in operation:
        rows = [
            (f"<code>{escape(p['name'])}</code> in the {escape(p['in'])}", escape(p["description"]))
            for p in operation["parameters"]
        ]
        parts.append("<h4>Parameters</h4>" + _table(rows))
    if "requestBody" in operation:
        parts.append("<h4>Body</h4>" + _table(_contents(operation["requestBody"]["content"])))
    rows = [
        (f"<code>{status}</code>", f"{escape(answer['description'])}{_kinds(answer.get('content', {}))}")
        for status, answer in operation["responses"].items()
    ]
    parts.append("<h4>Answers</h4>" + _table(rows) + "</details>")
    return "".join(parts)


def _contents(content: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"<code>{escape(kind)}</code>", _type(entry["schema"])) for kind, entry in content.items()]


def _kinds(content: dict[str, Any]) -> str:
    kinds = ", ".join(
        _type(entry["schema"]) if kind == "application/json" and "$ref" in entry["schema"] else f"<code>{kind}</code>"
        for kind, entry in content.items()
    )
    return f" ({kinds})" if kinds else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            f"<code>{escape(field)}</code>{'' if field in required else ' <span class=muted>optional</span>'}",
            f"{_type(entry)}{' · ' + _text(entry['description']) if 'description' in entry else ''}",
        )
        for field, entry in schema.get("properties", {}).items()
    ]
    about = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{about}{_table(rows)}</details>'


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any value")))


def _table(rows: list[tuple[str, str]]) -> str:
    return f"<table>{''.join(f'<tr><td>{left}</td><td>{right}</td></tr>' for left, right in rows)}</table>"


def _text(text: str) -> str:
    """Escape a text and show what stands in backquotes as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
