"""The functions that Headrace adds to SQL: identifiers and time, from an injected clock and source of randomness.

SNOWFLAKE_ID is 63 bits: 41 of milliseconds since 2024-01-01 UTC, 10 of node, 12 of counter. UUID_V7 and ULID
carry milliseconds since 1970 in front and a 12-bit counter behind them, the rest is random. All three ascend
within a process: the generators hand out *slots* (millisecond, counter), never one twice and never one behind
another; when a caller wants more than 4,096 in a millisecond, or the clock steps back, the slots run ahead of
the clock until it has caught up.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

import numpy as np
import numpy.typing as npt

from storage.seams import SYSTEM_CLOCK, Clock

SNOWFLAKE_EPOCH_MS = 1_704_067_200_000
"""2024-01-01T00:00:00Z."""

_COUNTER_BITS = 12
_CROCKFORD = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", dtype=np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_BITS_OF_FIVE = np.array([16, 8, 4, 2, 1], dtype=np.uint8)
_UUID_PLACES = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])


class Randomness(Protocol):
    """Gives unpredictable bytes."""

    def token(self, size: int) -> bytes:
        """`size` random bytes."""
        ...


class SystemRandomness:
    """The operating system's generator."""

    def token(self, size: int) -> bytes:
        """`size` random bytes."""
        return os.urandom(size)


class _Slots:
    """Hands out ascending (millisecond, counter) pairs as one integer, `millisecond << 12 | counter`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def take(self, now_ms: int, count: int) -> int:
        """The first of `count` consecutive slots that nobody else gets."""
        with self._lock:
            first = max(self._next, now_ms << _COUNTER_BITS)
            self._next = first + count
        return first


class FunctionContext:
    """Clock, randomness and generator state that the functions of one process share; safe from any thread."""

    def __init__(self, clock: Clock | None = None, randomness: Randomness | None = None, *, node: int = 0) -> None:
        if not 0 <= node < 1024:
            raise ValueError("node must be between 0 and 1023")
        self._clock: Clock = clock or SYSTEM_CLOCK
        self._random: Randomness = randomness or SystemRandomness()
        self._node = node
        self._snowflakes = _Slots()
        self._uuids = _Slots()
        self._ulids = _Slots()

    def now_us(self) -> int:
        """The present as the storage value of a Timestamp."""
        return self._clock.now_us()

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1_000

    def snowflake_id(self) -> int:
        """One identifier (see the module's first lines)."""
        slot = self._snowflakes.take(self._now_ms() - SNOWFLAKE_EPOCH_MS, 1)
        return (slot >> 12) << 22 | self._node << 12 | (slot & 0xFFF)

    def snowflake_ids(self, count: int) -> npt.NDArray[np.int64]:
        """`count` ascending identifiers."""
        first = self._snowflakes.take(self._now_ms() - SNOWFLAKE_EPOCH_MS, count)
        slots = np.arange(first, first + count, dtype=np.int64)
        return (slots >> 12) << 22 | self._node << 12 | (slots & 0xFFF)

    def uuid_v7_bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """`count` ascending version 7 UUIDs, one row of 16 bytes each."""
        out = self._stamped(self._uuids, count)
        counter = out[:, 6].astype(np.uint16) << 8 | out[:, 7]
        counter >>= 4
        out[:, 6] = 0x70 | (counter >> 8)
        out[:, 7] = counter & 0xFF
        out[:, 8] = 0x80 | (out[:, 8] & 0x3F)
        return out

    def uuid_v7s(self, count: int) -> list[str]:
        """`count` ascending version 7 UUIDs in their hyphenated form."""
        raw = self.uuid_v7_bytes(count)
        digits = np.empty((count, 32), dtype=np.uint8)
        digits[:, 0::2] = _HEX[raw >> 4]
        digits[:, 1::2] = _HEX[raw & 0xF]
        text = np.full((count, 36), ord("-"), dtype=np.uint8)
        text[:, _UUID_PLACES] = digits
        return _rows_as_text(text)

    def ulids(self, count: int) -> list[str]:
        """`count` ascending ULIDs (26 characters of Crockford's base 32)."""
        raw = self._stamped(self._ulids, count)
        bits = np.zeros((count, 130), dtype=np.uint8)
        bits[:, 2:] = np.unpackbits(raw, axis=1)
        return _rows_as_text(_CROCKFORD[bits.reshape(count, 26, 5) @ _BITS_OF_FIVE])

    def uuid_v7(self) -> str:
        """One version 7 UUID in its hyphenated form."""
        return self.uuid_v7s(1)[0]

    def ulid(self) -> str:
        """One ULID."""
        return self.ulids(1)[0]

    def _stamped(self, slots: _Slots, count: int) -> npt.NDArray[np.uint8]:
        """Rows of 16 bytes: 48 bits of milliseconds, 12 of counter, 68 random."""
        first = slots.take(self._now_ms(), count)
        stamps = np.arange(first, first + count, dtype=np.uint64) << np.uint64(4)
        out = np.frombuffer(bytearray(self._random.token(16 * count)), dtype=np.uint8).reshape(count, 16)
        low = out[:, 7] & 0x0F
        out[:, :8] = stamps.astype(">u8").view(np.uint8).reshape(count, 8)
        out[:, 7] |= low
        return out


def _rows_as_text(rows: npt.NDArray[np.uint8]) -> list[str]:
    width = rows.shape[1]
    text = np.ascontiguousarray(rows).tobytes().decode("ascii")
    return [text[i : i + width] for i in range(0, len(text), width)]
