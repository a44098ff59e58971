"""A sweep over the router: every endpoint wants a login, and shows nobody another brand's rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import get_resolver
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework.test import APIClient

from rmn.api import APPS
from rmn.lib.runs import Run
from tests import factories
from tests.conftest import People

RESOURCES = {address: viewset for app in APPS for address, viewset in app.resources.items()}
# What everybody may read, since it is no brand's own.
COMMON = {"retailers", "policy-rules"}
FACTORIES = {
    f._meta.model: f
    for f in vars(factories).values()
    if isinstance(f, type)
    and hasattr(f, "_meta")
    and getattr(f._meta, "model", None) is not None
    and not f._meta.abstract
}

pytestmark = pytest.mark.django_db


def model_of(viewset: Any) -> Any:
    return viewset.queryset.model


def row_of(viewset: Any, people: People) -> Any:
    model = model_of(viewset)
    if model not in FACTORIES:
        pytest.fail(f"{model.__name__} has no factory: add one to tests/factories.py so that its wall is tested")
    if model.__name__ == "Brand":
        return people.brand
    return FACTORIES[model](brand=people.brand)


@pytest.mark.parametrize("address", sorted(RESOURCES))
def test_a_list_wants_a_login(address: str) -> None:
    answer = APIClient().get(f"/api/v1/{address}/")
    assert answer.status_code == 401
    assert answer["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("address", sorted(set(RESOURCES) - COMMON))
def test_owner_and_colleague_see_a_row_and_a_stranger_does_not(address: str, people: People) -> None:
    row = row_of(RESOURCES[address], people)
    key = str(row.pk if isinstance(row, Run) else row.uuid)
    for person in (people.owner, people.colleague, people.ops):
        listed = people.api(person).get(f"/api/v1/{address}/")
        assert listed.status_code == 200, listed.content[:300]
        assert key in {item["id"] for item in listed.json()["results"]}
        assert people.api(person).get(f"/api/v1/{address}/{key}/").status_code == 200
    stranger = people.api(people.stranger)
    assert key not in {item["id"] for item in stranger.get(f"/api/v1/{address}/").json()["results"]}
    elsewhere = stranger.get(f"/api/v1/{address}/{key}/")
    nowhere = stranger.get(f"/api/v1/{address}/00000000-0000-4000-8000-000000000000/")
    assert elsewhere.status_code == nowhere.status_code == 404
    assert elsewhere.content == nowhere.content


@pytest.mark.parametrize("address", sorted(set(RESOURCES) - COMMON))
def test_a_stranger_changes_nothing(address: str, people: People) -> None:
    row = row_of(RESOURCES[address], people)
    key = str(row.pk if isinstance(row, Run) else row.uuid)
    for method in ("patch", "put", "delete"):
        answer = getattr(people.api(people.stranger), method)(f"/api/v1/{address}/{key}/", {}, format="json")
        assert answer.status_code in (403, 404, 405)


@pytest.mark.parametrize("address", sorted(RESOURCES))
def test_a_look_up_through_relations_is_refused_or_ignored(address: str, people: People) -> None:
    plain = people.api(people.owner).get(f"/api/v1/{address}/").status_code
    probe = people.api(people.owner).get(
        f"/api/v1/{address}/?brand__memberships__user__password__startswith=p&ordering=brand__slug"
    )
    assert probe.status_code == plain


def test_the_schema_validates(people: People) -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    assert people.api(people.owner).get("/api/schema/?format=json").status_code == 200


def test_every_address_of_the_api_is_in_a_router_or_a_list() -> None:
    patterns = [str(p.pattern) for p in get_resolver("rmn.api").url_patterns]
    assert patterns == ["v1/", "schema/", "docs/"]
