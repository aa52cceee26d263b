"""Every example of docs/sql-grammar.md parses, and every kind of statement has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from sql import lexer, parser_checks, parser_types, splitter
from sql.command import Command
from sql.dialect import parse_batch
from sql.statements import AlterOperation, AlterTable, Parsed, Statement

PAGE = (Path(__file__).parents[2] / "docs" / "sql-grammar.md").read_text(encoding="utf-8")
EXAMPLES = [parsed for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) for parsed in parse_batch(block)]


@pytest.mark.parametrize("example", EXAMPLES, ids=[" ".join(example.text.split())[:60] for example in EXAMPLES])
def test_examples_parse_alone(example: Parsed) -> None:
    (parsed,) = parse_batch(example.text)
    assert type(parsed.statement) is type(example.statement)


def test_every_statement_has_an_example() -> None:
    plain = {kind.__name__ for kind in get_args(Statement) if kind is not Command}
    commands = {kind.__name__ for kind in Command.__subclasses__() if kind.__module__.startswith("sql.")}
    assert {type(example.statement).__name__ for example in EXAMPLES} == plain | commands
    operations = {type(e.statement.operation) for e in EXAMPLES if isinstance(e.statement, AlterTable)}
    assert operations == set(get_args(AlterOperation))


def test_limits_and_types_are_those_of_the_code() -> None:

    for limit in (splitter.MAX_STATEMENTS, splitter.MAX_NESTING, splitter.MAX_SUBSCRIPTS, splitter.MAX_JOINS,
                  splitter.MAX_TOKENS, splitter.MAX_INSERT_TOKENS, parser_checks.MAX_DEPTH,
                  lexer.MAX_REQUEST_TOKENS, lexer.MAX_NUMBER):  # fmt: skip
        assert f"{limit:,}" in PAGE
    assert str(parser_types.MAX_EMBEDDING) in PAGE
    assert str(parser_types.MAX_DECIMAL_PRECISION) in PAGE
