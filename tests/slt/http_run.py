"""Runs sqllogictest records through `POST /v1/api/sql`, many to a request where that leaves no doubt which one failed.

A request carries only queries or only statements. When one of them fails, the answer says which, and how many before it
took effect; those are not sent again, the others are. Half of the requests carry one record, because single statements
take other ways through the server (`sql.hot`) than batches do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from tests.slt import sqllogic
from tests.slt.differences import Differences
from tests.slt.sqllogic import Record

BATCH_SIZES = (1, 1, 8, 64)
MAX_BATCH_BYTES = 200_000
_CREATE_TABLE = re.compile(r"(?i)^\s*CREATE\s+TABLE\b")

Rows = list[list[object]]


@dataclass(frozen=True, slots=True)
class Refused:
    """What the server said instead of a result."""

    code: str
    message: str


@dataclass(slots=True)
class Outcome:
    """What a file came to. `wrong` are records that fail and are not listed, `mended` such that are and pass."""

    passed: int = 0
    failed: int = 0
    for_others: int = 0
    left_out: int = 0
    wrong: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The part of the records that ran which gave the expected answer."""
        ran = self.passed + self.failed
        return self.passed / ran if ran else 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Which queries of a file run. Statements run up to `max_statements`, where the file is cut."""

    part: float = 1.0
    max_statements: int | None = None
    seed: str = "1"


class FileRun:
    """One file against one namespace of a server. `streamed` asks for NDJSON, which is always made by DuckDB."""

    def __init__(
        self,
        client: httpx.Client,
        namespace: str,
        name: str,
        differences: Differences,
        sample: Sample,
        *,
        streamed: bool = False,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._differences = differences
        self._sample = sample
        self._streamed = streamed
        self._random = random.Random(f"{sample.seed} {name}")
        self._labels: dict[str, str] = {}
        self.outcome = Outcome()

    def run(self, text: str) -> Outcome:
        """Run the records of the file's text."""
        batch: list[Record] = []
        size, most = 0, 1
        for record in self._chosen(text):
            full = len(batch) >= most or size + len(record.sql) > MAX_BATCH_BYTES
            if batch and (full or record.is_query != batch[0].is_query):
                self._send(batch)
                batch, size = [], 0
            if not batch:
                most = 1 if self._streamed or record.fails else self._random.choice(BATCH_SIZES)
            batch.append(record)
            size += len(record.sql)
        self._send(batch)
        return self.outcome

    def _chosen(self, text: str) -> Iterator[Record]:
        statements = 0
        for record in sqllogic.records(text):
            if not record.is_ours:
                self.outcome.for_others += 1
            elif record.is_query and self._random.random() >= self._sample.part:
                self.outcome.left_out += 1
            else:
                statements += not record.is_query
                if self._sample.max_statements is not None and statements > self._sample.max_statements:
                    return
                yield record

    def _send(self, batch: Sequence[Record]) -> None:
        """Run records of one kind in order."""
        rest = list(batch)
        while rest:
            answer = self._post(rest)
            body = answer.json() if not self._streamed or answer.status_code != 200 else _of_lines(answer.text)
            if answer.status_code == 200:
                for record, result in zip(rest, body["results"], strict=True):
                    self._judge(record, _rows(result))
                return
            assert answer.status_code < 500, answer.text
            failure = body["error"]
            refused = Refused(failure["code"], failure["message"])
            if len(rest) > 1 and "statement" not in failure:
                for record in rest:
                    self._send([record])
                return
            place = failure["statement"] - 1 if len(rest) > 1 else 0
            applied = 0 if rest[0].is_query else failure.get("applied", 0)
            for record in rest[:applied]:
                self._judge(record, [])
            self._send(rest[applied:place])
            self._judge(rest[place], refused)
            rest = rest[place + 1 :]

    def _post(self, batch: Sequence[Record]) -> httpx.Response:
        sql = ";\n".join(_CREATE_TABLE.sub("CREATE SHARED TABLE", record.sql).rstrip(" \n;") for record in batch)
        headers = {"Accept": "application/x-ndjson"} if self._streamed and batch[0].is_query else {}
        body = {"sql": sql, "namespace_id": self._namespace}
        return self._client.post("/v1/api/sql", json=body, headers=headers)

    def _judge(self, record: Record, found: Rows | Refused) -> None:
        problem = self._problem(record, found)
        place = f"{self._name}:{record.line}"
        reason = self._differences.reason(self._name, record)
        if problem:
            self.outcome.failed += 1
            if reason is None:
                self.outcome.wrong.append(f"{place}: {record.sql}\n  {problem}")
        else:
            self.outcome.passed += 1
            if reason is not None:
                self.outcome.mended.append(f"{place}: {record.sql}\n  is listed as different: {reason}")

    def _problem(self, record: Record, found: Rows | Refused) -> str:
        """What is wrong with the answer, or nothing."""
        if isinstance(found, Refused):
            return "" if record.fails else f"{found.code}: {found.message}"
        if record.fails:
            return "it was not refused"
        if not record.is_query:
            return ""
        if not sqllogic.agrees(record, found):
            return f"{found[:5]} is not {record.expected[:20]}"
        if record.label:
            digest = sqllogic.digest(sqllogic.values(found, record.types, record.sort))
            if self._labels.setdefault(record.label, digest) != digest:
                return f"another answer than before under {record.label}"
        return ""


def _of_lines(text: str) -> dict[str, Any]:
    """An NDJSON answer in the form of a JSON one. Values have no types there: texts of digits are taken for numbers."""
    import json

    rows = [list(json.loads(line).values()) for line in text.splitlines()]
    return {"results": [{"rows": rows}]}


def _rows(result: Mapping[str, Any]) -> Rows:
    """The rows of a result with Decimals and integers where the wire has strings."""
    rows: Rows = result.get("rows", [])
    for place, column in enumerate(result.get("schema", ())):
        kind = column["data_type"]
        read = Decimal if isinstance(kind, dict) and "Decimal" in kind else int if kind == "BigInt" else None
        if read is not None:
            for row in rows:
                if isinstance(row[place], str):
                    row[place] = read(row[place])
    return rows
