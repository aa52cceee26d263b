"""The topics of a simulation, while commits fail, tables come and go, and the engine is opened again.

`rows` has all changes of the tables since they were made: whoever replays it has the tables. `short` has the same
changes and keeps few of them. Clients produce to `jobs`, and a group consumes from it: what it was given and what it
acknowledged is remembered here, and must be neither lost nor given back by a failed commit or a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from storage import WriteTransaction
from storage.errors import StorageFull, StoragePoisoned
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_groups import GroupState
from storage.topic_log import bounds, read_spans
from storage.topic_runs import RowRun
from storage.topic_writes import ClaimRequest, ClaimResult, Placed, Produced, claim, produce, reset_group
from tests.storage.topic_world import (
    ack_in,
    all_bounds,
    change_topic,
    create_topic,
    messages_of,
    offsets_of,
    state_of,
    versions,
)

if TYPE_CHECKING:
    from tests.storage.simulation import Simulation

NEVER_STORED = (StoragePoisoned, StorageFull)
HOLDERS = ("=ann", "=bob", "boot:eve")
PARTITIONS = 3
GROUP = "workers"
Offset = tuple[int, int]
Replica = dict[tuple[int, str], dict[int, tuple[object, ...]]]


class SimulatedTopics:
    """Topics, producers, consumers, and what they know."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.produced: dict[Offset, bytes] = {}
        self.acknowledged: set[Offset] = set()
        self.states: list[GroupState | None] = [None] * PARTITIONS
        self.given = self.expired = self.gone = self._sent = 0
        engine = simulation.engine
        create_topic(engine, "rows", retention_seconds=0, retention_bytes=0)
        create_topic(engine, "short", retention_seconds=300, retention_bytes=6_000)
        create_topic(engine, "jobs", partitions=PARTITIONS, retention_seconds=0, retention_bytes=0)
        self.adopt()

    def topic(self, name: str) -> TopicDef:
        """The definition that the engine holds."""
        topic = self._simulation.engine.catalog.topic("app", name)
        assert topic is not None
        return topic

    def adopt(self) -> None:
        """Tables that are new become sources."""
        for name in ("rows", "short"):
            topic = self.topic(name)
            known = {source.table_id for source in topic.sources}
            fresh = [table.table_id for table in self._simulation.tables.values() if table.table_id not in known]
            if not fresh:
                continue
            payload = PayloadMode.DIFF
            more = [TopicSource(0, table_id, operation, payload) for table_id in fresh for operation in Operation]
            sources = tuple(
                msgspec.structs.replace(source, source_id=topic.next_source_id + n) for n, source in enumerate(more)
            )
            change_topic(
                self._simulation.engine,
                topic,
                sources=(*topic.sources, *sources),
                referred=tuple(sorted({*topic.referred, *fresh})),
                next_source_id=topic.next_source_id + len(more),
            )

    # --- what clients do -----------------------------------------------------------------------------------------

    def _commit(self, work: Callable[[WriteTransaction], Any]) -> tuple[bool, Any]:
        """Let a work be committed, perhaps in vain: whether it is stored, and what it gave when it ran last."""
        simulation = self._simulation
        results: list[Any] = []
        simulation.attempts.clear()
        simulation.arm()
        error = simulation.engine.submit(lambda wtxn: results.append(work(wtxn))).exception(30)
        assert error is None or (isinstance(error, NEVER_STORED) and simulation.faulted), error
        stored = error is None or any(attempt.stored for attempt in simulation.attempts)
        simulation.await_reopening()
        simulation.settle()
        return stored, results[-1] if results else None

    def produce(self) -> None:
        """A client produces a few messages."""
        topic, chance = self.topic("jobs"), self._simulation.random
        messages = []
        for _ in range(chance.randint(1, 4)):
            self._sent += 1
            partition = chance.choice([None, 0, 1])
            messages.append(Produced(b"%d" % self._sent, chance.choice([None, "a", "b", "c"]), partition))

        def work(wtxn: WriteTransaction) -> list[Placed]:
            return produce(wtxn, topic, messages, "ann")

        stored, placed = self._commit(work)
        if stored:
            for place, message in zip(placed, messages, strict=True):
                assert tuple(place) not in self.produced, "an offset was given twice"
                self.produced[tuple(place)] = message.payload
        self.compare_jobs()

    def consume(self) -> None:
        """A consumer claims some messages; it may never hear of it."""
        topic, chance = self.topic("jobs"), self._simulation.random
        request = ClaimRequest(
            GROUP,
            chance.choice(HOLDERS),
            chance.randint(1, 6),
            1 << 20,
            chance.choice([5, 60, 500]) * 1_000_000,
            chance.choice([None, None, 0]),
            "earliest",
            ordered=chance.random() < 0.3,
        )

        def work(wtxn: WriteTransaction) -> tuple[ClaimResult, int]:
            return claim(wtxn, topic, request), wtxn.now_us()

        before = self.states
        stored, given = self._commit(work)
        if stored:
            self.states = self.stored_states()
            result, now = given
            self.check_claim(result, request, before, now)
        self.compare_jobs()

    def check_claim(
        self, result: ClaimResult, request: ClaimRequest, before: list[GroupState | None], now: int
    ) -> None:
        """Nothing is handed out that somebody holds or has acknowledged."""
        offsets = offsets_of(result.claimed)
        assert len(offsets) == len(set(offsets)) <= request.messages
        assert not self.acknowledged & set(offsets)
        self.given += len(offsets)
        for partition, offset in offsets:
            assert (partition, offset) in self.produced
            state = before[partition]
            held = [] if state is None else [c for c in state.claims if c.first <= offset <= c.last]
            assert all(claim.deadline_us <= now for claim in held)
            assert held or offset >= (0 if state is None else state.position)
            self.expired += len(held)

    def acknowledge(self) -> None:
        """A consumer acknowledges, gives back, or both; what it holds or somebody else does."""
        topic, chance = self.topic("jobs"), self._simulation.random
        partition = chance.randrange(PARTITIONS)
        following = all_bounds(self._simulation.engine, topic)[partition].next
        if not following:
            return
        state, upto = self.states[partition], chance.randrange(following)
        holder = chance.choice(HOLDERS)
        if state is not None and state.claims and chance.random() < 0.7:
            mine = chance.choice(state.claims)
            holder, upto = mine.holder, mine.last
        back = chance.random() < 0.2

        def work(wtxn: WriteTransaction) -> int:
            return ack_in(wtxn, topic, upto, group=GROUP, partition=partition, holder=holder, back=back)

        stored, _ = self._commit(work)
        if stored:
            self.states = self.stored_states()
            now_acknowledged = self.done()
            assert self.acknowledged <= now_acknowledged, "acknowledged messages came back"
            assert all(at == partition and offset <= upto for at, offset in now_acknowledged - self.acknowledged)
            self.acknowledged = now_acknowledged
        self.compare_jobs()

    def reset(self) -> None:
        """An administrator lets the group begin again."""
        topic = self.topic("jobs")
        stored, _ = self._commit(lambda wtxn: reset_group(wtxn, topic, GROUP, None, "earliest"))
        if stored:
            self.states = self.stored_states()
            self.acknowledged = set()
        self.compare_jobs()

    # --- comparing -----------------------------------------------------------------------------------------------

    def stored_states(self) -> list[GroupState | None]:
        """The group as the engine has it."""
        topic = self.topic("jobs")
        return [state_of(self._simulation.engine, topic, GROUP, number) for number in range(PARTITIONS)]

    def done(self) -> set[Offset]:
        """What the group has behind it."""
        found: set[Offset] = set()
        for partition, state in enumerate(self.states):
            if state is not None:
                held = {offset for claim in state.claims for offset in range(claim.first, claim.last + 1)}
                found |= {(partition, offset) for offset in range(state.position) if offset not in held}
        return found

    def compare_jobs(self) -> None:
        """Messages and group stand as the clients know."""
        found = {(m.partition, m.offset): m.payload for m in messages_of(self._simulation.engine, self.topic("jobs"))}
        assert found == self.produced
        assert self.stored_states() == self.states
        assert self.done() == self.acknowledged

    def compare(self) -> None:
        """Who replays the messages has the tables; the short topic has the last of them."""
        simulation = self._simulation
        replica: Replica = {}
        seqs = self._replay(replica)
        with simulation.engine.snapshot() as snapshot:
            for name, user in simulation.state:
                table = simulation.tables[name]
                rows = snapshot.scan(table, user, with_seq=True).to_pylist()
                expected = {row["_seq"]: (row["id"], row["email"], row["amount"]) for row in rows}
                assert replica.get((table.table_id, user), {}) == expected, (name, user)
        short = [message.seq for message in messages_of(simulation.engine, self.topic("short"))]
        assert short == seqs[len(seqs) - len(short) :]
        self.gone = max(self.gone, len(seqs) - len(short))
        self.compare_jobs()

    def _replay(self, replica: Replica) -> list[int]:
        """Play the messages of `rows`; the `_seq`s of its events."""
        topic, seqs = self.topic("rows"), list[int]()
        with self._simulation.engine.snapshot() as snapshot, snapshot.reading() as reader:
            place = bounds(reader, topic.topic_id, 0)
            assert place.first == 0
            for offset, run in read_spans(reader, topic.topic_id, 0, 0, place.next - 1):
                assert isinstance(run, RowRun)
                assert offset == len(seqs)
                events = run.event_seqs().tolist()
                seqs += events
                rows = replica.setdefault((run.table_id, run.user), {})
                gone, come = list[int](), list[int]()
                was, now = list[tuple[object, ...]](), list[tuple[object, ...]]()
                if run.operation is not Operation.INSERT:
                    gone = run.old_seqs().tolist()
                    was = versions(reader, snapshot.catalog, run, run.old_seqs())
                if run.operation is not Operation.DELETE:
                    come, now = events, versions(reader, snapshot.catalog, run, run.event_seqs())
                for n in range(run.count):  # one after the other: a version may come and go in one run
                    if gone:
                        assert rows.pop(gone[n]) == was[n][:3]
                    if come:
                        assert come[n] not in rows
                        rows[come[n]] = now[n][:3]
            assert len(seqs) == place.next
        assert all(one < two for one, two in pairwise(seqs))
        return seqs
