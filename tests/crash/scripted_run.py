"""A scripted run of the storage engine in which every single call on the disk fails once. A program.

`python -m tests.crash.scripted_run CONTROL FOLDER FAULT`, with the shim preloaded, plays the script once without
faults and keeps a copy of the folder before each step. Then, for each step and each n, it begins with that copy, lets
the n-th call fail, and plays the step and those after it, until a step ends in which nothing failed. It prints a
report as JSON.

The script has 30 steps: single rows, several tables in one commit, updates, deletes, transfers between accounts,
definitions, groups that share a commit, a bulk load, a large value, merges, and the map growing on the way. A model
(plain dicts) goes along. After each step the engine must show exactly what the model holds: a work that was
acknowledged is there, a work that failed is not. What fails is tried again, as a client would. At the end the change
feed must have told everything once, the folder is opened anew and must hold the same, and the check command must find
nothing.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgspec
import pyarrow as pa

from storage import CommitInfo, Snapshot, StorageEngine, StorageOptions, TableDef, Transaction, WriteTransaction
from storage.check import check
from storage.errors import DuplicateKey, StorageError, StorageFull, StoragePoisoned
from tests.crash.faults import Call, Fault, Faults
from tests.storage.helpers import create, key_of, keyed_table, keyless_table, rows_of, seq_of

OPTIONS = StorageOptions(
    map_start=1 << 20,
    merge=False,
    evict=False,
    merge_fan_in=2,
    direct_rows=250,
    ring_commits=4,
    group_wait_us=0,
    drain_seconds=1.0,
)
STEPS = 30
TRIES = 400
ACCOUNTS = 4
HANG_SECONDS = 60

Rows = dict[Any, tuple[Any, ...]]
State = dict[str, Rows]
Work = Callable[[WriteTransaction], int]


class Violation(Exception):
    """A promise was broken."""


class Note(msgspec.Struct, frozen=True):
    """A definition of some kind."""

    text: str


class Start(NamedTuple):
    """A folder before a step, and what it holds."""

    folder: Path
    state: State
    last_seq: int


class Run:
    """The script from some step on, in a copy of a folder."""

    def __init__(self, folder: Path, start: Start, faults: Faults, fault: Fault) -> None:
        self.folder = folder
        shutil.copytree(start.folder, folder)
        self.faults = faults
        self.fault = fault
        self.state = start.state
        self.last_seq = start.last_seq
        self.errors: list[str] = []
        self.failures_in_a_row = 0
        self.open()

    def open(self) -> None:
        """Open the engine, and follow its feed from the last acknowledged commit."""
        self.engine = StorageEngine.open(self.folder, OPTIONS)
        if self.engine.last_seq < self.last_seq:
            raise Violation(f"the last _seq was {self.last_seq} and is {self.engine.last_seq} after opening")
        catalog = self.engine.catalog
        self.keyed, self.plain, self.keyless = (
            table for name in ("keyed", "plain", "keyless") if (table := catalog.table("app", name))
        )
        self.told = {name: dict(rows) for name, rows in self.state.items()}
        self.cursor = self.engine.feed.subscribe(self.last_seq)

    def run(self, steps: range, at: int) -> bool:
        """Let the `at`-th call fail and play some steps; then open the folder anew. Whether anything failed."""
        faults = self.faults
        faults.forget()
        faults.arm(self.fault, at)
        self.step(steps[0])
        fired = faults.fired > 0
        faults.forgive()
        if not fired:
            return False
        for step in steps[1:]:
            self.step(step)
        faults.disarm()
        self.verify("at the end")
        if again := faults.synced_again():
            raise Violation(f"a failed sync was tried again: {again}")
        self.close()
        problems = check(self.folder)
        if problems:
            raise Violation(f"check: {problems[0]} (and {len(problems) - 1} more)")
        self.open()
        self.verify("after opening anew")
        self.step(0, key=10_000)
        return True

    def close(self) -> None:
        """Close the engine, which must not hang."""
        self.engine.close()

    # --- the script ----------------------------------------------------------------------------------------------

    def step(self, step: int, key: int | None = None) -> None:
        """Do one step, again and again until it is acknowledged."""
        new = key or 100 + step * 10
        kind = step % 6
        if step in (11, 23):
            self.attempt(f"{step} merge", self.engine.compact, self.state)
        elif step == 17:
            rows = {new * 10 + i: (new * 10 + i, f"{i:0>600}", i) for i in range(300)}
            self.commit(f"{step} bulk", self.inserting(self.plain, "", rows), self.with_rows(plain=rows), weight=300)
        elif step == 20:
            large: Rows = {new: (new, "x" * 100_000, step)}
            self.commit(f"{step} large", self.inserting(self.plain, "", large), self.with_rows(plain=large))
        elif kind == 0:
            row = (new, f"row {new}", step)
            self.commit(f"{step} row", self.inserting_one(row), self.with_rows(plain={new: row}))
        elif kind == 1:
            self.two_tables(step, new)
        elif kind == 2:
            self.update(step)
        elif kind == 3:
            self.group(step, new)
        elif kind == 4:
            self.delete_and_define(step)
        else:
            self.transfer(step)

    def two_tables(self, step: int, new: int) -> None:
        mine = {new + i: (new + i, f"{new + i}@example.org", i) for i in range(5)}
        others = {new + i: (new + i, None, i) for i in range(3)}
        both = [self.inserting(self.keyed, "ann", mine), self.inserting(self.plain, "", others)]
        after = self.with_rows(ann=mine, plain=others)
        self.commit(f"{step} two tables", lambda wtxn: max(work(wtxn) for work in both), after)

    def update(self, step: int) -> None:
        rows = {key: (*row[:2], row[2] + 1000) for key, row in list(self.state["ann"].items())[-3:]}
        table = self.keyed

        def work(wtxn: WriteTransaction) -> int:
            seqs = [seq_of(wtxn, table, "ann", key) for key in rows]
            return wtxn.replace(table, "ann", seqs, rows_of(table, list(rows.values())))[1]

        self.commit(f"{step} update", work, self.with_rows(ann=rows))

    def delete_and_define(self, step: int) -> None:
        gone = list(self.state["ann"])[:2]
        state = self.with_rows(notes={f"note {step}": (str(step),)})
        state["ann"] = {key: row for key, row in state["ann"].items() if key not in gone}

        def work(wtxn: WriteTransaction) -> int:
            wtxn.delete(self.keyed, "ann", [seq_of(wtxn, self.keyed, "ann", key) for key in gone])
            wtxn.put_object("note", f"note {step}", Note(str(step)))
            return wtxn.next_seq - 1

        self.commit(f"{step} delete", work, state)

    def transfer(self, step: int) -> None:
        """Read in a snapshot, apply in the writer, as a session does."""
        giver, taker = step % ACCOUNTS, (step + 1) % ACCOUNTS
        rows = {key: (key, None, self.state["plain"][key][2] + by) for key, by in ((giver, -7), (taker, 7))}

        def run() -> int:
            with self.engine.snapshot() as snapshot:
                transaction = Transaction(snapshot)
                seqs = [seq_of(transaction, self.plain, "", key) for key in rows]
                transaction.replace(self.plain, "", seqs, rows_of(self.plain, list(rows.values())))
            info: CommitInfo = self.engine.commit_sync(transaction.apply)
            return int(info.last_seq)

        self.attempt(f"{step} transfer", run, self.with_rows(plain=rows))

    def group(self, step: int, new: int) -> None:
        """Three works share one commit; a fourth one in it is refused and must not take the others along."""
        mine = {new + i: (new + i, f"{new + i}@example.org", i) for i in range(2)}
        other = (new, "in a group", step)
        loose = {("keyless", new): (new, None, step)}

        def refused(wtxn: WriteTransaction) -> int:
            return wtxn.insert_row(self.plain, "", (0, None, 0), key_of(self.plain, 0))

        def run() -> int:
            begun, all_queued = threading.Event(), threading.Event()

            def hold(wtxn: WriteTransaction) -> None:
                begun.set()
                all_queued.wait(30)

            held = self.engine.submit(hold)
            begun.wait(30)
            commits = []
            try:
                commits = [
                    self.engine.submit(work)
                    for work in (
                        self.inserting(self.keyed, "ann", mine),
                        refused,
                        self.inserting_one(other),
                        lambda wtxn: wtxn.insert(self.keyless, "", rows_of(self.keyless, list(loose.values())))[1],
                    )
                ]
            finally:
                all_queued.set()
            held.result(30)
            try:
                commits[1].result(30)
            except DuplicateKey:
                pass
            else:
                raise Violation("a duplicate key was accepted")
            return max(int(commit.result(30)) for commit in (commits[0], commits[2], commits[3]))

        self.attempt(f"{step} group", run, self.with_rows(ann=mine, plain={new: other}, keyless=loose))

    @staticmethod
    def inserting(table: TableDef, user: str, rows: Rows) -> Work:
        return lambda wtxn: wtxn.insert(table, user, rows_of(table, list(rows.values())))[1]

    def inserting_one(self, row: tuple[Any, ...]) -> Work:
        return lambda wtxn: wtxn.insert_row(self.plain, "", row, key_of(self.plain, row[0]))

    def with_rows(self, **added: Rows) -> State:
        return {name: rows | added.get(name, {}) for name, rows in self.state.items()}

    # --- doing and proving ---------------------------------------------------------------------------------------

    def commit(self, name: str, work: Work, after: State, weight: int = 1) -> None:
        self.attempt(name, lambda: self.engine.submit(work, weight=weight).result(30), after)

    def attempt(self, name: str, run: Callable[[], int], after: State) -> None:
        """Run a step until it is acknowledged. A failure must leave nothing, and must say what it is."""
        for _ in range(TRIES):
            try:
                seq = run()
            except TimeoutError as error:
                raise Violation(f"step {name}: nobody was told for 30 seconds") from error
            except (StorageError, lmdb.Error, MemoryError, OSError) as error:
                self.accept(name, error)
                self.verify(f"after the failed step {name}")
                self.count_failure()
                continue
            self.failures_in_a_row = 0
            if after is not self.state:
                if seq <= self.last_seq:
                    raise Violation(f"step {name}: _seq {seq} after {self.last_seq}")
                self.last_seq = seq
                self.state = after
            self.verify(f"after step {name}")
            return
        raise Violation(f"step {name}: still failing after {TRIES} tries: {self.errors[-1]}")

    def count_failure(self) -> None:
        """After three failures in a row the disk is mended."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= 3:
            self.faults.forgive()
            time.sleep(0.002)  # a client's pause before it tries again

    def accept(self, name: str, error: Exception) -> None:
        """Whether this is how the fault should be reported."""
        self.errors.append(f"{name}: {type(error).__name__}: {error}")
        if self.fault.call is Call.ALLOC:
            return
        expected: tuple[type[Exception], ...] = (StoragePoisoned,)
        if self.fault.error == errno.ENOSPC and not self.fault.short:
            expected = (StorageFull,)
        if not isinstance(error, expected):
            raise Violation(f"step {name}: {self.fault} was reported as {type(error).__name__}: {error}")
        if not self.faults.fired:
            raise Violation(f"step {name}: failed before anything was made to fail: {error}")

    def verify(self, when: str) -> None:
        """What readers see is what was acknowledged; what the feed told is the same."""
        for _ in range(TRIES):
            try:
                with self.engine.snapshot() as snapshot:
                    found = self.read(snapshot)
                self.follow()
            except (lmdb.Error, MemoryError, StorageError) as error:
                # Reads may meet the failing allocation too; and while storage is reopened they say so.
                if self.fault.call is not Call.ALLOC and not isinstance(error, StoragePoisoned):
                    raise
                self.count_failure()
                continue
            break
        else:
            raise Violation(f"{when}: nothing could be read")
        for name, rows in self.state.items():
            if found[name] != rows:
                missing = {key: row for key, row in rows.items() if found[name].get(key) != row}
                surplus = {key: row for key, row in found[name].items() if rows.get(key) != row}
                raise Violation(f"{when}: {name} misses {_short(missing)} and has {_short(surplus)}")
            if name != "notes" and self.told[name] != rows:
                raise Violation(f"{when}: the feed did not tell the same of {name}")

    def read(self, snapshot: Snapshot) -> State:
        return {
            "ann": _by_id(snapshot.scan(self.keyed, "ann")),
            "plain": _by_id(snapshot.scan(self.plain, "")),
            "keyless": {("keyless", row[0]): row for row in _by_id(snapshot.scan(self.keyless, "")).values()},
            "notes": _notes(snapshot),
        }

    def follow(self) -> None:
        """Bring `told` up to date. The cursor moves only when everything could be read."""
        names = {(self.keyed.table_id, "ann"): "ann", (self.plain.table_id, ""): "plain"}
        names[(self.keyless.table_id, "")] = "keyless"
        position = self.cursor.position
        told = {name: dict(rows) for name, rows in self.told.items()}
        try:
            while changes := self.cursor.poll(3):
                for change in changes:
                    for table in change.tables:
                        rows = told[names[(table.table.table_id, table.partition)]]
                        apply_change(rows, table.removed(), table.added(), keyless=table.table.name == "keyless")
        except BaseException:
            self.cursor.position = position
            raise
        self.told = told


def apply_change(rows: Rows, removed: pa.RecordBatch, added: pa.RecordBatch, *, keyless: bool) -> None:
    """Replay one change; a row told twice, or removed without being there, is a violation."""
    for row in removed.to_pylist():
        key = ("keyless", row["id"]) if keyless else row["id"]
        if rows.pop(key, None) is None:
            raise Violation(f"the feed removed row {key} twice")
    for row in added.to_pylist():
        key = ("keyless", row["id"]) if keyless else row["id"]
        if key in rows:
            raise Violation(f"the feed added row {key} twice")
        rows[key] = (row["id"], row["email"], row["amount"])


def _by_id(table: pa.Table) -> Rows:
    return {row["id"]: tuple(row.values()) for row in table.to_pylist()}


def _notes(snapshot: Snapshot) -> Rows:
    found = ((name, snapshot.get_object("note", name, Note)) for name in (f"note {step}" for step in range(STEPS)))
    return {name: (note.text,) for name, note in found if note is not None}


def _short(rows: Rows) -> str:
    return str(dict(list(rows.items())[:3]))[:300]


def play(folder: Path, faults: Faults) -> list[Start]:
    """Play the script without faults; a copy of the folder before each step."""
    empty = folder / "empty"
    with StorageEngine.open(empty, OPTIONS) as engine:
        create(engine, keyed_table)
        plain = create(engine)
        create(engine, keyless_table)
        accounts: Rows = {i: (i, None, 100) for i in range(ACCOUNTS)}
        engine.commit_sync(lambda wtxn: wtxn.insert(plain, "", rows_of(plain, list(accounts.values()))))
        last_seq = engine.last_seq
    state: State = {"ann": {}, "plain": accounts, "keyless": {}, "notes": {}}
    run = Run(folder / "played", Start(empty, state, last_seq), faults, Fault(Call.WRITE))
    starts = []
    for step in range(STEPS):
        before = folder / f"step{step}"
        before.mkdir(mode=0o700)
        shutil.copy(run.folder / "data.mdb", before)
        starts.append(Start(before, run.state, run.last_seq))
        run.step(step)
    run.close()
    return starts


def main(control: str, folder: str, fault_json: str, first: str = "0", last: str = str(STEPS)) -> int:
    """Let every call of every step fail; print the report."""
    logging.basicConfig(level=logging.CRITICAL)
    faults = Faults(Path(control))
    faults.disarm()
    values = json.loads(fault_json)
    fault = Fault(**values | {"call": Call(values["call"])})
    report: dict[str, Any] = {"injected": 0, "violations": [], "errors": {}}
    starts = play(Path(folder), faults)
    following = 2 if fault.call is Call.ALLOC else 3  # there are very many allocations
    for step in range(int(first), int(last)):
        fired, at = True, 0
        while fired and len(report["violations"]) < 10:
            at += 1
            sys.stderr.write(f"{fault}, step {step}, n = {at}\n")
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            here = Path(tempfile.mkdtemp(dir=folder))
            run = Run(here / "data", starts[step], faults, fault)
            try:
                fired = run.run(range(step, min(step + following, STEPS)), at)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong belongs into the report
                report["violations"].append(f"{fault}, step {step}, n = {at}: {type(error).__name__}: {error}")
            faults.disarm()
            run.close()
            report["injected"] += fired
            for text in run.errors:
                kind = text.split(": ", 1)[1].replace(str(run.folder), "DATA")
                report["errors"][kind] = report["errors"].get(kind, 0) + 1
            shutil.rmtree(here)
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
