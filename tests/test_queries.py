"""Pages ask a bounded number of queries: more rows ask no more, on every list of console and API."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.conftest import People
from tests.test_api import FACTORIES, RESOURCES
from tests.test_console import address

MOST, FILTERS = 45, 1
SCREENS = ["/", "/dashboard", "/budgets/", "/experiments/", "/forecasts/", "/adapters/", "/feedback/", "/admin/"]
IN_CONSOLE = [
    model for model in admin.site._registry if model in FACTORIES and any(f.name == "brand" for f in model._meta.fields)
]

pytestmark = pytest.mark.django_db


def asked(client: Any, url: str) -> int:
    cache.clear()  # the counts of the rail are kept for seconds; here they are asked each time
    with CaptureQueriesContext(connection) as seen:
        assert client.get(url).status_code == 200
    return len(seen)


def fill(people: People, count: int) -> None:
    for make in FACTORIES.values():
        names = {field.name for field in make._meta.model._meta.fields}
        if "brand" in names:
            for _ in range(count):
                make(brand=people.brand, **({"retailer": people.retailer} if "retailer" in names else {}))


def test_more_rows_ask_no_more_queries_on_any_list(people: People) -> None:
    """Lists of console and API, and the screens: one row of each kind, then five."""
    ops, owner = people.web(people.ops), people.api(people.owner)
    pages = [(ops, address(model, "changelist")) for model in IN_CONSOLE]
    pages += [(owner, f"/api/v1/{name}/") for name in sorted(RESOURCES)]
    pages += [(ops, path) for path in SCREENS]
    fill(people, 1)
    before = {url: asked(client, url) for client, url in pages}
    fill(people, 4)
    after = {url: asked(client, url) for client, url in pages}
    # a filter by person or mapping may be offered once there are several of them
    assert {url: (before[url], after[url]) for url in after if after[url] > before[url] + FILTERS} == {}
    assert {url: count for url, count in after.items() if count > MOST} == {}
