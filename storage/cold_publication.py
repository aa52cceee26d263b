"""What a table has in cold files, as other engines are to see it: the files, and which rows of each are dead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from storage.catalog import TableDef
from storage.cold_segments import Segment, partition_of_key, segment_id_of_key, segment_keys, segments_of
from storage.cold_stubs import read_stub
from storage.errors import StorageCorrupt
from storage.keys import table_prefix
from storage.reading import Reader


class LiveFile(NamedTuple):
    """A committed segment. `marked` are its batches with dead rows: where each begins in the file, and its key."""

    segment: Segment
    dead: int
    marked: tuple[tuple[int, bytes], ...]


class ShownFile(NamedTuple):
    """What of a committed segment decides whether a publication is behind."""

    segment_id: int
    partition: bytes
    dead: int


def shown_files(reader: Reader, table_id: int) -> list[ShownFile]:
    """The files of a table by segment id, told from keys alone where no row is dead: very many users cost little."""
    dead: dict[int, int] = {}
    for key, count in reader.dead_counts(table_prefix(table_id)).items():
        value = reader.txn.get(key, db=reader.dbs.rows)
        if value is not None and reader.header(key, value).flags:
            segment_id = read_stub(value).segment_id
            dead[segment_id] = dead.get(segment_id, 0) + count
    found = []
    for key in segment_keys(reader, table_id):
        segment_id = segment_id_of_key(key)
        found.append(ShownFile(segment_id, partition_of_key(key), dead.get(segment_id, 0)))
    return sorted(found)


def live_files(reader: Reader, table_id: int) -> list[LiveFile]:
    """The files of a table by segment id. Raises StorageCorrupt when stubs and segments do not belong together."""
    prefix = table_prefix(table_id)
    segments = {segment.segment_id: segment for segment in segments_of(reader, table_id)}
    if not segments:
        return []  # without a look at the batches: most tables have none, and each is asked about every minute
    counts = reader.dead_counts(prefix)
    groups: dict[int, list[tuple[int, int, bytes]]] = {}
    for batch in reader.stored(prefix):
        if batch.header.flags:
            stub = read_stub(batch.value)
            groups.setdefault(stub.segment_id, []).append((stub.row_group, batch.header.rows, batch.key))
    if groups.keys() != segments.keys():
        raise StorageCorrupt(f"the stubs of table {table_id} do not name the segments that it has")
    return [_file(segment, sorted(groups[number]), counts) for number, segment in sorted(segments.items())]


def _file(segment: Segment, groups: list[tuple[int, int, bytes]], counts: dict[bytes, int]) -> LiveFile:
    whole = [group for group, _, _ in groups] == list(range(segment.row_groups))
    if not whole or sum(rows for _, rows, _ in groups) != segment.rows:
        raise StorageCorrupt(f"segment {segment.segment_id} has other rows than its stubs")
    start = dead = 0
    marked = []
    for _, rows, key in groups:
        if key in counts:
            marked.append((start, key))
            dead += counts[key]
        start += rows
    return LiveFile(segment, dead, tuple(marked))


def dead_places(reader: Reader, file: LiveFile) -> npt.NDArray[np.uint32]:
    """The places of a file's dead rows, from 0, in order."""
    parts = [reader.dead_of(key)["row"].astype(np.uint32) + np.uint32(start) for start, key in file.marked]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint32)


def digest_of(table: TableDef, files: Iterable[tuple[int, int]]) -> str:
    """Changes whenever other engines are to see something else. `files` are segment ids, each with its dead rows.

    Dead rows of a file only grow in number.
    """
    found = xxhash.xxh3_128()
    found.update(f"{table.table_id} {table.full_name} {table.schema_version} {table.options}".encode())
    for segment_id, dead in files:
        found.update(f";{segment_id} {dead}".encode())
    return found.hexdigest()
