"""EXPORT USER DATA, SHOW EXPORT and GET /v1/exports: one's own rows, by whom, once a day, and nobody else's."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conformance import Roles, columns, error, message, roles_of
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import INVALID, UNSUPPORTED, one, records, shape

STARTED = re.compile(
    r"User data export started\. Job ID: (UE-[0-9A-Za-z-]+)\. "
    r"Use SHOW EXPORT to check status and get the download link\."
)
COLUMNS = ["job_id", "status", "created_at", "message", "download_url"]


class World:
    """A server in which every role has exported; `links` are the ZIPs' addresses."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.told = {role: message(roles.post(role, "EXPORT USER DATA")) for role in ("user", "service", "dba")}
        self.rows = {role: self._ended(role) for role in self.told}

    def _ended(self, role: str) -> dict[str, Any]:
        def rows() -> list[dict[str, Any]]:
            return records(self.roles.post(role, "SHOW EXPORT"))

        until(lambda: rows()[0]["status"] in {"completed", "failed", "skipped"}, 60)
        return rows()[0]

    def fetch(self, role: str, path: str) -> httpx.Response:
        return self.roles.clients[role].get(path)

    def path(self, role: str) -> str:
        return urlsplit(self.rows[role]["download_url"]).path


@pytest.fixture(scope="module")
def world(server: RunningServer) -> Iterator[World]:
    server.sql(
        "CREATE NAMESPACE app; CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT);"
        "CREATE USER TABLE app.other (id INT PRIMARY KEY); CREATE USER TABLE app.empty (id INT PRIMARY KEY);"
        "CREATE TABLE app.common (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public');"
        "INSERT INTO app.common VALUES (7);"
        "CREATE STREAM TABLE app.passing (id INT) WITH (TTL_SECONDS = 600)"
    )
    with roles_of(server) as roles:
        for number, role in enumerate(("user", "service")):
            roles.post(role, f"INSERT INTO app.notes VALUES (1, 'of {role}'), (2, 'é \U0001f600')").raise_for_status()
            roles.post(role, f"INSERT INTO app.other VALUES ({number})").raise_for_status()
            roles.post(role, "INSERT INTO app.passing VALUES (1)").raise_for_status()
        yield World(roles)


def members(answer: httpx.Response) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert not [name for name in names if name.startswith("/") or ".." in name]
        return {name: archive.read(name) for name in names}


def test_the_message(world: World) -> None:
    for told in world.told.values():
        assert STARTED.fullmatch(told), told
    (row,) = records(world.roles.post("dba", "SELECT * FROM system.jobs WHERE job_id = $1", _id(world, "user")))
    assert (row["job_type"], row["status"]) == ("user_export", "completed")


def _id(world: World, role: str) -> list[Any]:
    found = STARTED.fullmatch(world.told[role])
    assert found
    return [found[1]]


@pytest.mark.parametrize("form", ["SHOW EXPORT", "show export;", "SHOW EXPORT -- mine"])
def test_show_export(world: World, form: str) -> None:
    for role in world.told:
        result = one(world.roles.post(role, form))
        assert columns(result) == COLUMNS
        assert dict(shape(result))["created_at"] == "Timestamp"
        assert "message" not in result
        (row,) = records(world.roles.post(role, form))
        assert row["job_id"] == _id(world, role)[0]
        assert row["status"] == "completed"
        if role != "dba":
            start = world.roles.server.url + f"/v1/exports/{Roles.names[role]}/"
            assert row["download_url"].startswith(start)
    assert one(world.roles.post("system", form))["rows"] == []  # root has none


def test_once_a_day(world: World) -> None:
    before = one(world.roles.post("user", "SHOW EXPORT"))["rows"]
    answer = world.roles.post("user", "EXPORT USER DATA")
    if answer.status_code == 200:  # the same job is told of again
        assert _id(world, "user")[0] in message(answer)
    else:
        assert error(answer).status in {400, 409, 429}
    assert one(world.roles.post("user", "SHOW EXPORT"))["rows"] == before


def test_what_is_in_it(world: World) -> None:
    for role in ("user", "service"):
        answer = world.fetch(role, world.path(role))
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/zip"
        name = world.path(role).rsplit("/", 1)[1]
        assert "attachment" in answer.headers["Content-Disposition"]
        assert f"{name}.zip" in answer.headers["Content-Disposition"]
        found = members(answer)
        assert {name.rsplit("/", 1)[0] for name in found if "/" in name} == {"app/notes", "app/other", "app/passing"}
        text = b"".join(found.values())
        assert b"of service" not in text or role == "service"
        assert b"of user" not in text or role == "user"


def test_no_rows_of_ones_own(world: World) -> None:
    assert "No data found for this user in any table" in world.rows["dba"]["message"]


def test_who_may_download(world: World) -> None:
    for role in ("dba", "system"):
        assert world.fetch(role, world.path("user")).status_code == 200
    answer = world.fetch("user", world.path("service"))
    assert answer.status_code == 403
    assert "PERMISSION_DENIED" in answer.text
    answer = world.fetch("service", world.path("user"))
    assert answer.status_code == 403
    answer = httpx.get(world.roles.server.url + world.path("user"))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "MISSING_AUTHORIZATION"
    assert members(world.fetch("dba", world.path("service")))


@pytest.mark.parametrize("name", ["UE-0", "nosuch", "x" * 200])
def test_missing_exports(world: World, name: str) -> None:
    answer = world.fetch("user", f"/v1/exports/u1/{name}")
    assert (answer.status_code, answer.json()) in [
        (404, {"error": "Export not found", "code": "EXPORT_NOT_FOUND"}),
        *([(400, answer.json())] if len(name) > 64 else []),
    ]


@pytest.mark.parametrize("path", ["u1/..%2f..%2fdata.mdb", "u1/%2e%2e", "u1/a%00b", "u1/a%5cb", "..%2fs1/x", "%00/x"])
def test_ids_that_lead_elsewhere(world: World, path: str) -> None:
    for role in ("user", "dba"):
        answer = world.fetch(role, f"/v1/exports/{path}")
        assert answer.status_code in {400, 403, 404}
        assert not answer.content.startswith(b"PK")


@pytest.mark.parametrize("sql", ["EXPORT", "EXPORT USER", "EXPORT USER DATA 'u1'", "EXPORT USER DATA TO '/tmp/x'",
                                 "EXPORT USER DATA FOR s1", "EXPORT DATA", "SHOW EXPORT FOR u1",
                                 "SHOW EXPORTS 'x'"])  # fmt: skip
def test_malformed(world: World, sql: str) -> None:
    assert error(world.roles.post("dba", sql))[:2] in {INVALID, UNSUPPORTED}


def test_not_in_a_transaction(world: World) -> None:
    assert error(world.roles.post("system", "BEGIN; EXPORT USER DATA; COMMIT")).status == 400
    assert one(world.roles.post("system", "SHOW EXPORT"))["rows"] == []
