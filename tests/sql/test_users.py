"""CREATE, ALTER and DROP USER: messages, rights, policy, old passwords, and the last admin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from write_support import ADMIN, ALICE, BOB, CHEAP, DBA, QUIET, SERVICE, Database

from sql import users
from sql.dialect import parse_batch
from sql.errors import ExecutionError, PermissionDenied, SqlError, TransactionConflict
from sql.identity import Identity, Role
from sql.passwords import verify_password
from storage import StorageEngine
from storage.catalog import UserDef

GOOD = "correct horse 7"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with StorageEngine.open(tmp_path / "data", QUIET) as engine:
        database = Database(engine)
        root = UserDef(user_id="root", role="system", auth_type="internal")
        database.commit(lambda w: w.put_object(users.USER_KIND, "root", root))
        yield database


def user(db: Database, name: str) -> UserDef:
    with db.engine.snapshot() as snapshot:
        found = snapshot.get_object(users.USER_KIND, name, UserDef)
    assert found is not None
    return found


def fails(db: Database, text: str, message: str, kind: type[SqlError] = ExecutionError, identity=ADMIN) -> None:
    with pytest.raises(kind) as caught:
        db.run(text, identity)
    assert message in caught.value.message


def test_messages(db: Database) -> None:
    assert db.run(f"CREATE USER 'ann' WITH PASSWORD '{GOOD}' ROLE analyst EMAIL 'a@x.org'") == "User 'ann' created"
    ann = user(db, "ann")
    assert (ann.role, ann.email, ann.auth_type) == ("service", "a@x.org", "password")
    assert verify_password(ann.password_hash, GOOD)
    assert ann.created_at > 0
    assert GOOD not in repr(ann)
    fails(db, f"CREATE USER 'ann' WITH PASSWORD '{GOOD}' ROLE user", "Already exists: User 'ann' already exists")
    assert db.run("ALTER USER ann SET ROLE viewer") == "User 'ann' updated"
    assert db.run("ALTER USER ann SET EMAIL 'b@x.org'") == "User 'ann' updated"
    assert db.run(f"ALTER USER ann SET PASSWORD '{GOOD}8'") == "User 'ann' updated"
    ann = user(db, "ann")
    assert (ann.role, ann.email) == ("user", "b@x.org")
    assert verify_password(ann.password_hash, GOOD + "8")
    assert db.run("DROP USER ann") == "User 'ann' dropped (soft delete)"
    assert user(db, "ann").deleted_at
    assert user(db, "ann").password_hash is None
    assert db.run("DROP USER IF EXISTS ann") == "User 'ann' does not exist (skipped)"
    fails(db, "DROP USER ann", "Not found: User 'ann' does not exist")
    fails(db, "ALTER USER ann SET ROLE dba", "Not found: User 'ann' does not exist")


def test_a_dropped_name_can_be_used_again(db: Database) -> None:
    db.run(f"CREATE USER 'ann' WITH PASSWORD '{GOOD}' ROLE user")
    db.run("DROP USER ann")
    db.run(f"CREATE USER 'ann' WITH PASSWORD '{GOOD}9' ROLE service")
    assert user(db, "ann").deleted_at is None
    assert user(db, "ann").role == "service"


def test_oauth_and_internal(db: Database) -> None:
    db.run("""CREATE USER 'o' WITH OAUTH '{"provider":"google","subject":"s1"}' ROLE user""")
    assert json.loads(user(db, "o").auth_data or "") == {"provider": "google", "subject": "s1"}
    fails(db, "ALTER USER o SET PASSWORD 'whatever 123'", "signs in by OAuth")
    for text in ("{}", "nonsense", '{"provider":"google"}', "[" * 5000):
        fails(db, f"CREATE USER 'p' WITH OAUTH '{text}' ROLE user", "WITH OAUTH needs", SqlError)
    db.run("CREATE USER 'i' WITH INTERNAL ROLE service")
    assert user(db, "i").auth_type == "internal"
    assert user(db, "i").password_hash is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", "x" * 129, " a", "a\x00b", "a\nb"])
def test_names(db: Database, name: str) -> None:
    from sql.statements import CreateUser

    with db.engine.snapshot() as snapshot, pytest.raises(ExecutionError, match="User name"):
        users.prepare(CreateUser(name, "password", GOOD, "user"), snapshot, ADMIN, CHEAP)


def test_wrong_values(db: Database) -> None:
    fails(db, f"CREATE USER 'a' WITH PASSWORD '{GOOD}' ROLE emperor", "'emperor' is not a role", SqlError)
    fails(db, f"CREATE USER 'a' WITH PASSWORD '{GOOD}' ROLE user EMAIL 'nobody'", "is not an e-mail address")
    fails(db, "CREATE USER 'a' WITH PASSWORD 'short' ROLE user", "at least 8 characters")
    fails(db, "CREATE USER 'a' WITH PASSWORD 'password' ROLE user", "most common")
    fails(db, "CREATE USER 'longname1' WITH PASSWORD 'LongName1' ROLE user", "must not be the user name")


def test_rights(db: Database) -> None:
    db.run("CREATE USER 'sys' WITH INTERNAL ROLE system")
    for identity in (ALICE, SERVICE):
        fails(db, "CREATE USER 'a' WITH INTERNAL ROLE user", "Permission denied", PermissionDenied, identity)
        fails(db, "DROP USER sys", "Permission denied", PermissionDenied, identity)
        fails(db, "ALTER USER sys SET ROLE user", "Permission denied", PermissionDenied, identity)
        fails(db, "ALTER USER nobody SET PASSWORD 'x'", "Permission denied", PermissionDenied, identity)
    fails(db, "CREATE USER 'a' WITH INTERNAL ROLE system", "only the role system", PermissionDenied, DBA)
    fails(db, "DROP USER sys", "has the role system", PermissionDenied, DBA)
    fails(db, f"ALTER USER sys SET PASSWORD '{GOOD}'", "has the role system", PermissionDenied, DBA)
    db.run("CREATE USER 'a' WITH INTERNAL ROLE user", DBA)
    fails(db, "ALTER USER a SET ROLE system", "only the role system", PermissionDenied, DBA)
    fails(db, "ALTER USER alice SET ROLE dba", "Permission denied", PermissionDenied, ALICE)


def test_own_password(db: Database) -> None:
    db.run(f"CREATE USER 'bob' WITH PASSWORD '{GOOD}' ROLE user")
    fails(db, f"ALTER USER bob SET PASSWORD '{GOOD}2'", "old password is required", PermissionDenied, BOB)
    fails(db, f"ALTER USER bob SET PASSWORD '{GOOD}2' OLD 'no'", "not right", PermissionDenied, BOB)
    fails(db, f"ALTER USER bob SET PASSWORD 'short' OLD '{GOOD}'", "at least 8", ExecutionError, BOB)
    assert db.run(f"ALTER USER bob SET PASSWORD '{GOOD}2' OLD '{GOOD}'", BOB) == "User 'bob' updated"
    assert verify_password(user(db, "bob").password_hash, GOOD + "2")
    fails(db, f"ALTER USER bob SET PASSWORD '{GOOD}3' OLD 'no'", "not right", PermissionDenied, ADMIN)


def test_an_old_password_that_changed_meanwhile(db: Database) -> None:
    db.run(f"CREATE USER 'bob' WITH PASSWORD '{GOOD}' ROLE user")
    (parsed,) = parse_batch(f"ALTER USER bob SET PASSWORD '{GOOD}2' OLD '{GOOD}'")
    with db.engine.snapshot() as snapshot:
        mutation = users.prepare(parsed.statement, snapshot, BOB, CHEAP)
    db.run(f"ALTER USER bob SET PASSWORD '{GOOD}5'")
    with pytest.raises(TransactionConflict):
        db.commit(mutation)
    assert verify_password(user(db, "bob").password_hash, GOOD + "5")


def test_the_last_admin_stays(db: Database) -> None:
    db.run(f"CREATE USER 'ann' WITH PASSWORD '{GOOD}' ROLE dba")
    fails(db, "DROP USER ann", "last account with the role dba or system")
    fails(db, "ALTER USER ann SET ROLE service", "cannot be demoted")
    fails(db, "DROP USER ann", "last account", ExecutionError, Identity("ann", Role.DBA))
    db.run(f"CREATE USER 'ben' WITH PASSWORD '{GOOD}' ROLE dba")
    assert db.run("ALTER USER ann SET ROLE service") == "User 'ann' updated"
    fails(db, "DROP USER ben", "last account")
    db.run(f"ALTER USER root SET PASSWORD '{GOOD}'")
    assert "dropped" in db.run("DROP USER ben")


def test_creating_twice_at_once(db: Database) -> None:
    (parsed,) = parse_batch(f"CREATE USER 'ann' WITH PASSWORD '{GOOD}' ROLE user")
    with db.engine.snapshot() as snapshot:
        first = users.prepare(parsed.statement, snapshot, ADMIN, CHEAP)
        second = users.prepare(parsed.statement, snapshot, ADMIN, CHEAP)
    assert db.commit(first).message == "User 'ann' created"
    with pytest.raises(ExecutionError, match="already exists"):
        db.commit(second)
