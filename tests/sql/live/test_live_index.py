"""The index against a list: it finds exactly whom a change can concern, and keeps nothing of those who left."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from sql.identity import Identity, Role
from sql.live.index import Listeners, LiveIndex
from sql.live.interface import Equality

ROOT = Identity("root", Role.SYSTEM)


@dataclass(frozen=True)
class Query:
    """As much of a LiveQuery as the index looks at."""

    table_id: int | None
    partition: str
    equality: Equality | None
    rest: int

    @property
    def key(self) -> Query:
        return self


class Rows:
    """As much of ChangedRows."""

    def __init__(self, values: dict[str, set[object]]) -> None:
        self._values = values

    def values(self, column: str) -> set[object]:
        return self._values.get(column, set())


VALUES = st.one_of(st.integers(0, 4), st.sampled_from(["a", "b"]), st.none())
QUERIES = st.builds(
    Query,
    st.sampled_from([1, 2, None]),
    st.sampled_from(["", "ann"]),
    st.none() | st.builds(Equality, st.sampled_from(["room", "owner"]), VALUES.filter(lambda value: value is not None)),
    st.integers(0, 2),
)
CHANGES = st.tuples(
    st.sampled_from([1, 2]),
    st.sampled_from(["", "ann"]),
    st.dictionaries(st.sampled_from(["room", "owner", "n"]), st.sets(VALUES)),
)


@given(st.lists(st.tuples(QUERIES, st.booleans()), max_size=40), st.lists(CHANGES, max_size=5))
def test_the_index_finds_whom_a_list_finds(steps: list[tuple[Query, bool]], changes: list) -> None:
    index = LiveIndex()
    present: dict[Query, Listeners] = {}
    for query, leaves in steps:
        known = index.get(query)
        assert known is present.get(query)
        if known is None:
            present[query] = Listeners(query, ROOT, index)  # type: ignore[arg-type]
            index.add(present[query])
        elif leaves:
            index.remove(present.pop(query))
        assert index.queries == len(present)
        assert set(index.all()) == set(present.values())
    for table_id, partition, values in changes:
        place = index.partition(table_id, partition)
        found = [] if place is None else place.candidates(Rows(values))  # type: ignore[arg-type]
        assert len(found) == len(set(found))
        assert set(found) == {
            listeners
            for query, listeners in present.items()
            if (query.table_id, query.partition) == (table_id, partition)
            and (query.equality is None or query.equality.value in values.get(query.equality.column, set()))
        }
    assert set(index.system()) == {listeners for query, listeners in present.items() if query.table_id is None}
    for listeners in present.values():
        index.remove(listeners)
    assert index.queries == 0
    assert not index._partitions
