"""What every test may use: people in threes, a client for each, and the shared data where it is."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models.signals import post_migrate
from django.test import Client
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from rest_framework.test import APIClient

from rmn.lib import append_only, tenancy

# The same examples every time, however slow the machine: a red test is a wrong product, never bad luck.
hypothesis_settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("same")


ROW_FIXTURES = {"db", "transactional_db", "people"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Off SQLite only what touches rows is asked again: the rest cannot differ between databases."""
    from django.conf import settings

    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return
    rows = [one for one in items if one.get_closest_marker("django_db") or ROW_FIXTURES & set(one.fixturenames)]  # type: ignore[attr-defined]
    kept = set(map(id, rows))
    config.hook.pytest_deselected(items=[one for one in items if id(one) not in kept])
    items[:] = rows


@dataclass(frozen=True)
class People:
    """Owner and colleague work for ``brand``, the stranger for ``other``, ops for all, narrowed for one retailer."""

    brand: Any
    other: Any
    retailer: Any
    owner: User
    colleague: User
    stranger: User
    ops: User
    narrowed: User

    @staticmethod
    def web(user: User) -> Client:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    @staticmethod
    def api(user: User) -> APIClient:
        """A client with a session, as the middleware sees it too."""
        client = APIClient()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Tests wipe tables between themselves: the triggers against that are on where a test puts them."""
    post_migrate.disconnect(dispatch_uid=append_only.WATCH)


@pytest.fixture
def people(db: None) -> People:
    from tests.factories import BrandFactory, MembershipFactory, RetailerFactory, UserFactory

    brand, other = BrandFactory(slug="acme"), BrandFactory(slug="globex")
    retailer = RetailerFactory(slug="retailer-abc")
    found = {}
    for name, of, role in (
        ("owner", brand, "marketer"),
        ("colleague", brand, "analyst"),
        ("stranger", other, "marketer"),
        ("ops", None, "ops"),
    ):
        found[name] = UserFactory(
            username=name, email=f"{name}@example.com", is_staff=name == "ops", is_superuser=name == "ops"
        )
        MembershipFactory(user=found[name], brand=of, role=role)
    found["narrowed"] = UserFactory(username="narrowed")
    MembershipFactory(user=found["narrowed"], brand=brand, retailer=retailer)
    return People(brand=brand, other=other, retailer=retailer, **found)


@pytest.fixture(autouse=True)
def nothing_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded sides; and a pair comes back for a second look only where a test asks for it."""
    from feedback import services

    random.seed(0)
    monkeypatch.setattr(services, "REPEAT_SHARE", 0.0)


@pytest.fixture(autouse=True)
def act_for_everyone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tests arrange rows of all brands; the doors they then knock at set their own scope."""
    cache.clear()
    if request.node.get_closest_marker("django_db") is None and "db" not in request.fixturenames:
        # a command's scope must not reach a connection that an earlier test left open
        monkeypatch.setattr(tenancy, "_apply_to_open_connections", lambda: None)
        yield
        return
    request.getfixturevalue("db")
    with tenancy.everyone():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real feeds and labelled texts that are not ours to ship."""
    folder = os.environ.get("RMN_SHARED_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RMN_SHARED_DATA is not set: tests on real data are left out")
    return Path(folder)


@pytest.fixture(scope="session")
def base_model() -> Path:
    from django.conf import settings

    folder = Path(settings.RMN_BASE_MODEL)
    if not (folder / "config.json").exists():
        pytest.skip("the base model is not there: run make install")
    return folder
