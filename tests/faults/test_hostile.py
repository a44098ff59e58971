"""Two hundred hostile texts in every column that holds words, every page of screens and console in Chromium: none is run.

``RMN_FAULT_SCALE`` (1) opens a share of the addresses.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import NoReverseMatch, reverse
from playwright.sync_api import Error

from rmn.lib.runs import Run
from tests import test_routes as routes
from tests.browser.conftest import browser, chromium, open_as  # noqa: F401  # fixtures
from tests.conftest import People
from tests.faults.hostile import COUNT, FIRST, TEXTS, as_many, everything, fill, numbers
from tests.test_api import RESOURCES

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not chromium(), reason="no Chromium: set RMN_CHROMIUM or install chromium"),
]
SCALE = float(os.environ.get("RMN_FAULT_SCALE", "1"))
SEEN_ROWS = 3  # of each model: the one that holds everything, and two as doors would take them
KEPT_ROWS = 2  # of each model in the console

# The canary tells its number to the console, from whichever frame; breaches of the policy are told beside it.
CANARY = """
window.xss = (n) => console.error(`RAN ${[n].flat()[0]}`);
for (const name of ["alert", "confirm", "prompt"]) window[name] = window.xss;
addEventListener("securitypolicyviolation", (event) => {
  if (event.effectiveDirective.startsWith("script")) console.error(`STOPPED ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""
# Unfolds everything, waits until HTMX and the pictures are done, and finds texts that became more than text.
SETTLE = r"""
async () => {
  const until = performance.now() + 8000, pause = (ms) => new Promise((done) => setTimeout(done, ms));
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const figure of document.querySelectorAll("figure[data-spec]")) {
    while (!figure.dataset.drawn && performance.now() < until) { figure.scrollIntoView(); await pause(20); }
  }
  while (document.querySelector(".htmx-request") && performance.now() < until) await pause(20);
  await pause(50);
  const armed = [], ours = /990\d{3}/, runs = /^(on|x-|@|:|v-|hx-(on|vals|vars|headers|trigger)|data-hx-on)/;
  const leads = /^(href|xlink:href|src|action|formaction|data|content|background|poster|cite|longdesc)$/;
  const look = (root) => {
    for (const e of root.querySelectorAll("*")) {
      if (e instanceof HTMLTemplateElement) look(e.content);
      if (/^(script|style)$/i.test(e.localName) && !/json/.test(e.type) && ours.test(e.textContent)) armed.push(`<${e.localName}> ${e.textContent.match(/.{0,40}990\d{3}/)[0]}`);
      for (const { name, value } of e.attributes) {
        const plain = value.replace(/[\t\n\r]/g, "");
        if (runs.test(name) && ours.test(value)) armed.push(`<${e.localName} ${name}=${value.slice(0, 80)}>`);
        if (leads.test(name) && /^[\s\x00-\x20]*(javascript|vbscript|data:text|\d+;\s*url=\W*javascript)/i.test(plain)) armed.push(`<${e.localName} ${name}=${plain.slice(0, 80)}>`);
        if (name === "srcdoc") armed.push(`<${e.localName} srcdoc>`);
      }
    }
  };
  look(document);
  return armed;
}
"""


NO_PAGE = re.compile("ERR_HTTP_RESPONSE_CODE_FAILURE|ERR_ABORTED|Download")  # refused without a word; a file


@dataclass
class Seen:
    """What came of opening addresses: the texts drawn on each page, and all that should not be."""

    drawn: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    opened: Counter[str] = field(default_factory=Counter)
    ran: list[str] = field(default_factory=list)
    armed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    none: int = 0  # answers that are no page: files, and refusals without a word


class Reader:
    """A person with a browser, who opens addresses and tells what they did."""

    def __init__(self, screen: Any, seen: Seen, *, part: bool = False) -> None:
        self.context, self.url, self.seen = screen.page.context, screen.url, seen
        self.status, self.told = 0, []
        self.context.add_init_script(CANARY)
        self.context.set_default_timeout(180_000)  # the machine may be shared
        if part:
            self.context.set_extra_http_headers({"HX-Request": "true"})
        self.page = self._fresh()

    def _fresh(self) -> Any:
        page = self.context.new_page()
        page.on("console", lambda said: self.told.append(said.text))
        page.on("dialog", lambda dialog: (self.told.append(f"RAN dialog {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda popup: self.told.append(f"RAN popup {popup.url}"))
        page.on("response", self._note)
        return page

    def _note(self, answer: Any) -> None:
        if answer.request.is_navigation_request() and answer.frame.parent_frame is None:
            self.status = answer.status

    def open(self, name: str, path: str) -> str:
        """Open an address and look at what it draws; the page, where it is one."""
        self.told.clear()
        where = f"{name} {path[:120]}"
        try:
            self.page.goto(self.url + path, wait_until="load")
        except Error as error:
            if NO_PAGE.search(str(error)):
                self.seen.none += 1
            else:
                self.seen.broken.append(f"{where}: {str(error)[:200]}")
            self.page.close()
            self.page = self._fresh()
            return ""
        asked, page = self.page.url, ""
        try:
            self.seen.armed += [f"{where}: {found}" for found in self.page.evaluate(SETTLE)]
            page = self.page.content()
        except Error as error:
            self.told.append(f"RAN and left the page: {str(error)[:80]}")
        if self.page.url.partition("#")[0] != asked.partition("#")[0]:
            self.told.append(f"RAN to {self.page.url[:80]}")
        self.seen.ran += [f"{where}: {told}: {_which(told)}" for told in self.told if told.startswith("RAN")]
        self.seen.stopped += [f"{where}: {told}" for told in self.told if told.startswith("STOPPED")]
        if self.status < 400 or self.status == 422:
            self.seen.opened[name] += 1
            self.seen.drawn[name] |= numbers(page)
        return page

    def wants_less_than(self, status: int, name: str, path: str) -> None:
        if self.status >= status:
            self.seen.broken.append(f"{name} {path[:120]}: {self.status}")

    def _token(self) -> str:
        return next((one["value"] for one in self.context.cookies() if one["name"] == "csrftoken"), "")

    def send(self, name: str, path: str, values: dict[str, Any]) -> str:
        """As a form would be sent that changes nothing, and look at what comes back."""
        if not self._token():
            self.page.goto(self.url + path)  # its form carries one
        body = urlencode({**values, "csrfmiddlewaretoken": self._token()}, doseq=True)

        def post(route: Any) -> None:
            kind = {"content-type": "application/x-www-form-urlencoded"}
            route.continue_(method="POST", headers={**route.request.headers, **kind}, post_data=body)

        self.page.route(self.url + path, post, times=1)
        return self.open(name, path)


def _which(told: str) -> str:
    found = re.search(r"990\d{3}", told)
    return TEXTS[int(found[0]) - FIRST] if found else "?"


# -- addresses

# What is fairly refused: a brief without a model server, a reset link that is none, a machine's page.
FAIR = {("playground-stream", 422), ("password_reset_confirm", 404), ("metrics", 403), ("metrics", 401), ("readyz", 503), ("compare-budgets", 404), ("feedback-export-file", 404), ("copy-evidence", 404)}  # fmt: skip

QUERIES = {
    "compare-budgets": ["?with={budgetplan}"], "copy": ["?which=block", "?which=decided", "?which=published"], "forecasts": ["?show=due", "?show=resolved"], "clean-room": ["?template=reach"],
    "review": [f"?kind={kind}" for kind in ("pair", "rating", "thumb", "correction")] + ["?queue=disputed"], "performance": ["?campaign={campaign}", "?days=366"], "audit": ["?brand=acme", "?brand=acme&verify=1"],
    "masked-data": ["?brand=acme"], "feedback": ["?brand=acme"], "feedback-export": ["?brand=acme"], "playground": ["?{brief}"], "playground-stream": ["?{brief}&side=base"], "login": ["?next={link}"], "budget-plan": ["?budget=900&least_return=0"],
}  # fmt: skip


def key(row: Any) -> Any:
    return row.pk if isinstance(row, Run) else row.uuid


def screens(rows: dict[Any, list[Any]]) -> Iterator[tuple[str, str]]:
    """Name and address of every page of the routes' matrix, as often as there are rows to see."""
    known = {model.__name__.lower(): made for model, made in rows.items()}
    fits = {
        "budgetplan": known["budgetplan"][1].pk,
        "campaign": urlencode({"": TEXTS[3]})[1:],
        "brief": urlencode({"brand": "acme", "product": TEXTS[0], "size": TEXTS[32], "feature": as_many(120, 14), "network": "instacart"}),
        "link": urlencode({"": TEXTS[31]})[1:],
    }  # fmt: skip
    loud = urlencode(
        {"x": everything(0), "q": as_many(120, 60), "sort": TEXTS[2], "page": TEXTS[4], TEXTS[14]: TEXTS[15]}
    )
    for name, _ in routes.pages():
        words = [{}]
        if name in routes.OF_A_BRAND:
            words = [{"slug": "acme", "task": task} for task in ("creative", "budgeting", "measurement")]
        elif name in routes.OF_A_ROW:
            made, more = routes.OF_A_ROW[name]
            words = [{"pk": key(row), **more} for row in rows[made._meta.model][:SEEN_ROWS]]
            if name == "run":
                words += [
                    {"pk": row.pk} for model, many in rows.items() if issubclass(model, Run) for row in many[:SEEN_ROWS]
                ]
        elif name == "password_reset_confirm":
            words = [{"uidb64": "x", "token": "y-z"}]
        for number, told in enumerate(words):
            try:
                address = reverse(name, kwargs=told or None)
            except NoReverseMatch:  # those without a name stand under their address
                address = f"/{name}"
            yield name, address
            if number == 0:
                yield name, f"{address}?{loud}"
            for query in QUERIES.get(name, []):
                yield name, address + query.format(**fits)
    for address in RESOURCES:
        yield "api", f"/api/v1/{address}/"


def console(rows: dict[Any, list[Any]]) -> Iterator[tuple[str, str]]:
    """Name and address of every page of the console: of itself, of each model, and of rows of it."""
    site = admin.site
    for pattern in site.get_urls():
        yield from _reversed(getattr(pattern, "name", None), [[]])
    for label in sorted({model._meta.app_label for model in site._registry}):
        yield "app_list", reverse("admin:app_list", args=[label])
    for more in ("s=x", f"extended=1&{urlencode({'s': TEXTS[0]})}", "extended=1&s=xss"):
        yield "search", f"{reverse('admin:search')}?{more}"
    for model, its in site._registry.items():
        made = rows.get(model) or list(model._base_manager.all()[:KEPT_ROWS])
        keys = [[row.pk] for row in made[:KEPT_ROWS]]
        versions = [[row.pk, row.history.last().pk] for row in made[:1] if hasattr(row, "history") and row.history.exists()]  # fmt: skip
        listed = f"{model._meta.app_label}_{model._meta.model_name}_changelist"
        for pattern in its.get_urls():
            name = getattr(pattern, "name", None) or ""
            yield from _reversed(name, [[], *(keys if name.endswith("_change") else keys[:1]), *versions])
        yield listed, f"{reverse(f'admin:{listed}')}?{urlencode({'q': as_many(120, 0), 'o': TEXTS[14]})}"


def questions(rows: dict[Any, list[Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What the console asks before it acts on chosen rows: nothing is done until that is answered."""
    for model, its in admin.site._registry.items():
        for name in its.actions or []:
            if isinstance(name, str) and hasattr(getattr(type(its), name, None), "__wrapped__") and rows.get(model):
                listed = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
                yield name, listed, {"action": name, "_selected_action": [row.pk for row in rows[model]]}


def refused(rows: dict[Any, list[Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Forms filled with hostile values: nothing is kept, and what was typed comes back. And the difference of two wordings."""
    known = {model.__name__: made[0] for model, made in rows.items() if made}
    fields = ["goal", "retailer", "task", "person", "reason", "total_budget", "duration", "most_units", "arm_0", "note", "username", "email", "token", "product", "template", "start", "text", "showing", "answer"]  # fmt: skip
    typed = {name: everything(5 * place) for place, name in enumerate(fields)} | {"total_budget": TEXTS[1]}
    for name, key_of, more in (
        ("plans", None, {"brand": TEXTS[2]}), ("training", None, {"brand": TEXTS[3]}), ("withdrawals", None, {"brand": TEXTS[4]}), ("feedback-export", None, {"format": TEXTS[5]}), ("feed-upload", None, {"brand": TEXTS[6]}),
        ("change-plan", "BudgetPlan", {}), ("change-experiment", "Experiment", {}), ("clean-room", "CleanRoomConnection", {"template": "reach"}), ("login", None, {"password": "x"}), ("password_reset", None, {}), ("second-factor", None, {}),
        ("wording-difference", "ReviewTask", {}),
    ):  # fmt: skip
        yield name, reverse(name, kwargs={"pk": key(known[key_of])} if key_of else None), typed | more


def _reversed(name: str | None, words: list[list[Any]]) -> Iterator[tuple[str, str]]:
    for told in words if name else []:
        with suppress(NoReverseMatch):
            yield str(name), reverse(f"admin:{name}", args=told)


def share(some: Iterator[Any]) -> list[Any]:
    """All of them once, or at a smaller scale some from everywhere."""
    found = [*some]
    once = [one for place, one in enumerate(found) if one not in found[:place]]
    return once[:: max(1, round(1 / SCALE))] if SCALE < 1 else once


def look_at_screens(rows: dict[Any, list[Any]], nobody: Reader, marketer: Reader, ops: Reader, part: Reader) -> int:
    """Every screen as a marketer sees it, or ops staff where a marketer may not; how many pages take no GET."""
    posted: set[str] = set()
    client = People.web(User.objects.get(email="owner@example.com"))
    for name, path in share(screens(rows)):
        if name in posted:
            continue
        reader = nobody if name in routes.OPEN else ops if name in routes.STAFF else marketer
        page = reader.open(name, path)
        if reader is marketer and reader.status in (403, 404):
            reader, page = ops, ops.open(name, path)
        if reader.status == 405:
            posted.add(name)
        elif (name, reader.status) not in FAIR:
            reader.wants_less_than(400, name, path)
        if "?" in path or SCALE < 1:
            continue
        for picture in sorted(set(re.findall(r"picture=([\w-]+\.svg)", page))):
            reader.open(f"{name} {picture}", f"{path}?picture={picture}")
        answer = client.get(path, headers={"HX-Request": "true"})
        if answer.headers.get("Content-Type", "").startswith("text/html") and b"<html" not in answer.getvalue():
            part.open(f"{name} in part", path)
    for name, path, values in share(refused(rows)):
        reader = nobody if name in routes.OPEN else ops
        reader.send(f"{name} sent", path, values)
        reader.wants_less_than(500, name, path)
    marketer.open("nowhere", f"/nowhere/{quote(TEXTS[0])}?{urlencode({'x': TEXTS[1]})}")
    return len(posted)


def look_at_console(rows: dict[Any, list[Any]], ops: Reader) -> None:
    """Every page of the console, and what it asks before it acts on rows."""
    for name, path in share(console(rows)):
        ops.open(f"console {name}", path)
        if ops.status not in (403, 405):  # nobody may add such a row, or delete one
            ops.wants_less_than(400, name, path)
    for name, path, values in share(questions(rows)):
        ops.send(f"console {name} asked", path, values)
        ops.wants_less_than(400, name, path)


def test_two_hundred_hostile_texts_are_never_run(open_as: Any, people: People, settings: Any) -> None:  # noqa: F811
    assert len(set(TEXTS)) == COUNT
    settings.RMN_REQUIRE_OTP = False
    rows, seen = fill(people), Seen()
    nobody, marketer, ops = (Reader(open_as(person), seen) for person in (None, people.owner, people.ops))
    posted = look_at_screens(rows, nobody, marketer, ops, Reader(open_as(people.owner), seen, part=True))
    look_at_console(rows, ops)
    few = {name: len(found) for name, found in sorted(seen.drawn.items()) if len(found) < COUNT}
    told = f"{COUNT} texts, {len(seen.opened)} pages, {seen.opened.total()} addresses: {len(seen.ran)} run, {len(seen.stopped)} stopped by the policy, {len(seen.armed)} more than text; {len(seen.opened) - len(few)} pages drew all {COUNT}"
    told += f"\n{posted} pages take no GET, {seen.none} answers were no page; fewer texts: {few}"
    print(f"\n{told}", file=sys.stderr, flush=True)  # noqa: T201
    assert not seen.ran
    assert not seen.stopped
    assert not seen.armed
    assert not seen.broken
    assert len(few) < 0.5 * len(seen.opened)


PAGE = """<!doctype html><title>x</title><p>TEXT</p><input value="TEXT"><input value='TEXT'><textarea>TEXT</textarea><a href="TEXT">x</a><script>var said = "TEXT"</script><script>var said = 'TEXT'</script>"""


def leaking(text: str, policy: str) -> Any:
    """Answers with a page that escapes nothing."""

    def answer(route: Any) -> None:
        body, headers = PAGE.replace("TEXT", text), {"content-security-policy": policy}
        route.fulfill(body=body, content_type="text/html", headers=headers)

    return answer


def test_a_page_that_lets_them_through_is_told_of(open_as: Any) -> None:  # noqa: F811
    """The same texts where nothing escapes them, with a policy and without: else finding none would say nothing."""
    seen = Seen()
    reader, places = Reader(open_as(), seen), range(0, COUNT, 1 if SCALE >= 1 else 7)
    for place in places:
        policy = "script-src 'self'" if place % 2 else ""
        reader.page.route("**/leak/*", leaking(TEXTS[place], policy), times=1)
        reader.open(f"{place}", f"/leak/{place}")
    found = {told.split()[0] for told in seen.ran + seen.armed + seen.stopped}
    print(f"\nof {len(places)} in a page that escapes nothing, {len(found)} are told of", file=sys.stderr, flush=True)  # noqa: T201
    assert seen.ran
    assert seen.armed
    assert seen.stopped
    assert len(found) > 0.7 * len(places)
