"""Deletion vectors of Delta Lake: bitmaps of dead rows, and the file that a commit keeps its bitmaps in.

A file begins with the byte 1. Each bitmap stands behind its length (u32, big-endian) and before its CRC-32 (the same):
a magic number (u32, little-endian), the number of 32-bit bitmaps (u64), and of each its number (u32) and the bitmap in
the portable form of Roaring. Files of 2^32 rows are beyond us, so there is one bitmap, number 0.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from sql.lake.actions import DeletionVector

FOLDER: Final = "_dv"
"""Where the files lie, below the table's folder; also the prefix of their names in the log."""
_MAGIC: Final = 1_681_511_377
_HEAD: Final = struct.Struct("<IQI")
_LENGTH: Final = struct.Struct(">I")
_Z85: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


class VectorFile:
    """The bitmaps of one commit."""

    def __init__(self) -> None:
        self._id = uuid.uuid4()
        self._parts = [b"\x01"]
        self._length = 1

    def add(self, places: npt.NDArray[np.uint32]) -> DeletionVector:
        """Put a bitmap in."""
        from pyroaring import BitMap

        bitmap = BitMap(places)
        bitmap.run_optimize()
        data = _HEAD.pack(_MAGIC, 1, 0) + bitmap.serialize()
        found = DeletionVector("u", FOLDER + _z85(self._id.bytes), self._length, len(data), len(bitmap))
        self._parts += [_LENGTH.pack(len(data)), data, _LENGTH.pack(zlib.crc32(data))]
        self._length += len(data) + 8
        return found

    @property
    def name(self) -> str:
        """The path below the table's folder."""
        return _name(self._id)

    @property
    def data(self) -> bytes:
        """The bytes of the file; empty when no bitmap was put in."""
        return b"".join(self._parts) if len(self._parts) > 1 else b""


def files_of(vectors: Iterable[DeletionVector | None]) -> set[str]:
    """The files that deletion vectors refer to, by their paths below the table's folder."""
    return {
        _name(uuid.UUID(bytes=_from_z85(found.path_or_inline_dv[-20:])))
        for found in vectors
        if found is not None and found.storage_type == "u"
    }


def _name(number: uuid.UUID) -> str:
    return f"{FOLDER}/deletion_vector_{number}.bin"


def _z85(data: bytes) -> str:
    """Base85 with the alphabet of ZeroMQ."""
    letters = []
    for (word,) in struct.iter_unpack(">I", data):
        letters += [_Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(letters)


def _from_z85(text: str) -> bytes:
    words = []
    for at in range(0, len(text), 5):
        word = 0
        for letter in text[at : at + 5]:
            word = word * 85 + _Z85.index(letter)
        words.append(word)
    return struct.pack(f">{len(words)}I", *words)
