"""`kill -9` at random moments under eight writers: everything acknowledged is there, nothing is there by half.

`HEADRACE_CRASH_ROUNDS` sets the number of rounds (10 by default), `HEADRACE_CRASH_SEED` the seed, which is part of
every message.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from storage.check import check
from tests.crash.workload import CLIENTS, SCHEMA, TABLES, Book, Broken, Client, Contents, Writers, verify
from tests.e2e.running import COMMAND, RunningServer, environment, run_command

ROUNDS = int(os.environ.get("HEADRACE_CRASH_ROUNDS", "10"))
SEED = int(os.environ.get("HEADRACE_CRASH_SEED", "20261121"))
log = logging.getLogger(__name__)
ARROW = {"Accept": "application/vnd.apache.arrow.stream"}


def read(server: RunningServer) -> Contents:
    """Everything that the server holds."""
    contents = {}
    for table, columns in TABLES.items():
        answer = server.post(f"SELECT _seq, {', '.join(columns)} FROM app.{table}", headers=ARROW)
        assert answer.status_code == 200, answer.text
        with pa.ipc.open_stream(answer.content) as reader:
            rows = zip(*(column.to_pylist() for column in reader.read_all().columns), strict=True)
        contents[table] = {row[1]: (row[0], row[2:]) for row in rows}
    return contents


def kill_while_starting(data: Path, chance: random.Random) -> None:
    """Start a server and kill it before or soon after it listens."""
    command = [*COMMAND, "serve", "--data", str(data), "--port", "0"]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    try:
        starting.wait(chance.uniform(0.1, 0.7))
    except subprocess.TimeoutExpired:
        starting.kill()
    starting.wait()


@pytest.mark.slow
@pytest.mark.timeout(300 + 10 * ROUNDS)
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    clients = [Client(number, SEED) for number in range(CLIENTS)]
    book = Book()
    server = RunningServer(tmp_path / "data")
    try:
        server.start().set_up().sql(SCHEMA)
        for number in range(ROUNDS):
            try:
                play_round(server, clients, book, chance)
                if number % 10 == 9:
                    problems = check(server.data)
                    assert not problems, problems
            except (AssertionError, Broken) as error:
                error.add_note(f"round {number} of seed {SEED}\n{server.log()[-2000:]}")
                raise
            if number % 7 == 3:
                kill_while_starting(server.data, chance)
            server.start()
            server.client.headers["Authorization"] = f"Bearer {server.token}"
        contents = read(server)
        accept(clients, contents)
        book.verify(contents)
        assert server.stop() == 0, server.log()
    finally:
        server.kill()
    checked = run_command("check", "--data", server.data)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    acknowledged, refused = sum(c.acknowledged for c in clients), sum(c.refused for c in clients)
    log.info("%d rounds, %d operations acknowledged, %d refused", ROUNDS, acknowledged, refused)
    assert acknowledged > 20 * ROUNDS, (acknowledged, refused)
    assert "Traceback" not in server.log(), server.log()


def play_round(server: RunningServer, clients: list[Client], book: Book, chance: random.Random) -> None:
    """Prove what the server holds after its start, let the clients write, and kill it."""
    contents = read(server)
    accept(clients, contents)
    book.verify(contents)
    writers = Writers(clients, server.url, server.token)
    try:
        writers.gate.wait_for(chance.randrange(1, 200))
        assert server.process is not None
        try:
            server.process.wait(chance.uniform(0, 0.01))
        except subprocess.TimeoutExpired:
            pass
        else:
            pytest.fail(f"the server ended by itself\n{server.log()}")
    finally:
        server.kill()
        writers.join()


def accept(clients: list[Client], contents: Contents) -> None:
    """Prove that the contents may be found, and take them as what is."""
    accepted = verify(clients, contents, [client.bounds() for client in clients])
    for client, k in zip(clients, accepted, strict=True):
        client.accept(k, cut_off=True)
