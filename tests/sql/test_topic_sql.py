"""CONSUME, ACK, RESET CONSUMER GROUP and PUBLISH, and what changes of tables bring to topics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import (
    ExecutionError,
    InvalidInput,
    InvalidParameter,
    MessageTooLarge,
    OffsetNotRetained,
    PermissionDenied,
    SqlError,
    TopicNotFound,
    Unsupported,
)
from sql.topics.settings import TopicSettings
from storage.types import BIGINT, BYTES, INT, TEXT
from tests.sql.topic_world import ANN, BOB, DORA, ROOT, SAM, SUE, TopicWorld, rows_of, topic_world

SETTINGS = TopicSettings(max_message_bytes=100, max_key_bytes=10, max_batch_messages=500)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path, SETTINGS) as found:
        found.results(
            "CREATE TABLE app.orders (id BIGINT PRIMARY KEY, amount INT, note TEXT) WITH (ACCESS_LEVEL = 'PUBLIC');"
            "CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT);"
            "CREATE STREAM TABLE app.visits (page TEXT PRIMARY KEY, n INT) WITH (TTL_SECONDS = 3600);"
            "CREATE TOPIC app.t; CREATE TOPIC app.wide PARTITIONS 3"
        )
        yield found


def offsets(world: TopicWorld, sql: str, **how: object) -> list[int]:
    return [row[2] for row in world.rows(sql, **how)]  # type: ignore[arg-type]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_columns_of_messages(world: TopicWorld) -> None:
    published = world.run("PUBLISH TO app.t KEY 7 PAYLOAD '{}', PAYLOAD X'00ff'", who=SAM)
    assert rows_of(published) == [("app.t", 0, 0), ("app.t", 0, 1)]
    assert [(c.name, c.type) for c in published.columns] == [
        ("topic_id", TEXT), ("partition_id", INT), ("offset", BIGINT)
    ]  # fmt: skip
    result = world.run("CONSUME FROM t FROM EARLIEST", who=SAM)
    assert [(column.name, column.type) for column in result.columns] == [
        ("topic_id", TEXT), ("partition_id", INT), ("offset", BIGINT), ("key", TEXT), ("payload", BYTES),
        ("timestamp_ms", BIGINT), ("user", TEXT), ("op", TEXT), ("delivery_count", INT),
    ]  # fmt: skip
    one, two = rows_of(result)
    assert one[:5] == ("app.t", 0, 0, "7", b"{}")
    assert one[6:] == ("sam", "insert", None)
    assert two[3:5] == (None, b"\x00\xff")
    assert 1_700_000_000_000 < one[5] <= two[5] < 10_000_000_000_000
    (claimed,) = world.rows("CONSUME FROM app.t GROUP g FROM EARLIEST LIMIT 1", who=SAM)
    assert claimed[8] == 1
    assert result.row_count == 2


def test_a_read_without_a_group_claims_nothing(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b', PAYLOAD 'c'")
    assert offsets(world, "CONSUME FROM app.t") == [0, 1, 2]  # EARLIEST: nothing waits here
    assert offsets(world, "CONSUME FROM app.t FROM LATEST") == []
    for _ in range(2):
        assert offsets(world, "CONSUME FROM app.t FROM EARLIEST LIMIT 2") == [0, 1]
        assert offsets(world, "CONSUME FROM app.t FROM 1") == [1, 2]
        assert offsets(world, "CONSUME FROM app.t FROM OFFSET 3") == []
    assert world.rows("SELECT * FROM system.topic_offsets") == []


def test_a_group_goes_on_where_it_acknowledged(world: TopicWorld) -> None:
    assert offsets(world, "CONSUME FROM app.t GROUP 'g'", who=SAM) == []  # from now on
    world.run("PUBLISH TO app.t " + ", ".join(f"PAYLOAD '{n}'" for n in range(6)))
    assert offsets(world, "CONSUME FROM app.t GROUP 'g' LIMIT 2", who=SAM) == [0, 1]
    assert offsets(world, "CONSUME FROM app.t GROUP 'g' LIMIT 2", who=SUE) == [2, 3]
    ack = world.run("ACK app.t GROUP 'g' UPTO OFFSET 1", who=SAM)
    assert rows_of(ack) == [("app.t", "g", 0, 1)]
    assert [column.name for column in ack.columns] == ["topic", "group_id", "partition", "committed_offset"]
    assert world.rows("SELECT last_acked_offset, position, next_offset, lag, claims, pending "
                      "FROM system.topic_offsets") == [(1, 4, 6, 4, 1, 2)]  # fmt: skip
    assert world.rows("ACK app.t GROUP 'g' UPTO OFFSET 0", who=SAM) == [("app.t", "g", 0, 1)]  # never backwards
    assert world.rows("ACK app.t GROUP 'g' UPTO OFFSET 3", who=SUE) == [("app.t", "g", 0, 3)]
    assert offsets(world, "CONSUME FROM app.t GROUP 'g' FROM EARLIEST", who=SAM) == [4, 5]


def test_the_claims_of_others_are_not_acknowledged(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b'")
    assert offsets(world, "CONSUME FROM app.t GROUP g FROM EARLIEST LIMIT 1", who=SAM) == [0]
    assert offsets(world, "CONSUME FROM app.t GROUP g LIMIT 1", who=SUE) == [1]
    world.run("ACK app.t GROUP g UPTO OFFSET 1", who=SUE)
    assert world.rows("SELECT last_acked_offset, lag, pending FROM system.topic_offsets") == [(None, 2, 1)]
    world.run("ACK app.t GROUP g UPTO OFFSET 0", who=SAM)
    assert world.rows("SELECT last_acked_offset, lag, pending FROM system.topic_offsets") == [(1, 0, 0)]


def test_all_partitions_or_one(world: TopicWorld) -> None:
    published = world.rows("PUBLISH TO app.wide " + ", ".join(f"KEY {n} PAYLOAD '{n}'" for n in range(30)))
    everywhere = [row[1:3] for row in world.rows("CONSUME FROM app.wide GROUP g FROM EARLIEST")]
    assert sorted(everywhere) == sorted((partition, offset) for _, partition, offset in published)
    assert len({partition for partition, _ in everywhere}) == 3
    last = max(offset for partition, offset in everywhere if partition == 2)
    assert world.rows(f"ACK app.wide GROUP g PARTITION 2 UPTO OFFSET {last}") == [("app.wide", "g", 2, last)]
    one = world.rows("CONSUME FROM app.wide PARTITION 1 FROM EARLIEST")
    assert {row[1] for row in one} == {1}
    assert [row[2] for row in one] == list(range(len(one)))
    for n in range(30):
        (row,) = [row for row in world.rows("CONSUME FROM app.wide FROM EARLIEST") if row[3] == str(n)]
        assert (row[1], row[2]) == published[n][1:]


def test_parameters(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t KEY $1 PAYLOAD $2, PAYLOAD $3::JSON", 5, {"a": [1, None]}, '{"b": 2}')
    rows = world.rows("CONSUME FROM app.t GROUP $1 PARTITION $2 FROM $3 LIMIT $4", "g", 0, "earliest", 2)
    assert [(row[3], row[4]) for row in rows] == [("5", b'{"a":[1,null]}'), (None, b'{"b": 2}')]
    assert world.rows("ACK app.t GROUP $1 PARTITION $2 UPTO OFFSET $3", "g", 0, 1) == [("app.t", "g", 0, 1)]
    world.run("RESET CONSUMER GROUP $1 ON app.t TO $2", "g", 1)
    assert offsets(world, "CONSUME FROM app.t GROUP g") == [1]
    with pytest.raises(InvalidParameter):
        world.run("CONSUME FROM app.t LIMIT $1", 0)


def test_reset(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.wide " + ", ".join(f"KEY {n} PAYLOAD '{n}'" for n in range(30)))
    everything = sorted(row[1:3] for row in world.rows("CONSUME FROM app.wide GROUP g FROM EARLIEST", who=SAM))
    told = world.message("RESET CONSUMER GROUP 'g' ON app.wide TO EARLIEST", who=SAM)
    assert told == "Reset group 'g' of topic 'app.wide'"
    assert sorted(row[1:3] for row in world.rows("CONSUME FROM app.wide GROUP g", who=SUE)) == everything
    world.run("RESET CONSUMER GROUP g ON app.wide TO LATEST", who=SAM)
    assert world.rows("CONSUME FROM app.wide GROUP g FROM EARLIEST", who=SAM) == []
    assert world.rows("SELECT sum(lag) FROM system.topic_offsets") == [(0,)]
    world.run("RESET CONSUMER GROUP g ON app.wide PARTITION 1 TO OFFSET 2", who=SAM)
    found = world.rows("CONSUME FROM app.wide GROUP g", who=SAM)
    assert found
    assert [row[1:3] for row in found] == [place for place in everything if place[0] == 1][2:]
    fresh = "RESET CONSUMER GROUP fresh ON app.t TO EARLIEST"
    world.run(fresh)
    world.run("PUBLISH TO app.t PAYLOAD 'x'")
    assert offsets(world, "CONSUME FROM app.t GROUP fresh FROM LATEST") == [0]


def test_results_can_be_streamed(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b'")

    async def streamed() -> list[bytes]:
        stream = await world.database.stream("CONSUME FROM app.t FROM EARLIEST", None, None, SAM)
        return [value for batch in [b async for b in stream.batches] for value in batch.column(4).to_pylist()]

    assert world.runner.run(streamed()) == [b"a", b"b"]


# --- refusals ---------------------------------------------------------------------------------------------------------

MESSAGES = [
    "CONSUME FROM app.t", "CONSUME FROM app.t GROUP g", "ACK app.t GROUP g UPTO OFFSET 0",
    "RESET CONSUMER GROUP g ON app.t TO EARLIEST", "PUBLISH TO app.t PAYLOAD 'x'",
]  # fmt: skip


@pytest.mark.parametrize("sql", MESSAGES)
def test_who_may_read_and_write_messages(world: TopicWorld, sql: str) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'x'")
    with pytest.raises(PermissionDenied, match="by the roles service, dba and system"):
        world.run(sql, who=ANN)
    for who in (SAM, DORA, ROOT):
        world.run(sql, who=who)
    with pytest.raises(InvalidInput, match="EXECUTE AS USER takes"):
        world.run(f"EXECUTE AS USER 'ann' ({sql})")
    with pytest.raises(SqlError, match="EXPLAIN"):
        world.run(f"EXPLAIN {sql}")


REFUSED: list[tuple[str, type[SqlError], str]] = [
    ("CONSUME FROM app.tt", TopicNotFound, r"Topic 'app.tt' does not exist\. Did you mean"),
    ("CONSUME FROM app.tt GROUP g", TopicNotFound, "Topic 'app.tt' does not exist"),
    ("ACK app.zzz GROUP g UPTO OFFSET 0", TopicNotFound, "Topic 'app.zzz' does not exist"),
    ("RESET CONSUMER GROUP g ON app.zzz TO EARLIEST", TopicNotFound, "Topic 'app.zzz' does not exist"),
    ("PUBLISH TO app.zzz PAYLOAD 'x'", TopicNotFound, "Topic 'app.zzz' does not exist"),
    ("CONSUME FROM app.wide PARTITION 3", InvalidInput, "there is no 3"),
    ("CONSUME FROM app.wide GROUP g PARTITION 3", InvalidInput, "there is no 3"),
    ("ACK app.wide GROUP g PARTITION 3 UPTO OFFSET 0", InvalidInput, "there is no 3"),
    ("RESET CONSUMER GROUP g ON app.wide PARTITION 3 TO LATEST", InvalidInput, "there is no 3"),
    ("CONSUME FROM app.t FROM 1", OffsetNotRetained, "Offset 1 is not in partition 0"),
    ("CONSUME FROM app.t GROUP g FROM 1", OffsetNotRetained, "Offset 1 is not in partition 0"),
    ("RESET CONSUMER GROUP g ON app.t TO 1", OffsetNotRetained, "Offset 1 is not in partition 0"),
    ("ACK app.t GROUP g UPTO OFFSET 0", OffsetNotRetained, "has no message yet"),
    ("CONSUME FROM app.t LIMIT 501", InvalidInput, "at most 500 messages at a time, not 501"),
    (f"PUBLISH TO app.t PAYLOAD '{'x' * 101}'", MessageTooLarge, "payload of a message has 101 bytes; at most 100"),
    (f"PUBLISH TO app.t PAYLOAD 'x', KEY '{'é' * 6}' PAYLOAD 'y'", MessageTooLarge, "key of a message has 12 bytes"),
    ("PUBLISH TO app.t PAYLOAD NULL", InvalidInput, "may not be NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "kind", "message"), REFUSED, ids=[case[0][:50] for case in REFUSED])
def test_what_is_refused(world: TopicWorld, sql: str, kind: type[SqlError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        world.run(sql)
    assert (caught.value.statement, caught.value.applied) == (1, 0)
    assert world.rows("CONSUME FROM app.t FROM EARLIEST") == []
    assert world.rows("SELECT * FROM system.topic_offsets") == []


def test_the_place_of_a_message_that_is_too_large(world: TopicWorld) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        world.run("PUBLISH TO app.t PAYLOAD 'x',\n  PAYLOAD $1", "x" * 101)
    assert (caught.value.code, caught.value.status) == ("MESSAGE_TOO_LARGE", 413)
    assert (caught.value.line, caught.value.column) == (2, 11)
    assert world.rows("CONSUME FROM app.t FROM EARLIEST") == []


# --- BEGIN … COMMIT ---------------------------------------------------------------------------------------------------


def test_a_transaction_publishes_and_acknowledges_with_its_rows(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.wide ADD SOURCE app.orders ON INSERT")
    world.results("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b'; CONSUME FROM app.t GROUP g FROM EARLIEST")
    results = world.results(
        "BEGIN; INSERT INTO app.orders VALUES (1, 1, 'x'); ACK app.t GROUP g UPTO OFFSET 0;"
        "PUBLISH TO app.t PAYLOAD 'c', PAYLOAD 'd'; PUBLISH TO app.t PAYLOAD 'e'; COMMIT"
    )
    assert rows_of(results[2]) == [("app.t", "g", 0, 0)]
    assert rows_of(results[3]) == [("app.t", 0, 2), ("app.t", 0, 3)]
    assert rows_of(results[4]) == [("app.t", 0, 4)]
    assert [row[4] for row in world.rows("CONSUME FROM app.t FROM 2")] == [b"c", b"d", b"e"]
    assert world.consumed("app.wide")[0][3]["note"] == "x"
    assert world.rows("SELECT last_acked_offset FROM system.topic_offsets") == [(0,)]


def test_a_transaction_of_nothing_else_is_kept(world: TopicWorld) -> None:
    results = world.results("BEGIN; PUBLISH TO app.t PAYLOAD 'a'; COMMIT")
    assert rows_of(results[1]) == [("app.t", 0, 0)]
    world.results("BEGIN; ACK app.t GROUP g UPTO OFFSET 0; COMMIT")
    assert world.rows("SELECT group_id, last_acked_offset, lag FROM system.topic_offsets") == [("g", 0, 0)]


def test_a_rollback_publishes_nothing(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a'")
    world.run("ALTER TOPIC app.wide ADD SOURCE app.orders ON INSERT")
    results = world.results(
        "BEGIN; INSERT INTO app.orders VALUES (1, 1, 'x'); PUBLISH TO app.t PAYLOAD 'b';"
        "ACK app.t GROUP g UPTO OFFSET 0; ROLLBACK"
    )
    assert rows_of(results[2]) == [("app.t", None, None)]
    assert rows_of(results[3]) == [("app.t", "g", 0, None)]
    with pytest.raises(ExecutionError, match="multiple times"):
        world.results(
            "BEGIN; PUBLISH TO app.t PAYLOAD 'c'; INSERT INTO app.orders VALUES (2, 1, 'x'), (2, 1, 'x'); COMMIT"
        )
    with pytest.raises(ExecutionError, match="rolled back automatically"):
        world.results("BEGIN; PUBLISH TO app.t PAYLOAD 'd'")
    assert [row[4] for row in world.rows("CONSUME FROM app.t FROM EARLIEST")] == [b"a"]
    assert world.consumed("app.wide") == []
    assert world.rows("SELECT * FROM app.orders") == []
    assert world.rows("SELECT * FROM system.topic_offsets") == []


def test_an_error_at_commit_fails_the_whole_transaction(world: TopicWorld) -> None:
    with pytest.raises(OffsetNotRetained, match="has no message yet") as caught:
        world.results(
            "BEGIN; INSERT INTO app.orders VALUES (1, 1, 'x'); PUBLISH TO app.t PAYLOAD 'b';"
            "ACK app.t GROUP g UPTO OFFSET 5; COMMIT"
        )
    assert (caught.value.statement, caught.value.applied) == (4, 0)
    assert world.rows("SELECT * FROM app.orders") == []
    assert world.rows("CONSUME FROM app.t FROM EARLIEST") == []
    # a message of the same transaction may be acknowledged: it is there when COMMIT comes
    world.results("BEGIN; PUBLISH TO app.t PAYLOAD 'b'; ACK app.t GROUP g UPTO OFFSET 0; COMMIT")
    assert world.rows("SELECT last_acked_offset FROM system.topic_offsets") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "kind", "message"),
    [
        ("CONSUME FROM app.t GROUP g", Unsupported, "cannot run inside BEGIN … COMMIT"),
        ("RESET CONSUMER GROUP g ON app.t TO LATEST", Unsupported, "cannot run inside BEGIN … COMMIT"),
        ("ACK app.zzz GROUP g UPTO OFFSET 0", TopicNotFound, "does not exist"),
        ("ACK app.t GROUP g PARTITION 1 UPTO OFFSET 0", InvalidInput, "there is no 1"),
        ("PUBLISH TO app.zzz PAYLOAD 'x'", TopicNotFound, "does not exist"),
        (f"PUBLISH TO app.t PAYLOAD '{'x' * 101}'", MessageTooLarge, "101 bytes"),
    ],
)
def test_what_a_transaction_refuses_at_once(world: TopicWorld, sql: str, kind: type[SqlError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        world.results(f"BEGIN; INSERT INTO app.orders VALUES (1, 1, 'x'); {sql}; COMMIT")
    assert (caught.value.statement, caught.value.applied) == (3, 0)
    assert world.rows("SELECT * FROM app.orders") == []


# --- what tables bring ------------------------------------------------------------------------------------------------


def test_payloads_of_a_shared_table(world: TopicWorld) -> None:
    for mode in ("full", "key", "diff"):
        world.results(
            f"CREATE TOPIC app.{mode}; ALTER TOPIC app.{mode} ADD SOURCE app.orders ON INSERT, UPDATE, DELETE"
            f" WITH (payload = '{mode}')"
        )
    world.run("INSERT INTO app.orders VALUES (1, 5, 'x')")
    world.run("UPDATE app.orders SET amount = 6 WHERE id = 1")
    world.run("DELETE FROM app.orders WHERE id = 1")
    for mode in ("full", "key", "diff"):
        found = world.consumed(f"app.{mode}", who=SAM)
        assert [row[:3] for row in found] == [("insert", "1", None), ("update", "1", None), ("delete", "1", None)]
    marks = {"_seq", "_commit_seq", "_deleted", "_table"}
    one, two, three = (row[3] for row in world.consumed("app.full"))
    for payload, amount, is_deleted in ((one, 5, False), (two, 6, False), (three, 6, True)):
        assert {name: value for name, value in payload.items() if name not in marks} == {
            "id": 1, "amount": amount, "note": "x"
        }  # fmt: skip
        assert (payload["_deleted"], payload["_table"]) == (is_deleted, "app.orders")
    assert one["_seq"] < two["_seq"] < three["_seq"]
    assert [row[3] for row in world.consumed("app.key")] == [{"id": 1}] * 3
    whole = {"id": 1, "amount": 5, "note": "x"}
    assert [(p["key"], p["old"], p["new"], p["_table"]) for *_, p in world.consumed("app.diff")] == [
        ({"id": 1}, {}, whole, "app.orders"),
        ({"id": 1}, {"amount": 5}, {"amount": 6}, "app.orders"),
        ({"id": 1}, whole | {"amount": 6}, {}, "app.orders"),
    ]


def test_payloads_of_a_user_table_name_the_user(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE app.notes ON INSERT, UPDATE, DELETE WITH (payload = 'diff')")
    world.run("INSERT INTO app.notes VALUES (1, 'a')", who=ANN)
    world.run("INSERT INTO app.notes VALUES (1, 'b')", who=BOB)
    world.run("UPDATE app.notes SET body = 'c' WHERE id = 1", who=ANN)
    world.run("EXECUTE AS USER 'bob' (DELETE FROM app.notes WHERE id = 1)")
    found = world.consumed("app.t", who=SAM)
    assert [(op, key, user, payload["old"], payload["new"]) for op, key, user, payload in found] == [
        ("insert", "1", "ann", {}, {"id": 1, "body": "a"}),
        ("insert", "1", "bob", {}, {"id": 1, "body": "b"}),
        ("update", "1", "ann", {"body": "a"}, {"body": "c"}),
        ("delete", "1", "bob", {"id": 1, "body": "b"}, {}),
    ]


def test_payloads_of_a_stream_table(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE SELECT page, n FROM app.visits WHERE n > 1 ON INSERT")
    world.run("INSERT INTO app.visits VALUES ('/a', 1), ('/b', 2), ('/b', 3)", who=ANN)
    world.run("DELETE FROM app.visits WHERE n > 0", who=ANN)
    found = world.consumed("app.t")
    assert [row[:3] for row in found] == [("insert", "/b", "ann"), ("insert", "/b", "ann")]
    assert [row[3]["n"] for row in found] == [2, 3]


def test_a_projection_shows_its_columns(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE SELECT note FROM app.orders ON INSERT")
    world.run("ALTER TOPIC app.t ADD SOURCE SELECT amount FROM app.orders ON UPDATE WITH (payload = 'diff')")
    world.run("INSERT INTO app.orders VALUES (1, 5, 'x')")
    world.run("UPDATE app.orders SET note = 'y', amount = 6 WHERE id = 1")
    (_, _, _, inserted), (_, _, _, updated) = world.consumed("app.t")
    assert [name for name in inserted if not name.startswith("_")] == ["note"]
    assert (updated["key"], updated["old"], updated["new"]) == ({"id": 1}, {"amount": 5}, {"amount": 6})


CONDITIONS = [
    ("amount > 10", lambda amount, note: amount > 10),
    ("note IN ('a', 'b') OR amount = 1", lambda amount, note: note in {"a", "b"} or amount == 1),
    ("regexp_matches(note, '^a+$')", lambda amount, note: set(note) == {"a"}),  # only DuckDB has it
    ("orders.note LIKE 'a%' AND amount % 2 = 0", lambda amount, note: note.startswith("a") and amount % 2 == 0),
]


@pytest.mark.parametrize(("condition", "wanted"), CONDITIONS, ids=[text for text, _ in CONDITIONS])
def test_conditions_choose_messages(world: TopicWorld, condition: str, wanted) -> None:
    world.run(f"ALTER TOPIC app.t ADD SOURCE app.orders ON INSERT, DELETE WHERE {condition}")
    rows = [(n, n * 7 % 20, "a" * (n % 4 + 1) + ("b" if n % 3 == 0 else "")) for n in range(1, 20)]
    rows += [(90, 1, "z"), (91, 50, "b")]
    values = ", ".join(f"({n}, {amount}, '{note}')" for n, amount, note in rows)
    world.run(f"INSERT INTO app.orders VALUES {values}")
    world.run("DELETE FROM app.orders WHERE true")
    expected = [str(n) for n, amount, note in rows if wanted(amount, note)]
    assert expected
    assert len(expected) < len(rows)
    found = world.consumed("app.t")
    assert [key for op, key, *_ in found if op == "insert"] == expected
    assert [key for op, key, *_ in found if op == "delete"] == expected


def test_the_condition_of_an_update_is_asked_of_the_new_row(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE app.orders ON UPDATE WHERE amount > 10 WITH (payload = 'diff')")
    world.run("INSERT INTO app.orders VALUES (1, 1, 'x'), (2, 20, 'y')")
    world.run("UPDATE app.orders SET amount = 21 - amount WHERE true")
    assert [(key, payload["new"]) for _, key, _, payload in world.consumed("app.t")] == [("1", {"amount": 20})]


def test_a_condition_that_fails_fails_its_own_write_only(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE app.orders ON INSERT WHERE CAST(note AS INT) > 1")

    async def together() -> list[object]:
        return await asyncio.gather(
            *(
                world.database.execute(f"INSERT INTO app.orders VALUES ({n}, 1, '{note}')", None, None, ROOT)
                for n, note in enumerate(["1", "2", "x", "3", "y", "4"])
            ),
            return_exceptions=True,
        )

    for outcome, is_fine in zip(world.runner.run(together()), [1, 1, 0, 1, 0, 1], strict=True):
        if is_fine:
            assert not isinstance(outcome, BaseException)
        else:
            assert isinstance(outcome, ExecutionError)
            assert "Nothing was written: the condition of a topic's source cannot be evaluated" in outcome.message
    assert [row[0] for row in world.rows("SELECT id FROM app.orders")] == [0, 1, 3, 5]
    assert sorted(row[1] or "" for row in world.consumed("app.t")) == ["1", "3", "5"]


def test_who_writes_needs_no_right_to_the_topic(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE app.notes ON INSERT")
    world.run("INSERT INTO app.notes VALUES (1, 'a')", who=ANN)
    assert len(world.consumed("app.t")) == 1


# --- system.topic_offsets, figures ------------------------------------------------------------------------------------


def test_where_groups_stand(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b', PAYLOAD 'c'")
    world.rows("CONSUME FROM app.t GROUP late")
    world.rows("CONSUME FROM app.t GROUP early FROM EARLIEST LIMIT 2")
    world.rows("CONSUME FROM app.wide GROUP early")
    result = world.run("SELECT * FROM system.topic_offsets WHERE topic_id = 'app.t'", who=DORA)
    assert [column.name for column in result.columns] == [
        "topic_id", "group_id", "partition_id", "last_acked_offset", "updated_at", "position", "next_offset", "lag",
        "claims", "pending",
    ]  # fmt: skip
    assert [row[:4] + row[5:] for row in rows_of(result)] == [
        ("app.t", "early", 0, None, 2, 3, 3, 1, 2), ("app.t", "late", 0, None, 3, 3, 0, 0, 0),
    ]  # fmt: skip
    wide = world.rows("SELECT partition_id, lag FROM system.topic_offsets WHERE topic_id = 'app.wide'")
    assert wide == [(0, 0), (1, 0), (2, 0)]
    world.run("CLEAR TOPIC app.t")
    assert world.rows("SELECT sum(lag) FROM system.topic_offsets") == [(0,)]
    inside = world.results("BEGIN; SELECT group_id FROM system.topic_offsets WHERE topic_id = 'app.t'; COMMIT")
    assert rows_of(inside[1]) == [("early",), ("late",)]
    world.run("DROP TOPIC app.t")
    assert {row[0] for row in world.rows("SELECT topic_id FROM system.topic_offsets")} == {"app.wide"}
    with pytest.raises(PermissionDenied):
        world.run("SELECT * FROM system.topic_offsets", who=SAM)


def test_figures(world: TopicWorld) -> None:
    world.run("PUBLISH TO app.t PAYLOAD 'a', PAYLOAD 'b', PAYLOAD 'c'")
    world.run("PUBLISH TO app.wide KEY 1 PAYLOAD 'd'")
    world.rows("CONSUME FROM app.t GROUP g FROM EARLIEST LIMIT 2")
    world.rows("CONSUME FROM app.wide GROUP h FROM EARLIEST LIMIT 1")
    figures = dict(world.rows("SELECT * FROM system.stats WHERE metric_name LIKE '%topic%'"))
    assert figures == {
        "total_topics": "2", "topic_messages": "4", "topic_groups": "2", "topic_group_lag_messages": "4",
        "topic_pending_messages": "3", "topic_consumers_waiting": "0",
    }  # fmt: skip
    assert world.database.topics.lags() == [("app.t", "g", 3), ("app.wide", "h", 1)]
    world.results("ACK app.t GROUP g UPTO OFFSET 1; CLEAR TOPIC app.wide")
    world.rows("SELECT * FROM system.stats")
    assert world.database.topics.lags() == [("app.t", "g", 1), ("app.wide", "h", 0)]


def test_payloads_are_json(world: TopicWorld) -> None:
    world.run("ALTER TOPIC app.t ADD SOURCE app.orders ON INSERT")
    world.run("""INSERT INTO app.orders VALUES (9007199254740993, 1, '"é\n')""")
    (row,) = world.rows("CONSUME FROM app.t FROM EARLIEST")
    assert row[3] == "9007199254740993"
    assert json.loads(row[4])["id"] in {"9007199254740993", 9007199254740993}
    assert json.loads(row[4])["note"] == '"é\n'


def test_every_figure_is_documented(world: TopicWorld) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in world.database.topics.stats():
        assert f"`{name}`" in text, name
