"""Topics for code that blocks: each call runs on the loop of the client's thread. See headrace._topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias

from headrace._backoff import Retries, RetryPolicy
from headrace._consumption import Consumption
from headrace._exceptions import ClientClosed
from headrace._portal import Portal
from headrace._topic_messages import BaseMessage, Message, MessagePosition, NewMessage, Payload, SyncMessage
from headrace._topics import THREE_TIMES, Consumer, Topic

SyncHandler: TypeAlias = Callable[[SyncMessage], object]
"""What `run` calls with each message."""


class SyncTopic:
    """A topic for code that blocks. See Topic."""

    def __init__(self, portal: Portal, topic: Topic) -> None:
        self._portal = portal
        self._topic = topic

    @property
    def name(self) -> str:
        """`namespace.name`."""
        return self._topic.name

    def consume(self, group: str, **options: Any) -> SyncConsumer:
        """See Topic.consume."""
        return SyncConsumer(self._portal, self._topic.consume(group, **options))

    def run(self, group: str, handler: SyncHandler, *, retry: RetryPolicy = THREE_TIMES, **options: Any) -> None:
        """See Topic.run. The handler runs in the calling thread."""
        self.consume(group, **options).run(handler, retry=retry)

    def produce(
        self,
        payload: Payload,
        key: str | int | None = None,
        partition: int | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> MessagePosition:
        """See Topic.produce."""
        return self._portal.run(self._topic.produce(payload, key, partition, retry=retry))

    def produce_many(
        self, messages: Iterable[NewMessage | Payload], *, retry: RetryPolicy | None = None
    ) -> list[MessagePosition]:
        """See Topic.produce_many."""
        return self._portal.run(self._topic.produce_many(messages, retry=retry))


class _Acknowledger:
    """What messages are acknowledged with. They hold no consumer, so that one that is dropped can be collected."""

    def __init__(self, portal: Portal, consumption: Consumption) -> None:
        self._portal = portal
        self._consumption = consumption

    def ack(self, *messages: BaseMessage) -> None:
        """Acknowledge messages and everything before them in their partitions."""
        self._portal.run(self._consumption.ack(messages))


class SyncConsumer:
    """Messages of a topic for code that blocks: `for message in consumer`, in one thread at a time. See Consumer."""

    def __init__(self, portal: Portal, consumer: Consumer) -> None:
        self._portal = portal
        self._consumer = consumer
        self._consumption = consumer._consumption
        self._acknowledger = _Acknowledger(portal, self._consumption)

    def stop(self) -> None:
        """See Consumer.stop."""
        self._consumer.stop()

    def next(self) -> SyncMessage:
        """The next message. Raises StopIteration after `stop` or `close`, and as Consumer.next does."""
        # A message that is there already costs no change of threads.
        message: Message | None = self._consumption.take()
        if message is None:
            try:
                message = self._portal.run(self._consumer.next())
            except StopAsyncIteration:
                raise StopIteration from None
        return SyncMessage(message, self._acknowledger)

    def next_batch(self) -> list[SyncMessage]:
        """See Consumer.next_batch. Raises StopIteration at the end."""
        try:
            batch = self._portal.run(self._consumer.next_batch())
        except StopAsyncIteration:
            raise StopIteration from None
        return [SyncMessage(message, self._acknowledger) for message in batch]

    def batches(self) -> Iterator[list[SyncMessage]]:
        """See Consumer.batches."""
        while True:
            try:
                batch = self.next_batch()
            except StopIteration:
                return
            yield batch

    def ack(self, *messages: BaseMessage) -> None:
        """See Consumer.ack."""
        self._acknowledger.ack(*messages)

    def run(self, handler: SyncHandler, *, retry: RetryPolicy = THREE_TIMES) -> None:
        """See Consumer.run. The handler runs in the calling thread."""
        with self:
            for message in self:
                retries = Retries(retry)
                while True:
                    try:
                        handler(message)
                    except Exception as error:  # noqa: BLE001 (the policy raises it again)
                        if self._portal.run(self._consumption.retry_handler(message, error, retries, retry)):
                            continue
                    break

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SyncMessage:
        return self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(lambda: self._consumer.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """See Consumer.aclose. Nothing to do after the client was closed, which ends all consumers."""
        self._close(self._consumer.aclose)

    def _close(self, close: Callable[[], Any]) -> None:
        try:
            self._portal.run(close())
        except ClientClosed:
            return
