"""One consumer's part in a group: what it holds, what of it is done, and how it lets go.

The life of a message
---------------------

    buffered    the server holds it for this consumer (a claim); nobody has seen it
    current     handed to the reader
    done        with automatic acknowledgement: the reader has asked for the next one
    settled     acknowledged on the server

Acknowledgements are cumulative, and one request tells a partition's: before each poll, at the end, and every few
seconds in between. At the end everything that is not done is given back, so that others have it at once.

An answer that is lost
----------------------

When a poll fails, is cancelled or is stopped, the server may have claimed messages that never came. A cumulative
acknowledgement of later ones would cover them, and they would be lost. So the claim's name is given up: all that is
held under it is given back before the next poll, which has another name, and comes again. Acknowledging a message of
the old name raises ClaimLost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace._backoff import Retries, RetryPolicy, delays, is_transient, outcome_is_unknown
from headrace._exceptions import ClaimLost, HeadraceError
from headrace._topic_messages import BaseMessage, Message
from headrace._topic_requests import ConsumeAnswer, PollOptions, TopicRequests

T = TypeVar("T")

ACK_SECONDS = 5.0
"""How long what is done may wait to be acknowledged while messages are read."""
CLOSE_SECONDS = 5.0
"""Longest wait for the server at the end."""
CLOSING = RetryPolicy(attempts=4, base_seconds=0.1, max_seconds=1.0)

log = logging.getLogger("headrace")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeOptions:
    """How to consume."""

    poll: PollOptions
    poll_seconds: float
    idle_seconds: float | None
    auto_ack: bool
    name: str
    retry: RetryPolicy


class _Stopped(Exception):
    """`stop` was called; what was under way is cancelled."""


class Consumption:
    """Messages for one reader. Belongs to one event loop; `stop` and `take` may be called from other threads."""

    def __init__(self, requests: TopicRequests, options: ConsumeOptions, open_ones: set[Consumption]) -> None:
        self._requests = requests
        self._options = options
        self._open_ones = open_ones
        self._claim = self._new_claim()
        self._buffer: deque[Message] = deque()
        self._current: tuple[Message, ...] = ()
        self._done: dict[int, int] = {}
        self._claimed: dict[int, int] = {}
        self._settled: dict[int, int] = {}
        self._lost: list[tuple[str, int]] = []
        self._partitions = {options.poll.partition_id or 0}
        self._expires_at: float | None = None
        self._flushed_at = 0.0
        self._stopping = False
        self._under_way: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"the consumer of {self._options.poll.topic_id} in group {self._options.poll.group_id}"

    # --- reading ------------------------------------------------------------------------------------------------------

    def take(self) -> Message | None:
        """The next message if it is there already and nothing else is due; None: `next` has to be asked.

        Either way the message before is done.
        """
        self.finish_current()
        if self._is_something_due():
            return None
        message = self._buffer.popleft()
        self._current = (message,)
        return message

    async def next(self) -> Message | None:
        """The next message; None at the end. Raises ResponseError, ConnectionFailed when the policy gives up."""
        while True:
            message = self.take()
            if message is not None:
                return message
            if not await self._see_to_it():
                return None

    async def next_batch(self) -> list[Message] | None:
        """All messages that are there, at least one; None at the end. Raises as `next` does."""
        self.finish_current()
        while self._is_something_due():
            if not await self._see_to_it():
                return None
        self._current = tuple(self._buffer)
        self._buffer.clear()
        return list(self._current)

    def finish_current(self) -> None:
        """What the reader has is done."""
        if self._options.auto_ack:
            for message in self._current:
                self._done[message.partition] = max(message.offset, self._done.get(message.partition, -1))
        self._current = ()

    def abandon_current(self) -> None:
        """What the reader has is not done, and will not be."""
        self._current = ()

    def _is_something_due(self) -> bool:
        if self._stopping or not self._buffer:
            return True
        now = time.monotonic()
        return bool(self._done and now >= self._flushed_at + ACK_SECONDS) or self._is_expired(now)

    def _is_expired(self, now: float) -> bool:
        """Whether what is buffered may be with another consumer by now."""
        return bool(self._buffer) and self._expires_at is not None and now >= self._expires_at

    async def _see_to_it(self) -> bool:
        """Acknowledge what is done, ask for messages if there are none; False at the end."""
        try:
            if self._stopping:
                await self.close()
                return False
            self._open_ones.add(self)
            self._loop = asyncio.get_running_loop()
            await self._flush()
            if self._is_expired(time.monotonic()):
                self._lose_claims()
            if not self._buffer:
                await self._fill()
        except _Stopped:
            pass  # and the next round closes it
        return True

    async def _fill(self) -> None:
        """Poll until there are messages, or until none have come for long enough."""
        options = self._options
        started = time.monotonic()
        deadline = None if options.idle_seconds is None else started + options.idle_seconds
        pauses = delays(0.1, 2.0)
        while True:
            asked = time.monotonic()
            wait = options.poll_seconds if deadline is None else min(options.poll_seconds, max(0.0, deadline - asked))
            answer = await self._retried(lambda wait=wait: self._poll(wait))  # type: ignore[misc]
            if answer.messages:
                self._receive(answer)
                return
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                self._stopping = True
                return
            if now - asked < wait / 2:
                # A server that does not wait, because it is about to stop, must not be asked in a loop.
                await self._unless_stopped(asyncio.sleep(next(pauses)))

    async def _poll(self, wait: float) -> ConsumeAnswer:
        await self._give_lost_back()
        try:
            answer = await self._requests.consume(self._options.poll, self._claim, wait)
        except BaseException as error:
            if outcome_is_unknown(error):
                self._lose_claims()
            raise
        self._partitions.update(position.partition_id for position in answer.positions)
        return answer

    def _receive(self, answer: ConsumeAnswer) -> None:
        messages = [Message(each, self._claim, self) for each in answer.messages]
        # Within a partition the offsets must ascend: acknowledging one must not cover another that is yet to be read.
        messages.sort(key=lambda message: message.offset)
        for message in messages:
            self._claimed[message.partition] = max(message.offset, self._claimed.get(message.partition, -1))
        self._partitions |= self._claimed.keys()
        visibility = self._options.poll.visibility_timeout_seconds
        self._expires_at = None if visibility is None else time.monotonic() + visibility
        self._flushed_at = time.monotonic()
        self._buffer.extend(messages)

    # --- acknowledging ------------------------------------------------------------------------------------------------

    async def ack(self, messages: Iterable[BaseMessage]) -> None:
        """Acknowledge messages and everything before them in their partitions, on the server, at once.

        Raises ClaimLost for those that were given back, ResponseError, ConnectionFailed when the policy gives up.
        """
        upto: dict[int, int] = {}
        for message in messages:
            if message.claim != self._claim or self._closing is not None:
                raise ClaimLost(f"{message!r} was given back to the group, and comes again")
            upto[message.partition] = max(message.offset, upto.get(message.partition, -1))
        for partition, offset in upto.items():
            if offset > self._settled.get(partition, -1):
                await self._settle(partition, offset, although_stopped=True)

    async def _flush(self) -> None:
        """Acknowledge what is done, all partitions at once: on the server they share a commit."""
        works = [self._settle(partition, offset) for partition, offset in self._done.items()]
        for failure in await asyncio.gather(*works, return_exceptions=True):
            if failure is not None:
                raise failure
        self._flushed_at = time.monotonic()

    async def _settle(self, partition: int, offset: int, *, although_stopped: bool = False) -> None:
        claim = self._claim

        async def settle() -> None:
            if claim != self._claim:  # lost while this waited to be sent again
                raise ClaimLost(f"offset {offset} of partition {partition} was given back, and comes again")
            await self._requests.ack(self._options.poll, claim, partition, offset)

        await self._retried(settle, although_stopped=although_stopped)
        if claim == self._claim:
            self._settled[partition] = max(offset, self._settled.get(partition, -1))
            if self._done.get(partition, -1) <= offset:
                self._done.pop(partition, None)

    # --- losing and giving back ---------------------------------------------------------------------------------------

    def _new_claim(self) -> str:
        return f"{self._options.name}-{secrets.token_hex(6)}"

    def _lose_claims(self) -> None:
        """Give up the claim's name and what is held under it."""
        self._lost += [(self._claim, partition) for partition in sorted(self._partitions)]
        self._claim = self._new_claim()
        for each in (self._buffer, self._done, self._claimed, self._settled):
            each.clear()

    async def _give_lost_back(self) -> None:
        while self._lost:
            claim, partition = self._lost[0]
            await self._requests.ack(self._options.poll, claim, partition, None, release=True)
            del self._lost[0]

    # --- ending -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the reader end: `next` gives None. From any thread, and from signal handlers."""
        self._stopping = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        for each in self._under_way:
            each.cancel()

    async def close(self) -> None:
        """Acknowledge what is done, give the rest back; may be called again. Raises ResponseError.

        A server that cannot be reached is not waited for: its claims end by themselves.
        """
        if self._closing is None:
            self._stopping = True
            self._interrupt()
            self._closing = asyncio.create_task(self._close(), name="headrace-consumer-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._under_way:
                    await asyncio.wait(set(self._under_way))
                retries = Retries(CLOSING)
                while (error := await self._try_to_let_go()) is not None:
                    delay = retries.next_delay(error)
                    if delay is None:
                        log.warning("%s could not give back what it holds: %s", self, error)
                        break
                    await asyncio.sleep(delay)
        except TimeoutError:
            log.warning("%s could not give back what it holds: no answer in %g seconds", self, CLOSE_SECONDS)
        finally:
            self._buffer.clear()
            self._open_ones.discard(self)

    async def _try_to_let_go(self) -> HeadraceError | None:
        """One attempt; the error if another one may work."""
        try:
            await self._give_lost_back()
            for partition, last in list(self._claimed.items()):
                upto = self._done.get(partition)
                rest = last > max(self._settled.get(partition, -1), -1 if upto is None else upto)
                if upto is not None or rest:
                    await self._requests.ack(self._options.poll, self._claim, partition, upto, release=rest)
                del self._claimed[partition]
        except HeadraceError as error:
            if not is_transient(error):
                raise
            return error
        return None

    # --- trying again -------------------------------------------------------------------------------------------------

    async def _retried(self, request: Callable[[], Coroutine[Any, Any, T]], *, although_stopped: bool = False) -> T:
        """Send a request as often as the policy says. Raises _Stopped."""
        retries = Retries(self._options.retry)
        while True:
            try:
                return await (request() if although_stopped else self._unless_stopped(request()))
            except HeadraceError as error:
                delay = retries.next_delay(error) if is_transient(error) else None
                if delay is None or (although_stopped and self._stopping):
                    raise
                log.warning("%s tries again in %.1f seconds: %s", self, delay, error)
            await self._pause(delay, although_stopped=although_stopped)

    async def _pause(self, seconds: float, *, although_stopped: bool = False) -> None:
        try:
            await self._unless_stopped(asyncio.sleep(seconds))
        except _Stopped:
            if not although_stopped:
                raise

    async def retry_handler(
        self, message: BaseMessage, error: Exception, retries: Retries, policy: RetryPolicy
    ) -> bool:
        """A handler has failed: wait, and say whether to call it again. Raises the error when it is not to go on."""
        delay = retries.next_delay(error)
        if delay is None:
            if policy.on_exhausted == "raise":
                raise error
            log.warning("%s skips %r, which failed %d times: %r", self, message, retries.failed, error)
            if not self._options.auto_ack:
                await self.ack((message,))
            return False
        log.warning("%s tries %r again in %.1f seconds: %r", self, message, delay, error)
        try:
            await self._pause(delay)
        except _Stopped:
            self.abandon_current()
            return False
        return True

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that `stop` cancels. Raises _Stopped."""
        if self._stopping:
            work.close()
            raise _Stopped
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            raise _Stopped from None
        finally:
            self._under_way.discard(task)


async def close_all(open_ones: set[Consumption]) -> None:
    """End consumers whose client is closed."""
    ending = list(open_ones)
    failures = await asyncio.gather(*(each.close() for each in ending), return_exceptions=True)
    for each, failure in zip(ending, failures, strict=True):
        if failure is not None:
            log.warning("%s was not ended cleanly: %s", each, failure)
