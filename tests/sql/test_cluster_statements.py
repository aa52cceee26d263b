"""CLUSTER … in every form of the reference, and SHOW of settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sql.cluster_statements import ACTIONS
from sql.errors import ClusterUnavailable, InvalidSql, PermissionDenied, Unsupported
from sql.identity import Role
from tests.sql.catalogue_world import ROLES, CatalogueWorld, catalogue_world

FORMS = (
    "CLUSTER SNAPSHOT", "CLUSTER PURGE --UPTO 5", "CLUSTER PURGE", "CLUSTER TRIGGER ELECTION",
    "CLUSTER TRANSFER-LEADER 2", "CLUSTER REBALANCE", "cluster stepdown", "CLUSTER JOIN 2 10.0.0.2:9188 10.0.0.2:8080",
    "CLUSTER JOIN node2 host-b:9188 host-b:8080", "CLUSTER CLEAR", "CLUSTER LIST", "CLUSTER LS", "CLUSTER STATUS",
    "CLUSTER LEAVE",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def test_every_action_has_a_form_here() -> None:
    texts = [form.upper() for form in FORMS]
    assert all(any("".join(words).upper() in text.replace(" ", "") for text in texts) for words in ACTIONS)


@pytest.mark.parametrize("form", FORMS)
def test_there_is_no_cluster(world: CatalogueWorld, form: str) -> None:
    for role, identity in ROLES.items():
        error = world.error(form, identity=identity)
        assert type(error) is (ClusterUnavailable if role.is_admin else PermissionDenied)
    assert world.error(f"SELECT 1; {form}; SELECT 2") is not None


@pytest.mark.parametrize("form", ["CLUSTER", "CLUSTER DANCE", "CLUSTER TRIGGER", "CLUSTER TRANSFER 2"])
def test_other_words_are_no_action(world: CatalogueWorld, form: str) -> None:
    assert type(world.error(form)) is InvalidSql


def test_it_stands_outside_of_transactions(world: CatalogueWorld) -> None:
    assert type(world.error("BEGIN; CLUSTER SNAPSHOT; COMMIT")) is Unsupported


def test_show_settings(world: CatalogueWorld) -> None:
    row = ("server.port", "1", "Port", "server")
    for sql in ("SHOW SETTINGS", "SHOW ALL", "show server.port"):
        assert world.rows(sql) == [row]
    error = world.error("SHOW server.prot")
    assert error is not None
    assert error.message == "There is no setting 'server.prot'. Did you mean 'server.port'?"
    assert (error.line, error.column) == (1, 6)
    assert type(world.error("SHOW x.y.z")) is InvalidSql
    assert type(world.error("SHOW nothing")) is Unsupported


@pytest.mark.parametrize("role", [Role.USER, Role.SERVICE])
def test_settings_are_for_admins(world: CatalogueWorld, role: Role) -> None:
    for sql in ("SHOW SETTINGS", "SHOW server.port", "SHOW server.nothing"):
        assert type(world.error(sql, identity=ROLES[role])) is PermissionDenied
