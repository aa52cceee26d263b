"""The part of the check command that looks at the files of the cold tier, and whether stubs and segments agree.

What the rows in them say is checked with their partition (`storage.check_rows`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pyarrow as pa
import xxhash

from storage.catalog import Catalog
from storage.cold_segments import OTHER_PREFIX, Segment, SegmentStatus, partition_of_key, segment_items
from storage.cold_stubs import read_stub
from storage.errors import StorageCorrupt, StorageUnavailable
from storage.keys import row_key_prefix
from storage.reading import Reader

log = logging.getLogger("headrace.storage")

Problem = tuple[str, str, str]
"""Structure, place, sentence."""
_BLOCK = 4 << 20


def check_segments(reader: Reader, catalog: Catalog) -> Iterator[Problem]:
    """What is wrong with committed segments, their files and the stubs that refer to them."""
    for key, segment in segment_items(reader):
        table = catalog.table_by_id(segment.table_id)
        if table is None:
            continue  # dropped; reclaiming it comes to its files
        place = f"table {table.full_name}, segment {segment.segment_id} ({segment.path})"
        if segment.status is not SegmentStatus.COMMITTED:
            yield "segments", place, f"stands among the committed ones as {segment.status}"
        for sentence in _stubs(reader, partition_of_key(key), segment):
            yield "segments", place, sentence
        for sentence in _file(reader, segment):
            yield "segments", place, sentence
    for _, segment in segment_items(reader, prefix=OTHER_PREFIX):
        if segment.status is SegmentStatus.COMMITTED:
            yield "segments", f"segment {segment.segment_id} ({segment.path})", "stands among those that are not read"


def _stubs(reader: Reader, partition: bytes, segment: Segment) -> Iterator[str]:
    """Every row group has one stub, and their rows are the segment's."""
    prefix = row_key_prefix(segment.table_id, partition)
    groups: list[int] = []
    rows = 0
    start = prefix + segment.min_seq.to_bytes(8, "big")
    stop = prefix + (segment.max_seq + 1).to_bytes(8, "big")
    for batch in reader.stored(prefix, start=start, stop=stop):
        try:
            stub = read_stub(batch.value) if batch.header.flags else None
        except StorageCorrupt as error:
            yield str(error)
            continue
        if stub is not None and stub.segment_id == segment.segment_id:
            groups.append(stub.row_group)
            rows += batch.header.rows
    if groups != list(range(segment.row_groups)):
        yield f"has {segment.row_groups} row groups, stubs name {groups}"
    elif rows != segment.rows:
        yield f"has {segment.rows} rows, its stubs {rows}"


def _file(reader: Reader, segment: Segment) -> Iterator[str]:
    """The file is there and is what was written."""
    state = xxhash.xxh3_64()
    size = 0
    try:
        with reader.cold.open(segment) as file:
            while block := file.read(_BLOCK):
                state.update(block)
                size += len(block)
    except StorageUnavailable as error:
        log.warning("segment %d (%s) was not checked: %s", segment.segment_id, segment.path, error)
        return
    except FileNotFoundError:
        yield "the file is missing"
        return
    except (OSError, pa.ArrowException) as error:
        yield f"the file cannot be read: {error}"
        return
    if size != segment.bytes:
        yield f"the file has {size} bytes, {segment.bytes} were written"
    elif state.intdigest() != segment.checksum:
        yield "the file does not match its checksum"
