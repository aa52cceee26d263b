"""The permission matrix: one line for each action, with the roles that may do it.

`row` is the line of the table in `docs/rights.md` that the action belongs to. In a text, `{n}` is a number of the
action and the role, `{me}` the account. `before` is run by root, for each role anew. To extend the matrix,
add a line; a row that the page does not have, or has for other roles, fails the tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.e2e.conformance import ROLES

ALL, SERVICE_UP, ADMINS, SYSTEM_ONLY = ROLES, ROLES[1:], ROLES[2:], ROLES[3:]
LEVELS = ("public", "private", "restricted", "dba")
GOOD = "GoodPass99"


class Action(NamedTuple):
    """What a role tries: a statement, or a request to another route (`path` with a JSON or text body).

    Who may do it is answered `status`.
    """

    row: str
    allowed: tuple[str, ...]
    sql: str
    before: str = ""
    path: str = ""
    body: dict[str, Any] | str | None = None
    status: int = 200


def _levels(what: str, sql: str, *, write: bool = False, before: str = "") -> list[Action]:
    """The action on a SHARED table of every access level; `{t}` is the table."""
    found = []
    for level in LEVELS:
        shown = "of level dba" if level == "dba" else f"that are {level}"
        allowed = ADMINS if level == "dba" else ALL if level == "public" and not write else SERVICE_UP
        table = f"app.{level}_t"
        found.append(Action(f"{what} {shown}", allowed, sql.replace("{t}", table), before.replace("{t}", table)))
    return found


def _system(names: str) -> list[Action]:
    return [Action("Read `system.*`", ADMINS, f"SELECT * FROM system.{name}") for name in names.split()]


OWN = "Read and write one's own rows of USER tables"
STREAM = "Read, append and delete one's own rows of STREAM tables"
READ, WRITE, ALTER = "Read SHARED tables", "Write SHARED tables", "Alter SHARED tables"
SEE = "See the definition of SHARED tables"
ACCOUNTS = "Create, alter and drop accounts"
GRANT = "Grant the role system, change accounts that have it"
CONSUME = "Consume, acknowledge, reset, publish, in SQL and over HTTP"
TOPICS = "Create, alter, clear and drop topics"
VIEWS = "Create and drop views"
EVERYONE = "USE, BEGIN … COMMIT, EXPLAIN, SHOW NAMESPACES and TABLES, SUBSCRIBE TO"

ACTIONS: list[Action] = [
    Action(OWN, ALL, "SELECT * FROM app.mine"),
    Action(OWN, ALL, "INSERT INTO app.mine (id, v) VALUES ({n}, 'x') RETURNING id"),
    Action(OWN, ALL, "INSERT INTO app.mine (id, v) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'z'"),
    Action(OWN, ALL, "UPDATE app.mine SET v = 'y{n}' WHERE id > 0"),
    Action(OWN, ALL, "DELETE FROM app.mine WHERE id < 0"),
    Action(OWN, ALL, "", path="/v1/api/ingest/app/mine", body='{"id": -{n}, "v": "x"}'),
    Action(STREAM, ALL, "SELECT * FROM app.passing"),
    Action(STREAM, ALL, "INSERT INTO app.passing VALUES ({n})"),
    Action(STREAM, ALL, "DELETE FROM app.passing WHERE id = {n}"),
    *_levels(READ, "SELECT * FROM {t}"),
    *_levels(READ, "WITH x AS (SELECT id FROM {t}) SELECT count(*) FROM x"),
    *_levels(READ, "SELECT (SELECT max(id) FROM {t}) UNION ALL SELECT 1"),
    *_levels(READ, "INSERT INTO app.mine (id, v) SELECT id + 1000000 * {n}, 'x' FROM {t}"),
    *_levels(READ, "UPDATE app.mine SET v = (SELECT min(v) FROM {t}) WHERE id = 1"),
    *_levels(READ, "DELETE FROM app.mine WHERE id IN (SELECT -id FROM {t})"),
    *_levels(READ, "EXPLAIN SELECT * FROM {t}"),
    *_levels(READ, "SUBSCRIBE TO {t}"),
    *_levels(READ, "SHOW STATS FOR TABLE {t}"),
    *_levels(SEE, "DESCRIBE TABLE {t}"),
    *_levels(SEE, "DESCRIBE TABLE {t} HISTORY"),
    *_levels(SEE, "SHOW COLUMNS FROM {t}"),
    *_levels(WRITE, "INSERT INTO {t} VALUES ({n}, 1)", write=True),
    *_levels(WRITE, "INSERT INTO {t} VALUES ({n}, 1) ON CONFLICT DO NOTHING", write=True),
    *_levels(WRITE, "UPDATE {t} SET v = {n} WHERE id > 0", write=True),
    *_levels(WRITE, "DELETE FROM {t} WHERE id < 0 RETURNING v", write=True),
    *_levels(WRITE, "BEGIN; INSERT INTO {t} VALUES (-{n}, 1); ROLLBACK", write=True),
    *_levels(ALTER, "ALTER TABLE {t} ADD COLUMN c{n} INT", write=True, before="DELETE FROM {t} WHERE true"),
    *_levels(ALTER, "ALTER TABLE {t} ALTER COLUMN v SET DEFAULT {n}", write=True),
    Action("Create USER and STREAM tables", ALL, "CREATE USER TABLE app.u{n} (id INT PRIMARY KEY)"),
    Action("Create USER and STREAM tables", ALL, "CREATE STREAM TABLE app.w{n} (id INT) WITH (TTL_SECONDS = 60)"),
    Action("Create SHARED tables", SERVICE_UP, "CREATE SHARED TABLE app.s{n} (id INT PRIMARY KEY)"),
    Action("Create SHARED tables", SERVICE_UP, "CREATE TABLE app.d{n} (id INT PRIMARY KEY)"),
    Action("Create SHARED tables", SERVICE_UP,
           "CREATE TABLE app.p{n} (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public')"),
    Action("Create SHARED tables of level dba", ADMINS,
           "CREATE TABLE app.a{n} (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'dba')"),
    Action("Set the access level of a SHARED table to dba", ADMINS, "ALTER TABLE app.l{n} SET ACCESS LEVEL DBA",
           "CREATE TABLE app.l{n} (id INT PRIMARY KEY)"),
    Action("Alter and drop a USER or STREAM table that one created", ALL,
           "CREATE USER TABLE app.o{n} (id INT); ALTER TABLE app.o{n} ADD COLUMN v INT; DROP TABLE app.o{n}"),
    Action("Alter and drop a USER or STREAM table that one created", ALL,
           "CREATE STREAM TABLE app.q{n} (id INT) WITH (TTL_SECONDS = 9);"
           "ALTER TABLE app.q{n} SET TBLPROPERTIES (TTL_SECONDS = 8); DROP TABLE app.q{n}"),
    Action("Alter and drop a SHARED table that one created", SERVICE_UP,
           "CREATE TABLE app.h{n} (id INT); ALTER TABLE app.h{n} ADD COLUMN v INT; DROP TABLE app.h{n}"),
    Action("Alter USER and STREAM tables of others", SERVICE_UP, "ALTER TABLE app.mine ADD COLUMN c{n} INT"),
    Action("Alter USER and STREAM tables of others", SERVICE_UP,
           "ALTER TABLE app.passing SET TBLPROPERTIES (TTL_SECONDS = 1{n})"),
    Action("Drop tables of others", ADMINS, "DROP TABLE app.v{n}",
           "CREATE TABLE app.v{n} (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public')"),
    Action("Drop tables of others", ADMINS, "DROP USER TABLE app.x{n}", "CREATE USER TABLE app.x{n} (id INT)"),
    Action("Drop tables of others", ADMINS, "DROP STREAM TABLE app.y{n}",
           "CREATE STREAM TABLE app.y{n} (id INT) WITH (TTL_SECONDS = 9)"),
    Action("See the definition of USER and STREAM tables", ALL, "DESCRIBE TABLE app.mine"),
    Action("See the definition of USER and STREAM tables", ALL, "DESCRIBE app.passing HISTORY"),
    Action("Read `information_schema`", ALL, "SELECT * FROM information_schema.tables"),
    Action("Read `information_schema`", ALL, "SELECT * FROM information_schema.columns"),
    Action("Read `information_schema`", ALL, "SELECT * FROM information_schema.schemata"),
    *_system("users namespaces tables columns schemas datatypes settings stats live topics topic_offsets"),
    *_system("audit_log jobs job_nodes server_logs sessions transactions cluster cluster_groups"),
    Action("Read `system.*`", ADMINS, "DESCRIBE TABLE system.users"),
    Action("Read `system.*`", ADMINS, "SUBSCRIBE TO SELECT user_id FROM system.users"),
    Action(EVERYONE, ALL, "SHOW NAMESPACES"),
    Action(EVERYONE, ALL, "SHOW TABLES"),
    Action(EVERYONE, ALL, "SHOW TABLES IN app"),
    Action(EVERYONE, ALL, "USE app"),
    Action(EVERYONE, ALL, "SELECT 1; EXPLAIN SELECT * FROM app.mine"),
    Action(EVERYONE, ALL, "BEGIN; SELECT * FROM app.mine; COMMIT"),
    Action(EVERYONE, ALL, "SUBSCRIBE TO app.passing"),
    Action("Create, alter and drop namespaces", ADMINS, "CREATE NAMESPACE n{n}"),
    Action("Create, alter and drop namespaces", ADMINS, "ALTER NAMESPACE app SET OPTIONS (a = {n})"),
    Action("Create, alter and drop namespaces", ADMINS, "DROP NAMESPACE m{n}", "CREATE NAMESPACE m{n}"),
    Action("Create, alter and drop namespaces", ADMINS, "DROP NAMESPACE IF EXISTS none{n}"),
    Action(VIEWS, ADMINS, "CREATE VIEW app.r{n} AS SELECT id FROM app.public_t"),
    Action(VIEWS, ADMINS, "CREATE OR REPLACE VIEW app.r{n} AS SELECT 1 AS one"),
    Action(VIEWS, ADMINS, "DROP VIEW app.k{n}", "CREATE VIEW app.k{n} AS SELECT 1 AS one"),
    *(Action(f"Read a view of SHARED tables {'of level dba' if level == 'dba' else f'that are {level}'}",
             {"public": ALL, "dba": ADMINS}.get(level, SERVICE_UP), f"SELECT * FROM app.view{{n}}_{level}",
             f"CREATE VIEW app.view{{n}}_{level} AS SELECT id FROM app.{level}_t") for level in LEVELS),
    Action("Read a view of USER tables: one's own rows", ALL, "SELECT * FROM app.w{n}",
           "CREATE VIEW app.w{n} AS SELECT id FROM app.mine"),
    Action("End jobs", ADMINS, "KILL JOB 'none{n}'", status=404),
    Action("Back up and restore the database", ADMINS, "BACKUP DATABASE TO 'relative{n}'", status=400),
    Action("Back up and restore the database", ADMINS, "RESTORE DATABASE FROM 'relative{n}'", status=400),
    Action("Export one's own data", ALL, "EXPORT USER DATA"),
    Action("Export one's own data", ALL, "SHOW EXPORT"),
    Action(CONSUME, SERVICE_UP, "CONSUME FROM app.news GROUP g{n}"),
    Action(CONSUME, SERVICE_UP, "PUBLISH TO app.news PAYLOAD 'x'"),
    Action(CONSUME, SERVICE_UP, "ACK app.news GROUP a{n} UPTO OFFSET 0", "PUBLISH TO app.news PAYLOAD 'x'"),
    Action(CONSUME, SERVICE_UP, "RESET CONSUMER GROUP r{n} ON app.news TO EARLIEST"),
    Action(CONSUME, SERVICE_UP, "", path="/v1/api/topics/consume", body={"topic_id": "app.news", "group_id": "h{n}"}),
    Action(CONSUME, SERVICE_UP, "", path="/v1/api/topics/ack",
           body={"topic_id": "app.news", "group_id": "k{n}", "partition_id": 0, "upto_offset": 0}),
    Action(CONSUME, SERVICE_UP, "", path="/v1/api/topics/produce",
           body={"topic_id": "app.news", "messages": [{"payload": {"a": 1}}]}),
    Action(TOPICS, ADMINS, "CREATE TOPIC app.t{n}"),
    Action(TOPICS, ADMINS, "CREATE TOPIC IF NOT EXISTS app.news"),
    Action(TOPICS, ADMINS, "ALTER TOPIC app.news SET RETENTION (seconds = 6{n})"),
    Action(TOPICS, ADMINS,
           "ALTER TOPIC app.z{n} ADD SOURCE app.mine ON INSERT; ALTER TOPIC app.z{n} DROP SOURCE app.mine",
           "CREATE TOPIC app.z{n}"),
    Action(TOPICS, ADMINS, "CLEAR TOPIC app.y{n}", "CREATE TOPIC app.y{n}"),
    Action(TOPICS, ADMINS, "DROP TOPIC app.x{n}", "CREATE TOPIC app.x{n}"),
    Action(TOPICS, ADMINS, "DROP TOPIC IF EXISTS app.none"),
    Action(ACCOUNTS, ADMINS, f"CREATE USER 'new{{n}}' WITH PASSWORD '{GOOD}' ROLE user"),
    Action(ACCOUNTS, ADMINS, f"CREATE USER 'new{{n}}' WITH PASSWORD '{GOOD}' ROLE dba EMAIL 'a@example.com'"),
    Action(ACCOUNTS, ADMINS, "CREATE USER 'new{n}' WITH INTERNAL ROLE service"),
    Action(ACCOUNTS, ADMINS, """CREATE USER 'new{n}' WITH OAUTH '{"provider":"p","subject":"s"}' ROLE user"""),
    Action(ACCOUNTS, ADMINS, "ALTER USER 'x{n}' SET EMAIL 'a{n}@example.com'", "CREATE USER 'x{n}' WITH INTERNAL"),
    Action(ACCOUNTS, ADMINS, f"ALTER USER 'x{{n}}' SET PASSWORD '{GOOD}7'",
           f"CREATE USER 'x{{n}}' WITH PASSWORD '{GOOD}'"),
    Action(ACCOUNTS, ADMINS, "ALTER USER 'x{n}' SET ROLE admin", "CREATE USER 'x{n}' WITH INTERNAL"),
    Action(ACCOUNTS, ADMINS, "DROP USER 'x{n}'", "CREATE USER 'x{n}' WITH INTERNAL"),
    Action(ACCOUNTS, ADMINS, "DROP USER IF EXISTS 'none{n}'"),
    Action(ACCOUNTS, ADMINS, "ALTER USER '{me}' SET EMAIL 'me@example.com'"),
    Action(GRANT, SYSTEM_ONLY, f"CREATE USER 'new{{n}}' WITH PASSWORD '{GOOD}' ROLE system"),
    Action(GRANT, SYSTEM_ONLY, "ALTER USER 'x{n}' SET ROLE system", "CREATE USER 'x{n}' WITH INTERNAL"),
    Action(GRANT, SYSTEM_ONLY, "ALTER USER root SET EMAIL 'r{n}@example.com'"),
    Action(GRANT, SYSTEM_ONLY, "DROP USER 'x{n}'", "CREATE USER 'x{n}' WITH INTERNAL ROLE system"),
    Action("Set one's own password, with the old one", ALL,
           f"ALTER USER '{{me}}' SET PASSWORD '{GOOD}' OLD '{GOOD}'"),
    Action("Set one's own password without the old one", ADMINS, f"ALTER USER '{{me}}' SET PASSWORD '{GOOD}'"),
    Action("Set the password of another account with its old one", ADMINS,
           f"ALTER USER 'x{{n}}' SET PASSWORD '{GOOD}8' OLD '{GOOD}'", f"CREATE USER 'x{{n}}' WITH PASSWORD '{GOOD}'"),
    Action("EXECUTE AS USER oneself", ALL, "EXECUTE AS USER '{me}' (SELECT * FROM app.mine)"),
    *(Action(f"EXECUTE AS USER {what}", allowed, f"EXECUTE AS USER '{name}' ({inner})")
      for what, name, allowed in (("another user", "u2", SERVICE_UP), ("a service", "s2", SERVICE_UP),
                                  ("a dba", "d2", ADMINS), ("an account of role system", "sys2", SYSTEM_ONLY),
                                  ("a name without an account, or of a dropped one", "unknown", SERVICE_UP),
                                  ("a name without an account, or of a dropped one", "gone", SERVICE_UP))
      for inner in ("SELECT 1", "INSERT INTO app.mine (id, v) VALUES ({n}, 'as')", "SHOW TABLES",
                    "CREATE USER TABLE app.as{n} (id INT)")),
]  # fmt: skip
