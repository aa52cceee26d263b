"""`headrace serve`: from the command line to a server that listens, and back to a closed data folder.

Exit codes: 0 after SIGINT or SIGTERM, 1 if the folder or the port cannot be had, 2 for a wrong configuration. Whatever
is wrong is one sentence on standard error.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from server.config import Config
from server.config_load import ConfigError, load
from server.data_folder import DataFolderError, prepare
from server.listener import ListenError, bind, make_server, url_of
from server.logging import configure
from server.memory import trim

if TYPE_CHECKING:
    from storage.engine import StorageEngine


def serve(config_path: Path | None, flags: Mapping[tuple[str, str], object], environment: Mapping[str, str]) -> int:
    """Serve until a signal says stop; returns the exit code."""
    try:
        config = load(config_path, environment, flags)
    except ConfigError as error:
        return _say(str(error), 2)
    configure(config.logging)
    try:
        _put_restored(Path(config.storage.data_path))
        folder = prepare(Path(config.storage.data_path))
        listener = bind(config.server.host, config.server.port)
    except (DataFolderError, ListenError, NotRestored) as error:
        return _say(str(error), 1)
    with listener:
        code = _serve(config, folder, listener)
    _end_threads(code)
    return code


class NotRestored(Exception):
    """A restored data folder could not be put in place; the message is a sentence."""


def _put_restored(path: Path) -> None:
    """Put the data folder in place that RESTORE DATABASE has prepared, if it has."""
    folder = path.expanduser().absolute()
    if not folder.with_name(f"{folder.name}.restore.json").exists():
        return
    from sql.backup.layout import BackupError
    from sql.backup.swapping import swap_pending
    from storage.errors import StorageError

    try:
        done = swap_pending(folder)
    except (BackupError, StorageError, OSError) as error:
        raise NotRestored(f"the restored data folder could not be put in place: {error}") from error
    if done is not None:
        logging.getLogger("headrace").warning("%s", done)


def _serve(config: Config, folder: Path, listener: socket.socket) -> int:
    from server.assembly import storage_options
    from server.auth.secret import SecretRefused
    from sql.passwords import WeakPassword
    from storage.blobs import BlobError
    from storage.engine import StorageEngine
    from storage.errors import StorageError

    try:
        engine = StorageEngine.open(folder, storage_options(config))
    except StorageError as error:
        return _say(str(error), 1)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(config, engine, folder, listener))
    except SecretRefused as error:
        return _say(str(error), 2)
    except BlobError as error:
        return _say(f"section [files], key 'storage': {error}", 2)
    except WeakPassword as error:
        return _say(f"section [auth], key 'root_password': {error.message}", 2)
    finally:
        engine.close()


async def _run(config: Config, engine: StorageEngine, folder: Path, listener: socket.socket) -> int:
    """Serve on the event loop."""
    from server.assembly import assemble

    _use_threads(config.performance.worker_max_blocking_threads)
    async with assemble(config, engine, folder, url_of(listener).removeprefix("http://")) as assembly:

        def tell() -> None:
            setup = " · needs set-up: POST /v1/api/auth/setup" if assembly.needs_setup else ""
            print(f"Headrace listens on {url_of(listener)} · data in {folder}{setup}", flush=True)  # noqa: T201
            gc.collect()
            trim()
            gc.freeze()  # what lives as long as the server is never looked through again

        server = make_server(assembly.app, config, assembly.limits, tell, assembly.stop_waiting)
        await server.serve([listener])
        gc.unfreeze()
        return 0 if server.started else 1


def _end_threads(code: int) -> None:
    """End the process here when a query that nothing can interrupt still runs: Python would wait for its thread.

    All that is durable is on disk and the folder was given back; the thread only reads.
    """
    from sql.workers import left_behind

    if left_behind():
        logging.getLogger("headrace").warning("a query that could not be stopped ends with the process")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


def _use_threads(number: int) -> None:
    """Bound the threads of the event loop's executor."""
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(number, thread_name_prefix="server"))


def _say(sentence: str, code: int) -> int:
    print(f"headrace: {sentence}", file=sys.stderr)  # noqa: T201
    return code
