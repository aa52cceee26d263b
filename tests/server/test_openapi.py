"""`/openapi.json` describes every route and nothing else; `/docs` shows it without a network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from server.app import SQL_PATH, own_routes
from server.auth.routes import routes as auth_routes
from server.live.events import routes as event_routes
from server.operations import OPERATIONS, document
from server.routes.metrics import MetricsRoute
from server.routes.topics import TopicRoutes
from tests.server.fakes import make


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        return (
            {value["$ref"]} if "$ref" in value else set().union(*(references(item) for item in value.values()), set())
        )
    return set().union(*(references(item) for item in value), set()) if isinstance(value, list) else set()


def test_every_route_is_described_and_every_description_has_a_route(tmp_path: Path) -> None:
    setting = make(tmp_path)
    served = {("POST", SQL_PATH)}
    served |= {("POST", path) for path in TopicRoutes(setting.state, setting.active).endpoints()}
    metrics = MetricsRoute(dict, setting.state.authenticator).route()
    more = [*auth_routes(None), *event_routes(None, None, None), metrics]  # type: ignore[arg-type]
    for route in [*own_routes(setting.state, setting.active), *more]:
        if route.include_in_schema:
            served |= {(method, route.path) for method in (route.methods or set()) - {"HEAD"}}
    assert served == {(operation.method, operation.path) for operation in OPERATIONS}


def test_the_document_is_whole() -> None:
    found = document()
    assert found["openapi"] == "3.1.0"
    for reference in references(found):
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"]
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    sql = found["paths"]["/v1/api/sql"]["post"]
    assert sql["security"] == [{"bearer": []}]
    assert set(sql["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert set(sql["responses"]["200"]["content"]) == {
        "application/json", "application/x-ndjson", "application/vnd.apache.arrow.stream",
    }  # fmt: skip
    assert found["components"]["schemas"]["SqlRequest"]["required"] == ["sql"]


def test_it_is_served(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.request("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == document()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_the_page_needs_no_network_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    answer = make(tmp_path).request("GET", "/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    page = Page(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?://|@import|url\(", answer.text)
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link == "/openapi.json" or link.removeprefix("#") in page.ids
    for operation in OPERATIONS:
        assert operation.path in answer.text
