"""Where a storage may lie: no path escapes, none meets the data folder or another storage."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.errors import ExecutionError
from sql.storages.locations import base_of, check_apart, check_storage_id, check_template
from sql.storages.statements import StorageClauses
from storage.storage_definitions import StorageDef

PARTS = st.sampled_from(["a", "b", "ab", "data", "cold"])


def storage(base: str, storage_id: str = "other") -> StorageDef:
    return StorageDef(storage_id=storage_id, name="x", type="filesystem", base_directory=base)


@given(one=st.lists(PARTS, min_size=1, max_size=4), other=st.lists(PARTS, min_size=1, max_size=4))
def test_two_folders_lie_apart_or_are_refused(one: list[str], other: list[str]) -> None:
    a, b = PurePosixPath("/", *one), PurePosixPath("/", *other)
    meet = a == b or a in b.parents or b in a.parents
    for check in (
        lambda: check_apart(str(a), Path("/elsewhere"), [storage(str(b))]),
        lambda: check_apart(f"s3://x{a}", Path("/elsewhere"), [storage(f"s3://x{b}")]),
    ):
        if meet:
            with pytest.raises(ExecutionError, match="lie apart"):
                check()
        else:
            check()


def test_the_data_folder_is_met_through_links_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for path in (data, data / "cold", data / "new", tmp_path, tmp_path / "link" / "x", tmp_path / "link"):
        base = base_of("filesystem", StorageClauses(path=str(path)))
        with pytest.raises(ExecutionError, match="the data folder must lie apart"):
            check_apart(base, data, [])
    check_apart(base_of("filesystem", StorageClauses(path=str(tmp_path / "data2"))), data, [])


@pytest.mark.parametrize(
    ("kind", "clauses", "expected"),
    [
        ("filesystem", StorageClauses(path="/srv/cold/"), "/srv/cold"),
        ("filesystem", StorageClauses(base_directory="/srv//cold"), "/srv/cold"),
        ("s3", StorageClauses(bucket="cold"), "s3://cold"),
        ("s3", StorageClauses(bucket="cold/a//b/"), "s3://cold/a/b"),
        ("s3", StorageClauses(base_directory="s3://cold/x"), "s3://cold/x"),
        ("s3", StorageClauses(path="s3://cold/x"), "s3://cold/x"),
        ("gcs", StorageClauses(base_directory="gcs://cold/x"), "gs://cold/x"),
        ("azure", StorageClauses(base_directory="abfss://box/x"), "az://box/x"),
    ],
)
def test_bases(kind, clauses: StorageClauses, expected: str) -> None:
    assert base_of(kind, clauses) == expected


@pytest.mark.parametrize(
    ("kind", "clauses", "message"),
    [
        ("filesystem", StorageClauses(), "exactly one of PATH"),
        ("filesystem", StorageClauses(path="/a", base_directory="/b"), "exactly one of PATH"),
        ("filesystem", StorageClauses(path="relative/x"), "must be absolute"),
        ("filesystem", StorageClauses(path="/a/../etc"), r"must not contain '\.\.'"),
        ("filesystem", StorageClauses(path="/a\0b"), "control characters"),
        ("filesystem", StorageClauses(path="/" + "a" * 2000), "at most 1,024"),
        ("filesystem", StorageClauses(bucket="b"), "BUCKET names a place in an object store"),
        ("s3", StorageClauses(path="/etc"), "begins with s3://"),
        ("s3", StorageClauses(base_directory="gs://x"), "begins with s3://"),
        ("s3", StorageClauses(base_directory="file:///etc"), "begins with s3://"),
        ("s3", StorageClauses(bucket="key:secret@bucket"), "not the name of a bucket"),
        ("s3", StorageClauses(bucket=""), "not the name of a bucket"),
        ("s3", StorageClauses(bucket="bbb/../c"), "not a bucket and a path"),
        ("s3", StorageClauses(bucket="cold/x?endpoint_override=evil"), "not a bucket and a path"),
    ],
)
def test_bases_that_are_refused(kind, clauses: StorageClauses, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        base_of(kind, clauses)


@pytest.mark.parametrize("name", ["a", "S3", "my-store_2", "x" * 64])
def test_ids(name: str) -> None:
    check_storage_id(name)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a/b", "../x", "x" * 65, "a\n", "é"])
def test_ids_that_are_refused(name: str) -> None:
    with pytest.raises(ExecutionError, match="Storage id"):
        check_storage_id(name)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("{namespace}/{tableName}", False), ("x/{namespace}/t-{tableName}/y", False),
        ("ns={namespace}/table={tableName}/user={userId}", True), ("{userId}/{namespace}/{tableName}", True),
    ],
)  # fmt: skip
def test_templates(text: str, *, user: bool) -> None:
    assert check_template(text, user=user) == text


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["{namespace}", "{tableName}", "{userId}", "/", "..", ".", "a", "-", "{x}", "{", "}", " ", "\\"]
        ),
        max_size=8,
    ).map("".join),
    st.booleans(),
)
def test_a_template_gives_every_table_a_folder_of_its_own(text: str, user: bool) -> None:
    try:
        template = check_template(text, user=user)
    except ExecutionError:
        return
    names = [("n", "t", "u"), ("n", "t", "v"), ("n", "s", "u"), ("m", "t", "u"), ("nt", "x", "u"), ("n", "tx", "u")]
    folders = {}
    for namespace, table, who in names:
        filled = template.format(namespace=namespace, tableName=table, userId=who)
        parts = PurePosixPath(filled).parts
        assert ".." not in parts
        assert not filled.startswith("/")
        key = (namespace, table, who if user else None)
        assert folders.setdefault(filled, key) == key
