"""Flushes and backups into a disk that is full: nothing is lost or left, and they go on when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.loop import memory_disk, need_loop_devices
from tests.e2e.files_support import until
from tests.e2e.running import RunningServer, run_command

ROWS = 40_000
SETTINGS = {
    "HEADRACE_JOBS_MAX_RETRIES": "1",
    "HEADRACE_STORAGE_COLD_GRACE_SECONDS": "0",
    "HEADRACE_RETENTION_INTERVAL_SECONDS": "0.2",
}

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    need_loop_devices()
    with memory_disk(tmp_path / "small", 1 << 20) as disk:
        yield disk


def ended(server: RunningServer, sql: str) -> list[str]:
    """Status and message of the job of a statement."""
    job = str(server.sql(sql)[0]["message"]).rpartition(" ")[2]
    state = f"SELECT status, message FROM system.jobs WHERE job_id = '{job}'"
    until(lambda: server.rows(state)[0][0] in {"completed", "failed", "skipped"}, 60)
    return list(server.rows(state)[0])


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", changes=SETTINGS)
    count = "SELECT count(*), sum(id) FROM app.t"
    try:
        server.start().set_up().sql("CREATE NAMESPACE app")
        server.sql(f"CREATE STORAGE small TYPE filesystem PATH '{small / 'cold'}'")
        server.sql("CREATE TABLE app.t (id BIGINT PRIMARY KEY, x TEXT) WITH (STORAGE_ID = 'small')")
        server.sql(f"INSERT INTO app.t SELECT i, md5(i::TEXT) FROM range({ROWS}) r(i)")
        before = server.rows(count)
        for _ in range(2):
            status, message = ended(server, "STORAGE FLUSH TABLE app.t")
            assert status == "failed"
            assert "the disk that holds cold files is full" in message
        until(lambda: not [path for path in (small / "cold").rglob("*") if path.is_file()])
        assert server.rows(count) == before
        status, message = ended(server, f"BACKUP DATABASE TO '{small / 'backup'}'")
        assert status == "failed"
        assert f"the backup in '{small / 'backup'}' could not be written: No space left on device" in message
        assert "no complete backup" in run_command("backup", "list", small / "backup").stdout

        # room: a storage elsewhere takes what the full one did not
        server.sql(f"CREATE STORAGE large TYPE filesystem PATH '{tmp_path / 'large'}'")
        server.sql("ALTER TABLE app.t SET TBLPROPERTIES (STORAGE_ID = 'large')")
        assert ended(server, "STORAGE FLUSH TABLE app.t")[0] == "completed"
        assert server.rows(count) == before
        assert ended(server, f"BACKUP DATABASE TO '{tmp_path / 'backup'}'")[0] == "completed"
        assert server.stop() == 0
    finally:
        server.kill()
    assert run_command("check", "--data", server.data).returncode == 0
    assert run_command("backup", "verify", tmp_path / "backup").returncode == 0
    assert "Traceback" not in server.log()
