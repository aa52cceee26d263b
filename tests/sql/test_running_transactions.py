"""system.transactions: what runs, with its figures, and nothing that is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from sql.system_rows import ServerFacts
from storage.writer import WriteTransaction
from tests.sql.catalogue_world import ADMIN, CatalogueWorld, catalogue_world

SHOWN = "SELECT state, write_count, write_bytes > 0, touched_tables_count, owner_id, user_id FROM system.transactions"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("running"), ServerFacts(request_id=lambda: "request-7")) as made:
        yield made


def test_a_transaction_sees_itself(world: CatalogueWorld) -> None:
    results = world.results(
        f"BEGIN; {SHOWN}; INSERT INTO shop.items (id, name) VALUES (1, 'a'), (2, 'b'); {SHOWN}; "
        f"INSERT INTO shop.costs SELECT '00000000-0000-0000-0000-000000000001', 1, NULL; {SHOWN}; "
        "SELECT snapshot_commit_seq, age_ms >= idle_ms, transaction_id FROM system.transactions; ROLLBACK"
    )
    rows = [result.table.to_pylist() for result in results if result.table is not None]
    shown = [list(row.values()) for (row,) in rows]
    me = ["request-7", "a_dba"]
    assert shown[:3] == [
        ["open_read", 0, False, 0, *me], ["open_write", 2, True, 1, *me], ["open_write", 3, True, 2, *me],
    ]  # fmt: skip
    seq, sound, number = shown[3]
    assert (seq, sound) == (world.engine.last_seq, True)
    assert f"({number})" in str(results[0].message)
    assert world.rows(SHOWN) == []


@pytest.mark.parametrize(
    "batch",
    [
        "BEGIN; SELECT 1; COMMIT", "BEGIN; INSERT INTO shop.items (id, name) VALUES (5, 'e'); ROLLBACK",
        "BEGIN; SELECT nothing FROM shop.items; COMMIT", "BEGIN; SELECT 1", "BEGIN; BEGIN",
        "BEGIN; INSERT INTO shop.wages VALUES (1, 1), (1, 1); COMMIT",
    ],
)  # fmt: skip
def test_what_is_over_is_gone(world: CatalogueWorld, batch: str) -> None:
    world.error(batch)
    assert world.rows(SHOWN) == []
    assert world.database.figures()["active_transactions"] == 0


def test_others_see_one_that_waits_for_the_writer(world: CatalogueWorld) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def hold(writer: WriteTransaction) -> None:
        arrived.set()
        go_on.wait(20)

    async def run() -> list[tuple[object, ...]]:
        held = world.engine.submit(hold)
        arrived.wait(20)
        batch = "BEGIN; INSERT INTO shop.items (id, name) VALUES (9, 'i'); COMMIT"
        writing = asyncio.create_task(world.database.execute(batch, (), None, ADMIN))
        try:
            while True:
                [result] = await world.database.execute(SHOWN, (), None, ADMIN)
                assert result.table is not None
                rows = [tuple(row.values()) for row in result.table.to_pylist()]
                if rows and rows[0][0] == "committing":
                    return rows
        finally:
            go_on.set()
            held.result()
            await writing

    assert world.loop.run_until_complete(run()) == [("committing", 1, True, 1, "request-7", "a_dba")]
    assert world.rows(SHOWN) == []
