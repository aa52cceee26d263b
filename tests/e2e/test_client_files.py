"""Files of the Python client against a real server: there and back, replaced, refused, and other people's."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import headrace
from headrace import AsyncClient, Client, FileRef
from tests.e2e.running import RunningServer

DATA = bytes(range(256)) * 20_000
INSERT = 'INSERT INTO {} VALUES ($1, FILE("document"))'
_numbers = count()


@pytest.fixture(scope="module")
def db(server: RunningServer) -> Iterator[Client]:
    with headrace.connect(server.url, user=server.user, password=server.password, namespace="app") as client:
        client.execute("CREATE NAMESPACE app")
        yield client


@pytest.fixture
def table(db: Client) -> str:
    """A new table for each test."""
    name = f"app.docs{next(_numbers)}"
    db.execute(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, document FILE)")
    return name


def ref_of(db: Client, table: str, number: int = 1) -> FileRef:
    return FileRef.parse(db.query(f"SELECT document FROM {table} WHERE id = $1", [number]).scalar())


def test_there_and_back(db: Client, table: str, tmp_path: Path) -> None:
    path = tmp_path / "Größe.bin"
    path.write_bytes(DATA)
    result = db.query(INSERT.format(table), [1], files={"document": path})
    assert result.row_count == 1
    ref = ref_of(db, table)
    assert (ref.name, ref.size, ref.sha256) == ("Größe.bin", len(DATA), hashlib.sha256(DATA).hexdigest())
    assert db.download(ref, table=table) == DATA
    db.download(ref, table=table, to=tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    memory = io.BytesIO()
    db.download(ref, table=table, to=memory)
    assert memory.getvalue() == DATA
    for part in ((0, 10), (1000, None), (len(DATA) - 5, len(DATA))):
        assert db.download(ref, table=table, byte_range=part) == DATA[part[0] : part[1]]


@pytest.mark.parametrize("data", [b"", b"x"])
def test_small_ones(db: Client, table: str, data: bytes) -> None:
    db.execute(INSERT.format(table.removeprefix("app.")), [1], files={"document": ("a.txt", data, "text/plain")})
    ref = ref_of(db, table)
    assert (ref.name, ref.size, ref.mime) == ("a.txt", len(data), "text/plain")
    assert db.download(ref, table=table) == data


def test_a_type_that_nobody_names_is_looked_for_by_the_server(db: Client, table: str) -> None:
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    db.query(INSERT.format(table), [1], files={"document": png})
    assert ref_of(db, table).mime == "image/png"


def test_what_is_gone_and_what_is_refused(db: Client, table: str) -> None:
    db.query(INSERT.format(table), [1], files={"document": b"x"})
    ref = ref_of(db, table)
    db.query(f'UPDATE {table} SET document = FILE("new") WHERE id = 1', files={"new": b"y"})
    with pytest.raises(headrace.FileNotFound):
        db.download(ref, table=table)
    assert db.download(ref_of(db, table), table=table) == b"y"
    with pytest.raises(headrace.FileNotFound):
        db.download(ref, table="app.nothing")
    with pytest.raises(headrace.FileRefused) as caught:
        db.query(INSERT.format(table), [2], files={"other": b"x"})
    assert caught.value.code == "MISSING_FILE"


def test_files_of_other_users(db: Client, server: RunningServer) -> None:
    db.execute("CREATE USER TABLE app.mine (id BIGINT PRIMARY KEY, document FILE)")
    for name in ("ann", "bob"):
        db.execute(f"CREATE USER '{name}' WITH PASSWORD 'UserPass123!' ROLE 'user'")
    with (
        headrace.connect(server.url, user="ann", password="UserPass123!") as ann,
        headrace.connect(server.url, user="bob", password="UserPass123!") as bob,
    ):
        ann.query(INSERT.format("app.mine"), [1], files={"document": b"ann's"})
        ref = ref_of(ann, "app.mine")
        assert ann.download(ref, table="app.mine") == b"ann's"
        with pytest.raises(headrace.FileNotFound):
            bob.download(ref, table="app.mine")
        with pytest.raises(headrace.PermissionDenied):
            bob.download(ref, table="app.mine", user="ann")
        assert db.download(ref, table="app.mine", user="ann") == b"ann's"


def test_uploads_and_downloads_side_by_side(server: RunningServer, db: Client, table: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), AsyncClient(server.url, token=server.token) as client:

            async def one(number: int) -> None:
                data = DATA[: number * 1000]
                await client.query(INSERT.format(table), [number], files={"document": data})
                row = (await client.query(f"SELECT document FROM {table} WHERE id = $1", [number])).scalar()
                assert await client.download(row, table=table) == data

            await asyncio.gather(*(one(number) for number in range(1, 21)))

    asyncio.run(main())
    assert db.query(f"SELECT count(*) FROM {table}").scalar() == 20
