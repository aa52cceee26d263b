"""Proves that a history of a topic is one that may happen: at least once, in order, nothing lost and nothing invented.

Each rule is a function from a history to sentences about what breaks it; `check` raises them together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

import xxhash

from tests.chaos.rowset import Violation
from tests.chaos.topic_history import Ack, Committed, Delivery, Entry, History, Place, covered

Rule = Callable[[History], Iterator[str]]


def check(history: History, *, calm: bool = False) -> None:
    """Raise a Violation that names all that is wrong. `calm`: nothing failed, so nothing may come twice."""
    found = violations(history, calm=calm)
    if found:
        raise Violation(f"{len(found)} violations, first " + "; ".join(found[:10]))


def violations(history: History, *, calm: bool = False) -> list[str]:
    """All that is wrong."""
    rules: list[Rule] = [*RULES, *([nothing_twice] if calm else [])]
    return [f"{rule.__name__}: {sentence}" for rule in rules for sentence in rule(history)]


# --- the log ----------------------------------------------------------------------------------------------------------


def no_gap(history: History) -> Iterator[str]:
    """Offsets of each partition are 0, 1, 2, …"""
    offsets: dict[int, list[int]] = defaultdict(list)
    for entry in history.log:
        offsets[entry.partition].append(entry.offset)
    for partition, found in offsets.items():
        if not 0 <= partition < history.partitions:
            yield f"there is no partition {partition}"
        if found != list(range(len(found))):
            odd = next(at for at, offset in enumerate(found) if at != offset)
            yield f"partition {partition} has offset {found[odd]} at place {odd}"


def right_partition(history: History) -> Iterator[str]:
    """A key decides the partition."""
    for entry in history.log:
        if xxhash.xxh64_intdigest(entry.key.encode()) % history.partitions != entry.partition:
            yield f"{entry} is in another partition than its key says"


def all_that_was_sent(history: History) -> Iterator[str]:
    """What was answered is in the log once and where the answer said; a request is there wholly or not at all."""
    places: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.log:
        places[entry.identity].append(entry)
    requests: dict[str, set[bool]] = defaultdict(set)
    for sent in history.sent:
        found = places.get(sent.identity, [])
        requests[sent.request].add(bool(found))
        if sent.certain and not found:
            yield f"{sent} was acknowledged and is not in the log"
        if len(found) > 1:
            yield f"{sent} is in the log {len(found)} times"
        for entry in found:
            if entry.key != sent.key or (sent.place is not None and sent.place != entry.place):
                yield f"{sent} is in the log as {entry}"
    for request, there in requests.items():
        if len(there) > 1:
            yield f"request {request} is in the log by half"


def nothing_invented(history: History) -> Iterator[str]:
    """The log holds nothing that nobody sent."""
    known = {sent.identity for sent in history.sent}
    for entry in history.log:
        if entry.identity not in known:
            yield f"nobody sent {entry}"


def order_of_producers(history: History) -> Iterator[str]:
    """What one producer sent with one key stands in the order in which it was sent."""
    sent = {each.identity: each for each in history.sent}
    last: dict[tuple[str, str], int] = {}
    for entry in history.log:
        if (by := sent.get(entry.identity)) is None:
            continue
        if by.number <= last.get((by.producer, entry.key), -1):
            yield f"{by} stands at {entry.place}, behind number {last[by.producer, entry.key]}"
        last[by.producer, entry.key] = by.number


def rows_agree(history: History) -> Iterator[str]:
    """The newest message of a row is its version in the table, and there is no row without a message."""
    newest = {entry.key: entry.identity for entry in history.log if not entry.key.startswith(PRODUCED)}
    for key in sorted(newest.keys() | history.rows.keys()):
        if newest.get(key) != history.rows.get(key):
            yield f"row {key} is {history.rows.get(key)} and its newest message {newest.get(key)}"


PRODUCED = "k"
"""How keys begin that are of no row."""

# --- deliveries -------------------------------------------------------------------------------------------------------


def as_in_the_log(history: History) -> Iterator[str]:
    """An offset is always the same message."""
    log = {entry.place: entry for entry in history.log}
    for delivery in history.deliveries:
        if log.get(delivery.entry.place) != delivery.entry:
            yield f"{delivery}, but the log has {log.get(delivery.entry.place)}"


def all_delivered(history: History) -> Iterator[str]:
    """Every message was delivered to each group."""
    for group in history.groups:
        found = {each.entry.place for each in history.deliveries if each.group == group}
        for entry in history.log:
            if entry.place not in found:
                yield f"group {group} was never handed {entry}"


def counted(history: History) -> Iterator[str]:
    """Each delivery of a message to a group has its own count, and a later one a higher one."""
    last: dict[tuple[str, Place], Delivery] = {}
    for each in sorted(history.deliveries, key=lambda each: each.received):
        before = last.get((each.group, each.entry.place))
        if before is not None and (
            each.times == before.times or (before.received < each.asked and each.times < before.times)
        ):
            yield f"{each} after {before}"
        if each.times < 1:
            yield f"{each} was delivered for the {each.times}th time"
        last[each.group, each.entry.place] = each


def first_in_order(history: History) -> Iterator[str]:
    """Messages of one key are first delivered in their order.

    An answer that was under way at the same time as another may have been overtaken by it on the wire.
    """
    first: dict[tuple[str, Place], Delivery] = {}
    for each in sorted(history.deliveries, key=lambda each: each.received):
        first.setdefault((each.group, each.entry.place), each)
    by_key: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    for (group, _), each in first.items():
        by_key[group, each.entry.key].append(each)
    for (group, _), found in by_key.items():
        for earlier, later in pairwise(sorted(found, key=lambda each: each.entry.offset)):
            early = later.received < (earlier.received if group in history.ordered else earlier.asked)
            # An earlier message that was handed to one who died is delivered again later, unless the group is ordered.
            if early and (group in history.ordered or earlier.times == 1):
                yield f"{later} came before {earlier}"


def never_overtaken(history: History) -> Iterator[str]:
    """In an ordered group a message comes only when all before it are acknowledged, or with the same consumer."""
    for group in history.ordered:
        acks = sorted((each for each in history.acks if each.group == group), key=lambda each: each.sent)
        acknowledged: dict[int, int] = {}
        handed: dict[tuple[str, int], set[int]] = defaultdict(set)
        at = 0
        mine = [each for each in history.deliveries if each.group == group]
        for each in sorted(mine, key=lambda each: (each.received, each.entry.place)):
            while at < len(acks) and acks[at].sent < each.received:
                ack = acks[at]
                acknowledged[ack.partition] = max(acknowledged.get(ack.partition, -1), ack.upto)
                at += 1
            partition, offset = each.entry.place
            held = handed[each.consumer, partition]
            for other in range(acknowledged.get(partition, -1) + 1, offset):
                if other not in held:
                    yield f"{each} came before offset {other}, which {each.consumer} does not hold"
                    break
            held.add(offset)


def never_after_the_ack(history: History) -> Iterator[str]:
    """What was acknowledged is not delivered to a request that was sent after the answer."""
    for group in history.groups:
        deliveries = [each for each in history.deliveries if each.group == group]
        since: dict[Place, Ack] = {}
        for place, ack in covered(deliveries, [each for each in history.acks if each.group == group]):
            if ack.answered is not None and (place not in since or ack.answered < (since[place].answered or 0)):
                since[place] = ack
        for each in deliveries:
            known = since.get(each.entry.place)
            if known is not None and known.answered is not None and each.asked > known.answered:
                yield f"{each} after {known}"


def acks_never_go_back(history: History) -> Iterator[str]:
    """An answer tells at least the offset that was asked for, and what a group has acknowledged never shrinks."""
    for ack in history.acks:
        if ack.answered is not None and (ack.acknowledged is None or ack.acknowledged < ack.upto):
            yield f"{ack} acknowledged less than was asked for"
    told: dict[tuple[str, int], list[Committed]] = defaultdict(list)
    for each in history.committed:
        told[each.group, each.partition].append(each)
    for found in told.values():
        highest, at, done = -1, 0, sorted(found, key=lambda each: each.received)
        for each in sorted(found, key=lambda each: each.asked):
            while at < len(done) and done[at].received < each.asked:
                highest = max(highest, done[at].offset)
                at += 1
            if each.offset < highest:
                yield f"{each} after {highest} was told"


def committed_by_acks(history: History) -> Iterator[str]:
    """Nothing counts as acknowledged that nobody was handed and acknowledged."""
    for group in history.groups:
        deliveries = [each for each in history.deliveries if each.group == group]
        sent: dict[Place, int] = {}
        for place, ack in covered(deliveries, [each for each in history.acks if each.group == group]):
            sent[place] = min(ack.sent, sent.get(place, ack.sent))
        reached: dict[int, int] = defaultdict(int)
        since: dict[int, int] = defaultdict(int)
        mine = [each for each in history.committed if each.group == group]
        for each in sorted(mine, key=lambda each: each.offset):
            while reached[each.partition] <= each.offset:
                place = (each.partition, reached[each.partition])
                if place not in sent:
                    yield f"{each}, but nobody acknowledged {place}"
                since[each.partition] = max(since[each.partition], sent.get(place, 0))
                reached[each.partition] += 1
            if since[each.partition] > each.received:
                yield f"{each} before it was acknowledged at {since[each.partition]}"


def nothing_twice(history: History) -> Iterator[str]:
    """Each message was delivered to each group once, for the first time."""
    times = Counter((each.group, each.entry.place) for each in history.deliveries)
    for (group, place), number in times.items():
        if number > 1:
            yield f"group {group} was handed {place} {number} times"
    for each in history.deliveries:
        if each.times != 1:
            yield f"{each} was not the first time"


RULES: list[Rule] = [
    no_gap,
    right_partition,
    all_that_was_sent,
    nothing_invented,
    order_of_producers,
    rows_agree,
    as_in_the_log,
    all_delivered,
    counted,
    first_in_order,
    never_overtaken,
    never_after_the_ack,
    acks_never_go_back,
    committed_by_acks,
]
