"""CREATE, ALTER and DROP TABLE."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sql.command import Command
from sql.diagnostics import shown
from sql.errors import Unsupported
from sql.parser_cursor import Cursor
from sql.parser_types import SERIALS, parse_type
from sql.parser_vectors import parse_alter_vector_index
from sql.statements import (
    AddColumn,
    AlterOperation,
    AlterTable,
    ColumnSpec,
    CreateTable,
    DropColumn,
    DropTable,
    ModifyColumn,
    RenameColumn,
    SetAccessLevel,
    SetDefault,
    SetNotNull,
    SetOption,
    SetTtl,
)
from sql.table_name import TableName
from storage.catalog import AccessLevel, TableKind
from storage.types import TEXT, ColumnType


@dataclass(slots=True)
class _Constraints:
    """What the constraints of one column and of its table have said so far."""

    primary_key: tuple[str, ...] = ()
    uniques: list[tuple[str | None, tuple[str, ...]]] = field(default_factory=list)
    checks: list[tuple[str | None, exp.Expression]] = field(default_factory=list)


def parse_create_table(cursor: Cursor, kind: TableKind | None) -> CreateTable:
    """CREATE [USER | SHARED | STREAM] TABLE, after the word TABLE."""
    if_not_exists = cursor.if_not_exists()
    table = cursor.table_name()
    if cursor.at("as"):
        cursor.fail("CREATE TABLE … AS is not supported; create the table, then INSERT … SELECT.", kind=Unsupported)
    columns, constraints = _definitions(cursor)
    if cursor.accept("using"):
        cursor.name("a storage format")
    options: dict[str, object] = {}
    if cursor.at("with"):
        start = cursor.peek()
        cursor.expect("with")
        options = {name.upper(): value for name, value in cursor.options().items()}
        kind = _kind_of(cursor, kind, options, start)
    if cursor.at("as"):
        cursor.fail("CREATE TABLE … AS is not supported; create the table, then INSERT … SELECT.", kind=Unsupported)
    return CreateTable(
        table=table,
        columns=tuple(columns),
        kind=kind,
        if_not_exists=if_not_exists,
        primary_key=constraints.primary_key,
        uniques=tuple(constraints.uniques),
        checks=tuple(constraints.checks),
        options=options,
    )


def _kind_of(cursor: Cursor, prefix: TableKind | None, options: dict[str, object], start: object) -> TableKind | None:
    """The table's kind from the prefix and the TYPE option, which must agree."""
    written = options.get("TYPE")
    if written is None:
        return prefix
    name = str(written).lower()
    if name not in set(TableKind):
        cursor.fail(f"TYPE is 'USER', 'SHARED' or 'STREAM', not {shown(str(written))}.", cursor.tokens[0])
    if prefix is not None and prefix != name:
        cursor.fail(f"CREATE {prefix.upper()} TABLE and TYPE = {shown(str(written))} contradict.", cursor.tokens[0])
    return TableKind(name)


def _definitions(cursor: Cursor) -> tuple[list[ColumnSpec], _Constraints]:
    """`( column or constraint, … )`."""
    cursor.expect("(")
    columns: list[ColumnSpec] = []
    table = _Constraints()
    inline_key = False
    while True:
        start = cursor.peek()
        if not _table_constraint(cursor, table):
            spec = _column(cursor, table)
            if spec.primary_key and (inline_key or table.primary_key):
                cursor.fail("A table has one primary key; write PRIMARY KEY (a, b) for several columns.", start)
            inline_key = inline_key or spec.primary_key
            columns.append(spec)
        elif table.primary_key and inline_key:
            cursor.fail("The primary key is given twice.", start)
        if not cursor.accept(","):
            break
    cursor.expect(")")
    if not columns:
        cursor.fail("A table needs at least one column.", cursor.peek(-1))
    return columns, table


def _table_constraint(cursor: Cursor, table: _Constraints) -> bool:
    """Takes a table-level constraint if one is next."""
    start = cursor.index
    name = cursor.name("a constraint's name") if cursor.accept("constraint") else None
    if cursor.at("primary key", "("):
        key = cursor.peek()
        cursor.index += 1
        if table.primary_key:
            cursor.fail("The primary key is given twice.", key)
        table.primary_key = cursor.name_list()
        return True
    if cursor.at("unique", "("):
        cursor.index += 1
        table.uniques.append((name, cursor.name_list()))
        return True
    if cursor.at("check", "("):
        cursor.index += 1
        table.checks.append((name, cursor.parenthesized()))
        return True
    if cursor.at("foreign key"):
        cursor.fail("FOREIGN KEY is not supported.", kind=Unsupported)
    if name is not None:
        cursor.fail_expected("PRIMARY KEY, UNIQUE or CHECK with its parentheses")
    if cursor.at("exclude") or (cursor.at("like") and cursor.word(2) in (",", ")", "including", "excluding")):
        cursor.fail(f"{cursor.word().upper()} in CREATE TABLE is not supported.", kind=Unsupported)
    if cursor.word() in ("index", "key") and cursor.word(1) == "(":
        cursor.fail("INDEX in CREATE TABLE is not supported.", kind=Unsupported)
    cursor.index = start
    return False


@dataclass(slots=True)
class _Column:
    """A column while its constraints are read."""

    nullable: bool | None = None
    primary_key: bool = False
    unique: bool = False
    default: exp.Expression | None = None
    checks: list[tuple[str | None, exp.Expression]] = field(default_factory=list)
    comment: str | None = None
    always_generated: bool = False


def _column(cursor: Cursor, table: _Constraints | None) -> ColumnSpec:
    """A column with its constraints; a named UNIQUE goes to the table's constraints, which keep the name."""
    start = cursor.peek()
    name = cursor.column_name()
    type_word = cursor.word()
    column = _Column()
    if type_word == "enum" and cursor.word(1) == "(":
        column_type = TEXT
        column.checks.append((None, _one_of(cursor, name)))
    else:
        column_type = parse_type(cursor)
    if type_word in SERIALS:
        column.default = snowflake_id()
    while _column_constraint(cursor, column, name, table):
        pass
    return ColumnSpec(
        name=name,
        type=column_type,
        not_null=column.nullable is False,
        primary_key=column.primary_key,
        unique=column.unique,
        default=column.default,
        checks=tuple(column.checks),
        comment=column.comment,
        line=start.line if start else 1,
        column=start.col if start else 1,
        always_generated=column.always_generated,
    )


def _one_of(cursor: Cursor, column: str) -> exp.Expression:
    """Takes ENUM('a', 'b'): a TEXT column with the condition that its values are among these."""
    cursor.expect("enum", "(")
    values = [cursor.string("a string for ENUM")]
    while cursor.accept(","):
        values.append(cursor.string("a string for ENUM"))
    cursor.expect(")")
    return exp.In(this=exp.column(column), expressions=[exp.Literal.string(value) for value in values])


def _column_constraint(cursor: Cursor, column: _Column, name: str, table: _Constraints | None) -> bool:
    """Takes one constraint of a column if one is next."""
    start = cursor.peek()
    constraint = cursor.name("a constraint's name") if cursor.accept("constraint") else None
    if cursor.accept("not", "null") or cursor.at("null"):
        nullable = cursor.accept("null")
        if column.nullable is not None and column.nullable != nullable:
            cursor.fail(f"Column {shown(name)} is both NULL and NOT NULL.", start)
        column.nullable = nullable
    elif cursor.accept("primary key"):
        column.primary_key = True
    elif cursor.accept("unique"):
        if constraint is not None and table is not None:
            table.uniques.append((constraint, (name,)))
        else:
            column.unique = True
    elif cursor.accept("check"):
        column.checks.append((constraint, cursor.parenthesized()))
    elif cursor.at("default") or cursor.word() in ("auto_increment", "autoincrement", "generated"):
        if column.default is not None:
            cursor.fail(f"Column {shown(name)} has two defaults.", start)
        column.always_generated = cursor.at("generated", "always")
        column.default = _default(cursor)
    elif cursor.accept("comment"):
        column.comment = cursor.string("a string after COMMENT")
    elif cursor.at("references"):
        cursor.fail("REFERENCES (a foreign key) is not supported.", kind=Unsupported)
    elif cursor.at("collate"):
        cursor.fail("COLLATE in a column definition is not supported.", kind=Unsupported)
    elif constraint is not None:
        cursor.fail_expected("a constraint")
    else:
        return False
    return True


def _default(cursor: Cursor) -> exp.Expression:
    """DEFAULT expression, AUTO_INCREMENT or GENERATED … AS IDENTITY."""
    if cursor.accept("default"):
        return cursor.default_expression()
    if cursor.accept("auto_increment") or cursor.accept("autoincrement"):
        return snowflake_id()
    cursor.expect("generated")
    if not cursor.accept("always"):
        cursor.expect("by", "default")
    cursor.expect("as")
    if cursor.at("("):
        cursor.fail("Generated columns are not supported.", kind=Unsupported)
    cursor.expect("identity")
    if cursor.accept("("):
        _identity_options(cursor)
    return snowflake_id()


def _identity_options(cursor: Cursor) -> None:
    """Takes the options of a sequence, up to `)`, as long as they are the usual ones, which dumps write out."""
    while not cursor.accept(")"):
        start = cursor.peek()
        word = cursor.word()
        if cursor.accept("no"):
            usual = any(cursor.accept(name) for name in ("minvalue", "maxvalue", "cycle"))
        elif cursor.accept("start") or cursor.accept("increment"):
            cursor.accept("with" if word == "start" else "by")
            usual = cursor.integer("a whole number") == 1
        elif cursor.accept("cache"):
            usual = cursor.integer("a whole number") >= 1
        else:
            usual = False
        if not usual:
            cursor.fail(
                "This option of an IDENTITY column is not supported: its values come from SNOWFLAKE_ID(), in the order "
                "of time, with no start, step or bound of their own.",
                start,
                kind=Unsupported,
            )


def snowflake_id() -> exp.Expression:
    """The expression SNOWFLAKE_ID()."""
    return exp.Anonymous(this="SNOWFLAKE_ID", expressions=[])


def parse_drop_table(cursor: Cursor) -> DropTable:
    """DROP [USER | SHARED | STREAM] TABLE, after the word TABLE."""
    if_exists = cursor.if_exists()
    table = cursor.table_name()
    if cursor.at(","):
        cursor.fail("DROP TABLE takes one table.")
    if not cursor.accept("cascade"):
        cursor.accept("restrict")
    return DropTable(table, if_exists)


def parse_alter_table(cursor: Cursor) -> AlterTable | Command:
    """ALTER TABLE, after the word TABLE."""
    if cursor.at("if", "exists"):
        cursor.fail("ALTER TABLE IF EXISTS is not supported.", kind=Unsupported)
    table = cursor.table_name()
    if (of_index := parse_alter_vector_index(cursor, table)) is not None:
        return of_index
    operation = _alteration(cursor, table)
    if cursor.at(","):
        cursor.fail("ALTER TABLE takes one operation; write a statement for each.")
    return AlterTable(table, operation)


def _alteration(cursor: Cursor, table: TableName) -> AlterOperation:
    if cursor.accept("add"):
        return _add_column(cursor)
    if cursor.accept("drop"):
        if cursor.word() in ("constraint", "primary key", "unique", "check"):
            cursor.fail("Dropping a constraint is not supported.", kind=Unsupported)
        cursor.accept("column")
        if_exists = cursor.if_exists()
        name = cursor.column_name()
        if not cursor.accept("cascade"):
            cursor.accept("restrict")
        return DropColumn(name, if_exists)
    if cursor.accept("modify"):
        cursor.accept("column")
        return _modify(cursor, cursor.column_name())
    if cursor.accept("alter"):
        cursor.accept("column")
        return _alter_column(cursor)
    if cursor.accept("rename"):
        if cursor.at("to"):
            cursor.fail("Renaming a table is not supported.", kind=Unsupported)
        cursor.accept("column")
        old = cursor.column_name()
        cursor.expect("to")
        return RenameColumn(old, cursor.column_name())
    if cursor.accept("set"):
        return _set(cursor)
    raise cursor.expected("ADD, DROP, MODIFY, ALTER, RENAME or SET")


def _add_column(cursor: Cursor) -> AddColumn:
    words = ("constraint", "primary key", "unique", "check", "foreign key")
    if cursor.word() in words and (cursor.word() == "constraint" or cursor.word(1) == "("):
        cursor.fail("Adding a constraint to a table is not supported.", kind=Unsupported)
    cursor.accept("column")
    if_not_exists = cursor.if_not_exists()
    return AddColumn(_column(cursor, None), if_not_exists)


def _modify(cursor: Cursor, name: str) -> ModifyColumn:
    column_type = _plain_type(cursor)
    not_null: bool | None = None
    if cursor.accept("not", "null"):
        not_null = True
    elif cursor.accept("null"):
        not_null = False
    return ModifyColumn(name, column_type, not_null)


def _plain_type(cursor: Cursor) -> ColumnType:
    if cursor.word() in SERIALS:
        cursor.fail("A column cannot be changed to a SERIAL type; set a DEFAULT instead.", kind=Unsupported)
    return parse_type(cursor)


def _alter_column(cursor: Cursor) -> AlterOperation:
    name = cursor.column_name()
    if cursor.accept("type") or cursor.accept("set", "data", "type"):
        operation = ModifyColumn(name, _plain_type(cursor))
        if cursor.at("using"):
            cursor.fail("ALTER COLUMN … TYPE … USING is not supported.", kind=Unsupported)
        return operation
    if cursor.accept("set", "not", "null"):
        return SetNotNull(name, True)
    if cursor.accept("drop", "not", "null"):
        return SetNotNull(name, False)
    if cursor.accept("set", "default"):
        return SetDefault(name, cursor.default_expression())
    if cursor.accept("drop", "default"):
        return SetDefault(name, None)
    raise cursor.expected("TYPE, SET NOT NULL, DROP NOT NULL, SET DEFAULT or DROP DEFAULT")


def _set(cursor: Cursor) -> SetAccessLevel | SetOption | SetTtl:
    """SET ACCESS LEVEL x, or SET TBLPROPERTIES with one of the properties."""
    if cursor.accept("access", "level"):
        start = cursor.peek()
        value: object = cursor.name_or_string("an access level")
    else:
        cursor.expect("tblproperties")
        start = cursor.peek()
        options = {name.upper(): value for name, value in cursor.options().items()}
        if set(options) == {"TTL_SECONDS"}:
            return SetTtl(options["TTL_SECONDS"])
        if set(options) == {"FLUSH_POLICY"}:
            return SetOption("FLUSH_POLICY", options["FLUSH_POLICY"])
        if set(options) == {"STORAGE_ID"}:
            return SetOption("STORAGE_ID", options["STORAGE_ID"])
        if set(options) != {"ACCESS_LEVEL"}:
            cursor.fail(
                "SET TBLPROPERTIES takes ACCESS_LEVEL, TTL_SECONDS, FLUSH_POLICY or STORAGE_ID, one of them.", start
            )
        value = options["ACCESS_LEVEL"]
    level = str(value).lower()
    if level not in set(AccessLevel):
        allowed = ", ".join(item.upper() for item in AccessLevel)
        cursor.fail(f"{shown(str(value))} is not an access level: {allowed}.", start)
    return SetAccessLevel(AccessLevel(level))
