"""Options of the tests that make disks fail."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all-faults` lets every kind of failure meet tables with topics; otherwise those run that differ most."""
    group = parser.getgroup("faults")
    group.addoption("--all-faults", action="store_true", help="every kind of failure for tables with topics")
