"""Response bodies and streams have the shapes of the wire format, field by field."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from sql.errors import ExecutionError, InvalidSql, SqlError
from sql.rendering import BigintMode, arrow_chunks, encode_error, encode_success, json_rows, ndjson_chunks
from sql.results import ResultColumn, StatementResult
from storage.types import BIGINT, DOUBLE, TEXT, decimal

COLUMNS = (ResultColumn("id", BIGINT, ("pk", "nn", "uq")), ResultColumn("name", TEXT))
TABLE = pa.table({"id": pa.array([1, 2**60]), "name": pa.array(["a", None])})


def test_a_row_result() -> None:
    body = encode_success([StatementResult(COLUMNS, TABLE, as_user="alice")], 1.23456)
    assert body == (
        b'{"status":"success","results":[{"schema":['
        b'{"name":"id","data_type":"BigInt","index":0,"flags":["pk","nn","uq"]},'
        b'{"name":"name","data_type":"Text","index":1}],'
        b'"rows":[[1,"a"],["1152921504606846976",null]],"row_count":2,"as_user":"alice"}],"took":1.235}'
    )


def test_rows_that_are_ready() -> None:
    ready = encode_success([StatementResult(COLUMNS, rows=[[1, "a"]], as_user="alice")], 0.5)
    assert ready == encode_success([StatementResult(COLUMNS, TABLE.slice(0, 1), as_user="alice")], 0.5)


def test_a_row_result_without_rows_has_an_empty_list() -> None:
    (result,) = json.loads(encode_success([StatementResult(COLUMNS, TABLE.slice(0, 0))], 0))["results"]
    assert result["rows"] == []
    assert result["row_count"] == 0


def test_commands_have_no_schema_and_no_rows() -> None:
    results = [
        StatementResult(message="Namespace created", as_user="root"),
        StatementResult(message="Inserted 3 row(s)", row_count=3, as_user="root"),
    ]
    assert json.loads(encode_success(results, 2.0)) == {
        "status": "success",
        "results": [
            {"row_count": 0, "message": "Namespace created", "as_user": "root"},
            {"row_count": 3, "message": "Inserted 3 row(s)", "as_user": "root"},
        ],
        "took": 2.0,
    }


def test_returning_has_rows_and_the_affected_count() -> None:
    result = StatementResult(COLUMNS, TABLE, row_count=2, message="Updated 2 row(s)")
    (body,) = json.loads(encode_success([result], 0))["results"]
    assert (len(body["rows"]), body["row_count"], body["message"]) == (2, 2, "Updated 2 row(s)")


def test_parametrised_types_are_objects_in_the_schema() -> None:
    column = ResultColumn("d", decimal(5, 2))
    body = json.loads(encode_success([StatementResult((column,), rows=[])], 0))
    assert body["results"][0]["schema"][0]["data_type"] == {"Decimal": {"precision": 5, "scale": 2}}


def test_an_error_with_nothing_known() -> None:
    assert encode_error(ExecutionError("no"), 1.0) == (
        b'{"status":"error","results":[],"took":1.0,'
        b'"error":{"code":"SQL_EXECUTION_ERROR","message":"no","details":null}}'
    )


def test_an_error_with_place_and_statement() -> None:
    error = InvalidSql("unknown column", line=2, column=8, excerpt="SELECT x\n       ^")
    error.statement, error.applied = 2, 1
    entry = json.loads(encode_error(error, 1.0))["error"]
    assert entry == {
        "code": "INVALID_SQL",
        "message": "unknown column",
        "details": "line 2, column 8\nSELECT x\n       ^\n1 statement before it took effect",
        "line": 2,
        "column": 8,
        "statement": 2,
        "applied": 1,
    }
    error.applied = 3
    assert "3 statements before it took effect" in json.loads(encode_error(error, 1.0))["error"]["details"]


def test_an_error_that_quotes_a_lone_surrogate() -> None:
    assert json.loads(encode_error(SqlError("\ud800"), 1.0))["error"]["message"] == "\ud800"


def test_ndjson() -> None:
    chunks = list(ndjson_chunks(TABLE.to_batches(max_chunksize=1), COLUMNS, BigintMode.STRING))
    assert chunks == [b'{"id":"1","name":"a"}\n', b'{"id":"1152921504606846976","name":null}\n']
    big = pa.RecordBatch.from_arrays([pa.array(range(40_000))], ["id"])
    parts = list(ndjson_chunks([big], COLUMNS[:1]))
    assert len(parts) == 3
    assert [json.loads(line)["id"] for line in b"".join(parts).splitlines()] == list(range(40_000))


def test_an_arrow_stream() -> None:
    stream = b"".join(arrow_chunks(TABLE.to_batches(max_chunksize=1), COLUMNS))
    table = pa.ipc.open_stream(stream).read_all()
    assert table.equals(TABLE)
    assert table.schema.field("id").metadata == {b"headrace.type": b'"BigInt"'}
    empty = pa.ipc.open_stream(b"".join(arrow_chunks([], COLUMNS))).read_all()
    assert empty.schema.names == ["id", "name"]


def test_arrow_chunks_come_as_batches_do() -> None:
    chunks = arrow_chunks(iter(TABLE.to_batches(max_chunksize=1)), COLUMNS)
    sizes = [len(chunk) for chunk in chunks]
    assert len(sizes) == 4
    assert all(sizes)


def test_nan_names_its_column() -> None:
    with pytest.raises(ExecutionError, match="column 'x'"):
        json_rows(pa.table({"x": [float("nan")]}), (ResultColumn("x", DOUBLE),), BigintMode.AUTO)
