"""The pages of docs/ name what the code has, and their examples are what the code does.

Beside it: tests/sql/test_grammar_doc.py and test_sql_doc.py (SQL), tests/server/test_config.py (settings),
tests/test_guarantees.py (promises), tests/e2e/test_readme.py (README).
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import pkgutil
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

import sql
from server.config import Config, keys, sections
from server.figures import AccountCount, numbers_of, texts_of
from server.operations import OPERATIONS
from server.process_figures import ProcessFigures
from server.topic_wire import ConsumeBody
from server.wire import IngestSuccess, SqlRequest, SqlSuccess
from sql.database import Database
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.rendering import encode_error
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef
from storage.environment import NAMES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ANN = Identity("ann", Role.DBA)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced examples of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL)


PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def test_the_index_names_every_page() -> None:
    assert {name for name in PAGES if f"({name})" in page("index.md")} == set(PAGES) - {"index.md"}


@pytest.mark.parametrize("name", PAGES)
def test_examples_can_be_read_by_their_languages(name: str) -> None:
    for text in blocks(name, "json"):
        json.loads(text)
    for text in blocks(name, "python"):
        ast.parse(text)
    for language in ("bash", "sh"):
        for text in blocks(name, language):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


# --- http-api.md ------------------------------------------------------------------------------------------------------


def test_every_route_is_documented() -> None:
    text = page("http-api.md")
    for operation in OPERATIONS:
        assert f"{operation.method} {operation.path}" in text, operation.path


WRITTEN = re.compile(
    r'(?:HttpError|AuthError)\(\s*\d+,\s*"(\w+)"|sql_failure\(\s*"(\w+)"|"error": "(\w+)"|code(?:: str)? ?= ?"(\w+)"'
)
"""Where the sources of the server write a code."""


def sql_errors() -> list[type[SqlError]]:
    """Every kind of error of the SQL layer."""
    for module in pkgutil.walk_packages(sql.__path__, "sql."):
        importlib.import_module(module.name)
    kinds = [SqlError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


def codes() -> set[str]:
    """Every code that an answer may carry: of SQL errors, and those that the server's sources write."""
    found = {kind.code for kind in sql_errors()}
    found |= {"NOT_FOUND", "METHOD_NOT_ALLOWED", "BODY_TOO_LARGE", "internal_error"}
    for path in (ROOT / "server").rglob("*.py"):
        found |= {"".join(groups) for groups in WRITTEN.findall(path.read_text(encoding="utf-8"))}
    return found


def test_every_error_code_is_documented() -> None:
    text = page("http-api.md") + page("authentication.md")
    assert len(codes()) > 40
    assert {code for code in codes() if f"`{code}`" not in text} == set()


def test_every_sql_error_has_its_status() -> None:
    lines = re.findall(r"^\| (\d{3}) \| (.+?) \|", page("http-api.md"), flags=re.MULTILINE)
    documented = {(int(status), code) for status, written in lines for code in re.findall(r"`([A-Z_]+)`", written)}
    assert {(kind.status, kind.code) for kind in sql_errors()} <= documented


def test_the_examples_of_requests_and_answers_are_of_their_structs() -> None:
    request, success, _, ingested, _, consume = blocks("http-api.md", "json")
    msgspec.json.decode(request, type=SqlRequest)
    msgspec.json.decode(success, type=SqlSuccess)
    msgspec.json.decode(ingested, type=IngestSuccess)
    msgspec.json.decode(consume, type=ConsumeBody)


def test_the_examples_of_errors_are_what_is_answered(tmp_path: Path) -> None:
    _, _, not_found, _, bad_line, _ = map(json.loads, blocks("http-api.md", "json"))
    body = tmp_path / "body"
    body.write_text('{"id": 1}\n{"id": "x"}\n')

    async def answers() -> list[dict[str, object]]:
        with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20)) as engine:
            engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("app")))
            database = Database(engine, temp_folder=tmp_path / "duck")
            await database.execute("CREATE TABLE app.messages (id BIGINT PRIMARY KEY)", None, None, ANN)
            found = []
            for call in (
                database.execute("SELECT * FROM app.messags", None, None, ANN),
                database.ingest("app", "messages", body, "application/x-ndjson", ANN),
            ):
                with pytest.raises(SqlError) as caught:
                    await call
                found.append(json.loads(encode_error(caught.value, 0.0)))
            database.close()
            return found

    for expected, answered in zip((not_found, bad_line), asyncio.run(answers()), strict=True):
        assert expected["error"] == answered["error"]
        assert expected.keys() == answered.keys()


# --- operations.md, architecture.md -----------------------------------------------------------------------------------


def test_every_figure_is_documented(tmp_path: Path) -> None:
    text = page("operations.md")
    with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20)) as engine:
        database = Database(engine, temp_folder=tmp_path / "duck")
        process = ProcessFigures()
        figures = {
            *texts_of(process),
            *numbers_of(engine, process, Config(), AccountCount(engine)),
            *database.figures(),
        }
        database.close()
        for metric in figures:
            assert f"`{metric}`" in text, metric


@pytest.mark.parametrize("name", [*PAGES, "../README.md"])
def test_settings_that_are_named_exist(name: str) -> None:
    known = {f"{section}.{key.name}" for section in sections() for key in keys(section)}
    tops = "|".join(section.partition(".")[0] for section in sections())
    for written in re.findall(rf"`((?:{tops})\.[a-z_.0-9]+)`", page(name)):
        assert written in known, written


def test_files_that_the_architecture_names_exist() -> None:
    for written in re.findall(r"`((?:storage|sql|server|tests|headrace)/[\w./-]*)`", page("architecture.md")):
        assert (ROOT / written).exists(), written


def test_sub_databases_and_threads_are_those_of_the_code() -> None:
    text = page("architecture.md")
    for name in NAMES:
        assert f"`{name}`" in text, name
    sources = "".join(path.read_text() for room in ("storage", "sql") for path in (ROOT / room).glob("*.py"))
    for name in re.findall(r'(?:name|thread_name_prefix)="([a-z-]+)"', sources):
        assert f"| `{name}`" in text, name
