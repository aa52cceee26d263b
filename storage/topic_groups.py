"""Consumer groups: what a group has had of one partition, who holds what of it, and what an acknowledgement covers.

Byte layout
-----------

Key in `offsets`: topic id (u32) · partition (u32), big-endian, · the group's name (UTF-8, at most 255 bytes).
Value: xxh3-64 of the rest (u64, little-endian), then a MessagePack array (`GroupState`).

The life of a message, for one group
------------------------------------

    not handed out        offset >= position
    claimed               within a claim: handed out to a holder, until its deadline; then it may be claimed again
    acknowledged          below position, and in no claim

`acked` is the last offset up to which everything is acknowledged. It is what the group goes on from, and never goes
back except by a reset. Claims are disjoint. All of it changes only in works of the writer, so two consumers never get
the same range, and a restart finds every claim with its deadline and count.

Whose claims an acknowledgement covers
--------------------------------------

An acknowledgement is cumulative: it covers everything up to its offset. But when several consumers of a group read one
partition, the one who is ahead must not acknowledge what another still holds and may yet lose. So it covers the claims
of its sender up to the offset. A sender is a consumer by its id, or else a connection.

A sender that holds nothing up to the offset covers the claim that the offset lies in: a consumer whose claims have
expired and are with somebody else, or one that had to connect anew. A connection also covers what connections held that
are gone, for clients that open one for each request. But not what was claimed before the server was started: nobody
knows then who has received what, and a claim too many is delivered again, while one too few would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import xxhash

from storage.errors import StorageCorrupt
from storage.topic_log import Bounds
from storage.topic_runs import partition_prefix

MAX_GROUP_BYTES = 255
"""Longest name of a group, in bytes of UTF-8."""
MAX_CLAIMS = 1_000
"""Claims that one group may have in one partition; then nothing new is handed out until some are acknowledged."""
NAMED = "="
"""What the holders of consumers that name themselves begin with; others are connections."""


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """Offsets `first` to `last`, handed out to `holder` for the `deliveries`-th time, until `deadline_us`."""

    first: int
    last: int
    deadline_us: int
    deliveries: int
    holder: str

    @property
    def messages(self) -> int:
        """How many messages."""
        return self.last + 1 - self.first


class GroupState(msgspec.Struct, array_like=True, frozen=True):
    """A group's state in one partition. `start` is what positioned it, as text; claims ascend."""

    position: int
    acked: int = -1
    claims: tuple[Claim, ...] = ()
    start: str = ""
    updated_us: int = 0

    @property
    def behind(self) -> int:
        """The first offset that is not acknowledged."""
        return self.claims[0].first if self.claims else self.position

    def earliest_deadline(self) -> int | None:
        """When the next claim expires."""
        return min((claim.deadline_us for claim in self.claims), default=None)


IsGone = Callable[[str], bool]


class Wish(NamedTuple):
    """What a consumer asks of a partition: at most `messages`, to be held by `holder` until `deadline_us`.

    With `ordered` a partition in which another holder has claims that have not expired gives nothing.
    """

    messages: int
    holder: str
    now_us: int
    deadline_us: int
    ordered: bool


def group_key(topic_id: int, partition: int, group: str) -> bytes:
    """Key in `offsets`. Raises ValueError for names that are empty, too long or not Unicode."""
    name = group.encode()
    if not 1 <= len(name) <= MAX_GROUP_BYTES:
        raise ValueError(f"a group's name has 1 to {MAX_GROUP_BYTES} bytes, not {len(name)}")
    return partition_prefix(topic_id, partition) + name


def parse_group_key(key: bytes) -> tuple[int, int, str]:
    """(topic id, partition, group). Raises ValueError for malformed bytes."""
    if len(key) < 9:
        raise ValueError("a key of offsets ends inside its partition")
    return int.from_bytes(key[:4], "big"), int.from_bytes(key[4:8], "big"), key[8:].decode()


def encode_state(state: GroupState) -> bytes:
    """The stored value."""
    data = _encode(state)
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little") + data


def decode_state(key: bytes, value: memoryview | bytes) -> GroupState:
    """The state of a stored value. Raises StorageCorrupt."""
    view = memoryview(value)
    data = view[8:]
    if len(view) < 8 or int.from_bytes(view[:8], "little") != xxhash.xxh3_64_intdigest(data):
        raise StorageCorrupt(f"the state of a consumer group ({key[8:]!r}) does not match its checksum")
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"the state of a consumer group ({key[8:]!r}) does not decode: {error}") from None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(GroupState).decode


def expired(state: GroupState, now_us: int) -> list[Claim]:
    """The claims whose time is over, by offset."""
    return [claim for claim in state.claims if claim.deadline_us <= now_us]


def held_by_others(state: GroupState, wish: Wish) -> bool:
    """Whether another holder has claims that have not expired."""
    return any(claim.deadline_us > wish.now_us and claim.holder != wish.holder for claim in state.claims)


def is_available(state: GroupState, bounds: Bounds, wish: Wish) -> bool:
    """Whether the partition has anything for this wish."""
    if wish.ordered and held_by_others(state, wish):
        return False
    return (state.position < bounds.next and len(state.claims) < MAX_CLAIMS) or bool(expired(state, wish.now_us))


def claim_expired(state: GroupState, wish: Wish) -> tuple[GroupState, list[Claim]]:
    """Hand expired claims out again, oldest offsets first."""
    left = wish.messages
    kept: list[Claim] = []
    taken: list[Claim] = []
    for claim in state.claims:
        if claim.deadline_us > wish.now_us or not left:
            kept.append(claim)
            continue
        last = min(claim.last, claim.first + left - 1)
        again = Claim(claim.first, last, wish.deadline_us, claim.deliveries + 1, wish.holder)
        taken.append(again)
        kept.append(again)
        left -= again.messages
        if last < claim.last:
            kept.append(msgspec.structs.replace(claim, first=last + 1))
    if not taken:
        return state, taken
    return _with(state, kept, wish.now_us), taken


def claim_fresh(state: GroupState, last: int, wish: Wish) -> tuple[GroupState, Claim]:
    """Hand out the offsets from the position to `last`."""
    claim = Claim(state.position, last, wish.deadline_us, 1, wish.holder)
    moved = msgspec.structs.replace(state, position=last + 1, claims=(*state.claims, claim), updated_us=wish.now_us)
    return moved, claim


def acknowledge(state: GroupState, upto: int, sender: str, now_us: int, is_gone: IsGone) -> GroupState:
    """Acknowledge everything up to an offset, as far as the sender may (see above).

    `is_gone` tells of a holder whether it was a connection of this run of the server that is closed now.
    """
    reach = [claim for claim in state.claims if claim.first <= upto]
    covered = [claim for claim in reach if claim.holder == sender]
    by_name = sender.startswith(NAMED)
    moves = not covered and not (by_name and state.claims)
    if not covered:
        covered = [claim for claim in reach if claim.last >= upto or (not by_name and is_gone(claim.holder))]
    left: list[Claim] = []
    for claim in state.claims:
        if claim not in covered:
            left.append(claim)
        elif claim.last > upto:
            left.append(msgspec.structs.replace(claim, first=upto + 1))
    position = max(state.position, upto + 1) if moves else state.position
    return _settled(msgspec.structs.replace(state, position=position, claims=tuple(left)), now_us)


def give_back(state: GroupState, first: int, last: int, holder: str, now_us: int) -> GroupState:
    """Take a part of a claim back that was not delivered after all: it may be claimed at once, and was not counted."""
    kept: list[Claim] = []
    for claim in state.claims:
        if claim.holder != holder or claim.last < first or claim.first > last:
            kept.append(claim)
            continue
        start, end = max(claim.first, first), min(claim.last, last)
        if claim.first < start:
            kept.append(msgspec.structs.replace(claim, last=start - 1))
        kept.append(Claim(start, end, now_us, claim.deliveries - 1, holder))
        if end < claim.last:
            kept.append(msgspec.structs.replace(claim, first=end + 1))
    return _with(state, kept, now_us)


def release(state: GroupState, holder: str, now_us: int) -> GroupState:
    """Give the holder's claims back: anybody may have them at once. They count as delivered."""
    claims = tuple(
        msgspec.structs.replace(claim, deadline_us=now_us) if claim.holder == holder else claim
        for claim in state.claims
    )
    return state if claims == state.claims else msgspec.structs.replace(state, claims=claims, updated_us=now_us)


def passed_over(state: GroupState, first: int, now_us: int) -> GroupState:
    """The state when nothing below `first` is there any more, by the will of an administrator."""
    claims = tuple(
        msgspec.structs.replace(claim, first=max(claim.first, first)) for claim in state.claims if claim.last >= first
    )
    return _settled(msgspec.structs.replace(state, position=max(state.position, first), claims=claims), now_us)


def without(state: GroupState, gone: list[Claim], now_us: int) -> GroupState:
    """The state when some claims count as acknowledged: their messages went to the dead-letter topic."""
    left = tuple(claim for claim in state.claims if claim not in gone)
    return _settled(msgspec.structs.replace(state, claims=left), now_us)


def _settled(state: GroupState, now_us: int) -> GroupState:
    return msgspec.structs.replace(state, acked=max(state.acked, state.behind - 1), updated_us=now_us)


def _with(state: GroupState, claims: list[Claim], now_us: int) -> GroupState:
    ordered = tuple(sorted(claims, key=_first))
    return msgspec.structs.replace(state, claims=ordered, updated_us=now_us)


def _first(claim: Claim) -> int:
    return claim.first
