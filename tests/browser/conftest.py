"""Chromium before the real site: a page that is logged in, and what must hold on every page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import People

WIDTHS = (1280, 390)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
# Barriers that a page must not have; each line names the element. Ours, so that nothing foreign is shipped.
LOOK = r"""
() => {
  const found = [], seen = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && e.getClientRects().length;
  const what = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""}${e.className && e.className.baseVal === undefined ? "." + [...e.classList].join(".") : ""}: ${(e.textContent || "").trim().slice(0, 40)}`;
  const say = (rule, e) => found.push(`${rule}: ${what(e)}`);
  const named = (e) => (e.getAttribute("aria-label") || e.textContent || e.title || "").trim() || (e.getAttribute("aria-labelledby") || "").split(" ").some((id) => document.getElementById(id)) || e.querySelector("img[alt]:not([alt=''])");
  if (!document.documentElement.lang) found.push("the page names no language");
  if (!document.title.trim()) found.push("the page has no title");
  if (document.querySelectorAll("h1").length !== 1) found.push(`${document.querySelectorAll("h1").length} headings of level 1`);
  if (!document.querySelector("main")) found.push("no main part");
  if (document.documentElement.scrollWidth > innerWidth + 1) found.push(`wider than the window by ${document.documentElement.scrollWidth - innerWidth}`);
  const ids = new Set();
  for (const e of document.querySelectorAll("[id]")) { if (ids.has(e.id)) say("id given twice", e); ids.add(e.id); }
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) say("picture without text", e);
  for (const e of document.querySelectorAll("svg")) if (seen(e) && !e.closest("[aria-hidden=true]") && !e.closest("[role=img][aria-label]") && !e.getAttribute("aria-label") && !e.querySelector("title")) say("drawing without text", e);
  for (const e of document.querySelectorAll("a[href], button, summary")) if (seen(e) && !named(e)) say("no name", e);
  for (const e of document.querySelectorAll("input:not([type=hidden]):not([type=submit]), select, textarea")) {
    if (seen(e) && !e.labels?.length && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby")) say("no label", e);
  }
  for (const e of document.querySelectorAll("main button, main .button, main select, main textarea, main input:not([type=hidden]):not([type=checkbox]):not([type=radio])")) {
    const box = e.getBoundingClientRect();
    if (seen(e) && (box.height < 43.5 || box.width < 43.5)) say(`only ${Math.round(box.width)} by ${Math.round(box.height)} pixels`, e);
  }
  let level = 1;
  for (const e of document.querySelectorAll("main h1, main h2, main h3, main h4")) {
    if (seen(e) && +e.tagName[1] > level + 1) say("heading skips a level", e);
    if (seen(e)) level = +e.tagName[1];
  }
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const parse = (text) => { const m = text.match(/rgba?\(([^)]+)\)/); return m ? m[1].split(/[, /]+/).map(Number) : null; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c && (c[3] === undefined || c[3] === 1)) return c; } return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const told = new Set();
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || told.has(e) || !seen(e) || e.closest("svg, [disabled], [aria-disabled=true], script, style, noscript, option")) continue;
    told.add(e);
    const style = getComputedStyle(e), ink = parse(style.color);
    if (!ink || (ink[3] !== undefined && ink[3] < 1) || style.backgroundImage !== "none") continue;
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5) - 0.01) say(`contrast ${ratio.toFixed(2)}`, e);
  }
  return found;
}
"""


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("RMN_CHROMIUM") or next(filter(None, map(shutil.which, names)), "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)
            # what the browser's own loop does in this thread is not the database's business
            item.add_marker(pytest.mark.django_db(transaction=True))
            if not chromium():
                item.add_marker(pytest.mark.skip(reason="no Chromium: set RMN_CHROMIUM or install chromium"))


class Screen:
    """One page at one width; ``check`` says all that is wrong with what it shows."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        page.set_default_timeout(30_000)
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def log_in(self, person: Any) -> None:
        key = People.web(person).cookies["sessionid"].value
        self.page.context.add_cookies([{"name": "sessionid", "value": key, "url": self.url}])

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def check(self, *, barriers: bool = True) -> None:
        found = [*self.page.evaluate(LOOK), *self.serious()] if barriers else []
        assert not found + self.errors, f"{self.page.url} at {self.page.viewport_size}: {found + self.errors}"

    def serious(self) -> list[str]:
        """What axe-core finds that keeps somebody out, or nearly so."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"axe {one['id']} ({one['impact']}): {one['nodes'][0]['html'][:160]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found
        found.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def open_as(browser: Browser, live_server: Any) -> Iterator[Any]:
    """Gives a screen for a person (or nobody) at a width."""
    contexts = []

    def make(person: Any = None, width: int = 1280) -> Screen:
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        contexts.append(context)
        screen = Screen(context.new_page(), live_server.url)
        if person is not None:
            screen.log_in(person)
        return screen

    yield make
    for context in contexts:
        context.close()
