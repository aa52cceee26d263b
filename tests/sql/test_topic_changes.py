"""Property: the messages of a table's changes are those of a plain model, in order, for all sources.

Within a commit the order of different rows is not promised beyond that of `_seq`; of one row it is.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.identity import Identity
from tests.sql.topic_world import ANN, BOB, TopicWorld, topic_world

Stored = tuple[int, str]
Condition = Callable[[Stored], bool]

CONDITIONS: dict[str, Condition] = {
    "true": lambda row: True,
    "v > 4": lambda row: row[0] > 4,
    "regexp_matches(s, '^a')": lambda row: row[1].startswith("a"),  # only DuckDB has it
}
NAMES = itertools.count()
KEYS = 6
"""The greatest key."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TopicWorld]:
    with topic_world(tmp_path_factory.mktemp("topics")) as found:
        yield found


class Change(NamedTuple):
    """What one commit did to one row."""

    op: str
    key: int
    old: Stored | None
    new: Stored | None


class Held(NamedTuple):
    """A row inside a transaction, and what it was before; None for a new one."""

    row: Stored
    before: Stored | None
    touched: bool = False


class Model:
    """The rows of one partition."""

    def __init__(self) -> None:
        self.rows: dict[int, Stored] = {}

    def commit(self, steps: list[tuple[Any, ...]], table: str) -> tuple[list[str], list[Change]]:
        """The statements for some steps, and what they change together."""
        held = {key: Held(row, row) for key, row in self.rows.items()}
        changes: list[Change] = []
        statements = []
        for name, key, value, text in steps:
            if name == "insert" and key not in held:
                statements.append(f"INSERT INTO {table} VALUES ({key}, {value}, '{text}')")
                held[key] = Held((value, text), None)
            elif name == "fill":
                missing = [place for place in range(key, KEYS + 1) if place not in held]
                values = ", ".join(f"({place}, {value}, '{text}')" for place in missing)
                statements += [f"INSERT INTO {table} VALUES {values}"] if missing else []
                held |= {place: Held((value, text), None) for place in missing}
            elif name in {"insert", "upsert"}:
                statements.append(
                    f"INSERT INTO {table} AS t VALUES ({key}, {value}, '{text}') "
                    "ON CONFLICT (id) DO UPDATE SET v = t.v + 1"
                )
                found = held.get(key)
                held[key] = (
                    Held((value, text), None)
                    if found is None
                    else Held((found.row[0] + 1, found.row[1]), found.before, True)
                )
            elif name == "update":
                statements.append(f"UPDATE {table} SET s = '{text}' WHERE id >= {key} AND v <= {value}")
                for place, found in held.items():
                    if place >= key and found.row[0] <= value and found.row[1] != text:
                        held[place] = Held((found.row[0], text), found.before, True)
            else:
                statements.append(f"DELETE FROM {table} WHERE id >= {key} AND v <= {value}")
                for place in [place for place, found in held.items() if place >= key and found.row[0] <= value]:
                    gone = held.pop(place)
                    if gone.before is not None:
                        changes.append(Change("delete", place, gone.before, None))
        for place, found in held.items():
            if found.before is None:
                changes.append(Change("insert", place, None, found.row))
            elif found.touched:
                changes.append(Change("update", place, found.before, found.row))
        self.rows = {place: found.row for place, found in held.items()}
        return statements, changes


def diff_of(change: Change) -> dict[str, Any]:
    """What the payload `diff` says of a change."""
    whole = [None if row is None else {"id": change.key, "v": row[0], "s": row[1]} for row in (change.old, change.new)]
    old, new = whole
    if old is None or new is None:
        return {"key": {"id": change.key}, "old": old or {}, "new": new or {}}
    names = [name for name in old if old[name] != new[name]]
    return {
        "key": {"id": change.key},
        "old": {name: old[name] for name in names},
        "new": {name: new[name] for name in names},
    }


def full_of(change: Change) -> dict[str, Any]:
    """What the payload `full` says of a change, but for `_seq` and `_commit_seq`."""
    row = change.new or change.old
    assert row is not None
    return {"id": change.key, "v": row[0], "s": row[1], "_deleted": change.op == "delete"}


STEPS = st.tuples(
    st.sampled_from(["fill", "insert", "upsert", "update", "delete"]),
    st.integers(0, KEYS),
    st.integers(0, 8),
    st.sampled_from(["a", "ab", "b", ""]),
)
COMMITS = st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.lists(STEPS, min_size=1, max_size=4)), max_size=8)


@given(COMMITS, st.sampled_from(["SHARED", "USER"]), st.sampled_from(sorted(CONDITIONS)), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_messages_are_those_of_the_model(
    world: TopicWorld,
    commits: list[tuple[Identity, list[tuple[Any, ...]]]],
    kind: str,
    condition: str,
    partitions: int,
) -> None:
    name = f"app.p{next(NAMES)}"
    world.run(f"CREATE {kind} TABLE {name} (id INT PRIMARY KEY, v INT NOT NULL, s TEXT NOT NULL)")
    for mode in ("full", "key", "diff"):
        world.results(
            f"CREATE TOPIC {name}_{mode} PARTITIONS {partitions};"
            f"ALTER TOPIC {name}_{mode} ADD SOURCE {name} ON INSERT, UPDATE, DELETE WHERE {condition}"
            f" WITH (payload = '{mode}')"
        )
    models: dict[str, Model] = {}
    expected: list[tuple[str | None, list[Change]]] = []
    for user, steps in commits:
        owner = user.user if kind == "USER" else None
        model = models.setdefault(owner or "", Model())
        statements, changes = model.commit(steps, name)
        batch = statements if len(statements) == 1 else ["BEGIN", *statements, "COMMIT"]
        as_user = user if kind == "USER" else Identity("root", user.role.SYSTEM)
        world.results("; ".join(batch), who=as_user)
        kept = [change for change in changes if CONDITIONS[condition](change.new or change.old or (0, ""))]
        if kept:
            expected.append((owner, kept))
    check(world, name, expected, partitions)


def check(world: TopicWorld, name: str, expected: list[tuple[str | None, list[Change]]], partitions: int) -> None:
    """Every topic of the table has exactly the expected messages."""
    for mode, payload_of in (("full", full_of), ("diff", diff_of)):
        rows = [
            (*row, json.loads(row[4])) for row in world.rows(f"CONSUME FROM {name}_{mode} FROM EARLIEST LIMIT 1000")
        ]
        for partition in range(partitions):
            here = [row for row in rows if row[1] == partition]
            assert [row[2] for row in here] == list(range(len(here)))
            seqs = [int(row[-1]["_seq"]) for row in here]
            assert seqs == sorted(set(seqs))
        places: dict[str, int] = {}
        assert all(places.setdefault(row[3], row[1]) == row[1] for row in rows)
        by_commit: dict[int, list[tuple[Any, ...]]] = {}
        for row in sorted(rows, key=lambda row: int(row[-1]["_seq"])):
            by_commit.setdefault(int(row[-1]["_commit_seq"]), []).append(row)
        assert len(by_commit) == len(expected)
        for found, (owner, changes) in zip(by_commit.values(), expected, strict=True):
            assert [row[6] for row in found] == [owner] * len(changes)
            told = [
                (row[7], row[3], {name: value for name, value in row[-1].items() if name not in MARKS}) for row in found
            ]
            wanted = [(change.op, str(change.key), payload_of(change)) for change in changes]
            for key in {key for _, key, _ in wanted}:
                assert [row for row in told if row[1] == key] == [row for row in wanted if row[1] == key]
            assert len(told) == len(wanted)
    full = [row[1:4] + row[6:8] for row in world.rows(f"CONSUME FROM {name}_full FROM EARLIEST LIMIT 1000")]
    keys = world.rows(f"CONSUME FROM {name}_key FROM EARLIEST LIMIT 1000")
    assert [row[1:4] + row[6:8] for row in keys] == full
    assert [json.loads(row[4]) for row in keys] == [{"id": int(row[3])} for row in keys]


MARKS = {"_seq", "_commit_seq", "_table"}
