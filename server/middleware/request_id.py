"""Request ids: taken from `X-Request-ID` if it is harmless in logs and headers, otherwise made here."""

from __future__ import annotations

import itertools
import re
import secrets

_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")


class RequestIds:
    """Makes ids that are unique over restarts: a random prefix a process, then a counter."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._next = itertools.count(1).__next__

    def choose(self, given: bytes | None) -> str:
        """Return the client's id if there is a usable one, else a new one."""
        if given is not None and _SANE.match(given):
            return given.decode("ascii")
        return f"{self._prefix}-{self._next():x}"
