"""Which format a result is sent in, by the `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import enum
from functools import lru_cache


class ResultFormat(enum.StrEnum):
    """The formats of a result, by media type."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"
    NDJSON = "application/x-ndjson"


_ACCEPTED = {
    "application/json": ResultFormat.JSON,
    "application/*": ResultFormat.JSON,
    "*/*": ResultFormat.JSON,
    "application/vnd.apache.arrow.stream": ResultFormat.ARROW,
    "application/x-ndjson": ResultFormat.NDJSON,
    "application/jsonl": ResultFormat.NDJSON,
}


@lru_cache(maxsize=256)
def choose_format(accept: bytes | None) -> ResultFormat:
    """Return the format that the client likes best, the first of equals; JSON if it names none of ours."""
    best, quality = ResultFormat.JSON, 0.0
    for entry in (accept or b"").decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        found = _ACCEPTED.get(name)
        wish = _quality(parameters)
        if found is not None and wish > quality:
            best, quality = found, wish
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
