"""The checker accepts what may happen, and catches every way to break it that we can think of."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.rowset import Violation
from tests.chaos.topic_checker import check, violations
from tests.chaos.topic_history import Delivery, Entry, History
from tests.chaos.topic_model import GROUPS, Model

Mutation = Callable[[History, random.Random], bool]
"""Breaks a history; False when this one gives no opportunity."""

seeds = st.integers(0, 2**32)


def played(seed: int, *, calm: bool, steps: int = 80) -> History:
    """A history that may happen."""
    return Model(random.Random(seed), calm=calm).play(steps)


@settings(max_examples=300, deadline=None)
@given(seeds, st.booleans())
def test_what_may_happen_is_accepted(seed: int, calm: bool) -> None:
    assert violations(played(seed, calm=calm), calm=calm) == []


def test_the_model_has_everything_in_it() -> None:
    """Otherwise the tests here would prove little."""
    rough = [played(seed, calm=False) for seed in range(20)]
    assert any(each.times > 2 for history in rough for each in history.deliveries)
    assert any(not each.certain for history in rough for each in history.sent)
    assert any(each.answered is None for history in rough for each in history.acks)
    assert all(history.deaths and history.rows for history in rough)
    calm = [played(seed, calm=True) for seed in range(20)]
    assert not any(history.deaths for history in calm)
    assert all({each.group for each in history.deliveries} == set(GROUPS) for history in calm)


# --- ways to break it -------------------------------------------------------------------------------------------------


def lose_from_the_log(history: History, chance: random.Random) -> bool:
    """An acknowledged message is not there, and those behind it have moved up: no gap shows it."""
    certain = {each.identity for each in history.sent if each.certain}
    lost = chance.choice([each for each in history.log if each.identity in certain])

    def moved(entry: Entry) -> Entry:
        behind = entry.partition == lost.partition and entry.offset > lost.offset
        return entry._replace(offset=entry.offset - 1) if behind else entry

    history.log = [moved(each) for each in history.log if each != lost]
    history.deliveries = [each._replace(entry=moved(each.entry)) for each in history.deliveries if each.entry != lost]
    history.sent = [each._replace(place=None) for each in history.sent]
    return True


def lose_for_one_group(history: History, chance: random.Random) -> bool:
    entry, group = chance.choice(history.log), chance.choice(GROUPS)
    history.deliveries = [each for each in history.deliveries if (each.entry, each.group) != (entry, group)]
    return True


def leave_a_gap(history: History, chance: random.Random) -> bool:
    entry = chance.choice(history.log)
    if not any(each.partition == entry.partition and each.offset > entry.offset for each in history.log):
        return False
    history.log.remove(entry)
    history.deliveries = [each for each in history.deliveries if each.entry != entry]
    history.sent = [each for each in history.sent if each.identity != entry.identity]
    return True


def invent_a_delivery(history: History, chance: random.Random) -> bool:
    at = chance.randrange(len(history.deliveries))
    each = history.deliveries[at]
    history.deliveries[at] = each._replace(entry=each.entry._replace(identity="phantom"))
    return True


def invent_a_message(history: History, chance: random.Random) -> bool:
    identity = chance.choice(history.log).identity
    history.sent = [each for each in history.sent if each.identity != identity]
    return True


def publish_twice(history: History, chance: random.Random) -> bool:
    entry = chance.choice(history.log)
    end = sum(each.partition == entry.partition for each in history.log)
    again = entry._replace(offset=end)
    history.log.append(again)
    history.log.sort()
    for group in GROUPS:
        tick = history.tick()
        history.deliveries.append(Delivery(group, f"{group}-late", again, 1, tick, history.tick()))
    return True


def publish_by_half(history: History, chance: random.Random) -> bool:
    many = [each for each in history.sent if sum(other.request == each.request for other in history.sent) > 1]
    there = {each.identity for each in history.log}
    many = [each for each in many if each.identity in there]
    if not many:
        return False
    at = history.sent.index(chance.choice(many))
    request = history.sent[at].request
    history.sent = [each._replace(certain=False) if each.request == request else each for each in history.sent]
    history.sent.append(history.sent[at]._replace(identity="never"))
    return True


def swap_in_the_log(history: History, chance: random.Random) -> bool:
    """Two messages of one producer and key change places, everywhere."""
    sent = {each.identity: each for each in history.sent}
    pairs = [
        (one, two)
        for one in history.log
        for two in history.log
        if one.key == two.key and one.offset < two.offset
        and sent[one.identity].producer == sent[two.identity].producer
    ]  # fmt: skip
    if not pairs:
        return False
    one, two = chance.choice(pairs)
    other = {one: one._replace(identity=two.identity), two: two._replace(identity=one.identity)}
    history.log = [other.get(each, each) for each in history.log]
    history.deliveries = [each._replace(entry=other.get(each.entry, each.entry)) for each in history.deliveries]
    history.sent = [each._replace(place=None) for each in history.sent]
    newest = {each.key: each.identity for each in history.log if not each.key.startswith("k")}
    history.rows = newest
    return True


def swap_first_deliveries(history: History, chance: random.Random) -> bool:
    """Two messages of one key come to one group in the wrong order."""
    group = chance.choice(GROUPS)
    once = [each for each in history.deliveries if each.group == group]
    times = [each.entry for each in once]
    single = [each for each in once if times.count(each.entry) == 1 and each.times == 1]
    pairs = [
        (one, two)
        for one in single
        for two in single
        if one.entry.key == two.entry.key and one.entry.offset < two.entry.offset and one.received < two.asked
    ]
    if not pairs:
        return False
    one, two = chance.choice(pairs)
    history.deliveries[history.deliveries.index(one)] = one._replace(entry=two.entry)
    history.deliveries[history.deliveries.index(two)] = two._replace(entry=one.entry)
    return True


def overtake(history: History, chance: random.Random) -> bool:
    """A consumer of the ordered group is handed a message while another holds one before it."""
    ordered = [each for each in history.deliveries if each.group == "ordered" and each.entry.offset > 0]
    if not ordered:
        return False
    first = min(ordered, key=lambda each: each.received)
    history.deliveries.insert(
        0, first._replace(consumer="ordered-eager", times=100, asked=first.asked - 1, received=first.asked - 0.5)  # type: ignore[arg-type]
    )  # fmt: skip
    return any(
        each.partition == first.entry.partition and each.offset < first.entry.offset for each in history.log
    ) and not any(
        ack.group == "ordered" and ack.partition == first.entry.partition and ack.sent < first.asked
        for ack in history.acks
    )


def deliver_after_the_ack(history: History, chance: random.Random) -> bool:
    answered = [each for each in history.acks if each.answered is not None]
    if not answered:
        return False
    ack = chance.choice(answered)
    held = [
        each
        for each in history.deliveries
        if (each.group, each.consumer, each.entry.partition) == (ack.group, ack.consumer, ack.partition)
        and each.entry.offset <= ack.upto and each.received < ack.sent
    ]  # fmt: skip
    each = chance.choice(held)
    asked = history.tick()
    again = each._replace(consumer="another", times=each.times + 50, asked=asked, received=history.tick())
    history.deliveries.append(again)
    return True


def go_back(history: History, chance: random.Random) -> bool:
    told = [each for each in history.committed if each.offset > 0]
    if not told:
        return False
    each = chance.choice(told)
    asked = history.tick()
    history.committed.append(each._replace(offset=each.offset - 1, asked=asked, received=history.tick()))
    return True


def answer_less(history: History, chance: random.Random) -> bool:
    at = [at for at, each in enumerate(history.acks) if each.acknowledged is not None]
    if not at:
        return False
    place = chance.choice(at)
    history.acks[place] = history.acks[place]._replace(acknowledged=history.acks[place].upto - 1)
    return True


def commit_too_early(history: History, chance: random.Random) -> bool:
    """The server says that something is acknowledged before anybody has sent that."""
    told = [each for each in history.committed if each.offset >= 0]
    if not told:
        return False
    each = chance.choice(told)
    history.committed.append(each._replace(asked=0, received=0))
    return True


def commit_what_nobody_acknowledged(history: History, chance: random.Random) -> bool:
    if not history.acks:
        return False
    ack = chance.choice(history.acks)
    same = (ack.group, ack.partition)
    history.acks = [each for each in history.acks if (each.group, each.partition) != same]
    return any((each.group, each.partition) == same for each in history.committed)


def count_twice_the_same(history: History, chance: random.Random) -> bool:
    again = [each for each in history.deliveries if each.times > 1]
    for each in again:
        first = [
            other
            for other in history.deliveries
            if (other.group, other.entry) == (each.group, each.entry) and other.received < each.received
        ]
        if first:
            history.deliveries[history.deliveries.index(each)] = each._replace(times=first[-1].times)
            return True
    return False


def another_row(history: History, chance: random.Random) -> bool:
    if not history.rows:
        return False
    key = chance.choice(sorted(history.rows))
    if chance.random() < 0.5:
        del history.rows[key]
    else:
        history.rows[key] = "other"
    return True


def a_row_without_a_message(history: History, chance: random.Random) -> bool:
    history.rows["99"] = "m0"
    return True


def another_partition(history: History, chance: random.Random) -> bool:
    """The last message of a partition stands at the end of another."""
    last = max(history.log)
    partition = (last.partition + 1) % history.partitions
    moved = last._replace(partition=partition, offset=sum(each.partition == partition for each in history.log))
    history.log = sorted(moved if each == last else each for each in history.log)
    history.deliveries = [each._replace(entry=moved) if each.entry == last else each for each in history.deliveries]
    return True


MUTATIONS: list[tuple[Mutation, set[str]]] = [
    (lose_from_the_log, {"all_that_was_sent"}),
    (lose_for_one_group, {"all_delivered"}),
    (leave_a_gap, {"no_gap"}),
    (invent_a_delivery, {"as_in_the_log"}),
    (invent_a_message, {"nothing_invented"}),
    (publish_twice, {"all_that_was_sent"}),
    (publish_by_half, {"all_that_was_sent"}),
    (swap_in_the_log, {"order_of_producers"}),
    (swap_first_deliveries, {"first_in_order"}),
    (overtake, {"never_overtaken"}),
    (deliver_after_the_ack, {"never_after_the_ack"}),
    (go_back, {"acks_never_go_back"}),
    (answer_less, {"acks_never_go_back"}),
    (commit_too_early, {"committed_by_acks"}),
    (commit_what_nobody_acknowledged, {"committed_by_acks"}),
    (count_twice_the_same, {"counted"}),
    (another_row, {"rows_agree"}),
    (a_row_without_a_message, {"rows_agree"}),
    (another_partition, {"right_partition"}),
]


@pytest.mark.parametrize(("mutation", "rules"), MUTATIONS, ids=[mutation.__name__ for mutation, _ in MUTATIONS])
def test_what_breaks_it_is_caught(mutation: Mutation, rules: set[str]) -> None:
    tried = 0

    @settings(max_examples=60, deadline=None)
    @given(seeds, st.booleans())
    def run(seed: int, calm: bool) -> None:
        nonlocal tried
        history = played(seed, calm=calm, steps=60)
        if not history.log or not mutation(history, random.Random(seed)):
            return
        tried += 1
        found = violations(history, calm=calm)
        assert rules <= {sentence.split(":")[0] for sentence in found}, found
        with pytest.raises(Violation):
            check(history, calm=calm)

    run()
    assert tried >= 5


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_duplicate_is_a_violation_only_when_nothing_failed(seed: int) -> None:
    history = played(seed, calm=True)
    history.acks.clear()
    history.committed.clear()
    for each in [each for each in history.deliveries if each.group == "plain"][-1:]:
        history.deliveries.append(each._replace(times=2, asked=history.tick(), received=history.tick()))
        assert {sentence.split(":")[0] for sentence in violations(history, calm=True)} >= {"nothing_twice"}
        assert all(sentence.startswith("never_overtaken") for sentence in violations(history))
