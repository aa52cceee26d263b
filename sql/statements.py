"""Statements as the dialect hands them on: one frozen dataclass for each kind. Those of topics: `sql.topic_statements`.

Names are as written after folding: unquoted identifiers are lower-case, quoted ones keep their case for
namespaces and users; table and column names are always lower-case. A `TableName` without namespace takes
the request's. Expressions are sqlglot ASTs whose nodes keep their source position in `.meta`
("line", "col" count from 1 in the text of the whole request).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlglot import exp

from sql.command import Command
from sql.table_name import TableName
from sql.topic_statements import (
    AckTopic,
    AddTopicSource,
    AlterTopicOptions,
    ClearTopic,
    ConsumeFrom,
    CreateTopic,
    DropTopic,
    DropTopicSource,
    Publish,
    ResetGroup,
)
from sql.view_statements import CreateView, DropView
from storage.catalog import AccessLevel, TableKind
from storage.types import ColumnType

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class Query:
    """SELECT, VALUES, set operations, WITH … SELECT."""

    ast: exp.Query


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT … VALUES | SELECT [ON CONFLICT …] [RETURNING …], as sqlglot's `exp.Insert`."""

    ast: exp.Insert


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE … SET … WHERE … [RETURNING …]."""

    ast: exp.Update


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE FROM … WHERE … [RETURNING …]."""

    ast: exp.Delete


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column as CREATE TABLE or ALTER TABLE spells it.

    AUTO_INCREMENT, IDENTITY and SERIAL types arrive here as `default` = SNOWFLAKE_ID(); `always_generated` says that it
    is GENERATED ALWAYS.
    """

    name: str
    type: ColumnType
    not_null: bool = False
    primary_key: bool = False
    unique: bool = False
    default: exp.Expression | None = None
    checks: tuple[tuple[str | None, exp.Expression], ...] = ()
    comment: str | None = None
    line: int = 1
    column: int = 1
    always_generated: bool = False


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE [USER | SHARED | STREAM] TABLE. `kind` is None when neither prefix nor TYPE option was written.

    `options` holds the WITH options by upper-case name with their literal values, TYPE and ACCESS_LEVEL too.
    """

    table: TableName
    columns: tuple[ColumnSpec, ...]
    kind: TableKind | None = None
    if_not_exists: bool = False
    primary_key: tuple[str, ...] = ()
    uniques: tuple[tuple[str | None, tuple[str, ...]], ...] = ()
    checks: tuple[tuple[str | None, exp.Expression], ...] = ()
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddColumn:
    """ALTER TABLE … ADD [COLUMN] [IF NOT EXISTS] spec."""

    spec: ColumnSpec
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropColumn:
    """ALTER TABLE … DROP COLUMN [IF EXISTS] name."""

    name: str
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class ModifyColumn:
    """ALTER TABLE … MODIFY COLUMN name TYPE [NULL | NOT NULL], and ALTER COLUMN name [SET DATA] TYPE t.

    `not_null` is None when nullability was not written.
    """

    name: str
    type: ColumnType
    not_null: bool | None = None


@dataclass(frozen=True, slots=True)
class SetNotNull:
    """ALTER COLUMN name SET NOT NULL (or DROP NOT NULL when `not_null` is false)."""

    name: str
    not_null: bool


@dataclass(frozen=True, slots=True)
class SetDefault:
    """ALTER COLUMN name SET DEFAULT expression (or DROP DEFAULT when `default` is None)."""

    name: str
    default: exp.Expression | None


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """RENAME COLUMN old TO new."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class SetAccessLevel:
    """SET ACCESS LEVEL x, and SET TBLPROPERTIES (ACCESS_LEVEL = 'x')."""

    level: AccessLevel


@dataclass(frozen=True, slots=True)
class SetOption:
    """SET TBLPROPERTIES (FLUSH_POLICY = 'x') or (STORAGE_ID = 'x'), the value as written; None for NULL."""

    name: Literal["FLUSH_POLICY", "STORAGE_ID"]
    value: object


@dataclass(frozen=True, slots=True)
class SetTtl:
    """SET TBLPROPERTIES (TTL_SECONDS = n), the value as written."""

    seconds: object


AlterOperation = (
    AddColumn | DropColumn | ModifyColumn | SetNotNull | SetDefault | RenameColumn | SetAccessLevel | SetTtl | SetOption
)


@dataclass(frozen=True, slots=True)
class AlterTable:
    """ALTER TABLE with exactly one operation."""

    table: TableName
    operation: AlterOperation


@dataclass(frozen=True, slots=True)
class DropTable:
    """DROP [USER | SHARED] TABLE [IF EXISTS]; the type word is ignored."""

    table: TableName
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """CREATE NAMESPACE [IF NOT EXISTS] name (CREATE SCHEMA means the same)."""

    name: str
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class AlterNamespace:
    """ALTER NAMESPACE name SET OPTIONS (k = v, …)."""

    name: str
    options: dict[str, object]


@dataclass(frozen=True, slots=True)
class DropNamespace:
    """DROP NAMESPACE [IF EXISTS] name [CASCADE | RESTRICT]."""

    name: str
    if_exists: bool = False
    restrict: bool = False


@dataclass(frozen=True, slots=True)
class UseNamespace:
    """USE n, USE NAMESPACE n, SET NAMESPACE n."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateUser:
    """CREATE USER name WITH PASSWORD 'p' | WITH OAUTH '<json>' | WITH INTERNAL, ROLE r [EMAIL 'e'].

    `method` is "password", "oauth" or "internal"; `secret` the password or the JSON text.
    """

    name: str
    method: str
    secret: str | None
    role: str
    email: str | None = None
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class AlterUser:
    """ALTER USER name SET PASSWORD 'p' [OLD 'old'] | SET ROLE r | SET EMAIL 'e'."""

    name: str
    password: str | None = None
    old_password: str | None = None
    role: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class DropUser:
    """DROP USER [IF EXISTS] name."""

    name: str
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """BEGIN [TRANSACTION | WORK], START TRANSACTION."""


@dataclass(frozen=True, slots=True)
class Commit:
    """COMMIT [TRANSACTION | WORK], END."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """ROLLBACK [TRANSACTION | WORK]."""


@dataclass(frozen=True, slots=True)
class Show:
    """SHOW NAMESPACES | TABLES [IN [NAMESPACE] ns] | COLUMNS FROM t | STATS FOR TABLE t.

    `what` is one of "namespaces", "tables", "columns", "stats".
    """

    what: str
    namespace: str | None = None
    table: TableName | None = None


@dataclass(frozen=True, slots=True)
class Describe:
    """DESCRIBE | DESC [TABLE] t [HISTORY]."""

    table: TableName
    history: bool = False


@dataclass(frozen=True, slots=True)
class Explain:
    """EXPLAIN [ANALYZE] of a query or a DML statement."""

    inner: Statement
    analyze: bool = False


@dataclass(frozen=True, slots=True)
class ExecuteAs:
    """EXECUTE AS USER name ( one statement )."""

    user: str
    inner: Statement


@dataclass(frozen=True, slots=True)
class SubscribeTo:
    """SUBSCRIBE TO [ns.]t [WHERE …] | SELECT … [OPTIONS (…)].

    `text` is the query as written; if `table` is set, it begins with the table's name instead of SELECT.
    """

    text: str
    table: TableName | None
    options: dict[str, object]
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class KillLiveQuery(Command):
    """KILL LIVE QUERY 'id'."""

    live_id: str

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """End a live query."""
        from sql.live_statements import kill_live_query

        return kill_live_query(self, context.identity, services.live)


Statement = (
    Query | Insert | Update | Delete | CreateTable | AlterTable | DropTable
    | CreateNamespace | AlterNamespace | DropNamespace | UseNamespace
    | CreateUser | AlterUser | DropUser | Begin | Commit | Rollback
    | CreateView | DropView | Show | Describe | Explain | ExecuteAs | SubscribeTo | Command
    | CreateTopic | DropTopic | ClearTopic | AddTopicSource | DropTopicSource | AlterTopicOptions
    | ConsumeFrom | AckTopic | ResetGroup | Publish
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parsed:
    """A statement with its source text, its place in the request's text and the `$n` that it uses."""

    statement: Statement
    text: str
    line: int = 1
    column: int = 1
    parameters: frozenset[int] = frozenset()
