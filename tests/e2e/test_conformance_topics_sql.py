"""Statements of topics: messages, columns, rights, mistakes, system tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import Roles, columns, error, message, ok, roles_of
from tests.e2e.live_conformance import number
from tests.e2e.topic_conformance import (
    CONSUME,
    NAMES,
    PATIENCE,
    Topics,
    beside,
    key_for,
    partition_of,
    refusal,
    topic_server,
)

CONSUMED = ["topic_id", "partition_id", "offset", "key", "payload", "timestamp_ms", "user", "op", "delivery_count"]
TOPICS = ["topic_id", "name", "alias", "partitions", "retention_seconds", "retention_max_bytes", "routes", "created_at",
          "updated_at"]  # fmt: skip
OFFSETS = ["topic_id", "group_id", "partition_id", "last_acked_offset", "updated_at"]


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("sql")) as found:
        yield found


@pytest.fixture(scope="module")
def roles(topics: Topics) -> Iterator[Roles]:
    with roles_of(topics.server) as found:
        yield found


def rows_of(topics: Topics, sql: str, params: list[Any] | None = None) -> list[dict[str, Any]]:
    """Rows of a CONSUME, its columns checked."""
    (result,) = ok(topics.server.post(sql, params))
    assert columns(result) == CONSUMED
    types = {column["name"]: column["data_type"] for column in result["schema"]}
    assert (types["payload"], types["offset"], types["topic_id"]) == ("Bytes", "BigInt", "Text")
    return [dict(zip(CONSUMED, row, strict=True)) for row in result["rows"]]


def offsets(topics: Topics, sql: str) -> list[int]:
    """Offsets of a CONSUME."""
    return [number(row["offset"]) for row in rows_of(topics, sql)]


# --- definitions ------------------------------------------------------------------------------------------------------


def test_the_life_of_a_topic(topics: Topics) -> None:
    name, table = f"app.life{next(NAMES)}", topics.table()
    post = topics.server.post
    assert message(post(f"CREATE TOPIC {name}")) == f"Created topic '{name}' with 1 partition(s)"
    assert topics.partitions(name) == 1
    assert message(post(f"create topic if not exists {name} partitions 9"))
    assert topics.partitions(name) == 1
    for operation in ("INSERT", "update", "Delete"):
        told = message(post(f"ALTER TOPIC {name} ADD SOURCE {table} ON {operation}"))
        assert told == f"Added source {table} ON {operation.capitalize()} to topic '{name}'"
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a')")
    assert len(topics.read(name)) == 1
    cleared = message(post(f"CLEAR TOPIC {name}"))
    assert re.fullmatch(rf"Scheduled cleanup job \[TC-\S+\] for topic '{name}'", cleared)
    dropped = message(post(f"DROP TOPIC {name}"))
    assert re.fullmatch(rf"Dropped topic '{name}' and scheduled cleanup job \[TC-\S+\]", dropped)
    assert topics.refused("/v1/api/topics/consume", topic_id=name).code == "NOT_FOUND"
    assert message(post(f"DROP TOPIC IF EXISTS {name}"))
    assert topics.server.rows("SELECT * FROM system.topics WHERE topic_id = $1", [name]) == []


@pytest.mark.parametrize("partitions", [1, 2, 64])
def test_partitions(topics: Topics, partitions: int) -> None:
    topic = topics.topic(partitions)
    assert topics.partitions(topic) == partitions
    assert topics.consume(topic, partition_id=partitions - 1).messages == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TOPIC app.t{n} PARTITIONS 0", "CREATE TOPIC app.t{n} PARTITIONS -1",
        "CREATE TOPIC app.t{n} PARTITIONS 1.5", "CREATE TOPIC app.t{n} PARTITIONS 'x'",
        "CREATE TOPIC app.t{n} PARTITIONS 1000000000", "CREATE TOPIC app.t{n} PARTITIONS 99999999999999999999999",
        "CREATE TOPIC app.t{n} PARTITIONS", "CREATE TOPIC", "CREATE TOPIC unqualified{n}", "CREATE TOPIC a.b.c",
        "CREATE TOPIC nowhere.t", 'CREATE TOPIC app.""', "CREATE TOPIC app.t{n} WITH ()",
        "CREATE TOPIC app.t{n} WITH (retention_seconds = -1)", "CREATE TOPIC app.t{n} WITH (retention_bytes = 'x')",
        "CREATE TOPIC app.t{n} WITH (nosuch = 1)", "CREATE TOPIC app.t{n} WITH (max_deliveries = -1)",
        "CREATE TOPIC app.t{n} WITH (max_deliveries = 1, dead_letter_topic = 'app.t{n}')",
        "CREATE TOPIC app.there", "DROP TOPIC app.nosuch", "CLEAR TOPIC app.nosuch", "DROP TOPIC", "CLEAR TOPIC",
        "ALTER TOPIC app.nosuch ADD SOURCE app.src ON INSERT", "ALTER TOPIC app.there ADD SOURCE app.nosuch ON INSERT",
        "ALTER TOPIC app.there ADD SOURCE app.src", "ALTER TOPIC app.there ADD SOURCE app.src ON SELECT",
        "ALTER TOPIC app.there ADD SOURCE app.src ON INSERT",
        "ALTER TOPIC app.there ADD SOURCE app.src ON UPDATE WITH (payload = 'half')",
        "ALTER TOPIC app.there ADD SOURCE app.src ON UPDATE WITH (nosuch = 'full')",
        "ALTER TOPIC app.there ADD SOURCE app.src ON UPDATE WHERE",
        "ALTER TOPIC app.there DROP SOURCE app.src ON DELETE", "ALTER TOPIC app.there DROP SOURCE app.nosuch",
        "ALTER TOPIC app.there SET RETENTION ()", "ALTER TOPIC app.there SET RETENTION (seconds = -1)",
        "ALTER TOPIC app.there SET RETENTION (bytes = 'many')", "ALTER TOPIC app.there SET RETENTION (years = 1)",
        "ALTER TOPIC app.nosuch SET RETENTION (seconds = 1)", "ALTER TOPIC app.there", "ALTER TOPIC app.there RENAME x",
        "CONSUME FROM app.nosuch", "CONSUME FROM", "CONSUME FROM app.there LIMIT -1", "CONSUME FROM app.there LIMIT 0",
        "CONSUME FROM app.there LIMIT 'x'", "CONSUME FROM app.there PARTITION 1", "CONSUME FROM app.there PARTITION -1",
        "CONSUME FROM app.there FROM -1", "CONSUME FROM app.there FROM SOMEWHERE", "CONSUME FROM app.there GROUP",
        "CONSUME FROM app.there GROUP ''", "ACK app.nosuch GROUP 'g' UPTO OFFSET 0", "ACK app.there UPTO OFFSET 0",
        "ACK app.there GROUP 'g'", "ACK app.there GROUP 'g' UPTO OFFSET -1", "ACK app.there GROUP 'g' UPTO OFFSET 9",
        "ACK app.there GROUP 'g' PARTITION 1 UPTO OFFSET 0", "ACK app.there GROUP '' UPTO OFFSET 0",
        "RESET CONSUMER GROUP 'g' ON app.nosuch TO EARLIEST", "RESET CONSUMER GROUP 'g' ON app.there TO -1",
        "RESET CONSUMER GROUP 'g' ON app.there", "RESET CONSUMER GROUP 'g' ON app.there PARTITION 7 TO EARLIEST",
        "RESET CONSUMER GROUP 'g' ON app.there TO SOMEWHERE", "PUBLISH TO app.nosuch PAYLOAD 'x'",
        "PUBLISH TO app.there", "PUBLISH TO app.there PAYLOAD", "PUBLISH TO app.there KEY 'k'",
        "PUBLISH TO app.there PAYLOAD 'a',", "PUBLISH TO app.there PAYLOAD $1",
    ],
)  # fmt: skip
def test_mistakes(topics: Topics, sql: str) -> None:
    topics.server.sql("CREATE TOPIC IF NOT EXISTS app.there; CREATE TABLE IF NOT EXISTS app.src (id INT PRIMARY KEY)")
    if not topics.server.rows(
        "SELECT 1 FROM system.topics WHERE topic_id = 'app.there' AND CAST(routes AS TEXT) != '[]'"
    ):
        topics.server.sql("ALTER TOPIC app.there ADD SOURCE app.src ON INSERT; PUBLISH TO app.there PAYLOAD 'first'")
    definitions = topics.server.rows("SELECT topic_id, partitions, CAST(routes AS TEXT) FROM system.topics ORDER BY 1")
    found = error(topics.server.post(sql.replace("{n}", str(next(NAMES)))))
    assert found.status in {400, 404} or found[:2] == (410, "OFFSET_OUT_OF_RANGE"), found
    assert found.code in {"INVALID_SQL", "SQL_EXECUTION_ERROR", "TABLE_NOT_FOUND", "NOT_FOUND", "INVALID_PARAMETER",
                          "INVALID_INPUT", "OFFSET_OUT_OF_RANGE", "TOPIC_NOT_FOUND", "UNSUPPORTED"}, found  # fmt: skip
    assert "Traceback" not in found.message
    after = topics.server.rows("SELECT topic_id, partitions, CAST(routes AS TEXT) FROM system.topics ORDER BY 1")
    assert after == definitions
    assert len(topics.read("app.there")) == 1
    assert topics.committed("app.there", "g") == {}


def test_one_route_for_a_table_and_an_operation(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table, "INSERT", payload="key")
    found = error(topics.server.post(f"ALTER TOPIC {topic} ADD SOURCE {table} ON INSERT WITH (payload = 'full')"))
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a')")
    assert [each.json for each in topics.read(topic)] == [{"id": 1}]


def test_clearing_a_topic(topics: Topics) -> None:
    topic, table = topics.topic(partitions=2), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} SELECT range, 'x' FROM range(100)")
    topics.consume(topic, "g", limit=10)
    topics.server.sql(f"CLEAR TOPIC {topic}")
    assert topics.consume(topic).messages == []
    assert topics.server.rows(f"SELECT count(*) FROM {table}") == [[100]]
    topics.server.sql(f"INSERT INTO {table} SELECT range + 100, 'x' FROM range(100)")
    messages = topics.read(topic)
    assert {each.json["id"] for each in messages} == set(range(100, 200))
    fresh = [each.json["id"] for _ in range(2) for each in topics.consume(topic, "new", limit=100).messages]
    assert sorted(fresh) == list(range(100, 200))


def test_a_topic_made_anew_begins_anew(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a')")
    topics.consume(topic, "g")
    topics.ack(topic, "g", 0)
    topics.server.sql(f"DROP TOPIC {topic}; CREATE TOPIC {topic} PARTITIONS 2")
    topics.server.sql(f"INSERT INTO {table} VALUES (2, 'b')")
    assert topics.read(topic) == []
    assert topics.committed(topic, "g") == {}
    topics.produce(topic, {"key": "k", "payload": 1})
    assert topics.consume(topic, "g").offsets == [0]


def test_dropping_a_topic_ends_long_polls(topics: Topics) -> None:
    topic = topics.topic()
    body = {"topic_id": topic, "group_id": "g", "timeout_seconds": PATIENCE}
    with beside(lambda: topics.post(CONSUME, body)) as poll:
        topics.server.sql(f"DROP TOPIC {topic}")
        assert refusal(poll.result(PATIENCE / 2))[:2] == (404, "NOT_FOUND")


# --- CONSUME, ACK, RESET, PUBLISH -------------------------------------------------------------------------------------


def test_consume_column_by_column(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(kind="USER")
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (7, 'a'); UPDATE {table} SET v = 'b' WHERE id = 7")
    topics.server.sql(f"DELETE FROM {table} WHERE id = 7; PUBLISH TO {topic} PAYLOAD 'plain'")
    rows = rows_of(topics, f"CONSUME FROM {topic} FROM EARLIEST")
    over_http = topics.read(topic)
    assert [row["op"] for row in rows] == ["insert", "update", "delete", "insert"]
    assert [row["key"] for row in rows] == ["7", "7", "7", None]
    assert [row["user"] for row in rows[:3]] == [topics.server.user] * 3
    assert [bytes(row["payload"]) for row in rows] == [each.data for each in over_http]
    assert [number(row["timestamp_ms"]) for row in rows] == [each.timestamp_ms for each in over_http]
    assert [(row["topic_id"], row["partition_id"]) for row in rows] == [(topic, 0)] * 4
    assert {row["delivery_count"] for row in rows} == {None}
    assert [row["delivery_count"] for row in rows_of(topics, f"CONSUME FROM {topic} GROUP 'g' FROM EARLIEST")] == [
        1
    ] * 4


def test_consume_from_and_limit(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 5)
    for clause, expected in [
        ("FROM EARLIEST", [0, 1, 2, 3, 4]), ("from earliest limit 2", [0, 1]), ("FROM 3", [3, 4]), ("FROM LATEST", []),
        ("PARTITION 0 FROM 2 LIMIT 1", [2]), ("FROM 5", []),
    ]:  # fmt: skip
        for _ in range(2):
            assert offsets(topics, f"CONSUME FROM {topic} {clause}") == expected


def test_consume_of_a_group_claims_and_acknowledges_nothing(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 5)
    assert offsets(topics, f"CONSUME FROM {topic} GROUP 'g' FROM EARLIEST LIMIT 2") == [0, 1]
    assert topics.committed(topic, "g").get(0, -1) == -1
    assert offsets(topics, f"CONSUME FROM {topic} GROUP 'g' FROM EARLIEST LIMIT 2") == [2, 3]
    (result,) = ok(topics.server.post(f"ACK {topic} GROUP 'g' UPTO OFFSET 2"))
    assert columns(result) == ["topic", "group_id", "partition", "committed_offset"]
    assert [[*row[:3], number(row[3])] for row in result["rows"]] == [[topic, "g", 0, 2]]
    assert topics.committed(topic, "g") == {0: 2}
    assert topics.consume(topic, "g").offsets == [4]


def test_consume_reads_all_partitions(topics: Topics) -> None:
    topic = topics.topic(partitions=3)
    for partition in range(3):
        topics.produce(topic, *({"key": key_for(partition, 3), "payload": n} for n in range(3)))
    for group in ("", "GROUP 'g'"):
        places = {(row["partition_id"], number(row["offset"])) for row in rows_of(
            topics, f"CONSUME FROM {topic} {group} FROM EARLIEST")}  # fmt: skip
        assert places == {(partition, offset) for partition in range(3) for offset in range(3)}
    (result,) = ok(topics.server.post(f"ACK {topic} GROUP 'g' PARTITION 2 UPTO OFFSET 1"))
    assert [[*row[:3], number(row[3])] for row in result["rows"]] == [[topic, "g", 2, 1]]
    assert topics.committed(topic, "g").get(2) == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [("EARLIEST", [0, 1, 2, 3, 4]), ("LATEST", []), ("OFFSET 2", [2, 3, 4]), ("3", [3, 4]), ("OFFSET 5", [])],
)
def test_resetting_a_group(topics: Topics, target: str, expected: list[int]) -> None:
    topic = topics.topic()
    topics.fill(topic, 5)
    topics.consume(topic, "g", limit=4)
    topics.ack(topic, "g", 3)
    assert message(topics.server.post(f"RESET CONSUMER GROUP 'g' ON {topic} TO {target}"))
    for start in ("Latest", "Earliest"):
        assert topics.consume(topic, "g", start).offsets == expected
        topics.server.sql(f"RESET CONSUMER GROUP 'g' ON {topic} TO {target}")
    topics.fill(topic, 1)
    assert topics.consume(topic, "g", "Latest").offsets == [*expected, 5]
    assert topics.ack(topic, "g", 5) == 5


def test_resetting_one_partition(topics: Topics) -> None:
    topic = topics.topic(partitions=2)
    for partition in range(2):
        topics.produce(topic, *({"key": key_for(partition, 2), "payload": n} for n in range(3)))
        topics.ack(topic, "g", 2, partition_id=partition)
    topics.server.sql(f"RESET CONSUMER GROUP 'g' ON {topic} PARTITION 1 TO 1")
    assert [each.place for each in topics.consume(topic, "g").messages] == [(1, 1), (1, 2)]


def test_publish(topics: Topics) -> None:
    topic = topics.topic(partitions=4)
    post = topics.server.post
    for sql, params in [
        (f"PUBLISH TO {topic} KEY 'a' PAYLOAD 'text ä'", None),
        (f"PUBLISH TO {topic} KEY $1 PAYLOAD $2", ["a", "by parameter"]),
        (f"publish to {topic} key 'a' payload X'00FF', key 'b' payload 'second', payload 'no key'", None),
        (f"PUBLISH TO {topic} KEY 'a' PAYLOAD $1", [{"json": [1, None]}]),
        (f"PUBLISH TO {topic} KEY 'a' PAYLOAD ''", None),
    ]:
        assert post(sql, params).status_code == 200, post(sql, params).text
    messages = topics.read(topic)
    of = {key: [each for each in messages if each.key == key] for key in ("a", "b", None)}
    assert {each.partition for each in of["a"]} == {partition_of("a", 4)}
    assert [each.data for each in of["a"][:3] + of["a"][4:]] == ["text ä".encode(), b"by parameter", b"\x00\xff", b""]
    assert json.loads(of["a"][3].data) == {"json": [1, None]}
    assert [(each.partition, each.data) for each in of["b"]] == [(partition_of("b", 4), b"second")]
    assert [each.data for each in of[None]] == [b"no key"]


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["CREATE TOPIC system.t", "ALTER TOPIC {} ADD SOURCE system.users ON INSERT"])
def test_system_is_nobodys(topics: Topics, sql: str) -> None:
    assert error(topics.server.post(sql.format(topics.topic())))[:2] == (403, "PERMISSION_DENIED")


def test_a_dead_letter_topic_that_is_not_there_is_made_when_it_is_needed(topics: Topics) -> None:
    named, unnamed = f"app.letters{next(NAMES)}", topics.topic(max_deliveries=1)
    topic = topics.topic(max_deliveries=1, dead_letter_topic=named)
    for name, dead in ((topic, named), (unnamed, f"{unnamed}_dead_letter")):
        topics.fill(name, 1)
        topics.consume(name, "g", consumer_id="a")
        topics.ack(name, "g", None, consumer_id="a", release=True)
        assert topics.consume(name, "g").messages == []
        assert [each.origin and each.origin["topic_id"] for each in topics.read(dead)] == [name]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TOPIC app.mine{n}", "DROP TOPIC app.open", "CLEAR TOPIC app.open", "DROP TOPIC IF EXISTS app.nosuch",
        "ALTER TOPIC app.open ADD SOURCE app.opened ON DELETE", "ALTER TOPIC app.open DROP SOURCE app.opened",
        "ALTER TOPIC app.open SET RETENTION (seconds = 1)",
    ],
)  # fmt: skip
def test_definitions_are_for_admins(topics: Topics, roles: Roles, sql: str) -> None:
    topics.server.sql("CREATE TOPIC IF NOT EXISTS app.open; CREATE TABLE IF NOT EXISTS app.opened (id INT PRIMARY KEY)")
    for role in ("user", "service"):
        found = error(roles.post(role, sql.replace("{n}", str(next(NAMES)))))
        assert found[:2] == (403, "PERMISSION_DENIED")
    assert topics.server.rows("SELECT count(*) FROM system.topics WHERE topic_id = 'app.open'") == [[1]]


def test_users_neither_read_nor_write_topics(topics: Topics, roles: Roles) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    statements = [
        f"CONSUME FROM {topic} GROUP 'g' FROM EARLIEST", f"CONSUME FROM {topic}", f"PUBLISH TO {topic} PAYLOAD 'x'",
        f"ACK {topic} GROUP 'g' UPTO OFFSET 0",
    ]  # fmt: skip
    for sql in [*statements, f"RESET CONSUMER GROUP 'g' ON {topic} TO EARLIEST"]:
        assert error(roles.post("user", sql))[:2] == (403, "PERMISSION_DENIED")
        assert error(roles.post("user", f"SELECT 1; {sql}")).status == 403
    for table in ("topics", "topic_offsets"):
        for role in ("user", "service"):
            assert roles.post(role, f"SELECT * FROM system.{table}").status_code in {403, 404}
    for role in ("service", "dba", "system"):
        for sql in statements:
            ok(roles.post(role, sql.replace("'g'", f"'{role}'")))
    assert error(roles.post("dba", f"EXECUTE AS USER 'u1' (CONSUME FROM {topic})")).status in {400, 403}


# --- system tables ----------------------------------------------------------------------------------------------------


def test_the_table_of_topics(topics: Topics) -> None:
    topic = topics.topic(3, retention_seconds=3600, retention_bytes=1 << 20)
    table = topics.table()
    topics.source(topic, table, "INSERT", where="id > 5", payload="key")
    (result,) = topics.server.sql("SELECT * FROM system.topics WHERE topic_id = $1", [topic])
    assert columns(result)[: len(TOPICS)] == TOPICS
    found = dict(zip(columns(result), result["rows"][0], strict=True))
    assert (found["partitions"], number(found["retention_seconds"]), number(found["retention_max_bytes"])) == (
        3, 3600, 1 << 20,
    )  # fmt: skip
    assert found["topic_id"] == topic
    assert found["name"] in {topic, topic.split(".")[1]}
    assert number(found["created_at"]) <= number(found["updated_at"])
    (route,) = json.loads(found["routes"])
    assert {table, "id > 5", "key"} <= set(map(str, route.values()))
    topics.server.sql(f"ALTER TOPIC {topic} SET RETENTION (seconds = 60, bytes = 5000)")
    wanted = f"SELECT retention_seconds, retention_max_bytes FROM system.topics WHERE topic_id = '{topic}'"
    assert topics.server.rows(wanted) == [[60, 5000]]
    topics.server.sql(f"ALTER TOPIC {topic} SET (retention_seconds = 61)")
    assert topics.server.rows(wanted) == [[61, 5000]]


def test_the_table_of_offsets(topics: Topics) -> None:
    topic = topics.topic(2)
    topics.produce(topic, *({"key": key_for(each, 2), "payload": n} for each in range(2) for n in range(4)))
    topics.consume(topic, "g")
    topics.ack(topic, "g", 3, partition_id=0)
    topics.ack(topic, "g", 1, partition_id=1)
    topics.ack(topic, "h", 2, partition_id=1)
    (result,) = topics.server.sql("SELECT * FROM system.topic_offsets WHERE topic_id = $1", [topic])
    assert columns(result)[: len(OFFSETS)] == OFFSETS
    acked = {(row[1], row[2]): row[3] for row in result["rows"]}
    assert acked == {("g", 0): 3, ("g", 1): 1, ("h", 1): 2}
    assert all(number(row[4]) > 1_700_000_000_000_000 for row in result["rows"])
