"""BACKUP DATABASE TO and RESTORE DATABASE FROM: messages, jobs, what is refused, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conformance import Roles, error, message, roles_of
from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer, run_command
from tests.e2e.statement_conformance import DENIED, INVALID, UNSUPPORTED, done, ended, prefixed, refused


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql(
        "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT);"
        "INSERT INTO app.t VALUES (1, 'a'), (2, 'b')"
    )
    done(server, server.post("STORAGE FLUSH TABLE app.t"), "FL")
    server.sql("INSERT INTO app.t VALUES (3, 'hot'); CREATE VIEW app.v AS SELECT id FROM app.t")
    server.sql("CREATE TOPIC app.feed; PUBLISH TO app.feed PAYLOAD 'x'; CREATE INDEX i ON app.t (v)")
    with roles_of(server) as found:
        yield found


def jobs(server: RunningServer) -> object:
    return server.rows("SELECT count(*) FROM system.jobs WHERE job_type IN ('backup', 'restore')")


@pytest.mark.parametrize(
    "form", ["BACKUP DATABASE TO '{}'", "backup database to '{}';", "BACKUP DATABASE\nTO '{}' -- x"]
)
def test_a_backup(roles: Roles, tmp_path: Path, form: str) -> None:
    path = tmp_path / "it''s".replace("''", "") / "b"
    answer = roles.post("dba", form.format(path))
    job = prefixed(answer, "BK")
    assert message(answer) == f"Database backup started to '{path}'. Job ID: {job}"
    row = ended(roles.server, job)
    assert (row["job_type"], row["status"]) == ("backup", "completed"), row
    assert any(path.rglob("*"))
    assert roles.server.rows("SELECT count(*) FROM app.t") == [[3]]


def test_what_comes_back(roles: Roles, serve: Serve, tmp_path: Path) -> None:
    done(roles.server, roles.post("dba", f"BACKUP DATABASE TO '{tmp_path}/b'"), "BK")
    ran = run_command("restore", tmp_path / "b", tmp_path / "again")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    other = serve(data=tmp_path / "again")
    other.set_up()
    assert other.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"], [3, "hot"]]
    assert other.rows("SELECT count(*) FROM app.v") == [[3]]
    assert other.rows("SELECT id FROM app.t WHERE v = 'hot'") == [[3]]
    assert len(other.rows("CONSUME FROM app.feed FROM EARLIEST")) == 1
    other.sql("INSERT INTO app.t VALUES (4, 'after')")
    assert other.login("u1", "GoodPass99")


def test_restore_by_statement(fresh_server: RunningServer, tmp_path: Path) -> None:
    fresh_server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)")
    done(fresh_server, fresh_server.post(f"BACKUP DATABASE TO '{tmp_path}/b'"), "BK")
    fresh_server.sql("INSERT INTO app.t VALUES (2); CREATE TABLE app.later (id INT PRIMARY KEY)")
    answer = fresh_server.post(f"RESTORE DATABASE FROM '{tmp_path}/b'")
    job = prefixed(answer, "RS")
    assert message(answer) == (
        f"Database restore started from '{tmp_path}/b'. Job ID: {job}. Server restart required after completion."
    )
    row = ended(fresh_server, job)
    assert (row["job_type"], row["status"]) == ("restore", "completed"), row
    fresh_server.stop()
    fresh_server.start()
    fresh_server.client.headers["Authorization"] = f"Bearer {fresh_server.token}"
    assert fresh_server.rows("SELECT * FROM app.t") == [[1]]
    refused(fresh_server.post("SELECT * FROM app.later"), (404, "TABLE_NOT_FOUND"))


@pytest.mark.parametrize(
    "sql",
    [
        "BACKUP", "BACKUP DATABASE", "BACKUP DATABASE TO", "BACKUP DATABASE TO 5", "BACKUP DATABASE TO NULL",
        "BACKUP DATABASE TO ''", "BACKUP DATABASE TO 'a' 'b'", "BACKUP DATABASE app TO '{p}/x'",
        "BACKUP DATABASE IF EXISTS app TO '{p}/x'", "BACKUP TABLE app.t TO '{p}/x'", "BACKUP DATABASE TO '{p}/x' NOW",
        "BACKUP DATABASE TO 'nul\x00byte'", "BACKUP DATABASE TO '{p}/file'", "BACKUP DATABASE TO '{data}'",
        "BACKUP DATABASE TO '{data}/inside'", "BACKUP DATABASE TO '/proc/none/x'",
        "BEGIN; BACKUP DATABASE TO '{p}/x'; COMMIT", "SHOW BACKUP",
        "RESTORE", "RESTORE DATABASE", "RESTORE DATABASE FROM", "RESTORE DATABASE FROM ''", "RESTORE DATABASE FROM 5",
        "RESTORE DATABASE FROM '{p}/nosuch'", "RESTORE DATABASE FROM '{p}/file'", "RESTORE DATABASE FROM '{p}/empty'",
        "RESTORE DATABASE app FROM '{p}/empty'", "RESTORE DATABASE FROM '{data}'",
        "RESTORE DATABASE FROM '{p}/../nosuch'",
        "BEGIN; RESTORE DATABASE FROM '{p}/empty'; COMMIT",
    ],
)  # fmt: skip
def test_refused(roles: Roles, tmp_path: Path, sql: str) -> None:
    """By the statement, or, where only the work can tell, by its job; the data stay as they are either way."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    answer = roles.post("dba", sql.replace("{p}", str(tmp_path)).replace("{data}", str(roles.server.data)))
    if answer.status_code == 200:
        prefix = "BK" if "BACKUP" in sql else "RS"
        assert ended(roles.server, prefixed(answer, prefix))["status"] == "failed"
    else:
        assert error(answer)[:2] in {INVALID, UNSUPPORTED, (400, "SQL_EXECUTION_ERROR")}
    assert not (tmp_path / "x").exists()
    assert roles.server.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"], [3, "hot"]]
    assert (tmp_path / "file").read_text() == "x"


def test_who_may(roles: Roles, tmp_path: Path) -> None:
    before = jobs(roles.server)
    for role in ("user", "service"):
        for sql in (f"BACKUP DATABASE TO '{tmp_path}/b'", f"RESTORE DATABASE FROM '{tmp_path}'"):
            refused(roles.post(role, sql), DENIED)
    assert jobs(roles.server) == before
    assert not (tmp_path / "b").exists()
    for role in ("dba", "system"):
        done(roles.server, roles.post(role, f"BACKUP DATABASE TO '{tmp_path}/{role}'"), "BK")


def test_rows_written_meanwhile_do_not_tear_it(roles: Roles, serve: Serve, tmp_path: Path) -> None:
    """Two tables change together: a backup has both changes or none."""
    server = roles.server
    server.sql("CREATE TABLE app.x (id INT PRIMARY KEY, n INT); CREATE TABLE app.y (id INT PRIMARY KEY, n INT)")
    server.sql("INSERT INTO app.x VALUES (1, 0); INSERT INTO app.y VALUES (1, 0)")
    job = prefixed(roles.post("dba", f"BACKUP DATABASE TO '{tmp_path}/b'"), "BK")
    for _ in range(20):
        server.sql("BEGIN; UPDATE app.x SET n = n + 1 WHERE id = 1; UPDATE app.y SET n = n - 1 WHERE id = 1; COMMIT")
    assert ended(server, job)["status"] == "completed"
    assert server.rows("SELECT n FROM app.x UNION ALL SELECT n FROM app.y") == [[20], [-20]]
    assert run_command("restore", tmp_path / "b", tmp_path / "again").returncode == 0
    other = serve(data=tmp_path / "again").set_up()
    assert other.rows("SELECT x.n + y.n FROM app.x JOIN app.y ON x.id = y.id") == [[0]]
