"""system.topic_messages: what CONSUME would show, found by topic, partition and offset, and never too much of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sql.errors import PermissionDenied, ResultTooLarge
from sql.identity import Role
from sql.topics import browsing
from tests.sql.catalogue_world import ROLES, CatalogueWorld, catalogue_world

ALL = "SELECT topic_id, partition_id, offset, key, payload, timestamp_ms, user_id, op FROM system.topic_messages"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("messages")) as made:
        made.results(
            "CREATE TOPIC shop.changes PARTITIONS 3; CREATE TOPIC shop.notes; CREATE TOPIC shop.empty; "
            "ALTER TOPIC shop.changes ADD SOURCE shop.items ON INSERT, UPDATE, DELETE"
        )
        for number in range(30):
            made.results("INSERT INTO shop.items (id, name) VALUES ($1, $2)", number, f"item {number}")
        made.results("UPDATE shop.items SET name = 'new' WHERE id = 3; DELETE FROM shop.items WHERE id = 4")
        made.results("PUBLISH TO shop.notes KEY 'a' PAYLOAD 'one', PAYLOAD 'two'")
        yield made


def consumed(world: CatalogueWorld, topic: str, partition: int) -> list[tuple[object, ...]]:
    """Offset, key, payload and operation of all messages of a partition, as CONSUME gives them."""
    result = world.results(f"CONSUME FROM {topic} PARTITION {partition} FROM EARLIEST LIMIT 1000")[0]
    assert result.table is not None
    names = [column.name for column in result.columns]
    chosen = [names.index(name) for name in ("offset", "key", "payload", "op")]
    columns = [result.table.column(place).to_pylist() for place in chosen]
    return list(zip(*columns, strict=True))


def test_it_shows_what_consume_shows(world: CatalogueWorld) -> None:
    total = 0
    for topic, partitions in (("shop.changes", 3), ("shop.notes", 1), ("shop.empty", 1)):
        for partition in range(partitions):
            expected = consumed(world, topic, partition)
            shown = world.rows(
                "SELECT offset, key, payload, op FROM system.topic_messages WHERE topic_id = $1 AND partition_id = "
                f"{partition} ORDER BY offset",
                topic,
            )
            assert shown == expected
            total += len(expected)
    assert total == 34
    assert world.rows("SELECT count(*) FROM system.topic_messages") == [(34,)]


@pytest.mark.parametrize(
    "condition",
    [
        "topic_id = 'shop.changes'", "topic_id = 'shop.changes' AND partition_id = 1",
        "topic_id = 'shop.changes' AND partition_id = 1 AND offset = 2",
        "topic_id = 'shop.changes' AND partition_id = 1 AND offset > 2 AND offset <= 5",
        "topic_id = 'shop.changes' AND partition_id = 2 AND offset BETWEEN 1 AND 100",
        "topic_id = 'shop.changes' AND partition_id = 9", "topic_id = 'nothing'", "topic_id = NULL",
        "partition_id = 0 AND offset < 3", "offset = 0", "topic_id = 'shop.notes' OR offset = 1",
        "topic_id = 'shop.changes' AND partition_id = 0 AND offset > 3 AND key IS NOT NULL",
    ],
)  # fmt: skip
@pytest.mark.parametrize("columns", ["*", "topic_id, partition_id, offset, user_id, timestamp_ms, op"])
def test_finding_gives_what_reading_everything_gives(world: CatalogueWorld, condition: str, columns: str) -> None:
    found = world.rows(f"SELECT {columns} FROM system.topic_messages WHERE {condition} ORDER BY 1, 2, 3")
    hidden = condition
    for name in ("topic_id", "partition_id", "offset"):
        hidden = hidden.replace(name, f"m.{name}")
    everything = (
        f"WITH m AS MATERIALIZED ({ALL} ORDER BY 1, 2, 3) SELECT {columns} FROM m WHERE {hidden} ORDER BY 1, 2, 3"
    )
    assert found == world.rows(everything)


def test_too_many_are_an_error_that_says_how_to_ask_for_less(
    world: CatalogueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_MESSAGES", 20)
    for sql in (ALL, f"{ALL} LIMIT 1", "SELECT count(*) FROM system.topic_messages"):
        error = world.error(sql)
        assert type(error) is ResultTooLarge
        assert "at most 20 messages" in error.message
        assert "topic_id" in error.message
    few = "topic_id = 'shop.changes' AND partition_id = 0 AND offset < 5"
    assert world.rows(f"SELECT count(*) FROM system.topic_messages WHERE {few}") == [(5,)]


def test_so_are_too_many_bytes_unless_nobody_asks_for_them(
    world: CatalogueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_BYTES", 100)
    assert type(world.error(ALL)) is ResultTooLarge
    assert world.rows("SELECT max(offset) FROM system.topic_messages WHERE topic_id = 'shop.notes'") == [(1,)]


def test_inside_a_transaction_committed_messages_are_seen(world: CatalogueWorld) -> None:
    count = "SELECT count(*) FROM system.topic_messages WHERE topic_id = 'shop.notes'"
    results = world.results(f"BEGIN; PUBLISH TO shop.notes PAYLOAD 'three'; {count}; ROLLBACK")
    assert results[2].table is not None
    assert results[2].table.to_pylist() == [{"count(*)": 2}]


@pytest.mark.parametrize("role", [Role.USER, Role.SERVICE])
def test_it_is_for_admins(world: CatalogueWorld, role: Role) -> None:
    assert type(world.error(ALL, identity=ROLES[role])) is PermissionDenied
