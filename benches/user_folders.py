"""Data folders with many users: accounts, sessions of some of them, and the same rows for each in a USER table."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from benches.load import Load, dumps
from benches.peer_headrace import Headrace
from benches.web import send_json
from server.auth.secret import SECRET_FILE
from server.auth.sessions import open_family
from server.auth.tokens import Claims, Tokens, TokenType
from storage.catalog import USER_KIND, TableDef, UserDef
from storage.engine import StorageEngine
from storage.options import StorageOptions
from storage.seams import SYSTEM_CLOCK
from storage.writer import WriteTransaction

TABLE = "bench.inbox"
ROWS_EACH = 100
SIGNED_IN = 500
"""Users whose requests are measured, at most."""
TOGETHER = 200
"""Users that one commit fills."""
JOB_SECONDS = 7_200.0
_CREATE = f"CREATE USER TABLE {TABLE} (id BIGINT PRIMARY KEY, at TIMESTAMP NOT NULL, body TEXT NOT NULL, stars INT)"
_VARIANTS = 50


@dataclass
class UserServer:
    """A server on a folder of its own with so many users."""

    users: int
    headrace: Headrace = field(default_factory=Headrace)
    tokens: list[str] = field(default_factory=list)
    folder: Path = Path()

    def create(self, folder: Path) -> float:
        """Set up, and fill the table while no server runs; the seconds that filling took."""
        folder.mkdir()
        self.folder = folder / "headrace"
        self.headrace.start(folder)
        self.headrace.sql(_CREATE)
        self.headrace.stop()
        began = time.monotonic()
        self._fill(range(self.users), 0, ROWS_EACH)
        self._sign_in()
        return time.monotonic() - began

    def add_rows(self, every: int, first: int, count: int) -> None:
        """Give every so-manieth user more rows; the server does not run meanwhile."""
        self._fill(range(0, self.users, every), first, count)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.headrace.pids()[0]

    # --- what users ask ------------------------------------------------------------------------------------------

    def read(self, _: int) -> Load:
        """One own row by its key."""
        return self._statement(f"SELECT id, at, body, stars FROM {TABLE} WHERE id = $1", f"'[%d]', n % {ROWS_EACH}")

    def aggregate(self, _: int) -> Load:
        """All own rows, counted and summed."""
        return self._statement(f"SELECT count(*), sum(stars) FROM {TABLE}", "'[]'")

    def insert(self, first: int) -> Load:
        """One more own row."""
        statement = f"INSERT INTO {TABLE} VALUES ($1, $2, $3, $4)"
        return self._statement(statement, f"""'[%d,"2026-03-01 08:00:00","%s",3]', {first} + n, ("x"):rep(60)""")

    def subscribe(self) -> Iterator[float]:
        """For each user who is signed in, the milliseconds until a live query has all rows that there are."""
        address = self.headrace.base.removeprefix("http://")
        path = "/v1/api/live?sql=SELECT%20*%20FROM%20bench.inbox"
        for token in self.tokens:
            connection = http.client.HTTPConnection(address, timeout=60)
            began = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            event = b""
            for line in answer:
                event = line if line.startswith(b"event:") else event
                if event.startswith(b"event: rows") and b'"has_more":false' in line:
                    break
            yield (time.perf_counter() - began) * 1000
            connection.close()

    def _statement(self, text: str, params: str) -> Load:
        tokens = ", ".join(f'"{token}"' for token in self.tokens)
        head = f'{{"sql":{dumps(text)},"params":'
        body = (
            'headers["Authorization"] = "Bearer " .. tokens[n % #tokens + 1]\n'
            f'return "/v1/api/sql", [[{head}]] .. string.format({params}) .. "}}"'
        )
        setup = f"local tokens = {{ {tokens} }}"
        return Load(self.headrace.base, body, setup=setup, headers={"Content-Type": "application/json"})

    # --- what an administrator asks ------------------------------------------------------------------------------

    def job(self, statement: str) -> float:
        """Run a statement that starts a job; the seconds until it has ended. Raises RuntimeError when it failed."""
        began = time.monotonic()
        answer = send_json("POST", f"{self.headrace.base}/v1/api/sql", {"sql": statement}, self.headrace.headers)
        message = dumps(answer)
        job_id = message.partition("Job ID: ")[2].partition('"')[0].rstrip(".")
        if not job_id:
            raise RuntimeError(f"{statement} started no job: {message}")
        while time.monotonic() - began < JOB_SECONDS:
            status, words = self.headrace.rows("SELECT status, message FROM system.jobs WHERE job_id = $1", job_id)[0]
            if status == "completed":
                return time.monotonic() - began
            if status not in {"new", "queued", "running", "retrying"}:
                raise RuntimeError(f"{statement}: {status}: {words}")
            time.sleep(0.05)  # the job tells nobody over HTTP that it is done
        raise RuntimeError(f"{statement} did not end within {JOB_SECONDS:.0f} seconds")

    # --- filling -------------------------------------------------------------------------------------------------

    def _fill(self, chosen: range, first: int, count: int) -> None:
        with self._engine() as engine:
            table = engine.catalog.table(*TABLE.split("."))
            assert table is not None
            variants = [_rows(table, variant, first, count) for variant in range(_VARIANTS)]
            for start in range(0, len(chosen), TOGETHER):
                engine.commit_sync(_inserting(table, chosen[start : start + TOGETHER], variants), weight=1)

    def _sign_in(self) -> None:
        """Make an account for everybody, and a session for some, evenly spread."""
        tokens = Tokens((self.folder / SECRET_FILE).read_text().strip().encode(), SYSTEM_CLOCK)
        now = SYSTEM_CLOCK.now_us()
        day = now // 1_000_000 + 86_400
        chosen = range(0, self.users, max(1, self.users // SIGNED_IN))[:SIGNED_IN]
        with self._engine() as engine:
            for start in range(0, self.users, TOGETHER):
                some = range(start, min(start + TOGETHER, self.users))

                def work(wtxn: WriteTransaction, some: range = some) -> None:
                    for number in some:
                        account = UserDef(_name(number), "user", created_at=now, updated_at=now)
                        wtxn.put_object(USER_KIND, account.user_id, account)
                        if number in chosen:
                            open_family(wtxn, account, f"family-{number}", "none", now, day * 1_000_000)

                engine.commit_sync(work)
        self.tokens = [
            tokens.sign(Claims(_name(n), "user", TokenType.ACCESS, f"family-{n}", f"jti-{n}", now // 1_000_000, day))
            for n in chosen
        ]

    def _engine(self) -> StorageEngine:
        return StorageEngine.open(self.folder, StorageOptions(merge=False, evict=False))


def _inserting(table: TableDef, some: Sequence[int], variants: list[pa.Table]) -> Callable[[WriteTransaction], None]:
    def work(wtxn: WriteTransaction) -> None:
        for number in some:
            wtxn.insert(table, _name(number), variants[number % len(variants)])

    return work


def _name(number: int) -> str:
    return f"user-{number:07d}"


def _rows(table: TableDef, variant: int, first: int, count: int) -> pa.Table:
    ids = range(first, first + count)
    columns = {
        "id": list(ids),
        "at": [1_772_000_000_000_000 + 1_000_000 * (100 * variant + number) for number in ids],
        "body": [
            f"message {number} to a user of kind {variant}: {(variant * 7919 + number) % 9973:0>24}" for number in ids
        ],
        "stars": [(number + variant) % 6 for number in ids],
    }
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in table.arrow_schema]
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)


def folder_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk (the data file is sparse)."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
