"""A sweep over the console: every page opens and searches for ops, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.urls import reverse

from campaigns.models import Campaign
from rmn import dashboard
from rmn.models import SavedView
from tests.conftest import People
from tests.factories import CampaignFactory, ExportFactory, QuarantinedRowFactory, UserFactory

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
        given = {"action": action, "_selected_action": [str(row.pk)], "confirmed": "yes"}
        client.post("/admin/campaigns/curvefit/", given)
        row.refresh_from_db()
        return str(row.status)

    assert "retry_runs" not in client.get("/admin/campaigns/curvefit/").content.decode()
    assert (ask("retry_runs", failed), ask("cancel_runs", queued)) == ("failed", "queued")
    people.owner.user_permissions.add(Permission.objects.get(codename="change_curvefit"))
    assert (ask("retry_runs", failed), ask("cancel_runs", queued)) == ("queued", "cancelled")


def test_a_list_counts_no_further_than_anybody_pages(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmn.lib import admin as base

    monkeypatch.setattr(base, "MOST_COUNTED", 3)
    for _ in range(6):
        CampaignFactory(brand=people.brand)
    assert people.web(people.ops).get("/admin/campaigns/campaign/").context_data["cl"].result_count == 4


def test_every_table_stands_once_in_the_rail() -> None:
    named = [name for names in dashboard.tables().values() for name in names]
    assert sorted(named) == sorted(model._meta.label for model in admin.site._registry)


def test_the_rail_counts_what_waits_and_shows_only_what_a_person_may_look_at(people: People) -> None:
    from django.contrib.auth.models import Permission

    QuarantinedRowFactory(brand=people.brand)
    page = people.web(people.ops).get("/admin/retailers/retailer/").content.decode()
    assert "Row in quarantine" in page
    people.owner.is_staff = True
    people.owner.save()
    people.owner.user_permissions.set(Permission.objects.filter(codename="view_retailer"))
    page = people.web(people.owner).get("/admin/retailers/retailer/").content.decode()
    assert "/admin/retailers/retailer/" in page
    assert "/admin/auth/user/" not in page


def test_a_filtered_list_is_kept_under_a_name_and_forgotten_again(people: People) -> None:
    client = people.web(people.ops)
    there = "/admin/campaigns/campaign/?status__exact=live"
    assert "Keep this list as" in client.get(there).content.decode()
    answer = client.post("/console/views/", {"address": there, "name": "Live <script>1</script>"})
    assert answer["Location"] == there
    page = client.get(there).content.decode()
    assert "Live &lt;script&gt;" in page
    assert "<script>1</script>" not in page
    view = SavedView.objects.get()
    assert people.web(people.stranger).post(f"/console/views/{view.uuid}/forget").status_code == 404
    other = UserFactory(is_staff=True)
    assert people.web(other).post(f"/console/views/{view.uuid}/forget").status_code == 404
    assert "Live &lt;" not in people.web(other).get("/admin/").content.decode()
    client.post(f"/console/views/{view.uuid}/forget")
    assert not SavedView.objects.exists()


@pytest.mark.parametrize(
    "address", ["https://example.com/", "/budgets/", "/admin/", "/admin/nothing/", "", "//example.com/x"]
)
def test_only_lists_of_the_console_are_kept(address: str, people: People) -> None:
    assert people.web(people.ops).post("/console/views/", {"address": address, "name": "x"})["Location"] == "/admin/"
    assert not SavedView.objects.exists()


def test_the_newest_changes_stand_on_a_rows_page_with_the_way_back(people: People) -> None:
    campaign = CampaignFactory(brand=people.brand, name="First name")
    campaign.name = "Second name"
    campaign.save()
    client = people.web(people.ops)
    page = client.get(address(Campaign, "changelist") + f"{campaign.pk}/change/").content.decode()
    assert "<del>First name</del> <ins>Second name</ins>" in page
    before = campaign.history.last()
    link = f"/admin/campaigns/campaign/{campaign.pk}/history/{before.history_id}/"
    assert link in page
    form = client.get(link).context["adminform"].form
    values = {name: "" if value is None else value for name, value in form.initial.items()}
    values |= {"skus": [], "brand": campaign.brand_id, "retailer": campaign.retailer_id}
    client.post(link, values)
    campaign.refresh_from_db()
    assert campaign.name == "First name"


def test_actions_that_publish_or_stop_ask_once(people: People) -> None:
    campaign = CampaignFactory(brand=people.brand, name="Summer")
    client = people.web(people.ops)
    body = {"action": "archive", "_selected_action": [str(campaign.pk)]}
    asked = client.post(address(Campaign, "changelist"), body).content.decode()
    assert "their figures stay" in asked
    assert "Summer" in asked
    campaign.refresh_from_db()
    assert campaign.status != "archived"
    client.post(address(Campaign, "changelist"), {**body, "confirmed": "yes"})
    campaign.refresh_from_db()
    assert campaign.status == "archived"


def test_staff_who_may_only_look_can_neither_publish_nor_dismiss(people: People) -> None:
    from django.contrib.auth.models import Permission

    people.owner.is_staff = True
    people.owner.save()
    people.owner.user_permissions.set(Permission.objects.filter(codename__in=["view_recommendation", "view_quarantinedrow", "view_feedload"]))  # fmt: skip
    client = people.web(people.owner)
    row = QuarantinedRowFactory(brand=people.brand)
    client.post(
        address(type(row), "changelist"), {"action": "dismiss", "_selected_action": [str(row.pk)], "confirmed": "yes"}
    )
    row.refresh_from_db()
    assert row.status == "open"
    for name, words in (
        ("campaigns/recommendation", 'value="publish"'),
        ("retailers/quarantinedrow", 'value="dismiss"'),
        ("retailers/feedload", 'value="replay"'),
    ):
        assert words not in client.get(f"/admin/{name}/").content.decode()


def test_an_export_is_listed_with_the_way_to_its_file(people: People) -> None:
    run = ExportFactory(brand=people.brand, file_path="exports/a.jsonl")
    page = people.web(people.ops).get("/admin/feedback/export/").content.decode()
    assert f'href="{reverse("feedback-export-file", args=[run.pk])}"' in page


def test_the_console_opens(people: People) -> None:
    assert people.web(people.ops).get("/admin/").status_code == 200


def test_staff_without_the_second_factor_are_sent_to_it(people: People, settings: Any) -> None:
    settings.RMN_REQUIRE_OTP = True
    answer = people.web(people.ops).get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/account/second-factor/"
