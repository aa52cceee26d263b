"""The process dies at each step of a file's life: no row is without its file, and no file stays without its row."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from storage import StorageEngine
from storage.blobs import FolderBlobs
from storage.check import check
from storage.file_store import FileStore
from tests.crash.file_steps import CALLS
from tests.e2e.files_support import FileUser, check_closed_folder, stored_files, until
from tests.e2e.running import ROOT, RunningServer, run_command
from tests.storage.test_file_store import OPTIONS

LATER = 40
"""More calls of a kind than the run makes."""
ROUNDS = int(os.environ.get("HEADRACE_FILE_CRASH_ROUNDS", "5"))
SEED = int(os.environ.get("HEADRACE_CRASH_SEED", "20261128"))


def die(folder: Path, step: str) -> tuple[list[str], bool]:
    """Play the life up to a step; the statements that were acknowledged, and whether the process died."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.file_steps", str(folder), step],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.stdout.split("\n")[:-1], done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("when", ["-", "+"])
def test_a_crash_at_each_step(tmp_path: Path, call: str, when: str) -> None:
    for at in range(1, LATER):
        folder = tmp_path / str(at)
        said, died = die(folder, f"{when}{call}/{at}")
        with StorageEngine.open(folder, OPTIONS) as engine:
            files = FileStore(engine, FolderBlobs(folder / "files"), per_folder=2)
            assert engine.check() == []
            assert files.missing() == [], "a row is without its file"
            files.collect()
            assert files.missing() == []
            assert engine.check() == []
            (table,) = engine.catalog.tables()
            with engine.snapshot() as snapshot:
                rows = snapshot.scan(table, "u").to_pylist()
            texts = {text for row in rows for text in (row["a"], row["b"]) if text}
            ids = {json.loads(text)["id"] for text in texts}
            assert {path.rpartition("/")[2].partition("-")[0] for path in files.blobs.list()} == ids
            held = tuple(sorted(ids))
            after = {
                0: {(), ("1", "2")}, 1: {("1", "2"), ("2", "3")}, 2: {("2", "3"), ()}, 3: {()},
            }  # fmt: skip
            assert held in after[len([line for line in said if line.startswith("acknowledged")])]
        if not died:
            assert said[-1] == "end"
            assert at > 2, "the calls were not seen"
            return
    pytest.fail("the run never came to its end")


class Uploader:
    """A client that inserts, replaces, touches and deletes rows with files until the server is gone."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.chance = random.Random(SEED + number)
        self.rows: dict[int, bytes | None] = {}
        self.open: tuple[int, bytes | None, bool] | None = None
        self.operations = 0

    def run(self, server: RunningServer) -> None:
        """Work until a request is not answered."""
        user = FileUser(server, server.token)
        try:
            while True:
                self.step(user)
                self.operations += 1
        except httpx.HTTPError:
            return
        finally:
            user.http.close()

    def step(self, user: FileUser) -> None:
        number = self.number * 1_000 + self.chance.randrange(8)
        content = self.chance.randbytes(self.chance.choice([0, 10, 1_000, 300_000]))
        action = self.chance.choice(["put", "put", "null", "touch", "delete", "fail"])
        put = "INSERT INTO app.docs (id, f) VALUES ($1, FILE('f')) ON CONFLICT (id) DO UPDATE SET f = EXCLUDED.f"
        actions: dict[str, Callable[[], httpx.Response]] = {
            "put": lambda: user.upload(put, {"f": ("f.bin", content)}, [number]),
            "null": lambda: user.sql("UPDATE app.docs SET f = NULL WHERE id = $1", [number]),
            "touch": lambda: user.sql("UPDATE app.docs SET note = $2 WHERE id = $1", [number, str(self.operations)]),
            "delete": lambda: user.sql("DELETE FROM app.docs WHERE id = $1", [number]),
            "fail": lambda: user.upload("UPDATE app.docs SET id = 1, f = FILE('f')", {"f": ("f", content)}),
        }
        present = number in self.rows
        if action == "put":
            self.open = number, content, True
        elif action == "null" and present:
            self.open = number, None, True
        elif action == "delete" and present:
            self.open = number, None, False
        answer = actions[action]()
        assert answer.status_code == (400 if action == "fail" else 200), answer.text
        if self.open is not None:
            self.settle(took=True)

    def settle(self, *, took: bool) -> None:
        """Note whether what was under way took effect."""
        assert self.open is not None
        number, content, stays = self.open
        self.open = None
        if took and stays:
            self.rows[number] = content
        elif took:
            self.rows.pop(number, None)

    def verify(self, user: FileUser, found: dict[int, bytes | None]) -> None:
        """Hold what the server has against what it acknowledged."""
        if self.open is not None:
            number, content, stays = self.open
            self.settle(took=(number in found) == stays and found.get(number) == content)
        assert found == self.rows


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_kill_9_leaves_no_row_without_its_file(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    clients = [Uploader(number) for number in range(4)]
    server = RunningServer(tmp_path / "data", changes={"HEADRACE_FILES_MAX_FILES_PER_FOLDER": "7"})
    try:
        server.start().set_up()
        server.sql("CREATE NAMESPACE app; CREATE USER TABLE app.docs (id BIGINT PRIMARY KEY, note TEXT, f FILE)")
        for number in range(ROUNDS):
            threads = [threading.Thread(target=client.run, args=(server,)) for client in clients]
            for thread in threads:
                thread.start()
            goal = sum(client.operations for client in clients) + chance.randrange(1, 60)
            until(lambda goal=goal: sum(client.operations for client in clients) >= goal)  # type: ignore[misc]
            server.kill()
            for thread in threads:
                thread.join()
            assert check(server.data) == [], f"round {number} of seed {SEED}"
            server.start()
            verify(server, clients)
        assert server.stop() == 0, server.log()
        assert "Traceback" not in server.log(), server.log()
        live, stored = check_closed_folder(server.data)
        assert live == stored
    finally:
        server.kill()
    assert run_command("check", "--data", server.data).returncode == 0


def verify(server: RunningServer, clients: list[Uploader]) -> None:
    """Every row has its file, whole; nothing else is kept."""
    user = FileUser(server, server.token)
    found: dict[int, bytes | None] = {}
    for number, ref in user.rows("SELECT id, f FROM app.docs"):
        if isinstance(ref, str):
            ref = json.loads(ref)
        if ref is None:
            found[int(number)] = None
            continue
        answer = user.get("app.docs", ref)
        assert answer.status_code == 200, (number, ref, answer.text)
        found[int(number)] = answer.content
    for client in clients:
        mine = {number: content for number, content in found.items() if number // 1_000 == client.number}
        client.verify(user, mine)
    wanted = sum(content is not None for content in found.values())
    until(lambda: len(stored_files(server.data)) == wanted)
    user.http.close()
