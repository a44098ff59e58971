"""A rule is tried on labelled texts before anybody is bound by it, and every version stays."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.urls import reverse

from retailers import services
from retailers.domain import bench, policy
from retailers.models import PolicyRule
from tests.conftest import People
from tests.factories import MembershipFactory, PolicyRuleFactory, UserFactory

ADD = "admin:retailers_policyrule_add"


@pytest.fixture(scope="module")
def cases() -> tuple[dict[str, Any], ...]:
    return bench.shipped_cases()[::9]


def test_a_rule_taken_out_and_put_back_changes_nothing(cases: Any) -> None:
    rules = policy.shipped()
    judged = bench.judge(rules, cases)
    kept = next(rule for rule in rules.rules if rule.id == "AMZ-SUPER")
    same = bench.attempt("AMZ-SUPER", kept, rules, judged, cases)
    assert same.before == same.after
    assert same.own_before == same.own_after
    assert not [*same.newly_flagged, *same.newly_passed, *same.otherwise]
    without = bench.attempt("AMZ-SUPER", None, rules, judged, cases)
    assert without.newly_passed
    assert without.after.recall < without.before.recall  # type: ignore[operator]
    assert without.own_after.precision is None


def test_a_trial_equals_judging_all_cases_by_the_whole_new_set(cases: Any) -> None:
    rules = policy.shipped()
    row = {"id": "OWN-TENT", "on": "amazon", "severity": "block", "message": "No tents.", "words": ["tent", r"shirts?"]}
    whole = policy.amended(rules, [row])
    trial = bench.attempt("OWN-TENT", policy.make_rule(row, "row"), rules, bench.judge(rules, cases), cases)
    verdicts = [one.verdict != "pass" for one in bench.judge(whole, cases)]
    assert trial.after.hits + trial.after.false == sum(verdicts)
    assert {one.after for one in trial.newly_flagged} == {"block"}


def typed(**facts: Any) -> dict[str, Any]:
    given = {"brand": "", "code": "OWN-WATER", "network": "amazon", "severity": "block", "kind": "lexicon", "spec": json.dumps({"words": ["tent"]}), "message": "No tents.", "is_active": "on"}  # fmt: skip
    return {**given, **facts}


def tried(page: Any) -> str:
    found = re.search(r'name="tried" value="([0-9a-f]{64})"', page.content.decode())
    assert found is not None
    return found[1]


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch, cases: Any) -> None:
    monkeypatch.setattr(bench, "shipped_cases", lambda: cases)


@pytest.mark.django_db
def test_nothing_is_saved_until_what_was_tried_is_sent_again(people: People, few_cases: None) -> None:
    web = people.web(people.ops)
    page = web.post(reverse(ADD), typed())
    said = page.content.decode()
    assert page.status_code == 200
    assert "Nothing is saved yet" in said
    assert "Newly flagged" in said
    assert "roomy tent" in said
    assert not PolicyRule.objects.exists()
    # what was tried is no leave to save something else
    assert "Nothing is saved yet" in web.post(reverse(ADD), typed(tried=tried(page), severity="warn")).content.decode()
    assert not PolicyRule.objects.exists()
    assert web.post(reverse(ADD), typed(tried=tried(page))).status_code == 302
    assert PolicyRule.objects.get().version == 1


@pytest.mark.django_db
def test_a_change_is_a_new_version_and_an_old_one_is_taken_up_again(people: People, few_cases: None) -> None:
    web, first = people.web(people.ops), PolicyRuleFactory(brand=None, code="OWN-WATER", network="amazon", spec={"words": ["tent"]})  # fmt: skip
    address = reverse("admin:retailers_policyrule_change", args=[first.pk])
    wish = typed(message=first.message, spec=json.dumps({"words": ["wool"]}))
    web.post(address, wish | {"tried": tried(web.post(address, wish))})
    assert list(PolicyRule.objects.order_by("version").values_list("version", "spec__words__0")) == [
        (1, "tent"),
        (2, "wool"),
    ]
    page = web.get(reverse("admin:retailers_policyrule_change", args=[PolicyRule.objects.get(version=2).pk]))
    assert f"version={first.uuid}" in page.content.decode()
    begun = web.get(f"{reverse(ADD)}?version={first.uuid}").content.decode()
    assert "tent" in begun
    back = typed(message=first.message)
    web.post(reverse(ADD), back | {"tried": tried(web.post(reverse(ADD), back))})
    assert PolicyRule.objects.order_by("-version").values_list("version", "spec")[0] == (3, {"words": ["tent"]})
    web.post(address, typed(message=first.message))  # nothing changed: no version
    assert PolicyRule.objects.count() == 3


@pytest.mark.django_db
def test_a_shipped_rule_is_opened_to_be_changed_and_one_that_is_none_is_refused(people: People) -> None:
    web = people.web(people.ops)
    assert "AMZ-SUPER" in web.get(reverse("admin:retailers_policyrule_changelist")).content.decode()
    assert "superlative" in web.get(f"{reverse(ADD)}?shipped=AMZ-SUPER").content.decode().lower()
    said = web.post(reverse(ADD), typed(spec=json.dumps({"words": ["("]}))).content.decode()
    assert "no regular expression" in said
    assert "Newly flagged" not in said


@pytest.mark.django_db
def test_who_acts_for_one_brand_changes_no_network_s_rule_and_sees_no_other_brand_s(people: People) -> None:
    from django.contrib.auth.models import Permission

    person = UserFactory(is_staff=True)
    MembershipFactory(user=person, brand=people.brand, role="ops")
    person.user_permissions.set(Permission.objects.filter(content_type__model="policyrule"))
    shared, theirs = PolicyRuleFactory(brand=None), PolicyRuleFactory(brand=people.other)
    web = people.web(person)
    for row in (shared, theirs):
        web.post(reverse("admin:retailers_policyrule_change", args=[row.pk]), typed(tried="x"))
    assert PolicyRule.objects.count() == 2
    assert theirs.code not in web.get(reverse("admin:retailers_policyrule_changelist")).content.decode()
    assert theirs.message not in web.get(f"{reverse(ADD)}?version={theirs.uuid}").content.decode()
    assert "This field is required" in web.post(reverse(ADD), typed()).content.decode()


@pytest.mark.django_db
def test_a_rule_out_of_force_is_tried_as_none(few_cases: None) -> None:
    row = PolicyRuleFactory.build(
        brand=None, code="AMZ-SUPER", network="amazon", spec={"words": ["x"]}, is_active=False
    )
    assert services.try_rule(row).newly_passed
