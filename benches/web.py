"""Single HTTP requests for set-up and checks (never for load)."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

import msgspec


class RequestFailed(RuntimeError):
    """An answer with an error status; carries the beginning of its body."""


def send(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 300.0,
) -> bytes:
    """Send one request and return the answer's body."""
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        message = f"{method} {url}: {error.code} {error.read()[:500]!r}"
        raise RequestFailed(message) from error


def send_json(method: str, url: str, document: object = None, headers: Mapping[str, str] | None = None) -> object:
    """Send a JSON document (or nothing) and decode the answer."""
    body = None if document is None else msgspec.json.encode(document)
    answer = send(method, url, body, {"Content-Type": "application/json", **(headers or {})})
    return msgspec.json.decode(answer) if answer else None
