"""What tests of single statements share: shapes of results, refusals that change nothing, jobs that end."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.e2e.conformance import Failure, error, message, ok
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer

EXECUTION, INVALID = (400, "SQL_EXECUTION_ERROR"), (400, "INVALID_SQL")
UNSUPPORTED = (400, "UNSUPPORTED")
DENIED, NO_TABLE = (403, "PERMISSION_DENIED"), (404, "TABLE_NOT_FOUND")
ENDED = {"completed", "failed", "cancelled", "skipped"}
JOB_SECONDS = 60

HOSTILE_IDS = ["x" * 5000, "é", "a b", "a;b", "../up", "a/b", "a\\b", "nul\x00byte", "", "' OR 1=1 --", "\U0001f600"]
"""What no name of a storage, namespace or table may be."""


def shape(result: dict[str, Any]) -> list[tuple[str, object]]:
    """Names and types of the columns of a result."""
    return [(column["name"], column["data_type"]) for column in result["schema"]]


def one(answer: httpx.Response) -> dict[str, Any]:
    """The only result of a success."""
    (result,) = ok(answer)
    return result


def records(answer: httpx.Response) -> list[dict[str, Any]]:
    """The rows of the only result, by the names of their columns."""
    result = one(answer)
    names = [column["name"] for column in result["schema"]]
    return [dict(zip(names, row, strict=True)) for row in result["rows"]]


def refused(answer: httpx.Response, kind: tuple[int, str], part: str = "") -> Failure:
    """An error of a status and code whose message names `part`."""
    found = error(answer)
    assert found[:2] == kind, found
    assert part in found.message, found
    return found


def prefixed(answer: httpx.Response, prefix: str) -> str:
    """The id of the job that a message names, checked for the prefix of its type."""
    told = message(answer)
    found = re.findall(rf"\b{prefix}-[0-9A-Za-z-]+", told)
    assert len(found) == 1, told
    return str(found[0]).rstrip(".")


def ended(server: RunningServer, job_id: str) -> dict[str, Any]:
    """The row of a job in `system.jobs` after its end."""
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found[:] = records(server.post("SELECT * FROM system.jobs WHERE job_id = $1", [job_id]))
        assert len(found) == 1, job_id
        return found[0]["status"] in ENDED

    until(has_ended, JOB_SECONDS)
    return found[0]


def done(server: RunningServer, answer: httpx.Response, prefix: str) -> dict[str, Any]:
    """The row of the job that a statement started, which must complete."""
    row = ended(server, prefixed(answer, prefix))
    assert row["status"] == "completed", row
    return row
