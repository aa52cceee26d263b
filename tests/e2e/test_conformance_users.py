"""Roles and accounts: EXECUTE AS USER, and the statements on users. Who may do what: tests/e2e/test_rights.py."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conformance import PASSWORD, ROLES, Roles, columns, error, message, ok, roles_of
from tests.e2e.running import RunningServer

LEVELS = ("public", "private", "restricted", "dba")


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app; CREATE USER TABLE app.mine (id BIGINT PRIMARY KEY, v TEXT)")
    for level in LEVELS:
        server.sql(f"CREATE SHARED TABLE app.{level}_t (id BIGINT PRIMARY KEY, v INT) WITH (ACCESS_LEVEL = '{level}')")
    with roles_of(server) as found:
        yield found


def test_rows_of_user_tables_are_ones_own_in_every_role(roles: Roles) -> None:
    roles.server.sql("CREATE USER TABLE app.own (id INT PRIMARY KEY, v TEXT)")
    for role in ROLES:
        ok(roles.post(role, "INSERT INTO app.own VALUES (1, CURRENT_USER())"))
    for role in ROLES:
        (result,) = ok(roles.post(role, "SELECT * FROM app.own"))
        assert result["rows"] == [[1, roles.names[role]]]
        assert result["as_user"] == roles.names[role]


def test_a_table_without_a_type_in_the_namespace_of_the_caller(roles: Roles) -> None:
    for role, kind in (("user", "user"), ("service", "user"), ("dba", "shared"), ("system", "shared")):
        name = roles.names[role]
        if name != "root":  # a reserved name
            roles.server.sql("CREATE NAMESPACE IF NOT EXISTS " + ("boss" if name == "admin" else name))
        space = {"admin": "boss", "root": "boss"}.get(name, name)
        made = message(roles.post(role, f"CREATE TABLE {space}.t_{role} (id INT PRIMARY KEY)"))
        assert f"{kind} table {space}.t_{role} created successfully" in made


def test_users_alter_and_drop_what_they_created(roles: Roles) -> None:
    ok(roles.post("user", "CREATE USER TABLE app.theirs (id INT PRIMARY KEY)"))
    assert "altered successfully" in message(roles.post("user", "ALTER TABLE app.theirs ADD COLUMN v TEXT"))
    assert "dropped successfully" in message(roles.post("user", "DROP TABLE app.theirs"))


def test_private_tables_are_not_shown_to_users(roles: Roles) -> None:
    for role, levels in (("user", {"public"}), ("service", {"public", "private", "restricted"}), ("dba", set(LEVELS))):
        for sql, column in (("SHOW TABLES IN app", "table_name"),
                            ("SELECT table_name FROM information_schema.tables", "table_name")):  # fmt: skip
            (result,) = ok(roles.post(role, sql))
            place = columns(result).index(column)
            found = {row[place].removesuffix("_t") for row in result["rows"] if row[place].endswith("_t")}
            assert found == levels, (role, sql)


# --- EXECUTE AS USER --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "rows", "as_user"),
    [
        ("EXECUTE AS USER 'u1' (SELECT CURRENT_USER(), CURRENT_ROLE())", [["u1", "user"]], "u1"),
        ("execute as user u1 (select current_user(), current_role())", [["u1", "user"]], "u1"),
        ("EXECUTE AS USER 's1' (SELECT CURRENT_USER, CURRENT_ROLE());", [["s1", "user"]], "s1"),
        ("EXECUTE AS USER 'admin' (SELECT CURRENT_USER(), CURRENT_ROLE())", [["admin", "user"]], "admin"),
        ("EXECUTE AS USER 'not there' (SELECT CURRENT_USER())", [["not there"]], "not there"),
        ("EXECUTE AS USER 'o''neil' ( SELECT ')' )", [[")"]], "o'neil"),
    ],
)
def test_execute_as(roles: Roles, sql: str, rows: list[list[str]], as_user: str) -> None:
    (result,) = ok(roles.server.post(sql))
    assert (result["rows"], result["as_user"]) == (rows, as_user)


def test_execute_as_writes_the_rows_of_the_target(roles: Roles) -> None:
    roles.server.sql("CREATE USER TABLE app.inbox (id INT PRIMARY KEY, v TEXT)")
    batch = (
        "EXECUTE AS USER 'u1' (INSERT INTO app.inbox VALUES (1, $1)); INSERT INTO app.inbox VALUES (1, 'mine');"
        "EXECUTE AS USER 'u1' (UPDATE app.inbox SET v = v || '!' WHERE id = 1)"
    )
    results = ok(roles.server.post(batch, ["for you"]))
    assert [result["as_user"] for result in results] == ["u1", "admin", "u1"]
    assert [result["message"] for result in results] == ["Inserted 1 row(s)"] * 2 + ["Updated 1 row(s)"]
    assert ok(roles.post("user", "SELECT v FROM app.inbox"))[0]["rows"] == [["for you!"]]
    assert roles.server.rows("SELECT v FROM app.inbox") == [["mine"]]
    (gone,) = ok(roles.server.post("EXECUTE AS USER 'u1' (DELETE FROM app.inbox WHERE id = 1 RETURNING v)"))
    assert (gone["rows"], gone["as_user"]) == ([["for you!"]], "u1")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("write", ["INSERT INTO {} VALUES (9, 9)", "INSERT INTO {} (id) SELECT 9",
                                   "UPDATE {} SET v = 1 WHERE id = 1", "DELETE FROM {} WHERE id = 1"])  # fmt: skip
def test_execute_as_never_writes_shared_tables(roles: Roles, level: str, write: str) -> None:
    table = f"app.{level}_t"
    for sql, namespace in ((write.format(table), None), (write.format(f"{level}_t"), "app")):
        found = error(roles.server.post(f"EXECUTE AS USER 'u1' ({sql})", namespace_id=namespace))
        assert found[:2] == (400, "SQL_EXECUTION_ERROR")
        assert found.message == (
            f"Statement 1 failed: EXECUTE AS USER is not allowed on SHARED tables (table '{table}'). "
            "AS USER impersonation is only supported for USER and STREAM tables."
        )


def test_execute_as_runs_with_the_rights_of_the_role_user(roles: Roles) -> None:
    for sql in ("SELECT * FROM app.private_t", "SELECT * FROM system.users", "CREATE SHARED TABLE app.x (id INT)",
                "DROP TABLE app.mine", "CREATE NAMESPACE x"):  # fmt: skip
        assert error(roles.post("system", f"EXECUTE AS USER 'root' ({sql})"))[:2] == (403, "PERMISSION_DENIED"), sql
    (result,) = ok(roles.server.post("EXECUTE AS USER 'u1' (CREATE USER TABLE app.by_u1 (id INT PRIMARY KEY))"))
    assert result["as_user"] == "u1"
    ok(roles.post("user", "DROP TABLE app.by_u1"))


@pytest.mark.parametrize(
    "sql",
    [
        "EXECUTE AS USER 'u1' SELECT 1", "EXECUTE AS USER 'u1' (SELECT 1", "EXECUTE AS USER 'u1' ()",
        "EXECUTE AS USER (SELECT 1)", "EXECUTE AS USER '' (SELECT 1)", "EXECUTE AS 'u1' (SELECT 1)",
        "EXECUTE AS USER 'u1' (SELECT 1; SELECT 2)", "EXECUTE AS USER 'u1' (SELECT 1) SELECT 2",
        "EXECUTE AS USER 'u1' (EXECUTE AS USER 'u1' (SELECT 1))", "EXECUTE AS USER 'u1' (BEGIN)",
    ],
)  # fmt: skip
def test_malformed_execute_as(roles: Roles, sql: str) -> None:
    found = error(roles.server.post(sql))
    assert (found.status, found.code) in {(400, "INVALID_INPUT"), (400, "BATCH_PARSE_ERROR")}


def test_execute_as_is_checked_before_anything_runs(roles: Roles) -> None:
    roles.server.sql("CREATE USER TABLE app.untouched (id INT PRIMARY KEY)")
    batch = "INSERT INTO app.untouched VALUES (1); EXECUTE AS USER 's1' (SELECT 1)"
    assert error(roles.post("user", batch))[:2] == (403, "PERMISSION_DENIED")
    assert ok(roles.post("user", "SELECT * FROM app.untouched"))[0]["rows"] == []


# --- accounts ---------------------------------------------------------------------------------------------------------

GOOGLE = '{"provider":"google","subject":"1"}'


def test_accounts(roles: Roles) -> None:
    server = roles.server
    steps = [
        (f"CREATE USER 'acc' WITH PASSWORD '{PASSWORD}' ROLE user EMAIL 'acc@example.com'", "User 'acc' created"),
        (f"create user acc_oauth with oauth '{GOOGLE}' role user email 'o@example.com'", "User 'acc_oauth' created"),
        ("CREATE USER 'acc_internal' WITH INTERNAL ROLE service", "User 'acc_internal' created"),
        ("ALTER USER acc SET PASSWORD 'Changed99'", "User 'acc' updated"),
        ("ALTER USER 'acc' SET ROLE service", "User 'acc' updated"),
        ("ALTER USER 'acc' SET EMAIL 'new@example.com'", "User 'acc' updated"),
    ]
    for sql, told in steps:
        assert message(server.post(sql)) == told
    chosen = "user_id, role, email, auth_type, password_hash, auth_data, deleted_at"
    rows = server.rows(f"SELECT {chosen} FROM system.users WHERE user_id LIKE 'acc%' ORDER BY user_id")
    assert rows[0] == ["acc", "service", "new@example.com", "password", "***", None, None]
    assert rows[1] == ["acc_internal", "service", None, "internal", None, None, None]
    assert rows[2][:5] == ["acc_oauth", "user", "o@example.com", "oauth", None]
    assert server.login("acc", "Changed99")
    for name in ("acc", "acc_oauth", "acc_internal"):
        assert message(server.post(f"DROP USER '{name}'")) == f"User '{name}' dropped (soft delete)"
        assert message(server.post(f"DROP USER IF EXISTS {name}")) == f"User '{name}' does not exist (skipped)"
        assert error(server.post(f"DROP USER {name}"))[:2] == (400, "SQL_EXECUTION_ERROR")
    deleted = server.rows("SELECT deleted_at FROM system.users WHERE user_id LIKE 'acc%'")
    assert len(deleted) == 3
    assert all(isinstance(row[0], int) for row in deleted)
    answer = httpx.post(f"{server.url}/v1/api/auth/login", json={"user": "acc", "password": "Changed99"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("alias", "role"),
    [
        ("dba", "dba"), ("admin", "dba"), ("ADMIN", "dba"), ("service", "service"), ("developer", "service"),
        ("analyst", "service"), ("user", "user"), ("viewer", "user"), ("readonly", "user"), ("'User'", "user"),
    ],
)  # fmt: skip
def test_role_aliases(roles: Roles, alias: str, role: str) -> None:
    roles.server.sql(f"CREATE USER 'aliased' WITH INTERNAL ROLE {alias}")
    assert roles.server.rows("SELECT role FROM system.users WHERE user_id = 'aliased'") == [[role]]
    roles.server.sql("DROP USER 'aliased'")


@pytest.mark.parametrize(
    ("sql", "code", "part"),
    [
        ("CREATE USER 'admin' WITH PASSWORD 'GoodPass99' ROLE user", "SQL_EXECUTION_ERROR", "Already exists: "),
        ("CREATE USER 'x' WITH PASSWORD 'short' ROLE user", "WEAK_PASSWORD", "8 characters"),
        ("CREATE USER 'x' WITH PASSWORD 'password' ROLE user", "WEAK_PASSWORD", "common"),
        ("CREATE USER 'x' WITH PASSWORD 'GoodPass99' ROLE emperor", "INVALID_SQL", "'emperor' is not a role"),
        ("CREATE USER 'x' ROLE user", "INVALID_SQL", "WITH PASSWORD"),
        ("CREATE USER 'x' WITH OAUTH '{\"provider\":\"google\"}' ROLE user", "SQL_EXECUTION_ERROR", "'subject'"),
        ("CREATE USER 'x' WITH OAUTH '{\"subject\":\"1\"}' ROLE user", "SQL_EXECUTION_ERROR", "'provider'"),
        ("CREATE USER 'x' WITH OAUTH 'x' ROLE user", "SQL_EXECUTION_ERROR", "JSON"),
        ("CREATE USER 'a/b' WITH PASSWORD 'GoodPass99' ROLE user", "SQL_EXECUTION_ERROR", "must not contain"),
        ("CREATE USER 'a\\b' WITH PASSWORD 'GoodPass99' ROLE user", "SQL_EXECUTION_ERROR", "must not contain"),
        ("CREATE USER 'a..b' WITH PASSWORD 'GoodPass99' ROLE user", "SQL_EXECUTION_ERROR", "must not contain"),
        ("ALTER USER nobody SET EMAIL 'a@example.com'", "SQL_EXECUTION_ERROR", "Not found: User 'nobody'"),
        ("ALTER USER u1 SET EMAIL 'no address'", "SQL_EXECUTION_ERROR", "e-mail"),
        ("ALTER USER u1 SET PASSWORD 'short'", "WEAK_PASSWORD", "8 characters"),
        ("ALTER USER u1 SET NICKNAME 'x'", "INVALID_SQL", "PASSWORD, ROLE or EMAIL"),
        ("DROP USER nobody", "SQL_EXECUTION_ERROR", "Not found: User 'nobody' does not exist"),
    ],
)
def test_refused_accounts(roles: Roles, sql: str, code: str, part: str) -> None:
    found = error(roles.server.post(sql))
    assert (found.status, found.code) == (400, code)
    assert part in found.message


def test_everyone_changes_their_own_password(roles: Roles) -> None:
    server = roles.server
    for role in ("user", "service"):
        server.sql(f"CREATE USER 'self' WITH PASSWORD '{PASSWORD}' ROLE {role}")
        with server.client_of(server.login("self", PASSWORD)) as client:
            for sql, status in [
                ("ALTER USER self SET PASSWORD 'Changed99'", 403),
                ("ALTER USER self SET PASSWORD 'Changed99' OLD 'wrong'", 403),
                ("ALTER USER u1 SET PASSWORD 'Changed99' OLD 'GoodPass99'", 403),
                ("ALTER USER self SET ROLE dba", 403),
                (f"ALTER USER self SET PASSWORD 'Changed99' OLD '{PASSWORD}'", 200),
            ]:
                assert client.post("/v1/api/sql", json={"sql": sql}).status_code == status, sql
        assert server.login("self", "Changed99")
        server.sql("DROP USER 'self'")


def test_admins_of_role_system_are_out_of_reach_of_a_dba(roles: Roles) -> None:
    for sql in ("DROP USER root", "ALTER USER root SET ROLE user", "ALTER USER root SET PASSWORD 'Changed99'"):
        assert error(roles.server.post(sql))[:2] == (403, "PERMISSION_DENIED")
