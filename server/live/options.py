"""Checks what a client says about the rows that come first."""

from __future__ import annotations

from server.live.failures import Code, Told
from server.live.messages import MAX_SEQ, Number, SnapshotOptions
from sql.live.settings import LiveSettings
from sql.live.subscription import LiveOptions

_LONGEST_NUMBER = 19


class OptionRefused(Exception):
    """An option that cannot be; `told` is for the client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.told = Told(code, message)


def checked(options: SnapshotOptions | None, settings: LiveSettings) -> LiveOptions | None:
    """The options of a subscription; raises OptionRefused. `from` takes precedence over its alias."""
    if options is None:
        return None
    batch_size = _number("batch_size", options.batch_size, 1, settings.max_batch_size)
    last_rows = _number("last_rows", options.last_rows, 0, MAX_SEQ)
    start = _number("from", options.from_ if options.from_ is not None else options.from_seq_id, 0, MAX_SEQ)
    size = batch_size or settings.batch_size
    if last_rows is not None and start is None and last_rows > size:
        raise OptionRefused(
            Code.UNSUPPORTED,
            f"last_rows ({last_rows}) may not be larger than batch_size ({size}): it comes as one batch",
        )
    return LiveOptions(batch_size=batch_size, last_rows=last_rows, from_=start)


def _number(name: str, value: Number | None, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()) or len(value) > _LONGEST_NUMBER:
            raise OptionRefused(Code.INVALID_OPTION, f"{name} must be a whole number from {least} to {most}")
        value = int(value)
    if not least <= value <= most:
        raise OptionRefused(Code.INVALID_OPTION, f"{name} must be from {least} to {most}, not {value}")
    return value
