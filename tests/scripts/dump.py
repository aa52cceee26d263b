"""What the sub-databases hold, in readable form."""

from __future__ import annotations

from collections.abc import Iterator

from storage import StorageEngine
from storage.batches import decode_batch, read_header
from storage.changes import decode_commit
from storage.dead import chunk_number, decode_dead
from storage.keys import parse_index_key, parse_partition, parse_row_key, parse_seq_key
from storage.layout import layout_of
from storage.reading import Reader
from storage.snapshots import Snapshot


def shown(value: object) -> str:
    """A value as text."""
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "true", False: "false"}[value]
    return str(value)


def dump(engine: StorageEngine, names: list[str]) -> list[str]:
    """The entries of some sub-databases, in key order."""
    lines = []
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        for name in names:
            found = list(_entries(snapshot, reader, name))
            lines += [f"{name} {line}" for line in found] or [f"{name} is empty"]
    return lines


def _entries(snapshot: Snapshot, reader: Reader, name: str) -> Iterator[str]:
    with reader.txn.cursor(db=getattr(reader.dbs, name)) as cursor:
        for raw, value in cursor.iternext():
            key = bytes(raw)
            match name:
                case "rows" | "history":
                    yield _batch(snapshot, key, value, history=name == "history")
                case "dead":
                    entries = " ".join(f"row {row} by {seq}" for row, seq in decode_dead(value).tolist())
                    yield f"{_place(snapshot, key[:-2])} chunk {chunk_number(key)}: {entries}"
                case "keys":
                    table_id, partition, index, encoded = parse_index_key(key)
                    where = _table(snapshot, table_id, partition)
                    yield f"{where} index {index} key {encoded.hex()}: _seq {int.from_bytes(value, 'big')}"
                case "commits":
                    yield _commit(snapshot, parse_seq_key(key), bytes(value))
                case "meta":
                    yield f"{key.decode()}: {int.from_bytes(value, 'big')}"
                case _:
                    yield f"{key!r}"


def _table(snapshot: Snapshot, table_id: int, partition: bytes) -> str:
    table = snapshot.catalog.table_by_id(table_id)
    return f"{table.name if table else f'(table {table_id})'}@{parse_partition(partition)}"


def _place(snapshot: Snapshot, key: bytes) -> str:
    table_id, partition, seq = parse_row_key(key)
    return f"{_table(snapshot, table_id, partition)} from {seq}"


def _batch(snapshot: Snapshot, key: bytes, value: memoryview, *, history: bool) -> str:
    header = read_header(value)
    place = f"{_place(snapshot, key)} to {header.last_seq}, schema {header.schema_version}"
    table = snapshot.catalog.table_by_id(parse_row_key(key)[0])
    if table is None:
        return f"{place}: {header.rows} rows"
    schema = layout_of(table).stored_schema(header.schema_version, history=history)
    rows = decode_batch(value, schema, None).to_pylist()
    return f"{place}: {' '.join(shown(tuple(row.values())) for row in rows)}"


def _commit(snapshot: Snapshot, first_seq: int, value: bytes) -> str:
    record = decode_commit(first_seq, value)
    parts = [f"{kind} {name}" for kind, name in record.objects]
    for change in record.partitions:
        table = snapshot.catalog.table_by_id(change.table_id)
        added = [f"{first}..{last}" for first, last in change.ranges()]
        old, by = change.superseded()
        ended = [f"{a} by {b}" for a, b in zip(old.tolist(), by.tolist(), strict=True)]
        did = [f"adds {', '.join(added)}"] * bool(added) + [f"ends {', '.join(ended)}"] * bool(ended)
        parts.append(f"{table.name if table else f'(table {change.table_id})'}@{change.user} {' and '.join(did)}")
    return f"{first_seq}..{record.last_seq} at {record.timestamp_us}: {'; '.join(parts)}"
