"""LiveHub: all live queries of a database. Subscriptions come in, the changes of commits go out to their sinks.

    subscribe ── bind ── snapshot or head ──▶ Subscription ──go_live──▶ Replays ──caught up──▶ Dispatcher ──▶ sinks

The parts: `binding` makes queries of texts, `loading` the rows that come first, `replay` lets one subscription catch
up, `dispatch` serves all that have, `lane` those whose query takes long, `catalog_watch` sees to definitions and
rights, `delivery` hands out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from sql.errors import InvalidInput, SqlError, StorageUnavailable
from sql.live.binding import bind_cached, bind_live
from sql.live.catalog_watch import CatalogWatch
from sql.live.delivery import Delivery
from sql.live.dispatch import Dispatcher
from sql.live.errors import InvalidCursor, LiveQueryFailed, LiveQueryKilled, SlowConsumer, SubscriptionEnded
from sql.live.evaluation import Evaluation, as_client_error
from sql.live.interface import LiveQuery, LiveSink
from sql.live.loading import Head, Loading, Wanted, read_head, too_old, wanted_of
from sql.live.registry import Registry
from sql.live.replay import CommitReader, Replays
from sql.live.settings import LiveSettings
from sql.live.spool import Spool
from sql.live.subscription import Batch, LiveRequest, Subscription, SubscriptionState
from sql.services import Services
from sql.storage_errors import storage_errors
from sql.workers import Control, Workers
from storage.errors import LogTruncated

log = logging.getLogger("headrace.live")

_SNAPSHOTS = 8
"""Subscriptions that are bound and read on worker threads at once; others wait for them, not for a thread."""
_LEASE_SLACK = 5.0

State = SubscriptionState
_T = TypeVar("_T")


class LiveHub:
    """The live queries of one database (`Database.live`). Used on the event loop, except where said otherwise."""

    def __init__(self, services: Services, workers: Workers, settings: LiveSettings | None = None) -> None:
        self.settings = settings or LiveSettings()
        self._services = services
        self._workers = workers
        self._engine = services.engine
        feed = services.engine.feed
        self._registry = Registry()
        self._evaluation = Evaluation(feed, self.settings)
        self._reader = CommitReader(feed, self._evaluation)
        self._delivery = Delivery(self._end, self._set_aside)
        self._catalog = CatalogWatch(
            services.engine, self._evaluation, self._registry, self._detach, self._catch_up, self._end
        )
        self._dispatcher = Dispatcher(
            feed, self._evaluation, self._reader, self._delivery, self._catalog.changed, self._fall_back, self._end
        )
        self._replays = Replays(
            self._evaluation, self._reader, self._delivery, self._dispatcher, self._catalog.recheck, self._end
        )
        self._behind: dict[LiveSink, dict[Subscription, None]] = {}
        self._reading = asyncio.Semaphore(_SNAPSHOTS)
        self._coming = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._rechecks: set[asyncio.Task[None]] = set()
        self._ended_slow = 0
        self._refusals = 0

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to follow the commits. The first `subscribe` does it too."""
        self._start()

    def _start(self) -> None:
        if self._closed:
            raise StorageUnavailable("The server is shutting down.")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._dispatcher.start()

    async def close(self) -> None:
        """End all subscriptions (their sinks are told) and everything that runs."""
        self.stop()

    def stop(self) -> None:
        """As `close`; what runs on threads ends by itself."""
        if self._closed:
            return
        self._closed = True
        error = StorageUnavailable("The server is shutting down.")
        for subscription in self._registry.all():
            self._end(subscription, error)
        if self._loop is not None and not self._loop.is_closed():
            self._replays.stop()
            for task in tuple(self._rechecks):
                task.cancel()
        self._dispatcher.stop()
        self._evaluation.close()

    # --- coming --------------------------------------------------------------------------------------------------

    async def subscribe(self, request: LiveRequest, sink: LiveSink) -> Subscription:
        """Bind a query and read what its client wants first; nothing is delivered before `go_live`.

        Another subscription of the same `live_id` is closed. Raises SqlError; nothing is registered then.
        """
        self._start()
        self._coming += 1
        self._dispatcher.listen(True)
        try:
            with storage_errors():
                if request.options is None:
                    query, seq = await self._bind(request)
                    return self._register(Subscription(self, request, query, sink, seq), seq)
                wanted = wanted_of(request.options, self.settings)
                if wanted.after:
                    return await self._resume(request, sink, wanted)
                return await self._snapshot(request, sink, wanted)
        finally:
            self._coming -= 1
            self._listen()
            if not self._coming:
                self._replays.rest()

    async def _bind(self, request: LiveRequest) -> tuple[LiveQuery, int]:
        """The query, and the commit at which it was bound; without a thread when its shape is known."""
        services = self._services
        snapshot = self._engine.snapshot_at_once(purpose="live query")
        if snapshot is not None:
            with snapshot:
                found = bind_cached(
                    request.sql, request.params, request.namespace, request.identity, services, snapshot
                )
                if found is not None:
                    return found, snapshot.seq

        def bind(control: Control) -> tuple[LiveQuery, int]:
            lease = control.remaining + _LEASE_SLACK
            with storage_errors(), self._engine.snapshot(lease=lease, purpose="live query") as view:
                query = bind_live(request.sql, request.params, request.namespace, request.identity, services, view)
                return query, view.seq

        return await self._on_worker(bind)

    async def _on_worker(self, call: Callable[[Control], _T]) -> _T:
        """Run a call on a worker thread, in turn."""
        async with self._reading:
            control = Control(self._services.limits.statement_timeout)
            control.may_be_left = True
            return await self._workers.run(lambda: call(control), control)

    async def _snapshot(
        self, request: LiveRequest, sink: LiveSink, wanted: Wanted, *, reason: str | None = None
    ) -> Subscription:
        """A subscription that begins with rows of one commit; `reason` says why not with what the client missed."""
        services, settings = self._services, self.settings

        def read(control: Control) -> tuple[LiveQuery, int, int, Spool]:
            lease = control.remaining + _LEASE_SLACK
            with storage_errors(), self._engine.snapshot(lease=lease, purpose="live query") as view:
                query = bind_live(request.sql, request.params, request.namespace, request.identity, services, view)
                table = query.snapshot(view, last_rows=wanted.last_rows, control=control)
                seq = view.seq
                source = None if query.table_id is None else view.catalog.table_by_id(query.table_id)
                hidden = 0 if source is None else view.expired_through(source)
            spool = Spool(
                table,
                query.columns,
                services.bigint,
                memory_bytes=settings.snapshot_memory_bytes,
                folder=settings.snapshot_folder,
            )
            return query, seq, hidden, spool

        query, seq, hidden, spool = await self._on_worker(read)
        subscription = Subscription(self, request, query, sink, seq)
        subscription.fresh = reason is not None
        subscription.hidden_through = hidden
        subscription.too_old = reason
        return self._load(subscription, Loading(spool, wanted.batch_size, seq, fresh=subscription.fresh), seq)

    async def _resume(self, request: LiveRequest, sink: LiveSink, wanted: Wanted) -> Subscription:
        """A subscription that begins with what its client missed."""
        newest = self._engine.last_seq
        if wanted.after > newest:
            raise InvalidCursor(f"Option from ({wanted.after}) is beyond the newest commit (_seq {newest}).")
        query, bound_at = await self._bind(request)
        if not query.is_resumable:
            return await self._snapshot(request, sink, wanted, reason=too_old(wanted.after).message)
        until = self._dispatcher.claimed

        def read() -> Head:
            self._expect_older(query, wanted.after)
            return read_head(query, self._reader, wanted.after, until, wanted.batch_size, self.settings)

        try:
            async with self._evaluation.readers:
                head = await self._evaluation.run(read)
        except LogTruncated as error:
            log.info("a client's cursor is too old: %s", error)
            return await self._snapshot(request, sink, wanted, reason=too_old(wanted.after).message)
        subscription = Subscription(self, request, query, sink, head.seq)
        subscription.resumed = True
        return self._load(subscription, Loading(head.rows, wanted.batch_size, head.seq), bound_at)

    def _expect_older(self, query: LiveQuery, after: int) -> None:
        """Refuse a cursor of before the table was made: its client may hold rows of one that had the name before."""
        table = None if query.table_id is None else self._engine.catalog.table_by_id(query.table_id)
        seen = self._engine.feed.committed_at(after)
        if table is not None and seen is not None and table.created_at > seen:
            raise LogTruncated(f"{table.full_name} was made after _seq {after}")

    def _load(self, subscription: Subscription, source: Loading, bound_at: int) -> Subscription:
        subscription.source = source
        subscription.total_rows = source.rows
        self._arm(subscription, source)
        return self._register(subscription, bound_at)

    def _register(self, subscription: Subscription, bound_at: int) -> Subscription:
        if self._closed:
            self._forget(subscription)
            raise StorageUnavailable("The server is shutting down.")
        former = self._registry.get(subscription.live_id)
        if former is not None:
            self.close_one(former)
        self._registry.add(subscription)
        if bound_at < self._catalog.seq:
            task = asyncio.get_running_loop().create_task(self._catalog.recheck(subscription))
            self._rechecks.add(task)
            task.add_done_callback(self._rechecks.discard)
        return subscription

    # --- for subscriptions (SubscriptionOwner) -------------------------------------------------------------------

    async def next_batch(self, subscription: Subscription) -> Batch:
        """See `Subscription.next_batch`."""
        source = subscription.source
        if source is None or subscription.state is not State.SNAPSHOT:
            raise SubscriptionEnded(f"Subscription '{subscription.subscription_id}' has no more rows to fetch.")
        if source.busy:
            raise InvalidInput(f"A batch of subscription '{subscription.subscription_id}' is on its way already.")
        source.busy = True
        try:
            batch = source.next() if source.is_at_hand else await self._on_worker(lambda _: source.next())
        except Exception as error:
            self._end(subscription, error)  # which rows were read is not known: there is no going on from here
            raise
        finally:
            source.busy = False
        if subscription.source is not source:
            raise SubscriptionEnded(f"Subscription '{subscription.subscription_id}' has ended.")
        if batch.has_more:
            self._arm(subscription, source)
        else:
            source.close()
            subscription.source = None
        return batch

    def go_live(self, subscription: Subscription) -> None:
        """See `Subscription.go_live`."""
        if subscription.state is State.ENDED:
            return
        if subscription.source is not None:
            subscription.source.close()
            subscription.source = None
        subscription.move(State.REPLAY)
        self._replays.start(subscription)

    def close_one(self, subscription: Subscription) -> None:
        """See `Subscription.close`."""
        if subscription.state is State.ENDED:
            return
        self._forget(subscription)
        self._registry.remove(subscription)
        self._listen()

    def _arm(self, subscription: Subscription, source: Loading) -> None:
        """Give the client time to ask for its next batch."""
        if source.timer is not None:
            source.timer.cancel()
        loop = asyncio.get_running_loop()
        source.timer = loop.call_later(self.settings.idle_seconds, self._idle, subscription)

    def _idle(self, subscription: Subscription) -> None:
        source = subscription.source
        if source is not None and not source.busy:
            self._end(
                subscription,
                SlowConsumer(f"The client asked for no batch for {self.settings.idle_seconds:g} seconds."),
            )

    # --- going ---------------------------------------------------------------------------------------------------

    def drained(self, sink: LiveSink) -> None:
        """Say that a sink that refused a delta takes deltas again."""
        for subscription in self._behind.pop(sink, ()):
            subscription.move(State.REPLAY)
            self._replays.start(subscription)

    def close_connection(self, connection_id: str) -> None:
        """Close all subscriptions of a connection."""
        for subscription in self._registry.of_connection(connection_id):
            self.close_one(subscription)

    def kill(self, live_id: str) -> bool:
        """End a subscription; its sink gets LiveQueryKilled. False when there is none. Safe from any thread."""
        subscription = self._registry.get(live_id)
        if subscription is None or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(self._end, subscription, LiveQueryKilled("The live query was killed."))
        return True

    def _forget(self, subscription: Subscription) -> None:
        """Take a subscription from wherever it stands."""
        if subscription.source is not None:
            subscription.source.close()
            subscription.source = None
        self._dispatcher.leave(subscription)
        if subscription.state is State.BEHIND:
            waiting = self._behind[subscription.sink]
            del waiting[subscription]
            if not waiting:
                del self._behind[subscription.sink]
        subscription.move(State.ENDED)

    def _end(self, subscription: Subscription, error: Exception) -> None:
        """End a subscription against its client's will."""
        if subscription.state is State.ENDED:
            return
        self.close_one(subscription)
        told: SqlError = as_client_error(error)
        self._ended_slow += isinstance(told, SlowConsumer)
        try:
            subscription.sink.ended(subscription, told)
        except Exception:
            log.exception("the sink of %s could not be told of its end", subscription.live_id)

    def _set_aside(self, subscription: Subscription) -> None:
        """Its sink is full: it waits until that is `drained`."""
        self._refusals += 1
        if not subscription.query.is_resumable:
            self._end(subscription, SlowConsumer("A system table cannot be caught up with; subscribe again."))
            return
        self._dispatcher.leave(subscription)
        subscription.move(State.BEHIND)
        self._behind.setdefault(subscription.sink, {})[subscription] = None

    def _detach(self, subscription: Subscription) -> None:
        """From the others to catching up by itself; `_catch_up` begins with it."""
        self._dispatcher.leave(subscription)
        subscription.move(State.REPLAY)

    def _catch_up(self, subscription: Subscription) -> None:
        self._replays.start(subscription)

    def _fall_back(self, subscription: Subscription) -> None:
        if not subscription.query.is_resumable:
            self._end(subscription, LiveQueryFailed("A commit could not be told; subscribe again."))
            return
        self._detach(subscription)
        self._catch_up(subscription)

    def _listen(self) -> None:
        self._dispatcher.listen(bool(self._coming or len(self._registry)))

    # --- what there is -------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The last `_seq` of the newest commit that was handed to everybody whom it concerns."""
        return self._dispatcher.position

    def subscriptions(self) -> list[Subscription]:
        """All subscriptions, in the order in which they were made. Safe from any thread."""
        return self._registry.all()

    def find(self, live_id: str) -> Subscription | None:
        """The subscription of that name. Safe from any thread."""
        return self._registry.get(live_id)

    def count_of(self, user: str) -> int:
        """How many subscriptions a user has."""
        return self._registry.count_of_user(user)

    def stats(self) -> dict[str, int]:
        """Figures for `system.stats`. Safe from any thread."""
        return {
            "active_subscriptions": len(self._registry),
            "active_subscriptions_peak": self._registry.peak,
            "live_queries": self._dispatcher.index.queries,
            "live_deltas": self._delivery.deltas,
            "live_deliveries": self._delivery.deliveries,
            "live_replays": self._replays.started,
            "live_refusals": self._refusals,
            "live_behind": sum(len(waiting) for waiting in tuple(self._behind.values())),
            "live_ended_slow": self._ended_slow,
            "live_seq": self._dispatcher.position,
        }
