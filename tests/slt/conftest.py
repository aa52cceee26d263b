"""Shows the pass rate of each sqllogictest file at the end, also when the tests ran in other processes."""

from __future__ import annotations

import pytest

RATES = "sqllogictest"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what `test_sqllogic` recorded."""
    lines = [
        str(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == RATES
    ]
    if lines:
        terminalreporter.section(RATES)
        for line in sorted(lines):
            terminalreporter.write_line(line)
