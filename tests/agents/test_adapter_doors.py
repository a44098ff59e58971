"""Console and API of adapters, for owner, colleague and stranger."""

from __future__ import annotations

import pytest

from agents import serving
from agents.models import AdapterAlias, Deployment
from tests.factories import AdapterFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(people):
    return AdapterFactory(brand=people.brand, retailer=None)


def url(version, what=""):
    return f"/api/v1/adapters/{version.uuid}/{what}"


def test_ops_deploy_and_get_a_run(people, version):
    answer = people.api(people.ops).post(url(version, "deploy/"), {"alias": "challenger", "share": 0.2}, format="json")
    assert answer.status_code == 202, answer.content
    run = Deployment.objects.get()
    assert (run.alias, run.share, run.adapter) == ("challenger", 0.2, version)
    assert run.requested_by == people.ops


def test_members_look_but_do_not_deploy_and_a_stranger_sees_nothing(people, version):
    for person, status in ((people.owner, 403), (people.colleague, 403), (people.stranger, 403)):
        assert people.api(person).post(url(version, "deploy/"), {}, format="json").status_code == status
        assert people.api(person).post(url(version, "rollback/"), {}, format="json").status_code == status
    assert people.api(people.colleague).get(url(version)).json()["digest"] == version.digest
    assert people.api(people.stranger).get(url(version)).status_code == 404
    assert not Deployment.objects.exists()


def test_ops_take_a_version_back(people, version):
    serving.move(version, "champion")
    answer = people.api(people.ops).post(url(version, "rollback/"), {"reason": "odd words"}, format="json")
    assert answer.status_code == 200
    assert answer.json()["state"] == "revoked"
    assert AdapterAlias.objects.get(name="champion").adapter is None
    again = people.api(people.ops).post(url(version, "rollback/"), {}, format="json")
    assert again.status_code in (400, 409, 422)
    assert "nothing to roll back" in again.content.decode()


def test_bad_wishes_are_told_apart(people, version):
    for body in ({"alias": "king"}, {"share": 2}, {"share": "much"}):
        assert people.api(people.ops).post(url(version, "deploy/"), body, format="json").status_code == 400


def test_the_console_deploys_by_an_action(people, version):
    client = people.web(people.ops)
    body = {"action": "deploy_champion", "_selected_action": [version.pk]}
    asked = client.post("/admin/agents/adapter/", body)
    assert "is proved first" in asked.content.decode()
    assert not Deployment.objects.exists(), "it asks once before it acts"
    answer = client.post("/admin/agents/adapter/", {**body, "confirmed": "yes"}, follow=True)
    assert answer.status_code == 200
    assert Deployment.objects.get().alias == "champion"
