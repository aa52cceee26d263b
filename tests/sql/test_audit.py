"""The audit log: what has an entry, in which commit, what no entry holds, and that nothing changes one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from topic_world import ANN, DORA, ROOT, SAM, Row, TopicWorld, topic_world

from sql.audit import AUDIT_KIND, AuditEntry, Origin, oldest_name, record, statement_text
from sql.audit_log import EACH, AuditLog, AuditSettings
from sql.audited import run_command
from sql.command import Command
from sql.errors import PermissionDenied, SqlError
from sql.identity import Identity
from sql.results import StatementResult
from sql.services import Services, StatementContext, context_of
from sql.statements import Parsed
from sql.workers import Control
from storage.catalog import USER_KIND, UserDef
from storage.writer import WriteTransaction

SECRET = "Sekrit-77-pass"
ACTION, TARGET, ACTOR, SUBJECT, DETAILS = "action", "target", "actor", "subject", "details"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        users = [UserDef("root", "system"), UserDef("dora", "dba", password_hash="x"), UserDef("sam", "service"),
                 UserDef("ann", "user")]  # fmt: skip
        for user in users:
            world.engine.commit_sync(lambda w, user=user: w.put_object(USER_KIND, user.user_id, user))
        world.run("CREATE USER TABLE mine (id INT PRIMARY KEY, v TEXT)")
        yield world


def entries(world: TopicWorld) -> list[AuditEntry]:
    """All entries, those of the queue too: a commit of its own waits behind them."""
    world.engine.commit_sync(lambda writer: writer.put_object("_test", "x", Empty()))
    with world.engine.snapshot() as view:
        return list(view.list_objects(AUDIT_KIND, AuditEntry))


class Empty(msgspec.Struct):
    """An object of no meaning."""


def new(world: TopicWorld, *statements: str, who: Identity = ROOT) -> list[AuditEntry]:
    """The entries that statements add, whether they succeed or not."""
    before = len(entries(world))
    for sql in statements:
        with suppress(SqlError):
            world.run(sql, who=who)
    return entries(world)[before:]


def shown(found: list[AuditEntry]) -> list[tuple[str, str, str, str | None]]:
    return [(entry.actor, entry.action, entry.target, entry.subject) for entry in found]


def commits(world: TopicWorld) -> int:
    return world.engine.stats().commits


# --- definitions ------------------------------------------------------------------------------------------------------

DEFINITIONS = [
    ("CREATE NAMESPACE n1", "CREATE_NAMESPACE", "n1"),
    ("ALTER NAMESPACE n1 SET OPTIONS (a = 1)", "ALTER_NAMESPACE", "n1"),
    ("CREATE TABLE n1.t (id INT PRIMARY KEY, v TEXT DEFAULT 'hidden')", "CREATE_TABLE", "n1.t"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9)", "CREATE_TABLE", "app.s"),
    ("ALTER TABLE n1.t ADD COLUMN w INT", "ALTER_TABLE", "n1.t"),
    ("ALTER TABLE n1.t SET ACCESS LEVEL PUBLIC", "ALTER_TABLE", "n1.t"),
    ("CREATE VIEW n1.all_t AS SELECT id FROM n1.t WHERE v <> 'hidden'", "CREATE_VIEW", "n1.all_t"),
    ("CREATE OR REPLACE VIEW n1.all_t AS SELECT id FROM n1.t", "CREATE_VIEW", "n1.all_t"),
    ("DROP VIEW n1.all_t", "DROP_VIEW", "n1.all_t"),
    ("CREATE VIEW n1.kept AS SELECT 1 AS one", "CREATE_VIEW", "n1.kept"),
    ("CREATE TOPIC n1.changes", "CREATE_TOPIC", "n1.changes"),
    ("ALTER TOPIC n1.changes ADD SOURCE n1.t ON INSERT", "ADD_TOPIC_SOURCE", "n1.changes"),
    ("ALTER TOPIC n1.changes SET RETENTION (seconds = 60)", "ALTER_TOPIC_OPTIONS", "n1.changes"),
    ("ALTER TOPIC n1.changes DROP SOURCE n1.t", "DROP_TOPIC_SOURCE", "n1.changes"),
    ("CLEAR TOPIC n1.changes", "CLEAR_TOPIC", "n1.changes"),
    ("DROP TOPIC n1.changes", "DROP_TOPIC", "n1.changes"),
    ("DROP TABLE s", "DROP_TABLE", "app.s"),
    ("DROP NAMESPACE n1 CASCADE", "DROP_NAMESPACE", "n1"),
]


def test_every_definition_has_its_entry_in_its_own_commit(world: TopicWorld) -> None:
    for sql, action, target in DEFINITIONS:
        before = len(entries(world))
        count = commits(world)
        world.run(sql, who=DORA)
        assert commits(world) == count + 1, sql
        (entry,) = entries(world)[before:]
        assert (entry.actor, entry.action, entry.target, entry.subject) == ("dora", action, target, None)
        assert json.loads(entry.details or "")["statement"] == sql.replace("'hidden'", "'***'")
    dropped = json.loads(entries(world)[-1].details or "")["dropped"]
    assert dropped == ["n1.kept", "n1.t"]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE NAMESPACE IF NOT EXISTS app", "CREATE NAMESPACE app", "DROP TABLE IF EXISTS none", "DROP TABLE none",
        "CREATE USER TABLE IF NOT EXISTS mine (id INT PRIMARY KEY)", "ALTER TABLE mine ALTER COLUMN v DROP NOT NULL",
        "DROP TOPIC IF EXISTS none",
        "DROP VIEW IF EXISTS none", "KILL JOB 'none'", "DROP USER IF EXISTS nobody", "ALTER USER nobody SET ROLE dba",
        "SELECT * FROM mine", "INSERT INTO mine VALUES (1, 'x')", "SHOW TABLES", "USE app", "BEGIN; COMMIT",
        "EXECUTE AS USER 'root' (SELECT 1)",
    ],
)  # fmt: skip
def test_what_changes_no_definition_has_none(world: TopicWorld, sql: str) -> None:
    assert new(world, sql) == []


def test_a_group_that_is_reset_has_its_entry_in_the_commit(world: TopicWorld) -> None:
    world.run("CREATE TOPIC app.changes", who=DORA)
    before = len(entries(world))
    count = commits(world)
    world.run("RESET CONSUMER GROUP 'mailer' ON app.changes PARTITION 0 TO EARLIEST", who=DORA)
    assert commits(world) == count + 1
    (entry,) = entries(world)[before:]
    assert (entry.actor, entry.action, entry.target) == ("dora", "RESET_GROUP", "app.changes")
    assert json.loads(entry.details or "") == {"group": "mailer", "partition": 0, "to": "earliest"}


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_accounts_and_no_secret_of_them(world: TopicWorld) -> None:
    found = new(
        world,
        f"CREATE USER 'zoe' WITH PASSWORD '{SECRET}' ROLE viewer EMAIL 'z@x.org'",
        f'CREATE USER \'oa\' WITH OAUTH \'{{"provider":"google","subject":"{SECRET}"}}\' ROLE service',
        f"ALTER USER zoe SET PASSWORD '{SECRET}2' /* {SECRET} */",
        "ALTER USER zoe SET ROLE developer",
        "ALTER USER zoe SET EMAIL ''",
        "DROP USER zoe",
        f"CREATE USER 'zoe' WITH PASSWORD '{SECRET}3' ROLE user",
        f"CREATE USER 'zoe' WITH PASSWORD '{SECRET}4' ROLE user",
        who=DORA,
    )
    assert [(e.action, e.target, e.subject, json.loads(e.details or "{}")) for e in found] == [
        ("CREATE_USER", "zoe", "zoe", {"role": "user", "email": "z@x.org", "auth_type": "password"}),
        ("CREATE_USER", "oa", "oa", {"role": "service", "auth_type": "oauth"}),
        ("ALTER_USER", "zoe", "zoe", {"password": "changed"}),
        ("ALTER_USER", "zoe", "zoe", {"role": {"from": "user", "to": "service"}}),
        ("ALTER_USER", "zoe", "zoe", {"email": {"from": "z@x.org", "to": None}}),
        ("DROP_USER", "zoe", "zoe", {}),
        ("CREATE_USER", "zoe", "zoe", {"role": "user", "auth_type": "password", "made_anew": True}),
    ]
    assert {entry.actor for entry in found} == {"dora"}
    assert SECRET not in repr(entries(world))
    assert "argon2" not in repr(entries(world))


def test_ones_own_password(world: TopicWorld) -> None:
    world.run(f"CREATE USER 'kim' WITH PASSWORD '{SECRET}' ROLE user")
    kim = Identity("kim", ANN.role)
    (entry,) = new(world, f"ALTER USER kim SET PASSWORD '{SECRET}2' OLD '{SECRET}'", who=kim)
    assert (entry.actor, entry.action, entry.details) == ("kim", "ALTER_USER", '{"password":"changed"}')


@given(st.text(alphabet=st.sampled_from("ab'\"`$/*- \n\\e"), max_size=40))
def test_no_text_shows_what_stands_in_quotes_or_comments(noise: str) -> None:
    for text in (f"X '{noise.replace(chr(39), chr(39) * 2)}{SECRET}' Y", f"X -- {SECRET}\nY", f"X $$ {SECRET}$$ Y",
                 f"X /* {SECRET} */ Y", f"X E'\\'{SECRET}' Y"):  # fmt: skip
        assert SECRET not in statement_text(text)
        assert statement_text(text).endswith("Y")


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deed(Command):
    """A command of somebody who did not think of the audit log, or did."""

    name: str
    credentials: str
    records: bool = False
    fails: bool = False

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        if self.fails:
            raise PermissionDenied("no")
        if self.records:
            services.engine.commit_sync(lambda writer: record(writer, context, "MY_DEED", self.name))
        return StatementResult(message="done")


@dataclass(frozen=True, slots=True)
class Look(Deed):
    reads_only = True


def perform(world: TopicWorld, command: Command) -> list[AuditEntry]:
    before = len(entries(world))
    context = context_of(DORA, "app", (), Control(9), client_ip="192.0.2.7")
    parsed = Parsed(command, f"DEED d1 CREDENTIALS '{SECRET}'")
    with suppress(SqlError):
        run_command(command, parsed, context, world.database._services)
    return entries(world)[before:]


def test_commands_are_told_of_without_their_authors_help(world: TopicWorld) -> None:
    (entry,) = perform(world, Deed("d1", SECRET))
    assert (entry.actor, entry.action, entry.target, entry.ip_address) == ("dora", "DEED", "d1", "192.0.2.7")
    assert json.loads(entry.details or "") == {"statement": "DEED d1 CREDENTIALS '***'", "result": "done"}
    assert shown(perform(world, Deed("d1", SECRET, records=True))) == [("dora", "MY_DEED", "d1", None)]
    assert perform(world, Deed("d1", SECRET, fails=True)) == []
    assert perform(world, Look("d1", SECRET)) == []


# --- EXECUTE AS USER --------------------------------------------------------------------------------------------------


def test_a_write_as_somebody_has_its_entry_in_its_own_commit(world: TopicWorld) -> None:
    for sql, what in (
        ("INSERT INTO mine VALUES (1, 'x')", "INSERT"),
        ("UPDATE mine SET v = 'y' WHERE id = 1", "UPDATE"),
        ("UPDATE mine SET v = v || 'z' WHERE v <> ''", "UPDATE"),
        ("DELETE FROM app.mine WHERE id = 1", "DELETE"),
    ):
        before = len(entries(world))
        count = commits(world)
        world.run(f"EXECUTE AS USER 'ann' ({sql})", who=SAM)
        assert commits(world) == count + 1, sql
        (entry,) = entries(world)[before:]
        assert shown([entry]) == [("sam", "EXECUTE_AS_USER", "app.mine", "ann")]
        assert json.loads(entry.details or "") == {"statement": what}


def test_a_definition_as_somebody_has_two(world: TopicWorld) -> None:
    found = new(world, "EXECUTE AS USER 'ann' (CREATE USER TABLE hers (id INT PRIMARY KEY))", who=DORA)
    assert shown(found) == [
        ("dora", "CREATE_TABLE", "app.hers", "ann"),
        ("dora", "EXECUTE_AS_USER", "app.hers", "ann"),
    ]


def test_reads_as_somebody_have_one_a_minute_for_each_set_of_tables(world: TopicWorld) -> None:
    world.run("CREATE USER TABLE other (id INT PRIMARY KEY)")
    read = "EXECUTE AS USER 'ann' (SELECT * FROM mine)"
    found = new(
        world, read, read, "EXECUTE AS USER 'ann' (SELECT * FROM mine JOIN other USING (id))",
        "EXECUTE AS USER 'bob' (SELECT 1)", "EXECUTE AS USER 'ann' (EXPLAIN SELECT * FROM other)", who=SAM,
    )  # fmt: skip
    assert shown(found) == [
        ("sam", "EXECUTE_AS_USER", "app.mine", "ann"),
        ("sam", "EXECUTE_AS_USER", "app.mine, app.other", "ann"),
        ("sam", "EXECUTE_AS_USER", "", "bob"),
        ("sam", "EXECUTE_AS_USER", "app.other", "ann"),
    ]


def test_what_fails_or_changes_nothing_is_told_of_too(world: TopicWorld) -> None:
    found = new(
        world, "EXECUTE AS USER 'ann' (DELETE FROM mine WHERE id = 99 RETURNING v)",
        "EXECUTE AS USER 'ann' (INSERT INTO mine VALUES (NULL, 'x'))", who=SAM,
    )  # fmt: skip
    assert [json.loads(entry.details or "")["statement"] for entry in found] == ["DELETE", "INSERT"]


def test_in_a_transaction_the_entry_shares_its_fate_or_stands_alone(world: TopicWorld) -> None:
    write = "EXECUTE AS USER 'ann' (INSERT INTO mine VALUES (1, 'x'))"
    count = commits(world)
    world.run(f"BEGIN; {write}; INSERT INTO mine VALUES (1, 'y'); COMMIT", who=SAM)
    assert commits(world) == count + 1
    assert shown(entries(world))[-1] == ("sam", "EXECUTE_AS_USER", "app.mine", "ann")
    rolled_back = "EXECUTE AS USER 'ann' (DELETE FROM mine WHERE id = 1 RETURNING v)"
    assert len(new(world, f"BEGIN; {rolled_back}; ROLLBACK", who=SAM)) == 1
    assert len(new(world, f"BEGIN; {rolled_back}", who=DORA)) == 1
    assert world.rows("SELECT v FROM mine", who=ANN) == [("x",)]


def test_refusals_are_durable_each_and_then_counted(world: TopicWorld) -> None:
    refused = "EXECUTE AS USER 'sam' (SELECT * FROM mine)"
    found = new(world, *[refused] * EACH, who=ANN)
    assert shown(found) == [("ann", "EXECUTE_AS_USER_DENIED", "sam", "sam")] * EACH
    assert new(world, *[refused] * 5, who=ANN) == []
    world.database.audit.close()
    assert [json.loads(e.details or "") for e in entries(world)[-1:]] == [{"further_refusals": 5}]
    with pytest.raises(PermissionDenied):
        world.run(f"INSERT INTO mine VALUES (7, 'x'); {refused}", who=ANN)
    assert world.rows("SELECT * FROM mine", who=ANN) == []


# --- append-only, and old entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM system.audit_log WHERE true", "UPDATE system.audit_log SET actor_user_id = 'x' WHERE true",
        "INSERT INTO system.audit_log (audit_id) VALUES ('x')", "DROP TABLE system.audit_log",
        "INSERT INTO system.audit_log SELECT * FROM system.audit_log",
        "INSERT INTO system.audit_log (audit_id) VALUES ('x') ON CONFLICT (audit_id) DO UPDATE SET action = 'x'",
        "ALTER TABLE system.audit_log DROP COLUMN action", "ALTER TABLE system.audit_log RENAME COLUMN action TO a",
        "TRUNCATE TABLE system.audit_log", "CREATE TABLE system.audit_log (id INT)", "DROP NAMESPACE system CASCADE",
        "CREATE SHARED TABLE IF NOT EXISTS system.audit_log (id INT PRIMARY KEY)", "MERGE INTO system.audit_log",
        "EXECUTE AS USER 'ann' (DELETE FROM system.audit_log WHERE true)",
        "BEGIN; DELETE FROM system.audit_log WHERE true; COMMIT",
        "CREATE TOPIC app.x; ALTER TOPIC app.x ADD SOURCE system.audit_log ON DELETE",
    ],
)  # fmt: skip
def test_no_statement_changes_an_entry(world: TopicWorld, sql: str) -> None:
    before = entries(world)
    for who in (ROOT, DORA, SAM, ANN):
        with pytest.raises(SqlError):
            world.run(sql, who=who)
    assert entries(world)[: len(before)] == before


def test_the_table_has_the_columns_of_the_reference_and_is_for_admins(world: TopicWorld) -> None:
    result = world.run("SELECT * FROM system.audit_log WHERE action = 'CREATE_TABLE'", who=DORA)
    assert [column.name for column in result.columns] == [
        "audit_id", "timestamp", "actor_user_id", "action", "target", "details", "ip_address", "subject_user_id",
    ]  # fmt: skip
    rows: list[Row] = world.rows("SELECT actor_user_id, target, ip_address FROM system.audit_log", who=ROOT)
    assert rows == [("root", "app.mine", None)]
    for who in (SAM, ANN):
        with pytest.raises(PermissionDenied):
            world.run("SELECT * FROM system.audit_log", who=who)


class Time:
    def __init__(self, us: int) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


DAY = 86_400_000_000


def test_entries_end_by_age_alone_in_bounded_works(world: TopicWorld) -> None:
    start = entries(world)[0].timestamp
    for _ in range(3):
        world.engine.commit_sync(_many)
    assert len(entries(world)) == 1_501
    time = Time(start + 90 * DAY - 1_000)
    log = AuditLog(world.engine, AuditSettings(90), time)
    log.tick()
    assert len(entries(world)) == 1_501
    time.us = max(entry.timestamp for entry in entries(world)) + 90 * DAY + 1_000
    world.run("CREATE NAMESPACE later")
    count = commits(world)
    time.us = start + 90 * DAY + 3_600_000_000
    log.tick()
    assert commits(world) - count == 4  # slices of 500
    assert entries(world) == []
    log.tick()
    assert AuditLog(world.engine, AuditSettings(0), Time(1 << 52)).prune() == 0


def _many(writer: WriteTransaction) -> None:
    for number in range(500):
        record(writer, Origin("x"), "TEST", str(number))


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.now = 0
        self.names: list[str] = []

    def now_us(self) -> int:
        return self.now

    def put_object(self, kind: str, name: str, value: Any) -> None:
        assert kind == AUDIT_KIND
        self.names.append(name)


@given(st.lists(st.integers(0, 2**51), min_size=1, max_size=30))
def test_names_are_in_the_order_of_time_and_then_of_writing(times: list[int]) -> None:
    writer = Kept()
    for now in sorted([*times, *times]):
        writer.now = now
        record(writer, Origin("x"), "TEST", "")
        assert oldest_name(now) <= writer.names[-1]
        assert oldest_name(now + 1) > writer.names[-1]
    assert writer.names == sorted(set(writer.names))
