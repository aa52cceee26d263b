"""Views as sources of topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import SqlError, Unsupported
from tests.sql.topic_world import TopicWorld, topic_world


@pytest.fixture
def db(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.run(
            "CREATE TABLE orders (id INT PRIMARY KEY, who TEXT, amount INT);"
            "CREATE VIEW large AS SELECT id, amount FROM orders WHERE amount > 10;"
            "CREATE VIEW renamed AS SELECT id AS k, amount FROM orders;"
            "CREATE VIEW totals AS SELECT who, sum(amount) AS total FROM orders GROUP BY who;"
            "CREATE TOPIC app.t"
        )
        yield world


def test_a_view_is_its_table_with_its_columns_and_condition(db: TopicWorld) -> None:
    assert "app.orders ON Insert" in db.message("ALTER TOPIC t ADD SOURCE large ON INSERT WHERE large.amount < 40")
    db.run("INSERT INTO orders VALUES (1, 'ann', 5), (2, 'bob', 20), (3, 'cid', 50)")
    [(operation, _, _, payload)] = db.consumed("t")
    assert (operation, payload["id"], payload["amount"]) == ("insert", 2, 20)
    assert "who" not in payload
    assert "app.orders ON Insert" in db.message("ALTER TOPIC t DROP SOURCE app.large")
    assert db.topic("app.t").sources == ()


def test_the_source_stays_what_the_view_was(db: TopicWorld) -> None:
    db.run("ALTER TOPIC t ADD SOURCE SELECT id FROM large ON INSERT")
    db.run("CREATE OR REPLACE VIEW large AS SELECT id, amount FROM orders; DROP VIEW large")
    db.run("INSERT INTO orders VALUES (1, 'ann', 5), (2, 'bob', 20)")
    assert [payload["id"] for _, _, _, payload in db.consumed("t")] == [2]


def test_the_key_alone(db: TopicWorld) -> None:
    db.run("ALTER TOPIC t ADD SOURCE large ON INSERT WITH (payload = 'key')")
    db.run("INSERT INTO orders VALUES (2, 'bob', 20), (3, 'ann', 1)")
    assert len(db.consumed("t")) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [("renamed", "other names"), ("totals", "cannot be read by the source of a topic"), ("nothing", "Table not found")],
)
def test_what_is_no_source(db: TopicWorld, source: str, message: str) -> None:
    with pytest.raises(SqlError, match=message) as caught:
        db.run(f"ALTER TOPIC t ADD SOURCE {source} ON INSERT")
    assert source == "nothing" or isinstance(caught.value, Unsupported)
    assert db.topic("app.t").sources == ()
