"""examples/chat in a real browser: two people talk, one takes a message back, the server is killed and comes again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.running import RunningServer, stable_port

CHAT = Path(__file__).parents[2] / "examples" / "chat"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a Chromium browser (Debian package chromium)")


@pytest.fixture(name="browser")
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="chat")
def _chat(tmp_path: Path) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path / "data", port=stable_port())
    try:
        running.start().set_up().sql((CHAT / "setup.sql").read_text(encoding="utf-8"))
        yield running
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


def enter(browser: Browser, server: RunningServer, user: str, password: str) -> Page:
    page = browser.new_context().new_page()
    page.goto((CHAT / "index.html").as_uri())
    page.fill("[name=server]", server.url)
    page.fill("[name=user]", user)
    page.fill("[name=password]", password)
    page.click("text=Enter")
    expect(page.locator("#state")).to_have_text(f"{user} in mill")
    return page


def say(page: Page, text: str) -> None:
    page.fill("[name=body]", text)
    page.click("text=Send")


def test_two_browsers_talk(browser: Browser, chat: RunningServer) -> None:
    ann = enter(browser, chat, "ann", "Ann-likes-water-1")
    ben = enter(browser, chat, "ben", "Ben-likes-wheels-2")
    say(ann, "the sluice is open")
    say(ben, "<b>the wheel turns</b>")
    for page in (ann, ben):
        expect(page.locator("#messages li")).to_have_count(2)
        expect(page.locator("#messages li").first).to_contain_text("the sluice is open")
        expect(page.locator("#messages li").last).to_contain_text("<b>the wheel turns</b>")
    expect(ann.locator("#messages time").first).to_have_text(re.compile(r"^\d{1,2}:\d\d:\d\d"))
    ann.click("text=take back")
    expect(ben.locator("#messages li")).to_have_count(1)

    chat.kill()
    expect(ben.locator("#state")).to_contain_text("connection lost")
    chat.start()
    chat.sql("DELETE FROM chat.messages WHERE author = 'ben'")
    chat.sql("INSERT INTO chat.messages (room, author, body) VALUES ('mill', 'root', 'back again')")
    for page in (ann, ben):
        expect(page.locator("#messages li")).to_have_count(1, timeout=30_000)
        expect(page.locator("#messages li")).to_contain_text("back again", timeout=30_000)
