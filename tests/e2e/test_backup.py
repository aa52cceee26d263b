"""Backups of a running server: by statement, through `kill -9`, restored by the command and by statement."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.files_support import FileUser, until
from tests.e2e.running import RunningServer, run_command

PASSWORD = "Secret123!x"


def message(server: RunningServer, sql: str) -> str:
    return str(server.sql(sql)[0]["message"])


def finished(server: RunningServer, job_id: str) -> tuple[str, str]:
    """Status and message of a job once it has ended."""

    def state() -> list[Any]:
        return server.rows(f"SELECT status, message FROM system.jobs WHERE job_id = '{job_id}'")[0]

    until(lambda: state()[0] in {"completed", "failed", "cancelled", "skipped"}, 60)
    status, text = state()
    return status, text


def backed_up(server: RunningServer, target: Path) -> None:
    said = message(server, f"BACKUP DATABASE TO '{target}'")
    found = re.fullmatch(rf"Database backup started to '{re.escape(str(target))}'\. Job ID: (BK-[0-9a-f]{{23}})", said)
    assert found
    status, text = finished(server, found[1])
    assert status == "completed", text


def fill(server: RunningServer) -> None:
    server.sql(
        "CREATE NAMESPACE app; CREATE USER TABLE app.docs (id TEXT PRIMARY KEY, a FILE); "
        "CREATE SHARED TABLE app.t (id BIGINT PRIMARY KEY, x TEXT)"
    )
    server.sql("INSERT INTO app.t SELECT i, md5(i::TEXT) FROM range(20000) r(i)")
    flush = message(server, "STORAGE FLUSH TABLE app.t").rpartition(" ")[2]
    assert finished(server, flush)[0] == "completed"
    server.sql("DELETE FROM app.t WHERE id < 10; INSERT INTO app.t VALUES (50000, 'hot')")
    user = FileUser(server, server.token)
    for name in ("a", "b"):
        answer = user.upload(f"INSERT INTO app.docs VALUES ('{name}', FILE(\"f\"))", {"f": ("f.txt", name.encode())})
        assert answer.status_code == 200, answer.text
    user.http.close()


def state(server: RunningServer) -> list[Any]:
    return server.rows("SELECT count(*), sum(id), min(x), max(x) FROM app.t")


def test_backup_and_restore_by_command(fresh_server: RunningServer, serve: Serve, tmp_path: Path) -> None:
    fill(fresh_server)
    expected = state(fresh_server)
    target, copy = tmp_path / "backup", tmp_path / "copy"
    backed_up(fresh_server, target)
    fresh_server.sql("INSERT INTO app.t VALUES (60000, 'later')")
    backed_up(fresh_server, target)
    listed = run_command("backup", "list", target)
    points = [line.split()[0] for line in listed.stdout.splitlines()]
    assert len(points) == 2
    verified = run_command("backup", "verify", target)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout == f"{points[1]}: All checksums match, and the restored database is consistent.\n"
    restored = run_command("restore", target, copy, "--point", points[0])
    assert restored.returncode == 0, restored.stderr
    assert run_command("check", "--data", copy).returncode == 0
    again = run_command("restore", target, copy)
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    served = run_command("restore", target, fresh_server.data)
    assert served.returncode == 1
    assert "is held by" in served.stderr

    other = serve(data=copy)
    other.token = fresh_server.token  # its key came along
    assert state(other) == expected
    user = FileUser(other, other.token)
    assert user.get("app.docs", user.ref("SELECT a FROM app.docs WHERE id = 'b'")).content == b"b"
    user.http.close()
    # the job of the backup was under way in its own commit: it is over in the copy, and no third point is made
    assert other.rows("SELECT status FROM system.jobs WHERE job_type = 'backup'") == [["cancelled"]]
    assert len(run_command("backup", "list", target).stdout.splitlines()) == 2

    pack = next(iter(sorted((target / "packs").iterdir())))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    damaged = run_command("backup", "verify", target, "--point", points[0], "--quick")
    assert damaged.returncode == 1
    assert "does not match its checksum" in damaged.stderr


def test_restore_by_statement(fresh_server: RunningServer, tmp_path: Path) -> None:
    server, target = fresh_server, tmp_path / "backup"
    fill(server)
    expected = state(server)
    backed_up(server, target)
    server.sql("DELETE FROM app.t WHERE true")
    said = message(server, f"RESTORE DATABASE FROM '{target}'")
    found = re.fullmatch(
        rf"Database restore started from '{re.escape(str(target))}'\. Job ID: (RS-[0-9a-f]{{23}})\. "
        "Server restart required after completion\\.",
        said,
    )
    assert found
    status, text = finished(server, found[1])
    assert status == "completed", text
    assert state(server)[0][0] == 0  # nothing has changed yet
    assert server.stop() == 0
    server.start()
    assert state(server) == expected
    assert "the data folder was restored" in server.log()
    (former,) = tmp_path.glob("data.before-restore-*")
    assert run_command("check", "--data", former).returncode == 0
    assert not list(tmp_path.glob("data.restore*"))
    server.restart()
    assert state(server) == expected


def test_kill_9_during_a_backup(fresh_server: RunningServer, tmp_path: Path) -> None:
    server, target = fresh_server, tmp_path / "backup"
    fill(server)
    server.sql("INSERT INTO app.t SELECT i, repeat(md5(i::TEXT), 10) FROM range(100000, 150000) r(i)")
    numbers = random.Random(3)
    whole = 0
    for _ in range(3):
        server.sql(f"BACKUP DATABASE TO '{target}'")
        time.sleep(numbers.random() * 0.08)  # where it is killed, not what is waited for
        server.kill()
        listed = run_command("backup", "list", target) if (target / "backup.json").exists() else None
        if listed is not None and "no complete" not in listed.stdout:
            assert run_command("backup", "verify", target, "--quick").returncode == 0
            whole += 1
        server.start()
    until(lambda: server.rows("SELECT count(*) FROM system.jobs WHERE status IN ('queued', 'running')") == [[0]], 60)
    assert {row[0] for row in server.rows("SELECT status FROM system.jobs WHERE job_type = 'backup'")} == {"completed"}
    verified = run_command("backup", "verify", target)
    assert verified.returncode == 0, verified.stderr


def test_rights_and_paths(fresh_server: RunningServer, tmp_path: Path) -> None:
    server = fresh_server
    for name, role in {"ann": "user", "sam": "service"}.items():
        server.sql(f"CREATE USER '{name}' WITH PASSWORD '{PASSWORD}' ROLE {role}")
        with server.client_of(server.login(name, PASSWORD)) as http:
            for sql in (f"BACKUP DATABASE TO '{tmp_path}/b'", f"RESTORE DATABASE FROM '{tmp_path}/b'"):
                answer = http.post("/v1/api/sql", json={"sql": sql})
                assert answer.status_code == 403
                assert answer.json()["error"]["code"] == "PERMISSION_DENIED"
    for sql, words in [
        (f"BACKUP DATABASE TO '{server.data}/x'", "inside the data folder"),
        ("BACKUP DATABASE TO 'relative'", "must be absolute"),
        ("BACKUP DATABASE TO ''", "must have 1 to"),
        (f"RESTORE DATABASE FROM '{tmp_path}/nothing'", "does not exist"),
        (f"RESTORE DATABASE FROM '{tmp_path}'", "is not a backup"),
        (f"BACKUP DATABASE TO '{tmp_path}'", "the data folder lies inside"),
    ]:
        answer = server.post(sql)
        assert answer.status_code == 400, answer.text
        assert words in answer.json()["error"]["message"]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("sql", ["BACKUP DATABASE", "BACKUP DATABASE TO x", "RESTORE DATABASE TO 'x'", "BACKUP x"])
def test_bad_statements(server: RunningServer, sql: str) -> None:
    answer = server.post(sql)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {"INVALID_SQL", "UNSUPPORTED"}
