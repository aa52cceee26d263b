"""TopicHub: consumers on the event loop. It looks, claims through the writer, reads what was claimed, or waits.

    consume ── look (a snapshot, some µs) ──▶ nothing there ── wait (`waiting`) ──▶ look again
                     └──▶ something is there ── claim (a work of the writer) ──▶ read and render ──▶ answer

Looking never writes, so consumers that wait or poll in vain cost no commits. A claim is durable before its messages are
read; when the server dies between the two, they are delivered again after their visibility timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sql.errors import Overloaded
from sql.services import Services
from sql.topics.messages import Batch, ConsumeRequest, Message, read_messages
from sql.topics.settings import TopicSettings
from sql.topics.waiting import Place, WaitingRoom
from sql.workers import Control, Workers
from storage.catalog import Catalog
from storage.errors import ColdMiss, UnknownTopic
from storage.reading import Reader
from storage.snapshots import Snapshot
from storage.topic_definitions import TopicDef
from storage.topic_groups import IsGone, decode_state, group_key, is_available
from storage.topic_log import Bounds, bounds, extent
from storage.topic_positions import GroupPosition, message_count
from storage.topic_staging import TopicNews
from storage.topic_writes import (
    Claimed,
    ClaimRequest,
    ClaimResult,
    Placed,
    Produced,
    acknowledge_upto,
    begin_offset,
    check_partition,
    claim,
    produce,
    release_all,
    standing,
    topic_named,
    undeliver,
    wish_of,
)
from storage.writer import WriteTransaction

ON_THE_LOOP = 64
"""Messages that are read, and partitions that are looked at, on the event loop; more take a worker thread."""
MAX_LAGS = 1_000
"""Groups whose lag is told one by one."""
_LEAST_WAIT = 0.001


class Look(NamedTuple):
    """What a look found: whether a claim would give something, where the partitions stand, the next deadline.

    `behind` is how many messages there are for who reads without a group.
    """

    topic_id: int
    is_worthwhile: bool
    positions: dict[int, int]
    deadline_us: int | None
    behind: int = 0


class TopicHub:
    """The consumers of one database (`Database.topics`). Used on the event loop, except where said otherwise."""

    def __init__(self, services: Services, workers: Workers, settings: TopicSettings | None = None) -> None:
        self.settings = settings or TopicSettings()
        self._services = services
        self._workers = workers
        self._engine = services.engine
        self._room = WaitingRoom()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: Callable[[], None] = lambda: None
        self._following = 0
        self._told = 0
        self._stopped = False
        self._figures: dict[str, int] = {}
        self._lags: Sequence[tuple[str, str, int]] = ()

    @property
    def waiting(self) -> int:
        """Consumers that wait at the moment."""
        return len(self._room)

    def stop(self) -> None:
        """Answer everybody who waits, with nothing; nobody waits any more."""
        self._stopped = True
        self._leave()
        self._room.wake_all()

    # --- figures -------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Figures for system.stats; from any thread. As last read while the storage holds readers back."""
        snapshot = self._engine.snapshot_at_once(purpose="figures of topics")
        if snapshot is not None:
            with snapshot, snapshot.reading() as reader:
                catalog = snapshot.catalog
                positions = snapshot.topic_groups()
                self._figures = {
                    "total_topics": sum(1 for _ in catalog.topics()),
                    "topic_messages": message_count(reader, catalog),
                    "topic_groups": len({(position.topic.topic_id, position.group) for position in positions}),
                    "topic_group_lag_messages": sum(position.lag for position in positions),
                    "topic_pending_messages": sum(position.pending for position in positions),
                }
                self._lags = _lags(positions)
        return {**self._figures, "topic_consumers_waiting": self.waiting}

    def lags(self) -> Sequence[tuple[str, str, int]]:
        """Topic, group and the messages that it has not acknowledged, of the first MAX_LAGS groups; as of `stats`."""
        return self._lags

    # --- consuming -----------------------------------------------------------------------------------------------

    async def consume(self, request: ConsumeRequest) -> Batch:
        """Messages for a consumer; waits for the first one as long as the request says.

        Raises UnknownTopic, UnknownPartition, OffsetOutOfRange, Overloaded.
        """
        loop = self._follow()
        until = loop.time() + request.timeout
        since: Look | None = None
        woken: Place | None = None
        self._following += 1
        try:
            while True:
                told = self._told
                look = await self._look(request, since)
                place = _place(look.topic_id, request)
                if look.is_worthwhile:
                    batch = await self._take(request, look)
                    if batch.has_more:
                        self._room.wake(place, 1)
                    if batch.messages:
                        return batch
                left = until - loop.time()
                if left <= 0 or self._stopped:
                    return Batch((), False, look.positions)
                if len(self._room) >= self.settings.max_waiting:
                    raise Overloaded(f"{self.settings.max_waiting} consumers wait already; try again in a moment.")
                since = look
                if look.is_worthwhile or self._told != told:
                    continue  # somebody was faster, the group has just begun, or news came during the look
                await self._room.wait(place, self._patience(left, look.deadline_us))
                woken = place
        except BaseException:
            if woken is not None:
                self._room.wake(woken, 1)  # what this consumer was woken for may be for the next one
            raise
        finally:
            self._following -= 1

    def _follow(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = self._loop = asyncio.get_running_loop()

            def listen(news: TopicNews) -> None:
                if self._following:  # also those who look at the moment: they may look at what was before
                    loop.call_soon_threadsafe(self._tell, news)

            self._leave = self._engine.signals.listen(listen)
        return self._loop

    def _tell(self, news: TopicNews) -> None:
        self._told += 1
        self._room.tell(news)

    def _patience(self, left: float, deadline_us: int | None) -> float:
        """How long to wait: until the request's time is over, or the next claim of the group expires."""
        if deadline_us is None:
            return left
        return min(left, max((deadline_us - self._services.functions.now_us()) / 1e6, 0.0) + _LEAST_WAIT)

    async def _look(self, request: ConsumeRequest, since: Look | None) -> Look:
        snapshot = self._engine.snapshot_at_once(purpose="looking for messages")
        if snapshot is not None:
            with snapshot, snapshot.reading() as reader:
                if len(_partitions(_topic(snapshot.catalog, request), request.partition)) <= ON_THE_LOOP:
                    return self._looked(request, since, snapshot, reader)

        def look() -> Look:
            with self._engine.snapshot(purpose="looking for messages") as waited, waited.reading() as reader:
                return self._looked(request, since, waited, reader)

        return await self._workers.run(look, self._control())

    def _looked(self, request: ConsumeRequest, since: Look | None, snapshot: Snapshot, reader: Reader) -> Look:
        topic = _topic(snapshot.catalog, request)
        numbers = _partitions(topic, request.partition)
        if request.group is None:
            positions = {n: _beginning(topic, n, request, since, _bounds(reader, topic, n)) for n in numbers}
            behind = sum(_bounds(reader, topic, number).next - position for number, position in positions.items())
            return Look(topic.topic_id, behind > 0, positions, None, behind)
        claim_request = self._claim_request(request)
        now = self._services.functions.now_us()
        wish = wish_of(claim_request, now, 1)
        positions = {}
        worthwhile = False
        deadlines: list[int] = []
        for number in numbers:
            key = group_key(topic.topic_id, number, request.group)
            value = reader.txn.get(key, db=reader.dbs.offsets)
            state = None if value is None else decode_state(key, value)
            place = standing(topic, number, state, _bounds(reader, topic, number), claim_request, now)
            positions[number] = place.state.position
            worthwhile = worthwhile or place.is_changed or is_available(place.state, place.bounds, wish)
            deadline = place.state.earliest_deadline()
            if deadline is not None:
                deadlines.append(deadline)
        return Look(topic.topic_id, worthwhile, positions, min(deadlines, default=None))

    async def _take(self, request: ConsumeRequest, look: Look) -> Batch:
        """Claim and read; without a group only read, from where the look stood."""
        if request.group is None:
            if request.limit <= ON_THE_LOOP or look.behind <= ON_THE_LOOP:
                snapshot = self._engine.snapshot_at_once(purpose="reading messages")
                if snapshot is not None:
                    with contextlib.suppress(ColdMiss), snapshot:  # a worker reads rows of the cold tier
                        return self._read_from(snapshot, request, look)
            return await self._workers.run(lambda: self.read(request, look), self._control())
        claim_request = self._claim_request(request)
        topic, result = await self._engine.commit(lambda wtxn: _claimed(wtxn, request, claim_request))
        count = sum(claimed.last + 1 - claimed.first for claimed in result.claimed)
        if not count:
            return Batch((), result.has_more, result.positions)
        messages = None
        if count <= ON_THE_LOOP:
            snapshot = self._engine.snapshot_at_once(purpose="reading messages")
            if snapshot is not None:
                with contextlib.suppress(ColdMiss), snapshot:
                    messages = self._read(snapshot, topic, result.claimed)
        if messages is None:
            messages = await self._workers.run(lambda: self._read_now(topic, result.claimed), self._control())
        fitting = _fitting(messages, request.max_bytes)
        if fitting == len(messages):
            return Batch(messages, result.has_more, result.positions)
        await self._engine.commit(_given_back(topic, request, messages[fitting:]))
        return _shortened(messages, fitting, result)

    def _claim_request(self, request: ConsumeRequest) -> ClaimRequest:
        assert request.group is not None
        return ClaimRequest(
            request.group,
            request.holder,
            request.limit,
            request.max_bytes,
            max(int(request.visibility * 1e6), 1),
            request.partition,
            request.start,
            request.ordered,
            self.settings.max_deliveries,
        )

    def _control(self) -> Control:
        return Control(self._services.limits.statement_timeout)

    # --- from any thread -----------------------------------------------------------------------------------------

    def consume_now(self, request: ConsumeRequest) -> Batch:
        """As `consume`, without waiting, for a thread."""
        if request.group is None:
            return self.read(request)
        claim_request = self._claim_request(request)
        topic, result = self._engine.commit_sync(lambda wtxn: _claimed(wtxn, request, claim_request))
        messages: Sequence[Message] = self._read_now(topic, result.claimed) if result.claimed else ()
        fitting = _fitting(messages, request.max_bytes)
        if fitting == len(messages):
            return Batch(messages, result.has_more, result.positions)
        self._engine.commit_sync(_given_back(topic, request, messages[fitting:]))
        return _shortened(messages, fitting, result)

    def read(self, request: ConsumeRequest, since: Look | None = None) -> Batch:
        """Messages from the request's start on, or from where a look stood, for nobody in particular."""
        with self._engine.snapshot(purpose="reading messages") as snapshot:
            return self._read_from(snapshot, request, since)

    def _read_from(self, snapshot: Snapshot, request: ConsumeRequest, since: Look | None) -> Batch:
        with snapshot.reading() as reader:
            topic = _topic(snapshot.catalog, request)
            ranges, positions, more = _ranges(reader, topic, request, since)
        messages = self._read(snapshot, topic, ranges)
        fitting = _fitting(messages, request.max_bytes)
        for message in reversed(messages[fitting:]):
            positions[message.partition] = message.offset
        return Batch(messages[:fitting], more or fitting < len(messages), positions)

    def _read_now(self, topic: TopicDef, ranges: Sequence[Claimed]) -> list[Message]:
        with self._engine.snapshot(purpose="reading messages") as snapshot:
            return self._read(snapshot, topic, ranges)

    def _read(self, snapshot: Snapshot, topic: TopicDef, ranges: Sequence[Claimed]) -> list[Message]:
        with snapshot.reading() as reader:
            bigint = self._services.bigint
            return list(read_messages(reader, snapshot.catalog, bigint, topic.topic_id, ranges))

    # --- producing, acknowledging --------------------------------------------------------------------------------

    async def produce(self, namespace: str, topic: str, messages: Sequence[Produced], user: str) -> list[Placed]:
        """Append messages durably. Raises UnknownTopic and UnknownPartition."""

        def work(wtxn: WriteTransaction) -> list[Placed]:
            return produce(wtxn, topic_named(wtxn, namespace, topic), messages, user)

        return await self._engine.commit(work, weight=max(1, len(messages) // 8))

    async def acknowledge(
        self,
        namespace: str,
        topic: str,
        group: str,
        partition: int | None,
        upto: int | None,
        holder: str,
        *,
        back: bool,
        is_gone: IsGone,
    ) -> int:
        """Acknowledge durably; see `storage.topic_writes.acknowledge_upto`.

        Without a partition (and an offset) the holder's claims in all of them are given back.
        """

        def work(wtxn: WriteTransaction) -> int:
            found = topic_named(wtxn, namespace, topic)
            if partition is None:
                release_all(wtxn, found, group, holder)
                return -1
            return acknowledge_upto(wtxn, found, group, partition, upto, holder, back=back, is_gone=is_gone)

        return await self._engine.commit(work)


def _lags(positions: Sequence[GroupPosition]) -> Sequence[tuple[str, str, int]]:
    found: dict[tuple[str, str], int] = {}
    for position in positions:
        name = position.topic.full_name, position.group
        found[name] = found.get(name, 0) + position.lag
    return [(topic, group, lag) for (topic, group), lag in sorted(found.items())[:MAX_LAGS]]


def _claimed(
    wtxn: WriteTransaction, request: ConsumeRequest, claim_request: ClaimRequest
) -> tuple[TopicDef, ClaimResult]:
    topic = topic_named(wtxn, request.namespace, request.topic)
    return topic, claim(wtxn, topic, claim_request)


def _fitting(messages: Sequence[Message], max_bytes: int) -> int:
    """How many of the messages may be answered; claims go by estimates, as payloads are made when they are read."""
    left = max_bytes
    for count, message in enumerate(messages):
        left -= len(message.payload)
        if left < 0 and count:
            return count
    return len(messages)


def _given_back(
    topic: TopicDef, request: ConsumeRequest, messages: Sequence[Message]
) -> Callable[[WriteTransaction], None]:
    assert request.group is not None
    group = request.group
    ranges: list[Claimed] = []
    for message in messages:
        last = ranges[-1] if ranges else None
        if last is not None and (last.partition, last.last + 1) == (message.partition, message.offset):
            ranges[-1] = last._replace(last=message.offset)
        else:
            ranges.append(Claimed(message.partition, message.offset, message.offset, 0))
    return lambda wtxn: undeliver(wtxn, topic.topic_id, group, request.holder, ranges)


def _shortened(messages: Sequence[Message], fitting: int, result: ClaimResult) -> Batch:
    positions = dict(result.positions)
    for message in reversed(messages[fitting:]):
        positions[message.partition] = message.offset
    return Batch(messages[:fitting], True, positions)


def _topic(catalog: Catalog, request: ConsumeRequest) -> TopicDef:
    topic = catalog.topic(request.namespace, request.topic)
    if topic is None:
        raise UnknownTopic(f"Topic '{request.namespace}.{request.topic}' does not exist")
    return topic


def _partitions(topic: TopicDef, partition: int | None) -> Sequence[int]:
    if partition is None:
        return range(topic.partitions)
    check_partition(topic, partition)
    return (partition,)


def _bounds(reader: Reader, topic: TopicDef, partition: int) -> Bounds:
    return bounds(reader, topic.topic_id, partition, topic.cleared_below(partition))


def _place(topic_id: int, request: ConsumeRequest) -> Place:
    """For what a consumer waits. Who wants its partitions in order may get what nobody else may: it waits by itself."""
    return Place(topic_id, request.group, request.partition, request.holder if request.ordered else None)


def _beginning(topic: TopicDef, partition: int, request: ConsumeRequest, since: Look | None, found: Bounds) -> int:
    """Where a read without a group begins. LATEST is where the topic ended when the consumer came."""
    if since is not None and since.topic_id == topic.topic_id:
        return max(since.positions[partition], found.first)
    return begin_offset(topic, partition, request.start, found)


def _ranges(
    reader: Reader, topic: TopicDef, request: ConsumeRequest, since: Look | None
) -> tuple[list[Claimed], dict[int, int], bool]:
    """What a read without a group gives: ranges of partitions, where they end, whether there is more."""
    numbers = _partitions(topic, request.partition)
    places = {number: _bounds(reader, topic, number) for number in numbers}
    positions = {number: _beginning(topic, number, request, since, found) for number, found in places.items()}
    ready = [number for number in numbers if positions[number] < places[number].next]
    left, room = request.limit, request.max_bytes
    ranges: list[Claimed] = []
    for place, number in enumerate(ready):
        if left <= 0 or (ranges and room <= 0):
            break
        share = max(1, left // (len(ready) - place))
        last = min(positions[number] + share, places[number].next) - 1
        end, used = extent(reader, topic.topic_id, number, positions[number], last, room)
        if end < positions[number]:
            if ranges:
                break
            end = positions[number]
        last = end
        ranges.append(Claimed(number, positions[number], last, 0))
        left -= last + 1 - positions[number]
        room -= used
        positions[number] = last + 1
    return ranges, positions, any(positions[number] < places[number].next for number in numbers)
