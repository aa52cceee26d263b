"""Works on topics: producing messages, claiming them for a consumer, acknowledging, resetting a group.

Each function is a work of the writer, or part of one: it stages its changes into a WriteTransaction, so a PUBLISH or an
ACK beside rows in one transaction is kept with them or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from storage.errors import OffsetOutOfRange, UnknownPartition, UnknownTopic
from storage.topic_definitions import TopicDef
from storage.topic_groups import (
    Claim,
    GroupState,
    IsGone,
    Wish,
    acknowledge,
    claim_expired,
    claim_fresh,
    expired,
    give_back,
    held_by_others,
    is_available,
    passed_over,
    release,
    without,
)
from storage.topic_log import Bounds, extent, read_spans
from storage.topic_partitioning import partition_of_key
from storage.topic_runs import Origin, ProducedRun, SizedRun
from storage.writer import WriteTransaction

MESSAGE_OVERHEAD = 32
"""What retention by bytes counts for a produced message beside its key and payload."""

EARLIEST: Final = "earliest"
LATEST: Final = "latest"
RESET: Final = "reset"
"""`GroupState.start` of a group that was reset: what its consumers say of their start counts no more."""
NEVER = -1
"""`TopicDef.max_deliveries` of a topic whose messages are delivered again for ever, whatever the server's default."""
Start = str | int
"""Where a group begins: EARLIEST, LATEST or an offset."""


class Produced(msgspec.Struct, frozen=True):
    """A message to be produced; without `partition` the key decides, without a key all take their turn."""

    payload: bytes
    key: str | None = None
    partition: int | None = None


class Placed(NamedTuple):
    """Where a produced message went."""

    partition: int
    offset: int


class ClaimRequest(msgspec.Struct, frozen=True):
    """What a consumer asks for. `start` None: where the group is, or LATEST; times are microseconds."""

    group: str
    holder: str
    messages: int
    max_bytes: int
    visibility_us: int
    partition: int | None = None
    start: Start | None = None
    ordered: bool = False
    max_deliveries: int = 0
    """For topics that set none themselves; 0: no bound."""


class Claimed(NamedTuple):
    """Messages that were handed out: offsets `first` to `last` of a partition, for the `deliveries`-th time."""

    partition: int
    first: int
    last: int
    deliveries: int


class ClaimResult(NamedTuple):
    """What a claim gave, whether there is more at once, and where the group stands in the partitions asked."""

    claimed: list[Claimed]
    has_more: bool
    positions: dict[int, int]


def topic_named(wtxn: WriteTransaction, namespace: str, name: str) -> TopicDef:
    """The topic of that name. Raises UnknownTopic."""
    topic = wtxn.catalog.topic(namespace, name)
    if topic is None:
        raise UnknownTopic(f"Topic '{namespace}.{name}' does not exist")
    return topic


def check_partition(topic: TopicDef, partition: int) -> None:
    """Raise UnknownPartition for a partition that the topic does not have."""
    if not 0 <= partition < topic.partitions:
        raise UnknownPartition(
            f"Topic '{topic.full_name}' has {topic.partitions} partition(s), counted from 0; there is no {partition}"
        )


# --- producing --------------------------------------------------------------------------------------------------------


def produce(wtxn: WriteTransaction, topic: TopicDef, messages: Sequence[Produced], user: str) -> list[Placed]:
    """Append messages; where each one went. Raises UnknownPartition."""
    turn = wtxn.next_turn() % topic.partitions
    chosen: list[int] = []
    for message in messages:
        if message.partition is not None:
            check_partition(topic, message.partition)
            chosen.append(message.partition)
        elif message.key is not None:
            chosen.append(partition_of_key(message.key, topic.partitions))
        else:
            chosen.append(turn)
    by_partition: dict[int, list[Produced]] = {}
    for partition, message in zip(chosen, messages, strict=True):
        by_partition.setdefault(partition, []).append(message)
    following: dict[int, int] = {}
    now = wtxn.now_us()
    for partition, group in by_partition.items():
        run = ProducedRun(now, user, tuple([m.key for m in group]), tuple([m.payload for m in group]))
        nbytes = sum([len(m.payload) + len(m.key or "") + MESSAGE_OVERHEAD for m in group])
        following[partition] = wtxn.topics.publish(topic.topic_id, partition, SizedRun(run, nbytes))
    placed = []
    for partition in chosen:
        placed.append(Placed(partition, following[partition]))
        following[partition] += 1
    return placed


# --- consuming --------------------------------------------------------------------------------------------------------


class Standing(NamedTuple):
    """A group in one partition: its state, the partition's bounds, and whether the state is not the stored one."""

    partition: int
    state: GroupState
    bounds: Bounds
    is_changed: bool


def standing(
    topic: TopicDef, partition: int, state: GroupState | None, found: Bounds, request: ClaimRequest, now_us: int
) -> Standing:
    """Where a group stands, or begins. Raises OffsetOutOfRange when retention has taken what it comes to next.

    What CLEAR TOPIC took away is passed over. `start` counts until something is acknowledged, claimed or reset.
    """
    start = request.start
    if state is None:
        return Standing(
            partition, GroupState(begin_offset(topic, partition, start, found), start=_text(start)), found, True
        )
    if start is not None and state.acked < 0 and not state.claims and state.start not in {RESET, _text(start)}:
        moved = msgspec.structs.replace(
            state, position=begin_offset(topic, partition, start, found), start=_text(start)
        )
        return Standing(partition, moved, found, True)
    cleared = topic.cleared_below(partition)
    if state.behind < cleared:
        return Standing(partition, passed_over(state, cleared, now_us), found, True)
    following = min([state.position, *(claim.first for claim in expired(state, now_us))])
    if following < found.first and following < found.next:
        raise OffsetOutOfRange(
            f"Group '{request.group}' comes to offset {following} of partition {partition} of topic "
            f"'{topic.full_name}', which is not retained any more: the first one is {found.first}. "
            f"Go on with RESET CONSUMER GROUP '{request.group}' ON {topic.full_name} TO EARLIEST.",
            partition=partition,
            first=found.first,
            following=found.next,
        )
    return Standing(partition, state, found, False)


def _text(start: Start | None) -> str:
    return LATEST if start is None else str(start)


def begin_offset(topic: TopicDef, partition: int, start: Start | None, found: Bounds) -> int:
    """The offset that a start means. Raises OffsetOutOfRange for one that is not there."""
    if start is None or start == LATEST:
        return found.next
    if start == EARLIEST:
        return found.first
    offset = int(start)
    if not found.first <= offset <= found.next:
        raise OffsetOutOfRange(
            f"Offset {offset} is not in partition {partition} of topic '{topic.full_name}': the first one is "
            f"{found.first}, the next one {found.next}.",
            partition=partition,
            first=found.first,
            following=found.next,
        )
    return offset


def wish_of(request: ClaimRequest, now_us: int, messages: int) -> Wish:
    """The part of a request that a partition sees."""
    return Wish(messages, request.holder, now_us, now_us + request.visibility_us, request.ordered)


def claim(wtxn: WriteTransaction, topic: TopicDef, request: ClaimRequest) -> ClaimResult:
    """Hand messages out: expired claims first, then what is new, from all partitions alike.

    Partitions in which other consumers hold claims come last. Raises UnknownPartition and OffsetOutOfRange.
    """
    if request.partition is not None:
        check_partition(topic, request.partition)
    numbers = range(topic.partitions) if request.partition is None else (request.partition,)
    now = wtxn.now_us()
    places = []
    for number in numbers:
        found = wtxn.topics.bounds(topic.topic_id, number, topic.cleared_below(number))
        state = wtxn.topics.group(topic.topic_id, number, request.group)
        places.append(standing(topic, number, state, found, request, now))
    limit = topic.max_deliveries or request.max_deliveries
    if limit > 0:
        places = [_without_exhausted(wtxn, topic, place, request.group, limit, now) for place in places]
    hand = _Hand(wtxn, topic, request, now)
    ready = [place for place in places if is_available(place.state, place.bounds, wish_of(request, now, 1))]
    if len(ready) > 1:
        turn = wtxn.next_turn() % len(ready)
        ready = ready[turn:] + ready[:turn]
        ready.sort(key=lambda place: held_by_others(place.state, wish_of(request, now, 1)))
    states = {place.partition: place for place in places}
    while ready and hand.left > 0:
        share = max(1, hand.left // len(ready))
        following = []
        for place in ready:
            if not hand.left:
                break
            place = hand.take(place, min(share, hand.left))
            states[place.partition] = place
            if hand.left and is_available(place.state, place.bounds, wish_of(request, now, 1)):
                following.append(place)
        ready = following
    for place in states.values():
        if place.is_changed:
            wtxn.topics.put_group(topic.topic_id, place.partition, request.group, place.state)
    more = any(is_available(p.state, p.bounds, wish_of(request, now, 1)) for p in states.values())
    return ClaimResult(hand.merged(), more, {number: place.state.position for number, place in states.items()})


class _Hand:
    """What one claim has taken so far, and how much it may take."""

    def __init__(self, wtxn: WriteTransaction, topic: TopicDef, request: ClaimRequest, now_us: int) -> None:
        self._wtxn = wtxn
        self._topic = topic
        self._request = request
        self._now = now_us
        self._bytes = request.max_bytes
        self.left = request.messages
        self._taken: dict[int, list[Claim]] = {}

    def take(self, place: Standing, messages: int) -> Standing:
        """Take up to so many messages of a partition; its new standing."""
        state, number = place.state, place.partition
        wish = wish_of(self._request, self._now, messages)
        overdue = expired(state, self._now)
        if overdue:
            last = self._reach(number, overdue[0].first, min(overdue[0].last, overdue[0].first + messages - 1))
            if last < overdue[0].first:
                return place
            only = msgspec.structs.replace(state, claims=(overdue[0],))
            wish = wish._replace(messages=last + 1 - overdue[0].first)
            again, taken = claim_expired(only, wish)
            others = [claim for claim in state.claims if claim is not overdue[0]]
            claims = tuple(sorted([*others, *again.claims], key=lambda claim: claim.first))
            state = msgspec.structs.replace(state, claims=claims, updated_us=self._now)
        else:
            last = self._reach(number, state.position, min(state.position + messages, place.bounds.next) - 1)
            if last < state.position:
                return place
            state, fresh = claim_fresh(state, last, wish)
            taken = [fresh]
        self._taken.setdefault(number, []).extend(taken)
        self.left = max(self.left - sum(claim.messages for claim in taken), 0)
        return place._replace(state=state, is_changed=True)

    def merged(self) -> list[Claimed]:
        """What was taken, in the order of offsets within each partition."""
        return [
            Claimed(number, claim.first, claim.last, claim.deliveries)
            for number, claims in self._taken.items()
            for claim in sorted(claims, key=lambda claim: claim.first)
        ]

    def _reach(self, number: int, first: int, last: int) -> int:
        """How far the bytes that are left go; less than `first` for nothing. One message is always taken.

        Messages staged by this very group of works are not stored yet, and count nothing.
        """
        end, used = extent(self._wtxn.reader, self._topic.topic_id, number, first, last, self._bytes)
        if end < first and not self._taken:
            end = first
        self._bytes -= used
        if end < last:
            self.left = 0
        return end


def _without_exhausted(
    wtxn: WriteTransaction, topic: TopicDef, place: Standing, group: str, limit: int, now: int
) -> Standing:
    """Send what was delivered often enough to the dead-letter topic, with the payload that it has now."""
    gone = [claim for claim in expired(place.state, now) if claim.deliveries >= limit]
    if not gone:
        return place
    target = _dead_letter(wtxn, topic)
    for claim in gone:
        spans = read_spans(wtxn.reader, topic.topic_id, place.partition, claim.first, claim.last)
        for offset, run in spans:
            produced = run if isinstance(run, ProducedRun) else wtxn.router.rendered(run, wtxn.catalog, wtxn.reader)
            sent = msgspec.structs.replace(
                produced, origin=Origin(topic.full_name, place.partition, offset, claim.deliveries)
            )
            wtxn.topics.publish(target.topic_id, place.partition % target.partitions, SizedRun(sent, _size(sent)))
    return place._replace(state=without(place.state, gone, now), is_changed=True)


def _size(run: ProducedRun) -> int:
    return sum(map(len, run.payloads)) + MESSAGE_OVERHEAD * run.count


def dead_letter_name(topic: TopicDef) -> tuple[str, str]:
    """Namespace and name of the topic that takes what cannot be delivered."""
    if topic.dead_letter is None:
        return topic.namespace, f"{topic.name}_dead_letter"
    namespace, _, name = topic.dead_letter.partition(".")
    return namespace, name


def _dead_letter(wtxn: WriteTransaction, topic: TopicDef) -> TopicDef:
    """The dead-letter topic, made now if it is not there."""
    namespace, name = dead_letter_name(topic)
    if wtxn.catalog.namespace(namespace) is None:  # it was dropped since
        namespace, name = dead_letter_name(msgspec.structs.replace(topic, dead_letter=None))
    found = wtxn.catalog.topic(namespace, name)
    if found is None:
        found = TopicDef(
            wtxn.allocate_table_id(),
            namespace,
            name,
            retention_seconds=topic.retention_seconds,
            retention_bytes=topic.retention_bytes,
            max_deliveries=NEVER,
            owner=topic.owner,
            created_at=wtxn.now_us(),
            updated_at=wtxn.now_us(),
        )
        wtxn.put_topic(found)
    return found


def undeliver(wtxn: WriteTransaction, topic_id: int, group: str, holder: str, ranges: Sequence[Claimed]) -> None:
    """Give back what was claimed and is not delivered: its payloads turned out to be larger than the answer may be."""
    for partition, first, last, _ in ranges:
        state = wtxn.topics.group(topic_id, partition, group)
        if state is not None:
            state = give_back(state, first, last, holder, wtxn.now_us())
            wtxn.topics.put_group(topic_id, partition, group, state)


# --- acknowledging ----------------------------------------------------------------------------------------------------


def acknowledge_upto(
    wtxn: WriteTransaction,
    topic: TopicDef,
    group: str,
    partition: int,
    upto: int | None,
    holder: str,
    *,
    back: bool = False,
    is_gone: IsGone = lambda holder: False,
) -> int:
    """Acknowledge offsets up to `upto` (None: nothing), give the holder's other claims back with `back`.

    Returns the offset that counts as acknowledged now: `upto`, or more when more was acknowledged before; -1 for
    nothing. Raises UnknownPartition, and OffsetOutOfRange for an offset that has no message yet.
    """
    check_partition(topic, partition)
    found = wtxn.topics.bounds(topic.topic_id, partition, topic.cleared_below(partition))
    if upto is not None and upto >= found.next:
        raise OffsetOutOfRange(
            f"Offset {upto} of partition {partition} of topic '{topic.full_name}' has no message yet: the next one is "
            f"{found.next}.",
            partition=partition,
            first=found.first,
            following=found.next,
        )
    state = wtxn.topics.group(topic.topic_id, partition, group)
    before = state
    if state is None:
        if upto is None:
            return -1
        state = GroupState(upto + 1)
    now = wtxn.now_us()
    if upto is not None:
        state = acknowledge(state, upto, holder, now, is_gone)
    if back:
        state = release(state, holder, now)
    if state != before:
        wtxn.topics.put_group(topic.topic_id, partition, group, state)
    return state.acked if upto is None else max(upto, state.acked)


def release_all(wtxn: WriteTransaction, topic: TopicDef, group: str, holder: str) -> None:
    """Give all claims of a holder back, in every partition."""
    for partition in range(topic.partitions):
        before = wtxn.topics.group(topic.topic_id, partition, group)
        if before is not None:
            state = release(before, holder, wtxn.now_us())
            if state != before:
                wtxn.topics.put_group(topic.topic_id, partition, group, state)


def reset_group(wtxn: WriteTransaction, topic: TopicDef, group: str, partition: int | None, to: Start) -> int:
    """Let a group go on from another place, its claims forgotten; in how many partitions.

    Raises UnknownPartition and OffsetOutOfRange.
    """
    if partition is not None:
        check_partition(topic, partition)
    numbers = range(topic.partitions) if partition is None else (partition,)
    for number in numbers:
        found = wtxn.topics.bounds(topic.topic_id, number, topic.cleared_below(number))
        position = begin_offset(topic, number, to, found)
        state = GroupState(position, acked=position - 1, start=RESET, updated_us=wtxn.now_us())
        wtxn.topics.put_group(topic.topic_id, number, group, state)
    return len(numbers)
