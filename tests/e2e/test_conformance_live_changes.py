"""Change events of every statement and kind of table, and subscriptions whose tables and rights change."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.e2e.live_conformance import Live, Socket, member, number, plain, unlimited_server
from tests.e2e.running import RunningServer

KINDS = ("USER", "SHARED", "STREAM")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("changes")) as running:
        running.sql(
            "CREATE NAMESPACE app;"
            "CREATE USER TABLE app.u (id BIGINT PRIMARY KEY, body TEXT, n INT, _x TEXT);"
            "CREATE SHARED TABLE app.s (id BIGINT PRIMARY KEY, body TEXT, n INT, _x TEXT);"
            "CREATE SHARED TABLE app.pair (a INT, b TEXT, n INT, PRIMARY KEY (a, b));"
            "CREATE SHARED TABLE app.bare (body TEXT, n INT)"
        )
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Socket]:
    with Socket(server) as found:
        yield found


def row(key: int, body: str | None = None, n: int | None = None) -> dict[str, object]:
    return {"id": key, "body": body, "n": n, "_x": None}


@pytest.fixture(params=["u", "s"])
def table(request: pytest.FixtureRequest, server: RunningServer) -> str:
    server.sql(f"DELETE FROM app.{request.param} WHERE true")
    return f"app.{request.param}"


@pytest.fixture
def live(client: Socket, table: str) -> Live:
    return client.subscribe(f"SELECT * FROM {table}", {})


# --- statements -------------------------------------------------------------------------------------------------------


def test_one_row_s_life(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'a')")
    insert = live.change("insert")
    assert plain(insert["rows"]) == [row(1, "a")]
    assert number(insert["seq"]) == number(insert["rows"][0]["_seq"])
    server.sql(f"UPDATE {table} SET body = 'b', n = 5 WHERE id = 1")
    update = live.change("update")
    assert plain(update["rows"]) == [row(1, "b", 5)]
    # The key and what changed, as it was before; and the version that it replaces.
    assert update["old_values"] == [{"id": 1, "body": "a", "n": None, "_seq": insert["rows"][0]["_seq"]}]
    assert number(update["seq"]) == number(update["rows"][0]["_seq"])
    server.sql(f"DELETE FROM {table} WHERE id = 1")
    delete = live.change("delete")
    assert delete["old_values"] == [row(1, "b", 5) | {"_seq": update["rows"][0]["_seq"]}]
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'again')")
    assert live.inserted() == [row(1, "again")]


def test_the_seq_of_events_is_that_of_rows_over_http(server: RunningServer, table: str, live: Live) -> None:
    for sql in (f"INSERT INTO {table} (id) VALUES (1)", f"UPDATE {table} SET n = 1 WHERE id = 1"):
        server.sql(sql)
        event = live.next()
        assert [[event["rows"][0]["_seq"]]] == server.rows(f"SELECT _seq FROM {table}")


def test_a_column_set_to_null_is_told(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, body, n) VALUES (1, 'a', 1)")
    live.inserted()
    server.sql(f"UPDATE {table} SET body = NULL WHERE id = 1")
    assert live.updated() == ([row(1, None, 1)], [{"id": 1, "body": "a"}])


def test_columns_with_an_underscore_are_told_too(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, _x) VALUES (1, 'x')")
    assert live.inserted() == [row(1) | {"_x": "x"}]
    server.sql(f"UPDATE {table} SET _x = 'y' WHERE id = 1")
    assert live.updated() == ([row(1) | {"_x": "y"}], [{"id": 1, "_x": "x"}])


def test_an_update_that_changes_nothing(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'a')")
    first = live.change("insert")
    server.sql(f"UPDATE {table} SET body = 'a' WHERE id = 1; INSERT INTO {table} (id) VALUES (2)")
    event = live.next()
    if event["change_type"] == "update":  # a new version without a change is a version all the same
        assert plain(event["rows"]) == [row(1, "a")]
        assert event["old_values"] == [{"id": 1, "_seq": first["rows"][0]["_seq"]}]
        event = live.next()
    assert plain(event["rows"]) == [row(2)]


def test_an_update_of_the_key(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'a')")
    live.inserted()
    answer = server.post(f"UPDATE {table} SET id = 9 WHERE id = 1")
    held = {1: "a"}
    if answer.status_code == 200:
        while 1 in held or 9 not in held:
            event = live.next()
            for old in event.get("old_values", []):
                held.pop(old["id"], None)
            for new in event.get("rows", []):
                held[new["id"]] = new["body"]
    assert [[key, body] for key, body in held.items()] == server.rows(f"SELECT id, body FROM {table}")


def test_a_statement_of_many_rows(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, n) VALUES " + ",".join(f"({each}, 0)" for each in range(2500)))
    keys: list[int] = []
    while len(keys) < 2500:
        keys += [found["id"] for found in live.inserted()]
    assert keys == list(range(2500))
    server.sql(f"UPDATE {table} SET n = n + 1 WHERE id % 2 = 0")
    keys = []
    while len(keys) < 1250:
        rows, olds = live.updated()
        assert [found["id"] for found in rows] == [old["id"] for old in olds]
        assert all(found["n"] == 1 for found in rows)
        assert all(old == {"id": old["id"], "n": 0} for old in olds)
        keys += [found["id"] for found in rows]
    assert sorted(keys) == list(range(0, 2500, 2))
    server.sql(f"DELETE FROM {table} WHERE true")
    keys = []
    while len(keys) < 2500:
        keys += [found["id"] for found in live.deleted()]
    assert sorted(keys) == list(range(2500))


def test_a_transaction_is_told_at_its_commit_and_in_order(server: RunningServer, table: str, live: Live) -> None:
    server.sql(
        f"BEGIN; INSERT INTO {table} (id, n) VALUES (1, 1), (2, 1); UPDATE {table} SET n = 2 WHERE id = 1;"
        f"DELETE FROM {table} WHERE id = 2; INSERT INTO {table} (id, n) VALUES (3, 3); COMMIT"
    )
    server.sql(f"BEGIN; INSERT INTO {table} (id) VALUES (50); ROLLBACK")
    answer = server.post(f"BEGIN; INSERT INTO {table} (id) VALUES (51); INSERT INTO {table} (id) VALUES (1); COMMIT")
    assert answer.status_code != 200
    server.sql(f"INSERT INTO {table} (id) VALUES (99)")
    held: dict[int, object] = {}
    while 99 not in held:
        event = live.next()
        for old in event.get("old_values", []):
            held.pop(old["id"])
        for new in event.get("rows", []):
            held[new["id"]] = new["n"]
        assert held.keys() <= {1, 2, 3, 99}
    assert held == {1: 2, 3: 3, 99: None}


def test_upsert_and_returning(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'a') RETURNING id")
    assert live.inserted() == [row(1, "a")]
    server.sql(
        f"INSERT INTO {table} (id, body) VALUES (1, 'b') ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, n = 7"
    )
    assert live.updated() == ([row(1, "b", 7)], [{"id": 1, "body": "a", "n": None}])
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'c') ON CONFLICT DO NOTHING")
    server.sql(f"INSERT INTO {table} (id, body) VALUES (1, 'd'), (2, 'd') ON CONFLICT (id) DO NOTHING")
    assert live.inserted() == [row(2, "d")]
    server.sql(f"INSERT INTO {table} (id, body) SELECT id + 10, body FROM {table}")
    assert live.inserted() == [row(11, "b"), row(12, "d")]


def test_failed_statements_tell_nothing(server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id) VALUES (1)")
    assert live.inserted()
    for sql in (f"INSERT INTO {table} (id) VALUES (2), (1)", f"INSERT INTO {table} (id, n) VALUES (3, 'x')",
                f"UPDATE {table} SET id = NULL WHERE id = 1"):  # fmt: skip
        assert server.post(sql).status_code != 200
    server.sql(f"UPDATE {table} SET n = 1 WHERE id = 77; DELETE FROM {table} WHERE id = 77")
    server.sql(f"INSERT INTO {table} (id) VALUES (4)")
    assert live.inserted() == [row(4)]


def test_composite_keys_and_tables_without_one(client: Socket, server: RunningServer) -> None:
    pair, bare = (client.subscribe(f"SELECT n FROM app.{name}", {}) for name in ("pair", "bare"))
    server.sql(
        "INSERT INTO app.pair VALUES (1, 'x', 0); UPDATE app.pair SET n = 1 WHERE a = 1;DELETE FROM app.pair WHERE true"
    )
    assert pair.inserted() == [{"n": 0}]
    assert pair.updated() == ([{"n": 1}], [{"a": 1, "b": "x", "n": 0}])
    assert pair.deleted() == [{"a": 1, "b": "x", "n": 1}]
    server.sql("INSERT INTO app.bare VALUES ('x', 0), ('x', 0)")
    assert bare.inserted() == [{"n": 0}, {"n": 0}]
    server.sql("UPDATE app.bare SET n = 1 WHERE true")
    update = bare.change("update")
    assert plain(update["rows"]) == [{"n": 1}, {"n": 1}]
    assert all(old["n"] == 0 for old in update["old_values"])
    server.sql("DELETE FROM app.bare WHERE true")
    delete = bare.change("delete")
    assert {number(old["_seq"]) for old in delete["old_values"]} == {number(new["_seq"]) for new in update["rows"]}


def test_projections(client: Socket, server: RunningServer, table: str) -> None:
    one = client.subscribe(f"SELECT body FROM {table}", {})
    loud = client.subscribe(f"SELECT id, upper(body) AS loud, n * 2 + 1 AS odd FROM {table} WHERE n >= 0", {})
    named = client.subscribe(f"SELECT id, _seq, _deleted FROM {table}", {})
    server.sql(f"INSERT INTO {table} (id, body, n) VALUES (1, 'a', 1)")
    assert one.inserted() == [{"body": "a"}]
    assert loud.inserted() == [{"id": 1, "loud": "A", "odd": 3}]
    assert plain(named.change("insert")["rows"]) == [{"id": 1, "_deleted": False}]
    server.sql(f"UPDATE {table} SET n = 2 WHERE id = 1")
    assert loud.updated() == ([{"id": 1, "loud": "A", "odd": 5}], [{"id": 1, "odd": 3}])
    server.sql(f"UPDATE {table} SET body = 'b' WHERE id = 1")
    update = one.next()
    while plain(update["rows"]) != [{"body": "b"}]:  # that of n, if it is told: what is projected did not change
        assert plain(update["old_values"]) == [{"id": 1}]
        update = one.next()
    assert plain(update["old_values"]) == [{"id": 1, "body": "a"}]
    server.sql(f"DELETE FROM {table} WHERE id = 1")
    assert one.deleted() == [{"id": 1, "body": "b"}]
    event = named.next()
    while event["change_type"] != "delete":
        event = named.next()
    assert plain(event["old_values"]) == [{"id": 1, "_deleted": True}]


# --- whose rows -------------------------------------------------------------------------------------------------------


def test_users_see_their_own_rows_alone(server: RunningServer) -> None:
    tokens = {name: member(server, name, role) for name, role in (("ann", "user"), ("bob", "user"), ("sue", "service"))}
    server.sql("DELETE FROM app.u WHERE true")
    sockets = {name: Socket(server, token) for name, token in tokens.items()}
    lives = {name: found.subscribe("SELECT * FROM app.u WHERE n >= 0", {}) for name, found in sockets.items()}
    own = {name: found.subscribe("SELECT CURRENT_USER() AS me FROM app.u WHERE body = CURRENT_USER()", {})
           for name, found in sockets.items()}  # fmt: skip
    server.sql("INSERT INTO app.u (id, n) VALUES (1, 0)")  # the dba's own
    for name, token in tokens.items():
        with server.client_of(token) as http:
            sql = f"INSERT INTO app.u (id, body, n) VALUES (1, '{name}', 1)"
            assert http.post("/v1/api/sql", json={"sql": sql}).status_code == 200
    server.sql("EXECUTE AS USER 'bob' (INSERT INTO app.u (id, body, n) VALUES (2, 'by the dba', 2))")
    for name, live in lives.items():
        assert live.inserted() == [row(1, name, 1)]
        assert own[name].inserted() == [{"me": name}]
    assert lives["bob"].inserted() == [row(2, "by the dba", 2)]
    server.sql("DELETE FROM app.u WHERE true")  # the dba's row, not theirs
    for client in sockets.values():
        client.barrier()
        assert client.waiting() == []
        client.__exit__()


@pytest.mark.parametrize(
    ("level", "allowed"),
    [
        ("public", {"user", "service", "dba", "system"}),
        ("private", {"service", "dba", "system"}),
        ("restricted", {"service", "dba", "system"}),
        ("dba", {"dba", "system"}),
    ],
)
def test_roles_and_access_levels(server: RunningServer, level: str, allowed: set[str]) -> None:
    server.sql(f"CREATE SHARED TABLE app.level_{level} (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = '{level}')")
    tokens = {role: member(server, f"{role}-{level}", role) for role in ("user", "service")}
    tokens |= {"dba": server.token, "system": server.login("root", server.root_password)}
    for role, token in tokens.items():
        with Socket(server, token) as client:
            answer = client.ask(f"SELECT * FROM app.level_{level}", {}).next()
            if role in allowed:
                assert answer["type"] == "subscription_ack"
            else:
                # One that he may not know of, may be not found; it is never served.
                assert answer["code"] in {"UNAUTHORIZED", "NOT_FOUND"}
            system = client.ask("SELECT user_id FROM system.users", {}, "system").next()
            assert (system["type"] == "subscription_ack") == (role in {"dba", "system"}), system
            assert system.get("code", "UNAUTHORIZED") in {"UNAUTHORIZED", "NOT_FOUND"}


def test_a_right_that_is_taken_away(server: RunningServer) -> None:
    server.sql("CREATE SHARED TABLE app.open (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public')")
    with Socket(server, member(server, "guest")) as guest, Socket(server) as admin:
        theirs, ours = (found.subscribe("SELECT * FROM app.open", {}) for found in (guest, admin))
        kept = guest.subscribe("SELECT * FROM app.u", {})
        server.sql("ALTER TABLE app.open SET ACCESS LEVEL PRIVATE; INSERT INTO app.open VALUES (1)")
        assert theirs.error()[0] == "UNAUTHORIZED"
        assert ours.inserted() == [{"id": 1}]
        server.sql("ALTER TABLE app.open SET TBLPROPERTIES (ACCESS_LEVEL = 'PUBLIC'); INSERT INTO app.open VALUES (2)")
        assert ours.inserted() == [{"id": 2}]
        assert guest.barrier()
        assert guest.waiting() == []
        assert plain(guest.subscribe("SELECT * FROM app.open", {}, theirs.name).rows) == [{"id": 1}, {"id": 2}]
        assert kept.rows == []


# --- tables that change -----------------------------------------------------------------------------------------------


def test_columns_that_come_go_and_change_their_name(client: Socket, server: RunningServer) -> None:
    server.sql(
        "CREATE SHARED TABLE app.shape (id INT PRIMARY KEY, a TEXT, b INT); INSERT INTO app.shape VALUES (1, 'x', 1)"
    )
    every, some = client.subscribe("SELECT * FROM app.shape", {}), client.subscribe("SELECT id, a FROM app.shape", {})
    on_b = client.subscribe("SELECT id FROM app.shape WHERE b > 0", {})
    server.sql(
        "ALTER TABLE app.shape ADD COLUMN c TEXT DEFAULT 'new'; INSERT INTO app.shape (id, a, b) VALUES (2, 'y', 2)"
    )
    assert some.inserted() == [{"id": 2, "a": "y"}]
    assert on_b.inserted() == [{"id": 2}]
    event = every.next()
    if event["type"] == "subscription_ack":  # whoever tells of a new schema may; then it must hold
        event = every.next()
    assert event["type"] == "error" or {"id": 2, "a": "y", "b": 2}.items() <= event["rows"][0].items()
    server.sql("ALTER TABLE app.shape DROP COLUMN b; INSERT INTO app.shape (id, a) VALUES (3, 'z')")
    assert on_b.error()[0] == "INVALID_SQL"
    assert some.inserted() == [{"id": 3, "a": "z"}]
    server.sql("ALTER TABLE app.shape RENAME COLUMN a TO aa; INSERT INTO app.shape (id, aa) VALUES (4, 'q')")
    assert some.error()[0] == "INVALID_SQL"
    again = client.subscribe("SELECT * FROM app.shape", {})
    assert [row["aa"] for row in again.rows] == ["x", "y", "z", "q"]
    server.sql("DROP TABLE app.shape")
    assert again.error()[0] == "NOT_FOUND"


def test_a_table_that_is_dropped_and_made_anew(client: Socket, server: RunningServer) -> None:
    server.sql("CREATE NAMESPACE brief; CREATE USER TABLE brief.t (id INT PRIMARY KEY)")
    first = client.subscribe("SELECT * FROM brief.t", {})
    server.sql("DROP TABLE brief.t")
    assert first.error()[0] == "NOT_FOUND"
    server.sql("CREATE SHARED TABLE brief.t (id TEXT PRIMARY KEY); INSERT INTO brief.t VALUES ('new')")
    second = client.subscribe("SELECT * FROM brief.t", {}, first.name)
    assert plain(second.rows) == [{"id": "new"}]
    server.sql("DROP NAMESPACE brief CASCADE")
    assert second.error()[0] == "NOT_FOUND"
    client.barrier()
    assert client.waiting() == []


def test_flush_and_compaction_tell_nothing(client: Socket, server: RunningServer, table: str, live: Live) -> None:
    server.sql(f"INSERT INTO {table} (id) VALUES (1)")
    assert live.inserted()
    server.post(f"STORAGE FLUSH TABLE {table}")
    server.post(f"STORAGE COMPACT TABLE {table}")
    server.sql(f"INSERT INTO {table} (id) VALUES (2)")
    assert live.inserted() == [row(2)]


def test_rows_that_a_bulk_load_brings(client: Socket, server: RunningServer, table: str, live: Live) -> None:
    body = b'{"id": 1, "body": "a"}\n{"id": 2, "body": "b"}\n'
    answer = server.client.post(
        f"/v1/api/ingest/{table.replace('.', '/')}", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    if answer.status_code == 404:
        pytest.fail(answer.text + base64.b64encode(body).decode())
    assert answer.status_code == 200, answer.text
    assert live.inserted() == [row(1, "a"), row(2, "b")]
