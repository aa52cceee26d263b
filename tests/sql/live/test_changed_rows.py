"""Changed rows against a plain model: pairs, events and values, however few or many rows there are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sql.live.changed_rows import SMALL, ChangedRows

SCHEMA = pa.schema([
    pa.field("_seq", pa.int64(), nullable=False), ("id", pa.int64()), ("at", pa.timestamp("us")), ("day", pa.date32()),
])  # fmt: skip


@st.composite
def commits(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """`_seq`s of added versions, and (`_seq`, `_by`) of removed ones; both ascend by `_seq`."""
    size = draw(st.sampled_from([0, 1, 3, SMALL, 40]))
    log = draw(st.lists(st.sampled_from(["insert", "update", "delete", "chain"]), min_size=size, max_size=size))
    before = iter(range(1, 1_000, 3))
    added, removed = [], []
    for seq, kind in enumerate(log, start=1_000):
        if kind != "delete":
            added.append(seq)
        if kind == "chain" and len(added) > 1 and all(old != added[-2] for old, _ in removed):
            removed.append((added[-2], seq))
        elif kind in ("update", "delete"):
            removed.append((next(before), seq))
    shuffled = draw(st.permutations(removed))
    by_old = dict(zip(sorted(old for old, _ in removed), [by for _, by in shuffled], strict=True))
    return added, sorted(by_old.items())


def changed(added: list[int], removed: list[tuple[int, int]]) -> ChangedRows:
    def rows(seqs: list[int]) -> list[pa.Array]:
        days = [None if seq % 2 else seq for seq in seqs]
        doubled = pa.array([seq * 2 for seq in seqs], pa.int64())
        return [pa.array(seqs, pa.int64()), doubled, pa.array(seqs, pa.timestamp("us")), pa.array(days, pa.date32())]

    old = pa.RecordBatch.from_arrays(
        [*rows([seq for seq, _ in removed]), pa.array([by for _, by in removed], pa.int64())],
        schema=SCHEMA.append(pa.field("_by", pa.int64(), nullable=False)),
    )
    new = pa.RecordBatch.from_arrays(rows(added), schema=SCHEMA)
    return ChangedRows(SimpleNamespace(added=lambda: new, removed=lambda: old, table=None))  # type: ignore[arg-type]


@given(commits())
def test_pairs_are_those_of_the_model(commit: tuple[list[int], list[tuple[int, int]]]) -> None:
    added, removed = commit
    rows = changed(added, removed)
    replaced = {by: old for old, by in removed if by in added}
    gone = sorted((by, old) for old, by in removed if by not in added)
    pairing = rows.pairing
    seqs = np.array([old for old, _ in removed], dtype=np.int64)
    found = {int(s): int(seqs[o]) for s, o in zip(pairing.added_seqs, pairing.old_of, strict=True) if o >= 0}
    assert found == replaced
    assert list(zip(pairing.deleted_by.tolist(), seqs[pairing.deleted].tolist(), strict=True)) == gone
    events = [(e.seq, e.new and e.new["_seq"], e.old and e.old["_seq"]) for e in rows.events]
    expected = [(seq, seq, replaced.get(seq)) for seq in added] + [(by, None, old) for by, old in gone]
    assert events == sorted(expected)
    for event in rows.events:
        for row in (event.new, event.old):
            if row is not None:
                seq = row["_seq"]
                assert isinstance(seq, int)
                assert row["id"] == seq * 2
                assert (row["at"], row["day"]) == (seq, None if seq % 2 else seq)
                assert row["_deleted"] is False


@given(commits())
def test_values_are_those_of_all_rows(commit: tuple[list[int], list[tuple[int, int]]]) -> None:
    added, removed = commit
    seqs = [*added, *(old for old, _ in removed)]
    rows = changed(added, removed)
    assert rows.is_small == (len(seqs) <= SMALL)
    assert rows.values("id") == {seq * 2 for seq in seqs}
    assert rows.values("day") == {None if seq % 2 else seq for seq in seqs}
    assert rows.values("nope") == frozenset()
