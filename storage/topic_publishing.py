"""From the rows that a group of works wrote to the messages of the topics that have them as a source.

The flusher hands over what it wrote of each partition of a table that is somebody's source. Every added row version is
an insert, or an update when it superseded another one; every superseded version without a successor is a delete. For
each source the router says which of these events it wants and where they go; the rest is references (`RowRun`). Rows
are read only for a router that has to see them: for a condition, or for keys of a topic with several partitions.

All of it happens in the writer, before the commit: rows and messages are in one LMDB transaction. A router that fails
raises PublishFailed, and the write fails with it.

Within a topic partition messages stand in the order of their events' `_seq`, whatever tables and sources they are from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.catalog import Catalog, TableDef
from storage.changes import Written
from storage.errors import PublishFailed
from storage.layout import layout_of
from storage.reading import Reader
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_runs import ProducedRun, RowRun, Seqs, SizedRun, pack_seqs
from storage.versions import change_columns, read_versions

Places = npt.NDArray[np.int64]


class PublishedRows:
    """The row versions of some events: `_seq`, then `_row_id` (tables without a key) and the columns by name.

    They are read when somebody asks for them. `derived` is the router's, to keep what it made of them for one source
    until the next one asks.
    """

    __slots__ = ("_made", "_make", "count", "derived")

    def __init__(self, count: int, make: Callable[[], pa.RecordBatch]) -> None:
        self.count = count
        self.derived: dict[object, Any] = {}
        self._make = make
        self._made: pa.RecordBatch | None = None

    @property
    def batch(self) -> pa.RecordBatch:
        """The rows."""
        if self._made is None:
            self._made = self._make()
        return self._made


class Routed(NamedTuple):
    """Which of some events a source wants (None: all), and the partitions of those (None: the only one)."""

    kept: Places | None
    partitions: Places | None


class Router(Protocol):
    """Decides about events; the SQL room knows how, as conditions and keys are SQL."""

    def route(self, topic: TopicDef, source: TopicSource, table: TableDef, rows: PublishedRows) -> Routed:
        """Where the events go. Raises PublishFailed where a condition cannot be evaluated."""

    def rendered(self, run: RowRun, catalog: Catalog, reader: Reader) -> ProducedRun:
        """The messages of a run with their keys and payloads, for a dead-letter topic."""


class NoRouter:
    """Stands where no SQL room is: sources that need one fail the write."""

    def route(self, topic: TopicDef, source: TopicSource, table: TableDef, rows: PublishedRows) -> Routed:
        """Everything of a topic with one partition."""
        if source.condition is not None or topic.partitions > 1:
            raise PublishFailed(f"topic {topic.full_name} cannot be written to without the SQL layer")
        return Routed(None, None)

    def rendered(self, run: RowRun, catalog: Catalog, reader: Reader) -> ProducedRun:
        """Nothing can be rendered."""
        raise PublishFailed("messages cannot be rendered without the SQL layer")


class _Events(NamedTuple):
    """Events of one kind: their `_seq`s, ascending, the versions that went (deletes, updates), and the rows."""

    seqs: Seqs
    olds: Seqs | None
    rows: PublishedRows
    row_bytes: int


class _Messages:
    """Messages for a topic partition from one source, about rows of one user's partition ("": SHARED).

    `run` is what they become; sources that want the same have it in common.
    """

    __slots__ = ("_run", "olds", "row_bytes", "seqs", "source", "user")

    def __init__(self, source: TopicSource, user: str, seqs: Seqs, olds: Seqs | None, row_bytes: int) -> None:
        self.source = source
        self.user = user
        self.seqs = seqs
        self.olds = olds
        self.row_bytes = row_bytes
        self._run: SizedRun | None = None

    def part(self, places: Places) -> _Messages:
        """Some of them."""
        olds = None if self.olds is None else self.olds[places]
        return _Messages(self.source, self.user, self.seqs[places], olds, self.row_bytes)

    def run(self, commit_seq: int, now_us: int) -> SizedRun:
        """The run, in a commit with that first `_seq` and time."""
        if self._run is None:
            source, seqs = self.source, self.seqs
            run = RowRun(
                now_us,
                source.table_id,
                self.user,
                source.operation,
                source.payload,
                commit_seq,
                len(seqs),
                int(seqs[0]),
                pack_seqs(seqs),
                b"" if self.olds is None else self.olds.astype("<i8").tobytes(),
                source.columns,
            )
            self._run = SizedRun(run, self.row_bytes * len(seqs))
        return self._run


class Publisher:
    """Collects the messages of one commit. `restart` forgets them, for a group that is written again."""

    def __init__(self, router: Router, commit_seq: int, now_us: int) -> None:
        self._router = router
        self._commit_seq = commit_seq
        self._now_us = now_us
        self._messages: dict[tuple[int, int], list[_Messages]] = {}

    def restart(self) -> None:
        """Forget everything."""
        self._messages.clear()

    def collect(
        self,
        catalog: Catalog,
        reader: Reader,
        table_id: int,
        user: str,
        batches: Written,
        superseded: dict[int, int],
    ) -> None:
        """Note the messages about what was written to one partition of a table. Raises PublishFailed."""
        sources = catalog.sources_of(table_id)
        table = catalog.table_by_id(table_id)
        if not sources or table is None:
            return
        events = _events_of(table, reader, user, batches, superseded)
        whole: dict[object, _Messages] = {}
        for topic, source in sources:
            found = events.get(source.operation)
            if found is None:
                continue
            if source.condition is None and topic.partitions == 1:
                alike = source.operation, source.payload, source.columns
                if alike not in whole:
                    whole[alike] = _chosen(found, source, user, None)
                self._messages.setdefault((topic.topic_id, 0), []).append(whole[alike])
                continue
            kept, partitions = self._router.route(topic, source, table, found.rows)
            chosen = _chosen(found, source, user, kept)
            if not len(chosen.seqs):
                continue
            if partitions is None:
                self._messages.setdefault((topic.topic_id, 0), []).append(chosen)
                continue
            for partition in np.unique(partitions).tolist():
                part = chosen.part(np.flatnonzero(partitions == partition))
                self._messages.setdefault((topic.topic_id, partition), []).append(part)

    def runs(self) -> Iterable[tuple[int, int, list[SizedRun]]]:
        """The messages by (topic id, partition), in order."""
        for (topic_id, partition), found in self._messages.items():
            ordered = found if len(found) == 1 else _in_order(found)
            yield topic_id, partition, [messages.run(self._commit_seq, self._now_us) for messages in ordered]


def _events_of(
    table: TableDef, reader: Reader, user: str, batches: Written, superseded: dict[int, int]
) -> dict[Operation, _Events]:
    """The events in a partition by their kind."""
    layout = layout_of(table)
    columns = change_columns(layout)

    def added_rows() -> pa.RecordBatch:
        pieces = [
            layout.projection(written.table.schema_version, columns, with_seq=True).batch(batch)
            for written, batch in batches
        ]
        return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)

    pieces = [batch.column(0).to_numpy() for _, batch in batches]
    added: Seqs = pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    nbytes = sum(batch.nbytes for _, batch in batches)
    row_bytes = max(nbytes // len(added), 1) if len(added) else 0
    if not superseded:
        return {Operation.INSERT: _Events(added, None, PublishedRows(len(added), added_rows), row_bytes)}
    pairs = np.array(sorted((by, old) for old, by in superseded.items()), dtype=np.int64)
    by, old = pairs[:, 0], pairs[:, 1]
    is_update = np.isin(added, by)
    replaced = np.isin(by, added)
    found: dict[Operation, _Events] = {}

    def subset(places: Places) -> PublishedRows:
        if len(places) == len(added):
            return PublishedRows(len(added), added_rows)
        return PublishedRows(len(places), lambda: added_rows().take(pa.array(places)))

    inserts, updates = np.flatnonzero(~is_update), np.flatnonzero(is_update)
    if len(inserts):
        found[Operation.INSERT] = _Events(added[inserts], None, subset(inserts), row_bytes)
    if len(updates):
        found[Operation.UPDATE] = _Events(added[updates], old[replaced], subset(updates), row_bytes)
    gone = old[~replaced]
    if len(gone):

        def gone_rows() -> pa.RecordBatch:
            order = np.argsort(gone)
            rows = read_versions(reader, layout, user, gone[order])
            return rows.take(pa.array(np.argsort(order)))

        rows = PublishedRows(len(gone), gone_rows)
        found[Operation.DELETE] = _Events(by[~replaced], gone, rows, row_bytes or _GONE_BYTES)
    return found


_GONE_BYTES = 64
"""What retention counts for the row of a delete, whose size nobody looked at."""


def _chosen(events: _Events, source: TopicSource, user: str, kept: Places | None) -> _Messages:
    """The events that a source wants; the versions that went only where the payload shows them."""
    needs_old = source.operation is Operation.DELETE or source.payload is PayloadMode.DIFF
    messages = _Messages(source, user, events.seqs, events.olds if needs_old else None, events.row_bytes)
    return messages if kept is None else messages.part(kept)


def _in_order(found: Sequence[_Messages]) -> list[_Messages]:
    """Messages from several sources by their events' `_seq`, in as few pieces as that allows."""
    ordered = sorted(found, key=lambda messages: int(messages.seqs[0]))
    if all(int(one.seqs[-1]) <= int(two.seqs[0]) for one, two in itertools.pairwise(ordered)):
        return ordered
    seqs = np.concatenate([messages.seqs for messages in ordered])
    which = np.repeat(np.arange(len(ordered)), [len(messages.seqs) for messages in ordered])
    places = np.concatenate([np.arange(len(messages.seqs)) for messages in ordered])
    order = np.argsort(seqs, kind="stable")
    which, places = which[order], places[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(which)) + 1, [len(which)]))
    return [
        ordered[which[start]].part(places[start:end])
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
