"""Tables as sources: which changes are published, in which order, atomically, by which filter; what outlives what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import error
from tests.e2e.live_conformance import member
from tests.e2e.topic_conformance import Message, Topics, partition_of, short, topic_server


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("sources")) as found:
        yield found


@pytest.fixture
def fed(topics: Topics) -> tuple[str, str]:
    """A topic of one partition and a table with columns id and v whose every change it gets."""
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, v TEXT, n INT")
    topics.source(topic, table)
    return topic, table


def told(messages: list[Message]) -> list[tuple[str, Any, Any]]:
    """Operation, id and v of each message."""
    return [(message.op, message.json["id"], message.json["v"]) for message in messages]


# --- operations -------------------------------------------------------------------------------------------------------


def test_every_operation(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    for sql in (
        f"INSERT INTO {table} (id, v) VALUES (1, 'a')",
        f"UPDATE {table} SET v = 'b' WHERE id = 1",
        f"INSERT INTO {table} (id, v) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'c'",
        f"INSERT INTO {table} (id, v) VALUES (1, 'x') ON CONFLICT (id) DO NOTHING",
        f"INSERT INTO {table} (id, v) VALUES (2, 'd') ON CONFLICT (id) DO UPDATE SET v = 'never'",
        f"DELETE FROM {table} WHERE id = 1",
        f"DELETE FROM {table} WHERE id = 77",
        f"UPDATE {table} SET v = 'never' WHERE id = 77",
    ):
        topics.server.sql(sql)
    assert told(topics.read(topic)) == [
        ("Insert", 1, "a"), ("Update", 1, "b"), ("Update", 1, "c"), ("Insert", 2, "d"), ("Delete", 1, "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["INSERT", "UPDATE", "DELETE"])
def test_a_source_is_of_one_operation(topics: Topics, operation: str) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table, operation)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a'); UPDATE {table} SET v = 'b' WHERE true")
    topics.server.sql(f"DELETE FROM {table} WHERE true")
    assert [message.op for message in topics.read(topic)] == [operation.capitalize()]


def test_a_statement_of_many_rows(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES " + ", ".join(f"({n}, 'a')" for n in range(300)))
    topics.server.sql(f"UPDATE {table} SET v = 'b' WHERE id < 200")
    topics.server.sql(f"DELETE FROM {table} WHERE id >= 100")
    messages = topics.read(topic)
    assert len(messages) == 300 + 200 + 200
    assert sorted(told(messages[:300])) == sorted(("Insert", n, "a") for n in range(300))
    assert sorted(told(messages[300:500])) == sorted(("Update", n, "b") for n in range(200))
    assert sorted(told(messages[500:])) == sorted(("Delete", n, "b" if n < 200 else "a") for n in range(100, 300))
    for part in (messages[:300], messages[300:500], messages[500:]):
        assert len({str(message.json["_commit_seq"]) for message in part}) == 1
        assert len({str(message.json["_seq"]) for message in part}) == len(part)


def test_keys_decide_the_partition(topics: Topics) -> None:
    topic, table = topics.topic(partitions=5), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES " + ", ".join(f"({n}, 'a')" for n in range(-50, 50)))
    topics.server.sql(f"UPDATE {table} SET v = 'b' WHERE true")
    messages = topics.read(topic)
    assert len(messages) == 200
    for message in messages:
        assert message.key == str(message.json["id"])
        assert message.partition == partition_of(message.key, 5)
    for partition in range(5):
        ops = [message.op for message in messages if message.partition == partition]
        assert ops == sorted(ops)  # Insert before Update


@pytest.mark.parametrize(
    ("columns", "values", "key"),
    [
        ("id BIGINT PRIMARY KEY", "9223372036854775807", "9223372036854775807"),
        ("id TEXT PRIMARY KEY", "'ä 漢 \"q\" 🦆'", 'ä 漢 "q" 🦆'),
        ("id TEXT PRIMARY KEY", "''", ""),
        ("id UUID PRIMARY KEY", "'123E4567-e89b-12d3-a456-426614174000'", "123e4567-e89b-12d3-a456-426614174000"),
        ("a INT, b TEXT, PRIMARY KEY (a, b)", "1, 'x y'", [1, "x y"]),
        ("b TEXT, a INT, PRIMARY KEY (a, b)", "'x', 7", [7, "x"]),
        ("a BIGINT, b BIGINT, c TEXT, PRIMARY KEY (a, b, c)", "1, -2, ''", [1, -2, ""]),
    ],
    ids=short,
)
def test_keys_as_text(topics: Topics, columns: str, values: str, key: Any) -> None:
    topic, table = topics.topic(partitions=7), topics.table(columns)
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES ({values}); DELETE FROM {table} WHERE true")
    first, second = topics.read(topic)
    assert first.key is not None
    assert (json.loads(first.key) if isinstance(key, list) else first.key) == key
    assert first.key == second.key
    assert first.partition == second.partition == partition_of(first.key, 7)


def test_a_table_without_a_key(topics: Topics) -> None:
    topic, table = topics.topic(partitions=4), topics.table("a INT, b TEXT")
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} SELECT range, 'x' FROM range(200)")
    topics.server.sql(f"UPDATE {table} SET b = 'y' WHERE a < 100; DELETE FROM {table} WHERE a = 5")
    messages = topics.read(topic)
    assert len(messages) == 301
    assert {message.key for message in messages} == {None}
    assert {message.partition for message in messages} == {0, 1, 2, 3}
    places: dict[int, set[int]] = {}
    for message in messages:
        places.setdefault(message.json["a"], set()).add(message.partition)
    assert all(len(partitions) == 1 for partitions in places.values())  # versions of a row stay together


# --- filters ----------------------------------------------------------------------------------------------------------


def test_the_filter_is_on_the_new_row_and_for_deletes_on_the_old(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, v TEXT, n INT")
    topics.source(topic, table, where="n > 10 AND v IS NOT NULL")
    for sql in (
        "INSERT INTO {} VALUES (1, 'in', 11), (2, 'out', 10), (3, NULL, 99), (4, 'null', NULL)",
        "UPDATE {} SET n = 12 WHERE id = 2",  # enters: an update
        "UPDATE {} SET n = 1 WHERE id = 1",  # leaves: nothing
        "UPDATE {} SET v = 'still out' WHERE id = 1",
        "UPDATE {} SET v = 'still in' WHERE id = 2",
        "DELETE FROM {} WHERE id = 1",  # was out
        "DELETE FROM {} WHERE id = 2",  # was in
        "UPDATE {} SET v = 'x' WHERE id = 3",
        "DELETE FROM {} WHERE true",
    ):
        topics.server.sql(sql.format(table))
    assert told(topics.read(topic)) == [
        ("Insert", 1, "in"), ("Update", 2, "out"), ("Update", 2, "still in"), ("Delete", 2, "still in"),
        ("Update", 3, "x"), ("Delete", 3, "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("id = 3", [3]), ("id IN (1, 5)", [1, 5]), ("v LIKE 'b%'", [2, 4]), ("v IS NULL", [5]), ("NOT ok", [2, 4]),
        ("n BETWEEN 20 AND 40", [2, 3, 4]), ("upper(v) = 'BB'", [2]), ("id % 2 = 0 OR n = 10", [1, 2, 4]),
        ("d > 0.15", [2, 3, 4]), ("CASE WHEN ok THEN n ELSE 0 END = 30", [3]), ("false", []), ("true", [1, 2, 3, 4, 5]),
        ("v = 'it''s'", [3]),
    ],
)  # fmt: skip
def test_filters_of_all_kinds(topics: Topics, condition: str, ids: list[int]) -> None:
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, v TEXT, n INT, ok BOOLEAN, d DOUBLE")
    topics.source(topic, table, "INSERT", where=condition)
    rows = "(1,'a',10,true,0.1), (2,'bb',20,false,0.2), (3,'it''s',30,true,0.3), (4,'bbb',40,false,0.4)"
    topics.server.sql(f"INSERT INTO {table} VALUES {rows}, (5,NULL,NULL,NULL,NULL)")
    assert [message.json["id"] for message in topics.read(topic)] == ids


@pytest.mark.parametrize(
    "condition", ["nosuch = 1", "id", "id = 'x' +", "nofunction(id) = 1", "id = $1", "id = (SELECT 1)", "count(*) > 1"]
)
def test_filters_that_cannot_be(topics: Topics, condition: str) -> None:
    topic, table = topics.topic(), topics.table()
    found = error(topics.server.post(f"ALTER TOPIC {topic} ADD SOURCE {table} ON INSERT WHERE {condition}"))
    assert found.status == 400
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'x')")
    assert topics.read(topic) == []


def test_a_row_that_a_filter_cannot_be_evaluated_for_fails_or_is_left_out(topics: Topics) -> None:
    """Division by zero: whatever the rule is, the row and the message agree."""
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, n INT")
    topics.source(topic, table, "INSERT", where="10 / n > 1")
    answer = topics.server.post(f"INSERT INTO {table} VALUES (1, 0)")
    topics.server.sql(f"INSERT INTO {table} VALUES (2, 5)")
    rows = [row[0] for row in topics.server.rows(f"SELECT id FROM {table} ORDER BY id")]
    assert rows == ([1, 2] if answer.status_code == 200 else [2])
    assert [message.json["id"] for message in topics.read(topic)] == [2]


# --- atomicity --------------------------------------------------------------------------------------------------------


def test_a_transaction_is_published_once_and_together(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(
        f"BEGIN; INSERT INTO {table} (id, v) VALUES (1, 'a'), (2, 'b'); UPDATE {table} SET v = 'c' WHERE id = 3;"
        f"INSERT INTO {table} (id, v) VALUES (3, 'd'); COMMIT; DELETE FROM {table} WHERE id = 1"
    )
    messages = topics.read(topic)
    assert told(messages) == [("Insert", 1, "a"), ("Insert", 2, "b"), ("Insert", 3, "d"), ("Delete", 1, "a")]
    commits = [str(message.json["_commit_seq"]) for message in messages]
    assert commits[0] == commits[1] == commits[2] != commits[3]


def test_a_row_changed_twice_in_one_transaction_ends_as_it_is(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (1, 'a')")
    topics.server.sql(
        f"BEGIN; UPDATE {table} SET v = 'b' WHERE id = 1; UPDATE {table} SET v = 'c' WHERE id = 1;"
        f"INSERT INTO {table} (id, v) VALUES (2, 'gone'); DELETE FROM {table} WHERE id = 2; COMMIT"
    )
    of_one = [each for each in told(topics.read(topic)) if each[1] == 1]
    assert of_one[0] == ("Insert", 1, "a")
    assert of_one[-1] == ("Update", 1, "c")
    of_two = [each[0] for each in told(topics.read(topic)) if each[1] == 2]
    assert of_two in ([], ["Insert", "Delete"])


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN; INSERT INTO {} (id, v) VALUES (1, 'a'); ROLLBACK",
        "BEGIN; INSERT INTO {} (id, v) VALUES (1, 'a'); INSERT INTO {} (id, v) VALUES (9, 'duplicate'); COMMIT",
        "BEGIN; INSERT INTO {} (id, v) VALUES (1, 'a')",
        "INSERT INTO {} (id, v) VALUES (1, 'a'), (9, 'duplicate')",
        "INSERT INTO {} (id, v) VALUES (1, 'a'), (1, 'b')",
        "INSERT INTO {} (id, v) VALUES (1, 'a'), (NULL, 'b')",
        "UPDATE {} SET n = 2147483647 + id WHERE true",
        "UPDATE {} SET id = 9 WHERE id = 8",
        "DELETE FROM {} WHERE nosuch = 1",
    ],
)
def test_what_does_not_happen_is_not_published(topics: Topics, fed: tuple[str, str], sql: str) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (8, 'before'), (9, 'before')")
    answer = topics.server.post(sql.replace("{}", table))
    assert answer.status_code == 400 or "ROLLBACK" in sql, answer.text
    assert topics.server.rows(f"SELECT id, v FROM {table} ORDER BY id") == [[8, "before"], [9, "before"]]
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (10, 'after')")
    assert [(message.offset, message.json["id"]) for message in topics.read(topic)] == [(0, 8), (1, 9), (2, 10)]


def test_publish_and_ack_in_a_transaction_are_atomic_with_the_rows(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    other = topics.topic()
    topics.fill(other, 3)
    for end, rows, acked, produced in (("ROLLBACK", [], {}, 3), ("COMMIT", [[1]], {0: 1}, 4)):
        topics.server.sql(
            f"BEGIN; INSERT INTO {table} (id, v) VALUES (1, 'a'); PUBLISH TO {other} KEY 'k' PAYLOAD 'p';"
            f"ACK {other} GROUP 'g' UPTO OFFSET 1; {end}"
        )
        assert topics.server.rows(f"SELECT id FROM {table}") == rows
        assert len(topics.read(topic)) == len(rows)
        assert topics.committed(other, "g") == acked
        assert len(topics.read(other)) == produced


# --- kinds of tables --------------------------------------------------------------------------------------------------


def test_user_tables_tell_whose_row_it_is(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(kind="USER")
    topics.source(topic, table)
    for name in ("ann", "bob"):
        with topics.server.client_of(member(topics.server, name)) as client:
            for sql in (f"INSERT INTO {table} VALUES (1, '{name}')", f"UPDATE {table} SET v = 'x' WHERE id = 1"):
                assert client.post("/v1/api/sql", json={"sql": sql}).status_code == 200
    topics.server.sql(f"EXECUTE AS USER 'ann' (DELETE FROM {table} WHERE id = 1)")
    found = [(message.user, message.op, message.key) for message in topics.read(topic)]
    assert found == [("ann", "Insert", "1"), ("ann", "Update", "1"), ("bob", "Insert", "1"), ("bob", "Update", "1"),
                     ("ann", "Delete", "1")]  # fmt: skip
    assert topics.consume(topic, "g").messages[0].user == "ann"


def test_stream_tables_and_rows_that_expire(topics: Topics) -> None:
    """What a message refers to is kept, however short the row's life was; its end by itself is no message."""
    topic, table = topics.topic(), topics.table("id INT, v TEXT", "STREAM", "WITH (TTL_SECONDS = 1)")
    topics.source(topic, table, "INSERT")
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (1, 'b')")
    while topics.server.rows(f"SELECT * FROM {table}"):
        pass
    topics.server.sql(f"INSERT INTO {table} VALUES (2, 'c')")
    messages = topics.read(topic)
    assert sorted(told(messages)) == [("Insert", 1, "a"), ("Insert", 1, "b"), ("Insert", 2, "c")]
    assert {message.user for message in messages} == {topics.server.user}


def test_bulk_ingest_in_one_commit(topics: Topics) -> None:
    topic, table = topics.topic(partitions=3), topics.table()
    topics.source(topic, table, "INSERT")
    body = "".join(f'{{"id":{n},"v":"row {n}"}}\n' for n in range(100_000))
    answer = topics.client.post(
        f"/v1/api/ingest/{table.replace('.', '/')}", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 200, answer.text
    messages = topics.read(topic)
    assert len(messages) == 100_000
    assert {message.json["id"] for message in messages} == set(range(100_000))
    assert len({str(message.json["_commit_seq"]) for message in messages}) == 1
    for message in messages[::997]:
        assert message.json["v"] == f"row {message.key}"
        assert message.partition == partition_of(str(message.key), 3)


# --- several, and what outlives what ----------------------------------------------------------------------------------


def test_several_tables_into_one_topic_and_one_table_into_several(topics: Topics) -> None:
    one, two = topics.topic(), topics.topic(partitions=2)
    first, second = topics.table(), topics.table()
    topics.source(one, first)
    topics.source(one, second, "INSERT")
    topics.source(two, first, "UPDATE", payload="key")
    topics.server.sql(
        f"BEGIN; INSERT INTO {first} VALUES (1, 'a'); INSERT INTO {second} VALUES (2, 'b'); COMMIT;"
        f"UPDATE {first} SET v = 'c' WHERE id = 1; UPDATE {second} SET v = 'c' WHERE id = 2"
    )
    assert [(message.json["_table"], message.op) for message in topics.read(one)] == [
        (first, "Insert"), (second, "Insert"), (first, "Update"),
    ]  # fmt: skip
    assert [message.json for message in topics.read(two)] == [{"id": 1}]


def test_a_source_tells_of_what_comes_after_it(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table()
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'before')")
    topics.source(topic, table)
    topics.server.sql(f"UPDATE {table} SET v = 'after' WHERE id = 1")
    assert told(topics.read(topic)) == [("Update", 1, "after")]


def test_a_source_that_was_dropped_tells_nothing_more(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (1, 'a')")
    (result,) = topics.server.sql(f"ALTER TOPIC {topic} DROP SOURCE {table} ON UPDATE")
    assert result["message"].startswith(f"Removed source {table}")
    topics.server.sql(f"UPDATE {table} SET v = 'b' WHERE id = 1; INSERT INTO {table} (id, v) VALUES (2, 'c')")
    topics.server.sql(f"ALTER TOPIC {topic} DROP SOURCE {table}")
    topics.server.sql(f"DELETE FROM {table} WHERE true")
    assert told(topics.read(topic)) == [("Insert", 1, "a"), ("Insert", 2, "c")]
    assert error(topics.server.post(f"ALTER TOPIC {topic} DROP SOURCE {table}")).status in {400, 404}
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (3, 'again')")
    assert told(topics.read(topic))[2:] == [("Insert", 3, "again")]


def test_messages_outlive_their_table(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (1, 'a'), (2, 'b'); DELETE FROM {table} WHERE id = 2")
    before = topics.read(topic)
    topics.server.sql(f"DROP TABLE {table}")
    assert topics.read(topic) == before
    topics.server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, other INT); INSERT INTO {table} VALUES (5, 5)")
    assert topics.read(topic)[:3] == before
    topics.server.restart()
    topics.close()
    assert topics.read(topic)[:3] == before


def test_every_version_of_a_row_stays_readable(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v) VALUES (1, 'v0')")
    for each in range(1, 200):
        topics.server.sql(f"UPDATE {table} SET v = $1 WHERE id = 1", [f"v{each}"])
    topics.server.sql(f"DELETE FROM {table} WHERE id = 1")
    assert [value for _, _, value in told(topics.read(topic))] == [f"v{each}" for each in range(200)] + ["v199"]


def test_payloads_have_the_columns_of_now(topics: Topics, fed: tuple[str, str]) -> None:
    topic, table = fed
    topics.server.sql(f"INSERT INTO {table} (id, v, n) VALUES (1, 'a', 5)")
    topics.server.sql(f"ALTER TABLE {table} ADD COLUMN extra TEXT")
    topics.server.sql(f"INSERT INTO {table} (id, v, n, extra) VALUES (2, 'b', 6, 'more')")
    old, new = (message.json for message in topics.read(topic))
    assert list(old)[:4] == list(new)[:4] == ["id", "v", "n", "extra"]
    assert (old["extra"], new["extra"]) == (None, "more")
    topics.server.sql(f"ALTER TABLE {table} DROP COLUMN n; ALTER TABLE {table} RENAME COLUMN v TO w")
    topics.server.sql(f"UPDATE {table} SET w = 'c' WHERE id = 1")
    assert [list(message.json)[:3] for message in topics.read(topic)] == [["id", "w", "extra"]] * 3
    assert [message.json["w"] for message in topics.read(topic)] == ["a", "b", "c"]


def test_a_column_that_a_filter_needs(topics: Topics) -> None:
    """It may not be dropped, or the source still knows what to publish: never is something published by half."""
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, v TEXT, n INT")
    topics.source(topic, table, "INSERT", where="n > 10")
    answer = topics.server.post(f"ALTER TABLE {table} DROP COLUMN n")
    assert answer.status_code in {200, 400}, answer.text
    inserted = topics.server.post(f"INSERT INTO {table} (id, v) VALUES (1, 'a')")
    assert inserted.status_code in {200, 400}, inserted.text
    assert len(topics.server.rows(f"SELECT id FROM {table}")) == (inserted.status_code == 200)
    assert topics.read(topic) == []
