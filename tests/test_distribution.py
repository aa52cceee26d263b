"""What `pip install` brings: every file that the packages need, every library that they import, nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("storage", "sql", "server", "headrace")
INDIRECT = {
    "httptools": "uvicorn's parser of HTTP, chosen by name",
    "sqlglotc": "the compiled form of sqlglot, which finds it by itself",
    "uvloop": "uvicorn's event loop, chosen by name",
}


def name_of(requirement: str) -> str:
    """The distribution that a requirement names, in its normal form."""
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return normal(found[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Top-level modules that the packages import, but not their own."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found.update(alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return found - set(PACKAGES) - set(sys.stdlib_module_names)


def test_imports_are_dependencies() -> None:
    distributions = packages_distributions()
    declared = {name_of(requirement) for requirement in PROJECT["project"]["dependencies"]}
    used = set()
    for module in sorted(imported()):
        owners = {normal(owner) for owner in distributions.get(module, [])}
        assert owners & declared, f"{module} is imported but not among the dependencies"
        used |= owners & declared
    unused = declared - used - set(INDIRECT)
    assert not unused, f"dependencies that nothing imports: {sorted(unused)}"


def test_every_dependency_has_a_lower_bound() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+(,<[\d.]+)?", requirement), requirement


@pytest.mark.parametrize("package", PACKAGES)
def test_data_files_are_in_the_wheel(package: str) -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    assert (ROOT / package / "py.typed").exists()
    for path in (ROOT / package).rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            assert any(fnmatch(path.name, pattern) for pattern in patterns), f"{path} would be missing"
            assert (path.parent / "__init__.py").exists(), (
                f"{path.parent} is no package, so {path.name} would be missing"
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_code_is_a_package(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path
