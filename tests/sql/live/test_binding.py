"""Which texts are live queries, what is wrong with the others and where, and which queries share a plan and a key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import InvalidParameter, InvalidSql, PermissionDenied, SqlError, TableNotFound, Unsupported
from sql.live.binding import bind_cached, bind_live, rebind
from sql.live.interface import Equality
from sql.live.table_query import TableQuery
from storage.catalog import AccessLevel, TableKind
from storage.types import BIGINT, BOOLEAN, DATE, DOUBLE, TEXT, TIMESTAMP, UUID
from tests.sql.live.live_world import ALICE, BOB, DBA, SERVICE, World, opened

COLUMNS = [("id", BIGINT), ("title", TEXT), ("done", BOOLEAN), ("price", DOUBLE), ("day", DATE), ("at", TIMESTAMP),
           ("tag", UUID)]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(Path(tmp_path_factory.mktemp("binding")) / "db") as made:
        made.table("t", COLUMNS)
        made.table("news", COLUMNS, kind=TableKind.SHARED)
        made.table("secret", COLUMNS, kind=TableKind.SHARED, access=AccessLevel.PRIVATE)
        yield made


REFUSED = [
    ("SELECT * FROM t", InvalidSql, "Query must use namespace.table format", (1, 15)),
    ("SELECT a.id FROM app.t a JOIN app.t b ON a.id = b.id", Unsupported, "JOIN", (1, 26)),
    ("SELECT * FROM app.t, app.news", Unsupported, "JOIN", (1, 20)),
    ("SELECT id\nFROM app.t\nORDER BY id LIMIT 3", Unsupported, "ORDER BY", (3, 1)),
    ("SELECT id FROM app.t LIMIT 3", Unsupported, "LIMIT", (1, 22)),
    ("SELECT id FROM app.t OFFSET 3", Unsupported, "OFFSET", (1, 22)),
    ("SELECT done FROM app.t GROUP BY done", Unsupported, "GROUP BY", (1, 24)),
    ("SELECT DISTINCT id FROM app.t", Unsupported, "DISTINCT", (1, 8)),
    ("SELECT count(*) FROM app.t", Unsupported, "aggregate COUNT()", (1, 8)),
    ("SELECT id, max(price) AS m FROM app.t", Unsupported, "aggregate MAX()", (1, 12)),
    ("SELECT mode(id) FROM app.t", Unsupported, "aggregate MODE()", (1, 8)),
    ("SELECT list(id) FROM app.t", Unsupported, "aggregate", None),
    ("SELECT id, row_number() OVER () AS n FROM app.t", Unsupported, "window function", None),
    ("SELECT id FROM app.t QUALIFY row_number() OVER () = 1", Unsupported, "QUALIFY", (1, 22)),
    ("WITH x AS (SELECT 1) SELECT * FROM app.t", Unsupported, "WITH", (1, 1)),
    ("SELECT id FROM app.t UNION ALL SELECT id FROM app.news", Unsupported, "UNION", (1, 22)),
    ("SELECT * FROM (SELECT * FROM app.t) x", Unsupported, "subquery", None),
    ("SELECT * FROM app.t WHERE id IN (SELECT id FROM app.news)", Unsupported, "subquery", None),
    ("SELECT id, (SELECT 1) AS one FROM app.t", Unsupported, "subquery", None),
    ("SELECT * FROM app.t WHERE EXISTS (SELECT 1)", Unsupported, "subquery", None),
    ("SELECT * FROM range(3)", Unsupported, "table function", None),
    ("SELECT * FROM app.t AS x(a, b)", Unsupported, "anew", None),
    ("SELECT COLUMNS('i.*') FROM app.t", Unsupported, "COLUMNS", (1, 8)),
    ("SELECT unnest([1, 2]) AS u FROM app.t", Unsupported, "several rows", (1, 8)),
    ("SELECT * FROM app.t USING SAMPLE 10%", Unsupported, "SAMPLE", (1, 21)),
    ("SELECT id, random() AS r FROM app.t", Unsupported, "RAND", None),
    ("SELECT * FROM app.t WHERE id = SNOWFLAKE_ID()", Unsupported, "SNOWFLAKE_ID()", (1, 32)),
    ("SELECT id, uuid() AS u FROM app.t", Unsupported, "UUID()", (1, 12)),
    ("SELECT 1", InvalidSql, "FROM namespace.table", (1, 1)),
    ("SELECT * FROM app.t; SELECT * FROM app.t", InvalidSql, "2 statements", (1, 22)),
    ("INSERT INTO app.t (id) VALUES (1)", InvalidSql, "SELECT", (1, 1)),
    ("SHOW TABLES", InvalidSql, "SELECT", (1, 1)),
    ("SELECT id, id FROM app.t", InvalidSql, "'id'", (1, 8)),
    ("SELECT id, title AS id FROM app.t", InvalidSql, "'id'", None),
    ("SELECT *, title FROM app.t", InvalidSql, "'title'", None),
    ("SELECT title AS _deleted FROM app.t", InvalidSql, "_deleted is taken", None),
    ("SELECT id AS _seq FROM app.t", InvalidSql, "_seq", None),
    ("SELECT nope FROM app.t", InvalidSql, "Column not found: 'nope'", (1, 8)),
    ("SELECT * FROM app.t WHERE nope = 1", InvalidSql, "Column not found: 'nope'", (1, 27)),
    ("SELECT nope(id) AS n FROM app.t", InvalidSql, "nope()", (1, 8)),
    ("SELECT * FROM app.missing", TableNotFound, "app.missing", (1, 19)),
    ("SELECT * FROM app.secret", PermissionDenied, "app.secret", (1, 19)),
    ("SELECT * FROM system.users", PermissionDenied, "system tables", None),
    ("SELECT * FROM app.t WHERE id = $1", InvalidParameter, "$1 is missing", None),
]


@pytest.mark.parametrize(("text", "kind", "part", "place"), REFUSED)
def test_refusals(world: World, text: str, kind: type[SqlError], part: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(kind) as caught:
        world.bind(text)
    assert type(caught.value) is kind
    assert part in caught.value.message
    if place is not None:
        assert (caught.value.line, caught.value.column) == place


def test_a_running_servers_state_is_not_live(world: World) -> None:
    with pytest.raises(Unsupported, match=r"system\.stats"):
        world.bind("SELECT * FROM system.stats", identity=DBA)


def test_surplus_parameters_are_refused(world: World) -> None:
    with pytest.raises(InvalidParameter, match="not used"):
        world.bind("SELECT * FROM app.t WHERE id = $1", 1, 2)


EQUALITIES = [
    ("id = 5", Equality("id", 5)),
    ("5 = id", Equality("id", 5)),
    ("(id) = (5) AND price > 1.5", Equality("id", 5)),
    ("x.title = 'a' AND done", Equality("title", "a")),
    ("done = true AND title = 'a'", Equality("title", "a")),
    ("done = false", Equality("done", False)),
    ("title IN ('a')", Equality("title", "a")),
    ("title = CURRENT_USER()", Equality("title", "alice")),
    ("day = '1970-01-03'", Equality("day", 2)),
    ("day = DATE '1970-01-03'", Equality("day", 2)),
    ("at = '1970-01-01 00:00:01'", Equality("at", 1_000_000)),
    ("tag = '00000000-0000-0000-0000-000000000001'", Equality("tag", bytes(15) + b"\1")),
    ("price = 5", None),
    ("id = 5 OR id = 6", None),
    ("id IN (5, 6)", None),
    ("id <> 5", None),
    ("NOT id = 5", None),
    ("id = id", None),
    ("id + 1 = 5", None),
    ("lower(title) = 'a'", None),
    ("_seq = 5", None),
]


@pytest.mark.parametrize(("where", "equality"), EQUALITIES)
def test_equality(world: World, where: str, equality: Equality | None) -> None:
    assert world.bind(f"SELECT * FROM app.t x WHERE {where}").equality == equality


def test_equality_with_a_parameter(world: World) -> None:
    query = world.bind("SELECT * FROM app.t WHERE id = $1 AND price < $2", 7, 1.5)
    assert query.equality == Equality("id", 7)


def test_queries_of_one_shape_share_a_plan(world: World) -> None:
    first, second = (world.bind(f"SELECT title FROM app.t WHERE id = {n}") for n in (1, 2))
    assert isinstance(first, TableQuery)
    assert isinstance(second, TableQuery)
    assert first.plan is second.plan
    assert first.key != second.key
    assert first.key == world.bind("SELECT title FROM app.t WHERE id = 1").key


def test_keys_follow_what_the_answer_depends_on(world: World) -> None:
    own, shared = "SELECT id FROM app.t", "SELECT id FROM app.news"
    assert world.bind(own, identity=ALICE).key != world.bind(own, identity=BOB).key
    assert world.bind(shared, identity=ALICE).key == world.bind(shared, identity=SERVICE).key
    mine = "SELECT id FROM app.news WHERE title = CURRENT_USER()"
    assert world.bind(mine, identity=ALICE).key != world.bind(mine, identity=BOB).key
    assert (
        world.bind("SELECT id FROM app.news WHERE price = 0.0").key
        != world.bind("SELECT id FROM app.news WHERE price = $1", -0.0).key
    )
    assert (
        world.bind("SELECT id FROM app.news WHERE at < NOW()").key
        != world.bind("SELECT id FROM app.news WHERE at < NOW()").key
    )


def test_a_literal_that_does_not_fit_its_column_is_no_parameter(world: World) -> None:
    query = world.bind("SELECT id FROM app.t WHERE id = 1.5")
    assert query.columns[0].name == "id"
    with world.engine.snapshot() as view:
        assert query.snapshot(view).num_rows == 0


def test_cached_binding_never_plans(world: World) -> None:
    text = "SELECT id, title FROM app.t WHERE price > 3 AND id = 1"
    with world.engine.snapshot() as view:
        assert bind_cached(text, (), "app", ALICE, world.services, view) is None
        made = bind_live(text, (), "app", ALICE, world.services, view)
        found = bind_cached(text.replace("= 1", "= 2"), (), "app", ALICE, world.services, view)
        assert isinstance(found, TableQuery)
        assert isinstance(made, TableQuery)
        assert found.plan is made.plan
        assert found.equality == Equality("id", 2)
        # another role has a plan of its own: rights are checked when it is made
        assert bind_cached(text, (), "app", DBA, world.services, view) is None


def test_columns(world: World) -> None:
    query = world.bind("SELECT title AS t, id FROM app.t")
    assert [(c.name, str(c.type)) for c in query.columns] == [("t", "TEXT"), ("id", "BIGINT"), ("_seq", "BIGINT")]
    assert [c.name for c in world.bind("SELECT * FROM app.t").columns] == [*(n for n, _ in COLUMNS), "_seq"]
    assert [c.name for c in world.bind("SELECT _seq, id FROM app.t").columns] == ["_seq", "id"]
    assert [c.name for c in world.bind("SELECT * EXCLUDE (title) FROM app.t").columns][:2] == ["id", "done"]
    assert [c.name for c in world.bind("SELECT id, _deleted FROM app.t").columns] == ["id", "_deleted", "_seq"]


def test_a_query_is_small(world: World) -> None:
    query = world.bind("SELECT * FROM app.t WHERE id = 123456789")
    assert isinstance(query, TableQuery)
    assert not hasattr(query, "__dict__")
    assert sys.getsizeof(query) <= 128


def test_rebinding_keeps_text_arguments_and_time(world: World) -> None:
    table = world.table("evolving", [("id", BIGINT), ("title", TEXT)])
    query = world.bind("SELECT * FROM app.evolving WHERE title = $1 AND id < 10", "x")
    assert isinstance(query, TableQuery)
    world.table("evolving", [("id", BIGINT), ("title", TEXT), ("more", TEXT)], table_id=table.table_id)
    with world.engine.snapshot() as view:
        anew = rebind(query, view)
    assert isinstance(anew, TableQuery)
    assert [c.name for c in anew.columns] == ["id", "title", "more", "_seq"]
    assert anew.now_us == query.now_us
    assert anew.equality == Equality("title", "x")
    world.commit(lambda writer: writer.drop_table(table.table_id))
    with world.engine.snapshot() as view, pytest.raises(TableNotFound):
        rebind(query, view)
