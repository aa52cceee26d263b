"""The ceiling: bare Starlette under the same uvicorn, which decodes the request and answers what it was given.

Run as a module it serves the application below. The bench puts Headrace's own answer under a name, and then
sends Headrace's own requests to that name: the same bytes in, the same bytes out, no work between.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benches.load import Load, first_request
from benches.processes import ServerProcess, free_port
from benches.web import send

STREAM_CHUNK = 1 << 20

_answers: dict[str, object] = {}
_streams: dict[str, bytes] = {}


async def _echo(request: Request) -> Response:
    await request.json()
    return JSONResponse(_answers[request.path_params["name"]])


async def _put(request: Request) -> Response:
    _answers[request.path_params["name"]] = await request.json()
    return Response(status_code=204)


async def _drain(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"bytes": size})


async def _put_stream(request: Request) -> Response:
    _streams[request.path_params["name"]] = await request.body()
    return Response(status_code=204)


async def _stream(request: Request) -> Response:
    content = memoryview(_streams[request.path_params["name"]])

    async def chunks() -> AsyncIterator[memoryview]:
        for start in range(0, len(content), STREAM_CHUNK):
            yield content[start : start + STREAM_CHUNK]

    return StreamingResponse(chunks(), media_type="application/vnd.apache.arrow.stream")


application = Starlette(
    routes=[
        Route("/answers/{name}", _echo, methods=["POST"]),
        Route("/answers/{name}", _put, methods=["PUT"]),
        Route("/drain", _drain, methods=["POST"]),
        Route("/streams/{name}", _put_stream, methods=["PUT"]),
        Route("/streams/{name}", _stream, methods=["POST"]),
    ]
)


def uvicorn_command(target: str, port: int) -> list[str]:
    """How every Starlette peer is served: one process, uvloop, httptools, no access log."""
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", target, "--host", "127.0.0.1", "--port", str(port), *options]


class Echo:
    """The echo server."""

    name = "echo (ceiling)"
    syncs = "-"

    def __init__(self) -> None:
        self.base = ""
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start the application below uvicorn."""
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self._server = ServerProcess(uvicorn_command("benches.peer_echo:application", port), port, folder / "echo.log")
        self._server.start()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def mirror(self, name: str, load: Load) -> Load:
        """The same load against the echo server, answered as the original server answers its first request."""
        path, body = first_request(load)
        answer = send(load.method, load.base + path, body or None, load.headers)
        send("PUT", f"{self.base}/answers/{name}", answer)
        request = f'local path, body = (function(n)\n{load.request}\nend)(n)\nreturn "/answers/{name}", body'
        return replace(load, base=self.base, request=request, method="POST")

    def stream(self, name: str, content: bytes) -> Load:
        """A load whose every answer streams `content`."""
        send("PUT", f"{self.base}/streams/{name}", content)
        return Load(self.base, f'return "/streams/{name}", "{{}}"')

    def drain(self, load: Load) -> Load:
        """The same bodies against a route that only receives them."""
        request = f'local path, body = (function(n)\n{load.request}\nend)(n)\nreturn "/drain", body'
        return replace(load, base=self.base, request=request)
