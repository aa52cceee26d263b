"""The n-th write, sync and allocation fail, for every n: nothing acknowledged is lost, and the engine says why.

`scripted_run.py` does the work, in a process with `shim.c` preloaded; the tests here start it for each way of failing,
and then make a whole server's disk fail. After an error of a commit other than a full disk the storage acknowledges
nothing more until the data file was opened again, and it never calls the sync that failed a second time.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from storage import StorageEngine, StorageOptions
from storage.changes import ChangeSet
from storage.check import check
from storage.engine import Committer  # type: ignore[attr-defined]
from storage.environment import Environment
from storage.feed import ChangeFeed
from storage.flushing import Flusher
from storage.writer import WriteTransaction
from tests.crash.faults import Call, Fault, Faults, Seen, compile_shim, preloaded
from tests.crash.loop import make_image, memory_disk, mounted, need_loop_devices
from tests.e2e.running import ROOT, RunningServer
from tests.storage.helpers import contents, create, key_of

log = logging.getLogger(__name__)
MEMORY = Path("/dev/shm")

FAULTS = [
    Fault(Call.SYNC),
    Fault(Call.SYNC, sticky=True),
    Fault(Call.SYNC, after=True),
    Fault(Call.SYNC, shut=2),
    Fault(Call.SYNC, errno.ENOSPC),
    Fault(Call.WRITE),
    Fault(Call.WRITE, sticky=True),
    Fault(Call.WRITE, after=True),
    Fault(Call.WRITE, short=True),
    Fault(Call.WRITE, errno.ENOSPC),
    Fault(Call.WRITE, errno.ENOSPC, sticky=True),
    Fault(Call.ALLOC, errno.ENOMEM),
    Fault(Call.ALLOC, errno.ENOMEM, sticky=True),
]
LEAST = {Call.SYNC: 30, Call.WRITE: 150, Call.ALLOC: 200}
"""How many calls of each kind the script makes at least; far fewer mean that the shim does not see them."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: syncs that are made to fail need no disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-test-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_call_fails_once(shim: Path, fast_folder: Path, tmp_path: Path, fault: Fault) -> None:
    control = tmp_path / "control"
    Faults(control)
    command = [sys.executable, "-m", "tests.crash.scripted_run", str(control), str(fast_folder)]
    steps = ["0", "12"] if fault.call is Call.ALLOC and fault.sticky else []  # two of each kind; each failure waits
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, json.dumps(fault._asdict()), *steps],
        env=os.environ | preloaded(shim, control) | {"PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report = json.loads(done.stdout)
    assert not report["violations"], "\n".join(report["violations"])
    assert report["injected"] >= LEAST[fault.call], report
    log.info("%s: %d calls failed one at a time; reported as %s", fault, report["injected"], report["errors"])


# --- memory runs out in Python ---------------------------------------------------------------------------------------

BEFORE: list[tuple[type, str]] = [
    (Flusher, "write_staged"),
    (Flusher, "write_commit"),
    (WriteTransaction, "flush"),
    (WriteTransaction, "insert_row"),
    (Environment, "begin_write"),
    (Environment, "commit"),
    (Committer, "_transaction"),
    (Committer, "_run_works"),
]
"""Steps of a commit before it is durable."""

AFTER: list[tuple[type, str]] = [(ChangeFeed, "publish"), (ChangeFeed, "_change_set")]
"""Steps after it."""


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> Callable[[], bool]:
    """Let a method raise MemoryError once; the function says whether it has."""
    original = getattr(owner, name)
    static = isinstance(owner.__dict__[name], staticmethod)
    failed: list[bool] = []

    def fail(*arguments: object, **named: object) -> object:
        if not failed:
            failed.append(True)
            raise MemoryError
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, staticmethod(fail) if static else fail)
    return lambda: bool(failed)


@pytest.mark.parametrize(("owner", "name"), BEFORE + AFTER, ids=[f"{o.__name__}.{n}" for o, n in BEFORE + AFTER])
def test_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Before the commit: the work fails and leaves nothing. After it: the work is durable and says so."""
    with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=8 << 20, merge=False)) as engine:
        table = create(engine)
        cursor = engine.feed.subscribe(engine.last_seq)

        def insert(number: int) -> int:
            row = (number, None, number)
            return engine.submit(lambda wtxn: wtxn.insert_row(table, "", row, key_of(table, number))).result(20)

        insert(1)
        failed = failing_once(monkeypatch, owner, name)
        expected = [1, 2, 3]
        if (owner, name) in BEFORE:
            with pytest.raises(MemoryError):
                insert(2)
            expected = [1, 3]
        else:
            insert(2)
        assert failed()
        with engine.snapshot() as snapshot:
            assert [row[0] for row in contents(snapshot, table)] == expected[:-1]
        insert(3)
        with engine.snapshot() as snapshot:
            assert [row[0] for row in contents(snapshot, table)] == expected
        assert [row for change in cursor.poll() for row in added(change)] == expected
    assert check(tmp_path / "data") == []
    with StorageEngine.open(tmp_path / "data") as engine, engine.snapshot() as snapshot:
        assert [row[0] for row in contents(snapshot, table)] == expected


def added(change: ChangeSet) -> list[int]:
    """Keys of the rows that a commit added."""
    return [key for table in change.tables for key in table.added().column("id").to_pylist()]


# --- a whole server --------------------------------------------------------------------------------------------------

CREATE = "CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE = 'SHARED')"


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error code."""
    return answer.status_code, answer.json()["error"]["code"]


def insert_until_stored(server: RunningServer, number: int) -> set[tuple[int, str]]:
    """Insert a row as a client that tries again would; how the failed tries were answered."""
    failures: set[tuple[int, str]] = set()
    for _ in range(1_000):
        answer = server.post("INSERT INTO app.t VALUES ($1, $2)", [number, f"row {number}"])
        if answer.status_code == 200:
            return failures
        failures.add(code_of(answer))
    raise AssertionError(f"row {number} was never stored: {failures}")


def read_when_open(server: RunningServer) -> list[int]:
    """The keys that are there; while storage is being reopened a reader asks again."""
    for _ in range(1_000):
        answer = server.post("SELECT id FROM app.t ORDER BY id")
        if answer.status_code == 200:
            return [row[0] for row in answer.json()["results"][0]["rows"]]
        assert code_of(answer) == (503, "STORAGE_UNAVAILABLE"), answer.text
    raise AssertionError("nothing could be read")


@pytest.fixture
def failing_server(tmp_path: Path, shim: Path) -> Iterator[tuple[RunningServer, Faults]]:
    """A server with the shim, and what steers it."""
    control = tmp_path / "control"
    faults = Faults(control)
    server = RunningServer(tmp_path / "data", (), preloaded(shim, control))
    try:
        server.start().set_up().sql(CREATE)
        yield server, faults
    finally:
        faults.disarm()
        server.kill()


@pytest.mark.parametrize(
    "fault",
    [Fault(Call.SYNC), Fault(Call.WRITE), Fault(Call.WRITE, short=True), Fault(Call.WRITE, after=True)],
    ids=str,
)
def test_the_server_says_that_the_disk_failed_and_recovers(
    failing_server: tuple[RunningServer, Faults], fault: Fault
) -> None:
    server, faults = failing_server
    stored = []
    for number in range(12):
        faults.forget()
        faults.arm(fault, 1 + number % 4)
        failures = insert_until_stored(server, number)
        stored.append(number)
        assert failures <= {(503, "STORAGE_UNAVAILABLE")}
        assert bool(failures) == bool(faults.fired)
        faults.disarm()
        assert read_when_open(server) == stored
        assert faults.synced_again() == ""
    assert "I/O error" in server.log()
    assert "reopened" in server.log()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.stop() == 0
    server.start()
    assert [row[0] for row in server.rows("SELECT id FROM app.t ORDER BY id")] == stored
    assert server.stop() == 0
    assert check(server.data) == []


def test_a_disk_that_stays_away_stops_nothing_but_storage(failing_server: tuple[RunningServer, Faults]) -> None:
    server, faults = failing_server
    insert_until_stored(server, 1)
    faults.forget()
    faults.arm(Fault(Call.SYNC, shut=1_000_000), 1)
    for number in range(5):
        assert code_of(server.post("INSERT INTO app.t VALUES ($1, 'x')", [100 + number])) == (
            503,
            "STORAGE_UNAVAILABLE",
        )
    refused_opens = Seen(Call.OPEN, 0, 0, failed=True)
    while refused_opens not in faults.log():
        assert server.process is not None
        assert server.process.poll() is None, server.log()
    assert code_of(server.post("SELECT id FROM app.t")) == (503, "STORAGE_UNAVAILABLE")
    assert httpx.get(f"{server.url}/health").status_code in {200, 503}
    faults.disarm()
    insert_until_stored(server, 2)
    assert read_when_open(server) == [1, 2]
    assert faults.synced_again() == ""
    assert server.stop() == 0
    assert check(server.data) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_refuses_writes_and_goes_on_reading(tmp_path: Path, kind: str) -> None:
    """STORAGE_FULL while the disk is full, right answers to readers all the time, and writes when there is room."""
    need_loop_devices()
    with ExitStack() as stack:
        mount = tmp_path / "mount"
        if kind == "ext4":
            make_image(tmp_path / "disk", 48 << 20)
            stack.enter_context(mounted(tmp_path / "disk", mount))
        else:
            stack.enter_context(memory_disk(mount, 32 << 20))
        server = RunningServer(mount / "data")
        stack.callback(server.kill)
        server.start().set_up().sql(CREATE)
        fill = mount / "fill"
        fill.write_bytes(bytes(12 << 20))
        stored = {0: "before"}
        server.sql("INSERT INTO app.t VALUES (0, 'before')")
        wrong: list[str] = []
        done = threading.Event()
        reader = threading.Thread(target=read_all_the_time, args=(server, done, wrong))
        reader.start()
        stack.callback(reader.join)
        stack.callback(done.set)

        chance = random.Random(7)
        refused = 0
        for number in range(1, 4_000):
            text = chance.randbytes(30_000).hex()
            answer = server.post("INSERT INTO app.t VALUES ($1, $2)", [number, text])
            if answer.status_code == 200:
                stored[number] = text
                continue
            assert code_of(answer) == (507, "STORAGE_FULL"), answer.text
            refused += 1
            if refused == 20:
                break
        assert refused == 20, f"the disk was not full after {len(stored)} rows"
        assert found_in(server) == stored

        fill.unlink()
        for number in range(10_000, 10_020):
            server.sql("INSERT INTO app.t VALUES ($1, 'after')", [number])
            stored[number] = "after"
        done.set()
        reader.join()
        assert wrong == []
        assert found_in(server) == stored
        assert server.stop() == 0, server.log()
        assert "Traceback" not in server.log(), server.log()
        assert check(server.data) == []


def read_all_the_time(server: RunningServer, done: threading.Event, wrong: list[str]) -> None:
    """Read until told to stop. There are never fewer rows than before, and every row is whole."""
    seen = 0
    with server.client_of(server.token) as client:
        while not done.is_set():
            answer = client.post("/v1/api/sql", json={"sql": "SELECT count(*), count(v) FROM app.t"})
            if answer.status_code != 200:
                wrong.append(answer.text)
                return
            rows, values = answer.json()["results"][0]["rows"][0]
            if rows < seen or rows != values:
                wrong.append(f"{rows} rows and {values} values after {seen} rows")
                return
            seen = rows


def found_in(server: RunningServer) -> dict[int, str]:
    """All rows, one by one a line."""
    answer = server.post("SELECT id, v FROM app.t", headers={"Accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    rows = [json.loads(line) for line in answer.text.splitlines()]
    return {row["id"]: row["v"] for row in rows}
