"""A topic in a few lines, without a server: makes histories that may happen, to try the checker with."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import xxhash

from tests.chaos.topic_history import Ack, Entry, History, Place, Sent

GROUPS = ("ordered", "plain")


@dataclass
class Claims:
    """What one group has of one partition."""

    acknowledged: set[int] = field(default_factory=set)
    held: dict[int, str] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def committed(self) -> int:
        """The offset up to which everything is acknowledged."""
        at = -1
        while at + 1 in self.acknowledged:
            at += 1
        return at


class Model:
    """Plays producers, consumers and accidents into a history."""

    def __init__(self, chance: random.Random, *, calm: bool, partitions: int = 3) -> None:
        self.chance = chance
        self.calm = calm
        self.history = History(partitions, frozenset({"ordered"}), GROUPS)
        self.logs: list[list[Entry]] = [[] for _ in range(partitions)]
        self.claims = {(group, at): Claims() for group in GROUPS for at in range(partitions)}
        self.incarnations = 0
        self.names = {group: [self.newcomer(group) for _ in range(3)] for group in GROUPS}
        self.numbers = 0

    def newcomer(self, group: str) -> str:
        """A consumer that nobody has seen before."""
        self.incarnations += 1
        return f"{group}-{self.incarnations}"

    def play(self, steps: int) -> History:
        """Random steps, then everybody finishes."""
        for _ in range(steps):
            self.chance.choice([self.produce, self.consume, self.consume, self.acknowledge, self.accident, self.look])()
        for group in GROUPS:
            everybody = self.names[group] if self.calm else []
            for name in everybody:
                for partition in range(self.history.partitions):
                    self.finish(group, name, partition)
            (last,) = self.names[group] = [self.newcomer(group)]
            for partition in range(self.history.partitions):
                self.expire(self.claims[group, partition], everything=True)
                while self.take(group, last, partition, 5):
                    pass
                self.finish(group, last, partition)
        self.look()
        self.history.log = [entry for log in self.logs for entry in log]
        self.history.rows = {entry.key: entry.identity for entry in self.history.log if not entry.key.startswith("k")}
        return self.history

    def produce(self) -> None:
        """One request of one or a few messages, of which nobody may know whether it took effect."""
        history, chance = self.history, self.chance
        producer, request = f"p{chance.randrange(3)}", f"r{self.numbers}"
        certain = self.calm or chance.random() < 0.8
        done = certain or chance.random() < 0.5
        sent = []
        for _ in range(chance.choice([1, 1, 3])):
            self.numbers += 1
            key = chance.choice(["k1", "k2", "k3", "1", "2", "3"])
            identity = f"m{self.numbers}"
            partition = xxhash.xxh64_intdigest(key.encode()) % history.partitions
            place: Place | None = None
            if done:
                place = (partition, len(self.logs[partition]))
                self.logs[partition].append(Entry(*place, key, identity))
            told = place if certain and key.startswith("k") else None
            sent.append(Sent(request, producer, self.numbers, key, identity, certain, told))
        history.send(sent)

    def consume(self) -> None:
        """One consumer asks for some messages of one partition; the answer may be lost."""
        group = self.chance.choice(GROUPS)
        consumer = self.chance.choice(self.names[group])
        self.take(group, consumer, self.chance.randrange(self.history.partitions), self.chance.randrange(1, 6))

    def take(self, group: str, consumer: str, partition: int, limit: int) -> bool:
        """Claim messages and hand them out; whether there were any."""
        claims, log = self.claims[group, partition], self.logs[partition]
        if group == "ordered" and any(holder != consumer for holder in claims.held.values()):
            return False
        asked = self.history.tick()
        free = [at for at in range(len(log)) if at not in claims.acknowledged and at not in claims.held][:limit]
        for offset in free:
            claims.held[offset] = consumer
            claims.counts[offset] = claims.counts.get(offset, 0) + 1
        last = len(self.names[group]) == 1
        if free and not self.calm and not last and self.chance.random() < 0.1:
            # The answer is lost; the consumer comes back under another name.
            self.history.die(consumer)
            self.names[group][self.names[group].index(consumer)] = self.newcomer(group)
            return True
        self.history.deliver(group, consumer, [(log[offset], claims.counts[offset]) for offset in free], asked)
        return bool(free)

    def acknowledge(self) -> None:
        """One consumer acknowledges what it holds of one partition, or the first half of it."""
        group = self.chance.choice(GROUPS)
        self.finish(
            group,
            self.chance.choice(self.names[group]),
            self.chance.randrange(self.history.partitions),
            half=self.chance.random() < 0.3,
        )

    def finish(self, group: str, consumer: str, partition: int, *, half: bool = False) -> None:
        """Acknowledge what a consumer holds."""
        claims = self.claims[group, partition]
        mine = sorted(offset for offset, holder in claims.held.items() if holder == consumer)
        if not mine:
            return
        mine = mine[: (len(mine) + 1) // 2] if half else mine
        sent = self.history.tick()
        for offset in mine:
            claims.acknowledged.add(offset)
            del claims.held[offset]
        told = max(mine[-1], claims.committed)
        released = half and not self.calm
        for offset in [offset for offset, holder in claims.held.items() if released and holder == consumer]:
            del claims.held[offset]
        ack = Ack(group, consumer, partition, mine[-1], sent, self.history.tick(), told, released)
        if not self.calm and self.chance.random() < 0.1:
            ack = ack._replace(answered=None, acknowledged=None)
        self.history.acknowledge(ack)

    def look(self) -> None:
        """Somebody looks how far the groups have come."""
        asked = self.history.tick()
        told = [(*place, claims.committed) for place, claims in self.claims.items()]
        self.history.commit([each for each in told if each[2] >= 0], asked)

    def accident(self) -> None:
        """Somebody dies with its claims, and some time passes."""
        if self.calm:
            return
        group = self.chance.choice(GROUPS)
        gone = self.chance.choice(self.names[group])
        self.history.die(gone)
        self.names[group][self.names[group].index(gone)] = self.newcomer(group)
        for (of, _), claims in self.claims.items():
            if of == group:
                self.expire(claims)

    def expire(self, claims: Claims, *, everything: bool = False) -> None:
        """Give back what dead consumers hold."""
        alive = {name for names in self.names.values() for name in names}
        for offset, holder in list(claims.held.items()):
            if everything or holder not in alive:
                del claims.held[offset]
