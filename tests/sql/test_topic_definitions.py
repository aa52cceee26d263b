"""CREATE, ALTER, DROP and CLEAR TOPIC: what they answer, what they keep, what they refuse, and whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import (
    ExecutionError,
    InvalidInput,
    InvalidSql,
    PermissionDenied,
    SqlError,
    TableNotFound,
    TopicNotFound,
    Unsupported,
)
from sql.topics.messages import ConsumeRequest
from sql.topics.settings import TopicSettings
from storage.topic_definitions import Operation, PayloadMode, TopicSource
from tests.sql.topic_world import ANN, DORA, ROOT, SAM, TopicWorld, topic_world

JOB = r"\[TC-[0-9a-f]{23}\]"
SETTINGS = TopicSettings(retention_seconds=1000, retention_bytes=2000)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TopicWorld]:
    """For statements that change nothing, because they are refused."""
    with topic_world(tmp_path_factory.mktemp("topics"), SETTINGS) as world:
        prepare(world)
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path, SETTINGS) as found:
        prepare(found)
        yield found


def prepare(world: TopicWorld) -> None:
    world.results(
        "CREATE TABLE app.orders (id BIGINT PRIMARY KEY, amount INT, note TEXT, details JSON);"
        "CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT);"
        "CREATE STREAM TABLE app.visits (page TEXT) WITH (TTL_SECONDS = 3600);"
        "CREATE TOPIC app.t;"
        "CREATE TOPIC app.taken; ALTER TOPIC app.taken ADD SOURCE app.orders ON INSERT, UPDATE"
    )


# --- the life of a topic ----------------------------------------------------------------------------------------------


def test_the_life_of_a_topic(world: TopicWorld) -> None:
    assert world.message("CREATE TOPIC app.life PARTITIONS 4") == "Created topic 'app.life' with 4 partition(s)"
    assert world.message("CREATE TOPIC IF NOT EXISTS app.life") == "Topic 'app.life' already exists (skipped)"
    assert world.message("CREATE TOPIC other.one", who=DORA) == "Created topic 'other.one' with 1 partition(s)"
    assert world.message("ALTER TOPIC life ADD SOURCE orders ON INSERT") == (
        "Added source app.orders ON Insert to topic 'app.life'"
    )
    assert world.message("ALTER TOPIC life ADD SOURCE app.orders ON DELETE, UPDATE") == (
        "Added source app.orders ON Delete, Update to topic 'app.life'"
    )
    assert world.message("ALTER TOPIC app.life DROP SOURCE orders ON DELETE") == (
        "Removed source app.orders ON Delete from topic 'app.life'"
    )
    assert world.message("ALTER TOPIC app.life DROP SOURCE orders") == (
        "Removed source app.orders ON Insert, Update from topic 'app.life'"
    )
    assert world.message("ALTER TOPIC app.life SET RETENTION (seconds = 9)") == "Altered topic 'app.life'"
    assert re.fullmatch(f"Scheduled cleanup job {JOB} for topic 'app.life'", world.message("CLEAR TOPIC life"))
    dropped = world.message("DROP TOPIC app.life")
    assert re.fullmatch(f"Dropped topic 'app.life' and scheduled cleanup job {JOB}", dropped)
    assert world.message("DROP TOPIC IF EXISTS life") == "Topic 'app.life' does not exist (skipped)"
    assert world.message("CREATE TOPIC app.life") == "Created topic 'app.life' with 1 partition(s)"


def test_options_and_their_defaults(world: TopicWorld) -> None:
    found = world.topic("app.t")
    assert (found.retention_seconds, found.retention_bytes, found.max_deliveries) == (1000, 2000, 0)
    assert (found.partitions, found.dead_letter, found.owner) == (1, None, "root")
    assert found.created_at == found.updated_at > 0
    world.run(
        "CREATE TOPIC app.o WITH (retention_seconds = NULL, retention_bytes = 5, max_deliveries = 3, "
        "dead_letter_topic = 'other.Dead')"
    )
    found = world.topic("app.o")
    assert (found.retention_seconds, found.retention_bytes, found.max_deliveries) == (0, 5, 3)
    assert found.dead_letter == "other.dead"
    world.run("ALTER TOPIC app.o SET (max_deliveries = NULL, dead_letter_topic = NULL)")
    altered = world.topic("app.o")
    assert (altered.retention_seconds, altered.retention_bytes, altered.max_deliveries) == (0, 5, -1)
    assert altered.dead_letter is None
    assert altered.updated_at >= found.updated_at
    world.run("ALTER TOPIC app.o SET RETENTION (seconds = 60, bytes = NULL)")
    assert (world.topic("app.o").retention_seconds, world.topic("app.o").retention_bytes) == (60, 0)


def test_sources_are_kept_as_what_they_mean(world: TopicWorld) -> None:
    orders = world.engine.catalog.table("app", "orders")
    assert orders is not None
    world.results(
        "CREATE TOPIC app.s;"
        "ALTER TOPIC app.s ADD SOURCE app.orders ON INSERT WHERE Orders.Amount > 1 AND note = 'x';"
        "ALTER TOPIC app.s ADD SOURCE SELECT o.note, id FROM app.orders AS o WHERE o.amount IS NULL ON UPDATE"
        " WITH (payload = 'diff');"
        "ALTER TOPIC app.s ADD SOURCE SELECT * FROM app.orders ON DELETE WITH (payload = 'key');"
        "ALTER TOPIC app.s ADD SOURCE app.visits ON INSERT"
    )
    topic = world.topic("app.s")
    one, two, three, four = topic.sources
    assert (one.source_id, two.source_id, three.source_id, four.source_id) == (1, 2, 3, 4)
    assert one == TopicSource(1, orders.table_id, Operation.INSERT, PayloadMode.FULL, "amount > 1 AND note = 'x'")
    assert two == TopicSource(2, orders.table_id, Operation.UPDATE, PayloadMode.DIFF, "amount IS NULL", (3, 1))
    assert three == TopicSource(3, orders.table_id, Operation.DELETE, PayloadMode.KEY)
    assert topic.referred == (orders.table_id, four.table_id)
    world.run("ALTER TOPIC app.s DROP SOURCE app.orders")
    assert world.topic("app.s").referred == topic.referred
    assert world.topic("app.s").sources == (four,)
    world.run("ALTER TOPIC app.s ADD SOURCE app.orders ON INSERT")
    assert world.topic("app.s").sources[-1].source_id == 5
    assert world.topic("app.s").referred == topic.referred


def test_clear_takes_what_is_there_and_nothing_else(world: TopicWorld) -> None:
    world.results("CREATE TOPIC app.c PARTITIONS 2; PUBLISH TO app.c KEY 1 PAYLOAD 'a', KEY 2 PAYLOAD 'b', PAYLOAD 'c'")
    world.run("CLEAR TOPIC app.c")
    assert world.consumed("app.c") == []
    cleared = world.topic("app.c").cleared
    assert sum(cleared) == 3
    world.run("PUBLISH TO app.c KEY 1 PAYLOAD '1'")
    ((partition, offset),) = [row[1:3] for row in world.rows("CONSUME FROM app.c FROM EARLIEST")]
    assert offset == cleared[partition]
    world.results("CLEAR TOPIC app.c; CLEAR TOPIC app.c")
    assert sum(world.topic("app.c").cleared) == 4


def test_clear_passes_over_what_a_group_had_before_it(world: TopicWorld) -> None:
    world.results("PUBLISH TO app.t PAYLOAD '1', PAYLOAD '2'; CONSUME FROM app.t GROUP g FROM EARLIEST LIMIT 1")
    world.results("CLEAR TOPIC app.t; PUBLISH TO app.t PAYLOAD '3'")
    assert [row[2] for row in world.rows("CONSUME FROM app.t GROUP g")] == [2]


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, type[SqlError], str]] = [
    ("CREATE TOPIC app.t", ExecutionError, "Already exists: Topic 'app.t' already exists"),
    ("CREATE TOPIC nowhere.t", ExecutionError, "Create it first with CREATE NAMESPACE nowhere"),
    ("CREATE TOPIC system.t", PermissionDenied, "topics cannot be created in namespace 'system'"),
    ('CREATE TOPIC app."a b"', ExecutionError, "Topic name 'a b' must begin with a letter"),
    (f"CREATE TOPIC app.{'x' * 65}", ExecutionError, "must have 1 to 64 characters"),
    ("CREATE TOPIC app.p PARTITIONS 1025", ExecutionError, "at most 1,024 partitions, not 1,025"),
    ("CREATE TOPIC app.x WITH (dead_letter_topic = 'app.x')", InvalidInput, "cannot be the topic itself"),
    ("CREATE TOPIC app.x WITH (dead_letter_topic = 'gone.x')", ExecutionError, "Namespace 'gone' does not exist"),
    ("CREATE TOPIC app.x WITH (dead_letter_topic = 'system.x')", PermissionDenied, "cannot be created in namespace"),
    ("CREATE TOPIC app.x WITH (dead_letter_topic = 'app.1x')", ExecutionError, "Topic name '1x' must begin"),
    ("ALTER TOPIC app.t SET (dead_letter_topic = 'app.t')", InvalidInput, "cannot be the topic itself"),
    ("DROP TOPIC app.tt", TopicNotFound, r"Topic 'app.tt' does not exist\. Did you mean 'app.t'\?"),
    ("CLEAR TOPIC nothing", TopicNotFound, "Topic 'app.nothing' does not exist"),
    ("ALTER TOPIC app.zzz SET (max_deliveries = 1)", TopicNotFound, "Topic 'app.zzz' does not exist"),
    ("ALTER TOPIC app.t ADD SOURCE app.nothing ON INSERT", TableNotFound, "Table not found: 'app.nothing'"),
    ("ALTER TOPIC app.t ADD SOURCE system.users ON INSERT", PermissionDenied, "cannot be a source of a topic"),
    ("ALTER TOPIC app.t DROP SOURCE app.orders", ExecutionError, "Topic 'app.t' has no source app.orders"),
    ("ALTER TOPIC app.taken DROP SOURCE app.orders ON DELETE", ExecutionError, "no source app.orders ON Delete"),
    ("ALTER TOPIC app.taken ADD SOURCE app.orders ON DELETE, UPDATE", ExecutionError,
     "Already exists: Topic 'app.taken' has the source app.orders ON Update"),
    ("ALTER TOPIC app.t ADD SOURCE app.visits ON DELETE", Unsupported, "its rows expire by themselves"),
    ("ALTER TOPIC app.t ADD SOURCE app.visits ON INSERT, UPDATE", Unsupported, "its rows are never updated"),
]  # fmt: skip

SOURCE_REFUSED: list[tuple[str, type[SqlError], str]] = [
    ("app.orders ON INSERT WHERE nope > 1", InvalidSql, "nope"),
    ("app.orders ON INSERT WHERE note", InvalidSql, "WHERE takes a condition, not a value of type TEXT"),
    ("app.orders ON INSERT WHERE amount + 1", InvalidSql, "not a value of type"),
    ("app.orders ON INSERT WHERE no_such_function(note)", SqlError, "no_such_function"),
    ("app.orders ON INSERT WHERE random() > 0.5", Unsupported, "has another value each time"),
    ("app.orders ON INSERT WHERE NOW() > NOW()", Unsupported, r"NOW\(\) is not supported"),
    ("app.orders ON INSERT WHERE note = CURRENT_USER()", Unsupported, "CURRENT_USER is not supported"),
    ("app.orders ON INSERT WHERE amount = (SELECT 1)", Unsupported, "A subquery"),
    ("app.orders ON INSERT WHERE EXISTS (SELECT 1 FROM app.orders)", Unsupported, "A subquery"),
    ("app.orders ON INSERT WHERE sum(amount) > 1", Unsupported, "An aggregate"),
    ("app.orders ON INSERT WHERE row_number() OVER () > 1", Unsupported, "A window function"),
    ("SELECT id + 1 FROM app.orders ON INSERT", Unsupported, "shows columns as they are"),
    ("SELECT id AS key FROM app.orders ON INSERT", Unsupported, "shows columns as they are"),
    ("SELECT *, id FROM app.orders ON INSERT", Unsupported, "shows columns as they are"),
    ("SELECT x.id FROM app.orders ON INSERT", Unsupported, "shows columns as they are"),
    ("SELECT amont FROM app.orders ON INSERT", InvalidSql, r"Column not found: 'amont'\. Did you mean 'amount'\?"),
    ("SELECT _seq FROM app.orders ON INSERT", InvalidSql, "Column not found: '_seq'"),
    ("SELECT DISTINCT id FROM app.orders ON INSERT", Unsupported, "DISTINCT is not supported in a topic's source"),
    ("SELECT id FROM app.orders LIMIT 1 ON INSERT", Unsupported, "LIMIT is not supported"),
    ("SELECT id FROM app.orders ORDER BY id ON INSERT", Unsupported, "ORDER is not supported"),
    ("SELECT id FROM app.orders GROUP BY id ON INSERT", Unsupported, "GROUP is not supported"),
    ("SELECT x FROM app.orders AS o(x) ON INSERT", Unsupported, "columns anew"),
    ("SELECT id FROM app.orders ON INSERT WITH (payload = 'key')", InvalidSql, "shows the key columns and noth"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "kind", "message"), REFUSED, ids=[case[0][:60] for case in REFUSED])
def test_what_is_refused(shared: TopicWorld, sql: str, kind: type[SqlError], message: str) -> None:
    before = shared.engine.catalog.version
    with pytest.raises(kind, match=message) as caught:
        shared.run(sql)
    assert caught.value.statement == 1
    assert shared.engine.catalog.version == before
    assert shared.topic("app.t").sources == ()


@pytest.mark.parametrize(("source", "kind", "message"), SOURCE_REFUSED, ids=[case[0] for case in SOURCE_REFUSED])
def test_sources_that_are_refused(shared: TopicWorld, source: str, kind: type[SqlError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        shared.run(f"\n  ALTER TOPIC app.t ADD SOURCE {source}")
    assert caught.value.line == 2
    assert (caught.value.column or 0) > 3
    assert shared.topic("app.t").sources == ()


DEFINITIONS = [
    "CREATE TOPIC app.n", "CREATE TOPIC IF NOT EXISTS app.t", "DROP TOPIC app.t", "DROP TOPIC IF EXISTS app.nope",
    "CLEAR TOPIC app.t", "ALTER TOPIC app.t ADD SOURCE app.orders ON INSERT",
    "ALTER TOPIC app.t DROP SOURCE app.orders", "ALTER TOPIC app.t SET (max_deliveries = 1)",
    "ALTER TOPIC app.t SET RETENTION (seconds = 1)",
]  # fmt: skip


@pytest.mark.parametrize("sql", DEFINITIONS)
def test_who_may_define_topics(shared: TopicWorld, sql: str) -> None:
    for who in (SAM, ANN):
        with pytest.raises(PermissionDenied, match="managed by the roles dba and system"):
            shared.run(sql, who=who)


@pytest.mark.parametrize("sql", DEFINITIONS)
def test_definitions_stand_alone(shared: TopicWorld, sql: str) -> None:
    with pytest.raises(Unsupported, match="inside BEGIN … COMMIT") as caught:
        shared.run(f"BEGIN; {sql}; COMMIT")
    assert caught.value.statement == 2
    with pytest.raises(InvalidInput, match="EXECUTE AS USER takes"):
        shared.run(f"EXECUTE AS USER 'ann' ({sql})")
    with pytest.raises(SqlError, match="EXPLAIN"):
        shared.run(f"EXPLAIN {sql}")


# --- tables under topics ----------------------------------------------------------------------------------------------


def test_columns_that_sources_use_stay_as_they_are(world: TopicWorld) -> None:
    world.results(
        "CREATE TOPIC app.a;"
        "ALTER TOPIC app.a ADD SOURCE app.orders ON INSERT WHERE amount > 1;"
        "ALTER TOPIC app.a ADD SOURCE SELECT id, note FROM app.orders ON UPDATE"
    )
    for change, message in [
        ("DROP COLUMN amount", "condition of the source app.orders ON Insert of topic 'app.a'; not dropped"),
        ("RENAME COLUMN amount TO total", "'amount' is used by the condition .* not renamed"),
        ("MODIFY COLUMN amount BIGINT", "'amount' is used by the condition .* not changed from INT to BIGINT"),
        ("DROP COLUMN note", "'note' is used by the columns of the source app.orders ON Update .* not dropped"),
        ("MODIFY COLUMN note JSON", "'note' is used by the columns .* not changed from TEXT to JSON"),
    ]:  # fmt: skip
        with pytest.raises(ExecutionError, match=message):
            world.run(f"ALTER TABLE app.orders {change}")
    for change in ("RENAME COLUMN note TO remark", "DROP COLUMN details", "ADD COLUMN more INT"):
        world.run(f"ALTER TABLE app.orders {change}")
    world.results("INSERT INTO app.orders VALUES (1, 2, 'x', 3); UPDATE app.orders SET remark = 'y' WHERE id = 1")
    inserted, updated = world.consumed("app.a")
    assert (inserted[3]["remark"], inserted[3]["more"]) == ("y" if inserted[0] == "update" else "x", 3)
    assert {name for name in updated[3] if name[0] != "_"} == {"id", "remark"}
    world.results("ALTER TOPIC app.a DROP SOURCE app.orders; ALTER TABLE app.orders DROP COLUMN amount")


def test_dropping_a_table_or_a_namespace(world: TopicWorld) -> None:
    world.run("DROP TABLE app.orders")
    assert world.topic("app.taken").sources == ()
    world.results("CREATE NAMESPACE gone; CREATE TOPIC gone.one; CREATE TOPIC gone.two")
    with pytest.raises(ExecutionError, match=r"'gone' is not empty \(2 topic\(s\)\)"):
        world.run("DROP NAMESPACE gone RESTRICT")
    world.run("CREATE TABLE gone.t (id INT PRIMARY KEY)")
    with pytest.raises(ExecutionError, match=r"'gone' is not empty \(1 table\(s\), 2 topic\(s\)\)"):
        world.run("DROP NAMESPACE gone RESTRICT")
    world.run("DROP NAMESPACE gone")
    assert [topic.full_name for topic in world.engine.catalog.topics()] == ["app.t", "app.taken"]


# --- system.topics ----------------------------------------------------------------------------------------------------


def test_topics_are_shown(world: TopicWorld) -> None:
    world.results(
        "CREATE TOPIC app.shown PARTITIONS 3 WITH (retention_seconds = NULL, retention_bytes = 77);"
        "ALTER TOPIC app.shown ADD SOURCE app.notes ON INSERT WHERE body = 'x' WITH (payload = 'diff');"
        "ALTER TOPIC app.shown ADD SOURCE app.orders ON DELETE"
    )
    (row,) = world.rows("SELECT * FROM system.topics WHERE topic_id = 'app.shown'", who=DORA)
    assert row[:6] == ("app.shown", "shown", None, 3, None, 77)
    assert json.loads(row[6]) == [
        {"table_id": "app.notes", "op": "Insert", "payload_mode": "diff", "filter": "body = 'x'"},
        {"table_id": "app.orders", "op": "Delete", "payload_mode": "full", "filter": None},
    ]
    assert row[7] <= row[8]
    found = world.rows("SELECT topic_id, partitions, retention_seconds, routes FROM system.topics", who=ROOT)
    assert [row[:3] for row in found] == [("app.shown", 3, None), ("app.t", 1, 1000), ("app.taken", 1, 1000)]
    for who in (SAM, ANN):
        with pytest.raises(PermissionDenied):
            world.run("SELECT * FROM system.topics", who=who)


def test_a_dead_letter_topic_whose_namespace_is_gone(world: TopicWorld) -> None:
    world.results(
        "CREATE NAMESPACE gone; CREATE TOPIC gone.dead;"
        "CREATE TOPIC app.d WITH (max_deliveries = 1, dead_letter_topic = 'gone.dead');"
        "DROP NAMESPACE gone; PUBLISH TO app.d PAYLOAD '1', PAYLOAD '2', PAYLOAD '3'"
    )
    consume = ConsumeRequest(
        namespace="app", topic="d", group="g", start="earliest", limit=1, visibility=0.0, holder="x"
    )
    for offset in (0, 1, 2):
        (message,) = world.database.topics.consume_now(consume).messages
        assert message.offset == offset
    assert world.database.topics.consume_now(consume).messages == ()
    assert [row[4] for row in world.rows("CONSUME FROM app.d_dead_letter FROM EARLIEST")] == [b"1", b"2", b"3"]
