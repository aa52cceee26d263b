"""Definitions of topics and their sources: CREATE, ALTER, DROP and CLEAR TOPIC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import shown
from sql.errors import Unsupported
from sql.parser_cursor import Cursor
from sql.parser_queries import parse_expression, parse_tokens
from sql.table_name import TableName
from sql.topic_arguments import MAX_NUMBER
from sql.topic_statements import (
    AddTopicSource,
    AlterTopicOptions,
    ClearTopic,
    CreateTopic,
    DropTopic,
    DropTopicSource,
    PayloadKind,
    SourceOperation,
)

TopicOptions = dict[str, int | str | None]
OptionReader = Callable[[Cursor, str, Token], int | str | None]

_OPERATIONS: Final[dict[str, SourceOperation]] = {"insert": "insert", "update": "update", "delete": "delete"}
_PAYLOADS: Final[dict[str, PayloadKind]] = {"full": "full", "key": "key", "diff": "diff"}
_ONE_OPERATION: Final = "ALTER TOPIC takes one operation; write a statement for each."


# --- definitions ------------------------------------------------------------------------------------------------------


def parse_create_topic(cursor: Cursor) -> CreateTopic:
    """CREATE TOPIC, after the word TOPIC."""
    if_not_exists = cursor.if_not_exists()
    start = cursor.peek()
    topic = cursor.topic_name()
    if topic.namespace is None:
        cursor.fail(f"A new topic is named with its namespace: CREATE TOPIC app.{topic.name}.", start)
    partitions = 1
    if cursor.accept("partitions"):
        start = cursor.peek()
        partitions = cursor.integer("a number of partitions")
        if partitions < 1:
            cursor.fail("A topic has at least one partition.", start)
    options = _options(cursor, _TOPIC_OPTIONS, "of a topic") if cursor.accept("with") else {}
    return CreateTopic(topic, partitions, if_not_exists, options)


def parse_drop_topic(cursor: Cursor) -> DropTopic:
    """DROP TOPIC, after the word TOPIC."""
    if_exists = cursor.if_exists()
    topic = cursor.topic_name()
    if cursor.at(","):
        cursor.fail("DROP TOPIC takes one topic.")
    return DropTopic(topic, if_exists)


def parse_clear_topic(cursor: Cursor) -> ClearTopic:
    """CLEAR TOPIC, after the word CLEAR."""
    cursor.expect("topic")
    return ClearTopic(cursor.topic_name())


def parse_alter_topic(cursor: Cursor) -> AddTopicSource | DropTopicSource | AlterTopicOptions:
    """ALTER TOPIC, after the word TOPIC."""
    if cursor.at("if", "exists"):
        cursor.fail("ALTER TOPIC IF EXISTS is not supported.", kind=Unsupported)
    topic = cursor.topic_name()
    statement: AddTopicSource | DropTopicSource | AlterTopicOptions
    if cursor.accept("add"):
        cursor.expect("source")
        statement = _add_source(cursor, topic)
    elif cursor.accept("drop"):
        cursor.expect("source")
        table = cursor.table_name()
        statement = DropTopicSource(topic, table, _operations(cursor) if cursor.accept("on") else ())
    elif cursor.accept("set"):
        statement = AlterTopicOptions(topic, _changed_options(cursor))
    elif cursor.at("rename"):
        cursor.fail("Renaming a topic is not supported.", kind=Unsupported)
    else:
        cursor.fail_expected("ADD SOURCE, DROP SOURCE or SET")
    if cursor.at(","):
        cursor.fail(_ONE_OPERATION)
    return statement


def _changed_options(cursor: Cursor) -> TopicOptions:
    if cursor.at("partitions"):
        cursor.fail(
            "The number of a topic's partitions cannot be changed: it decides which partition a key goes to.",
            kind=Unsupported,
        )
    if cursor.accept("retention"):
        found = _options(cursor, _RETENTION_OPTIONS, "of SET RETENTION")
        return {f"retention_{name}": value for name, value in found.items()}
    if not cursor.at("("):
        cursor.fail_expected("RETENTION (…) or options in parentheses")
    return _options(cursor, _TOPIC_OPTIONS, "of a topic")


def _options(cursor: Cursor, known: dict[str, OptionReader], whose: str) -> TopicOptions:
    """Takes `(name = value, …)`, each value by the reader of its name."""
    cursor.expect("(")
    options: TopicOptions = {}
    while True:
        start = cursor.peek()
        name = cursor.name_or_string("an option's name").lower()
        read = known.get(name)
        if read is None:
            cursor.fail(f"{shown(name)} is not an option {whose}: {', '.join(known)}.", start)
        if name in options:
            cursor.fail(f"The option {shown(name)} is given twice.", start)
        cursor.expect("=")
        value = cursor.peek()
        if value is None:
            cursor.fail_expected("a value")
        options[name] = read(cursor, name, value)
        if not cursor.accept(","):
            break
    cursor.expect(")")
    return options


def _bound(cursor: Cursor, name: str, start: Token) -> int | None:
    """Takes a positive whole number, or NULL."""
    value = cursor.literal()
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= MAX_NUMBER:
        cursor.fail(f"The option {name} must be a whole number from 1, or NULL for none.", start)
    return value


def _topic_of_option(cursor: Cursor, name: str, start: Token) -> str | None:
    """Takes a topic's name in quotes, or NULL."""
    value = cursor.literal()
    if value is None:
        return None
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 2 or not all(parts):
        cursor.fail(f"The option {name} must be a topic's name as 'namespace.name', or NULL for none.", start)
    return f"{parts[0]}.{parts[1].lower()}"


_RETENTION_OPTIONS: Final[dict[str, OptionReader]] = {"seconds": _bound, "bytes": _bound}
_TOPIC_OPTIONS: Final[dict[str, OptionReader]] = {
    "retention_seconds": _bound,
    "retention_bytes": _bound,
    "max_deliveries": _bound,
    "dead_letter_topic": _topic_of_option,
}


# --- sources ----------------------------------------------------------------------------------------------------------


def _add_source(cursor: Cursor, topic: TableName) -> AddTopicSource:
    """A source, after ADD SOURCE."""
    query: exp.Select | None = None
    query_text = condition_text = None
    condition: exp.Expression | None = None
    if cursor.word() in ("select", "with", "("):
        query, query_text, table = _source_query(cursor)
        where = query.args.get("where")
        condition = where.this if isinstance(where, exp.Where) else None
    else:
        table = cursor.table_name()
    cursor.expect("on")
    operations = _operations(cursor)
    if query is not None and cursor.at("where"):
        cursor.fail("The condition of a query stands inside it, before ON.")
    if cursor.accept("where"):
        condition, condition_text = _condition(cursor)
    payload: PayloadKind = "full"
    if cursor.accept("with"):
        payload = _payload(cursor)
    return AddTopicSource(topic, table, operations, condition, condition_text, payload, query, query_text)


def _operations(cursor: Cursor) -> tuple[SourceOperation, ...]:
    """Takes INSERT, UPDATE, DELETE: one of them or several."""
    found: list[SourceOperation] = []
    while True:
        operation = _OPERATIONS.get(cursor.word())
        if operation is None:
            cursor.fail_expected("INSERT, UPDATE or DELETE")
        if operation in found:
            cursor.fail(f"{operation.upper()} is given twice.")
        found.append(operation)
        cursor.index += 1
        if not cursor.accept(","):
            return tuple(found)


def _condition(cursor: Cursor) -> tuple[exp.Expression, str]:
    """Takes the condition after WHERE, up to WITH (…), and its text."""
    end = _top_level(cursor, "with", ("(",))
    tokens = cursor.tokens[cursor.index : end]
    after = tokens[-1].end + 1 if tokens else cursor.tokens[cursor.index - 1].end + 1
    condition = parse_expression(tokens, cursor.source, after)
    _refuse_parameters(cursor, tokens)
    cursor.index = end
    return condition, _text(cursor, tokens)


def _source_query(cursor: Cursor) -> tuple[exp.Select, str, TableName]:
    """Takes a SELECT from one table, up to the ON of its operations."""
    end = _top_level(cursor, "on", tuple(_OPERATIONS))
    tokens = cursor.tokens[cursor.index : end]
    tree = parse_tokens(tokens, cursor.source)
    from_ = tree.args.get("from_") if isinstance(tree, exp.Select) else None
    table = from_.this if isinstance(from_, exp.From) else None
    if (
        not isinstance(tree, exp.Select)
        or not isinstance(table, exp.Table)
        or not isinstance(table.this, exp.Identifier)
        or table.catalog
        or tree.args.get("joins")
        or tree.args.get("with_")
    ):
        cursor.fail("A source is a table or a SELECT from one table.", tokens[0])
    _refuse_parameters(cursor, tokens)
    cursor.index = end
    place = (table.args.get("db") or table.this).meta
    return tree, _text(cursor, tokens), TableName(table.db or None, table.name, place["line"], place["col"])


def _refuse_parameters(cursor: Cursor, tokens: list[Token]) -> None:
    """A source is kept by the topic, where nobody gives values for parameters."""
    found = next((i for i, token in enumerate(tokens) if token.token_type is TokenType.PARAMETER), None)
    if found is not None:
        cursor.fail("The condition of a source is stored and takes no parameters; write the value.", tokens[found])


def _top_level(cursor: Cursor, word: str, following: tuple[str, ...]) -> int:
    """Where `word` stands outside of brackets with one of `following` behind it; else the statement's end."""
    depth = 0
    for ahead in range(cursor.end - cursor.index):
        here = cursor.word(ahead)
        if here in ("(", "[", "{"):
            depth += 1
        elif here in (")", "]", "}"):
            depth -= 1
        elif not depth and here == word and cursor.word(ahead + 1) in following:
            return cursor.index + ahead
    return cursor.end


def _payload(cursor: Cursor) -> PayloadKind:
    """Takes `(payload = 'mode')`."""
    found = _options(cursor, {"payload": _payload_kind}, "of a source")
    return _PAYLOADS[str(found["payload"])]


def _payload_kind(cursor: Cursor, name: str, start: Token) -> str:
    value = cursor.literal()
    if not isinstance(value, str) or value.lower() not in _PAYLOADS:
        cursor.fail(f"The option {name} is 'full', 'key' or 'diff'.", start)
    return value.lower()


def _text(cursor: Cursor, tokens: list[Token]) -> str:
    return cursor.source.text[tokens[0].start : tokens[-1].end + 1]
