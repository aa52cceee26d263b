"""Topics as their users see them: messages are produced, and consumed in the name of a group."""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeAlias

from headrace._backoff import Retries, RetryPolicy, is_transient
from headrace._consumption import ConsumeOptions, Consumption
from headrace._exceptions import HeadraceError
from headrace._topic_messages import BaseMessage, Message, MessagePosition, NewMessage, Payload
from headrace._topic_requests import PollOptions, Start, TopicRequests, start_of

Handler: TypeAlias = Callable[[Message], Awaitable[object] | object]
"""What `run` calls with each message; may be async."""

POLL_SECONDS = 30.0
FOR_EVER = RetryPolicy()
THREE_TIMES = RetryPolicy(attempts=3)

log = logging.getLogger("headrace")


class Topic:
    """A topic: `produce` writes messages, `consume` reads them for a group. Nothing is asked until one is called."""

    def __init__(self, requests: TopicRequests, name: str, open_ones: set[Consumption]) -> None:
        self.name = name
        self._requests = requests
        self._open_ones = open_ones

    def consume(
        self,
        group: str,
        *,
        start: Start = "latest",
        partition: int | None = None,
        limit: int = 100,
        max_bytes: int | None = None,
        poll_seconds: float = POLL_SECONDS,
        idle_seconds: float | None = None,
        visibility_timeout: float | None = None,
        ordered: bool = True,
        auto_ack: bool = True,
        consumer_id: str = "python",
        retry: RetryPolicy = FOR_EVER,
    ) -> Consumer:
        """The messages that the group has not had: `async for message in consumer`.

        start               where a group begins that has acknowledged nothing: `latest`, `earliest` or an offset
        partition           only this one; else all of them
        limit, max_bytes    of one poll: messages, and bytes of their payloads
        poll_seconds        how long the server waits for the first message until it is asked again
        idle_seconds        end when no message has come for so long; 0: when there is none
        visibility_timeout  seconds until a message that is not acknowledged goes to another consumer
        ordered             a partition goes to one consumer of the group at a time, so that keys keep their order
        auto_ack            a message is done when the next one is asked for; False: when you say `ack()`
        consumer_id         what the name begins with by which the server knows the consumer
        retry               how long to put up with a server that is not there; for ever unless you say otherwise

        Raises ValueError for values that make no sense.
        """
        if poll_seconds <= 0:
            raise ValueError(f"poll_seconds must be greater than 0, not {poll_seconds}; idle_seconds may be 0")
        poll = PollOptions(
            topic_id=self.name,
            group_id=group,
            start=start_of(start),
            limit=limit,
            partition_id=partition,
            max_bytes=max_bytes,
            ordered=ordered,
            visibility_timeout_seconds=visibility_timeout,
        )
        options = ConsumeOptions(
            poll=poll,
            poll_seconds=poll_seconds,
            idle_seconds=idle_seconds,
            auto_ack=auto_ack,
            name=consumer_id,
            retry=retry,
        )
        return Consumer(Consumption(self._requests, options, self._open_ones))

    async def run(self, group: str, handler: Handler, *, retry: RetryPolicy = THREE_TIMES, **options: Any) -> None:
        """Call a handler with each message until it is stopped or fails; `options` are those of `consume`.

        See Consumer.run.
        """
        await self.consume(group, **options).run(handler, retry=retry)

    async def produce(
        self,
        payload: Payload,
        key: str | int | None = None,
        partition: int | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> MessagePosition:
        """Write a message; where it stands. It is on the disk then.

        `payload`: bytes as they are, text as UTF-8, anything else as its JSON text. Messages with the same `key` go to
        the same partition, in order. Raises as `produce_many` does.
        """
        (position,) = await self.produce_many([NewMessage(payload, key, partition)], retry=retry)
        return position

    async def produce_many(
        self, messages: Iterable[NewMessage | Payload], *, retry: RetryPolicy | None = None
    ) -> list[MessagePosition]:
        """Write messages in one commit, all or none; where they stand, in order.

        They are payloads, or `NewMessage(payload, key, partition)`. When the answer is lost, whether they were written
        is not known: ConnectionFailed is raised, unless `retry` says how often to send them again, which may write
        them twice. Raises MessageTooLarge, TopicNotFound and the other ResponseErrors, ConnectionFailed, ValueError
        and TypeError for what has no JSON text.
        """
        new = list(messages)
        if not new:
            return []
        retries = Retries(retry or RetryPolicy(attempts=1))
        while True:
            try:
                return await self._requests.produce(self.name, new)
            except HeadraceError as error:
                delay = retries.next_delay(error) if is_transient(error) else None
                if delay is None:
                    raise
                log.warning("producing to %s is tried again in %.1f seconds: %s", self.name, delay, error)
                await asyncio.sleep(delay)


class Consumer:
    """Messages of a topic for one consumer of a group: `async for message in consumer`, or `await consumer.next()`.

    With `async with` the end of the block ends it: what is done is acknowledged, what is not done is given back to
    the group at once. A message whose handling raised is not done; one at which the block was left in another way
    is. Without the block, end it with `aclose()` or `stop()`; one that is merely dropped is ended when Python collects
    it, and all are when the client is closed: then the message that was handed out last is not done.
    """

    def __init__(self, consumption: Consumption) -> None:
        self._consumption = consumption
        self._started = False

    def stop(self) -> None:
        """Let iteration end, at once if it waits. From any task or thread, also from a signal handler."""
        self._consumption.stop()

    async def next(self) -> Message:
        """The next message. Raises StopAsyncIteration after `stop` or `aclose`, when all is acknowledged or given back.

        Raises TopicNotFound, OffsetOutOfRange, PermissionDenied and the other ResponseErrors; ConnectionFailed,
        RateLimited and Unavailable only when `retry` gives up.
        """
        self._start()
        message = await self._consumption.next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def next_batch(self) -> list[Message]:
        """As many messages as have come, at least one; they are done together. Raises as `next` does."""
        self._start()
        batch = await self._consumption.next_batch()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def batches(self) -> AsyncGenerator[list[Message]]:
        """`next_batch` again and again until the end. Raises as `next` does."""
        while True:
            try:
                batch = await self.next_batch()
            except StopAsyncIteration:
                return
            yield batch

    async def ack(self, *messages: BaseMessage) -> None:
        """Acknowledge messages and everything before them in their partitions, at once.

        Raises ClaimLost for those that were given back, and as `next` does.
        """
        await self._consumption.ack(messages)

    async def run(self, handler: Handler, *, retry: RetryPolicy = THREE_TIMES) -> None:
        """Call a handler with each message until `stop`.

        A handler that raises is called again as `retry` says. After the last attempt its exception is raised, and the
        message given back; with `on_exhausted="skip"` the message is acknowledged and a warning logged.
        """
        async with self:
            async for message in self:
                retries = Retries(retry)
                while True:
                    try:
                        answer = handler(message)
                        if inspect.isawaitable(answer):
                            await answer
                    except Exception as error:  # noqa: BLE001 (the policy raises it again)
                        if await self._consumption.retry_handler(message, error, retries, retry):
                            continue
                    break

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        return await self.next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._consumption.finish_current()
            await self.aclose()
            return
        self._consumption.abandon_current()
        try:
            await self.aclose()
        except HeadraceError as failure:
            # What ended the block is what its user has to know.
            log.warning("%s was not ended cleanly: %s", self._consumption, failure)

    async def aclose(self) -> None:
        """Acknowledge what is done and give the rest back; may be called again. Raises ResponseError."""
        await self._consumption.close()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _end, loop, self._consumption).atexit = False


def _end(loop: asyncio.AbstractEventLoop, consumption: Consumption) -> None:
    """End what nobody reads any more; collection may happen in any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(_close_in_background, consumption)


def _close_in_background(consumption: Consumption) -> None:
    task = asyncio.ensure_future(consumption.close())
    task.add_done_callback(lambda done: _log_failure(done, consumption))


def _log_failure(task: asyncio.Future[None], consumption: Consumption) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.warning("%s was not ended cleanly: %s", consumption, error)
