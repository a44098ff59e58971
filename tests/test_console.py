"""A sweep over the console: every page opens and searches for ops, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.urls import reverse

from tests.conftest import People

MODELS = sorted(admin.site._registry, key=lambda m: m._meta.label)
OURS = {"retailers", "campaigns", "feedback", "agents", "training"}
# Rows that stand on another row's page, or that nobody should edit by hand.
ELSEWHERE = {
    "AuditHead",
    "IdempotencyKey",
    "MetricOutcome",
    "MetricRevision",
    "CleanRoomLedger",
    "AgentStep",
    "AnswerCount",
    "CountedAnswers",
}

pytestmark = pytest.mark.django_db


def address(model: Any, page: str) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m._meta.label)
def test_a_list_opens_and_searches(model: Any, people: People) -> None:
    client = people.web(people.ops)
    assert client.get(address(model, "changelist")).status_code == 200
    assert client.get(address(model, "changelist"), {"q": "x"}).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m._meta.label)
def test_a_marketer_is_sent_away(model: Any, people: People) -> None:
    answer = people.web(people.owner).get(address(model, "changelist"))
    assert answer.status_code == 302
    assert "/login/" in answer["Location"]


def test_every_model_stands_in_the_console() -> None:
    ours = {m for m in apps.get_models() if m._meta.app_label in OURS and not m.__name__.startswith("Historical")}
    missing = {m.__name__ for m in ours if m not in admin.site._registry} - ELSEWHERE
    assert not missing


def test_staff_of_one_brand_see_that_brand_alone(people: People) -> None:
    from campaigns.models import Campaign
    from tests.factories import CampaignFactory

    if Campaign not in admin.site._registry:
        pytest.skip("campaigns are not in the console yet")
    people.owner.is_staff = True
    people.owner.save()
    from django.contrib.auth.models import Permission

    people.owner.user_permissions.set(Permission.objects.filter(content_type__app_label="campaigns"))
    CampaignFactory(brand=people.brand, name="Mine")
    CampaignFactory(brand=people.other, name="Theirs")
    page = people.web(people.owner).get(address(Campaign, "changelist")).content.decode()
    assert "Mine" in page
    assert "Theirs" not in page


def test_staff_who_may_only_look_can_neither_retry_nor_cancel_a_run(people: People) -> None:
    from django.contrib.auth.models import Permission

    from tests.factories import CurveFitFactory

    people.owner.is_staff = True
    people.owner.save()
    people.owner.user_permissions.set(Permission.objects.filter(codename="view_curvefit"))
    failed, queued = CurveFitFactory(brand=people.brand, status="failed"), CurveFitFactory(brand=people.brand)
    client = people.web(people.owner)

    def ask(action: str, row: Any) -> str:
        client.post("/admin/campaigns/curvefit/", {"action": action, "_selected_action": [str(row.pk)]})
        row.refresh_from_db()
        return str(row.status)

    assert "retry_runs" not in client.get("/admin/campaigns/curvefit/").content.decode()
    assert (ask("retry_runs", failed), ask("cancel_runs", queued)) == ("failed", "queued")
    people.owner.user_permissions.add(Permission.objects.get(codename="change_curvefit"))
    assert (ask("retry_runs", failed), ask("cancel_runs", queued)) == ("queued", "cancelled")


def test_a_list_counts_no_further_than_anybody_pages(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmn.lib import admin as base
    from tests.factories import CampaignFactory

    monkeypatch.setattr(base, "MOST_COUNTED", 3)
    for _ in range(6):
        CampaignFactory(brand=people.brand)
    assert people.web(people.ops).get("/admin/campaigns/campaign/").context_data["cl"].result_count == 4


def test_the_console_opens(people: People) -> None:
    assert people.web(people.ops).get("/admin/").status_code == 200


def test_staff_without_the_second_factor_are_sent_to_it(people: People, settings: Any) -> None:
    settings.RMN_REQUIRE_OTP = True
    answer = people.web(people.ops).get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/account/second-factor/"
