"""One step of a file's life, after which the process is gone. A program.

`python -m tests.crash.file_steps FOLDER STEP` stores a file with its row, replaces it, deletes the row and collects,
and kills itself with SIGKILL at STEP, before (`-`) or after (`+`) the n-th call of a function: `+put/2`. It prints
`acknowledged N` for each statement that was answered.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from storage import StorageEngine, TableDef
from storage.blobs import FolderBlobs
from storage.environment import Environment
from storage.file_store import FileStore
from tests.storage.test_file_store import OPTIONS, create, key_of, store

CALLS: dict[str, tuple[type, str]] = {
    "commit": (Environment, "commit"),
    "put": (FolderBlobs, "put"),
    "link": (FolderBlobs, "_link"),
    "delete": (FolderBlobs, "delete"),
}


def arm(step: str) -> None:
    """Kill the process at a step."""
    when, (name, _, at) = step[0], step[1:].partition("/")
    owner, method = CALLS[name]
    original = getattr(owner, method)
    count = 0

    def call(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == int(at) and when == "-":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments)
        if count == int(at) and when == "+":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    static = isinstance(owner.__dict__[method], staticmethod)
    setattr(owner, method, staticmethod(call) if static else call)


def play(folder: Path, step: str) -> None:
    """The whole life."""
    engine = StorageEngine.open(folder, OPTIONS)
    files = FileStore(engine, FolderBlobs(folder / "files"), per_folder=2)
    table = create(engine)
    arm(step)
    keys, (first, second) = store(files, table, "u", 1, 2)
    put(engine, table, first, second)
    files.release(keys)
    print("acknowledged 1", flush=True)  # noqa: T201
    keys, (third,) = store(files, table, "u", 3)
    put(engine, table, third, second)
    files.release(keys)
    print("acknowledged 2", flush=True)  # noqa: T201
    files.collect()
    keys, _ = store(files, table, "u", 4)
    files.release(keys)
    engine.commit_sync(lambda writer: writer.delete(table, "u", [(writer.get_row(table, "u", key_of(1)) or (0,))[0]]))
    print("acknowledged 3", flush=True)  # noqa: T201
    files.collect()
    print("end", flush=True)  # noqa: T201
    engine.close()


def put(engine: StorageEngine, table: TableDef, a: str, b: str) -> None:
    """Insert or replace the row."""

    def work(writer: Any) -> None:
        found = writer.get_row(table, "u", key_of(1))
        if found is None:
            writer.insert_row(table, "u", (1, a, b), key_of(1))
        else:
            writer.replace_row(table, "u", found[0], (1, a, b), key_of(1))

    engine.commit_sync(work)


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2])
