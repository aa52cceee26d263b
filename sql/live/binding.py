"""From the text of a subscription to a live query: the plan for its shape, cached, and the values of its arguments.

Texts of one shape share a plan: literals of `column = literal` comparisons are lifted out (`sql.templates`), so that
a hundred thousand queries `… WHERE chat = 17` are one plan and a hundred thousand small objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from sql.identity import Identity
from sql.live.interface import LiveQuery
from sql.services import Services
from storage.views import ReadView


def bind_live(
    sql: str, params: Sequence[object], namespace: str, identity: Identity, services: Services, view: ReadView
) -> LiveQuery:
    """The live query of a text. Parses, and may ask DuckDB for types: call it on a worker thread.

    `params` are JSON values, `$1` first. Raises InvalidSql, Unsupported, InvalidParameter, TableNotFound,
    PermissionDenied and the errors of `sql.dialect`, with line and column in `sql`.
    """
    raise NotImplementedError


def bind_cached(
    sql: str, params: Sequence[object], namespace: str, identity: Identity, services: Services, view: ReadView
) -> LiveQuery | None:
    """The live query when its shape is planned already, for the event loop; None: ask `bind_live` elsewhere."""
    raise NotImplementedError


def rebind(query: LiveQuery, view: ReadView) -> LiveQuery:
    """The same query after the catalog changed: same text, arguments, start time and identity. As `bind_live`."""
    raise NotImplementedError
