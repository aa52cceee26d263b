"""`FILE("name")` in a statement: which there are, that each stands where a file may go, and what takes its place.

A placeholder becomes a parameter behind those of the request, whose value is the FileRef. So a plan that is remembered
for the text serves every upload with the same text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlglot import exp

from sql.errors import ExtraFile, FilesNeeded, InvalidInput, InvalidSql, MissingFile
from sql.insert import targets_of
from sql.statements import Delete, ExecuteAs, Explain, Insert, Parsed, Query, Statement, Update
from sql.write_targets import located
from storage.catalog import ColumnDef, TableDef
from storage.types import Kind

FUNCTION = "file"
_NEEDS_FORM = "FILE placeholders require multipart/form-data"


class Placeholder(NamedTuple):
    """One `FILE(…)`. `name` is as written; one in double quotes is `folded` to small letters, as SQL does."""

    node: exp.Anonymous
    name: str
    folded: bool


class FileStatement(NamedTuple):
    """A statement with placeholders. `parts` has the name of the part that each placeholder takes."""

    parsed: Parsed
    placeholders: tuple[Placeholder, ...]
    parts: tuple[str, ...]

    @property
    def write(self) -> Insert | Update:
        """The INSERT or UPDATE itself."""
        return _write_of(self.parsed.statement)

    def with_parameters(self, first: int) -> tuple[Parsed, list[str]]:
        """The statement with `$first`, `$first+1`, … for its files, and the names of their parts in that order."""
        order = list(dict.fromkeys(self.parts))
        numbers = {part: first + place for place, part in enumerate(order)}
        copied = self.write.ast.copy()
        for (_, _, _), node, part in zip(self.placeholders, list(_nodes(copied)), self.parts, strict=True):
            node.replace(exp.Placeholder(this=numbers[part]))
        statement: Statement = replace(self.write, ast=copied)  # type: ignore[arg-type]
        if isinstance(self.parsed.statement, ExecuteAs):
            statement = replace(self.parsed.statement, inner=statement)
        used = self.parsed.parameters | frozenset(numbers.values())
        return replace(self.parsed, statement=statement, parameters=used), order


def refuse_placeholders(batch: Sequence[Parsed]) -> None:
    """Raise FilesNeeded for a `FILE("name")` in a request that cannot bring files."""
    for parsed in batch:
        for placeholder in find_placeholders(parsed.statement):
            raise located(FilesNeeded, _NEEDS_FORM, placeholder.node)


def file_statement(batch: Sequence[Parsed], parts: Collection[str]) -> FileStatement | None:
    """The statement that takes the files with these part names (without `file:`); None when there is nothing to take.

    Raises MissingFile, ExtraFile and InvalidInput.
    """
    found = [(parsed, placeholder) for parsed in batch for placeholder in find_placeholders(parsed.statement)]
    if not found:
        if parts:
            raise ExtraFile(f"Part 'file:{min(parts)}' has no FILE placeholder in the SQL")
        return None
    parsed, first = found[0]
    if len(batch) != 1:
        message = "A statement with FILE placeholders must be the only one of its request"
        raise located(InvalidInput, message, first.node)
    _write_of(parsed.statement, first.node)
    placeholders = tuple(placeholder for _, placeholder in found)
    taken = tuple(_part_for(placeholder, parts) for placeholder in placeholders)
    for part in sorted(parts):
        if part not in taken:
            raise ExtraFile(f"Part 'file:{part}' has no FILE placeholder in the SQL")
    return FileStatement(parsed, placeholders, taken)


def find_placeholders(statement: Statement) -> Iterator[Placeholder]:
    """All placeholders of a statement, in the order of its syntax tree. Raises InvalidSql for malformed ones."""
    inner = statement.inner if isinstance(statement, (ExecuteAs, Explain)) else statement
    inner = inner.inner if isinstance(inner, ExecuteAs) else inner
    if not isinstance(inner, (Query, Insert, Update, Delete)):
        return
    for node in _nodes(inner.ast):
        arguments = node.expressions
        argument = arguments[0] if len(arguments) == 1 else None
        if isinstance(argument, exp.Literal) and argument.is_string and argument.this:
            yield Placeholder(node, argument.this, False)
        elif (
            isinstance(argument, exp.Column)
            and len(argument.parts) == 1
            and isinstance(argument.this, exp.Identifier)
            and argument.this.quoted
        ):
            yield Placeholder(node, argument.name, True)
        else:
            raise located(InvalidSql, "FILE takes the name of a part in quotes: FILE('name')", node)


def check_places(statement: FileStatement, table: TableDef) -> None:
    """Raise InvalidSql unless every placeholder is the whole new value of a FILE column."""
    ast = statement.write.ast
    for node, _, _ in statement.placeholders:
        column = _column_of(node, ast, table)
        if column is None:
            raise located(InvalidSql, "FILE stands only for the whole value of a column, in VALUES or SET", node)
        if column.type.kind is not Kind.FILE:
            message = f"Column '{column.name}' is {column.type}; FILE needs a column of type FILE"
            raise located(InvalidSql, message, node)


def _column_of(node: exp.Expr, ast: exp.Insert | exp.Update, table: TableDef) -> ColumnDef | None:
    parent = node.parent
    if isinstance(parent, (exp.Tuple, exp.Paren)) and isinstance(ast, exp.Insert) and parent.parent is ast.expression:
        place = parent.expressions.index(node) if isinstance(parent, exp.Tuple) else 0
        targets = targets_of(ast.this, table)
        return targets[place] if place < len(targets) and isinstance(ast.expression, exp.Values) else None
    if isinstance(parent, exp.EQ) and parent.expression is node and isinstance(parent.this, exp.Column):
        holder = parent.parent
        assigns = holder is ast if isinstance(ast, exp.Update) else holder is ast.args.get("conflict")
        if assigns and parent.arg_key == "expressions":
            return table.by_name.get(parent.this.name.lower())
    return None


def _nodes(ast: exp.Expr) -> Iterator[exp.Anonymous]:
    return (node for node in ast.find_all(exp.Anonymous) if node.name.lower() == FUNCTION)


def _write_of(statement: Statement, node: exp.Expr | None = None) -> Insert | Update:
    inner = statement.inner if isinstance(statement, ExecuteAs) else statement
    if isinstance(inner, (Insert, Update)):
        return inner
    message = "FILE placeholders stand in INSERT and UPDATE only"
    raise InvalidInput(message) if node is None else located(InvalidInput, message, node)


def _part_for(placeholder: Placeholder, parts: Collection[str]) -> str:
    if placeholder.name in parts:
        return placeholder.name
    alike = [part for part in parts if part.lower() == placeholder.name] if placeholder.folded else []
    if len(alike) != 1:
        raise located(MissingFile, f"There is no part 'file:{placeholder.name}' for this placeholder", placeholder.node)
    return alike[0]
