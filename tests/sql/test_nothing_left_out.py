"""What sqlglot reads and has no words for in DuckDB's SQL is refused: it is never left out in silence."""

from __future__ import annotations

import pytest

from sql.errors import Unsupported
from tests.sql.fake_view import FakeView
from tests.sql.query_support import World


@pytest.mark.parametrize(
    "query",
    [
        "SELECT x FROM (VALUES (1)) v(x) ORDER BY x FETCH FIRST 1 ROW WITH TIES",
        "SELECT x FROM (VALUES (1)) v(x) ORDER BY x FETCH FIRST 50 PERCENT ROWS ONLY",
        "SELECT array_agg(x ORDER BY x LIMIT 2) FROM (VALUES (1)) v(x)",
        "SELECT levenshtein('a', 'b', 1, 2, 3)",
        "SELECT to_number('12.5', '99.9')",
        "SELECT to_char(TIMESTAMP '2024-02-29 00:00:00', 'YYYY Q')",
    ],
)
def test_it_is_refused(query: str) -> None:
    with pytest.raises(Unsupported):
        World(FakeView([])).rows(query)


def test_what_has_words_is_answered() -> None:
    assert World(FakeView([])).rows("SELECT x FROM (VALUES (1), (2)) v(x) ORDER BY x FETCH FIRST 1 ROW ONLY") == [(1,)]
