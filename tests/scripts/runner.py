"""Golden scripts: plain text that says what is done and what comes of it.

A script is `tests/scripts/<layer>/<case>.txt`. It opens with a heading, lines after `#`, that says what is shown. Then
come blocks, separated by empty lines: commands, a line `---`, and the expected output; `#` before a block explains it.

    # A key is never stored twice.

    INSERT INTO t VALUES (1), (1)
    ---
    error SQL_EXECUTION_ERROR: ...

The layer decides who carries out the commands (`worlds.py`). `HEADRACE_RECORD=1 pytest tests/test_scripts.py` writes
the output that came instead of comparing it: read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

ROOT = Path(__file__).parent
MARK = "---"


class World(Protocol):
    """What carries out the blocks of one script, from a fresh folder on."""

    def run(self, commands: str) -> list[str]:
        """Carry out a block; the lines that it answers."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class Block(NamedTuple):
    """Comments, commands and expected output of one block; a heading is a block without commands."""

    comments: list[str]
    commands: list[str]
    expected: list[str]

    @property
    def lines(self) -> list[str]:
        """The block as it stands in the file."""
        if not self.commands:
            return self.comments
        return [*self.comments, *self.commands, MARK, *self.expected]


def parse(text: str) -> list[Block]:
    """The blocks of a script. Raises ValueError for one without commands, without `---` or without a heading."""
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        comments = [line for line in lines if line.startswith("#")]
        rest = lines[len(comments) :]
        if lines[: len(comments)] != comments:
            raise ValueError(f"comments stand before the commands of a block: {lines[0]}")
        if rest and MARK not in rest:
            raise ValueError(f"a block has no line {MARK}: {rest[0]}")
        place = rest.index(MARK) if rest else 0
        if rest and not place:
            raise ValueError("a block has no commands")
        blocks.append(Block(comments, rest[:place], rest[place + 1 :]))
    if not blocks or blocks[0].commands:
        raise ValueError("a script opens with a heading: lines after #, and an empty line")
    return blocks


def run(script: Path, world: World, *, record: bool) -> tuple[str, str]:
    """Run a script: (what the file says, what came). With `record` the file then says what came."""
    before = script.read_text()
    after = []
    for block in parse(before):
        found = world.run("\n".join(block.commands)) if block.commands else []
        after.append(block._replace(expected=[line.rstrip() or "." for line in found]))
    answered = "\n\n".join("\n".join(block.lines) for block in after) + "\n"
    if record:
        script.write_text(answered)
    return (answered if record else before), answered


def scripts() -> list[Path]:
    """All scripts, in order."""
    return sorted(ROOT.glob("*/*.txt"))


def aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table as text; one column to a line when its rows are long."""
    widths = [max(len(line[place]) for line in [header, *rows]) for place in range(len(header))]
    if sum(widths) + 3 * len(widths) <= 116:
        fit: Callable[[list[str]], str] = lambda line: " | ".join(map(str.ljust, line, widths)).rstrip()  # noqa: E731
        return [fit(header), "-+-".join("-" * width for width in widths), *map(fit, rows)]
    width = max(map(len, header))
    lines = []
    for number, row in enumerate(rows, 1):
        lines.append(f"row {number}")
        lines += [f"  {name.ljust(width)}  {value}" for name, value in zip(header, row, strict=True)]
    return lines
