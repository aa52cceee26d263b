"""Every action in every role, allowed and refused; and the page that tells of it says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conformance import PASSWORD, ROLES, Roles, Visitor, error, ok, roles_of
from tests.e2e.rights_matrix import ACTIONS, GOOD, LEVELS, Action
from tests.e2e.running import ROOT, RunningServer

OTHERS = {"u2": "user", "s2": "service", "d2": "dba", "sys2": "system", "gone": "dba"}
"""Accounts to act as."""
NAMES = {"user": "m_user", "service": "m_service", "dba": "m_dba", "system": "m_system"}
assert PASSWORD == GOOD


class Matrix:
    """A server with a table of each kind, and in each role a client that signs in anew when its tokens have ended."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.server = roles.server
        self.visitor = Visitor(self.server.url)
        for role, name in NAMES.items():
            ok(roles.post("system", f"CREATE USER '{name}' WITH PASSWORD '{GOOD}' ROLE {role}"))
        self.clients = {role: self.server.client_of(self.server.login(name, GOOD)) for role, name in NAMES.items()}

    def before(self, action: Action, number: int) -> None:
        if action.before:
            ok(self.roles.post("system", action.before.replace("{n}", str(number))))

    def send(self, client: httpx.Client | Visitor, action: Action, number: int, me: str) -> httpx.Response:
        def filled(text: str) -> str:
            return text.replace("{n}", str(number)).replace("{me}", me)

        if not action.path:
            return client.post("/v1/api/sql", json={"sql": filled(action.sql)})
        kind = "application/x-ndjson" if isinstance(action.body, str) else "application/json"
        text = action.body if isinstance(action.body, str) else json.dumps(action.body)
        return client.post(action.path, content=filled(text), headers={"Content-Type": kind})

    def act(self, role: str, action: Action, number: int) -> httpx.Response:
        answer = self.send(self.clients[role], action, number, NAMES[role])
        if "SET PASSWORD" in action.sql:
            self.clients[role].close()
            self.clients[role] = self.server.client_of(self.server.login(NAMES[role], GOOD))
        return answer

    def close(self) -> None:
        self.visitor.__exit__()
        for client in self.clients.values():
            client.close()


@pytest.fixture(scope="module")
def matrix(server: RunningServer) -> Iterator[Matrix]:
    server.sql("CREATE NAMESPACE app; CREATE USER TABLE app.mine (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql("CREATE STREAM TABLE app.passing (id BIGINT) WITH (TTL_SECONDS = 600); CREATE TOPIC app.news")
    for level in LEVELS:
        server.sql(f"CREATE SHARED TABLE app.{level}_t (id BIGINT PRIMARY KEY, v INT) WITH (ACCESS_LEVEL = '{level}')")
    with roles_of(server) as roles:
        for name, role in OTHERS.items():
            ok(roles.post("system", f"CREATE USER '{name}' WITH INTERNAL ROLE {role}"))
        server.sql("DROP USER gone")
        found = Matrix(roles)
        yield found
        found.close()


@pytest.mark.parametrize("place", range(len(ACTIONS)), ids=[f"{action.sql or action.path}" for action in ACTIONS])
def test_every_action_in_every_role(matrix: Matrix, place: int) -> None:
    action = ACTIONS[place]
    for number, role in enumerate(ROLES, start=place * 10 + 1):
        matrix.before(action, number)
        answer = matrix.act(role, action, number)
        if role in action.allowed:
            assert answer.status_code == action.status, (role, answer.text[:400])
            continue
        assert answer.status_code == 403, (role, answer.text[:400])
        if action.path.startswith("/v1/api/topics"):
            assert answer.json()["code"] == "FORBIDDEN"
        else:
            found = error(answer)
            assert found.code == "PERMISSION_DENIED", role
            assert "ermission denied" in found.message
    anonymous = matrix.send(matrix.visitor, action, place * 10, "nobody")
    assert anonymous.status_code == 401
    assert "MISSING_AUTHORIZATION" in anonymous.text


def test_the_page_has_this_matrix() -> None:
    page = (ROOT / "docs" / "rights.md").read_text(encoding="utf-8")
    told = {
        cells[0]: tuple(role for role, cell in zip(ROLES, cells[1:], strict=True) if cell == "yes")
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in re.findall(r"^\|.*\|$", page, flags=re.MULTILINE)
        )
        if len(cells) == 1 + len(ROLES) and set(cells[1:]) <= {"yes", "–"}
    }
    tested = {(action.row, action.allowed) for action in ACTIONS}
    assert set(told.items()) == tested
    assert {row for row, _ in tested} == set(told)


# --- rows of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [("USER", ""), ("STREAM", " WITH (TTL_SECONDS = 600)")])
def test_no_role_reaches_the_rows_of_another_account(matrix: Matrix, kind: str, options: str) -> None:
    table = f"app.own_{kind.lower()}"
    matrix.server.sql(f"CREATE {kind} TABLE {table} (id INT PRIMARY KEY, v TEXT){options}")
    for role in ROLES:
        ok(matrix.act(role, Action("", (), f"INSERT INTO {table} VALUES (1, '{role}')"), 0))
    for role in reversed(ROLES):
        for sql, rows in [
            (f"SELECT v FROM {table}", [[role]]),
            (f"SELECT count(*) FROM {table}", [[1]]),
            (f"SELECT v FROM {table} WHERE v <> '{role}' OR id = 1 OR true", [[role]]),
            (f"DELETE FROM {table} WHERE v <> '{role}'", None),
        ]:
            (result,) = ok(matrix.act(role, Action("", (), sql), 0))
            assert result.get("rows") == rows, sql
        (stats,) = ok(matrix.act(role, Action("", (), f"SHOW STATS FOR TABLE {table}"), 0))
        assert stats["rows"][0][3] == 1
    for role in ROLES:
        assert ok(matrix.act(role, Action("", (), f"SELECT v FROM {table}"), 0))[0]["rows"] == [[role]]


def test_each_role_is_shown_the_tables_that_it_may_read(matrix: Matrix) -> None:
    seen = {"user": {"public"}, "service": {"public", "private", "restricted"}, "dba": set(LEVELS),
            "system": set(LEVELS)}  # fmt: skip
    for role, levels in seen.items():
        for sql in ("SHOW TABLES IN app", "SELECT DISTINCT table_name FROM information_schema.tables",
                    "SELECT DISTINCT table_name FROM information_schema.columns"):  # fmt: skip
            (result,) = ok(matrix.act(role, Action("", (), sql), 0))
            place = [column["name"] for column in result["schema"]].index("table_name")
            names = {row[place] for row in result["rows"]}
            assert {level for level in LEVELS if f"{level}_t" in names} == levels, (role, sql)
            assert {"mine", "passing"} <= names
            if "information_schema" in sql:
                assert ("audit_log" in names) == (role in ("dba", "system"))


def test_a_missing_table_does_not_suggest_what_one_may_not_know(matrix: Matrix) -> None:
    for role, hint in (("user", False), ("service", False), ("dba", True), ("system", True)):
        answer = matrix.act(role, Action("", (), "SELECT * FROM app.dba_tt"), 0)
        found = error(answer)
        assert (found.status, found.code) == (404, "TABLE_NOT_FOUND")
        assert ("dba_t'" in found.message) is hint
