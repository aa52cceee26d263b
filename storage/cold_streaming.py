"""Scans whose rows are decoded while they are read, so that they need neither memory nor a file to wait in.

A scan with cold parts may be read as a stream of batches: some row groups are decoded ahead by the threads that read
files, and what the reader has consumed is given back. Text that Parquet holds as a small dictionary may be left so: a
few bytes a row are copied instead of the text, and whoever groups or compares it looks at each text once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import pyarrow as pa

from storage.cold_reading import ColdPart, ColdReads, Part

ENCODED = pa.dictionary(pa.int32(), pa.string())
"""The type of text columns that stay encoded."""


class RowStream:
    """The rows of a scan, in order. They may be read several times, also at once; each reading decodes them anew.

    `check` is called between batches and may raise. The view of the scan has to stay open, and its pages in place,
    while they are read. `encodable` names the text columns that may come as dictionary arrays.
    """

    def __init__(
        self,
        reads: ColdReads,
        schema: pa.Schema,
        parts: Sequence[Part],
        check: Callable[[], object],
        encodable: Collection[str] = (),
    ) -> None:
        self._reads = reads
        self._parts = parts
        self._check = check
        self._encoded = self._repeating(schema, encodable)
        self.schema = schema
        """The schema of the batches."""
        for place in self._encoded:
            self.schema = self.schema.set(place, schema.field(place).with_type(ENCODED))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows. Raises StorageCorrupt, StorageUnavailable, and what `check` raises."""
        read = self._reads.ahead(self._parts, self._read)
        try:
            for batches in read:
                self._check()
                yield from batches
        finally:
            read.close()

    def _read(self, part: Part) -> list[pa.RecordBatch]:
        if isinstance(part, ColdPart):
            encoded = {part.plan.steps[place].position for place in self._encoded}
            return self._reads.read_encoded(part, encoded, self.schema)
        if not self._encoded:
            return [part]
        columns = [
            column.dictionary_encode() if place in self._encoded else column
            for place, column in enumerate(part.columns)
        ]
        return [pa.RecordBatch.from_arrays(columns, schema=self.schema)]

    def _repeating(self, schema: pa.Schema, names: Collection[str]) -> tuple[int, ...]:
        """The places of those columns that all cold parts have as small dictionaries."""
        cold = [part for part in self._parts if isinstance(part, ColdPart)]
        places = {place for place, field in enumerate(schema) if field.name in names and field.type == pa.string()}
        for part in cold:
            steps = part.plan.steps
            places = {place for place in places if steps[place].position > 0 and steps[place].cast is None}
        if not places or sum(part.request.rows for part in cold) < sum(
            part.num_rows for part in self._parts if isinstance(part, pa.RecordBatch)
        ):
            return ()

        def repeating(part: ColdPart) -> set[int]:
            found = self._reads.repeating(part, [part.plan.steps[place].position for place in places])
            return {place for place in places if part.plan.steps[place].position in found}

        for found in self._reads.ahead(cold, repeating):
            self._check()
            places &= found
        return tuple(sorted(places))
