"""What the runs over failing disks do to tables with topics, step by step, and what must be there after each step.

A step is one request, or a few at the same time that share a commit. The model of it is plain: the rows of each table,
the messages of each topic by partition, and how far a group has acknowledged. Whatever fails, the engine must show
exactly the model before a request or the one after it, rows and messages alike.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from sql.database import Database
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.topics.messages import ConsumeRequest
from storage import StorageEngine, StorageOptions
from storage.topic_writes import EARLIEST, Produced

ADMIN = Identity("root", Role.SYSTEM)
OPTIONS = StorageOptions(
    map_start=1 << 20, merge=False, evict=False, merge_fan_in=2, direct_rows=250, group_wait_us=0, drain_seconds=1.0
)
PARTITIONS = 3
SETUP = f"""
CREATE NAMESPACE app;
CREATE SHARED TABLE app.orders (id INT PRIMARY KEY, v TEXT);
CREATE SHARED TABLE app.items (id INT PRIMARY KEY, v TEXT);
CREATE TOPIC app.all PARTITIONS {PARTITIONS};
CREATE TOPIC app.some PARTITIONS {PARTITIONS};
ALTER TOPIC app.all ADD SOURCE app.orders ON INSERT;
ALTER TOPIC app.all ADD SOURCE app.orders ON UPDATE;
ALTER TOPIC app.all ADD SOURCE app.orders ON DELETE;
ALTER TOPIC app.all ADD SOURCE app.items ON INSERT;
ALTER TOPIC app.some ADD SOURCE app.orders ON UPDATE WHERE id % 2 = 0 WITH (payload = 'diff');
INSERT INTO app.orders SELECT range, 'first' FROM range(10)
"""

Told = tuple[str, str | None, str | None]
"""Operation, key and the value of `v` (of produced messages: the payload)."""


class Violation(Exception):
    """A promise was broken."""


@dataclass
class Model:
    """What there must be."""

    orders: dict[int, str] = field(default_factory=dict)
    items: dict[int, str] = field(default_factory=dict)
    topics: dict[str, Counter[tuple[int, Told]]] = field(default_factory=dict)
    """Partition and message, how often."""
    acknowledged: dict[int, int] = field(default_factory=dict)
    """By partition of the topic `all`, for the group `g`."""

    def copy(self) -> Model:
        """One that changes alone."""
        topics = {name: Counter(messages) for name, messages in self.topics.items()}
        return Model(dict(self.orders), dict(self.items), topics, dict(self.acknowledged))

    def tell(self, topic: str, operation: str, key: str, value: str | None) -> None:
        """A message appears."""
        partition = xxhash.xxh64_intdigest(key.encode()) % PARTITIONS
        self.topics.setdefault(topic, Counter())[partition, (operation, key, value)] += 1

    def order(self, key: int, value: str | None) -> None:
        """A row of `orders` is inserted, updated, or deleted (None)."""
        old = self.orders.pop(key, None)
        if value is None:
            self.tell("all", "DELETE", str(key), old)
            return
        self.orders[key] = value
        self.tell("all", "INSERT" if old is None else "UPDATE", str(key), value)
        if old is not None and key % 2 == 0:
            self.tell("some", "UPDATE", str(key), value)

    def item(self, key: int, value: str) -> None:
        """A row of `items` is inserted."""
        self.items[key] = value
        self.tell("all", "INSERT", str(key), value)


Request = Callable[[Database], Awaitable[Any]]


class Step(NamedTuple):
    """Requests that are sent at the same time; their effects on the model, in the same order."""

    name: str
    requests: list[Request]
    effects: list[Callable[[Model], None]]


def _sql(text: str, params: list[Any] | None = None) -> Request:
    return lambda database: database.execute(text, params, "app", ADMIN)


def _produce(*messages: tuple[str, str]) -> Request:
    produced = [Produced(payload.encode(), key) for key, payload in messages]
    return lambda database: database.topics.produce("app", "all", produced, ADMIN.user)


def _refused(request: Request) -> Request:
    """A request that must be refused, or meet the failing disk; never succeed."""

    async def run(database: Database) -> None:
        try:
            await request(database)
        except SqlError as error:
            if error.status in {503, 507}:
                raise
            return
        raise Violation("a request that must fail succeeded")

    return run


def _each(*effects: Callable[[Model], None]) -> Callable[[Model], None]:
    def run(model: Model) -> None:
        for effect in effects:
            effect(model)

    return run


def _bulk(model: Model) -> None:
    for key in range(1_000, 1_300):
        model.order(key, "bulk")


def _update_many(model: Model) -> None:
    for key in range(5):
        model.order(key, "many")


def _acknowledge(model: Model) -> None:
    for partition in range(PARTITIONS):
        model.acknowledged[partition] = 0


STEPS = [
    Step("insert", [_sql("INSERT INTO app.orders VALUES (100, 'a')")], [lambda m: m.order(100, "a")]),
    Step("update", [_sql("UPDATE app.orders SET v = $1 WHERE id = $2", ["b", 100])], [lambda m: m.order(100, "b")]),
    Step("update many", [_sql("UPDATE app.orders SET v = 'many' WHERE id < 5")], [_update_many]),
    Step(
        "transaction",
        [
            _sql(
                "BEGIN; INSERT INTO app.orders VALUES (101, 'c'); INSERT INTO app.items VALUES (1, 'd'), (2, 'e');"
                "DELETE FROM app.orders WHERE id = 100; PUBLISH TO app.all KEY 'k' PAYLOAD 'f'; COMMIT"
            )
        ],
        [
            _each(
                lambda m: m.order(101, "c"),
                lambda m: m.item(1, "d"),
                lambda m: m.item(2, "e"),
                lambda m: m.order(100, None),
                lambda m: m.tell("all", "INSERT", "k", "f"),
            )
        ],
    ),
    Step(
        "produce",
        [_produce(("k1", "g"), ("k2", "h" * 5_000), ("k3", "i"))],
        [
            _each(
                *(
                    lambda m, key=key, value=value: m.tell("all", "INSERT", key, value)
                    for key, value in (("k1", "g"), ("k2", "h" * 5_000), ("k3", "i"))
                )
            )
        ],
    ),
    Step(
        "acknowledge with a row",
        [
            _sql(
                "BEGIN; INSERT INTO app.items VALUES (3, 'j');"
                + "".join(f"ACK app.all GROUP 'g' PARTITION {each} UPTO OFFSET 0;" for each in range(PARTITIONS))
                + "COMMIT"
            )
        ],
        [_each(lambda m: m.item(3, "j"), _acknowledge)],
    ),
    Step(
        "at the same time",
        [
            _sql("INSERT INTO app.orders VALUES (102, 'k')"),
            _refused(_sql("INSERT INTO app.orders VALUES (103, 'never'), (1, 'there already')")),
            _produce(("k4", "l")),
            _sql("UPDATE app.orders SET v = 'm' WHERE id = 2"),
            _sql("BEGIN; INSERT INTO app.orders VALUES (104, 'never'); PUBLISH TO app.all PAYLOAD 'never'; ROLLBACK"),
        ],
        [
            lambda m: m.order(102, "k"),
            lambda m: None,
            lambda m: m.tell("all", "INSERT", "k4", "l"),
            lambda m: m.order(2, "m"),
            lambda m: None,
        ],
    ),
    Step("bulk", [_sql("INSERT INTO app.orders SELECT range, 'bulk' FROM range(1000, 1300)")], [_bulk]),
    Step(
        "upsert",
        [_sql("INSERT INTO app.orders VALUES (3, 'n'), (105, 'o') ON CONFLICT (id) DO UPDATE SET v = excluded.v")],
        [_each(lambda m: m.order(3, "n"), lambda m: m.order(105, "o"))],
    ),
    Step(
        "delete",
        [_sql("DELETE FROM app.orders WHERE id IN (0, 1)")],
        [_each(lambda m: m.order(0, None), lambda m: m.order(1, None))],
    ),
]


def first_model() -> Model:
    """What `SETUP` leaves."""
    model = Model()
    for key in range(10):
        model.order(key, "first")
    model.topics.setdefault("some", Counter())
    return model


def open_database(folder: Path) -> tuple[StorageEngine, Database]:
    """Open a folder; on the event loop."""
    engine = StorageEngine.open(folder, OPTIONS)
    return engine, Database(engine)


async def prepare(folder: Path) -> None:
    """Make the folder that all runs begin with."""
    engine, database = open_database(folder)
    try:
        await database.execute(SETUP, None, None, ADMIN)
        difference = compare(first_model(), found(engine, database))
        if difference:
            raise Violation(f"without any fault: {difference}")
    finally:
        database.close()
        engine.close()


def found(engine: StorageEngine, database: Database) -> Model:
    """What there is, of one commit as nothing is written meanwhile."""
    model = Model()
    with engine.snapshot() as snapshot:
        for name, rows in (("orders", model.orders), ("items", model.items)):
            table = snapshot.catalog.table("app", name)
            assert table is not None
            rows.update({row["id"]: row["v"] for row in snapshot.scan(table, "").to_pylist()})
    for topic in ("all", "some"):
        model.topics[topic] = Counter()
        for partition in range(PARTITIONS):
            request = ConsumeRequest(
                namespace="app", topic=topic, partition=partition, start=EARLIEST, limit=10_000, max_bytes=1 << 30
            )
            messages = database.topics.read(request).messages
            if [message.offset for message in messages] != list(range(len(messages))):
                raise Violation(f"partition {partition} of {topic} has a gap")
            for message in messages:
                told = (message.operation.name, message.key, value_of(message.payload))
                model.topics[topic][partition, told] += 1
    return model


def value_of(payload: bytes) -> str | None:
    """What tells payloads apart."""
    if not payload.startswith(b"{"):
        return payload.decode()
    decoded = json.loads(payload)
    value: str | None = decoded["new"]["v"] if "new" in decoded else decoded["v"]
    return value


async def acknowledged(database: Database) -> dict[int, int]:
    """How far the group has acknowledged, as the system table says."""
    sql = "SELECT partition_id, last_acked_offset FROM system.topic_offsets WHERE group_id = 'g'"
    (result,) = await database.execute(sql, None, None, ADMIN)
    assert result.table is not None
    return {row["partition_id"]: row["last_acked_offset"] for row in result.table.to_pylist()}


def compare(expected: Model, there: Model) -> str:
    """What differs, in words; empty when nothing does."""
    parts = []
    for name in ("orders", "items"):
        if getattr(expected, name) != getattr(there, name):
            lost = {
                key: value for key, value in getattr(expected, name).items() if getattr(there, name).get(key) != value
            }
            more = {
                key: value for key, value in getattr(there, name).items() if getattr(expected, name).get(key) != value
            }
            parts.append(f"{name} misses {str(lost)[:200]} and has {str(more)[:200]}")
    for topic, messages in expected.topics.items():
        if messages != there.topics[topic]:
            lost_messages, more_messages = messages - there.topics[topic], there.topics[topic] - messages
            parts.append(f"{topic} misses {str(lost_messages)[:200]} and has {str(more_messages)[:200]}")
    return "; ".join(parts)


async def attempt(database: Database, step: Step, waiting: list[int]) -> tuple[list[int], list[Exception]]:
    """Send the requests of a step that are not done yet; which are done now, and how the others failed."""
    answers = await asyncio.gather(*(step.requests[at](database) for at in waiting), return_exceptions=True)
    done, errors = [], []
    for at, answer in zip(waiting, answers, strict=True):
        if isinstance(answer, Exception):
            errors.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            done.append(at)
    return done, errors
