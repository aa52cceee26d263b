"""Storages in a running server, on a real S3 server: created, filled, read, compacted, emptied, dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer, run_command
from tests.s3_server import BUCKET, READER_KEY, READER_SECRET, SECRET_KEY, ObjectStore, object_store

JOB = re.compile(r"\b[A-Z]{2}-[0-9a-f]{23}\b")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


def create(store: ObjectStore, name: str, path: str, credentials: str | None = None) -> str:
    return (
        f"CREATE STORAGE {name} TYPE s3 BASE_DIRECTORY 's3://{BUCKET}/{path}' "
        f"CREDENTIALS '{credentials or store.credentials()}' CONFIG '{store.config}'"
    )


def told(server: RunningServer, sql: str) -> str:
    message = server.sql(sql)[-1]["message"]
    assert isinstance(message, str)
    return message


def finish(server: RunningServer, message: str) -> str:
    """What the job that a message names said in the end."""
    (job_id,) = JOB.findall(message)
    found: list[list[object]] = []

    def ended() -> bool:
        found[:] = rows(server, f"SELECT status, message FROM system.jobs WHERE job_id = '{job_id}'")
        return found[0][0] not in {"queued", "running", "retrying"}

    until(ended, 60)
    assert found[0][0] == "completed", found
    return str(found[0][1])


def rows(server: RunningServer, sql: str) -> list[list[object]]:
    found: list[list[object]] = server.sql(sql)[-1]["rows"]
    return found


@pytest.mark.slow
def test_the_life_of_a_storage(store: ObjectStore, serve: Serve, tmp_path: Path) -> None:
    server = serve().set_up()
    assert told(server, create(store, "far", "life")) == "Storage 'far' created successfully"
    assert store.objects("life") == []  # the trial left nothing
    check = dict(zip(("id", "status"), rows(server, "STORAGE CHECK far EXTENDED")[0], strict=False))
    assert check == {"id": "far", "status": "healthy"}
    server.sql("CREATE NAMESPACE app")
    server.sql("CREATE TABLE app.t (id BIGINT PRIMARY KEY, x TEXT) WITH (STORAGE_ID = 'far')")
    for start in range(0, 3000, 1000):
        server.sql(f"INSERT INTO app.t SELECT i, 'v' || i FROM range({start}, {start + 1000}) r(i)")
        finish(server, told(server, "STORAGE FLUSH TABLE app.t"))
    assert len([path for path in store.objects("life/app/t") if path.endswith(".parquet")]) == 3

    answers = ("SELECT count(*), sum(id) FROM app.t", "SELECT x FROM app.t WHERE id = 2345")
    expected = [[[3000, 4498500]], [["v2345"]]]
    assert [rows(server, sql) for sql in answers] == expected
    server.sql("DELETE FROM app.t WHERE id < 1500; UPDATE app.t SET x = 'new' WHERE id = 2345")
    expected = [[[1500, sum(range(1500, 3000))]], [["new"]]]
    assert [rows(server, sql) for sql in answers] == expected

    server.kill()  # credentials, definitions and files outlive it
    server.start()
    server.client.headers["Authorization"] = f"Bearer {server.token}"
    assert [rows(server, sql) for sql in answers] == expected
    assert "Compacted 3 file(s)" in finish(server, told(server, "STORAGE COMPACT TABLE app.t"))
    assert [rows(server, sql) for sql in answers] == expected
    refused = server.post("DROP STORAGE far")
    assert refused.status_code == 400
    assert "Cannot drop storage 'far': 1 table(s) still using it" in refused.text
    finish(server, told(server, "DROP TABLE app.t"))
    assert SECRET_KEY not in server.log()
    assert server.stop() == 0
    checked = run_command("check", "--data", server.data)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert SECRET_KEY.encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    )


def test_wrong_credentials_are_refused_when_the_storage_is_created(
    store: ObjectStore, fresh_server: RunningServer
) -> None:
    wrong = fresh_server.post(create(store, "wrong", "wrong", store.credentials(secret="no-such-secret")))
    assert wrong.status_code == 400
    assert "Storage 'wrong' is unreachable" in wrong.text
    assert "no-such-secret" not in wrong.json()["error"]["message"]
    reader = fresh_server.post(create(store, "reader", "reader", store.credentials(READER_KEY, READER_SECRET)))
    assert reader.status_code == 400
    assert "Storage 'reader' is degraded: write:" in reader.text
    assert rows(fresh_server, "SELECT storage_id FROM system.storages") == [["local"]]


def test_credentials_that_changed_are_mended_by_alter(store: ObjectStore, fresh_server: RunningServer) -> None:
    fresh_server.sql(create(store, "far", "mended"))
    refused = fresh_server.post(f"ALTER STORAGE far SET CREDENTIALS '{store.credentials(READER_KEY, READER_SECRET)}'")
    assert refused.status_code == 400
    assert rows(fresh_server, "STORAGE CHECK far")[0][1] == "healthy"  # nothing was changed
    assert told(fresh_server, f"ALTER STORAGE far SET CREDENTIALS '{store.credentials()}'") == (
        "Storage 'far' altered successfully"
    )
    assert rows(fresh_server, "SELECT credentials FROM system.storages WHERE storage_id = 'far'") == [["***"]]
