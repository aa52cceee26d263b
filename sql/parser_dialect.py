"""The sqlglot dialect behind the front end: our lexer, DuckDB's grammar, our JSON paths, PostgreSQL's order of NULLs.

sqlglot's parser classes are compiled and cannot be subclassed, so what differs from DuckDB's dialect lies in what
can be: the tokenizer, and the dialect's own methods.
"""

from __future__ import annotations

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokenizer_core import Token

from sql.lexer import tokenize


class Headrace(DuckDB):
    """DuckDB's dialect read with our lexer; `sqlglot.parse_one(text, dialect=Headrace)` works with it."""

    NULL_ORDERING = "nulls_are_large"

    class Tokenizer(DuckDB.Tokenizer):
        """Our lexer behind sqlglot's interface."""

        def tokenize(self, sql: str) -> list[Token]:
            """The tokens of a text."""
            return tokenize(sql)

    def to_json_path(self, path: exp.Expr | None) -> exp.Expr | None:
        """The path as written: sqlglot would read the key of `data ->> 'a.b'` as two keys, DuckDB does not."""
        return path
