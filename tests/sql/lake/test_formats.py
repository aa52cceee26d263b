"""The pieces of the format: bitmaps and their names, checkpoints, actions, names of columns."""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from sql.lake.actions import (
    Action,
    Add,
    DeletionVector,
    Format,
    LogState,
    MetaData,
    decode_actions,
    encode_actions,
    protocol_for,
)
from sql.lake.checkpoints import decode_checkpoint, encode_checkpoint
from sql.lake.deletion_vectors import VectorFile, files_of
from storage.catalog import ColumnDef, SchemaVersion, TableDef, TableKind
from storage.physical_names import physical_names, user_column
from storage.types import INT, TEXT

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
vectors = st.builds(
    DeletionVector, st.just("u"), texts, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**60)
)
adds = st.builds(
    Add, texts, st.dictionaries(texts, st.none() | texts, max_size=2), st.integers(0, 2**60), st.integers(0, 2**60),
    st.booleans(), st.none() | texts, st.none() | vectors,
)  # fmt: skip


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=300), st.sets(st.integers(0, 70_000), min_size=1))
def test_bitmaps_lie_where_they_are_said_to(first: set[int], second: set[int]) -> None:
    file = VectorFile()
    assert file.data == b""
    found = [(file.add(np.array(sorted(some), np.uint32)), some) for some in (first, second)]
    for vector, expected in found:
        assert files_of([vector]) == {file.name}
        length, magic, count, number = struct.unpack_from(">I", file.data, vector.offset) + struct.unpack_from(
            "<IQI", file.data, vector.offset + 4
        )
        body = file.data[vector.offset + 4 : vector.offset + 4 + length]
        assert (length, magic, count, number) == (vector.size_in_bytes, 1_681_511_377, 1, 0)
        assert struct.unpack_from(">I", file.data, vector.offset + 4 + length)[0] == zlib.crc32(body)
        assert set(BitMap.deserialize(body[16:])) == expected
        assert vector.cardinality == len(expected)


@given(st.lists(adds, max_size=5), st.sets(st.sampled_from(["columnMapping", "deletionVectors"])))
def test_a_checkpoint_holds_the_whole_state(found: list[Add], features: set[str]) -> None:
    state, again = LogState(), LogState()
    meta_data = MetaData("id", "{}", partition_columns=[], configuration={"a": "b"}, format=Format())
    state.apply([Action(protocol=protocol_for(frozenset(features))), Action(meta_data=meta_data)])
    state.apply(Action(add=add) for add in found)
    data, actions = encode_checkpoint(state)
    assert actions == 2 + len(state.files)
    again.apply(decode_checkpoint(data))
    assert (again.files, again.protocol, again.meta_data) == (state.files, state.protocol, state.meta_data)


@given(st.lists(adds, max_size=5))
def test_actions_survive_json_and_unknown_ones_are_left_out(found: list[Add]) -> None:
    lines = encode_actions([Action(add=add) for add in found] + [Action(remove=add.removed(1)) for add in found])
    state = LogState()
    decoded = decode_actions(lines + b'{"txn":{"appId":"x","version":1}}\n{"domainMetadata":{}}\n')
    assert [action.add for action in decoded if action.add is not None] == found
    state.apply(decoded)
    assert state.files == {}
    with pytest.raises(msgspec.DecodeError):
        decode_actions(b'{"add":{"path":1}}')


def test_a_column_keeps_its_name_in_files() -> None:
    a, b = ColumnDef(1, "a", INT), ColumnDef(2, "b", TEXT)

    def table(*versions: tuple[ColumnDef, ...]) -> TableDef:
        history = tuple(SchemaVersion(number, columns) for number, columns in enumerate(versions[:-1], 1))
        return TableDef(1, "n", "t", TableKind.USER, versions[-1], schema_version=len(versions), history=history)

    renamed = msgspec.structs.replace(a, name="b2")
    assert physical_names(table((a, b))) == {1: "a", 2: "b"}
    assert physical_names(table((a, b), (renamed, b))) == {1: "a", 2: "b"}
    again = ColumnDef(3, "a", TEXT)
    assert physical_names(table((a, b), (renamed, b, again))) == {1: "a", 2: "b", 3: "a~3"}
    odd = ColumnDef(3, "A b", TEXT), ColumnDef(4, "_seq", TEXT), ColumnDef(5, "a-b~3", TEXT)
    assert physical_names(table((a, *odd))) == {1: "a", 3: "A-b~3", 4: "_seq~4", 5: "a-b-3~5"}
    assert user_column(table((a,))) == "_user_id"
    assert user_column(table((a, ColumnDef(2, "_user_id", TEXT)), (a,))) == "_user_id_"
