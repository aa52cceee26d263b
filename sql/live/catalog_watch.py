"""What changes of the catalog and of accounts mean for subscriptions.

A query of a changed table or view is bound anew; where that fails (the table is gone, it may no longer be read, a
column is gone) its subscriptions end with that error. So they do where a view is another one now. A subscription ends
when its user was dropped or has another role now. Subscriptions of other tables and users are not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from sql.errors import PermissionDenied, SqlError, TableNotFound
from sql.identity import Identity
from sql.live.binding import rebind
from sql.live.evaluation import Evaluation, as_client_error
from sql.live.interface import LiveQuery
from sql.live.registry import Registry
from sql.live.subscription import Subscription, SubscriptionState
from sql.live.table_query import TableQuery
from storage.catalog import USER_KIND, UserDef
from storage.changes import ChangeSet
from storage.engine import StorageEngine
from storage.objects import TABLE, VIEW
from storage.views import ReadView

log = logging.getLogger("headrace.live")

Verdict = LiveQuery | SqlError


class CatalogWatch:
    """Sees commits that changed definitions. `detach` sets a LIVE subscription to REPLAY, `resume` lets it go on."""

    def __init__(
        self,
        engine: StorageEngine,
        evaluation: Evaluation,
        registry: Registry,
        detach: Callable[[Subscription], None],
        resume: Callable[[Subscription], None],
        end: Callable[[Subscription, Exception], None],
    ) -> None:
        self._engine = engine
        self._evaluation = evaluation
        self._registry = registry
        self._detach = detach
        self._resume = resume
        self._end = end
        self.seq = 0
        """The newest commit that changed definitions: what was bound before has to be looked at."""

    async def changed(self, commit: ChangeSet) -> None:
        """See to a commit with `objects`."""
        self.seq = commit.last_seq
        tables = {int(name) for kind, name in commit.objects if kind == TABLE}
        users = {name for kind, name in commit.objects if kind == USER_KIND}
        concerned = [subscription for user in users for subscription in self._registry.of_user(user)]
        views = {name for kind, name in commit.objects if kind == VIEW}
        bound = self._registry.of_tables(tables)
        if views:
            known = set(map(id, bound))
            through = (s for s in self._registry.all() if not views.isdisjoint(_views_of(s.query)))
            bound += [s for s in through if id(s) not in known]
        await self._review(bound, concerned)

    async def recheck(self, subscription: Subscription) -> None:
        """Look again at one that was bound before the newest change; never raises."""
        try:
            await self._review([subscription], [subscription])
        except Exception as error:  # noqa: BLE001  whatever it is, the subscription must not go on unchecked
            self._end(subscription, error)

    async def _review(self, bound: Iterable[Subscription], accounts: Iterable[Subscription]) -> None:
        queries = {id(s.query): s.query for s in bound if s.query.table_id is not None}
        identities = {s.request.identity for s in accounts}
        if not queries and not identities:
            return
        verdicts, refusals = await self._evaluation.run(lambda: self._judge(queries, identities))
        for subscription in tuple(accounts):
            refusal = refusals.get(subscription.request.identity)
            if refusal is not None:
                self._end(subscription, refusal)
        anew: list[tuple[Subscription, LiveQuery]] = []
        for subscription in tuple(bound):
            verdict = verdicts.get(id(subscription.query))
            if isinstance(verdict, SqlError):
                self._end(subscription, verdict)
            elif verdict is not None and subscription.state is not SubscriptionState.ENDED:
                anew.append((subscription, verdict))
        self._swap(anew)

    def _swap(self, anew: list[tuple[Subscription, LiveQuery]]) -> None:
        """Take all of them from the others first: the key of a query may be the same as before."""
        live = [subscription for subscription, _ in anew if subscription.state is SubscriptionState.LIVE]
        for subscription in live:
            self._detach(subscription)
        for subscription, query in anew:
            subscription.query = query
        for subscription in live:
            self._resume(subscription)

    def _judge(
        self, queries: dict[int, LiveQuery], identities: set[Identity]
    ) -> tuple[dict[int, Verdict], dict[Identity, SqlError]]:
        """On a thread."""
        with self._engine.snapshot(purpose="binding live queries anew") as snapshot:
            refusals = {identity: _refusal(identity, snapshot) for identity in identities}
            verdicts = {place: _verdict(query, snapshot) for place, query in queries.items()}
        return verdicts, {identity: error for identity, error in refusals.items() if error is not None}


def _verdict(query: LiveQuery, view: ReadView) -> Verdict:
    try:
        anew = rebind(query, view)
    except Exception as error:  # noqa: BLE001  whatever it is, the others must be reviewed, and this one must end
        return as_client_error(error)
    if anew.table_id != query.table_id:
        return TableNotFound("The table of the live query was dropped; there is another one of its name now.")
    if _views_of(anew) != _views_of(query):
        return TableNotFound("A view of the live query was replaced by another one; subscribe again.")
    return anew


def _views_of(query: LiveQuery) -> dict[str, object]:
    """The views that a query reads, by full name, with what they are."""
    if not isinstance(query, TableQuery):
        return {}
    return {name: (text, columns) for name, text, columns in query.plan.views}


def _refusal(identity: Identity, view: ReadView) -> SqlError | None:
    user = view.get_object(USER_KIND, identity.user, UserDef)
    if user is None or user.deleted_at is not None:
        return PermissionDenied(f"User '{identity.user}' was dropped.")
    if user.role != identity.role.value:
        return PermissionDenied(
            f"The role of user '{identity.user}' changed from {identity.role.value} to {user.role}; sign in again."
        )
    return None
