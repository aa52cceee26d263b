"""Who may read what: access levels, system tables, information_schema, and the user's own partition only."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sql.duck import DuckOptions, DuckPool
from sql.errors import PermissionDenied, SqlError, TableNotFound
from sql.explain import describe_plan
from sql.identity import Identity, Role, may_read_shared
from sql.query import Execution, stream_query
from sql.workers import Control
from storage.catalog import AccessLevel, TableKind, UserDef
from storage.types import BIGINT, TEXT
from tests.sql import query_grammar
from tests.sql.fake_view import FakeView
from tests.sql.query_grammar import Column
from tests.sql.query_support import ALICE, BOB, DBA, ROOT, SERVICE, World, rows_of, table

NOTES = table(1, "notes", [("id", BIGINT), ("body", TEXT)])
LEVELS = {
    level: table(10 + place, f"s_{level.value}", [("id", BIGINT), ("v", TEXT)], kind=TableKind.SHARED, access=level)
    for place, level in enumerate(AccessLevel)
}
OTHER = table(30, "plans", [("id", BIGINT)], namespace="secret", kind=TableKind.SHARED)
USERS = {("user", "alice"): UserDef("alice", "user", password_hash="$argon2id$secret")}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    view = FakeView([NOTES, *LEVELS.values(), OTHER], USERS)
    view.put(NOTES, "alice", [(1, "alice one"), (2, "alice two")])
    view.put(NOTES, "bob", [(1, "bob one"), (3, "bob three")])
    for level, definition in LEVELS.items():
        view.put(definition, "", [(1, level.value)])
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield World(view, pool)
    pool.close()


@pytest.mark.parametrize("level", list(AccessLevel))
@pytest.mark.parametrize("identity", [ALICE, SERVICE, DBA, ROOT])
def test_access_levels(world: World, level: AccessLevel, identity: Identity) -> None:
    name = LEVELS[level].name
    texts = [
        f"select v from {name}",
        f"select v from {name} where id = 1",
        f"with x as (select * from {name}) select v from x",
        f"select (select max(v) from {name})",
        f"select v from notes right join {name} using (id) union all select v from {name} where false",
        f"select a.v from {name} a where exists (select 1 from {name} b where a.id = b.id)",
    ]
    for text in texts:
        if may_read_shared(identity.role, level):
            assert world.rows(text, identity=identity) == [(level.value,)]
        else:
            with pytest.raises(PermissionDenied, match=f"{identity.role.value} may not read table"):
                world.run(text, identity=identity)


@pytest.mark.parametrize("identity", [ALICE, BOB, SERVICE, DBA, ROOT])
def test_a_user_table_is_the_callers_own_for_every_role(world: World, identity: Identity) -> None:
    expected = {"alice": ["alice one", "alice two"], "bob": ["bob one", "bob three"]}.get(identity.user, [])
    for text in [
        "select body from notes order by id",
        "select body from notes where id in (1, 2, 3)",
        "with x as (select * from notes) select body from x order by id",
        "select body from (select * from notes union select * from notes) order by id",
        "select max(body) from notes group by id order by id",
    ]:
        assert [row[0] for row in world.rows(text, identity=identity)] == expected


def test_one_plan_serves_every_user_of_a_role(world: World) -> None:
    plan = world.bind("select body, current_user from notes where id = 1 and upper(body) like '%'")
    for identity in (ALICE, BOB):
        batches = list(stream_query(plan, Execution(world.view, identity, Control(10)), world.runtime))
        assert rows_of(batches[0]) == [(f"{identity.user} one", identity.user)]


def test_missing_tables_name_only_what_the_caller_may_know(world: World) -> None:
    with pytest.raises(TableNotFound, match=r"'default.note'\. Did you mean 'default.notes'\?"):
        world.run("select * from note")
    with pytest.raises(TableNotFound) as caught:
        world.run("select * from s_privat")
    assert "s_private" not in caught.value.message.replace("'default.s_privat'", "")
    with pytest.raises(TableNotFound, match=r"Did you mean 'default\.s_private'"):
        world.run("select * from s_privat", identity=SERVICE)
    with pytest.raises(TableNotFound) as position:
        world.run("select 1\nfrom  nowhere")
    assert (position.value.line, position.value.column) == (2, 7)


def test_system_tables_are_for_admins(world: World) -> None:
    for name in ("users", "tables", "namespaces", "columns", "schemas", "datatypes", "settings", "stats", "nothing"):
        for identity in (ALICE, SERVICE):
            with pytest.raises(PermissionDenied):
                world.run(f"select * from system.{name}", identity=identity)
    assert world.rows("select user_id, password_hash from system.users", identity=ROOT) == [("alice", "***")]
    with pytest.raises(TableNotFound):
        world.run("select * from system.nothing", identity=DBA)


@pytest.mark.parametrize("identity", [ALICE, SERVICE, DBA])
def test_information_schema_shows_what_may_be_read(world: World, identity: Identity) -> None:
    ours = "table_schema in ('default', 'secret')"
    names = {
        row[0]
        for row in world.rows(f"select table_name from information_schema.tables where {ours}", identity=identity)
    }
    expected = {"notes"} | {t.name for level, t in LEVELS.items() if may_read_shared(identity.role, level)}
    expected |= {"plans"} if identity.role is not Role.USER else set()
    assert names == expected
    columns = world.rows(f"select distinct table_name from information_schema.columns where {ours}", identity=identity)
    assert {row[0] for row in columns} == expected
    [(system,)] = world.rows(
        "select count(*) > 0 from information_schema.tables where table_schema = 'system'", identity=identity
    )
    assert system == identity.role.is_admin


def test_explain_names_only_the_callers_partition(world: World) -> None:
    plan = world.bind("select body from notes where id = 1")
    lines = "\n".join(describe_plan(plan, ALICE))
    assert "partition of user 'alice'" in lines
    assert "bob" not in lines


@st.composite
def statements(draw: st.DrawFn) -> tuple[tuple[Column, ...], query_grammar.Query]:
    shape = draw(query_grammar.columns())
    return shape, draw(query_grammar.queries(shape))


_SECRETS = {"BOOLEAN": True, "TEXT": "of-bob", "UUID": b"B" * 16, "DOUBLE": 77777.25}


def _secret(column: Column) -> object:
    """A value that no query of the grammar spells."""
    name = str(column.type)
    return _SECRETS.get(name, Decimal("77777.25") if column.type.precision else 7777)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=statements())
def test_no_statement_reads_another_partition(
    world: World, case: tuple[tuple[Column, ...], query_grammar.Query]
) -> None:
    shape, query = case
    definition = table(1, "t", [(c.name, c.type) for c in shape], key=[c.name for c in shape if c.key])
    view = FakeView([definition])
    view.put(definition, "bob", [tuple(_secret(column) for column in shape)])
    here = World(view, world.pool)
    view.reads.clear()
    try:
        result = here.run(query.text, *query.params)
        shown = repr(rows_of(result))
    except SqlError as error:
        shown = error.message
    assert {partition for _, partition in view.reads} <= {"alice"}
    assert "of-bob" not in shown
    assert "7777" not in shown
