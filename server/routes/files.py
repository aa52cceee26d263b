"""`GET /v1/files/{namespace}/{table_name}/{subfolder}/{file_id}`: the bytes of a FILE cell, whole or a range.

Errors are `{"error": sentence, "code": code}`; those of the bearer rules are in the SQL shape.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from server.exchange import exchange_of
from server.state import AppState

FILES_PATH = "/v1/files/{namespace}/{table_name}/{subfolder}/{file_id}"
_ANYTHING = "/v1/files/{path:path}"


class FilesRoute:
    """The endpoint, over the state."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """Return its routes. A path with more or fewer parts is an invalid one, not an unknown one."""
        return [
            Route(FILES_PATH, self.download, methods=["GET"], name="download"),
            Route(_ANYTHING, self.download, methods=["GET"], name="download-invalid", include_in_schema=False),
        ]

    async def download(self, request: Request) -> ASGIApp:
        """Answer one download."""
        from server.files.download import answer_download  # only where files are used: an idle server is to be small

        exchange = exchange_of(request.scope)
        state = self._state
        identity = state.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        exchange.user = identity.user
        state.limits.check_query(identity.user)
        return await answer_download(state, request, identity)
