"""version(), current_schema() and their like: what they tell, and where they may stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sql.errors import InvalidSql
from sql.session_functions import server_version
from tests.sql.catalogue_world import CatalogueWorld, catalogue_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("functions")) as made:
        yield made


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT version()", server_version()),
        ("SELECT pg_catalog.version()", server_version()),
        ("SELECT current_database()", "kalam"),
        ("SELECT current_catalog", "kalam"),
        ("SELECT current_schema()", "shop"),
        ("SELECT CURRENT_SCHEMA", "shop"),
        ("SELECT current_schemas(false)[1]", "shop"),
        ("SELECT len(current_schemas(true))", 1),
        ("SELECT current_setting('search_path')", "shop"),
        ("SELECT quote_ident('plain_1')", "plain_1"),
        ("SELECT quote_ident('Capital')", '"Capital"'),
        ("SELECT quote_ident('1st')", '"1st"'),
        ("SELECT quote_ident('a\"b')", '"a""b"'),
        ("SELECT quote_ident('')", '""'),
        ("SELECT quote_ident(NULL)", None),
        ("SELECT count(*) FROM items WHERE name = current_schema()", 0),
        (
            "SELECT (SELECT max(table_name) FROM information_schema.tables WHERE table_schema = current_schema)",
            "wages",
        ),
        ("SELECT upper(current_schema()) || current_database()", "SHOPkalam"),
    ],
)
def test_values(world: CatalogueWorld, sql: str, expected: object) -> None:
    assert world.rows(sql, namespace="shop") == [(expected,)]


def test_a_cached_plan_is_of_one_namespace(world: CatalogueWorld) -> None:
    for namespace in ("shop", "default", "shop"):
        assert world.rows("SELECT current_schema()", namespace=namespace) == [(namespace,)]


def test_a_column_of_that_name_is_the_column(world: CatalogueWorld) -> None:
    assert world.rows("SELECT current_schema FROM system.sessions") == []


def test_the_database_may_be_named(world: CatalogueWorld) -> None:
    assert world.rows("SELECT count(*) FROM kalam.shop.items") == [(0,)]
    assert world.rows('SELECT count(*) FROM "kalam"."shop"."items"') == [(0,)]
    assert world.rows("SELECT count(kalam.shop.items.id) FROM kalam.shop.items") == [(0,)]
    assert world.rows("SELECT least FROM kalam.shown.cheapest") == [(None,)]
    error = world.error("SELECT * FROM other.shop.items")
    assert isinstance(error, InvalidSql)
    assert (error.line, error.column) == (1, 26)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT current_database(1)", "SELECT quote_ident()", "SELECT current_setting('data_directory')",
        "SELECT current_setting($1)", "SELECT other.version()", "SELECT current_setting('search_path', true)",
    ],
)  # fmt: skip
def test_wrong_calls_are_refused(world: CatalogueWorld, sql: str) -> None:
    error = world.error(sql, *(["search_path"] if "$1" in sql else []))
    assert error is not None
    assert error.status == 400
