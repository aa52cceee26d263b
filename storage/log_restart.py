"""Beginning the change log anew in a data folder that nobody serves, with `_seq`s far behind those that there are.

A copy of a database must not give out `_seq`s that the original has given out since: whoever saw those would take them
for what they are not. So the copy's `_seq`s go on after a wide step, and its log begins there: readers that ask for
anything earlier are told that it is not retained any more. Superseded rows that only the log needed go by themselves.
"""

from __future__ import annotations

from pathlib import Path

from storage.environment import LOG_TRUNCATED, NEXT_SEQ, Environment, pack_number, read_number
from storage.lock import FolderLock
from storage.options import StorageOptions


def restart_log(folder: Path, step: int) -> None:
    """Forget all commits, and let `_seq`s go on `step` further. Raises StorageLocked, lmdb.Error."""
    with FolderLock(folder):
        environment = Environment(folder, StorageOptions())
        try:
            with environment.env.begin(write=True) as txn:
                following = read_number(txn, environment.dbs, NEXT_SEQ, 1) + step
                txn.drop(environment.dbs.commits, delete=False)
                txn.put(NEXT_SEQ, pack_number(following), db=environment.dbs.meta)
                txn.put(LOG_TRUNCATED, pack_number(following - 1), db=environment.dbs.meta)
        finally:
            environment.close()
