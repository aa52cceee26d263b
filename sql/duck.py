"""DuckDB in process: a few closed-off instances, leased to one query at a time.

Every connection is an instance of its own, so what one query registers no other can see, one query's memory limit is
not another's, and an instance that fails fatally is thrown away alone. An instance reaches nothing: no files, no
network, no extensions, no Python variables, and its settings are locked. Only `temp_directory` is written, when a
query spills.

What DuckDB's own memory limit does not count (strings that scalar functions build) is bounded by the process:
see `bound_process_memory`.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb
import msgspec
import pyarrow as pa
from duckdb.func import ARROW

from sql import duck_api
from sql.duck_errors import is_fatal, translate
from sql.errors import Overloaded, SqlError
from sql.functions import FunctionContext
from sql.postgres_macros import add_macros
from sql.rewrite import SNOWFLAKE_FUNCTION, ULID_FUNCTION, UUID_FUNCTION
from sql.watchdog import Watchdog
from sql.workers import Control

log = logging.getLogger(__name__)

_SETTINGS = (
    "enable_external_access = false",
    "allow_community_extensions = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_persistent_secrets = false",
    "enable_progress_bar = false",
    "python_enable_replacements = false",
    "arrow_lossless_conversion = true",
    "errors_as_json = true",
    "integer_division = true",
    "TimeZone = 'UTC'",
    "allocator_background_threads = true",
    "lock_configuration = true",
)


_SQUARES = ("damerau_levenshtein", "editdist3", "jaro_similarity", "jaro_winkler_similarity", "levenshtein")
"""Functions whose time grows with the product of the lengths of two texts, and that cannot be interrupted."""
_LONGEST_COMPARED = 500

_AGAIN = 0.2
_TRIES = 25
"""Interruptions after which a query is given up: it is inside one call of a function that never looks."""
PREPARE = "PREPARE __hr_prepared AS "


class DuckOptions(msgspec.Struct, frozen=True):
    """How much the query engine may use. `memory_bytes` and `temp_bytes` are shared out among the connections."""

    connections: int = 2
    threads: int = 0
    """Threads of each connection; 0 means one for each processor."""
    memory_bytes: int = 1024 * 1024 * 1024
    temp_bytes: int = 4 * 1024 * 1024 * 1024
    wait_seconds: float = 10.0
    """How long a query waits for a connection before it is refused."""


class ArrowStream(Protocol):
    """Rows by the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A new reading of the rows."""


class DuckSession:
    """One connection while a query has it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._registered: list[str] = []
        self.broken = False

    def register(self, name: str, table: pa.Table | ArrowStream) -> None:
        """Show a table or a stream to the query under a private name."""
        self._connection.register(name, table)
        self._registered.append(name)

    def bind(self, text: str) -> duck_api.Signature:
        """Types of a query's outputs and parameters."""
        return duck_api.bind(self._connection, text)

    def prepare(self, text: str) -> None:
        """Raise what is wrong with a query, with the details that errors of statements have."""
        self._connection.execute(PREPARE + text)
        self._connection.execute("DEALLOCATE __hr_prepared")

    def serialize(self, text: str) -> str:
        """DuckDB's parse tree of a query, as JSON."""
        row = self._connection.execute("SELECT json_serialize_sql($1)", [text]).fetchall()[0]
        return str(row[0])

    def explain(self, text: str, values: Sequence[object]) -> str:
        """DuckDB's physical plan of a query."""
        rows = self._connection.execute(f"EXPLAIN {text}", list(values) or None).fetchall()
        return "\n".join(str(row[-1]) for row in rows)

    def stream(self, text: str, values: Sequence[object], batch_rows: int) -> pa.RecordBatchReader:
        """Run a query; batches come as they are made."""
        return duck_api.stream(self._connection, text, values, batch_rows)

    def collect(self, text: str, values: Sequence[object], batch_rows: int) -> pa.Table:
        """Run a query to its end."""
        return duck_api.collect(self._connection, text, values, batch_rows)

    def interrupt(self) -> None:
        """Stop what runs; from any thread."""
        self._connection.interrupt()

    def forget(self) -> None:
        """Take back what was registered."""
        for name in self._registered:
            try:
                self._connection.unregister(name)
            except duckdb.Error:
                self.broken = True
        self._registered.clear()

    def close(self) -> None:
        """Give the instance back to the system."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


class _Stopper:
    """Interrupts a session when its control says so, and again until it is released.

    Again, because DuckDB forgets an interruption that comes just before a query begins.
    """

    def __init__(self, session: DuckSession, control: Control, watchdog: Watchdog, give_up: Callable[[], None]) -> None:
        self._session = session
        self._watchdog = watchdog
        self._give_up = give_up
        self._stops = 0
        self._lock = threading.Lock()
        self._active = True
        self._unwatch = watchdog.watch(control.deadline, self._stop)
        self._unsubscribe = control.on_stop(self._stop)

    def _stop(self) -> None:
        with self._lock:
            if self._active:
                self._session.interrupt()
                self._stops += 1
                if self._stops == _TRIES:
                    self._give_up()
                self._unwatch = self._watchdog.watch(time.monotonic() + _AGAIN, self._stop)

    def release(self) -> None:
        """The query is over: interrupt no more."""
        with self._lock:
            self._active = False
        self._unsubscribe()
        self._unwatch()


class Guests(NamedTuple):
    """How many queries have a connection, and how many ever had one."""

    present: int
    come: int


class DuckPool:
    """The connections. They are made when first needed; a broken one is replaced."""

    def __init__(
        self, options: DuckOptions | None = None, functions: FunctionContext | None = None, folder: Path | None = None
    ) -> None:
        self.options = options or DuckOptions()
        self._functions = functions or FunctionContext()
        self._owned = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="headrace-duck-"))
        self._free: list[DuckSession] = []
        self._slots = threading.BoundedSemaphore(self.options.connections)
        self._lock = threading.Lock()
        self._watchdog = Watchdog()
        self._planner: DuckSession | None = None
        self._planner_lock = threading.RLock()
        self._numbers = iter(range(1, 1 << 62))
        self._closed = False
        self._guests = Guests(0, 0)
        self._left = threading.Condition(self._lock)
        self._lost = 0
        """Connections whose query was given up and still runs; as many as there are connections may be replaced."""
        if not self._owned:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def lease(self, control: Control) -> Iterator[DuckSession]:
        """A connection for one query, interrupted when the control is stopped or its time is over.

        DuckDB's errors leave the block as they are; see `translated`.
        """
        control.check()
        if not self._slots.acquire(timeout=min(self.options.wait_seconds, control.remaining)):
            control.check()
            raise Overloaded("All query workers are busy; try again in a moment.")
        session: DuckSession | None = None
        stopper: _Stopper | None = None
        lost = False

        def give_up() -> None:
            nonlocal lost
            with self._lock:
                if self._lost >= self.options.connections:
                    return
                self._lost += 1
            lost = True
            log.error("a query does not stop; its connection is replaced")
            self._slots.release()

        self._count(1)
        try:
            session = self._take()
            stopper = _Stopper(session, control, self._watchdog, give_up)
            yield session
        except BaseException as error:
            if session is not None and is_fatal(error):
                log.error("the query engine failed and is replaced: %s", error)
                session.broken = True
            raise
        finally:
            if stopper is not None:
                stopper.release()
            if session is not None:
                session.broken = session.broken or lost
                session.forget()
                self._give_back(session)
            self._count(-1)
            if lost:
                with self._lock:
                    self._lost -= 1
            else:
                self._slots.release()

    def guests(self) -> Guests:
        """Who has a connection now, to be asked about later."""
        with self._lock:
            return self._guests

    def wait_for_others(self, since: Guests, seconds: float) -> bool:
        """Wait until no query has a connection; a query that had one since `since`, and has none now, asks.

        False when it was alone all the time, or when others still run after `seconds`.
        """
        with self._left:
            if since.present == 0 and self._guests.come <= since.come + 1:
                return False
            return self._left.wait_for(lambda: self._guests.present == 0, max(seconds, 0.0))

    def _count(self, change: int) -> None:
        with self._left:
            present, come = self._guests
            self._guests = Guests(present + change, come + max(change, 0))
            self._left.notify_all()

    @contextlib.contextmanager
    def planning(self, tables: Mapping[str, pa.Table]) -> Iterator[DuckSession]:
        """The connection that types queries and never runs one, with these (empty) tables."""
        with self._planner_lock:
            if self._planner is None or self._planner.broken:
                self._planner = self._connect(1)
            session = self._planner
            try:
                for name, table in tables.items():
                    session.register(name, table)
                yield session
            except BaseException as error:
                session.broken = session.broken or is_fatal(error)
                raise
            finally:
                session.forget()

    def _take(self) -> DuckSession:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._connect(self.options.connections)

    def _give_back(self, session: DuckSession) -> None:
        with self._lock:
            if not session.broken and not self._closed:
                self._free.append(session)
                return
        session.close()

    def _connect(self, share: int) -> DuckSession:
        options = self.options
        with self._lock:
            folder = self._folder / str(next(self._numbers))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # DuckDB makes the last part of a path only
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{max(options.memory_bytes // share // 1024, 16 * 1024)}KiB",
            "temp_directory": str(folder),
            "max_temp_directory_size": f"{options.temp_bytes // share // 1024}KiB",
        }
        if options.threads:
            config["threads"] = options.threads
        connection = duckdb.connect(":memory:", config=config)
        self._add_functions(connection)
        for setting in _SETTINGS:
            connection.execute(f"SET {setting}")
        return DuckSession(connection)

    def _add_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        functions = self._functions

        def snowflakes(rows: pa.Array) -> pa.Array:
            return pa.array(functions.snowflake_ids(len(rows)))

        def uuids(rows: pa.Array) -> pa.Array:
            return pa.array(functions.uuid_v7s(len(rows)))

        def ulids(rows: pa.Array) -> pa.Array:
            return pa.array(functions.ulids(len(rows)))

        for name, function, result in (
            (SNOWFLAKE_FUNCTION, snowflakes, "BIGINT"),
            (UUID_FUNCTION, uuids, "VARCHAR"),
            (ULID_FUNCTION, ulids, "VARCHAR"),
        ):
            connection.create_function(name, function, ["DOUBLE"], result, type=ARROW, side_effects=True)
        add_macros(connection)
        for name in _SQUARES:
            short = [
                f"CASE WHEN strlen({text}) > {_LONGEST_COMPARED} THEN "
                f"error('{name}() compares texts of at most {_LONGEST_COMPARED} bytes') ELSE {text} END"
                for text in ("a", "b")
            ]
            connection.execute(f"CREATE MACRO {name}(a, b) AS system.main.{name}({', '.join(short)})")

    def close(self) -> None:
        """Close the connections that are free; those in use close when they come back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for session in free:
            session.close()
        with self._planner_lock:
            if self._planner is not None:
                self._planner.close()
                self._planner = None
        self._watchdog.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def translated(**details: object) -> Iterator[None]:
    """DuckDB's errors inside the block leave it as SqlErrors (see `duck_errors.translate` for the details)."""
    try:
        yield
    except SqlError:
        raise
    except (duckdb.Error, OSError, RuntimeError, MemoryError, pa.ArrowException) as error:
        raise translate(error, **details) from error  # type: ignore[arg-type]


def bound_process_memory(size: int) -> None:
    """Let the operating system refuse this process more than `size` bytes of private memory (maps do not count).

    A query that would take more then fails with MEMORY_LIMIT_EXCEEDED instead of taking the machine down.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, hard))
