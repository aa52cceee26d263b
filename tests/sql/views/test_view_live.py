"""A live query over a simple view is one over its table; what else views mean for who listens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sql.binder import BindContext
from sql.dialect import parse_batch
from sql.errors import InvalidSql, PermissionDenied, SqlError, TableNotFound, Unsupported
from sql.identity import Identity, Role
from sql.live.interface import LiveDelta, LiveQuery
from sql.live.wire_rows import table_rows
from sql.view_statements import CreateView
from sql.views.definitions import define
from storage.catalog import AccessLevel, TableKind
from storage.keys import encode_key
from storage.types import INT, TEXT
from storage.view_definitions import ViewDef
from tests.sql.live.hub_world import ALICE, ROOT, Client, until, world
from tests.sql.live.hub_world import World as Hub
from tests.sql.live.live_world import ALICE as CALLER
from tests.sql.live.live_world import DBA, World, opened

EXAMPLES = int(os.environ.get("HEADRACE_DIFFERENTIAL_EXAMPLES") or "25")
numbers = count()

PAIRS = [
    ("SELECT * FROM {t}", "SELECT * FROM {v}", "SELECT id, a, b FROM {t}"),
    ("SELECT id, a FROM {t} WHERE a > 1", "SELECT * FROM {v} WHERE id < 6",
     "SELECT id, a FROM {t} WHERE a > 1 AND id < 6"),
    ("SELECT id, a AS b, b AS a FROM {t}", "SELECT id, a FROM {v} WHERE b = 2",
     "SELECT id, b AS a FROM {t} WHERE a = 2"),
    ("SELECT upper(b) AS u, id FROM {t}", "SELECT id, u FROM {v} WHERE u <> 'X'",
     "SELECT id, upper(b) AS u FROM {t} WHERE upper(b) <> 'X'"),
    ("SELECT id, b FROM {t} WHERE a IS NOT NULL", "SELECT id FROM {v} AS x WHERE x.b = $1",
     "SELECT id FROM {t} WHERE a IS NOT NULL AND b = $1"),
    ("SELECT id AS k, md5(b) AS m FROM {t} WHERE id > 2", "SELECT k, m FROM {v}",
     "SELECT id AS k, md5(b) AS m FROM {t} WHERE id > 2"),
    ("SELECT id, _seq, a FROM {t}", "SELECT a, _seq FROM {v}", "SELECT a, _seq FROM {t}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(Path(tmp_path_factory.mktemp("views")) / "db") as made:
        yield made


def create(here: World, name: str, sql: str) -> None:
    [parsed] = parse_batch(f"CREATE OR REPLACE VIEW app.{name} AS {sql}")
    statement = parsed.statement
    assert isinstance(statement, CreateView)
    with here.engine.snapshot() as view:
        binding = BindContext(view.catalog, here.services.system, "app", Role.SYSTEM, here.pool)
        made = define(statement, ViewDef("app", name, (), ""), binding)
    here.commit(lambda writer: writer.put_view(made))


rows = st.lists(
    st.tuples(st.integers(0, 7), st.one_of(st.none(), st.integers(0, 3)), st.one_of(st.none(), st.sampled_from("xyz"))),
    min_size=1, max_size=4, unique_by=lambda row: row[0],
)  # fmt: skip


def shown(delta: LiveDelta) -> list[object]:
    return [(c.type, list(c.seqs), list(c.rows), list(c.old_rows)) for c in delta.changes]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(pair=st.sampled_from(PAIRS), commits=st.lists(st.tuples(st.booleans(), rows), min_size=1, max_size=5))
def test_a_view_is_followed_like_its_table(here: World, pair: tuple[str, str, str], commits) -> None:
    name = f"t{next(numbers)}"
    table = here.table(name, [("id", INT), ("a", INT), ("b", TEXT)], kind=TableKind.USER)
    of_view, over_view, over_table = (text.format(t=f"app.{name}", v=f"app.v_{name}") for text in pair)
    create(here, f"v_{name}", of_view)
    params = ["x"] if "$1" in over_view else []
    queries = [here.bind(text, *params) for text in (over_view, over_table)]
    assert queries[0].columns == queries[1].columns
    assert queries[0].equality == queries[1].equality
    present: dict[int, int] = {}
    for deletes, written in commits:
        note((deletes, written))
        position = here.engine.last_seq

        def work(writer, written=written, deletes=deletes) -> None:
            for row in written:
                old = present.pop(row[0], None)
                if old is not None and deletes:
                    writer.delete(table, "alice", [old])
                elif old is not None:
                    present[row[0]] = writer.replace_row(table, "alice", old, row, key_of(row[0]))
                else:
                    present[row[0]] = writer.insert_row(table, "alice", row, key_of(row[0]))

        here.commit(work)
        seen = [[shown(delta) for delta in here.deltas(query, position)] for query in queries]
        assert seen[0] == seen[1]
        assert snapshot(here, queries[0]) == snapshot(here, queries[1])


def key_of(number: int) -> bytes:
    return encode_key([INT], [number])


def snapshot(here: World, query: LiveQuery) -> list[object]:
    with here.engine.snapshot() as view:
        found = query.snapshot(view)
        return table_rows(found, query.columns, here.services.bigint)


REFUSED = [
    ("SELECT a, count(*) AS n FROM {t} GROUP BY a", "SELECT * FROM {v}", "cannot be read by a live query yet"),
    ("SELECT DISTINCT a FROM {t}", "SELECT a FROM {v}", "cannot be read by a live query yet"),
    ("SELECT id FROM {t} WHERE random() < 0.5", "SELECT id FROM {v}", "cannot be read by a live query yet"),
    ("SELECT id, a FROM {t}", "SELECT b FROM {v}", "Column not found: 'b'"),
    ("SELECT id, a FROM {t}", "SELECT count(*) FROM {v}", "COUNT"),
    ("SELECT id, a FROM {t}", "SELECT id FROM v", "namespace.table"),
]


@pytest.mark.parametrize(("of_view", "query", "message"), REFUSED)
def test_what_cannot_be_followed(here: World, of_view: str, query: str, message: str) -> None:
    name = f"r{next(numbers)}"
    here.table(name, [("id", INT), ("a", INT), ("b", TEXT)])
    create(here, f"v_{name}", of_view.format(t=f"app.{name}"))
    with pytest.raises((Unsupported, InvalidSql), match=message):
        here.bind(query.format(v=f"app.v_{name}"), identity=CALLER)


def test_a_live_query_over_a_view_has_the_rights_of_its_caller(here: World) -> None:
    here.table("locked", [("id", INT)], kind=TableKind.SHARED, access=AccessLevel.DBA)
    create(here, "v_locked", "SELECT id FROM app.locked")
    with pytest.raises(PermissionDenied, match=r"in view 'app.v_locked'"):
        here.bind("SELECT * FROM app.v_locked")
    assert here.bind("SELECT * FROM app.v_locked", identity=DBA).columns[0].name == "id"


# --- what happens to a view that is followed --------------------------------------------------------------------------


def play(folder: Path, body: Callable[[Hub], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world(folder / "data") as hub:
            await hub.create()
            await hub.run("CREATE VIEW app.v AS SELECT id, n FROM items WHERE n > 1")
            await hub.run("CREATE VIEW app.w AS SELECT * FROM app.v WHERE id > 0")
            await body(hub)

    asyncio.run(run())


async def listen(hub: Hub, client: Client, sql: str, identity: Identity = ROOT):
    return await client.load(await hub.subscribe(client, sql, identity=identity))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("CREATE OR REPLACE VIEW app.v AS SELECT id, n FROM items WHERE n > 2", TableNotFound),
        ("DROP VIEW app.v", TableNotFound),
        ("ALTER TABLE app.items DROP COLUMN n", InvalidSql),
        ("DROP TABLE app.items", TableNotFound),
    ],
)
def test_a_view_that_is_another_one_ends_its_listeners_and_no_others(
    tmp_path: Path, change: str, error: type[SqlError]
) -> None:
    async def body(hub: Hub) -> None:
        direct, through, other = Client("c1"), Client("c2"), Client("c3")
        await listen(hub, direct, "SELECT * FROM app.v")
        await listen(hub, through, "SELECT id FROM app.w")
        beside = await listen(hub, other, "SELECT id FROM app.items")
        await hub.run(change)
        await until(lambda: direct.ends and through.ends)
        assert isinstance(direct.ends[0], error)
        assert isinstance(through.ends[0], error)
        if "TABLE app.items" not in change:
            await hub.run("INSERT INTO app.items (id) VALUES (1)")
            await hub.caught_up(beside)
            assert not other.ends

    play(tmp_path, body)


def test_who_subscribes_afterwards_follows_the_new_view(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        old, new = Client("c1"), Client("c2")
        await listen(hub, old, "SELECT * FROM app.v")
        await hub.run("CREATE OR REPLACE VIEW app.v AS SELECT id, n FROM items WHERE n > 5")
        follower = await listen(hub, new, "SELECT * FROM app.v", ALICE)
        await hub.run("INSERT INTO app.items VALUES (1, 'a', 3), (2, 'a', 7)")
        await hub.caught_up(follower)
        assert set(new.rows) == {2}
        assert set(old.rows) == set()

    play(tmp_path, body)


def test_a_column_more_changes_nothing(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        client = Client()
        follower = await listen(hub, client, "SELECT * FROM app.w")
        await hub.run("ALTER TABLE app.items ADD COLUMN extra TEXT DEFAULT 'x'")
        await hub.run("INSERT INTO app.items (id, n) VALUES (4, 9)")
        await hub.caught_up(follower)
        assert client.plain() == {4: {"id": 4, "n": 9}}
        assert not client.ends

    play(tmp_path, body)
