"""Statements as bodies of `POST /v1/api/sql`: JSON, or a form where files go with them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from headrace._files import Files, form_body
from headrace._values import encode_value

Params = Sequence[Any] | None
"""Values of `$1`, `$2`, …"""

JSON = {"Content-Type": "application/json"}


def statement_body(sql: str, params: Params, namespace: str | None) -> bytes:
    """The body as JSON. Raises TypeError and ValueError for parameters that cannot be sent."""
    return msgspec.json.encode(_fields(sql, params, namespace))


def statement_with_files(
    sql: str, params: Params, namespace: str | None, files: Files | None
) -> tuple[dict[str, str], bytes | Callable[[], AsyncIterable[bytes]]]:
    """The headers and the body, or what makes its parts. Raises OSError for files that cannot be read, as above."""
    if files is None:
        return JSON, statement_body(sql, params, namespace)
    fields = _fields(sql, params, namespace)
    if "params" in fields:
        fields["params"] = msgspec.json.encode(fields["params"]).decode()
    return form_body(fields, files)


def _fields(sql: str, params: Params, namespace: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"sql": sql}
    if params is not None:
        if isinstance(params, (str, bytes, Mapping)):
            raise TypeError("params is a list of the values of $1, $2, …")
        fields["params"] = [encode_value(value) for value in params]
    if namespace:
        fields["namespace_id"] = namespace
    return fields
