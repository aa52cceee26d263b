"""Readers during heavy writes see whole commits only: the sum of all accounts never changes."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow.compute as pc

from storage import StorageEngine, TableDef, Transaction, WriteTransaction
from storage.errors import WriteConflict
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, plain_table, rows_of

ACCOUNTS = 20
START = 100


def transfer(engine: StorageEngine, table: TableDef, dice: random.Random) -> None:
    """Move money, in one of the three ways that sessions use."""
    source, target = dice.sample(range(ACCOUNTS), 2)
    amount = dice.randint(1, 10)
    keys = [key_of(table, source), key_of(table, target)]

    def move(view: Transaction | WriteTransaction) -> None:
        seqs = [seq for seq in view.find(table, "", keys) if seq is not None]
        have = view.fetch(table, "", seqs, ["amount"]).column(0).to_pylist()
        rows = [(source, None, have[0] - amount), (target, None, have[1] + amount)]
        view.replace(table, "", seqs, rows_of(table, rows))

    def inside(wtxn: WriteTransaction) -> None:
        txn = Transaction(wtxn)
        move(txn)
        txn.apply(wtxn)

    way = dice.randrange(3)
    if way == 0:
        engine.commit_sync(move)
    elif way == 1:
        engine.commit_sync(inside)
    else:
        with engine.snapshot() as snapshot:
            txn = Transaction(snapshot)
            move(txn)
        try:
            engine.commit_sync(txn.apply)
        except WriteConflict:
            engine.commit_sync(inside)


def test_transfers_keep_the_sum(folder: Path) -> None:
    with StorageEngine.open(folder, msgspec.structs.replace(QUIET, merge=True, merge_fan_in=4)) as engine:
        table = create(engine, plain_table)
        rows = [(i, None, START) for i in range(ACCOUNTS)]
        engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, rows)))
        done = threading.Event()

        def read() -> int:
            reads = 0
            while not done.is_set():
                with engine.snapshot() as snapshot:
                    assert pc.sum(snapshot.scan(table, "").column("amount")).as_py() == ACCOUNTS * START
                    assert snapshot.count(table, "") == ACCOUNTS
                    first = snapshot.find_range(table, "", None, None)
                    amounts = snapshot.fetch(table, "", first, ["amount"])
                    assert pc.sum(amounts.column(0)).as_py() == ACCOUNTS * START
                reads += 1
            return reads

        def write(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(60):
                transfer(engine, table, dice)

        with ThreadPoolExecutor(10) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, seed) for seed in range(8)]
            try:
                for writer in writers:
                    writer.result(60)
            finally:
                done.set()
            assert all(reader.result(60) > 0 for reader in readers)
        replica: dict[int, int] = {}
        for change in engine.feed.subscribe(0).poll(100_000):
            for part in change.tables:
                replica.update((row["_seq"], row["amount"]) for row in part.added().to_pylist())
                for row in part.removed().to_pylist():
                    assert replica.pop(row["_seq"]) == row["amount"]
            assert sum(replica.values()) in (0, ACCOUNTS * START)
        assert engine.check() == []
