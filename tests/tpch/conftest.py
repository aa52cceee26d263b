"""Shows how long each query of TPC-H took, here and in DuckDB, also when the tests ran in other processes."""

from __future__ import annotations

import pytest

TIMES = "TPC-H"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what `test_tpch` recorded."""
    lines = [
        str(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == TIMES
    ]
    if lines:
        terminalreporter.section(TIMES)
        for line in sorted(lines):
            terminalreporter.write_line(line)
