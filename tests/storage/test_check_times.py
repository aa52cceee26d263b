"""The check command and `times`: folders of former versions are sound, and damage is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from storage import StorageEngine
from storage.check import check
from storage.environment import NAMES
from storage.keys import parse_seq_key, seq_key
from tests.storage.helpers import create
from tests.storage.stream_model import OPTIONS, JumpingClock, stream_table
from tests.storage.test_eviction import SECOND, insert

Plant = Callable[[lmdb.Transaction, Any], None]


def without_times(folder: Path) -> None:
    """As a version without STREAM tables left the folder."""
    with lmdb.open(str(folder), map_size=64 << 20, max_dbs=20) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"times", txn=txn))


def test_a_folder_of_a_former_version(folder: Path) -> None:
    with StorageEngine.open(folder, OPTIONS):
        pass
    without_times(folder)
    assert check(folder) == []
    with StorageEngine.open(folder, OPTIONS) as engine:
        table = create(engine, stream_table)
        insert(engine, table)
        assert engine.check() == []
    assert check(folder) == []


def lose_all(txn: lmdb.Transaction, times: Any) -> None:
    txn.drop(times, delete=False)


def lose_the_last(txn: lmdb.Transaction, times: Any) -> None:
    cursor = txn.cursor(db=times)
    cursor.last()
    cursor.delete()


def move(txn: lmdb.Transaction, times: Any) -> None:
    cursor = txn.cursor(db=times)
    cursor.last()
    key, value = cursor.item()
    cursor.delete()
    txn.put(seq_key(parse_seq_key(bytes(key)) + 1), bytes(value), db=times)


def turn(txn: lmdb.Transaction, times: Any) -> None:
    cursor = txn.cursor(db=times)
    cursor.last()
    txn.put(bytes(cursor.key()), seq_key(1), db=times)


def invent(txn: lmdb.Transaction, times: Any) -> None:
    cursor = txn.cursor(db=times)
    cursor.last()
    txn.put(seq_key(parse_seq_key(bytes(cursor.key())) + 1), seq_key(1_000), db=times)


def shorten(txn: lmdb.Transaction, times: Any) -> None:
    txn.put(b"short", b"", db=times)


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (lose_all, "would never expire"),
        (lose_the_last, "would never expire"),
        (move, "but was made at"),
        (turn, "does not come after"),
        (invent, "does not lie below next_seq"),
        (shorten, "not a sequence number"),
    ],
)
def test_damage_is_found(folder: Path, plant: Plant, sentence: str) -> None:
    clock = JumpingClock()
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        table = create(engine, stream_table)
        for _ in range(3):
            insert(engine, table, count=2)
            clock.wall += SECOND
    assert check(folder) == []
    with lmdb.open(str(folder), map_size=64 << 20, max_dbs=20) as env:
        for name in NAMES:
            env.open_db(name.encode())
        times = env.open_db(b"times")
        with env.begin(write=True) as txn:
            plant(txn, times)
    found = check(folder)
    assert any(sentence in problem.message for problem in found), found
    assert any(problem.structure == "times" for problem in found)
