"""Each statement about topics to the dataclass that it means, and each mistake to its sentence and place."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from sql.dialect import parse_batch
from sql.errors import InvalidParameter, InvalidSql, SqlError, Unsupported
from sql.statements import AlterTable, CreateTable, Query, Statement
from sql.table_name import TableName
from sql.topic_arguments import MAX_GROUP_BYTES, MAX_NUMBER, group_of, group_refusal, number_of, position_of
from sql.topic_statements import (
    TOPIC_DEFINITIONS,
    TOPIC_MESSAGES,
    AckTopic,
    AddTopicSource,
    AlterTopicOptions,
    ClearTopic,
    ConsumeFrom,
    CreateTopic,
    DropTopic,
    DropTopicSource,
    MessageValue,
    Publish,
    PublishedMessage,
    RequestParameter,
    ResetGroup,
)
from storage.types import BYTES, JSON, TEXT


def one(text: str) -> Statement:
    """The only statement of a text."""
    (parsed,) = parse_batch(text)
    return parsed.statement


def refused(text: str) -> SqlError:
    """The error of a text."""
    with pytest.raises(SqlError) as caught:
        parse_batch(text)
    return caught.value


def topic(column: int, namespace: str | None = "app", name: str = "t") -> TableName:
    return TableName(namespace, name, 1, column)


FORMS: list[tuple[str, Statement]] = [
    ("CREATE TOPIC app.t", CreateTopic(topic(14))),
    ("create topic if not exists App.T partitions 4", CreateTopic(topic(28), 4, if_not_exists=True)),
    (
        """CREATE TOPIC app.t PARTITIONS 2 WITH (RETENTION_SECONDS = 60, retention_bytes = 9223372036854775807,
        max_deliveries = 5, dead_letter_topic = 'app.Dead')""",
        CreateTopic(topic(14), 2, options={
            "retention_seconds": 60, "retention_bytes": MAX_NUMBER, "max_deliveries": 5,
            "dead_letter_topic": "app.dead",
        }),
    ),
    (
        "CREATE TOPIC app.t WITH (retention_seconds = NULL, dead_letter_topic = null)",
        CreateTopic(topic(14), options={"retention_seconds": None, "dead_letter_topic": None}),
    ),
    ('CREATE TOPIC "App"."T"', CreateTopic(topic(14, "App"))),
    ("DROP TOPIC t", DropTopic(topic(12, None))),
    ("DROP TOPIC IF EXISTS app.t", DropTopic(topic(22), if_exists=True)),
    ("CLEAR TOPIC app.t;", ClearTopic(topic(13))),
    (
        "ALTER TOPIC app.t ADD SOURCE app.Orders ON INSERT",
        AddTopicSource(topic(13), TableName("app", "orders", 1, 30), ("insert",)),
    ),
    (
        "ALTER TOPIC t ADD SOURCE o ON DELETE, insert, UPDATE WITH (payload = 'Diff')",
        AddTopicSource(topic(13, None), TableName(None, "o", 1, 26), ("delete", "insert", "update"), payload="diff"),
    ),
    (
        "ALTER TOPIC t ADD SOURCE o ON UPDATE WITH (payload = key)",
        AddTopicSource(topic(13, None), TableName(None, "o", 1, 26), ("update",), payload="key"),
    ),
    ("ALTER TOPIC t DROP SOURCE a.o", DropTopicSource(topic(13, None), TableName("a", "o", 1, 27))),
    (
        "ALTER TOPIC t DROP SOURCE a.o ON INSERT, DELETE",
        DropTopicSource(topic(13, None), TableName("a", "o", 1, 27), ("insert", "delete")),
    ),
    (
        "ALTER TOPIC t SET RETENTION (seconds = 60, bytes = NULL)",
        AlterTopicOptions(topic(13, None), {"retention_seconds": 60, "retention_bytes": None}),
    ),
    (
        "ALTER TOPIC t SET (retention_seconds = 60, max_deliveries = 3)",
        AlterTopicOptions(topic(13, None), {"retention_seconds": 60, "max_deliveries": 3}),
    ),
    ("CONSUME FROM app.t", ConsumeFrom(topic(14))),
    (
        "CONSUME FROM app.t GROUP 'g' PARTITION 3 FROM EARLIEST LIMIT 10",
        ConsumeFrom(topic(14), "g", 3, "earliest", 10),
    ),
    ("consume from app.t limit 1 from latest group G", ConsumeFrom(topic(14), "g", None, "latest", 1)),
    ("CONSUME FROM app.t FROM 9223372036854775807", ConsumeFrom(topic(14), start=MAX_NUMBER)),
    ("CONSUME FROM app.t FROM OFFSET 7", ConsumeFrom(topic(14), start=7)),
    (
        "CONSUME FROM app.t GROUP $1 PARTITION $2 FROM $3 LIMIT $4",
        ConsumeFrom(
            topic(14), RequestParameter(1, 1, 26), RequestParameter(2, 1, 39), RequestParameter(3, 1, 47),
            RequestParameter(4, 1, 56),
        ),
    ),
    ("ACK app.t GROUP 'it''s' UPTO OFFSET 0", AckTopic(topic(5), "it's", 0)),
    ('ACK app.t GROUP "G" PARTITION 2 UPTO OFFSET 17', AckTopic(topic(5), "G", 17, 2)),
    (
        "ACK app.t GROUP 'g' PARTITION $2 UPTO OFFSET $1",
        AckTopic(topic(5), "g", RequestParameter(1, 1, 46), RequestParameter(2, 1, 31)),
    ),
    ("RESET CONSUMER GROUP 'g' ON app.t TO EARLIEST", ResetGroup(topic(29), "g", "earliest")),
    ("RESET CONSUMER GROUP g ON app.t PARTITION 1 TO LATEST", ResetGroup(topic(27), "g", "latest", 1)),
    ("RESET CONSUMER GROUP g ON app.t TO OFFSET 5", ResetGroup(topic(27), "g", 5)),
    ("RESET CONSUMER GROUP g ON app.t TO 5", ResetGroup(topic(27), "g", 5)),
    ("RESET CONSUMER GROUP g ON app.t TO OFFSET $1", ResetGroup(topic(27), "g", RequestParameter(1, 1, 43))),
    (
        "PUBLISH TO app.t PAYLOAD 'x'",
        Publish(topic(12), (PublishedMessage(None, MessageValue("x", None, 1, 26)),)),
    ),
    (
        "PUBLISH TO app.t KEY 'k' PAYLOAD X'00FF', KEY 1 PAYLOAD $1::JSON",
        Publish(topic(12), (
            PublishedMessage(MessageValue("k", None, 1, 22), MessageValue(b"\x00\xff", None, 1, 34)),
            PublishedMessage(
                MessageValue(1, None, 1, 47), MessageValue(RequestParameter(1, 1, 57), JSON, 1, 57)
            ),
        )),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FORMS, ids=[text for text, _ in FORMS])
def test_forms(text: str, expected: Statement) -> None:
    assert one(text) == expected


def test_every_statement_has_a_form() -> None:
    assert {type(statement) for _, statement in FORMS} == {*TOPIC_DEFINITIONS, *TOPIC_MESSAGES}


@pytest.mark.parametrize(
    ("written", "value", "cast"),
    [
        ("'it''s'", "it's", None),
        ("''", "", None),
        (r"E'a\n'", "a\n", None),
        ("X''", b"", None),
        ("12", 12, None),
        ("-12", -12, None),
        ("99999999999999999999", 99999999999999999999, None),
        ("1.50", Decimal("1.50"), None),
        ("-.5", Decimal("-0.5"), None),
        ("1e3", 1000.0, None),
        ("TRUE", True, None),
        ("false", False, None),
        ("NULL", None, None),
        ("$1", RequestParameter(1, 1, 26), None),
        ("'{}'::JSON", "{}", JSON),
        ("'x'::varchar(10)", "x", TEXT),
        (r"'\xff'::BYTEA", r"\xff", BYTES),
        ("CAST('{}' AS JSONB)", "{}", JSON),
        ("CAST($1 AS TEXT)", RequestParameter(1, 1, 31), TEXT),
    ],
)
def test_payloads(written: str, value: object, cast: object) -> None:
    statement = one(f"PUBLISH TO app.t PAYLOAD {written}")
    assert isinstance(statement, Publish)
    ((message,),) = (statement.messages,)
    assert message == PublishedMessage(None, MessageValue(value, cast, 1, 26))  # type: ignore[arg-type]
    assert type(message.payload.value) is type(value)


def source(text: str) -> AddTopicSource:
    statement = one(f"ALTER TOPIC app.t ADD SOURCE {text}")
    assert isinstance(statement, AddTopicSource)
    return statement


@pytest.mark.parametrize(
    ("condition", "meaning"),
    [
        ("amount > 10", "amount > 10"),
        ("a = 'with (x)' AND b::TIMESTAMP WITH TIME ZONE > '2026-01-01'",
         "a = 'with (x)' AND CAST(b AS TIMESTAMPTZ) > '2026-01-01'"),
        ("(a OR b)\n  AND c IN (1, 2)", "(a OR b) AND c IN (1, 2)"),
        ('"With" > 1', '"with" > 1'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", ["", " WITH (payload = 'key')"])
def test_conditions(condition: str, meaning: str, options: str) -> None:
    statement = source(f"app.o ON INSERT WHERE {condition}{options}")
    assert statement.condition is not None
    assert statement.condition.sql("duckdb") == meaning
    assert statement.condition_text == condition
    assert statement.payload == ("key" if options else "full")


def test_a_query_as_a_source() -> None:
    statement = source("SELECT id, a FROM app.o AS x WHERE x.a > 1 ON INSERT, UPDATE WITH (payload = 'diff')")
    assert statement.table == TableName("app", "o", 1, 48)
    assert statement.operations == ("insert", "update")
    assert statement.payload == "diff"
    assert statement.query_text == "SELECT id, a FROM app.o AS x WHERE x.a > 1"
    assert statement.query is not None
    assert statement.query.sql("duckdb") == statement.query_text
    assert statement.condition is not None
    assert statement.condition.sql("duckdb") == "x.a > 1"
    whole = source('SELECT * FROM "App".o ON DELETE')
    assert (whole.condition, whole.query_text, whole.table.namespace) == (None, 'SELECT * FROM "App".o', "App")


ADD = "ALTER TOPIC app.t ADD SOURCE "
OPTIONS = "retention_seconds, retention_bytes, max_deliveries, dead_letter_topic"
MISTAKES: list[tuple[str, int, str]] = [
    ("CREATE TOPIC", 13, "Expected a topic's name, but the statement ended."),
    ("CREATE TOPIC t", 14, "A new topic is named with its namespace: CREATE TOPIC app.t."),
    ("CREATE TOPIC a.b.c", 17, "A topic is named by a namespace and a name, nothing more."),
    ("CREATE TOPIC 'a.b'", 14, "Expected a topic's name, but found \"'a.b'\"."),
    ("CREATE TOPIC app.t PARTITIONS", 30, "Expected a number of partitions, but the statement ended."),
    ("CREATE TOPIC app.t PARTITIONS 0", 31, "A topic has at least one partition."),
    ("CREATE TOPIC app.t PARTITIONS -1", 31, "Expected a number of partitions, but found '-'."),
    ("CREATE TOPIC app.t (id INT)", 20, "'(' was not expected here."),
    ("CREATE TOPIC app.t WITH ()", 26, "Expected an option's name, but found ')'."),
    ("CREATE TOPIC app.t WITH (retention = 1)", 26, f"'retention' is not an option of a topic: {OPTIONS}."),
    ("CREATE TOPIC app.t WITH (max_deliveries = 1, MAX_DELIVERIES = 1)", 46,
     "The option 'max_deliveries' is given twice."),
    ("CREATE TOPIC app.t WITH (max_deliveries 1)", 41, "Expected =, but found '1'."),
    ("CREATE TOPIC app.t WITH (max_deliveries = ", 42, "Expected a value, but the statement ended."),
    *(
        (f"CREATE TOPIC app.t WITH (retention_bytes = {value})", 44,
         "The option retention_bytes must be a whole number from 1, or NULL for none.")
        for value in ("0", "-1", "1.5", "'1'", "true", "9223372036854775808", "soon")
    ),
    *(
        (f"CREATE TOPIC app.t WITH (dead_letter_topic = {value})", 46,
         "The option dead_letter_topic must be a topic's name as 'namespace.name', or NULL for none.")
        for value in ("'dead'", "'a.b.c'", "'.d'", "1", "dead")
    ),
    ("DROP TOPIC a, b", 13, "DROP TOPIC takes one topic."),
    ("DROP TOPIC a CASCADE", 14, "'CASCADE' was not expected here."),
    ("CLEAR t", 7, "Expected TOPIC, but found 't'."),
    ("ALTER TOPIC app.t", 18, "Expected ADD SOURCE, DROP SOURCE or SET, but the statement ended."),
    ("ALTER TOPIC app.t ADD app.o", 23, "Expected SOURCE, but found 'app'."),
    ("ALTER TOPIC app.t SET", 22, "Expected RETENTION (…) or options in parentheses, but the statement ended."),
    ("ALTER TOPIC app.t SET RETENTION (days = 1)", 34, "'days' is not an option of SET RETENTION: seconds, bytes."),
    ("ALTER TOPIC app.t SET (x = 1)", 24, f"'x' is not an option of a topic: {OPTIONS}."),
    ("ALTER TOPIC t DROP SOURCE o, DROP SOURCE p", 28, "ALTER TOPIC takes one operation; write a statement for each."),
    ("ALTER TOPIC t DROP SOURCE o WHERE a", 29, "'WHERE' was not expected here."),
    (ADD, 29, "Expected a table name, but the statement ended."),
    (ADD + "app.o", 35, "Expected ON, but the statement ended."),
    (ADD + "app.o ON TRUNCATE", 39, "Expected INSERT, UPDATE or DELETE, but found 'TRUNCATE'."),
    (ADD + "app.o ON INSERT,", 46, "Expected INSERT, UPDATE or DELETE, but the statement ended."),
    (ADD + "app.o ON INSERT, INSERT", 47, "INSERT is given twice."),
    (ADD + "app.o ON INSERT WHERE", 51, "Expected an expression here."),
    (ADD + "app.o ON INSERT WHERE WITH (payload = 'key')", 51, "Expected an expression here."),
    (ADD + "app.o ON INSERT WHERE a >", 55, "The statement ends too early."),
    (ADD + "app.o ON INSERT WHERE a > $1", 56,
     "The condition of a source is stored and takes no parameters; write the value."),
    (ADD + "app.o ON INSERT WITH (payload = 'all')", 62, "The option payload is 'full', 'key' or 'diff'."),
    (ADD + "app.o ON INSERT WITH (payload = NULL)", 62, "The option payload is 'full', 'key' or 'diff'."),
    (ADD + "app.o ON INSERT WITH (mode = 'key')", 52, "'mode' is not an option of a source: payload."),
    (ADD + "app.o ON INSERT WITH (payload = 'key') WHERE a", 69, "'WHERE' was not expected here."),
    (ADD + "SELECT * FROM app.o", 49, "Expected ON, but the statement ended."),
    (ADD + "SELECT * FROM app.o ON INSERT WHERE a", 60, "The condition of a query stands inside it, before ON."),
    (ADD + "SELECT * FROM app.o WHERE a = $1 ON INSERT", 60,
     "The condition of a source is stored and takes no parameters; write the value."),
    *(
        (f"{ADD}{query} ON INSERT", 30, "A source is a table or a SELECT from one table.")
        for query in (
            "SELECT 1", "SELECT * FROM app.o JOIN app.p USING (id)", "SELECT * FROM app.o, app.p",
            "SELECT * FROM (SELECT 1)", "SELECT 1 FROM a UNION SELECT 2 FROM a", "WITH x AS (SELECT 1) SELECT * FROM x",
            "SELECT * FROM range(3)", "SELECT * FROM a.b.c",
        )
    ),
    ("CONSUME app.t", 9, "Expected FROM, but found 'app'."),
    ("CONSUME FROM app.t WHERE a", 20, "Expected GROUP, PARTITION, FROM, LIMIT or the end, but found 'WHERE'."),
    ("CONSUME FROM app.t GROUP", 25, "Expected a consumer group's name, but the statement ended."),
    ("CONSUME FROM app.t GROUP 5", 26, "Expected a consumer group's name, but found '5'."),
    ("CONSUME FROM app.t GROUP ''", 26, "A consumer group's name has 1 to 255 bytes of UTF-8, not 0."),
    (f"CONSUME FROM app.t GROUP '{'é' * 128}'", 26, "A consumer group's name has 1 to 255 bytes of UTF-8, not 256."),
    ("CONSUME FROM app.t GROUP 'a\tb'", 26, "A consumer group's name may not hold control characters."),
    ("CONSUME FROM app.t GROUP 'a' GROUP 'b'", 30, "GROUP is given twice."),
    ("CONSUME FROM app.t LIMIT 1 LIMIT 1", 28, "LIMIT is given twice."),
    ("CONSUME FROM app.t LIMIT 0", 26,
     "Expected a number of messages from 1 to 9223372036854775807, but found '0'."),
    ("CONSUME FROM app.t LIMIT all", 26, "Expected a number of messages, but found 'all'."),
    ("CONSUME FROM app.t LIMIT 1.5", 26, "Expected a number of messages, but found '1.5'."),
    ("CONSUME FROM app.t PARTITION -1", 30, "Expected a partition's number, but found '-'."),
    ("CONSUME FROM app.t FROM newest", 25, "Expected LATEST, EARLIEST or an offset, but found 'newest'."),
    ("CONSUME FROM app.t FROM 9223372036854775808", 25,
     f"Expected LATEST, EARLIEST or an offset from 0 to {MAX_NUMBER}, but found '9223372036854775808'."),
    ("CONSUME FROM app.t FROM OFFSET latest", 32, "Expected an offset, but found 'latest'."),
    ("ACK app.t", 10, "Expected GROUP, but the statement ended."),
    ("ACK app.t GROUP 'g' OFFSET 5", 21, "Expected UPTO, but found 'OFFSET'."),
    ("ACK app.t GROUP 'g' UPTO 5", 26, "Expected OFFSET, but found '5'."),
    ("ACK app.t GROUP 'g' UPTO OFFSET latest", 33, "Expected an offset, but found 'latest'."),
    ("ACK app.t GROUP 'g' UPTO OFFSET 1 PARTITION 0", 35, "'PARTITION' was not expected here."),
    ("RESET CONSUMER 'g'", 16, "Expected GROUP, but found \"'g'\"."),
    ("RESET CONSUMER GROUP 'g' TO EARLIEST", 26, "Expected ON, but found 'TO'."),
    ("RESET CONSUMER GROUP 'g' ON app.t", 34, "Expected TO, but the statement ended."),
    ("RESET CONSUMER GROUP 'g' ON app.t TO OFFSET", 44, "Expected an offset, but the statement ended."),
    ("PUBLISH app.t", 9, "Expected TO, but found 'app'."),
    ("PUBLISH TO app.t", 17, "Expected KEY or PAYLOAD, but the statement ended."),
    ("PUBLISH TO app.t 'x'", 18, "Expected KEY or PAYLOAD, but found \"'x'\"."),
    ("PUBLISH TO app.t KEY 'k'", 25, "Expected PAYLOAD, but the statement ended."),
    ("PUBLISH TO app.t PAYLOAD", 25, "Expected a literal or a parameter after PAYLOAD, but the statement ended."),
    ("PUBLISH TO app.t PAYLOAD now()", 26, "Expected a literal or a parameter after PAYLOAD, but found 'now'."),
    ("PUBLISH TO app.t PAYLOAD 'a' || 'b'", 30, "'||' was not expected here."),
    ("PUBLISH TO app.t PAYLOAD -'a'", 27, "Expected a literal or a parameter after PAYLOAD, but found \"'a'\"."),
    ("PUBLISH TO app.t PAYLOAD 1e999", 26, "'1e999' is beyond the range of DOUBLE."),
    ("PUBLISH TO app.t PAYLOAD 'a', 'b'", 31, "Expected KEY or PAYLOAD, but found \"'b'\"."),
    ("PUBLISH TO app.t PAYLOAD 1::DATE", 29, "PAYLOAD may be cast to TEXT, JSON, BYTES, but DATE is none of these."),
    ("PUBLISH TO app.t KEY CAST(1 AS BYTES) PAYLOAD 1", 32, "KEY may be cast to TEXT, but BYTES is none of these."),
    ("PUBLISH TO app.t PAYLOAD CAST(1)", 32, "Expected AS, but found ')'."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "message"), MISTAKES, ids=[text[:70] for text, _, _ in MISTAKES])
def test_mistakes_have_their_sentence_and_place(text: str, column: int, message: str) -> None:
    error = refused("SELECT 1;\n" + text)
    assert type(error) is InvalidSql
    assert (error.message, error.line, error.column) == (message, 2, column)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ALTER TOPIC IF EXISTS t SET (max_deliveries = 1)", "ALTER TOPIC IF EXISTS"),
        ("ALTER TOPIC t RENAME TO u", "Renaming a topic"),
        ("ALTER TOPIC t SET PARTITIONS 4", "decides which partition a key goes to"),
        ("CREATE OR REPLACE TOPIC a.t", "OR REPLACE TOPIC"),
        ("RESET search_path", "RESET of anything but a CONSUMER GROUP"),
    ],
)
def test_what_is_not_there_is_named(text: str, message: str) -> None:
    error = refused(text)
    assert type(error) is Unsupported
    assert message in error.message
    assert error.line == 1


WORDS = ("ack", "clear", "consume", "consumer", "deliveries", "earliest", "latest", "offset", "partitions", "payload",
         "publish", "reset", "retention", "source", "topic", "topics", "upto")  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_words_of_topics_stay_names(word: str) -> None:
    created, altered, selected, consumed = (
        parsed.statement
        for parsed in parse_batch(
            f"CREATE TABLE {word} ({word} INT PRIMARY KEY); ALTER TABLE app.{word} ADD COLUMN {word} TEXT;"
            f"SELECT {word}, {word}.{word} AS x FROM app.{word} WHERE {word} > 1;"
            f"CONSUME FROM {word}.{word} GROUP {word}"
        )
    )
    assert isinstance(created, CreateTable)
    assert (created.table.name, created.columns[0].name) == (word, word)
    assert isinstance(altered, AlterTable)
    assert isinstance(selected, Query)
    assert {column.name for column in selected.ast.find_all(exp.Column)} == {word}
    assert isinstance(consumed, ConsumeFrom)
    assert (consumed.topic.namespace, consumed.topic.name, consumed.group) == (word, word, word)


def test_semicolons_split_statements_and_quotes_keep_them() -> None:
    published, acknowledged = parse_batch("PUBLISH TO a.t PAYLOAD ';'; ACK a.t GROUP ';' UPTO OFFSET 1;")
    assert published.text == "PUBLISH TO a.t PAYLOAD ';'"
    assert isinstance(acknowledged.statement, AckTopic)
    assert acknowledged.statement.group == ";"


def test_parameters_are_noted() -> None:
    (parsed,) = parse_batch("PUBLISH TO a.t KEY $2 PAYLOAD $1, PAYLOAD $4::JSON")
    assert parsed.parameters == {1, 2, 4}


# --- properties: what is written comes back ---------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}\Z", fullmatch=True)
GROUPS = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=60)
NUMBERS = st.integers(0, MAX_NUMBER)
POSITIONS = st.sampled_from(["latest", "earliest"]) | NUMBERS
LITERALS = (
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
    | st.binary() | st.booleans() | st.integers() | st.none()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-10**12, max_value=10**12)
)  # fmt: skip


def quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def literal(value: object) -> str:
    """A value as SQL text."""
    match value:
        case str():
            return quoted(value)
        case bytes():
            return f"X'{value.hex()}'"
        case None | bool():
            return str(value).upper().replace("NONE", "NULL")
        case Decimal():
            return format(value, "f")
    return str(value)


@given(
    namespace=NAMES, name=NAMES, group=GROUPS, partition=st.none() | NUMBERS, start=st.none() | POSITIONS,
    limit=st.none() | st.integers(1, MAX_NUMBER), order=st.permutations(range(4)),
)  # fmt: skip
def test_consume_in_any_order_reads_back(
    namespace: str,
    name: str,
    group: str,
    partition: int | None,
    start: str | int | None,
    limit: int | None,
    order: list[int],
) -> None:
    clauses = [
        f"GROUP {quoted(group)}" if len(group.encode()) <= MAX_GROUP_BYTES else "GROUP g",
        "" if partition is None else f"PARTITION {partition}",
        "" if start is None else f"FROM {start}",
        "" if limit is None else f"LIMIT {limit}",
    ]
    statement = one(f'CONSUME FROM "{namespace}"."{name}" ' + " ".join(clauses[i] for i in order))
    assert isinstance(statement, ConsumeFrom)
    assert (statement.topic.namespace, statement.topic.name) == (namespace, name)
    assert statement.group == (group if len(group.encode()) <= MAX_GROUP_BYTES else "g")
    assert (statement.partition, statement.start, statement.limit) == (partition, start, limit)


@given(st.lists(st.tuples(st.none() | st.tuples(LITERALS), LITERALS), min_size=1, max_size=5))
def test_publish_reads_back(messages: list[tuple[tuple[object] | None, object]]) -> None:
    written = ", ".join(
        ("" if key is None else f"KEY {literal(key[0])} ") + f"PAYLOAD {literal(payload)}" for key, payload in messages
    )
    statement = one(f"PUBLISH TO app.t {written}")
    assert isinstance(statement, Publish)
    read = [(None if m.key is None else (m.key.value,), m.payload.value) for m in statement.messages]
    assert read == messages
    assert [type(m.payload.value) for m in statement.messages] == [type(payload) for _, payload in messages]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "retention_seconds": st.none() | st.integers(1, MAX_NUMBER),
            "retention_bytes": st.none() | st.integers(1, MAX_NUMBER),
            "max_deliveries": st.none() | st.integers(1, MAX_NUMBER),
            "dead_letter_topic": st.none() | st.tuples(NAMES, NAMES).map(".".join),
        },
    ).filter(bool)
)
def test_options_read_back(options: dict[str, int | str | None]) -> None:
    written = ", ".join(f"{name} = {literal(value)}" for name, value in options.items())
    created, altered = parse_batch(f"CREATE TOPIC app.t WITH ({written}); ALTER TOPIC app.t SET ({written})")
    assert isinstance(created.statement, CreateTopic)
    assert isinstance(altered.statement, AlterTopicOptions)
    assert created.statement.options == altered.statement.options == options


BEGINNINGS = (
    "CREATE TOPIC app.t", "DROP TOPIC", "CLEAR TOPIC", "ALTER TOPIC t", "ALTER TOPIC t ADD SOURCE", "ALTER TOPIC t SET",
    "CONSUME FROM", "ACK t", "RESET CONSUMER GROUP", "PUBLISH TO t", "PUBLISH TO t PAYLOAD",
)  # fmt: skip
PIECES = (
    "app", ".", ",", "(", ")", "=", "'x'", "1", "-", "$1", "::", "TEXT", "CAST", "AS", "SELECT", "*", "FROM", "WHERE",
    "WITH", "ON", "INSERT", "payload", "retention_seconds", "NULL", "GROUP", "PARTITION", "LIMIT", "LATEST", "UPTO",
    "OFFSET", "TO", "KEY", "PAYLOAD", "SOURCE", "RETENTION", "PARTITIONS", '"Q"', "X'00'", "[", "]",
)  # fmt: skip


@given(st.sampled_from(BEGINNINGS), st.lists(st.sampled_from(PIECES), max_size=12))
def test_anything_is_a_statement_or_an_error_with_its_place(beginning: str, pieces: list[str]) -> None:
    text = " ".join((beginning, *pieces))
    found: SqlError | None = None
    try:
        (parsed,) = parse_batch(text)
    except SqlError as error:
        found = error
    if found is None:
        assert isinstance(parsed.statement, (*TOPIC_DEFINITIONS, *TOPIC_MESSAGES))
    else:
        assert found.line == 1
        assert found.column is not None
        assert 1 <= found.column <= len(text) + 1


# --- arguments that come with the request -----------------------------------------------------------------------------

FIRST = RequestParameter(1, 3, 7)


def test_arguments_are_what_is_written_or_what_the_request_brings() -> None:
    assert [number_of(5, ()), number_of(FIRST, [6]), number_of(FIRST, [0])] == [5, 6, 0]
    assert [group_of("g", ()), group_of(FIRST, ["h"])] == ["g", "h"]
    assert [position_of("latest", ()), position_of(7, ())] == ["latest", 7]
    assert [position_of(FIRST, [value]) for value in (8, "Latest", "EARLIEST")] == [8, "latest", "earliest"]


@pytest.mark.parametrize("value", [-1, 1.0, True, "5", None, [1], MAX_NUMBER + 1])
def test_wrong_numbers_are_refused(value: object) -> None:
    for find in (number_of, position_of):
        with pytest.raises(InvalidParameter, match=r"^Parameter \$1 must be ") as caught:
            find(FIRST, [value])
        assert (caught.value.line, caught.value.column) == (3, 7)


def test_a_number_may_have_a_least_value() -> None:
    with pytest.raises(InvalidParameter, match=r"\$1 must be a whole number from 1\."):
        number_of(FIRST, [0], least=1)


@pytest.mark.parametrize("value", ["", 5, None, "x" * 256, "a\nb", "\ud800"])
def test_wrong_groups_are_refused(value: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^Parameter \$1 must be a consumer group's name") as caught:
        group_of(FIRST, [value])
    assert (caught.value.line, caught.value.column) == (3, 7)
    assert group_refusal("Gruppe 7/ä") is None
