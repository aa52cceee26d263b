"""ISO 8601 text to the integers that store dates, times and timestamps; exact to the microsecond.

Accepted, with ASCII digits only:

==========  ==================================================================================
date        `YYYY-MM-DD`, years 0001 to 9999
time        `HH:MM`, `HH:MM:SS`, up to 9 decimals of a second, of which the 7th to 9th must be 0
timestamp   a date, or a date, `T` or a space, a time, and an optional offset (`Z`, `+05:30`, `-0800`, `+02`)
==========  ==================================================================================

Each function returns None when the text has another form, and raises ValueError with a sentence when the form
is right but the value is not (month 13, an offset where none can be kept, nanoseconds).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

_CLOCK = r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,6}(\d{0,3}))?)?"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(_CLOCK, re.ASCII)
_TIMESTAMP = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[Tt ]{_CLOCK}(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII)

_UTC_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH = _UTC_EPOCH.replace(tzinfo=None)
_EPOCH_DAY = _EPOCH.toordinal()


def date_days(text: str) -> int | None:
    """Days since the epoch."""
    if not _DATE.fullmatch(text):
        return None
    return date.fromisoformat(text).toordinal() - _EPOCH_DAY


def time_microseconds(text: str) -> int | None:
    """Microseconds since midnight."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    _check_fineness(match)
    clock = time.fromisoformat(text)
    return ((clock.hour * 60 + clock.minute) * 60 + clock.second) * 1_000_000 + clock.microsecond


def timestamp_microseconds(text: str, *, zoned: bool) -> int | None:
    """Microseconds since the epoch.

    With `zoned` (DATETIME) an offset is applied and its absence means UTC; without (TIMESTAMP) only the
    offset zero may be written, as there is nothing that could keep another one.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    _check_fineness(match)
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        delta = moment - _EPOCH
    elif moment.utcoffset() and not zoned:
        raise ValueError("a TIMESTAMP has no zone, so the offset would be lost; use DATETIME or convert to UTC")
    else:
        delta = moment - _UTC_EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _check_fineness(match: re.Match[str]) -> None:
    """Refuse digits beyond the microsecond unless they are zeros (`fromisoformat` drops them)."""
    if match[1] and match[1].strip("0"):
        raise ValueError("it is finer than a microsecond")
