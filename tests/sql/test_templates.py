"""Literal lifting: what it reads is what the parser reads, and it stays silent where it is not sure."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from sql.dialect import parse_batch
from sql.errors import SqlError
from sql.statements import Insert, Statement
from sql.templates import DEFAULT, InsertShape, ParamRef, Value, lift_literals, scan_insert


def insert_of(text: str) -> Insert:
    """The only statement of a text, an INSERT."""
    (parsed,) = parse_batch(text)
    assert isinstance(parsed.statement, Insert)
    return parsed.statement


def value_of(node: exp.Expr) -> Value:
    """A plain value of a tree, as `scan_insert` gives it."""
    if isinstance(node, exp.Neg):
        inner = value_of(node.this)
        assert isinstance(inner, (int, Decimal))
        return -inner
    if isinstance(node, exp.Literal):
        if node.is_string:
            return node.name
        return int(node.name) if node.name.isdigit() else Decimal(node.name)
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.HexString):
        return bytes.fromhex(node.name)
    if isinstance(node, exp.Placeholder):
        return ParamRef(int(node.name))
    assert isinstance(node, exp.Var)
    assert node.name.upper() == "DEFAULT"
    return DEFAULT


def parsed_rows(text: str) -> list[list[Value]]:
    """The rows of an INSERT … VALUES as the parser reads them."""
    values = insert_of(text).ast.expression
    assert isinstance(values, exp.Values)
    return [[value_of(node) for node in row.expressions] for row in values.expressions]


def shape_of(text: str) -> InsertShape:
    """The shape of a text that has one."""
    shape = scan_insert(text)
    assert shape is not None
    return shape


def scanned_rows(shape: InsertShape) -> list[list[Value]]:
    """The values of a shape, row by row."""
    flat = shape.values
    return [flat[start : start + shape.width] for start in range(0, len(flat), shape.width)]


def same(left: list[list[Value]], right: list[list[Value]]) -> bool:
    """Equality that tells 1 from TRUE."""
    return left == right and [[type(v) for v in row] for row in left] == [[type(v) for v in row] for row in right]


def test_scan_insert() -> None:
    shape = shape_of(
        "INSERT INTO app.msgs (id, \"Body\") VALUES (1, 'it''s'), (-2.50, NULL), ($3, X'00ff'),(true,DEFAULT)\n"
        "ON CONFLICT (id) DO NOTHING RETURNING id;"
    )
    assert shape.width == 2
    assert shape.rows == 4
    assert same(scanned_rows(shape), [[1, "it's"], [Decimal("-2.50"), None], [ParamRef(3), b"\0\xff"], [True, DEFAULT]])
    assert shape.template == (
        'INSERT INTO app.msgs (id, "Body") VALUES (DEFAULT, DEFAULT) ON CONFLICT (id) DO NOTHING RETURNING id'
    )
    insert_of(shape.template)


def test_equal_shapes_share_a_key() -> None:
    one = shape_of("INSERT INTO t (a, b) VALUES (1, 'x')")
    many = shape_of("INSERT INTO t (a, b) VALUES (2, NULL), ($1, 'y') ;")
    assert one.key == many.key
    assert shape_of("INSERT INTO t VALUES (1, 2)").key != shape_of("INSERT INTO t VALUES (1, 2, 3)").key
    assert shape_of("INSERT INTO t (a) VALUES (1) RETURNING a").key != shape_of("INSERT INTO t (a) VALUES (1)").key


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1", "INSERT INTO t SELECT 1", "INSERT INTO t DEFAULT VALUES", "INSERT INTO t (a) VALUES (1 + 1)",
        "INSERT INTO t (a) VALUES (f(1))", "INSERT INTO t (a) VALUES ((1))", "INSERT INTO t (a) VALUES (1::int)",
        "INSERT INTO t (a) VALUES (1) -- x", "INSERT INTO t (a) VALUES (1 /* x */)", "INSERT /* x */ INTO t VALUES (1)",
        "INSERT INTO t (a) VALUES (1); SELECT 1", "INSERT INTO t (a) VALUES (1) RETURNING a; SELECT 1",
        "INSERT INTO t (a) VALUES (1), (1, 2)", "INSERT INTO t (a, b) VALUES (1)", "INSERT INTO t (a) VALUES ()",
        "INSERT INTO t (a) VALUES (E'a')", "INSERT INTO t (a) VALUES (date '2020-01-01')",
        "INSERT INTO t (a) VALUES ('a' 'b')", "INSERT INTO t (a) VALUES ('a", "INSERT INTO t (a) VALUES ('a'')",
        "INSERT INTO t (a) VALUES ($0)", "INSERT INTO t (a) VALUES ($x)", "INSERT INTO t (a) VALUES (X'0')",
        "INSERT INTO t (a) VALUES (1abc)", "INSERT INTO t (a) VALUES (1,)", "INSERT INTO t (a) VALUES (1),",
        "INSERT INTO t (a) VALUES (1) UNION SELECT 1", "INSERT INTO t (a) VALUES ('\0')", "INSERT INTO t () VALUES (1)",
        "INSERT INTO t AS x (a) VALUES (1)", "INSERT OR REPLACE INTO t (a) VALUES (1)",
        "INSERT INTO t (a) VALUES (- 1)",
        "INSERT INTO t (a) VALUES (1e9999)", "INSERT INTO a.b.c (a) VALUES (1)", "INSERT INTO t (a) VALUES (NULLS)",
        'INSERT INTO t ("a""b") VALUES (1)', "INSERT INTO t (a) VALUES (1) RETURNING $$a$$",
    ],
)  # fmt: skip
def test_scan_insert_is_silent_about_the_unusual(text: str) -> None:
    assert scan_insert(text) is None


STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
LITERALS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(str),
    st.sampled_from(["NULL", "null", "TRUE", "False", "DEFAULT", "$1", "$27", "X'00fF'", "x''", ".5", "1.", "1e5",
                     "'(1, 2)'", "''", "'$1'", "'NULL'", "'1.5'", "'a''b'", "'--'", "';'"]),
    STRINGS.map(lambda text: "'" + text.replace("'", "''") + "'"),
)  # fmt: skip
SPACES = st.sampled_from(["", " ", "\n  "])


@st.composite
def inserts(draw: st.DrawFn) -> str:
    """INSERT statements of plain values; now and then something is wrong with them."""
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(LITERALS, min_size=width, max_size=width), min_size=1, max_size=6))
    if draw(st.booleans()):
        # Columns of one kind take other ways through the scanner.
        rows = [[row[i] if draw(st.booleans()) else rows[0][i] for i in range(width)] for row in rows]
    space = draw(SPACES)
    columns = draw(st.sampled_from(["", f" ({', '.join('abcd'[:width])})"]))
    body = f"{space},{space}".join("(" + f",{space}".join(row) + f"{space})" for row in rows)
    tail = draw(st.sampled_from(["", ";", " RETURNING *", " ON CONFLICT (a) DO UPDATE SET a = excluded.a"]))
    text = f"INSERT INTO n.t{columns} VALUES {body}{tail}"
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(text)))
        junk = draw(st.sampled_from(["'", "(", ")", ",", "-", "--", "/*", " ", "$", "1", ";", "x", '"']))
        text = text[:place] + junk + text[place + draw(st.integers(0, 1)) :]
    return text


@given(inserts())
@settings(max_examples=600, deadline=None)
def test_scan_insert_reads_what_the_parser_reads(text: str) -> None:
    shape = scan_insert(text)
    if shape is None:
        return
    try:
        template = insert_of(shape.template).ast
    except SqlError:
        with pytest.raises(SqlError):
            parse_batch(text)
        return
    assert same(scanned_rows(shape), parsed_rows(text))
    template.set("expression", None)
    original = insert_of(text).ast
    original.set("expression", None)
    assert template == original


def test_a_plain_insert_is_always_scanned() -> None:
    rows = ", ".join(f"({i}, 'a{i}', NULL, {i}.5, TRUE, $1)" for i in range(1_000))
    shape = shape_of(f"INSERT INTO t (a, b, c, d, e, f) VALUES {rows}")
    assert shape.rows == 1_000
    assert shape.columns[0] == list(range(1_000))
    assert shape.columns[1][999] == "a999"
    assert shape.columns[3][2] == Decimal("2.5")
    assert shape.columns[5] == [ParamRef(1)] * 1_000


LIFTED = [
    ("select a from t where id = 5", "select a from t where id = $1", [5]),
    ("SELECT a FROM t WHERE id = 5 AND b <> 'o''x' LIMIT 10;", "SELECT a FROM t WHERE id = $1 AND b <> $2 LIMIT 10;",
     [5, "o'x"]),
    ("select 7, 'x' from t where t.\"Id\" >= -5 order by 1",
     "select 7, 'x' from t where t.\"Id\" >= $1 order by 1", [-5]),
    ("select a from t where (a = 1.50 or b < 2) and not c = $3",
     "select a from t where (a = $4 or b < $5) and not c = $3", [Decimal("1.50"), 2]),
    ("update t set a = 'x', b = b + 1, c = -2 where id = 5 returning a",
     "update t set a = $1, b = b + 1, c = $2 where id = $3 returning a", ["x", -2, 5]),
    ("delete from t where id = 5", "delete from t where id = $1", [5]),
    ("select a from t where a = 5::int or b = 6", "select a from t where a = 5::int or b = $1", [6]),
    ("select a from t where f(a = 5) and b = 6", "select a from t where f(a = 5) and b = $1", [6]),
    ("select a from t where a in (1, 2) and b = 6 group by a having 1",
     None, None),
    ("select a from t where b = 6 group by a", "select a from t where b = $1 group by a", [6]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "template", "values"), LIFTED, ids=[text for text, _, _ in LIFTED])
def test_lift_literals(text: str, template: str | None, values: list[object] | None) -> None:
    lifted = lift_literals(text)
    assert lifted == (None if template is None else (template, values))


@pytest.mark.parametrize(
    "text",
    [
        "select 1", "select a from t where b", "select a from t limit 5", "select a = 5 from t", "select a from t -- x",
        "select a from t where a = 5 /* x */", "select a from t where a = date '2020-01-01'",
        "select a from t where a = interval '1 day'", "select a from t where a = 5 + 1",
        "select a from t where a = E'x'",
        "select a from t where a in (select b from u where c = 5)", "select a from t where a between 1 and b = 5",
        "select a from t where a = 5; select 1", "select a from t where a = 1e5", "select a from t where a = 'b' 'c'",
        "select a from t where a = 5 collate x", "select a from t where 5 = a", "select a from t where a + 1 = 5",
        "select a from t where a like 'x'", "select a from t where a = X'00'", "insert into t values (1)",
        "select a from t where a->>'x' = 'y'", "select case when a = 5 then 1 end from t where a = b",
        "select a from t where a = 5 union select 1", "select a from t where a = 12345678901234567890",
        "select a from t where (a, b) = (1, 2)", "select a from t join u on a = 5", "update t set (a, b) = (1, 2)",
        "select a from t where a = $$x$$", "explain select a from t where a = 5", "select a from t where a == 5",
        "select a from t where a = 'x", "select a from t order by a = 5", "select a from t where b is null = 5",
    ],
)  # fmt: skip
def test_lift_literals_is_silent_about_the_unusual(text: str) -> None:
    assert lift_literals(text) is None


def restored(template: str, values: list[int | Decimal | str], first: int) -> str:
    """The template with its values put back, highest number first so that $1 does not meet $10."""
    for index in range(len(values) - 1, -1, -1):
        value = values[index]
        literal = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
        template = template.replace(f"${first + index}", literal)
    return template


def tree_of(text: str) -> exp.Expr | None:
    """The tree of the only statement of a text, None if it is not valid."""
    try:
        (parsed,) = parse_batch(text)
    except SqlError:
        return None
    statement: Statement = parsed.statement
    tree = getattr(statement, "ast", None)
    assert isinstance(tree, exp.Expr)
    return tree


_PARTS = """
    and or not ( ) , = <> < >= a b t.a "C" 5 -5 1.5 'x' 'it''s' '(' $2 + - is null in like order by limit group where
    returning set from a=5 b='y' t.b>=-1 between 'and' asc || :: int distinct on case then end
"""
PARTS = st.sampled_from(_PARTS.split())
STARTS = st.sampled_from(
    ["select a from t where ", "update t set a = ", "delete from t where b = 1 and ", "select 1, a from t "]
)


@given(STARTS, st.lists(PARTS, max_size=14).map(" ".join))
@settings(max_examples=1_000, deadline=None)
def test_lifted_literals_put_back_give_the_same_tree(start: str, end: str) -> None:
    text = start + end
    lifted = lift_literals(text)
    if lifted is None:
        return
    template, values = lifted
    assert values
    first = 3 if "$2" in text else 1
    original = tree_of(text)
    assert tree_of(restored(template, values, first)) == original
    changed = tree_of(template)
    assert (changed is None) == (original is None)
    if changed is not None and original is not None:
        # Only values of conditions and assignments changed: what names or orders the result did not.
        for key in ("expressions", "order", "group", "limit") if isinstance(original, exp.Select) else ("returning",):
            assert changed.args.get(key) == original.args.get(key)
        placeholders = [node for node in changed.find_all(exp.Placeholder) if int(node.name) >= first]
        assert len(placeholders) == len(values)
        assert all(isinstance(node.parent, (exp.EQ, exp.NEQ, exp.LT, exp.GTE)) for node in placeholders)
        assert all(isinstance(node.parent.this, exp.Column) for node in placeholders if node.parent is not None)
