"""CREATE, ALTER, DROP, SHOW and CHECK of storages: every form, every refusal, and no secret anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import ExecutionError, InvalidSql, PermissionDenied, SqlError
from storage.storage_definitions import STORAGE, StorageDef
from tests.sql.topic_world import ANN, DORA, SAM, TopicWorld, topic_world

COLUMNS = [
    "storage_id", "storage_name", "description", "storage_type", "base_directory", "credentials", "config_json",
    "shared_tables_template", "user_tables_template", "created_at", "updated_at",
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        yield world


def names(world: TopicWorld) -> list[str]:
    return [row[0] for row in world.rows("SELECT storage_id FROM system.storages ORDER BY 1")]


def test_local_is_there_from_the_start(world: TopicWorld) -> None:
    result = world.run("SHOW STORAGES", who=ANN)
    assert [column.name for column in result.columns] == COLUMNS
    (row,) = world.rows("SELECT storage_id, storage_type, base_directory, credentials FROM system.storages")
    assert row == ("local", "filesystem", str(world.engine.path / "cold"), None)


def test_all_clauses(world: TopicWorld, tmp_path: Path) -> None:
    created = world.message(
        f"""create storage Big type FILESYSTEM name 'Big disk' description 'it''s slow' path '{tmp_path}/big'
        shared_tables_template 'shared/{{namespace}}/{{tableName}}'
        user_tables_template 'users/{{userId}}/{{namespace}}/{{tableName}}'""",
        who=DORA,
    )
    assert created == "Storage 'big' created successfully"
    (row,) = world.rows("SELECT * EXCLUDE (created_at, updated_at) FROM system.storages WHERE storage_id = 'big'")
    assert row == (
        "big", "Big disk", "it's slow", "filesystem", f"{tmp_path}/big", None, None,
        "shared/{namespace}/{tableName}", "users/{userId}/{namespace}/{tableName}",
    )  # fmt: skip
    assert world.message("ALTER STORAGE big SET NAME 'Bigger'") == "Storage 'big' altered successfully"
    world.run("ALTER STORAGE big SET DESCRIPTION '', SET SHARED_TABLES_TEMPLATE '{namespace}/{tableName}' CONFIG '{}'")
    assert world.rows(
        "SELECT storage_name, description, shared_tables_template, updated_at > created_at FROM system.storages "
        "WHERE storage_id = 'big'"
    ) == [("Bigger", None, "{namespace}/{tableName}", True)]
    assert world.message("ALTER STORAGE local SET NAME 'Here'") == "Storage 'local' altered successfully"
    assert names(world) == ["big", "local"]
    assert world.message("DROP STORAGE big") == "Storage 'big' dropped successfully"
    assert world.message("DROP STORAGE IF EXISTS big") == "Storage 'big' does not exist (skipped)"
    assert names(world) == ["local"]


def test_a_second_one_of_the_same_id(world: TopicWorld, tmp_path: Path) -> None:
    world.run(f"CREATE STORAGE one TYPE filesystem PATH '{tmp_path}/one'")
    with pytest.raises(ExecutionError, match="Already exists: Storage 'one' already exists"):
        world.run(f"CREATE STORAGE one TYPE filesystem PATH '{tmp_path}/two'")
    again = f"CREATE STORAGE IF NOT EXISTS one TYPE filesystem PATH '{tmp_path}/two'"
    assert world.message(again) == "Storage 'one' already exists (skipped)"
    with pytest.raises(ExecutionError, match="Already exists"):
        world.run(f"CREATE STORAGE local TYPE filesystem PATH '{tmp_path}/two'")


@pytest.mark.parametrize("who", [ANN, SAM], ids=["user", "service"])
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE STORAGE x TYPE filesystem PATH '/nowhere'", "ALTER STORAGE local SET NAME 'x'", "DROP STORAGE local",
        "DROP STORAGE IF EXISTS none", "STORAGE CHECK local", "SELECT * FROM system.storages",
    ],
)  # fmt: skip
def test_only_admins(world: TopicWorld, sql: str, who) -> None:
    with pytest.raises(PermissionDenied):
        world.run(sql, who=who)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE STORAGE TYPE filesystem PATH '/x'", "Expected TYPE"),
        ("CREATE STORAGE x PATH '/x'", "Expected TYPE"),
        ("CREATE STORAGE x TYPE tape PATH '/x'", "'tape' is not a type of storage: filesystem, s3, gcs, azure"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'b' BUCKET 'c'", "BUCKET is given twice"),
        ("CREATE STORAGE x TYPE s3 BUCKET b", "text in quotes after BUCKET"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'b' COLOUR 'red'", "Expected BASE_DIRECTORY"),
        ("ALTER STORAGE x NAME 'y'", "Expected SET"),
        ("ALTER STORAGE x SET", "Expected CONFIG, CREDENTIALS"),
        ("ALTER STORAGE x SET PATH '/y'", "PATH of a storage cannot be changed"),
        ("ALTER STORAGE x SET BUCKET 'y'", "BUCKET of a storage cannot be changed"),
        ("DROP STORAGE", "Expected a storage's id"),
        ("DROP STORAGE x CASCADE", "not expected here"),
        ("STORAGE CHECK", "Expected a storage's id"),
        ("STORAGE CHECK local FULL", "not expected here"),
        ("STORAGE FLUSH", "Expected TABLE or ALL"),
        ("STORAGE FLUSH t", "Expected TABLE or ALL"),
        ("STORAGE FLUSH TABLE", "Expected a table name"),
        ("STORAGE FLUSH ALL IN", "Expected a namespace's name"),
        ("STORAGE COMPACT ALL app", "not expected here"),
        ("SHOW STORAGES x", "not expected here"),
        ("SHOW MANIFEST x", "not expected here"),
    ],
)
def test_what_is_not_grammar(world: TopicWorld, sql: str, message: str) -> None:
    with pytest.raises(InvalidSql, match=message):
        world.run(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE STORAGE '../x' TYPE filesystem PATH '/x'", "Storage id"),
        ("CREATE STORAGE x TYPE filesystem PATH 'x'", "must be absolute"),
        ("CREATE STORAGE x TYPE filesystem PATH '/x' REGION 'eu'", "REGION belongs to a storage of type s3"),
        ("CREATE STORAGE x TYPE filesystem PATH '/x' CREDENTIALS '{\"a\": \"b\"}'", "unknown key 'a' in CREDENTIALS"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CREDENTIALS 'secret!'", "CREDENTIALS must be a JSON object"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CREDENTIALS '[1]'", "CREDENTIALS must be a JSON object"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CREDENTIALS '{\"secret_key\": 1}'", "must be a text"),
        (
            "CREATE STORAGE x TYPE s3 BUCKET 'bbb' CREDENTIALS '{\"access_key\": \"a\"}'",
            "access_key_id and secret_access_key together",
        ),
        (
            'CREATE STORAGE x TYPE s3 BUCKET \'bbb\' CREDENTIALS \'{"access_key": "a", "access_key_id": "b"}\'',
            "given twice, under two names",
        ),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"secret_key\": \"s\"}'", "belongs in CREDENTIALS"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"regoin\": \"s\"}'", "known: allow_http"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"allow_http\": \"yes\"}'", "must be true or false"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"endpoint\": \"http://h:1\"}'", "allow_http"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"endpoint\": \"ftp://h\"}'", "must be host:port"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' CONFIG '{\"endpoint\": \"u:p@h\"}'", "must be host:port"),
        ("CREATE STORAGE x TYPE s3 BUCKET 'bbb' REGION 'a' CONFIG '{\"region\": \"b\"}'", "REGION and the region"),
        ("CREATE STORAGE x TYPE azure BUCKET 'box'", 'needs CONFIG \'{"account_name"'),
        (
            "CREATE STORAGE x TYPE gcs BUCKET 'bbb' CREDENTIALS '{\"expiration\": \"soon\"}'",
            "must be a time such as",
        ),
        ("CREATE STORAGE x TYPE filesystem PATH '/x' SHARED_TABLES_TEMPLATE '../{namespace}/{tableName}'", "TEMPLATE"),
        ("CREATE STORAGE x TYPE filesystem PATH '/x' USER_TABLES_TEMPLATE '{namespace}/{tableName}'", "userId"),
        ("ALTER STORAGE none SET NAME 'x'", "Not found: Storage 'none' does not exist"),
        ("ALTER STORAGE local SET CONFIG '{}'", "has no CONFIG"),
        ("ALTER STORAGE local SET CREDENTIALS '{}'", "no CREDENTIALS"),
        ("DROP STORAGE none", "Not found: Storage 'none' does not exist"),
        ("DROP STORAGE local", "cannot be dropped"),
        ("STORAGE CHECK none", "Not found: Storage 'none' does not exist"),
        ("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID = 'none')", "Storage 'none' does not exist"),
        ("CREATE STREAM TABLE t (id INT) WITH (STORAGE_ID = 'local', TTL_SECONDS = 5)", "not apply to STREAM tables"),
        ("CREATE TABLE t (id INT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:0')", "between 1 and 999,999"),
    ],
)
def test_what_is_refused(world: TopicWorld, sql: str, message: str) -> None:
    with pytest.raises(ExecutionError, match=message) as caught:
        world.run(sql)
    assert "secret!" not in caught.value.message
    assert names(world) == ["local"]


def test_it_lies_apart_from_the_data_folder_and_others(world: TopicWorld, tmp_path: Path) -> None:
    world.run(f"CREATE STORAGE one TYPE filesystem PATH '{tmp_path}/one'")
    for path in (world.engine.path, world.engine.path / "cold" / "x", tmp_path, tmp_path / "one" / "x"):
        with pytest.raises(ExecutionError, match="must lie apart"):
            world.run(f"CREATE STORAGE two TYPE filesystem PATH '{path}'")


def test_a_storage_that_cannot_be_used_is_not_created(world: TopicWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionError, match="Storage 'x' is unreachable: write: "):
        world.run(f"CREATE STORAGE x TYPE filesystem PATH '{tmp_path}/file'")
    assert names(world) == ["local"]


def test_check(world: TopicWorld, tmp_path: Path) -> None:
    world.run(f"CREATE STORAGE one TYPE filesystem PATH '{tmp_path}/one'")
    result = world.run("STORAGE CHECK one")
    assert [column.name for column in result.columns] == [
        "storage_id", "status", "readable", "writable", "listable", "deletable", "latency_ms", "total_bytes",
        "used_bytes", "error", "tested_at",
    ]  # fmt: skip
    (row,) = world.rows("STORAGE CHECK one")
    assert row[:6] == ("one", "healthy", True, True, True, True)
    assert row[7:10] == (None, None, None)
    (tmp_path / "one" / "deep").mkdir()
    (tmp_path / "one" / "deep" / "file").write_bytes(b"12345")
    (row,) = world.rows("STORAGE CHECK one EXTENDED")
    assert row[7] > 0
    assert row[8] == 5
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["deep"]  # the probe left nothing
    (tmp_path / "one" / "deep" / "file").unlink()
    (tmp_path / "one" / "deep").rmdir()
    (tmp_path / "one").rmdir()
    (tmp_path / "one").write_text("a file now")
    (row,) = world.rows("STORAGE CHECK one EXTENDED")
    assert row[:6] == ("one", "unreachable", False, False, False, False)
    assert "write: " in row[9]


SECRET = "wJalrXUtnFEMI-not-to-be-seen"


def test_credentials_are_seen_nowhere(world: TopicWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in an answer, nor an error, nor the log, nor the stored definition."""
    said: list[str] = []

    def run(sql: str) -> None:
        try:
            result = world.run(sql)
            said.append(f"{result.message} {rows_text(result)}")
        except SqlError as error:
            said.append(error.message)  # its excerpt is what the sender wrote, shown to the sender alone

    credentials = f'{{"access_key_id": "AK-not-to-be-seen", "secret_access_key": "{SECRET}"}}'
    config = '{"endpoint": "127.0.0.1:9", "allow_http": true}'
    run(f"CREATE STORAGE x TYPE s3 BUCKET 'bbb' CREDENTIALS '{credentials}' CONFIG '{config}'")
    assert "is unreachable" in said[-1]

    def put(wtxn) -> None:
        registry = world.database._services.storages
        sealed = registry.vault.seal("x", credentials)
        wtxn.put_object(
            STORAGE, "x",
            StorageDef(
                storage_id="x", name="x", type="s3", base_directory="s3://bbb", credentials=sealed, config_json=config
            ),
        )  # fmt: skip

    world.engine.commit_sync(put)
    for sql in ("SHOW STORAGES", "SELECT * FROM system.storages", "STORAGE CHECK x", "STORAGE CHECK x EXTENDED"):
        run(sql)
        assert "***" in said[-1] or "CHECK" in sql
    run(f"ALTER STORAGE x SET CREDENTIALS '{credentials}'")
    run(f"ALTER STORAGE x SET CREDENTIALS '{credentials}' NONSENSE")
    with world.engine.snapshot() as snapshot:
        stored = b"".join(snapshot.object_items(STORAGE).values())
    said += [caplog.text, stored.decode("latin-1")]
    shown = "\n".join(said)
    assert SECRET not in shown
    assert "AK-not-to-be-seen" not in shown
    assert world.rows("SELECT credentials FROM system.storages WHERE storage_id = 'x'") == [("***",)]


def rows_text(result) -> str:
    return "" if result.table is None else str(result.table.to_pylist())


def test_who_changed_what_is_in_the_audit_log(world: TopicWorld, tmp_path: Path) -> None:
    world.run(f"CREATE STORAGE one TYPE filesystem PATH '{tmp_path}/one'", who=DORA)
    world.run("ALTER STORAGE one SET NAME 'secret name'", who=DORA)
    world.run("DROP STORAGE one", who=DORA)
    found = world.rows("SELECT actor_user_id, action, target FROM system.audit_log ORDER BY audit_id")
    assert found == [("dora", f"{word}_STORAGE", "one") for word in ("CREATE", "ALTER", "DROP")]
    assert "secret name" not in str(world.rows("SELECT details FROM system.audit_log"))
