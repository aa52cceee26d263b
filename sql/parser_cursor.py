"""A position in a statement's tokens: what our own statement parsers read with."""

from __future__ import annotations

from typing import NoReturn

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source, shown
from sql.errors import InvalidSql, SqlError
from sql.parser_queries import parse_expression
from sql.table_name import TableName

_NOT_WORDS = frozenset({TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER, TokenType.HEX_STRING})
_CONSTRAINT_WORDS = frozenset({
    "primary key", "unique", "check", "constraint", "auto_increment", "autoincrement", "generated", "comment",
    "references", "collate", "default",
})  # fmt: skip


class Cursor:
    """Reads tokens one after the other. Words are compared in lower case; `error_kind` is what failures raise."""

    __slots__ = ("end", "error_kind", "index", "source", "tokens")

    def __init__(self, tokens: list[Token], source: Source, error_kind: type[SqlError] = InvalidSql) -> None:
        self.tokens = tokens
        self.source = source
        self.index = 0
        self.end = len(tokens)
        self.error_kind = error_kind

    # Looking

    def peek(self, ahead: int = 0) -> Token | None:
        """The token `ahead` of the current one, or None past the end."""
        at = self.index + ahead
        return self.tokens[at] if at < self.end else None

    def word(self, ahead: int = 0) -> str:
        """The unquoted word or operator there, in lower case; empty for strings, quoted names and the end."""
        token = self.peek(ahead)
        return "" if token is None or token.token_type in _NOT_WORDS else token.text

    def at(self, *words: str) -> bool:
        """Whether the next tokens are these words or operators."""
        return all(self.word(i) == word for i, word in enumerate(words))

    # Taking

    def accept(self, *words: str) -> bool:
        """Takes these words or operators if they are next."""
        if not self.at(*words):
            return False
        self.index += len(words)
        return True

    def expect(self, *words: str) -> None:
        """Takes these words or operators, or fails."""
        for word in words:
            if not self.accept(word):
                self.fail_expected(word if not word.isalpha() else word.upper())

    def name(self, what: str) -> str:
        """Takes a name: words are lower case already, quoted names keep their case."""
        token = self.peek()
        if token is None or (token.token_type is not TokenType.IDENTIFIER and not self._is_plain_word(token)):
            self.fail_expected(what)
        self.index += 1
        return token.text

    def column_name(self) -> str:
        """Takes a column's name, always in lower case."""
        return self.name("a column name").lower()

    def table_name(self) -> TableName:
        """Takes `[namespace.]table`."""
        return self._qualified("table", "a table name")

    def topic_name(self) -> TableName:
        """Takes `[namespace.]topic`."""
        return self._qualified("topic", "a topic's name")

    def index_name(self) -> TableName:
        """Takes `[namespace.]index`."""
        return self._qualified("index", "an index's name")

    def _qualified(self, kind: str, what: str) -> TableName:
        token = self.peek()
        first = self.name(what)
        line, column = (token.line, token.col) if token else (1, 1)
        if not self.accept("."):
            return TableName(None, first.lower(), line, column)
        second = self.name(what)
        if self.at("."):
            self.fail(f"A {kind} is named by a namespace and a name, nothing more.")
        return TableName(first, second.lower(), line, column)

    def string(self, what: str) -> str:
        """Takes a string literal."""
        token = self.peek()
        if token is None or token.token_type is not TokenType.STRING:
            self.fail_expected(what)
        self.index += 1
        return token.text

    def name_or_string(self, what: str) -> str:
        """Takes a name, or a string literal in its place."""
        token = self.peek()
        if token is not None and token.token_type is TokenType.STRING:
            self.index += 1
            return token.text
        return self.name(what)

    def integer(self, what: str) -> int:
        """Takes a non-negative whole number."""
        token = self.peek()
        if token is None or token.token_type is not TokenType.NUMBER or not token.text.isdigit() or len(token.text) > 9:
            self.fail_expected(what)
        self.index += 1
        return int(token.text)

    def literal(self) -> object:
        """Takes an option's value: a string, number, TRUE, FALSE, NULL, or a bare word as a string."""
        negative = self.accept("-")
        token = self.peek()
        if token is None:
            self.fail_expected("a value")
        if token.token_type is TokenType.NUMBER:
            self.index += 1
            number = int(token.text) if token.text.isdigit() and len(token.text) < 20 else float(token.text)
            return -number if negative else number
        if negative:
            self.fail_expected("a number")
        if token.token_type is TokenType.STRING:
            self.index += 1
            return token.text
        constants: dict[str, bool | None] = {"true": True, "false": False, "null": None}
        if self.word() in constants:
            self.index += 1
            return constants[token.text]
        return self.name("a value")

    def options(self) -> dict[str, object]:
        """Takes `(name = value, …)`."""
        options: dict[str, object] = {}
        self.expect("(")
        while True:
            token = self.peek()
            name = self.name_or_string("an option's name")
            if name in options:
                self.fail(f"The option {shown(name)} is given twice.", token)
            self.expect("=")
            options[name] = self.literal()
            if not self.accept(","):
                break
        self.expect(")")
        return options

    def name_list(self) -> tuple[str, ...]:
        """Takes `(column, …)`."""
        self.expect("(")
        names = [self.column_name()]
        while self.accept(","):
            names.append(self.column_name())
        self.expect(")")
        return tuple(names)

    def if_exists(self) -> bool:
        """Takes IF EXISTS if it is next."""
        return self.accept("if", "exists")

    def if_not_exists(self) -> bool:
        """Takes IF NOT EXISTS if it is next."""
        return self.accept("if", "not", "exists")

    def parenthesized(self) -> exp.Expression:
        """Takes `( expression )`."""
        tokens = self.group()
        return parse_expression(tokens, self.source, self._after(tokens))

    def group(self) -> list[Token]:
        """Takes a balanced `( … )` and returns what is inside."""
        opening = self.peek()
        self.expect("(")
        start, depth = self.index, 1
        while (token := self.peek()) is not None:
            self.index += 1
            if token.token_type is TokenType.L_PAREN:
                depth += 1
            elif token.token_type is TokenType.R_PAREN:
                depth -= 1
                if not depth:
                    return self.tokens[start : self.index - 1]
        raise self.error("This parenthesis is never closed.", opening)

    def default_expression(self) -> exp.Expression:
        """Takes the expression after DEFAULT, up to the next constraint, comma or closing parenthesis."""
        start, depth = self.index, 0
        while self.peek() is not None:
            word = self.word()
            if word in ("(", "[", "{"):
                depth += 1
            elif word in (")", "]", "}"):
                if not depth:
                    break
                depth -= 1
            elif (not depth and self.index > start and self._ends_default(word)) or (not depth and word == ","):
                break
            self.index += 1
        tokens = self.tokens[start : self.index]
        return parse_expression(tokens, self.source, self._after(tokens))

    def _ends_default(self, word: str) -> bool:
        if word in _CONSTRAINT_WORDS:
            return True
        previous = self.word(-1)
        if word == "null":
            return previous not in ("is", "not")
        return word == "not" and self.word(1) == "null" and previous != "is"

    # Failing

    def finish(self) -> None:
        """Fails if the statement goes on."""
        token = self.peek()
        if token is not None:
            self.fail(f"{shown(self.text(token))} was not expected here.", token)

    def fail(self, message: str, token: Token | None = None, kind: type[SqlError] | None = None) -> NoReturn:
        """Raises an error at a token, or at the current place."""
        raise self.error(message, token, kind)

    def fail_expected(self, what: str) -> NoReturn:
        """Raises "Expected …, but found …" at the current place."""
        raise self.expected(what)

    def error(self, message: str, token: Token | None = None, kind: type[SqlError] | None = None) -> SqlError:
        """An error at a token, or at the current place."""
        token = token or self.peek()
        return self.source.error(message, token.start if token else self._end_offset(), kind or self.error_kind)

    def expected(self, what: str) -> SqlError:
        """The error "Expected …, but found …" at the current place."""
        token = self.peek()
        found = f"found {shown(self.text(token))}" if token else "the statement ended"
        return self.error(f"Expected {what}, but {found}.")

    def text(self, token: Token) -> str:
        """The source text of a token."""
        return self.source.text[token.start : token.end + 1]

    def _end_offset(self) -> int:
        return self.tokens[self.end - 1].end + 1 if self.end else 0

    def _after(self, tokens: list[Token]) -> int:
        """Where an expression made of `tokens` ends in the text."""
        if tokens:
            return tokens[-1].end + 1
        token = self.peek(-1) or self.peek()
        return token.end + 1 if token else self._end_offset()

    @staticmethod
    def _is_plain_word(token: Token) -> bool:
        first = token.text[:1]
        return token.token_type not in _NOT_WORDS and (first.isalpha() or first == "_") and " " not in token.text
