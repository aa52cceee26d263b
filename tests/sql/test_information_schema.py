"""information_schema: what tools ask of it, and that it tells each caller the truth and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from sql.errors import PermissionDenied
from sql.identity import Role
from sql.information_listing import VIEW
from sql.information_relations import _UDT_NAMES
from sql.system_tables import INFORMATION_SCHEMA, own_tables
from storage.types import Kind
from tests.sql.catalogue_world import ROLES, TABLES, VIEWS, CatalogueWorld, catalogue_world

OWN_NAMES = sorted(table.name for table in own_tables() if table.namespace == INFORMATION_SCHEMA)
READABLE = {
    Role.USER: {"carts", "clicks", "items"},
    Role.SERVICE: {"carts", "clicks", "costs", "items"},
    Role.DBA: set(TABLES),
    Role.SYSTEM: set(TABLES),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("catalogue")) as made:
        yield made


class Asked(NamedTuple):
    """What a tool asks, and the answer."""

    sql: str
    rows: list[tuple[object, ...]]


QUERIES: dict[str, Asked] = {
    "dbt, columns of a relation": Asked(
        "select column_name, data_type, character_maximum_length, numeric_precision, numeric_scale "
        "from kalam.information_schema.columns where table_name = 'items' and table_schema = 'shop' "
        "order by ordinal_position",
        [
            ("id", "BIGINT", None, 64, 0), ("name", "TEXT", None, None, None), ("price", "DECIMAL(10,2)", None, 10, 2),
            ("added", "TIMESTAMP", None, None, None), ("tags", "JSON", None, None, None),
        ],
    ),
    "dbt, relations of a schema": Asked(
        "select table_catalog as database, table_name as name, table_schema as schema, case table_type "
        "when 'BASE TABLE' then 'table' when 'VIEW' then 'view' else table_type end as type "
        "from INFORMATION_SCHEMA.tables where table_schema ilike 'shop' order by name",
        [("kalam", name, "shop", "table") for name in TABLES],
    ),
    "dbt, whether a schema is there": Asked(
        "select count(*) from information_schema.schemata where catalog_name = 'kalam' and schema_name = 'shop'",
        [(1,)],
    ),
    "dbt, the catalogue with its comments": Asked(
        "with tables as (select table_catalog, table_schema, table_name, table_type from information_schema.tables), "
        "columns as (select table_catalog, table_schema, table_name, column_name, ordinal_position, data_type, "
        "column_comment from information_schema.columns) "
        "select table_name, table_type, column_name, ordinal_position as column_index, data_type, column_comment "
        "from tables join columns using (table_catalog, table_schema, table_name) "
        "where table_schema in ('shop') and table_name = 'wages' order by column_index",
        [("wages", "BASE TABLE", "id", 1, "INTEGER", None), ("wages", "BASE TABLE", "wage", 2, "FLOAT", None)],
    ),
    "Grafana, columns that hold a time": Asked(
        "SELECT t.table_name, (SELECT column_name FROM information_schema.columns c WHERE "
        "c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp') "
        "ORDER BY ordinal_position LIMIT 1) AS time_column FROM information_schema.tables t "
        "WHERE quote_ident(table_schema) IN ('shop') AND EXISTS (SELECT 1 FROM information_schema.columns c WHERE "
        "c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp')) "
        "ORDER BY 1",
        [("clicks", "at"), ("items", "added")],
    ),
    "Grafana, tables by their quoted names": Asked(
        "SELECT CASE WHEN quote_ident(table_schema) IN (current_setting('search_path')) THEN quote_ident(table_name) "
        "ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" "
        "FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN "
        "('information_schema', 'pg_catalog', 'system') ORDER BY 1",
        [(f"shop.{name}",) for name in TABLES] + [(f"shown.{name}",) for name in VIEWS],
    ),
    "Superset and JDBC drivers, schemas": Asked(
        "SELECT schema_name AS TABLE_SCHEM, catalog_name AS TABLE_CATALOG FROM information_schema.schemata "
        "WHERE schema_name NOT IN ('information_schema', 'system') ORDER BY 1",
        [("default", "kalam"), ("shop", "kalam"), ("shown", "kalam")],
    ),
    "JDBC drivers, tables by pattern": Asked(
        "SELECT table_catalog AS TABLE_CAT, table_schema AS TABLE_SCHEM, table_name, CASE WHEN "
        "table_type = 'BASE TABLE' THEN 'TABLE' ELSE table_type END AS TABLE_TYPE, NULL AS REMARKS "
        "FROM information_schema.tables WHERE table_schema LIKE 'sh%' AND table_name LIKE 'c%' "
        "ORDER BY TABLE_TYPE, TABLE_CAT, TABLE_SCHEM, table_name",
        [("kalam", "shop", name, "TABLE", None) for name in ("carts", "clicks", "costs")]
        + [("kalam", "shown", name, "VIEW", None) for name in ("cheap", "cheapest")],
    ),
    "JDBC drivers, primary keys": Asked(
        "SELECT tc.table_schema, tc.table_name, kcu.column_name, kcu.ordinal_position AS key_seq, tc.constraint_name "
        "FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu ON "
        "kcu.constraint_schema = tc.constraint_schema AND kcu.constraint_name = tc.constraint_name AND "
        "kcu.table_name = tc.table_name WHERE tc.constraint_type = 'PRIMARY KEY' AND tc.table_name = 'carts' "
        "ORDER BY key_seq",
        [("shop", "carts", "item", 1, "carts_pkey"), ("shop", "carts", "size", 2, "carts_pkey")],
    ),
    "DBeaver and DataGrip, constraints": Asked(
        "SELECT constraint_name, constraint_type, enforced FROM information_schema.table_constraints "
        "WHERE table_schema = 'shop' ORDER BY table_name, constraint_name",
        [
            ("carts_pkey", "PRIMARY KEY", "YES"), ("few", "CHECK", "YES"), ("clicks_pkey", "PRIMARY KEY", "NO"),
            ("costs_pkey", "PRIMARY KEY", "YES"), ("items_name_key", "UNIQUE", "YES"),
            ("items_pkey", "PRIMARY KEY", "YES"), ("wages_pkey", "PRIMARY KEY", "YES"),
        ],
    ),
    "DBeaver, checks and the columns that they use": Asked(
        "SELECT cc.constraint_name, ccu.column_name FROM information_schema.check_constraints cc "
        "JOIN information_schema.constraint_column_usage ccu USING (constraint_schema, constraint_name) ORDER BY 2",
        [("few", "amount"), ("few", "item")],
    ),
    "Metabase, Supabase and Prisma, foreign keys": Asked(
        "SELECT tc.table_schema, tc.constraint_name, kcu.column_name, ccu.table_name AS foreign_table_name "
        "FROM information_schema.table_constraints AS tc "
        "JOIN information_schema.key_column_usage AS kcu USING (constraint_schema, constraint_name) "
        "JOIN information_schema.constraint_column_usage AS ccu USING (constraint_schema, constraint_name) "
        "JOIN information_schema.referential_constraints AS rc USING (constraint_schema, constraint_name) "
        "WHERE tc.constraint_type = 'FOREIGN KEY'",
        [],
    ),
    "Metabase, what the caller may do": Asked(
        "SELECT table_name, bool_or(privilege_type = 'SELECT'), bool_or(privilege_type = 'UPDATE'), "
        "bool_or(privilege_type = 'INSERT'), bool_or(privilege_type = 'DELETE') "
        "FROM information_schema.table_privileges WHERE table_schema = 'shop' AND grantee = current_user "
        "GROUP BY table_name ORDER BY 1",
        [("carts", True, True, True, True), ("clicks", True, False, True, True), ("costs", True, True, True, True),
         ("items", True, True, True, True), ("wages", True, True, True, True)],
    ),
    "Sequelize, a table's columns with its key": Asked(
        "SELECT pk.constraint_type AS \"Constraint\", c.column_name AS \"Field\", c.column_default AS \"Default\", "
        "c.is_nullable AS \"Null\", c.data_type AS \"Type\" FROM information_schema.columns c LEFT JOIN (SELECT "
        "tc.table_schema, tc.table_name, cu.column_name, tc.constraint_type FROM information_schema.TABLE_CONSTRAINTS "
        "tc JOIN information_schema.KEY_COLUMN_USAGE cu ON tc.table_schema = cu.table_schema AND tc.table_name = "
        "cu.table_name AND tc.constraint_name = cu.constraint_name AND tc.constraint_type = 'PRIMARY KEY') pk ON "
        "pk.table_schema = c.table_schema AND pk.table_name = c.table_name AND pk.column_name = c.column_name "
        "WHERE c.table_name = 'carts' AND c.table_schema = 'shop' ORDER BY c.ordinal_position",
        [("PRIMARY KEY", "item", None, "NO", "BIGINT"), ("PRIMARY KEY", "size", None, "NO", "TEXT"),
         (None, "amount", "1", "NO", "INTEGER")],
    ),
    "TypeORM and Knex, where am I": Asked(
        "SELECT current_database(), current_schema(), version() LIKE 'Headrace%', current_schemas(true)[1]",
        [("kalam", "default", True, "default")],
    ),
    "dbt and Metabase, views with their text": Asked(
        "SELECT table_name, view_definition LIKE 'SELECT%', is_updatable FROM information_schema.views "
        "WHERE table_schema = 'shown' ORDER BY 1",
        [(name, True, "NO") for name in VIEWS],
    ),
    "dbt, columns of a view": Asked(
        "SELECT column_name, data_type, is_nullable FROM kalam.information_schema.columns "
        "WHERE table_schema = 'shown' AND table_name = 'cheap' ORDER BY ordinal_position",
        [("id", "BIGINT", "YES"), ("name", "TEXT", "YES"), ("price", "DECIMAL(10,2)", "YES")],
    ),
    "DataGrip, what views read": Asked(
        "SELECT view_name, table_schema, table_name FROM information_schema.view_table_usage ORDER BY 1",
        [("cheap", "shop", "items"), ("cheapest", "shown", "cheap"), ("payroll", "shop", "wages")],
    ),
    "Hibernate and Liquibase, sequences": Asked(
        "SELECT sequence_schema, sequence_name, start_value, increment FROM information_schema.sequences", [],
    ),
    "DBeaver, routines with their parameters": Asked(
        "SELECT r.routine_name, p.parameter_name FROM information_schema.routines r LEFT JOIN "
        "information_schema.parameters p ON p.specific_name = r.specific_name ORDER BY p.ordinal_position", [],
    ),
    "DataGrip, triggers": Asked(
        "SELECT trigger_name, event_manipulation, action_timing FROM information_schema.triggers "
        "WHERE event_object_schema = 'shop'", [],
    ),
    "Ecto and ActiveRecord, whether a table is there": Asked(
        "SELECT true FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2 LIMIT 1", [(True,)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("tool", QUERIES)
def test_what_tools_ask(world: CatalogueWorld, tool: str) -> None:
    asked = QUERIES[tool]
    params = ("shop", "items") if "$2" in asked.sql else ()
    assert world.rows(asked.sql, *params) == asked.rows


@pytest.mark.parametrize("role", Role)
def test_a_caller_sees_what_he_may_read_and_do(world: CatalogueWorld, role: Role) -> None:
    """Each row of the listing is held against what the statements themselves allow."""
    identity = ROLES[role]

    def rows(sql: str) -> list[tuple[object, ...]]:
        return world.rows(sql, identity=identity)

    shown = dict(rows("SELECT table_name, is_insertable_into FROM information_schema.tables WHERE table_schema='shop'"))
    assert set(shown) == READABLE[role]
    for name in TABLES:
        refusals = {
            "SELECT": world.error(f"SELECT * FROM shop.{name}", identity=identity),
            "INSERT": world.error(f"INSERT INTO shop.{name} SELECT * FROM shop.{name} WHERE false", identity=identity),
            "DELETE": world.error(f"DELETE FROM shop.{name} WHERE false", identity=identity),
        }
        allowed = {verb for verb, error in refusals.items() if not isinstance(error, PermissionDenied)}
        if name not in shown:
            assert "SELECT" not in allowed
            continue
        granted = {
            privilege
            for (privilege,) in rows(
                f"SELECT privilege_type FROM information_schema.role_table_grants WHERE table_name = '{name}'"
            )
        }
        assert granted - {"UPDATE"} == allowed, name
        assert (shown[name] == "YES") == ("INSERT" in allowed)
        of_columns = rows(
            "SELECT DISTINCT privilege_type FROM information_schema.column_privileges "
            f"WHERE table_schema = 'shop' AND table_name = '{name}'"
        )
        assert {privilege for (privilege,) in of_columns} == granted - {"DELETE"}


@pytest.mark.parametrize("role", Role)
def test_no_table_of_it_names_what_the_caller_may_not_know(world: CatalogueWorld, role: Role) -> None:
    hidden = set(TABLES) - READABLE[role]
    hidden |= set() if role.is_admin else {"payroll"}
    for name in OWN_NAMES:
        text = str(world.rows(f"SELECT * FROM information_schema.{name}", identity=ROLES[role]))
        assert not any(secret in text for secret in hidden), name
    schemas = {
        row[0] for row in world.rows("SELECT table_schema FROM information_schema.columns", identity=ROLES[role])
    }
    assert ("system" in schemas) == role.is_admin


@pytest.mark.parametrize("role", Role)
def test_finding_gives_what_reading_everything_gives(world: CatalogueWorld, role: Role) -> None:
    """`seek` against a condition that nothing can push down."""
    names = [("shop", name) for name in TABLES]
    names += [("shown", name) for name in VIEWS] + [
        ("information_schema", "tables"),
        ("system", "users"),
        ("shop", "nothing"),
        ("nowhere", "items"),
    ]
    sought = [table for table in own_tables() if table.seek == ("table_schema", "table_name")]
    assert {table.name for table in sought} >= {"tables", "columns", "column_privileges"}
    for table in sought:
        for schema, name in names:
            select = f"SELECT * FROM {table.full_name}"
            found = world.rows(
                f"{select} WHERE table_schema = $1 AND table_name = $2 ORDER BY ALL", schema, name, identity=ROLES[role]
            )
            everything = world.rows(
                f"{select} WHERE table_schema || '' = '{schema}' AND table_name || '' = '{name}' ORDER BY ALL",
                identity=ROLES[role],
            )
            assert found == everything, (table.name, schema, name)
        one_schema = world.rows(f"SELECT count(*) FROM {table.full_name} WHERE table_schema = 'shop'")
        assert one_schema == world.rows(f"SELECT count(*) FROM {table.full_name} WHERE table_schema || '' = 'shop'")
        assert world.rows(f"SELECT count(*) FROM {table.full_name} WHERE table_schema = $1", None) == [(0,)]


def test_finding_by_other_columns(world: CatalogueWorld) -> None:
    for table, columns in (
        ("information_schema.check_constraints", "constraint_schema"),
        ("system.columns", "namespace_id, table_name"),
        ("system.schemas", "namespace_id, table_name"),
    ):
        names = columns.split(", ")
        for values in (("shop", "items"), ("shop", "carts"), ("shown", "cheap"), ("nowhere", "items")):
            pairs = list(zip(names, values, strict=False))
            found, everything = (
                world.rows(f"SELECT * FROM {table} WHERE {' AND '.join(condition)} ORDER BY ALL")
                for condition in (
                    [f"{name} = '{value}'" for name, value in pairs],
                    [f"{name} || '' = '{value}'" for name, value in pairs],
                )
            )
            assert found == everything, (table, values)


def test_only_the_columns_that_are_asked_for_decide_nothing(world: CatalogueWorld) -> None:
    """Every column alone is that column of the whole."""
    for table in own_tables():
        if table.namespace == INFORMATION_SCHEMA and table.fill is not None:
            whole = world.results(f"SELECT * FROM {table.full_name}")[0].table
            assert whole is not None
            for place, column in enumerate(table.columns):
                alone = world.results(f"SELECT {column.name} FROM {table.full_name}")[0].table
                assert alone is not None
                assert alone.column(0).to_pylist() == whole.column(place).to_pylist(), column.name


def test_every_type_has_a_name_that_postgresql_knows() -> None:
    assert set(_UDT_NAMES) == set(Kind)


def test_system_tables_are_views_without_a_definition(world: CatalogueWorld) -> None:
    assert world.rows("SELECT DISTINCT table_type FROM information_schema.tables WHERE table_schema = 'system'") == [
        (VIEW,)
    ]
    assert world.rows("SELECT view_definition FROM information_schema.views WHERE table_name = 'users'") == [(None,)]
    assert world.rows("SELECT DISTINCT is_updatable FROM information_schema.columns WHERE table_schema='system'") == [
        ("NO",)
    ]


def test_a_key_narrows_the_reading(world: CatalogueWorld) -> None:
    condition = "table_schema = 'shop' AND table_name = 'items'"
    lines = world.rows(f"EXPLAIN SELECT data_type FROM information_schema.columns WHERE {condition}")
    assert ("  key: table_schema = shop and table_name = items",) in lines
