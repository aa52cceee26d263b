"""EXPORT USER DATA against a real server: complete, readable by other programs, for those only who may have it."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.e2e.files_support import FileUser, code_of, until
from tests.e2e.running import RunningServer

JOB = r"UE-[0-9a-f]{23}"
STARTED = re.compile(
    rf"User data export started\. Job ID: ({JOB})\. Use SHOW EXPORT to check status and get the download link\."
)
PASSWORD = "Secret123!x"
TYPES = (
    "id BIGINT PRIMARY KEY, t TEXT, b BOOLEAN, d DOUBLE, m DECIMAL(20,4), u UUID, y BYTES, j JSON, ts TIMESTAMP, "
    "dt DATETIME, da DATE, ti TIME, e EMBEDDING(2), attachment FILE"
)


@pytest.fixture(scope="module")
def people(server: RunningServer) -> Iterator[dict[str, FileUser]]:
    """admin (dba), carl (service), alice and bob (user)."""
    server.sql("CREATE NAMESPACE app")
    server.sql(f"CREATE USER TABLE app.things ({TYPES})")
    server.sql("CREATE USER TABLE app.travel (id BIGINT PRIMARY KEY, x TEXT)")
    server.sql("CREATE SHARED TABLE app.all_see (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public')")
    server.sql("CREATE STREAM TABLE app.events (id BIGINT, x TEXT) WITH (TTL_SECONDS = 600)")
    found = {"admin": FileUser(server, server.token)}
    for name, role in {"alice": "user", "bob": "user", "carl": "service", "eve": "user"}.items():
        server.sql(f"CREATE USER '{name}' WITH PASSWORD '{PASSWORD}' ROLE {role}")
        found[name] = FileUser(server, server.login(name, PASSWORD))
    yield found
    for user in found.values():
        user.http.close()


def message_of(user: FileUser, text: str) -> str:
    answer = user.sql(text)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["message"])


def shown(user: FileUser) -> list[dict[str, Any]]:
    result = user.sql("SHOW EXPORT").json()["results"][0]
    names = [column["name"] for column in result["schema"]]
    assert names == ["job_id", "status", "created_at", "message", "download_url"]
    return [dict(zip(names, row, strict=True)) for row in result.get("rows", [])]


def exported(user: FileUser, statement: str = "EXPORT USER DATA") -> dict[str, Any]:
    """What SHOW EXPORT says of an export that has been made now."""
    found = STARTED.fullmatch(message_of(user, statement))
    assert found
    until(lambda: shown(user)[0]["status"] == "completed")
    row = shown(user)[0]
    assert row["job_id"] == found[1]
    return row


def fill(user: FileUser, name: str) -> None:
    answer = user.upload(
        "INSERT INTO app.things VALUES (1, 'a \"quoted\", text\nin two lines ' || $1, true, 0.5, 12.3400, "
        "'00112233-4455-6677-8899-aabbccddeeff', X'00ff', '{\"k\":[1]}', '2026-01-02 03:04:05.5', "
        "'2026-01-02 03:04:05Z', '2026-01-02', '03:04:05', [0.5, 1.5], FILE(\"f\"))",
        {"f": ("of.txt", name.encode(), "text/plain")}, [name],
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    for text in (
        f"INSERT INTO app.things (id, t) SELECT i, 'row of {name} ' || i FROM range(2, 3001) r(i)",
        "INSERT INTO app.things (id, t) VALUES (9007199254740993, '')",
        "INSERT INTO app.travel VALUES (1, 'x')",
        f"INSERT INTO app.events VALUES (7, '{name}')",
    ):
        answer = user.sql(text)
        assert answer.status_code == 200, answer.text


def test_an_export_is_complete_and_others_can_open_it(
    server: RunningServer, people: dict[str, FileUser], tmp_path: Path
) -> None:
    alice, bob = people["alice"], people["bob"]
    fill(alice, "alice")
    fill(bob, "bob")
    server.sql("STORAGE FLUSH TABLE app.things")
    until(lambda: server.rows("SELECT status FROM system.jobs WHERE job_type = 'flush'") == [["completed"]])
    alice.sql("DELETE FROM app.things WHERE id = 5; UPDATE app.things SET t = 'new' WHERE id = 6")
    row = exported(alice)
    assert row["download_url"] == f"{server.url}/v1/exports/alice/{row['job_id']}"
    assert re.fullmatch(r"Exported 3002 row\(s\) of 3 table\(s\) and 1 file\(s\): \d+ bytes", row["message"])
    answer = alice.http.get(row["download_url"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{row["job_id"]}.zip"'
    assert alice.http.get(row["download_url"], headers={"range": "bytes=0-1"}).content == b"PK"

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert all(not name.startswith("/") and ".." not in name.split("/") for name in names)
        archive.extractall(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {entry["table"]: entry["rows"] for entry in manifest["tables"]} == {
        "app.things": 3000, "app.travel": 1, "app.events": 1,
    }  # fmt: skip
    (file,) = next(entry["files"] for entry in manifest["tables"] if entry["table"] == "app.things")
    assert (tmp_path / file).read_bytes() == b"alice"
    assert b"bob" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.csv"))

    ids = sorted([1, *range(2, 3001), 9007199254740993])
    ids.remove(5)
    table = pq.read_table(tmp_path / "app/things/things.parquet")
    assert sorted(table.column("id").to_pylist()) == ids
    with (tmp_path / "app/things/things.csv").open(newline="", encoding="utf-8") as opened:
        rows = {int(line["id"]): line for line in csv.DictReader(opened)}
    assert sorted(rows) == ids
    assert rows[6]["t"] == "new"
    first = rows[1]
    assert first["t"] == 'a "quoted", text\nin two lines alice'
    assert {name: first[name] for name in ("m", "u", "y", "j", "da", "e", "b")} == {
        "m": "12.3400", "u": "00112233-4455-6677-8899-aabbccddeeff", "y": "00ff", "j": '{"k":[1]}',
        "da": "2026-01-02", "e": "[0.5,1.5]", "b": "true",
    }  # fmt: skip
    assert json.loads(first["attachment"])["sha256"]
    for source in (
        "read_parquet('{}/app/things/things.parquet')",
        "read_csv('{}/app/things/things.csv', allow_quoted_nulls=false)",
    ):
        query = f"SELECT count(*), min(id), max(id), count(t), count(m) FROM {source.format(tmp_path)}"
        assert duckdb.sql(query).fetchall()[0] == (3000, 1, 9007199254740993, 3000, 1)
    assert (tmp_path / "app/events/events.csv").read_text() == '"id","x"\n7,"alice"\n'


def test_once_a_day(people: dict[str, FileUser]) -> None:
    first = exported(people["bob"], "EXPORT USER DATA WITH (format = 'csv')")
    again = message_of(people["bob"], "EXPORT USER DATA")
    assert again == (
        f"User data export of today was started already. Job ID: {first['job_id']}. "
        "Use SHOW EXPORT to check status and get the download link."
    )
    assert len(shown(people["bob"])) == 1
    answer = people["bob"].http.get(first["download_url"])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".parquet")]


def test_no_data(people: dict[str, FileUser]) -> None:
    row = exported(people["eve"])
    assert row["message"] == "No data found for this user in any table"
    assert row["download_url"] is None
    answer = people["eve"].http.get(f"/v1/exports/eve/{row['job_id']}")
    assert answer.status_code == 404
    assert answer.json() == {"error": "Export not found", "code": "EXPORT_NOT_FOUND"}


def test_who_may_download(server: RunningServer, people: dict[str, FileUser]) -> None:
    job_id = shown(people["alice"])[0]["job_id"]
    path = f"/v1/exports/alice/{job_id}"
    root = FileUser(server, server.login("root", server.root_password))
    for user, status in [("alice", 200), ("admin", 200), ("bob", 403), ("carl", 403)]:
        assert people[user].http.get(path).status_code == status
    assert root.http.get(path).status_code == 200
    root.http.close()
    assert code_of(people["bob"].http.get(path)) == (403, "PERMISSION_DENIED")
    assert people["alice"].http.get(path, headers={"authorization": ""}).status_code == 401
    other = shown(people["bob"])[0]["job_id"]
    assert code_of(people["alice"].http.get(f"/v1/exports/alice/{other}")) == (404, "EXPORT_NOT_FOUND")
    assert shown(people["carl"]) == []


@pytest.mark.parametrize(
    "path",
    [
        "alice/x.y", "alice/..%2f..%2fjwt_secret", "alice/UE-%00", "..%2f..%2fx/UE-00000000000000000000000",
        "alice", "alice/UE-0/x", "", "alice/" + "A" * 3000,
    ],
)  # fmt: skip
def test_ids_that_are_none(people: dict[str, FileUser], path: str) -> None:
    request = people["alice"].http.build_request("GET", "/v1/exports/x")
    request.url = request.url.copy_with(raw_path=f"/v1/exports/{path}".encode())
    assert code_of(people["alice"].http.send(request)) == (400, "INVALID_INPUT")


def test_in_the_name_of_another(people: dict[str, FileUser]) -> None:
    """Who may act for a user may export for them, and nobody else."""
    denied = people["alice"].sql("EXECUTE AS USER 'bob' (EXPORT USER DATA)")
    assert code_of(denied)[0] == 403
    found = message_of(people["admin"], "EXECUTE AS USER 'eve' (EXPORT USER DATA)")
    assert "was started already" in found
    rows = people["admin"].rows("EXECUTE AS USER 'alice' (SHOW EXPORT)")
    assert [row[0] for row in rows] == [shown(people["alice"])[0]["job_id"]]


@pytest.mark.parametrize("statement", ["EXPORT USER DATA WITH (format = 'xml')", "EXPORT USER DATA WITH (x = 1)"])
def test_bad_options(people: dict[str, FileUser], statement: str) -> None:
    assert code_of(people["alice"].sql(statement)) == (400, "INVALID_SQL")


def test_exports_expire(server: RunningServer, people: dict[str, FileUser]) -> None:
    """Last: it starts the server again."""
    row = shown(people["alice"])[0]
    file = server.data / "exports" / f"{row['job_id']}.zip"
    assert file.stat().st_mode & 0o077 == 0
    stray = server.data / "exports" / "UE-00000000000000000000000.zip"
    stray.write_bytes(b"left by a crash")
    server.restart(HEADRACE_EXPORTS_RETENTION_DAYS="0.0000001")
    server.set_up()
    with server.client_of(server.login("alice", PASSWORD)) as http:
        path = f"/v1/exports/alice/{row['job_id']}"
        assert http.get(path).status_code == 200  # what was promised when it was made is kept
    assert not stray.exists()
    server.sql("INSERT INTO app.events VALUES (1, 'x'); EXPORT USER DATA")
    with server.client_of(server.token) as http:
        admin = FileUser(server, server.token)
        until(lambda: shown(admin)[0]["status"] == "completed")
        row = shown(admin)[0]
        assert row["download_url"] is None
        assert http.get(f"/v1/exports/admin/{row['job_id']}").status_code == 404
        admin.http.close()
    file = server.data / "exports" / f"{row['job_id']}.zip"
    assert file.exists()
    server.restart()
    until(lambda: not file.exists())
