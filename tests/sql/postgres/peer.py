"""PostgreSQL's side: a private cluster, asked for every expression in one psql session."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benches.peer_postgres import Postgres
from tests.sql.postgres.values import Answer, their_answer
from tests.sql.postgres.world import POSTGRES_TABLE, ROWS

_MARK = "--expression "
_SETTINGS = "SET TimeZone = 'UTC'; SET statement_timeout = '10s'; SET bytea_output = 'hex';\n"


@contextmanager
def running() -> Iterator[str]:
    """How a PostgreSQL of our own is reached; raises `benches.peers.Unavailable` where none is installed."""
    peer = Postgres()
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o755)
        peer.start_database(place)
        try:
            yield peer.dsn()
        finally:
            peer.stop()


def ask(dsn: str, expressions: Sequence[str]) -> dict[str, Answer]:
    """The answer to each expression, all over the same typed rows."""
    script = [_SETTINGS, POSTGRES_TABLE, ROWS, "\\set VERBOSITY sqlstate\n"]
    for number, expression in enumerate(expressions):
        script.append(f"\\echo {_MARK}{number}\n")
        script.append(
            "SELECT jsonb_build_array(pg_typeof(v)::text, to_jsonb(v)) "  # noqa: S608 - our own list
            f"FROM (SELECT {expression}) q(v);\n"
        )
    made = subprocess.run(
        ["psql", dsn, "-XAtq", "-f", "-"],
        input="".join(script),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=120,
    )
    answers: dict[str, Answer] = {}
    head, *parts = made.stdout.split(_MARK)
    if head.strip():
        raise RuntimeError(head)
    for expression, part in zip(expressions, parts, strict=True):
        lines = part.splitlines()[1:]
        failed = any("ERROR:" in line for line in lines)
        answers[expression] = Answer("error", []) if failed else their_answer([json.loads(line) for line in lines])
    return answers
