"""Files in columns against a real server: stored with their row, read by who may, gone with the last row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.files_support import FileUser, code_of, staged_handles, stored_files, until
from tests.e2e.running import RunningServer

PDF = b"%PDF-1.7\n" + b"x" * 5_000
INSERT = "INSERT INTO app.docs (id, attachment) VALUES ('d1', FILE(\"contract\"))"


@pytest.fixture(scope="module")
def people(server: RunningServer) -> Iterator[dict[str, FileUser]]:
    """admin (dba), carl (service), alice and bob (user)."""
    server.sql("CREATE NAMESPACE app")
    server.sql("CREATE USER TABLE app.docs (id TEXT PRIMARY KEY, note TEXT, attachment FILE)")
    server.sql("CREATE SHARED TABLE app.shared (id TEXT PRIMARY KEY, a FILE, b FILE)")
    server.sql("CREATE SHARED TABLE app.public (id TEXT PRIMARY KEY, a FILE) WITH (ACCESS_LEVEL = 'public')")
    server.sql("CREATE STREAM TABLE app.events (id TEXT, a TEXT) WITH (TTL_SECONDS = 60)")
    found = {"admin": FileUser(server, server.token)}
    for name, role in {"alice": "user", "bob": "user", "carl": "service"}.items():
        server.sql(f"CREATE USER '{name}' WITH PASSWORD 'Secret123!x' ROLE {role}")
        found[name] = FileUser(server, server.login(name, "Secret123!x"))
    yield found
    for user in found.values():
        user.http.close()


@pytest.fixture(autouse=True)
def emptied(server: RunningServer, people: dict[str, FileUser]) -> Iterator[None]:
    """Each test begins without rows, and nothing is left when the rows of all are gone."""
    yield
    for name in ("alice", "bob", "carl"):
        people[name].sql("DELETE FROM app.docs WHERE true")
    for table in ("docs", "shared", "public"):
        server.sql(f"DELETE FROM app.{table} WHERE true")
    until(lambda: stored_files(server.data) == [])
    assert staged_handles(server) == 0


def test_a_file_is_stored_with_its_row_and_read_back(people: dict[str, FileUser], server: RunningServer) -> None:
    alice = people["alice"]
    answer = alice.upload(INSERT, {"contract": ("Contract 2026.PDF", PDF, "application/pdf")})
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == [{"row_count": 1, "message": "Inserted 1 row(s)", "as_user": "alice"}]
    ref = alice.ref("SELECT attachment FROM app.docs")
    digest = hashlib.sha256(PDF).hexdigest()
    assert ref == {
        "id": ref["id"], "sub": "f0001", "name": "Contract 2026.PDF", "size": len(PDF), "mime": "application/pdf",
        "sha256": digest,
    }  # fmt: skip
    assert ref["id"].isdecimal()
    stored = f"{ref['id']}-contract-2026.pdf"
    assert [path.rpartition("/")[2] for path in stored_files(server.data)] == [stored]
    for name in (None, stored):
        got = alice.get("app.docs", ref, name=name)
        assert got.status_code == 200
        assert got.content == PDF
        assert got.headers["content-type"] == "application/pdf"
        assert got.headers["content-disposition"] == 'inline; filename="Contract 2026.PDF"'
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["etag"] == f'"{digest}"'
        assert got.headers["content-length"] == str(len(PDF))
    head = alice.http.head(f"/v1/files/app/docs/f0001/{ref['id']}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PDF)))


@pytest.mark.parametrize("quote", ["'", '"'])
def test_update_upsert_and_several_files(people: dict[str, FileUser], server: RunningServer, quote: str) -> None:
    carl = people["carl"]

    def place(name: str) -> str:
        return f"FILE({quote}{name}{quote})"

    sql = f"INSERT INTO app.shared VALUES ('1', {place('x')}, {place('y')}), ('2', {place('x')}, NULL)"
    assert carl.upload(sql, {"x": ("x.txt", b"one"), "y": ("y.txt", b"two")}).status_code == 200
    assert len(stored_files(server.data)) == 2
    first = carl.ref("SELECT a FROM app.shared WHERE id = '1'")
    assert first == carl.ref("SELECT a FROM app.shared WHERE id = '2'")
    assert carl.sql("DELETE FROM app.shared WHERE id = '1'").status_code == 200
    until(lambda: len(stored_files(server.data)) == 1)
    assert carl.get("app.shared", first).content == b"one"
    update = f"UPDATE app.shared SET a = {place('n')} WHERE id = $1"
    assert carl.upload(update, {"n": ("n", b"new")}, ["2"]).status_code == 200
    until(lambda: len(stored_files(server.data)) == 1)
    assert code_of(carl.get("app.shared", first)) == (404, "FILE_NOT_FOUND")
    upsert = f"INSERT INTO app.shared (id, a) VALUES ('2', NULL) ON CONFLICT (id) DO UPDATE SET a = {place('u')}"
    assert carl.upload(upsert, {"u": ("u", b"upserted")}).status_code == 200
    assert carl.get("app.shared", carl.ref("SELECT a FROM app.shared")).content == b"upserted"
    kept = f"INSERT INTO app.shared (id, a) VALUES ('2', {place('u')}) ON CONFLICT (id) DO NOTHING"
    assert carl.upload(kept, {"u": ("u", b"unused")}).status_code == 200
    nobody = f"UPDATE app.shared SET a = {place('u')} WHERE id = 'nobody'"
    assert carl.upload(nobody, {"u": ("u", b"unused")}).status_code == 200
    until(lambda: len(stored_files(server.data)) == 1)
    returning = f"UPDATE app.shared SET b = {place('r')} WHERE true RETURNING b"
    answer = carl.upload(returning, {"r": ("r.bin", b"r")})
    ref = answer.json()["results"][0]["rows"][0][0]
    ref = json.loads(ref) if isinstance(ref, str) else ref
    assert carl.get("app.shared", ref).content == b"r"


def test_execute_as_user(people: dict[str, FileUser], server: RunningServer) -> None:
    admin, alice, bob = people["admin"], people["alice"], people["bob"]
    sql = f"EXECUTE AS USER 'alice' ({INSERT})"
    assert admin.upload(sql, {"contract": ("c", b"as alice")}).status_code == 200
    ref = alice.ref("SELECT attachment FROM app.docs")
    assert alice.get("app.docs", ref).content == b"as alice"
    assert code_of(admin.get("app.docs", ref)) == (404, "FILE_NOT_FOUND")
    assert admin.get("app.docs", ref, params={"user_id": "alice"}).content == b"as alice"
    assert code_of(bob.upload(sql, {"contract": ("c", b"x")})) == (403, "PERMISSION_DENIED")
    shared = "EXECUTE AS USER 'alice' (INSERT INTO app.public VALUES ('1', FILE('f')))"
    assert admin.upload(shared, {"f": ("c", b"x")}).status_code in {400, 403}
    assert len(stored_files(server.data)) == 1


MISTAKES: list[tuple[str, dict[str, Any], int, str]] = [
    (INSERT, {}, 400, "MISSING_FILE"),
    (INSERT, {"other": ("a", b"a")}, 400, "MISSING_FILE"),
    (INSERT, {"contract": ("a", b"a"), "other": ("a", b"a")}, 400, "EXTRA_FILE"),
    ("SELECT 1", {"other": ("a", b"a")}, 400, "EXTRA_FILE"),
    ("SELECT FILE('f')", {"f": ("a", b"a")}, 400, "INVALID_INPUT"),
    ("DELETE FROM app.docs WHERE attachment = FILE('f')", {"f": ("a", b"a")}, 400, "INVALID_INPUT"),
    (f"{INSERT}; SELECT 1", {"contract": ("a", b"a")}, 400, "INVALID_INPUT"),
    (f"BEGIN; {INSERT}; COMMIT", {"contract": ("a", b"a")}, 400, "INVALID_INPUT"),
    ("INSERT INTO app.docs (id, note) VALUES ('1', FILE('f'))", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("INSERT INTO app.docs (id, attachment) VALUES ('1', upper(FILE('f')))", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("INSERT INTO app.docs (id, attachment) SELECT '1', FILE('f')", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("UPDATE app.docs SET note = 'x' WHERE attachment = FILE('f')", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("INSERT INTO app.docs (id, attachment) VALUES ('1', FILE(f))", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("INSERT INTO app.docs (id, attachment) VALUES ('1', FILE('f'", {"f": ("a", b"a")}, 400, "INVALID_SQL"),
    ("INSERT INTO app.docs (id, attachment) VALUES ($1, FILE('f'))", {"f": ("a", b"a")}, 400, "INVALID_PARAMETER"),
    ("INSERT INTO app.docs (id, attachment) VALUES (NULL, FILE('f'))", {"f": ("a", b"a")}, 400, "SQL_EXECUTION_ERROR"),
    ("INSERT INTO app.nowhere VALUES (FILE('f'))", {"f": ("a", b"a")}, 404, "TABLE_NOT_FOUND"),
    ("INSERT INTO app.shared VALUES ('1', FILE('f'), NULL)", {"f": ("a", b"a")}, 403, "PERMISSION_DENIED"),
    ("INSERT INTO app.events VALUES ('1', FILE('f'))", {"f": ("a", b"a")}, 400, "INVALID_INPUT"),
    ("INSERT INTO system.users VALUES ('1', FILE('f'))", {"f": ("a", b"a")}, 400, "INVALID_INPUT"),
]


@pytest.mark.parametrize(("sql", "files", "status", "code"), MISTAKES)
def test_mistakes_leave_nothing(
    people: dict[str, FileUser], server: RunningServer, sql: str, files: dict[str, Any], status: int, code: str
) -> None:
    alice = people["alice"]
    assert code_of(alice.upload(sql, files)) == (status, code)
    assert alice.rows("SELECT id FROM app.docs") == []
    assert stored_files(server.data) == []


def test_a_placeholder_without_a_form(people: dict[str, FileUser]) -> None:
    for sql in (INSERT, f"EXECUTE AS USER 'alice' ({INSERT})", "SELECT file('x')", f"EXPLAIN {INSERT}"):
        answer = people["alice"].sql(sql)
        assert code_of(answer) == (400, "INVALID_INPUT")
        assert answer.json()["error"]["message"].startswith("FILE placeholders require multipart/form-data")


def test_a_text_makes_no_reference(people: dict[str, FileUser], server: RunningServer) -> None:
    """No way of writing rows lets a caller refer to a file that was not uploaded for that very cell."""
    alice, bob, carl = people["alice"], people["bob"], people["carl"]
    assert alice.upload(INSERT, {"contract": ("a.pdf", PDF)}).status_code == 200
    assert carl.upload("INSERT INTO app.shared VALUES ('1', FILE('f'), NULL)", {"f": ("a", b"x")}).status_code == 200
    ((own,),) = alice.rows("SELECT attachment::TEXT FROM app.docs")
    ((shared,),) = carl.rows("SELECT a::TEXT FROM app.shared")
    put = "INSERT INTO app.docs (id, attachment) VALUES"
    replacing = "ON CONFLICT (id) DO UPDATE SET attachment = EXCLUDED.attachment"
    again = "DELETE FROM app.shared WHERE true; INSERT INTO app.shared (id, a) VALUES ('1', $1)"
    twice = "UPDATE app.docs SET attachment = NULL WHERE true; UPDATE app.docs SET attachment = $1 WHERE true"
    refused = [
        (bob, "INSERT INTO app.docs (id, attachment) VALUES ('b', $1)", [own]),
        (bob, "INSERT INTO app.docs (id, attachment) VALUES ('b', $1)", [shared]),
        (alice, "INSERT INTO app.docs (id, attachment) VALUES ('b', $1)", [own]),
        (alice, "INSERT INTO app.docs (id, attachment) SELECT 'b', attachment FROM app.docs", None),
        (alice, f"{put} ('d2', $1) {replacing}", [own]),
        (carl, "UPDATE app.shared SET b = a WHERE true", None),
        (carl, "UPDATE app.shared SET b = $1 WHERE id = '1'", [shared]),
        (carl, "INSERT INTO app.shared (id, a) VALUES ('2', $1)", [shared]),
        (carl, "INSERT INTO app.public (id, a) VALUES ('2', $1)", [shared]),
        (carl, f"BEGIN; {again}; COMMIT", [shared]),
        (carl, "ALTER TABLE app.shared ADD COLUMN c FILE DEFAULT $1", None),
    ]  # fmt: skip
    for user, sql, params in refused * 2:  # the second time the statements are hot
        answer = user.sql(sql, params)
        assert answer.status_code == 400, (sql, answer.text)
    body = json.dumps({"id": "9", "attachment": json.loads(own)}) + "\n"
    for user in (alice, bob):
        ingested = user.http.post(
            "/v1/api/ingest/app/docs", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        assert ingested.status_code == 400, ingested.text
    taken = [
        (alice, "UPDATE app.docs SET attachment = $1 WHERE id = 'd1'", [own]),
        (alice, "UPDATE app.docs SET attachment = attachment, note = 'n' WHERE true", None),
        (alice, f"{put} ('d1', $1) {replacing}, note = 'm'", [own]),
        (alice, f"BEGIN; {twice}; COMMIT", [own]),
        (alice, "BEGIN; UPDATE app.docs SET attachment = NULL WHERE true; ROLLBACK", None),
    ]  # fmt: skip
    for user, sql, params in taken * 2:
        answer = user.sql(sql, params)
        assert answer.status_code == 200, (sql, answer.text)
    ref = json.loads(own)
    assert alice.get("app.docs", ref).content == PDF
    assert alice.sql("UPDATE app.docs SET attachment = NULL WHERE true").status_code == 200
    assert code_of(alice.get("app.docs", ref)) == (404, "FILE_NOT_FOUND")
    assert alice.sql("UPDATE app.docs SET attachment = $1 WHERE true", [own]).status_code == 400
    until(lambda: len(stored_files(server.data)) == 1)


def test_rights(people: dict[str, FileUser], server: RunningServer) -> None:
    """Who reads which file: by id, by stored name, with user_id, after delete, replace and drop."""
    admin, alice, bob, carl = (people[name] for name in ("admin", "alice", "bob", "carl"))
    refs: dict[str, dict[str, Any]] = {}
    for user, name in ((alice, "alice"), (bob, "bob"), (carl, "carl"), (admin, "admin")):
        assert user.upload(INSERT, {"contract": (f"{name}.txt", name.encode())}).status_code == 200
        refs[name] = user.ref("SELECT attachment FROM app.docs")
    assert carl.upload("INSERT INTO app.shared VALUES ('1', FILE('f'), NULL)", {"f": ("s", b"shared")}).is_success
    assert carl.upload("INSERT INTO app.public VALUES ('1', FILE('f'))", {"f": ("s", b"public")}).is_success
    shared, public = carl.ref("SELECT a FROM app.shared"), carl.ref("SELECT a FROM app.public")
    gone, denied, wrong = (404, "FILE_NOT_FOUND"), (403, "PERMISSION_DENIED"), (400, "INVALID_INPUT")
    table: list[tuple[str, str, dict[str, Any], str | None, object]] = [
        ("alice", "app.docs", refs["alice"], None, b"alice"),
        ("alice", "app.docs", refs["alice"], "alice", b"alice"),
        ("alice", "app.docs", refs["bob"], None, gone),
        ("alice", "app.docs", refs["bob"], "bob", denied),
        ("alice", "app.docs", refs["bob"], "nobody", denied),
        ("carl", "app.docs", refs["alice"], "alice", b"alice"),
        ("carl", "app.docs", refs["alice"], "bob", gone),
        ("carl", "app.docs", refs["admin"], "admin", denied),
        ("admin", "app.docs", refs["carl"], "carl", b"carl"),
        ("admin", "app.docs", refs["carl"], None, gone),
        ("carl", "app.shared", shared, None, b"shared"),
        ("admin", "app.shared", shared, None, b"shared"),
        ("alice", "app.shared", shared, None, denied),
        ("alice", "app.public", public, None, b"public"),
        ("alice", "app.public", public, "alice", wrong),
        ("carl", "app.shared", shared, "carl", wrong),
        ("carl", "app.public", shared, None, gone),
        ("carl", "app.docs", shared, None, gone),
        ("alice", "app.public", refs["alice"], None, gone),
        ("alice", "app.events", refs["alice"], None, wrong),
        ("admin", "system.users", refs["alice"], None, wrong),
        ("alice", "app.nowhere", refs["alice"], None, (404, "TABLE_NOT_FOUND")),
    ]
    for name, where, ref, user_id, expected in table:
        stored = f"{ref['id']}-{ref['name'].partition('.')[0]}.{'txt' if '.' in ref['name'] else 'bin'}"
        for file_id in (None, stored):
            params = {} if user_id is None else {"user_id": user_id}
            answer = people[name].get(where, ref, name=file_id, params=params)
            found = answer.content if answer.status_code == 200 else code_of(answer)
            assert found == expected, (name, where, ref["name"], user_id, file_id)
    mine = refs["alice"]
    assert code_of(alice.get("app.docs", mine, name=f"{mine['id']}-other.txt")) == gone
    assert code_of(alice.get("app.docs", mine | {"sub": "f0002"})) == gone
    for near in range(int(mine["id"]) - 20, int(mine["id"]) + 20):
        if near != int(mine["id"]):
            assert code_of(alice.get("app.docs", mine, name=str(near))) == gone
    with server.client_of("x.y.z") as stranger:
        assert stranger.get(f"/v1/files/app/docs/f0001/{mine['id']}").status_code == 401
    assert alice.sql("DELETE FROM app.docs WHERE true").is_success
    assert bob.upload("UPDATE app.docs SET attachment = FILE('f') WHERE true", {"f": ("n", b"new")}).is_success
    assert code_of(alice.get("app.docs", mine)) == gone
    assert code_of(bob.get("app.docs", refs["bob"])) == gone
    server.sql("CREATE SHARED TABLE app.gone (id TEXT PRIMARY KEY, a FILE, b FILE)")
    assert carl.upload(
        "INSERT INTO app.gone VALUES ('1', FILE('a'), FILE('b'))", {"a": ("a", b"a"), "b": ("b", b"b")}
    ).is_success
    a, b = carl.ref("SELECT a FROM app.gone"), carl.ref("SELECT b FROM app.gone")
    count = len(stored_files(server.data))
    server.sql("ALTER TABLE app.gone DROP COLUMN b")
    assert code_of(carl.get("app.gone", b)) == gone
    assert carl.get("app.gone", a).content == b"a"
    until(lambda: len(stored_files(server.data)) < count)
    server.sql("DROP TABLE app.gone")
    assert code_of(carl.get("app.gone", a)) == (404, "TABLE_NOT_FOUND")
    server.sql("CREATE SHARED TABLE app.gone (id TEXT PRIMARY KEY, a FILE, b FILE)")
    assert code_of(carl.get("app.gone", a)) == gone
    server.sql("DROP TABLE app.gone")


@pytest.mark.parametrize(
    "path",
    [
        "app/docs/f0001/..%2f1", "app/docs/%2e%2e/1", "app/docs/f0001/..", "app/docs/f0001/a%5cb",
        "app/docs/f0001/1%00",
        "app/docs/f0001", "app/docs/f0001/1/2", "app/docs/f0001/", "%2fetc/passwd/f0001/1", "app/docs/f0001/a..b",
    ],
)  # fmt: skip
def test_paths_that_are_none(people: dict[str, FileUser], path: str) -> None:
    request = people["alice"].http.build_request("GET", "/v1/files/x")
    request.url = request.url.copy_with(raw_path=f"/v1/files/{path}".encode())
    answer = people["alice"].http.send(request)
    assert answer.status_code == 400
    assert answer.json() == {"error": "Invalid file path", "code": "INVALID_INPUT"}


def test_the_shape_of_what_is_not_there(people: dict[str, FileUser]) -> None:
    answer = people["alice"].http.get("/v1/files/app/docs/f0001/1")
    assert (answer.status_code, answer.json()) == (404, {"error": "File not found", "code": "FILE_NOT_FOUND"})
    missing = people["alice"].http.get("/v1/files/app/x/f0001/1")
    assert missing.json() == {"error": "Table 'app.x' not found", "code": "TABLE_NOT_FOUND"}
    assert people["alice"].http.post("/v1/files/app/docs/f0001/1").status_code == 405


def test_ranges_and_conditions(people: dict[str, FileUser]) -> None:
    alice = people["alice"]
    assert alice.upload(INSERT, {"contract": ("a.pdf", PDF)}).is_success
    ref = alice.ref("SELECT attachment FROM app.docs")
    part = alice.get("app.docs", ref, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, PDF[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{len(PDF)}"
    assert alice.get("app.docs", ref, headers={"Range": "bytes=-3"}).content == PDF[-3:]
    far = alice.get("app.docs", ref, headers={"Range": f"bytes={len(PDF)}-"})
    assert code_of(far) == (416, "RANGE_NOT_SATISFIABLE")
    assert far.headers["content-range"] == f"bytes */{len(PDF)}"
    tag = part.headers["etag"]
    assert alice.get("app.docs", ref, headers={"If-None-Match": tag}).status_code == 304
    assert alice.get("app.docs", ref, headers={"If-Match": '"x"'}).status_code == 412
    assert alice.get("app.docs", ref, headers={"Range": "bytes=0-0", "If-Range": tag}).status_code == 206
    assert alice.get("app.docs", ref, headers={"Range": "bytes=0-0", "If-Range": '"x"'}).content == PDF


@pytest.mark.parametrize(
    ("mime", "sandboxed"),
    [("text/html", True), ("image/svg+xml", True), ("application/xml", True), ("text/javascript", True),
     ("application/xhtml+xml", True), ("image/png", False), ("application/pdf", False), ("text/plain", False)],
)  # fmt: skip
def test_what_a_browser_would_run_is_sandboxed(people: dict[str, FileUser], mime: str, sandboxed: bool) -> None:
    alice = people["alice"]
    assert alice.upload(INSERT, {"contract": ("a", b"<script>alert(1)</script>", mime)}).is_success
    answer = alice.get("app.docs", alice.ref("SELECT attachment FROM app.docs"))
    assert answer.headers["content-type"].startswith(mime)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("sandbox" in answer.headers.get("content-security-policy", "")) is sandboxed


def test_an_empty_file(people: dict[str, FileUser]) -> None:
    alice = people["alice"]
    assert alice.upload(INSERT, {"contract": ("empty.txt", b"")}).is_success
    answer = alice.get("app.docs", alice.ref("SELECT attachment FROM app.docs"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
