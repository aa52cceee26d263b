"""What changes of tables and accounts mean for those who listen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from sql.database import Database
from sql.errors import InvalidSql, PermissionDenied, TableNotFound
from sql.identity import Identity, Role
from sql.live import catalog_watch
from sql.live.subscription import LiveOptions, SubscriptionState
from storage import StorageEngine
from storage.catalog import UserDef
from storage.layout import layout_of
from tests.sql.live.hub_world import ALICE, Client, World, until, world

State = SubscriptionState


def play(folder: Path, body: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world(folder / "data") as here:
            await here.create()
            await here.run("CREATE SHARED TABLE app.other (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'PUBLIC')")
            for user, role in (("alice", "user"), ("bob", "user")):
                await put_user(here, user, role)
            await body(here)

    asyncio.run(run())


async def put_user(here: World, name: str, role: str, **fields: int) -> None:
    user = UserDef(name, role, **fields)
    await here.engine.commit(lambda writer: writer.put_object("user", name, user))


async def listen(here: World, client: Client, sql: str = "SELECT * FROM app.items", identity: Identity = ALICE):
    return await client.load(await here.subscribe(client, sql, LiveOptions(), identity=identity))


async def passed(here: World) -> None:
    """Wait until the hub has seen everything."""
    newest = here.engine.last_seq
    await until(lambda: here.hub.position >= newest)


def test_a_dropped_table_ends_its_listeners_and_no_others(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        first, second = Client("c1"), Client("c2")
        items, other = await listen(here, first), await listen(here, second, "SELECT * FROM app.other")
        waiting = Client("c3")
        loading = await here.subscribe(waiting, options=LiveOptions())
        await here.run("DROP TABLE app.items")
        await until(lambda: first.ends and waiting.ends)
        assert isinstance(first.ends[0], TableNotFound)
        assert isinstance(waiting.ends[0], TableNotFound)
        assert items.state is loading.state is State.ENDED
        await here.run("INSERT INTO app.other VALUES (1)")
        await here.caught_up(other)
        assert set(second.rows) == {1}
        assert not second.ends

    play(tmp_path, body)


def test_another_table_of_the_same_name_is_another_table(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client = Client()
        await listen(here, client)
        table = here.engine.catalog.table("app", "items")
        assert table is not None

        def replace(writer) -> None:
            writer.drop_table(table.table_id)
            anew = writer.allocate_table_id()
            writer.put_table(msgspec.structs.replace(table, table_id=anew))

        await here.engine.commit(replace)
        await until(lambda: client.ends)
        assert isinstance(client.ends[0], TableNotFound)

    play(tmp_path, body)


def test_a_new_column_is_told_and_a_dropped_one_ends_who_names_it(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        star, named, others, twin = Client("c1"), Client("c2"), Client("c3"), Client("c4")
        everything = await listen(here, star)
        same = await listen(here, twin, identity=Identity("root", Role.SYSTEM))
        await listen(here, named, "SELECT id, n FROM app.items WHERE room = 'a'")
        rest = await listen(here, others, "SELECT id, n FROM app.items")
        await here.run("ALTER TABLE app.items ADD COLUMN extra TEXT DEFAULT 'x'")
        await here.run("INSERT INTO app.items (id, room, n) VALUES (1, 'a', 1)")
        await here.caught_up(everything, same)
        assert star.rows[1]["extra"] == twin.rows[1]["extra"] == "x"
        assert "extra" in [column.name for column in everything.columns]
        await here.run("ALTER TABLE app.items DROP COLUMN room")
        await until(lambda: named.ends)
        assert isinstance(named.ends[0], InvalidSql)
        await here.run("UPDATE app.items SET n = 2 WHERE id = 1")
        await here.caught_up(everything, rest)
        assert star.plain() == await here.rows("SELECT * FROM app.items")
        assert others.plain() == await here.rows("SELECT id, n FROM app.items")

    play(tmp_path, body)


def test_a_column_dropped_while_commits_wait(tmp_path: Path) -> None:
    """The rows of the commits before lack it already when they are read; `*` goes on all the same."""

    async def body(here: World) -> None:
        client = Client()
        subscription = await listen(here, client)
        engine, table = here.engine, here.engine.catalog.table("app", "items")
        assert table is not None
        for number in range(5):  # the event loop is held, so nothing is dispatched meanwhile
            engine.commit_sync(lambda w, n=number: w.insert_row(table, "", (n, "a", n), None))
            engine.commit_sync(lambda w, n=number: w.delete(table, "", [engine_seq(w, table, n)]) if n else None)
        altering = threading.Thread(target=alter_apart, args=(engine, "ALTER TABLE app.items DROP COLUMN room"))
        altering.start()
        altering.join()
        await here.caught_up(subscription)
        assert not client.ends
        assert {key: row["n"] for key, row in client.rows.items()} == {0: 0}
        assert len(client.events) == 9

    play(tmp_path, body)


def alter_apart(engine: StorageEngine, statement: str) -> None:
    """Run a statement on an event loop of its own."""
    database = Database(engine)
    try:
        asyncio.run(database.execute(statement, (), "app", Identity("root", Role.SYSTEM)))
    finally:
        database.close()


def engine_seq(writer, table, key: int) -> int:
    primary = layout_of(table).primary
    assert primary is not None
    (seq,) = writer.find(table, "", [primary.encode((key,))])
    assert seq is not None
    return seq


def test_a_lost_right_ends_the_listener_before_the_next_row(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client, admin = Client("c1"), Client("c2")
        await listen(here, client)
        kept = await listen(here, admin, identity=Identity("root", Role.SYSTEM))
        await here.run("ALTER TABLE app.items SET ACCESS LEVEL DBA")
        table = here.engine.catalog.table("app", "items")  # no await from here on: the hub cannot have seen it yet
        assert table is not None
        here.engine.commit_sync(lambda w: w.insert_row(table, "", (1, "secret", 1), None))
        await until(lambda: client.ends)
        assert isinstance(client.ends[0], PermissionDenied)
        assert not client.rows
        await here.caught_up(kept)
        assert set(admin.rows) == {1}

    play(tmp_path, body)


@pytest.mark.parametrize("change", ["role", "deleted", "dropped"])
def test_an_account_that_changes_ends_its_own_subscriptions(tmp_path: Path, change: str) -> None:
    async def body(here: World) -> None:
        alice, bob = Client("c1"), Client("c2")
        await listen(here, alice)
        waiting = await here.subscribe(alice, options=LiveOptions(), identity=ALICE)
        kept = await listen(here, bob, identity=Identity("bob", Role.USER))
        await put_user(here, "alice", "user", last_login_at=5)
        await put_user(here, "carol", "dba")
        await passed(here)
        assert not alice.ends
        if change == "role":
            await put_user(here, "alice", "dba")
        elif change == "deleted":
            await put_user(here, "alice", "user", deleted_at=7)
        else:
            await here.engine.commit(lambda writer: writer.delete_object("user", "alice"))
        await until(lambda: len(alice.ends) == 2)
        assert all(isinstance(error, PermissionDenied) for error in alice.ends)
        assert waiting.state is State.ENDED
        assert kept.state is State.LIVE
        assert here.hub.subscriptions() == [kept]

    play(tmp_path, body)


def test_objects_of_others_bind_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(here: World) -> None:
        client = Client()
        subscription = await listen(here, client)
        monkeypatch.setattr(catalog_watch, "rebind", None)
        await here.run("CREATE NAMESPACE elsewhere")
        await here.run("ALTER TABLE app.other ADD COLUMN more INT")
        await here.run("DROP TABLE app.other")
        await put_user(here, "dave", "dba")
        await here.run("INSERT INTO app.items VALUES (1, 'a', 1)")
        await here.caught_up(subscription)
        assert not client.ends
        assert set(client.rows) == {1}

    play(tmp_path, body)


def test_a_table_altered_while_the_query_is_being_bound(tmp_path: Path) -> None:
    """The hub sees the change before the subscription is registered: it is looked at again then."""

    async def body(here: World) -> None:
        keeper, client = Client("c1"), Client("c2")
        await listen(here, keeper)
        bind = here.hub._bind

        async def slowly(request):
            bound = await bind(request)
            await here.run("ALTER TABLE app.items SET ACCESS LEVEL DBA")
            await passed(here)
            return bound

        here.hub._bind = slowly  # type: ignore[method-assign]
        subscription = await here.subscribe(client, identity=ALICE)
        subscription.go_live()
        await until(lambda: client.ends)
        assert isinstance(client.ends[0], PermissionDenied)

    play(tmp_path, body)


def test_a_system_table_is_followed(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        seen: list[str] = []
        client = Client()
        root = Identity("root", Role.SYSTEM)
        subscription = await here.subscribe(client, "SELECT table_name FROM system.tables", identity=root)

        def deliver(_: object, delta) -> bool:
            seen.extend(f"{change.type} {row['table_name']}" for change in delta.changes for row in change.rows)
            return True

        client.deliver = deliver  # type: ignore[method-assign]
        subscription.go_live()
        await here.run("CREATE SHARED TABLE app.third (id INT PRIMARY KEY)")
        await until(lambda: seen)
        assert seen == ["insert third"]
        again = await here.subscribe(Client("c9"), "SELECT table_name FROM system.tables", LiveOptions(from_=1))
        assert again.fresh

    play(tmp_path, body)
