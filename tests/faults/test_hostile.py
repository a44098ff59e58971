"""Two hundred hostile texts in every text field, every page of console and screens in Chromium: none is run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.contrib import admin
from django.db import models

from rmn.lib.runs import Run
from tests import factories
from tests.browser.conftest import browser, chromium, open_as  # noqa: F401  # fixtures
from tests.conftest import People

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not chromium(), reason="no Chromium: set RMN_CHROMIUM or install chromium"),
]
CALLS = ["xss()", "xss``", "window.xss()", "top['xss']()", "alert(1)", "(0,xss)()", "setTimeout(xss)", "eval('xss()')"]
WAYS = [
    "<script>{}</script>", "<img src=x onerror={}>", "<svg onload={}>", "<svg><script>{}</script></svg>", "\"><img src=x onerror={}>", "'><svg/onload={}>",
    "</title><script>{}</script>", "</textarea><script>{}</script>", "</script><script>{}</script>", "<body onload={}>", "<details open ontoggle={}>", "<input autofocus onfocus={}>",
    "<iframe srcdoc='<script>parent.{}</script>'>", "<a href=javascript:{}>x</a>", "\" autofocus onfocus={} x=\"", "' onmouseover={} x='", "<math><mtext><img src=x onerror={}>", "{{{{constructor.constructor('{}')()}}}}",
    "<div x-data x-init=\"{}\">", "<div hx-on:load=\"{}\">", "<img src=x:x x-on:error=\"{}\">", "${{{}}}", "</style><script>{}</script>", "<object data=javascript:{}>", "\\u003cscript\\u003e{}\\u003c/script\\u003e",
]  # fmt: skip
TEXTS = [way.format(call) for way, call in itertools.product(WAYS, CALLS)]
# Fields whose values are checked before they are kept: choices, codes, addresses.
PLAIN = {"slug", "uuid", "status", "currency", "digest", "sha256", "network", "time_zone", "scope", "chain", "hash", "previous_hash", "row_key", "row_hash", "file_sha256", "file_path", "idempotency_key", "lease_owner", "yaml", "url", "sealed_secret", "code"}  # fmt: skip


def fill(people: People) -> dict[type[models.Model], Any]:
    """A few rows of every model with hostile texts: long fields hold all of them, short ones take turns."""
    turn = itertools.cycle(TEXTS)
    everything = "\n".join(TEXTS)
    made: dict[type[models.Model], Any] = {}
    for make in vars(factories).values():
        model = getattr(getattr(make, "_meta", None), "model", None)
        if model is None or "brand" not in {f.name for f in model._meta.fields} or model.__name__ == "Membership":
            continue
        for _ in range(4):
            row = make(brand=people.brand)
            values: dict[str, Any] = {}
            for field in model._meta.concrete_fields:
                if field.name in PLAIN or field.choices or field.is_relation or getattr(field, "unique", False):
                    continue
                if isinstance(field, models.TextField):
                    values[field.attname] = everything
                elif isinstance(field, models.CharField) and field.max_length >= 40:
                    values[field.attname] = next(turn)[: field.max_length]
                elif isinstance(field, models.JSONField) and field.name in (
                    "facts",
                    "content",
                    "payload",
                    "config",
                    "body",
                ):
                    values[field.attname] = {next(turn): next(turn), "all": everything}
            model._base_manager.filter(pk=row.pk).update(**values)
            made[model] = row
    for brand in (people.brand, people.other):
        type(brand).objects.filter(pk=brand.pk).update(name=next(turn), manufacturer=next(turn), voice=everything)
    return made


def pages(made: dict[type[models.Model], Any]) -> list[str]:
    found = [
        "/admin/",
        "/",
        "/dashboard",
        "/budgets/",
        "/experiments/",
        "/forecasts/",
        "/adapters/",
        "/playground/",
        "/feedback/",
    ]
    found += [
        f"/feedback/acme/creative/{rest}" for rest in ("", "?kind=rating", "?kind=correction", "answers/", "team/")
    ]
    for model in admin.site._registry:
        if model in made:
            label = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
            found += [label, f"{label}{made[model].pk}/change/", f"{label}?q=%3Cscript%3Exss()%3C/script%3E"]
            if issubclass(model, Run):
                found.append(f"/runs/{made[model].pk}")
    return found


def test_two_hundred_hostile_texts_are_never_run(open_as: Any, people: People, settings: Any) -> None:  # noqa: F811
    assert len(set(TEXTS)) == 200
    settings.RMN_REQUIRE_OTP = False
    made = fill(people)
    screen = open_as(people.ops)
    screen.page.add_init_script(
        "window.hits = []; window.xss = (...a) => { window.hits.push(a.length); }; window.alert = window.xss;"
    )
    run, broken, shown = [], [], 0
    for path in pages(made):
        answer = screen.page.goto(screen.url + path, wait_until="load")
        screen.page.wait_for_timeout(60)  # what was delayed by a script
        if answer is None or answer.status >= 500:
            broken.append(path)
        shown += "xss" in screen.page.content()
        hits = screen.page.evaluate("window.hits.length")
        if hits:
            run.append(f"{path}: {hits}")
    assert not run
    assert not broken
    assert shown > 50
    print(f"{len(TEXTS)} texts, {len(pages(made))} pages, {shown} show them, 0 run")  # noqa: T201
