"""Hostile bodies for ingest: broken, truncated, lying and exploding files. Nothing is inserted, nobody is hurt."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.bystander import PATIENCE, Bystander, failure
from tests.e2e.running import RunningServer

SMALL = {"HEADRACE_DUCKDB_PROCESS_MEMORY_BYTES": str(2 << 30)}
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
NDJSON = "application/x-ndjson"
CSV = "text/csv"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("ingest") / "data", (), SMALL)
    try:
        running.start().set_up().sql(
            "CREATE NAMESPACE app; CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT NOT NULL, doc JSON) "
            "WITH (TYPE='SHARED'); INSERT INTO app.items VALUES (1, 'one', NULL)"
        )
        yield running
        assert running.stop() == 0, running.log()[-4_000:]
        assert "Traceback" not in running.log(), running.log()[-4_000:]
    finally:
        running.kill()


@pytest.fixture(scope="module")
def other(server: RunningServer) -> Iterator[Bystander]:
    bystander = Bystander(server)
    yield bystander
    bystander.close()


def send(server: RunningServer, kind: str, body: bytes, **headers: str) -> httpx.Response:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post(
        "/v1/api/ingest/app/items", content=body, headers={"Content-Type": kind} | more, timeout=PATIENCE
    )


def refused(answer: httpx.Response) -> bool:
    """Whether the answer is a failure with a status of the client's making."""
    status, code = failure(answer)
    return status in {400, 413, 415} and code in {
        "INVALID_INPUT", "INVALID_SQL", "SQL_EXECUTION_ERROR", "MEMORY_LIMIT_EXCEEDED", "BODY_TOO_LARGE",
    }  # fmt: skip


def arrow(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def rows(count: int = 100, first: int = 10) -> pa.Table:
    return pa.table({"id": range(first, first + count), "name": [f"n{n}" for n in range(count)]})


def arrow_file() -> bytes:
    sink = io.BytesIO()
    table = rows()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def many(body: bytes, count: int) -> bytes:
    return body * count


NULLS = pa.table({"id": pa.nulls(10, pa.int64()), "name": ["x"] * 10})

BODIES: list[tuple[str, str, bytes]] = [
    ("empty arrow", ARROW, b""),
    ("empty parquet", PARQUET, b""),
    ("zeros as arrow", ARROW, bytes(1_000)),
    ("ones as arrow", ARROW, b"\xff" * 1_000),
    ("a huge frame", ARROW, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100)),
    ("arrow file", ARROW, arrow_file()),
    ("parquet as arrow", ARROW, parquet(rows())),
    ("arrow as parquet", PARQUET, arrow(rows())),
    ("csv as arrow", ARROW, b"id,name\n10,x\n"),
    ("arrow without its end", ARROW, arrow(rows())[:-8][:-100]),
    ("half an arrow stream", ARROW, arrow(rows(10_000))[: 50_000]),
    ("arrow, then more", ARROW, arrow(rows()) + b"more"),
    ("other columns", ARROW, arrow(pa.table({"a": [1], "b": [2]}))),
    ("a column more", ARROW, arrow(rows().append_column("more", pa.array(range(100))))),
    ("a column twice", ARROW, arrow(rows().append_column("id", pa.array(range(100))))),
    ("hidden columns", ARROW, arrow(rows().append_column("_seq", pa.array(range(100))))),
    ("a missing column", ARROW, arrow(pa.table({"id": [10]}))),
    ("other types", ARROW, arrow(pa.table({"id": ["ten"], "name": ["x"]}))),
    ("nested types", ARROW, arrow(pa.table({"id": [[10]], "name": [{"a": 1}]}))),
    ("numbers beyond the type", ARROW, arrow(pa.table({"id": pa.array([2**64 - 1], pa.uint64()), "name": ["x"]}))),
    ("nulls in the key", ARROW, arrow(NULLS)),
    ("the same key twice", ARROW, arrow(pa.table({"id": [10, 10], "name": ["x", "y"]}))),
    ("a key that is there", ARROW, arrow(pa.table({"id": [1], "name": ["x"]}))),
    ("text that is no UTF-8", ARROW, arrow(pa.table({"id": [10], "name": pa.array([b"\xff\xfe"]).view(pa.string())}))),
    ("parquet magic only", PARQUET, b"PAR1"),
    ("parquet magic twice", PARQUET, b"PAR1PAR1"),
    ("a footer that is too long", PARQUET, b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"),
    ("half a parquet file", PARQUET, parquet(rows(10_000))[:5_000]),
    ("the end of a parquet file", PARQUET, parquet(rows(10_000))[-5_000:]),
    ("parquet with nulls in the key", PARQUET, parquet(NULLS)),
    ("ndjson: no JSON", NDJSON, b"hello\n"),
    ("ndjson: half an object", NDJSON, b'{"id": 10, "name": "x"}\n{"id": 11, "na'),
    ("ndjson: an array", NDJSON, b'[{"id": 10, "name": "x"}]\n'),
    ("ndjson: a number", NDJSON, b"12\n"),
    ("ndjson: two a line", NDJSON, b'{"id": 10, "name": "x"} {"id": 11, "name": "y"}\n'),
    ("ndjson: a pretty object", NDJSON, b'{\n"id": 10,\n"name": "x"\n}\n'),
    ("ndjson: no UTF-8", NDJSON, b'{"id": 10, "name": "\xff"}\n'),
    ("ndjson: a lone surrogate", NDJSON, b'{"id": 10, "name": "\\ud800"}\n'),
    ("ndjson: nested deep", NDJSON, b'{"id": 10, "name": "x", "doc": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"),
    ("ndjson: never closed", NDJSON, b'{"id": 10, "name": "' + b"x" * 20_000_000),
    ("ndjson: a huge number", NDJSON, b'{"id": 1' + b"0" * 1_000_000 + b', "name": "x"}\n'),
    ("ndjson: a huge exponent", NDJSON, b'{"id": 1e999999999, "name": "x"}\n'),
    ("ndjson: NaN", NDJSON, b'{"id": NaN, "name": "x"}\n'),
    ("ndjson: unknown fields", NDJSON, b'{"id": 10, "name": "x", "more": 1}\n'),
    ("ndjson: many unknown fields", NDJSON, json.dumps({f"c{n}": n for n in range(100_000)}).encode() + b"\n"),
    ("ndjson: zeros", NDJSON, bytes(1_000)),
    ("ndjson: the last of many is wrong", NDJSON, b"".join(
        b'{"id": %d, "name": "x"}\n' % n for n in range(10, 50_000)) + b'{"id": "x"}\n'),
    ("csv: no header", CSV, b"10,x\n11,y\n"),
    ("csv: too many fields", CSV, b"id,name\n10,x,y\n"),
    ("csv: too few fields", CSV, b"id,name\n10\n"),
    ("csv: a quote that is never closed", CSV, b'id,name\n10,"' + b"x\n" * 5_000_000),
    ("csv: quotes everywhere", CSV, b"id,name\n" + b'"' * 1_000_001),
    ("csv: a header of a megabyte", CSV, b"x" * 1_000_000 + b"\n"),
    ("csv: many columns", CSV, b",".join(b"c%d" % n for n in range(100_000)) + b"\n"),
    ("csv: the same column twice", CSV, b"id,id,name\n10,11,x\n"),
    ("csv: zeros", CSV, b"id,name\n10,a\0b\n\0"),
    ("csv: no UTF-8", CSV, b"id,name\n10,\xff\xfe\n"),
    ("csv: UTF-16", CSV, "id,name\n10,x\n".encode("utf-16")),
    ("csv: no number", CSV, b"id,name\nten,x\n"),
    ("csv: a number beyond the type", CSV, b"id,name\n99999999999999999999,x\n"),
    ("gzip without saying so", CSV, gzip.compress(b"id,name\n10,x\n")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_broken_body_inserts_nothing(server: RunningServer, other: Bystander, kind: str, body: bytes) -> None:
    answer = other.watch(lambda: send(server, kind, body))
    assert refused(answer), answer.text[:500]
    assert server.rows("SELECT count(*) FROM app.items") == [[1]]


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_flipped_bytes_are_an_error_or_other_values(server: RunningServer, other: Bystander, kind: str) -> None:
    """Deterministic damage everywhere: schema, offsets, lengths, statistics, data."""
    whole = arrow(rows(20)) if kind == ARROW else parquet(rows(20))
    chance = random.Random(7)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        answer = send(server, kind, bytes(damaged))
        if answer.status_code == 200:
            server.sql("DELETE FROM app.items WHERE id <> 1")
        else:
            assert refused(answer), answer.text[:500]
            assert server.rows("SELECT count(*) FROM app.items") == [[1]]
    other.query()


def test_encodings_and_other_types_are_refused(server: RunningServer) -> None:
    body = b"id,name\n10,x\n"
    assert failure(send(server, CSV, gzip.compress(body), Content_Encoding="gzip"))[0] == 415
    for kind in ("application/json", "text/plain", "", "text/html", "application/octet-stream", "text/csv2"):
        assert failure(send(server, kind, body))[0] == 415
    assert server.rows("SELECT count(*) FROM app.items") == [[1]]


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_compressed_bomb_is_stopped(server: RunningServer, other: Bystander, codec: str) -> None:
    """A few hundred kilobytes that are gigabytes of text."""
    text = pa.array(["x" * 1_000_000] * 100)
    batch = pa.table({"id": range(10, 110), "name": text})
    table = pa.concat_tables([batch] * 40)
    body = arrow(table, compression=codec)
    answer = other.watch(lambda: send(server, ARROW, body))
    assert refused(answer), answer.text[:500]
    bomb = parquet(table, compression=codec, use_dictionary=True, row_group_size=4_000)
    answer = other.watch(lambda: send(server, PARQUET, bomb))
    assert refused(answer), answer.text[:500]
    other.query()
    assert server.rows("SELECT count(*) FROM app.items") == [[1]]


def test_a_line_of_a_hundred_megabytes(server: RunningServer, other: Bystander) -> None:
    body = b'{"id": 10, "name": "' + b"x" * 100_000_000 + b'"}\n'
    answer = other.watch(lambda: send(server, NDJSON, body))
    if answer.status_code == 200:
        assert server.rows("SELECT length(name) FROM app.items WHERE id = 10") == [[100_000_000]]
        server.sql("DELETE FROM app.items WHERE id = 10")
    else:
        assert refused(answer), answer.text[:500]
    assert server.rows("SELECT count(*) FROM app.items") == [[1]]
