"""Payloads of table changes: `full`, `key` and `diff`, every type, NULLs, BIGINT modes; exact JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.live_conformance import number
from tests.e2e.test_conformance_live_values import COLUMNS, ROWS
from tests.e2e.topic_conformance import Topics, topic_server

DEFINITION = ", ".join(f"{name} {type_}" for name, (type_, _) in COLUMNS.items())
META = ["_seq", "_commit_seq", "_deleted", "_table"]


@pytest.fixture(scope="module", params=["auto", "string", "number"])
def topics(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("payloads"), HEADRACE_WIRE_BIGINT=request.param) as found:
        yield found


def by_sql(topics: Topics, table: str) -> list[dict[str, Any]]:
    """Rows with `_seq`, in the order of the key, as SQL over HTTP gives them."""
    (result,) = topics.server.sql(f"SELECT *, _seq FROM {table} ORDER BY id")
    names = [column["name"] for column in result["schema"]]
    return [dict(zip(names, row, strict=True)) for row in result["rows"]]


def same(found: Any, wanted: Any) -> None:
    """Equal, of equal types, in the same order: 1 is not 1.0, not "1" and not true."""
    assert found == wanted
    assert repr(found) == repr(wanted)


def test_full_is_the_row_as_sql_has_it(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(DEFINITION)
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES {', '.join(ROWS)}")
    rows = by_sql(topics, table)
    inserts = topics.read(topic)
    assert [message.key for message in inserts] == [str(row["id"]) for row in rows]
    for message, row in zip(inserts, rows, strict=True):
        payload = message.json
        assert list(payload) == [*COLUMNS, *META]
        same({name: payload[name] for name in [*COLUMNS, "_seq"]}, row)
        assert (payload["_deleted"], payload["_table"]) == (False, table)
        assert type(payload["_commit_seq"]) is type(payload["_seq"])
    topics.server.sql(f"UPDATE {table} SET t = 'changed' WHERE true")
    changed = by_sql(topics, table)
    for message, row in zip(topics.read(topic)[4:], changed, strict=True):
        same({name: message.json[name] for name in [*COLUMNS, "_seq"]}, row)
        assert (message.op, message.json["_deleted"]) == ("Update", False)
    topics.server.sql(f"DELETE FROM {table} WHERE true")
    for message, row in zip(topics.read(topic)[8:], changed, strict=True):
        same({name: message.json[name] for name in COLUMNS}, {name: row[name] for name in COLUMNS})
        assert list(message.json) == [*COLUMNS, *META]
        assert (message.op, message.json["_deleted"]) == ("Delete", True)


def test_sequence_numbers_say_what_belongs_together(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table)
    for each in range(4):
        topics.server.sql(f"INSERT INTO {table} VALUES ({2 * each}, 'a'), ({2 * each + 1}, 'b')")
    payloads = [message.json for message in topics.read(topic)]
    seqs = [number(payload["_seq"]) for payload in payloads]
    commits = [number(payload["_commit_seq"]) for payload in payloads]
    assert seqs == sorted(set(seqs))
    assert commits == sorted(commits)
    assert len(set(commits)) == 4
    assert commits[::2] == commits[1::2]


@pytest.mark.parametrize(
    ("columns", "values", "key"),
    [
        ("id INT PRIMARY KEY, v TEXT", "1, 'a'", {"id": 1}),
        ("v TEXT, id TEXT PRIMARY KEY", "'a', 'ä\"'", {"id": 'ä"'}),
        ("a INT, v TEXT, b TEXT, PRIMARY KEY (a, b)", "1, 'a', 'x'", {"a": 1, "b": "x"}),
    ],
)
def test_key_is_the_key_columns_only(topics: Topics, columns: str, values: str, key: dict[str, Any]) -> None:
    topic, table = topics.topic(), topics.table(columns)
    topics.source(topic, table, payload="key")
    topics.server.sql(f"INSERT INTO {table} VALUES ({values}); UPDATE {table} SET v = 'b' WHERE true")
    topics.server.sql(f"DELETE FROM {table} WHERE true")
    messages = topics.read(topic)
    assert [message.op for message in messages] == ["Insert", "Update", "Delete"]
    for message in messages:
        same(message.json, key)


def test_diff_is_what_changed(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table("id INT PRIMARY KEY, v TEXT, n BIGINT, ok BOOLEAN")
    topics.source(topic, table, payload="diff")
    seqs = []
    for sql in (
        "INSERT INTO {} (id, v, n) VALUES (1, 'a', 5)",
        "UPDATE {} SET v = 'b', n = 5 WHERE id = 1",
        "UPDATE {} SET v = NULL, ok = true WHERE id = 1",
        "UPDATE {} SET v = 'c', n = n + 1, ok = NULL WHERE id = 1",
    ):
        topics.server.sql(sql.format(table))
        seqs.append(topics.server.rows(f"SELECT _seq FROM {table}")[0][0])
    five, six = (topics.server.rows(f"SELECT n - {less} FROM {table}")[0][0] for less in (1, 0))
    topics.server.sql(f"DELETE FROM {table} WHERE id = 1")
    payloads = [message.json for message in topics.read(topic)]
    expected = [
        ({}, {"v": "a", "n": five}),
        ({"v": "a"}, {"v": "b"}),
        ({"v": "b", "ok": None}, {"v": None, "ok": True}),
        ({"v": None, "n": five, "ok": True}, {"v": "c", "n": six, "ok": None}),
        ({"v": "c", "n": six}, {}),
    ]
    for payload, (old, new) in zip(payloads, expected, strict=True):
        assert list(payload) == ["key", "old", "new", "_seq", "_commit_seq", "_table"]
        same(payload["key"], {"id": 1})
        assert payload["_table"] == table
        whole = not old or not new
        for side, wanted in (("old", old), ("new", new)):
            given = {name: value for name, value in payload[side].items() if name != "id"}
            if whole and wanted:  # of a whole row NULLs and the key may stand beside
                given = {name: value for name, value in given.items() if value is not None}
            same(given, wanted)
            assert "id" not in payload[side] or whole
    assert [payload["_seq"] for payload in payloads[:4]] == seqs
    assert len({str(payload["_commit_seq"]) for payload in payloads}) == 5


def test_diff_in_every_type(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(DEFINITION)
    topics.source(topic, table, "UPDATE", payload="diff")
    topics.server.sql(f"INSERT INTO {table} VALUES {ROWS[0]}, {ROWS[2]}")
    before = by_sql(topics, table)
    sets = ", ".join(f"{name} = {values[1]}" for name, (_, values) in list(COLUMNS.items())[1:])
    topics.server.sql(f"UPDATE {table} SET {sets} WHERE true")
    after = by_sql(topics, table)
    for message, old, new in zip(topics.read(topic), before, after, strict=True):
        payload = message.json
        same(payload["key"], {"id": old["id"]})
        changed = [name for name in COLUMNS if old[name] != new[name]]
        same(payload["old"], {name: old[name] for name in changed})
        same(payload["new"], {name: new[name] for name in changed})


def test_three_modes_of_one_table(topics: Topics) -> None:
    table = topics.table()
    of_mode = {mode: topics.topic() for mode in ("full", "key", "diff")}
    for mode, topic in of_mode.items():
        topics.source(topic, table, payload=mode)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a')")
    found = {mode: topics.read(topic)[0].json for mode, topic in of_mode.items()}
    assert found["full"]["_seq"] == found["diff"]["_seq"]
    assert found["full"]["_commit_seq"] == found["diff"]["_commit_seq"]
    assert found["key"] == found["diff"]["key"] == {"id": 1}
    assert found["full"]["v"] == found["diff"]["new"]["v"] == "a"


def test_modes_of_a_table_without_a_key(topics: Topics) -> None:
    table, full = topics.table("a INT, b TEXT"), topics.topic()
    topics.source(full, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, NULL); DELETE FROM {table} WHERE true")
    for message, deleted in zip(topics.read(full), (False, True), strict=True):
        assert list(message.json) == ["a", "b", *META]
        assert (message.json["a"], message.json["b"], message.json["_deleted"]) == (1, None, deleted)


def test_user_tables_show_their_columns_only(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(kind="USER")
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'a')")
    assert list(topics.read(topic)[0].json) == ["id", "v", *META]


def test_texts_that_json_must_escape(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table("id TEXT PRIMARY KEY, v TEXT")
    topics.source(topic, table)
    texts = ['"\\/\b\f\n\r\t', "\u2028\u2029", "\x01\x1f", "🦆" * 100, "</script>", "é e\u0301", "'", "null"]
    for text in texts:
        topics.server.sql(f"INSERT INTO {table} VALUES ($1, $1)", [text])
    messages = topics.read(topic)
    assert [(message.key, message.json["id"], message.json["v"]) for message in messages] == [
        (text, text, text) for text in texts
    ]


def test_the_same_over_sql(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table(DEFINITION)
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES {', '.join(ROWS)}")
    (result,) = topics.server.sql(f"CONSUME FROM {topic} FROM EARLIEST")
    at = [column["name"] for column in result["schema"]].index("payload")
    assert [bytes(row[at]) for row in result["rows"]] == [message.data for message in topics.read(topic)]
