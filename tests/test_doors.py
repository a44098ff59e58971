"""Login, tokens, health, idempotency: what stands before every page and endpoint."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from rest_framework.test import APIClient

from campaigns.models import CurveFit
from retailers.models import IdempotencyKey
from tests.conftest import People
from tests.factories import CurveFitFactory, UserFactory

pytestmark = pytest.mark.django_db


def test_it_lives_without_a_login() -> None:
    assert Client().get("/healthz").json() == {"status": "live"}


def test_readiness_names_cause_and_next_step_of_what_is_missing() -> None:
    checks = Client().get("/readyz").json()["checks"]
    assert checks["database"]["ok"]
    assert "start a worker" in checks["worker"]["next"]


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
