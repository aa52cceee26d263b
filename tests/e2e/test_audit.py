"""The audit log of a running server: addresses, restarts, and what a whole day of an administrator leaves."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.conformance import PASSWORD
from tests.e2e.running import RunningServer

COLUMNS = "actor_user_id, action, target, subject_user_id, ip_address"
HERE = "127.0.0.1"


def log(server: RunningServer) -> list[list[Any]]:
    return server.rows(f"SELECT {COLUMNS} FROM system.audit_log")


def test_from_the_set_up_on_and_through_a_kill(fresh_server: RunningServer) -> None:
    server = fresh_server
    server.sql(f"CREATE USER 'ann' WITH PASSWORD '{PASSWORD}' ROLE user; CREATE NAMESPACE app")
    server.sql("CREATE USER TABLE app.notes (id INT PRIMARY KEY, v TEXT)")
    server.sql("EXECUTE AS USER 'ann' (INSERT INTO app.notes VALUES (1, 'x'))")
    token = server.login("ann", PASSWORD)
    wrong = {"user": "ann", "password": "not that one"}
    forwarded = {"X-Forwarded-For": "203.0.113.5"}
    assert httpx.post(f"{server.url}/v1/api/auth/login", json=wrong, headers=forwarded).status_code == 401
    with server.client_of(token) as ann:  # durable, and with it what was queued before
        refused = ann.post("/v1/api/sql", json={"sql": "EXECUTE AS USER 'admin' (SELECT 1)"})
        assert refused.status_code == 403
    server.restart()
    told = log(server)
    assert told == [
        ["admin", "SETUP", "admin", "admin", HERE],
        ["admin", "LOGIN", "admin", "admin", HERE],
        ["admin", "CREATE_USER", "ann", "ann", HERE],
        ["admin", "CREATE_NAMESPACE", "app", None, HERE],
        ["admin", "CREATE_TABLE", "app.notes", None, HERE],
        ["admin", "EXECUTE_AS_USER", "app.notes", "ann", HERE],
        ["ann", "LOGIN_FAILED", "ann", "ann", "203.0.113.5"],
        ["ann", "EXECUTE_AS_USER_DENIED", "admin", "admin", HERE],
    ]
    shown = server.rows("SELECT * FROM system.audit_log")
    assert PASSWORD not in str(shown)
    assert "not that one" not in str(shown)
    assert shown == sorted(shown)


def test_streamed_results_and_downloads_are_told_of_like_others(fresh_server: RunningServer) -> None:
    server = fresh_server
    server.sql("CREATE NAMESPACE app; CREATE USER TABLE app.papers (id INT PRIMARY KEY, f FILE)")
    before = len(log(server))
    read = "EXECUTE AS USER 'ann' (SELECT * FROM app.papers)"
    assert server.post(read, headers={"Accept": "application/x-ndjson"}).status_code == 200
    assert server.client.get("/v1/files/app/papers/f0001/1?user_id=bob").status_code == 404
    assert server.client.get("/v1/files/app/papers/f0001/1?user_id=root").status_code == 403
    assert log(server)[before:] == [
        ["admin", "EXECUTE_AS_USER", "app.papers", "ann", HERE],
        ["admin", "EXECUTE_AS_USER", "app.papers", "bob", HERE],
        ["admin", "EXECUTE_AS_USER_DENIED", "root", "root", HERE],
    ]


def test_a_lock_is_shown_and_a_new_password_ends_it(fresh_server: RunningServer) -> None:
    server = fresh_server
    server.sql(f"CREATE USER 'ann' WITH PASSWORD '{PASSWORD}' ROLE user")
    token = server.login("ann", PASSWORD)
    for _ in range(5):
        wrong = {"user": "ann", "password": "wrong"}
        assert httpx.post(f"{server.url}/v1/api/auth/login", json=wrong).status_code == 401
    server.sql("CREATE NAMESPACE later")  # failures are counted in the queue of the writer: behind them
    state = "SELECT failed_login_attempts, locked_until IS NOT NULL FROM system.users WHERE user_id = 'ann'"
    assert server.rows(state) == [[5, True]]
    with server.client_of(token) as ann:
        answer = ann.post("/v1/api/sql", json={"sql": "SELECT 1"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ACCOUNT_LOCKED")
    right = httpx.post(f"{server.url}/v1/api/auth/login", json={"user": "ann", "password": PASSWORD})
    assert (right.status_code, right.json()["error"]) == (401, "account_locked")
    assert [row[1] for row in log(server)[-3:-1]] == ["LOGIN_FAILED", "ACCOUNT_LOCKED"]
    server.sql(f"ALTER USER ann SET PASSWORD '{PASSWORD}9'")
    assert server.rows(state) == [[0, False]]
    assert server.login("ann", f"{PASSWORD}9")
