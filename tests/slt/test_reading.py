"""The runner reads the format, compares as it says, and knows what is listed."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.slt import differences, sqllogic
from tests.slt.http_run import FileRun, Sample
from tests.slt.sqllogic import Record

NONE_LISTED = differences.read("")


def test_runner_reads_the_format() -> None:
    text = "statement ok\nCREATE TABLE t(a)\n\nonlyif mysql # why\nquery IT rowsort l-1\nSELECT 1,\n2\n----\n1\n2\n"
    statement, query = sqllogic.records(text)
    assert (statement.sql, statement.fails, statement.is_ours) == ("CREATE TABLE t(a)", False, True)
    assert (query.sql, query.types, query.sort, query.label) == ("SELECT 1,\n2", "IT", "rowsort", "l-1")
    assert not query.is_ours
    assert query.expected == ("1", "2")
    assert sqllogic.values([(2, ""), (1.0, None)], "IT", "rowsort") == ["1", "NULL", "2", "(empty)"]
    assert sqllogic.values([(2, "\x01")], "RT", "valuesort") == ["2.000", "@"]
    hashed = Record(1, "", is_query=True, types="I", expected=("2 values hashing to 6ddb4095eb719e2a9f0a3f95677d24e0",))
    assert sqllogic.agrees(hashed, [(1,), (2,)])
    assert not sqllogic.agrees(hashed, [(2,), (1,)])


def test_the_list_is_read() -> None:
    listed = differences.read("# why\n\na/b.test:7 | a reason\n~ DROP\\s+(X|Y) | no X\n")
    assert listed.reason("a/b.test", Record(7, "SELECT 1")) == "a reason"
    assert listed.reason("a/b.test", Record(8, "drop  x y")) == "no X"
    assert listed.reason("a/b.test", Record(8, "drop  x y", fails=True)) is None
    assert listed.reason("other.test", Record(7, "SELECT 1")) is None
    for bad in ("a.test:7", "a.test | reason", "a.test:7 | x\na.test:7 | y"):
        with pytest.raises(ValueError, match="line"):
            differences.read(bad)


FILE = """
statement ok
CREATE TABLE t(a INTEGER)

statement ok
INSERT INTO t VALUES(1)

statement ok
BAD

statement ok
INSERT INTO t VALUES(2)

statement error
WRONG

query I
SELECT 1
----
1

query I
SELECT 2
----
3

query I
BAD

query I
SELECT 4
----
4
"""


class FakeServer:
    """Answers `SELECT n` with n and refuses BAD, keeping count of what took effect."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        statements = json.loads(request.content)["sql"].split(";\n")
        results = []
        for place, sql in enumerate(statements):
            if sql == "BAD":
                error = {"code": "INVALID_SQL", "message": "bad", "statement": place + 1, "applied": place}
                return httpx.Response(400, json={"error": error})
            number = sql.removeprefix("SELECT ")
            results.append({"rows": [[int(number)]]} if number.isdigit() else {"row_count": 1})
            if not number.isdigit():
                self.done.append(sql)
        return httpx.Response(200, json={"results": results})


@pytest.mark.parametrize("seed", range(8))
def test_each_record_is_judged_once_however_they_are_batched(seed: int) -> None:
    server = FakeServer()
    with httpx.Client(base_url="http://test", transport=httpx.MockTransport(server)) as client:
        listed = differences.read("f:9 | it is bad\nf:15 | it is not refused\nf:18 | it passes")
        outcome = FileRun(client, "ns", "f", listed, Sample(seed=str(seed))).run(FILE)
    assert server.done == [
        "CREATE SHARED TABLE t(a INTEGER)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)", "WRONG",
    ]  # fmt: skip
    assert (outcome.passed, outcome.failed) == (5, 4)
    assert [text.split(":")[1] for text in outcome.wrong] == ["23", "28"]
    assert [text.split(":")[1] for text in outcome.mended] == ["18"]
