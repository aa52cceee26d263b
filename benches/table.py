"""Result tables: one line a system, the ratio of its figure to Headrace's, the aims below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One system's medians. `figure` is what ratios are made of."""

    syncs: str
    system: str
    figure: float
    details: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Aim:
    """Headrace's figure against another's: at least `factor` times it (or at most, where less is better).

    `system` None compares with the number `factor` itself; `subject` is for tables with more than one line of ours.
    """

    system: str | None
    factor: float
    at_most: bool = False
    subject: str | None = None

    def verdict(self, rows: Sequence[Row], subject: str) -> str | None:
        """One line: the aim, what was measured, whether it was met; None when a system is missing."""
        figures = {row.system: row.figure for row in rows}
        who = "" if self.subject is None else f"{self.subject}: "
        subject = self.subject or subject
        if subject not in figures or (self.system is not None and self.system not in figures):
            return None
        base = 1.0 if self.system is None else figures[self.system]
        measured = figures[subject] / base if base else float("inf")
        met = measured <= self.factor if self.at_most else measured >= self.factor
        bound = "at most" if self.at_most else "at least"
        times = "" if self.system is None else f" x {self.system}"
        verdict = "met" if met else "MISSED"
        return f"  aim: {who}{bound} {number(self.factor)}{times}; measured {number(measured)}: {verdict}"


@dataclass(frozen=True)
class Report:
    """A table ready to print."""

    title: str
    unit: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    aims: tuple[Aim, ...] = ()
    subject: str = "Headrace"
    note: str = ""

    def __str__(self) -> str:
        """The table as text."""
        base = next((row.figure for row in self.rows if row.system == self.subject), None)
        lines = [("syncs", "system", self.unit, f"{self.subject} / it", *self.headings)]
        for row in self.rows:
            ratio = f"{base / row.figure:.2f}" if base is not None and row.figure else "-"
            lines.append((row.syncs, row.system, number(row.figure), ratio, *row.details))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [self.title, ""]
        for place, line in enumerate(lines):
            text.append(
                "  " + "  ".join(_align(cell, w, i) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
            )
            if place == 0:
                text.append("  " + "  ".join("-" * w for w in widths))
        text.append("")
        text += [verdict for aim in self.aims if (verdict := aim.verdict(self.rows, self.subject))]
        if self.note:
            text.append(f"  {self.note}")
        text.append("  one row again:")
        text += [f"    {command}" for command in dict.fromkeys(row.command for row in self.rows) if command]
        return "\n".join(text) + "\n"


def number(value: float) -> str:
    """A figure with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _align(cell: str, width: int, index: int) -> str:
    return cell.ljust(width) if index < 2 else cell.rjust(width)
