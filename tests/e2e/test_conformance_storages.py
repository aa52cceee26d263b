"""CREATE, ALTER, DROP, SHOW STORAGE, STORAGE CHECK, FLUSH, COMPACT and SHOW MANIFEST as existing clients send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conformance import Roles, columns, message, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import (
    DENIED,
    EXECUTION,
    HOSTILE_IDS,
    INVALID,
    NO_TABLE,
    UNSUPPORTED,
    done,
    ended,
    one,
    prefixed,
    records,
    refused,
    shape,
)

STORAGES: list[tuple[str, object]] = [
    *((name, "Text") for name in ("storage_id", "storage_name", "description", "storage_type", "base_directory")),
    ("credentials", "Text"), ("config_json", "Json"),
    ("shared_tables_template", "Text"), ("user_tables_template", "Text"),
    ("created_at", "Timestamp"), ("updated_at", "Timestamp"),
]  # fmt: skip
CHECK = ["storage_id", "status", "readable", "writable", "listable", "deletable", "latency_ms", "total_bytes",
         "used_bytes", "error", "tested_at"]  # fmt: skip
MANIFEST = ["cache_key", "namespace_id", "table_name", "scope", "etag", "last_refreshed", "last_accessed",
            "in_memory", "sync_state", "manifest_json"]  # fmt: skip


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app; CREATE NAMESPACE other")
    with roles_of(server) as found:
        yield found


@pytest.fixture
def clean(roles: Roles) -> Iterator[RunningServer]:
    """The table app.t and the storage s are free before and after."""
    yield roles.server
    roles.server.sql("DROP TABLE IF EXISTS app.t; DROP STORAGE IF EXISTS s")


def ids(server: RunningServer) -> list[str]:
    return [row[0] for row in server.rows("SELECT storage_id FROM system.storages ORDER BY storage_id")]


# --- definitions ------------------------------------------------------------------------------------------------------


def test_the_seeded_one(roles: Roles) -> None:
    result = one(roles.post("dba", "SHOW STORAGES"))
    assert [name for name, _ in shape(result)] == [name for name, _ in STORAGES]
    assert [kind for _, kind in shape(result)] == [kind for _, kind in STORAGES]
    (row,) = records(roles.post("dba", "show storages;"))
    assert (row["storage_id"], row["storage_type"]) == ("local", "filesystem")
    assert row["shared_tables_template"] == "{namespace}/{tableName}"
    assert row["user_tables_template"] == "{namespace}/{tableName}/{userId}"
    assert isinstance(row["created_at"], int)
    for role in ("user", "service"):
        assert columns(one(roles.post(role, "SHOW STORAGES"))) == [name for name, _ in STORAGES]


@pytest.mark.parametrize(
    "form",
    [
        "CREATE STORAGE s TYPE filesystem PATH '{p}'",
        "create storage s type FILESYSTEM path '{p}'",
        "CREATE STORAGE 's' TYPE 'filesystem' PATH '{p}'",
        "CREATE STORAGE \"s\" TYPE filesystem BASE_DIRECTORY '{p}'",
        "CREATE STORAGE s TYPE filesystem NAME 'Name ''n''' DESCRIPTION 'é \U0001f600' PATH '{p}'",
        (
            "CREATE STORAGE s TYPE filesystem PATH '{p}' SHARED_TABLES_TEMPLATE 'x/{{namespace}}/{{tableName}}'"
            " USER_TABLES_TEMPLATE 'y/{{namespace}}/{{tableName}}/{{userId}}' CONFIG '{{}}'"
        ),
        "CREATE STORAGE s\n  TYPE filesystem -- a comment\n  PATH '{p}' /* another */ ;",
    ],
)
def test_forms_of_create(clean: RunningServer, tmp_path: Path, form: str) -> None:
    assert message(clean.post(form.replace("{p}", str(tmp_path / "s")).replace("{{", "{").replace("}}", "}"))) == (
        "Storage 's' created successfully"
    )
    (row,) = records(clean.post("SELECT * FROM system.storages WHERE storage_id = 's'"))
    assert row["storage_type"] == "filesystem"
    assert str(tmp_path / "s") in row["base_directory"]
    if "NAME" in form:
        assert (row["storage_name"], row["description"]) == ("Name 'n'", "é \U0001f600")
    if "y/{" in form:
        assert row["user_tables_template"] == "y/{namespace}/{tableName}/{userId}"
        assert row["shared_tables_template"] == "x/{namespace}/{tableName}"
    assert message(clean.post("DROP STORAGE s")) == "Storage 's' dropped successfully"
    assert ids(clean) == ["local"]


@pytest.mark.parametrize(
    ("sql", "kind", "part"),
    [
        ("CREATE STORAGE", INVALID, ""),
        ("CREATE STORAGE s", INVALID, ""),
        ("CREATE STORAGE s TYPE", INVALID, ""),
        ("CREATE STORAGE s TYPE ftp PATH '/tmp/x'", INVALID, "ftp"),
        ("CREATE STORAGE s PATH '/tmp/x'", INVALID, "TYPE"),
        ("CREATE STORAGE s TYPE filesystem", None, "PATH"),
        ("CREATE STORAGE s TYPE filesystem PATH ''", None, ""),
        ("CREATE STORAGE s TYPE filesystem PATH 5", INVALID, ""),
        ("CREATE STORAGE s TYPE filesystem PATH NULL", INVALID, ""),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' PATH '/tmp/y'", INVALID, "PATH"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' NAME 'a' NAME 'b'", INVALID, "NAME"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' COLOUR 'red'", INVALID, "COLOUR"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' REGION", INVALID, ""),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' CONFIG 'no json'", None, "CONFIG"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' CONFIG '[1]'", None, "CONFIG"),
        ("CREATE STORAGE s TYPE s3 BUCKET 'bucket' CREDENTIALS 'hunter2-is-no-json'", None, "CREDENTIALS"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' SHARED_TABLES_TEMPLATE '../{namespace}/{tableName}'",
         None, "TEMPLATE"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' SHARED_TABLES_TEMPLATE '/{namespace}/{tableName}'",
         None, "TEMPLATE"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' SHARED_TABLES_TEMPLATE '{nosuch}/{tableName}'", None,
         "SHARED_TABLES_TEMPLATE"),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' SHARED_TABLES_TEMPLATE 'all'", None, ""),
        ("CREATE STORAGE s TYPE filesystem PATH '/tmp/x' USER_TABLES_TEMPLATE '{namespace}/{tableName}'", None,
         "userId"),
        ("CREATE STORAGE s TYPE filesystem PATH '/proc/none/here'", EXECUTION, "'s'"),
        ("CREATE STORAGE local TYPE filesystem PATH '/tmp/x'", EXECUTION, "Already exists: "),
        ("ALTER STORAGE nosuch SET NAME 'n'", EXECUTION, "Not found: "),
        ("ALTER STORAGE local", INVALID, ""),
        ("ALTER STORAGE local SET", INVALID, ""),
        ("ALTER STORAGE local SET COLOUR 'red'", INVALID, "COLOUR"),
        ("ALTER STORAGE local SET NAME 5", INVALID, ""),
        ("ALTER STORAGE local SET CONFIG '{'", None, "CONFIG"),
        ("DROP STORAGE", INVALID, ""),
        ("DROP STORAGE nosuch", EXECUTION, "Not found: "),
        ("DROP STORAGE local", EXECUTION, "local"),
        ("DROP STORAGE IF EXISTS local", EXECUTION, "local"),
        ("DROP STORAGE a, b", INVALID, ""),
        ("STORAGE CHECK", INVALID, ""),
        ("STORAGE CHECK nosuch", EXECUTION, "Not found: "),
        ("STORAGE CHECK local TWICE", INVALID, ""),
        ("STORAGE", UNSUPPORTED, "STORAGE"),
        ("STORAGE EMPTY local", UNSUPPORTED, "STORAGE"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID = 'nosuch')", EXECUTION, "'nosuch'"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID = 5)", None, ""),
    ],
)  # fmt: skip
def test_refused_definitions(clean: RunningServer, sql: str, kind: tuple[int, str] | None, part: str) -> None:
    before = records(clean.post("SELECT * FROM system.storages"))
    answer = clean.post(sql)
    if kind is None:
        kind = INVALID if answer.json().get("error", {}).get("code") == "INVALID_SQL" else EXECUTION
    found = refused(answer, kind, part)
    assert "hunter2" not in found.message
    assert records(clean.post("SELECT * FROM system.storages")) == before
    refused(clean.post("SELECT * FROM app.t"), NO_TABLE)


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_hostile_ids(clean: RunningServer, tmp_path: Path, name: str) -> None:
    quoted = name.replace("'", "''")
    path = tmp_path / "s"
    answer = clean.post(f"CREATE STORAGE '{quoted}' TYPE filesystem PATH '{path}'")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in {"SQL_EXECUTION_ERROR", "INVALID_SQL"}
    for sql in ("ALTER STORAGE '{}' SET NAME 'x'", "DROP STORAGE '{}'", "STORAGE CHECK '{}'"):
        assert clean.post(sql.format(quoted)).status_code == 400
    assert ids(clean) == ["local"]


@pytest.mark.parametrize("path", ["{p}/a/../../b", "relative/x", "nul\x00byte", "x" * 5000])
def test_paths_that_lead_elsewhere(clean: RunningServer, tmp_path: Path, path: str) -> None:
    found = clean.post("CREATE STORAGE s TYPE filesystem PATH '" + path.replace("{p}", str(tmp_path)) + "'")
    assert found.status_code == 400, found.text
    assert ids(clean) == ["local"]


def test_alterations(clean: RunningServer, tmp_path: Path) -> None:
    clean.sql(f"CREATE STORAGE s TYPE filesystem PATH '{tmp_path}/s' DESCRIPTION 'old'")
    for clause, field, value in [
        ("NAME 'New ''name'''", "storage_name", "New 'name'"),
        ("DESCRIPTION 'new'", "description", "new"),
        ("SHARED_TABLES_TEMPLATE 'z/{namespace}/{tableName}'", "shared_tables_template", "z/{namespace}/{tableName}"),
        ("USER_TABLES_TEMPLATE 'z/{userId}/{namespace}/{tableName}'", "user_tables_template",
         "z/{userId}/{namespace}/{tableName}"),
    ]:  # fmt: skip
        assert message(clean.post(f"alter storage S set {clause}")) == "Storage 's' altered successfully"
        assert records(clean.post("SELECT * FROM system.storages WHERE storage_id = 's'"))[0][field] == value
    assert message(clean.post("ALTER STORAGE s SET NAME 'a' DESCRIPTION 'b'")) == "Storage 's' altered successfully"
    (row,) = records(clean.post("SELECT * FROM system.storages WHERE storage_id = 's'"))
    assert (row["storage_name"], row["description"]) == ("a", "b")
    assert row["updated_at"] > row["created_at"]


def test_dropping(clean: RunningServer, tmp_path: Path) -> None:
    assert message(clean.post("DROP STORAGE IF EXISTS s")) == "Storage 's' does not exist (skipped)"
    clean.sql(f"CREATE STORAGE s TYPE filesystem PATH '{tmp_path}/s'")
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID = 's')")
    for sql in ("DROP STORAGE s", "DROP STORAGE IF EXISTS s"):
        refused(clean.post(sql), EXECUTION, "Cannot drop storage 's': 1 table(s) still using it")
    done(clean, clean.post("DROP TABLE app.t"), "CL")
    assert message(clean.post("drop storage if exists S")) == "Storage 's' dropped successfully"


def test_who_may(roles: Roles, tmp_path: Path) -> None:
    create = f"CREATE STORAGE s TYPE filesystem PATH '{tmp_path}/s'"
    statements = [create, "ALTER STORAGE local SET NAME 'n'", "DROP STORAGE IF EXISTS s", "STORAGE CHECK local"]
    for role in ("user", "service"):
        for sql in statements:
            refused(roles.post(role, sql), DENIED)
    for role in ("dba", "system"):
        for sql in statements:
            ok(roles.post(role, sql))
    roles.server.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    for sql in ("STORAGE FLUSH TABLE app.t", "STORAGE FLUSH ALL", "STORAGE FLUSH ALL IN app",
                "STORAGE COMPACT TABLE app.t", "STORAGE COMPACT ALL IN app"):  # fmt: skip
        refused(roles.post("user", sql), DENIED)
        ok(roles.post("service", sql))
    roles.server.sql("DROP TABLE app.t")


def test_credentials_are_not_shown(roles: Roles) -> None:
    for role in ("user", "service", "dba", "system"):
        for row in records(roles.post(role, "SHOW STORAGES")):
            assert row["credentials"] in (None, "***")


def test_check(roles: Roles) -> None:
    for form in (
        "STORAGE CHECK local",
        "storage check 'local'",
        "STORAGE CHECK local EXTENDED",
        'STORAGE CHECK "local"',
    ):
        result = one(roles.post("dba", form))
        assert columns(result) == CHECK
        assert "message" not in result
        (row,) = records(roles.post("dba", form))
        assert (row["storage_id"], row["status"], row["error"]) == ("local", "healthy", None)
        assert [row[name] for name in CHECK[2:6]] == [True] * 4
        assert int(row["latency_ms"]) >= 0
        assert isinstance(row["tested_at"], int)
        if "EXTENDED" in form:
            assert int(row["total_bytes"]) >= int(row["used_bytes"]) >= 0


# --- flush and compaction ---------------------------------------------------------------------------------------------


def test_flushing_a_table(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT)")
    skipped = "Storage flush skipped: no pending writes for table 'app.t'"
    assert message(clean.post("STORAGE FLUSH TABLE app.t")) == skipped
    clean.sql("INSERT INTO app.t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    answer = clean.post("storage flush table APP.T;")
    job = prefixed(answer, "FL")
    assert message(answer) == f"Storage flush started for table 'app.t'. Job ID: {job}"
    row = ended(clean, job)
    assert (row["status"], row["job_type"]) == ("completed", "flush")
    assert message(clean.post("STORAGE FLUSH TABLE app.t")) == skipped
    assert clean.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"], [3, "c"]]
    clean.sql(
        "UPDATE app.t SET v = 'B' WHERE id = 2; DELETE FROM app.t WHERE id = 3; INSERT INTO app.t VALUES (3, 'z')"
    )
    assert clean.rows("SELECT * FROM app.t") == [[1, "a"], [2, "B"], [3, "z"]]
    refused(clean.post("INSERT INTO app.t VALUES (1, 'again')"), EXECUTION, "Primary key violation: value '1' already")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    answer = clean.post("STORAGE COMPACT TABLE app.t")
    job = prefixed(answer, "CO")
    assert message(answer) == f"Storage compaction started for table 'app.t'. Job ID: {job}"
    assert ended(clean, job)["status"] == "completed"
    assert clean.rows("SELECT * FROM app.t") == [[1, "a"], [2, "B"], [3, "z"]]


def test_show_stats_counts_flushed_segments(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT); INSERT INTO app.t VALUES (1, 'a'), (2, 'b')")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    (stats,) = records(clean.post("SHOW STATS FOR TABLE app.t"))
    assert (int(stats["logical_rows"]), int(stats["flushed_segments"])) == (2, 1)
    clean.sql("INSERT INTO app.t VALUES (3, 'c')")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    done(clean, clean.post("STORAGE COMPACT TABLE app.t"), "CO")
    (stats,) = records(clean.post("SHOW STATS FOR TABLE app.t"))
    assert (int(stats["logical_rows"]), int(stats["flushed_segments"])) == (3, 1)


def test_the_manifest(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT); INSERT INTO app.t VALUES (1, 'a'), (2, 'b')")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    assert columns(one(clean.post("SHOW MANIFEST"))) == MANIFEST
    assert columns(one(clean.post("SELECT * FROM system.manifest"))) == MANIFEST
    (row,) = [row for row in records(clean.post("show manifest")) if row["table_name"] == "t"]
    assert (row["namespace_id"], row["sync_state"]) == ("app", "in_sync")
    manifest = json.loads(row["manifest_json"])
    assert {"table_id", "user_id", "version", "created_at", "updated_at", "segments", "last_sequence_number",
            "files"} <= set(manifest)  # fmt: skip
    assert manifest["table_id"] == {"namespace_id": "app", "table_name": "t"}
    (segment,) = manifest["segments"]
    assert {"id", "path", "min_seq", "max_seq", "row_count", "size_bytes", "created_at", "column_stats",
            "status"} <= set(segment)  # fmt: skip
    assert (segment["row_count"], segment["status"]) == (2, "committed")
    assert segment["path"].endswith(".parquet")
    assert {"min": 1, "max": 2, "null_count": 0}.items() <= segment["column_stats"]["1"].items()


@pytest.mark.parametrize(
    ("sql", "kind", "part"),
    [
        ("STORAGE FLUSH", INVALID, ""),
        ("STORAGE FLUSH TABLE", INVALID, ""),
        ("STORAGE FLUSH TABLE app.nosuch", NO_TABLE, "nosuch"),
        ("STORAGE FLUSH TABLE nowhere.t", NO_TABLE, ""),
        ("STORAGE FLUSH TABLE app.t app.t", INVALID, ""),
        ("STORAGE FLUSH TABLE 'app.t; DROP TABLE app.t'", None, ""),
        ("STORAGE FLUSH TABLE system.users", None, ""),
        ("STORAGE FLUSH TABLE app.passing", EXECUTION, "STREAM"),
        ("STORAGE COMPACT TABLE app.passing", EXECUTION, "STREAM"),
        ("STORAGE FLUSH ALL IN", INVALID, ""),
        ("STORAGE FLUSH ALL IN nowhere", EXECUTION, "Not found: Namespace 'nowhere'"),
        ("STORAGE FLUSH ALL TABLES", INVALID, ""),
        ("STORAGE COMPACT", INVALID, ""),
        ("STORAGE COMPACT TABLE app.nosuch", NO_TABLE, "nosuch"),
        ("STORAGE COMPACT ALL IN NAMESPACE nowhere", EXECUTION, "Not found: Namespace 'nowhere'"),
        ("BEGIN; STORAGE FLUSH TABLE app.t; COMMIT", UNSUPPORTED, "inside BEGIN"),
    ],
)
def test_refused_flushes(clean: RunningServer, sql: str, kind: tuple[int, str] | None, part: str) -> None:
    clean.sql(
        "CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (1);"
        "CREATE STREAM TABLE app.passing (id INT) WITH (TTL_SECONDS = 60)"
    )
    before = clean.rows("SELECT count(*) FROM system.jobs WHERE job_type IN ('flush', 'compact')")
    answer = clean.post(sql)
    if kind is None:
        assert 400 <= answer.status_code < 500, answer.text
    else:
        refused(answer, kind, part)
    assert clean.rows("SELECT count(*) FROM system.jobs WHERE job_type IN ('flush', 'compact')") == before
    assert clean.rows("SELECT * FROM app.t") == [[1]]
    clean.sql("DROP TABLE app.passing")


def test_flushing_all(clean: RunningServer) -> None:
    for namespace in ("other", "default"):
        clean.sql(
            f"CREATE TABLE {namespace}.a (id INT PRIMARY KEY); CREATE USER TABLE {namespace}.b (id INT PRIMARY KEY)"
        )
    for form in ("STORAGE FLUSH ALL IN other", "STORAGE FLUSH ALL IN NAMESPACE other", "storage flush all in OTHER",
                 "STORAGE FLUSH ALL"):  # fmt: skip
        namespace = "default" if form.endswith("ALL") else "other"
        clean.sql(f"DELETE FROM {namespace}.a WHERE true; INSERT INTO {namespace}.a VALUES (1)")
        clean.sql(f"DELETE FROM {namespace}.b WHERE true; INSERT INTO {namespace}.b VALUES (1)")
        told = message(clean.post(form))
        head = f"Storage flush started for 2 table(s) in namespace '{namespace}'. Job IDs: ["
        assert told.startswith(head)
        assert told.endswith("]")
        jobs = [job.strip(" '\"") for job in told[len(head) : -1].split(",")]
        assert len(jobs) == 2
        assert all(ended(clean, job)["status"] == "completed" for job in jobs)
        assert clean.rows(f"SELECT * FROM {namespace}.a") == [[1]]
        assert clean.rows(f"SELECT * FROM {namespace}.b") == [[1]]
    assert message(clean.post("STORAGE COMPACT ALL IN other")).startswith("Storage compaction started for ")
    clean.sql("DROP NAMESPACE other; CREATE NAMESPACE other; DROP TABLE default.a; DROP TABLE default.b")


def test_files_lie_where_the_templates_say(clean: RunningServer, tmp_path: Path) -> None:
    clean.sql(f"CREATE STORAGE kept TYPE filesystem PATH '{tmp_path}/s'")
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID = 'kept'); INSERT INTO app.t VALUES (1)")
    clean.sql("CREATE USER TABLE app.u (id INT PRIMARY KEY) WITH (STORAGE_ID = 'kept'); INSERT INTO app.u VALUES (1)")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    done(clean, clean.post("STORAGE FLUSH TABLE app.u"), "FL")
    folders = [tmp_path / "s" / folder for folder in ("app/t", f"app/u/{clean.user}")]
    found = [[path.name for path in folder.glob("batch-*.parquet")] for folder in folders]
    done(clean, clean.post("DROP TABLE app.t"), "CL")
    done(clean, clean.post("DROP TABLE app.u"), "CL")
    assert [len(names) for names in found] == [1, 1]
    answer = clean.post("DROP STORAGE kept")  # its files go a while later: until then it stays
    if answer.status_code != 200:
        refused(answer, EXECUTION, "Cannot drop storage 'kept'")


def test_a_manifest_lies_beside_the_files(clean: RunningServer, tmp_path: Path) -> None:
    clean.sql(f"CREATE STORAGE beside TYPE filesystem PATH '{tmp_path}/s'")
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID = 'beside'); INSERT INTO app.t VALUES (1)")
    done(clean, clean.post("STORAGE FLUSH TABLE app.t"), "FL")
    path = tmp_path / "s" / "app/t" / "manifest.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    done(clean, clean.post("DROP TABLE app.t"), "CL")
    assert found.get("segments")
