"""`/openapi.json`, and `/docs`: the same for people, without anything from the network."""

from __future__ import annotations

from functools import cache

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def routes() -> list[Route]:
    """Return both routes."""
    return [Route("/openapi.json", _openapi), Route("/docs", _docs)]


async def _openapi(request: Request) -> Response:
    return Response(_document(), media_type="application/json")


async def _docs(request: Request) -> Response:
    return HTMLResponse(_page(), headers={"Content-Security-Policy": _POLICY})


@cache
def _document() -> bytes:
    from server.operations import document

    return msgspec.json.encode(document())


@cache
def _page() -> str:
    from server.docs_page import render
    from server.operations import document

    return render(document())
