"""The public face: what is exported, what an import costs, and that the page about it says what is there."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import headrace
from headrace import _exceptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")


def test_all_is_sorted_and_there() -> None:
    assert headrace.__all__ == sorted(headrace.__all__, key=lambda name: (name[0].islower(), name))
    assert all(hasattr(headrace, name) for name in headrace.__all__)
    assert set(headrace.__all__) <= set(dir(headrace))


def test_everything_public_is_exported() -> None:
    """What the private modules define without an underscore and users can meet is there under its own name."""
    exceptions = {name for name, value in vars(_exceptions).items() if inspect.isclass(value)}
    assert exceptions <= set(headrace.__all__)
    source = (ROOT / "headrace" / "__init__.py").read_text(encoding="utf-8")
    typed = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    assert set(re.findall(r"\b(?!import|from|headrace\b)([A-Za-z]\w+)(?=[,\n])", typed)) == set(headrace.__all__)


def test_the_tree_of_exceptions_is_the_one_that_is_drawn() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for match in re.finditer(r"^([ │├└─]*)([A-Z]\w+) {2,}\S", _exceptions.__doc__ or "", re.MULTILINE):
        depth, name = len(match[1]), match[2]
        above = [entry for entry in above if entry[0] < depth]
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    real = {name: value.__base__.__name__ for name, value in vars(_exceptions).items() if inspect.isclass(value)}
    assert drawn == real


def test_importing_costs_little() -> None:
    code = (
        "import sys, headrace; "
        "heavy = {'httpx', 'websockets', 'pyarrow', 'pandas', 'msgspec', 'asyncio', 'server', 'sql'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); headrace.connect; "
        "assert not {'pyarrow', 'pandas', 'polars', 'server', 'sql', 'storage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_both_faces_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {"url"}

    assert methods(headrace.Client) - {"close"} == methods(headrace.AsyncClient) - {"aclose", "connect"}


def test_the_page_names_everything_that_can_go_wrong_and_every_option() -> None:
    for name, value in vars(_exceptions).items():
        if inspect.isclass(value):
            assert f"`{name}`" in PAGE or f"`headrace.{name}`" in PAGE or name == "ResponseError", name
    for name in inspect.signature(headrace.AsyncClient).parameters:
        assert f"`{name}`" in PAGE or name == "transport", name
    for name in vars(headrace.AsyncClient):
        if not name.startswith("_") and name not in {"aclose", "connect"}:
            assert re.search(rf"\b{name}\b", PAGE), name
