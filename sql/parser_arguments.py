"""How many arguments a function may have before sqlglot leaves some out.

sqlglot builds the nodes of functions that it knows from the arguments that it expects, and says nothing of further
ones: `left('abc', 1, 2)` would be `left('abc', 1)`. What would be left out is refused here, before its parser. The
table is data; a test asks sqlglot for each function and holds the table against the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source

_MOST: dict[int, str] = {
    0: "gen_random_uuid generate_uuid get_current_time uuid",
    1: "any_value array_agg array_distinct arrayagg base64_decode_binary base64_decode_string base64_encode char "
    "char_length character_length chr count_if countif dayname epoch_ms generator hex json json_parse len length "
    "list_distinct log10 log2 lower_hex md5_digest monthname parse_json posexplode sha2 to_boolean unicode",
    2: "add_months approx_quantile array_append array_contains array_except array_has array_overlaps array_position "
    "array_prepend array_remove ceil ceiling corr date datetime_trunc datetrunc floor get_bit getbit group_concat "
    "jaro_winkler_similarity jarowinkler_similarity json_extract_scalar json_extract_string json_format json_keys "
    "left list_append list_contains list_has list_has_any list_prepend listagg ltrim map mod months_between "
    "parse_datetime quantile quantile_cont quantile_disc right rtrim split str_split str_to_date str_to_time "
    "strftime string_agg string_split stringagg strptime timestamp timestamp_trunc to_binary trunc truncate "
    "unix_to_time xor",
    3: "arg_max arg_min argmax argmin array_join array_to_string charindex convert_timezone date_bin date_diff "
    "date_from_parts datediff datefromparts datetime_diff generate_series leftpad locate lpad make_date max_by min_by "
    "object_insert position range rightpad round rpad split_part substr substring time_bucket time_slice uniform",
    4: "array_slice",
    6: "make_time make_timestamp time_from_parts timefromparts",
}
MOST_ARGUMENTS = {name: most for most, names in _MOST.items() for name in names.split()}
"""The most arguments by function, where sqlglot would leave out what is beyond."""

_NO_CALL_AFTER = frozenset({"as", "into", "recursive", "with", ".", "table"})
_NAMES = frozenset({TokenType.VAR, TokenType.IDENTIFIER, TokenType.R_PAREN})
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})


class _Call:
    """An open bracket: of a call that is counted, or of anything else."""

    __slots__ = ("commas", "counting", "name")

    def __init__(self, name: Token | None) -> None:
        self.name = name
        self.commas = 0
        self.counting = name is not None


def check_arguments(tokens: Sequence[Token], source: Source) -> None:
    """Raise InvalidSql where a call has more arguments than sqlglot keeps."""
    if not any(token.text in MOST_ARGUMENTS for token in tokens):
        return
    calls: list[_Call] = []
    for place, token in enumerate(tokens):
        kind = token.token_type
        if kind in _OPENING:
            calls.append(_Call(_called(tokens, place) if kind is TokenType.L_PAREN else None))
        elif kind in _CLOSING:
            if calls:
                _check(calls.pop(), tokens, place, source)
        elif calls and calls[-1].counting:
            if kind is TokenType.COMMA:
                calls[-1].commas += 1
            elif kind is TokenType.ORDER_BY:
                calls[-1].counting = False


def _called(tokens: Sequence[Token], place: int) -> Token | None:
    """The name of a function of the table that is called with this parenthesis."""
    if place == 0 or tokens[place - 1].text not in MOST_ARGUMENTS:
        return None
    name = tokens[place - 1]
    if name.token_type in {TokenType.STRING, TokenType.IDENTIFIER}:
        return None
    before = tokens[place - 2] if place > 1 else None
    if before is not None and (before.token_type in _NAMES or before.text in _NO_CALL_AFTER):
        return None
    return name


def _check(call: _Call, tokens: Sequence[Token], place: int, source: Source) -> None:
    if call.name is None or (call.commas == 0 and tokens[place - 1].token_type is TokenType.L_PAREN):
        return
    most = MOST_ARGUMENTS[call.name.text]
    if call.commas < most:
        return
    after = [token.text for token in tokens[place + 1 : place + 3]]
    if after == ["as", "("]:  # columns of a common table expression
        return
    plural = "argument" if most == 1 else "arguments"
    takes = f"at most {most} {plural}" if most else "no argument"
    raise source.error(f"{call.name.text}() takes {takes}.", call.name.start)
