"""Backups made while others write: the restored copy is one commit, and whatever is damaged is found."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sql.backup import layout
from sql.backup.layout import BackupError
from sql.backup.making import Made, make_backup
from sql.backup.restoring import SEQ_STEP, UNFINISHED, restore, verify_bytes
from sql.jobs.model import JOB_KIND, JobDef, JobStatus
from storage.catalog import NamespaceDef
from storage.check import check
from storage.engine import StorageEngine
from storage.errors import LogTruncated
from storage.options import StorageOptions
from tests.sql.topic_world import TopicWorld, topic_world

OPTIONS = StorageOptions(map_start=64 << 20, merge=False, evict=False)
ACCOUNTS = 40
START = 100
Content = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path / "served") as world:
        world.run("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)")
        world.run(f"INSERT INTO accounts SELECT i, {START} FROM range({ACCOUNTS}) r(i)")
        world.run("CREATE TABLE steps (one BIGINT PRIMARY KEY, number BIGINT NOT NULL)")
        world.run("INSERT INTO steps VALUES (1, 0)")
        yield world


def nothing(*_: object) -> None:
    """Neither shows progress nor stops."""


def backup(world: TopicWorld, target: Path, check: Callable[[], None] = nothing) -> Made:
    return make_backup(world.engine, None, target, nothing, check)


def verify_all(target: Path) -> None:
    for name in layout.points_of(target):
        verify_bytes(target, name)


def flush(world: TopicWorld, table: str) -> None:
    found = world.engine.catalog.table("app", table)
    assert found is not None
    world.engine.cold.flush(found.table_id)


def content(engine: StorageEngine) -> Content:
    """All rows, by table and user."""
    found = {}
    with engine.snapshot() as snapshot:
        for table in snapshot.catalog.tables():
            for user in snapshot.partitions(table):
                rows = snapshot.scan(table, user, with_seq=True).to_pylist()
                found[f"{table.full_name}/{user}"] = sorted(tuple(row.values()) for row in rows)
    return found


def restored_content(folder: Path) -> Content:
    with StorageEngine.open(folder, OPTIONS) as engine:
        return content(engine)


def transfers(numbers: random.Random) -> Iterator[tuple[int, int, int]]:
    while True:
        source, sink = numbers.sample(range(ACCOUNTS), 2)
        yield source, sink, numbers.randrange(1, 10)


def test_a_backup_under_load_is_one_commit(world: TopicWorld, tmp_path: Path) -> None:
    """Each commit is a transfer and its number: the copy has the balances of exactly the first `number` transfers."""
    target = tmp_path / "backup"
    world.run("CREATE TABLE ballast (id BIGINT PRIMARY KEY, x TEXT)")
    world.run("INSERT INTO ballast SELECT i, repeat(md5(i::TEXT), 8) FROM range(20000) r(i)")
    flush(world, "accounts")
    stop = threading.Event()
    failures: list[Exception] = []
    began = threading.Event()

    def follow() -> None:
        try:
            for number in range(3):
                began.wait()
                point = backup(world, target).manifest.point
                if number == 0:
                    flush(world, "accounts")
                restore(target, tmp_path / point, point)
        except Exception as error:  # noqa: BLE001  told to the test below
            failures.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=follow)
    thread.start()
    done = 0
    for source, sink, amount in transfers(random.Random(1)):
        done += 1
        world.run(
            "BEGIN; UPDATE accounts SET balance = balance - $1 WHERE id = $2; "
            "UPDATE accounts SET balance = balance + $1 WHERE id = $3; "
            "UPDATE steps SET number = $4 WHERE one = 1; COMMIT",
            amount, source, sink, done,
        )  # fmt: skip
        began.set()
        if stop.is_set():
            break
    thread.join()
    assert not failures, failures
    points = layout.points_of(target)
    assert len(points) == 3
    seen = []
    for point in points:
        found = restored_content(tmp_path / point)
        balances = dict.fromkeys(range(ACCOUNTS), START)
        number = found["app.steps/"][0][2]
        assert isinstance(number, int)
        for _, (source, sink, amount) in zip(range(number), transfers(random.Random(1)), strict=False):
            balances[source] -= amount
            balances[sink] += amount
        assert {row[1]: row[2] for row in found["app.accounts/"]} == balances
        assert sum(balances.values()) == ACCOUNTS * START
        assert len(found["app.ballast/"]) == 20_000
        seen.append(number)
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] <= done


def test_a_restored_copy_equals_its_commit_and_goes_on_by_itself(world: TopicWorld, tmp_path: Path) -> None:
    world.run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY, x TEXT)")
    for user in ("ann", "bob"):
        world.run(f"EXECUTE AS USER '{user}' (INSERT INTO notes SELECT i, 'x' FROM range(300) r(i))")
    flush(world, "notes")
    flush(world, "accounts")
    world.run("DELETE FROM accounts WHERE id < 5")
    world.run("UPDATE accounts SET balance = 7 WHERE id = 6")
    world.engine.commit_sync(
        lambda writer: writer.put_object(JOB_KIND, "FL-1", JobDef("FL-1", "backup", JobStatus.RUNNING))  # type: ignore[arg-type]
    )
    made = backup(world, tmp_path / "backup")
    expected = content(world.engine)
    world.run("INSERT INTO accounts VALUES (1000, 1)")
    restore(tmp_path / "backup", tmp_path / "copy")
    assert check(tmp_path / "copy") == []
    assert restored_content(tmp_path / "copy") == expected
    assert any(file.segment for file in made.manifest.files)
    with StorageEngine.open(tmp_path / "copy", OPTIONS) as engine, engine.snapshot() as snapshot:
        assert engine.last_seq > made.manifest.seq + SEQ_STEP - 1
        job = snapshot.get_object(JOB_KIND, "FL-1", JobDef)
        assert job is not None
        assert job.status is JobStatus.CANCELLED
        engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("more")))
        cursor = engine.feed.subscribe(made.manifest.seq + 1)
        with pytest.raises(LogTruncated):
            cursor.poll()
    assert check(tmp_path / "copy") == []


def test_cold_files_of_other_storages_become_the_copys_own(world: TopicWorld, tmp_path: Path) -> None:
    """The copy neither reads nor deletes what the original has elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    world.run(f"CREATE STORAGE far TYPE filesystem PATH '{elsewhere}'")
    world.run("CREATE SHARED TABLE far (id BIGINT PRIMARY KEY) WITH (storage_id = 'far')")
    world.run("INSERT INTO far SELECT i FROM range(100) r(i)")
    flush(world, "far")
    files = sorted(path for path in elsewhere.rglob("*.parquet"))
    assert files
    backup(world, tmp_path / "backup")
    expected = content(world.engine)
    restore(tmp_path / "backup", tmp_path / "copy")
    with StorageEngine.open(tmp_path / "copy", OPTIONS) as engine:
        table = engine.catalog.table("app", "far")
        assert table is not None
        assert "storage_id" not in table.options
        engine.cold.compact(table.table_id)
        engine.cold.collect()
    assert sorted(elsewhere.rglob("*.parquet")) == files
    for path in files:
        path.unlink()
    assert restored_content(tmp_path / "copy") == expected


def test_what_did_not_change_is_not_copied_again(world: TopicWorld, tmp_path: Path) -> None:
    world.run("CREATE TABLE ballast (id BIGINT PRIMARY KEY, x TEXT)")
    world.run("INSERT INTO ballast SELECT i, repeat(md5(i::TEXT), 8) FROM range(50000) r(i)")
    flush(world, "accounts")
    target = tmp_path / "backup"
    first = backup(world, target)
    assert first.manifest.new_bytes == first.manifest.total_bytes > 10 << 20
    world.run("UPDATE accounts SET balance = 1 WHERE id = 1")
    second = backup(world, target)
    assert second.manifest.total_bytes > 10 << 20
    assert second.manifest.new_bytes < second.manifest.total_bytes // 5
    assert second.files_copied == 0
    stored = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert stored < first.manifest.new_bytes + second.manifest.new_bytes + (1 << 20)
    for made in (first, second):
        verify_bytes(target, made.manifest.point)
        restore(target, tmp_path / made.manifest.point, made.manifest.point)
    assert restored_content(tmp_path / second.manifest.point) == content(world.engine)


class Crash(BaseException):
    """The process ends here."""


def test_what_broke_off_is_no_backup(world: TopicWorld, tmp_path: Path) -> None:
    flush(world, "accounts")
    target = tmp_path / "backup"
    points: list[str] = []
    for stop_at in range(1, 100):
        left = iter(range(1, stop_at + 1))

        def step(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Crash

        try:
            made = backup(world, target, step)
        except Crash:
            assert layout.points_of(target) == points
            with pytest.raises(BackupError, match="no complete backup"):
                verify_bytes(target)
            continue
        assert made.manifest.point == layout.points_of(target)[-1]
        break
    assert stop_at > 3
    verify_bytes(target)
    assert {path.name for path in (target / "points").iterdir()} == set(layout.points_of(target))
    restore(target, tmp_path / "copy")
    assert restored_content(tmp_path / "copy") == content(world.engine)


def test_what_broke_off_leaves_no_object(world: TopicWorld, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    flush(world, "accounts")
    whole = backup(world, target).manifest.point
    world.run("UPDATE accounts SET balance = 2 WHERE id = 2")
    flush(world, "accounts")

    def stop_with_an_object() -> None:
        if len(objects(target)) > len(needed(target)):
            raise Crash

    with pytest.raises(Crash):
        backup(world, target, stop_with_an_object)
    (target / "objects" / "incoming.part").write_bytes(b"half")
    world.run("DROP TABLE accounts")  # nothing that was copied is needed any more
    made = backup(world, target)
    assert layout.points_of(target) == [whole, made.manifest.point]
    assert objects(target) == needed(target)
    verify_all(target)


def objects(target: Path) -> set[str]:
    return {path.name for path in (target / "objects").rglob("*") if path.is_file()}


def needed(target: Path) -> set[str]:
    points = layout.points_of(target)
    return {file.sha256 for point in points for file in layout.read_manifest(target, point).files}


def test_every_flipped_byte_is_found(world: TopicWorld, tmp_path: Path) -> None:
    flush(world, "accounts")
    target = tmp_path / "backup"
    backup(world, target)
    world.run("UPDATE accounts SET balance = 1 WHERE id = 1")
    point = backup(world, target).manifest.point
    numbers = random.Random(2)
    for path in sorted(target.rglob("*")):
        if not path.is_file() or path.name == layout.LOCK:
            continue
        data = path.read_bytes()
        places = {0, len(data) - 1, *(numbers.randrange(len(data)) for _ in range(8))}
        for place in places if data else ():
            damaged = bytearray(data)
            damaged[place] ^= 1 << numbers.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(BackupError):
                verify_all(target)
        if data:
            path.write_bytes(data[:-1])
            with pytest.raises(BackupError):
                verify_all(target)
        path.write_bytes(data)
    verify_bytes(target, point)


def test_where_a_backup_and_a_copy_may_lie(world: TopicWorld, tmp_path: Path) -> None:
    data = world.engine.path
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "link").symlink_to(data)
    for target, message in [
        (data / "backup", "inside the data folder"),
        (data, "inside the data folder"),
        (tmp_path / "link" / "backup", "inside the data folder"),
        (data.parent, "the data folder lies inside"),
        (tmp_path / "full", "neither empty nor a backup"),
        (tmp_path / "full" / "file", "is not a folder"),
        (Path("relative"), "must be absolute"),
    ]:
        with pytest.raises(BackupError, match=message):
            backup(world, target)
    target = tmp_path / "backup"
    backup(world, target)
    assert all(path.stat().st_mode & 0o077 == 0 for path in [target, *target.rglob("*")])
    with topic_world(tmp_path / "second") as second, pytest.raises(BackupError, match="another database"):
        backup(second, target)
    for folder, message in [
        (data, "is held by"),
        (tmp_path / "full", "is not empty"),
        (target / "copy", "must not lie inside the backup"),
    ]:
        with pytest.raises(BackupError, match=message):
            restore(target, folder)
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_a_restore_that_broke_off_may_be_repeated(world: TopicWorld, tmp_path: Path) -> None:
    target, folder = tmp_path / "backup", tmp_path / "copy"
    backup(world, target)

    def crash() -> None:
        if (folder / "data.mdb").exists():
            raise Crash

    with pytest.raises(Crash):
        restore(target, folder, check=crash)
    assert (folder / UNFINISHED).exists()
    restore(target, folder)
    assert not (folder / UNFINISHED).exists()
    assert restored_content(folder) == content(world.engine)


def test_a_manifest_cannot_write_outside(world: TopicWorld, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    flush(world, "accounts")
    point = backup(world, target).manifest.point
    folder = layout.point_folder(target, point)
    good = json.loads((folder / layout.MANIFEST).read_bytes())
    for path in ("../evil", "/etc/evil", "a/../../evil", "cold//x", ""):
        bad = dict(good, files=[dict(good["files"][0], path=path)])
        data = json.dumps(bad).encode()
        (folder / layout.MANIFEST).write_bytes(data)
        (folder / layout.MANIFEST_SUM).write_text(hashlib.sha256(data).hexdigest() + "\n")
        with pytest.raises(BackupError, match="outside of the data folder"):
            restore(target, tmp_path / "copy")


def test_a_copy_begins_again_when_the_storage_moves(world: TopicWorld, tmp_path: Path) -> None:
    """Growing the map ends the snapshot of a backup, which is no failure."""
    ended = []

    def end_once() -> None:
        if not ended:
            for snapshot in list(world.engine._registry._active.values()):
                if snapshot.purpose == "backup":
                    ended.append(snapshot)
                    snapshot.expire("the test says so")

    world.run("CREATE TABLE ballast (id BIGINT PRIMARY KEY, x TEXT)")
    world.run("INSERT INTO ballast SELECT i, repeat(md5(i::TEXT), 8) FROM range(2000) r(i)")
    backup(world, tmp_path / "backup", end_once)
    assert ended
    restore(tmp_path / "backup", tmp_path / "copy")
    assert restored_content(tmp_path / "copy") == content(world.engine)
