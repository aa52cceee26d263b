"""The little that the example needs to talk to Headrace: sign in, run SQL, send a bulk body."""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit


class ServerError(Exception):
    """The server answered with an error: its status, code and message."""


class Client:
    """One connection to a Headrace server, kept open, with the token of one user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 2900, timeout=600)
        self._headers = {"Content-Type": "application/json"}
        login = self._send("/v1/api/auth/login", json.dumps({"user": user, "password": password}).encode())
        self._headers["Authorization"] = f"Bearer {login['access_token']}"

    def __enter__(self) -> Client:
        """The client itself; leaving the block closes its connection."""
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def sql(self, text: str, *params: object) -> list[dict[str, Any]]:
        """Run statements; one result for each."""
        body = json.dumps({"sql": text, "params": list(params)} if params else {"sql": text})
        results: list[dict[str, Any]] = self._send("/v1/api/sql", body.encode())["results"]
        return results

    def ingest(self, namespace: str, table: str, lines: Iterable[bytes]) -> dict[str, Any]:
        """Stream rows as NDJSON into the bulk endpoint: all or nothing."""
        path = f"/v1/api/ingest/{namespace}/{table}"
        return self._send(path, lines, {"Content-Type": "application/x-ndjson"})

    def _send(
        self, path: str, body: bytes | Iterable[bytes], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        while True:
            self._connection.request(
                "POST", path, body, {**self._headers, **(headers or {})}, encode_chunked=not isinstance(body, bytes)
            )
            response = self._connection.getresponse()
            answer = response.read()
            if response.status == http.HTTPStatus.TOO_MANY_REQUESTS and isinstance(body, bytes):
                time.sleep(float(response.headers.get("Retry-After", 1)))
                continue
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                message = f"{response.status}: {answer.decode(errors='replace')[:1000]}"
                raise ServerError(message)
            document: dict[str, Any] = json.loads(answer)
            return document


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that both scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--url", default="http://127.0.0.1:2900", help="the server (default %(default)s)")
    parser.add_argument("--user", default="admin", help="a user who may create namespaces (default %(default)s)")
    parser.add_argument("--password", required=True)
    return parser
