"""The state of a consumer group against a model that keeps every offset by itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.errors import StorageCorrupt
from storage.topic_groups import (
    MAX_CLAIMS,
    MAX_GROUP_BYTES,
    Claim,
    GroupState,
    Wish,
    acknowledge,
    claim_expired,
    claim_fresh,
    decode_state,
    encode_state,
    expired,
    give_back,
    group_key,
    held_by_others,
    is_available,
    parse_group_key,
    passed_over,
    release,
    without,
)
from storage.topic_log import Bounds

HOLDERS = st.sampled_from(["=ann:1", "=ann:2", "=bob:1", "boot:ann:1", "boot:ann:2"])
COUNTS = st.integers(1, 5)


def nobody(holder: str) -> bool:
    """No connection is gone."""
    return False


@dataclass
class Held:
    """An offset that is handed out: by which claim, to whom, until when, the how manieth time."""

    claim: int
    holder: str
    deadline: int
    deliveries: int


class GroupMachine(RuleBasedStateMachine):
    """Consumers of one partition, some with names, some as connections."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.next = 0
        self.held: dict[int, Held] = {}
        self.acknowledged: set[int] = set()
        self.delivered: dict[int, int] = {}
        self.claims = 0
        self.closed: set[str] = set()
        self.acked = -1
        self.cleared = 0

    @initialize(start=st.integers(0, 5), more=st.integers(0, 10))
    def begin(self, start: int, more: int) -> None:
        self.start = start
        self.next = start + more
        self.state = GroupState(start)

    # --- what happens --------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        self.next += count

    @rule(by=st.integers(1, 40))
    def wait(self, by: int) -> None:
        self.now += by

    @rule(holder=HOLDERS, count=COUNTS, time=st.integers(1, 60), ordered=st.booleans())
    def claim(self, holder: str, count: int, time: int, ordered: bool) -> None:
        """Expired claims first, then what is new."""
        wish = Wish(count, holder, self.now, self.now + time, ordered)
        overdue = sorted(offset for offset, held in self.held.items() if held.deadline <= self.now)
        others = any(held.holder != holder and held.deadline > self.now for held in self.held.values())
        assert held_by_others(self.state, wish) == others
        available = bool(overdue) or self.state.position < self.next
        assert is_available(self.state, Bounds(0, self.next), wish) == (available and not (ordered and others))
        if ordered and others:
            return
        if overdue:
            assert [o for c in expired(self.state, self.now) for o in range(c.first, c.last + 1)] == overdue
            self.state, taken = claim_expired(self.state, wish)
            assert [o for c in taken for o in range(c.first, c.last + 1)] == overdue[:count]
        elif self.state.position < self.next:
            first, last = self.state.position, min(self.state.position + count, self.next) - 1
            self.state, fresh = claim_fresh(self.state, last, wish)
            taken = [fresh]
            assert (fresh.first, fresh.last) == (first, last)
            assert not self.delivered.keys() & set(range(first, last + 1)), "a first delivery of what was delivered"
        else:
            return
        for claim in taken:
            self.claims += 1
            assert (claim.holder, claim.deadline_us) == (holder, self.now + time)
            for offset in range(claim.first, claim.last + 1):
                assert offset not in self.acknowledged
                self.delivered[offset] = self.delivered.get(offset, 0) + 1
                assert claim.deliveries == self.delivered[offset]
                self.held[offset] = Held(self.claims, holder, self.now + time, claim.deliveries)

    @rule(holder=HOLDERS, data=st.data())
    def acknowledge(self, holder: str, data: st.DataObject) -> None:
        assume(self.next)
        upto = data.draw(st.integers(0, self.next - 1))
        own = {o for o, held in self.held.items() if o <= upto and held.holder == holder}
        position = self.state.position
        around = self.held.get(upto)
        covered = own or {
            o
            for o, held in self.held.items()
            if o <= upto
            and ((around and held.claim == around.claim) or (holder[0] != "=" and held.holder in self.closed))
        }
        if not own and not (holder[0] == "=" and self.held):
            covered |= set(range(position, upto + 1))
            position = max(position, upto + 1)
        others = {o: held.claim for o, held in self.held.items() if held.holder not in {holder, *self.closed}}
        self.state = acknowledge(self.state, upto, holder, self.now, self.closed.__contains__)
        assert self.state.position == position
        for offset in covered:
            self.held.pop(offset, None)
            self.acknowledged.add(offset)
        gone = others.keys() - self.offsets_held()
        assert all(around is not None and others[offset] == around.claim for offset in gone)
        assert not gone or not own

    @rule(number=st.integers(1, 2))
    def close_connection(self, number: int) -> None:
        self.closed.add(f"boot:ann:{number}")

    @rule(number=st.integers(1, 2))
    def restart(self, number: int) -> None:
        """Of a former run of the server nobody knows whose connection is closed."""
        self.closed.clear()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A part of a claim was not delivered after all."""
        claim = data.draw(st.sampled_from(self.state.claims))
        first = data.draw(st.integers(claim.first, claim.last))
        self.state = give_back(self.state, first, claim.last, claim.holder, self.now)
        self.claims += 1
        for offset in range(first, claim.last + 1):
            self.delivered[offset] -= 1
            self.held[offset] = Held(self.claims, claim.holder, self.now, claim.deliveries - 1)

    @rule(holder=HOLDERS)
    def release(self, holder: str) -> None:
        self.state = release(self.state, holder, self.now)
        for held in self.held.values():
            if held.holder == holder:
                held.deadline = self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Some of the expired claims go to the dead letters."""
        overdue = expired(self.state, self.now)
        assume(overdue)
        gone = data.draw(st.lists(st.sampled_from(overdue), min_size=1, unique=True))
        self.state = without(self.state, gone, self.now)
        for claim in gone:
            for offset in range(claim.first, claim.last + 1):
                del self.held[offset]
                self.acknowledged.add(offset)

    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        """An administrator takes away what lies below an offset."""
        if data.draw(st.integers(0, 3)):
            return
        first = data.draw(st.integers(self.cleared, self.next))
        self.cleared = first
        self.state = passed_over(self.state, first, self.now)
        for offset in [o for o in self.held if o < first]:
            del self.held[offset]
        self.acknowledged |= set(range(self.start, first)) - self.held.keys()

    # --- what is always true -------------------------------------------------------------------------------------

    def offsets_held(self) -> set[int]:
        return {o for claim in self.state.claims for o in range(claim.first, claim.last + 1)}

    @invariant()
    def claims_ascend_and_are_disjoint(self) -> None:
        last = -1
        for claim in self.state.claims:
            assert last < claim.first <= claim.last < self.state.position
            last = claim.last

    @invariant()
    def nothing_is_lost(self) -> None:
        """Each offset below the position is acknowledged, or claimed by whom the model says."""
        assert self.offsets_held() == self.held.keys()
        for claim in self.state.claims:
            for offset in range(claim.first, claim.last + 1):
                held = self.held[offset]
                assert (claim.holder, claim.deadline_us, claim.deliveries) == (
                    held.holder,
                    held.deadline,
                    held.deliveries,
                )
        for offset in range(self.start, self.state.position):
            assert (offset in self.held) != (offset in self.acknowledged)
        assert not self.held.keys() & self.acknowledged

    @invariant()
    def acknowledged_never_goes_back(self) -> None:
        assert self.state.acked >= self.acked
        self.acked = self.state.acked
        assert self.state.acked < self.state.behind
        assert all(offset in self.acknowledged for offset in range(self.start, self.state.acked + 1))

    @invariant()
    def deadlines(self) -> None:
        assert self.state.earliest_deadline() == min((held.deadline for held in self.held.values()), default=None)

    @invariant()
    def it_is_stored_as_it_is(self) -> None:
        assert decode_state(b"", encode_state(self.state)) == self.state


GroupMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGroup = GroupMachine.TestCase

OFFSETS = st.integers(0, 2**60)
STATES = st.builds(
    GroupState,
    st.integers(0, 2**60),
    st.integers(-1, 2**60),
    st.lists(
        st.builds(Claim, OFFSETS, OFFSETS, OFFSETS, st.integers(1, 9), st.text()),
    ).map(tuple),
    st.text(max_size=20),
    st.integers(0, 2**60),
)  # fmt: skip


@given(STATES, st.data())
def test_a_damaged_state_is_corrupt(state: GroupState, data: st.DataObject) -> None:
    key = group_key(1, 2, "workers")
    value = bytearray(encode_state(state))
    assert decode_state(key, memoryview(value)) == state
    with pytest.raises(StorageCorrupt, match="workers"):
        decode_state(key, bytes(value[: data.draw(st.integers(0, len(value) - 1))]))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StorageCorrupt, match="workers"):
        decode_state(key, bytes(value))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.text(min_size=1, max_size=60))
def test_a_group_key_comes_back(topic_id: int, partition: int, group: str) -> None:
    assert parse_group_key(group_key(topic_id, partition, group)) == (topic_id, partition, group)


@pytest.mark.parametrize("name", ["", "x" * (MAX_GROUP_BYTES + 1), "é" * MAX_GROUP_BYTES, "\ud800"])
def test_names_that_no_group_has(name: str) -> None:
    with pytest.raises(ValueError, match=r"bytes|surrogates"):
        group_key(1, 0, name)


def test_too_many_claims_hand_out_nothing_new() -> None:
    state = GroupState(0)
    for _ in range(MAX_CLAIMS):
        state, _ = claim_fresh(state, state.position, Wish(1, "=a", 0, 100, ordered=False))
    bounds = Bounds(0, MAX_CLAIMS + 5)
    assert not is_available(state, bounds, Wish(1, "=a", 50, 150, ordered=False))
    assert is_available(state, bounds, Wish(1, "=a", 100, 150, ordered=False))  # they have expired
    assert is_available(acknowledge(state, 0, "=a", 50, nobody), bounds, Wish(1, "=a", 50, 150, ordered=False))


def test_the_consumer_who_is_ahead_acknowledges_nothing_of_the_other() -> None:
    state, _ = claim_fresh(GroupState(0), 4, Wish(5, "=slow", 0, 100, ordered=False))
    state, _ = claim_fresh(state, 9, Wish(5, "=fast", 0, 100, ordered=False))
    state = acknowledge(state, 9, "=fast", 1, nobody)
    assert [(claim.first, claim.last) for claim in state.claims] == [(0, 4)]
    assert (state.acked, state.position) == (-1, 10)
    state = acknowledge(state, 4, "=slow", 2, nobody)
    assert (state.acked, state.claims) == (9, ())
