"""Listening: the socket, and uvicorn set up with our protocol, limits and way of stopping."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import threading
from collections.abc import Callable, Generator

import uvicorn
from starlette.types import ASGIApp

from server.config import Config
from server.middleware.client_address import ClientAddresses
from server.middleware.rate_limit import RateLimits
from server.protocol import make_protocol
from server.websocket.protocol import make_websocket_protocol


class ListenError(Exception):
    """The address cannot be listened on; the message is a sentence."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; nobody can connect until the server starts."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ListenError(f"Cannot listen on {host}: {error.strerror or error}.") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == 98:
            message = f"Port {port} on {host} is taken by another process; choose another with --port."
        else:
            message = f"Cannot listen on {host}:{port}: {error.strerror}."
        raise ListenError(message) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a bound socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """uvicorn's server, which tells when it listens and leaves signals to the event loop.

    The first SIGINT or SIGTERM lets running requests finish, for as long as configured; a second SIGINT cuts them.
    """

    def __init__(
        self, config: uvicorn.Config, on_listening: Callable[[], None], on_stopping: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell, then stop: answers without an end have to be ended by those who send them."""
        if self._on_stopping is not None:
            self._on_stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at SIGINT and SIGTERM, without ending the process by the signal afterwards; main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def make_server(
    app: ASGIApp,
    config: Config,
    limits: RateLimits,
    on_listening: Callable[[], None],
    on_stopping: Callable[[], None] | None = None,
) -> HttpServer:
    """Set uvicorn up; `on_stopping` is called when it begins to stop, before it waits for running requests."""
    performance = config.performance
    addresses = ClientAddresses(config.security.trusted_proxy_ranges)
    settings = uvicorn.Config(
        app,
        loop="none",
        http=make_protocol(performance, limits, addresses),
        ws=make_websocket_protocol(config),
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=performance.backlog,
        limit_concurrency=performance.max_connections,
        timeout_keep_alive=performance.keepalive_timeout,
        timeout_graceful_shutdown=config.server.shutdown_timeout_seconds,
    )
    raise_file_limit(performance.max_connections)
    return HttpServer(settings, on_listening, on_stopping)


def raise_file_limit(connections: int) -> None:
    """Allow as many open files as the connections need, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
