"""A sweep over the router: every endpoint wants a login, and shows nobody another brand's rows."""

from __future__ import annotations

import base64
import re
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
NOWHERE = "00000000-0000-4000-8000-000000000000"
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


def test_the_pages_of_the_docs_run_no_inline_script(people: People) -> None:
    client = people.web(people.owner)
    page = client.get("/api/docs/").content.decode()
    assert "swagger-ui" in page
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page) == []
    answer = client.get(re.findall(r'<script src="([^"]*script=[^"]*)"', page)[0])
    assert answer["Content-Type"].startswith("application/javascript")
    assert b"SwaggerUIBundle" in answer.content


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


PROBES = [
    "brand__memberships__user__password__startswith={}", "brand__slug={}", "brand__uuid={}", "brand={}", "brand_id={}", "brand__history__name={}",
    "retailer__api_endpoints__icontains={}", "id={}", "uuid={}", "pk={}", "id__gte={}", "uuid__startswith={}", "created_at__gt={}",
    "requested_by__password__startswith={}", "ordering={}", "order_by=brand__{}", "o={}", "search={}", "q={}", "fields={}", "expand={}", "format={}&format=json",
]  # fmt: skip


def probes_of(address: str) -> list[str]:
    """A dozen of them for each resource, others for its neighbour."""
    start = 5 * sorted(RESOURCES).index(address) % len(PROBES)
    return (PROBES + PROBES)[start : start + 12]


@pytest.mark.parametrize("address", sorted(set(RESOURCES) - COMMON))
def test_no_look_up_tells_what_is_elsewhere_from_what_is_nowhere(address: str, people: People) -> None:
    """Through relations, keys, ordering and every filter that is offered: the same status and the same body."""
    viewset = RESOURCES[address]
    theirs = row_of(viewset, People(**{**vars(people), "brand": people.other}))
    client = people.api(people.owner)
    elsewhere = str(theirs.pk if isinstance(theirs, Run) else theirs.uuid)
    pairs = [
        (probe, *(("globex", "nobody") if "brand" in probe else (elsewhere, NOWHERE))) for probe in probes_of(address)
    ]
    for name in viewset.filterset_fields:
        value = str(getattr(theirs, f"{name}_id", None) or getattr(theirs, name, "") or "")
        if len(value) > 12:  # a name of its own, no choice out of a few
            pairs.append((name + "={}", value, value[:-1] + ("0" if value[-1] != "0" else "1")))
    for probe, there, nowhere in pairs:
        said = [client.get(f"/api/v1/{address}/?{probe.format(value)}") for value in (there, nowhere)]
        bodies = [one.content.decode().replace(value, "...") for one, value in zip(said, (there, nowhere))]
        assert said[0].status_code == said[1].status_code < 500, probe
        assert bodies[0] == bodies[1], probe


@pytest.mark.parametrize("address", sorted(set(RESOURCES) - COMMON))
def test_a_cursor_made_up_shows_only_the_askers_rows(address: str, people: People) -> None:
    viewset = RESOURCES[address]
    mine, theirs = row_of(viewset, people), row_of(viewset, People(**{**vars(people), "brand": people.other}))
    client = people.api(people.owner)
    here = {item["id"] for item in client.get(f"/api/v1/{address}/").json()["results"]}
    key = str(theirs.pk if isinstance(theirs, Run) else theirs.uuid)
    for text in (f"p={theirs.pk}", "p=", "p=x", "o=-1", f"r=1&o=999999&p={mine.pk}"):
        answer = client.get(f"/api/v1/{address}/", {"cursor": base64.b64encode(text.encode()).decode()})
        assert answer.status_code in (200, 404), text
        if answer.status_code == 200:
            shown = {item["id"] for item in answer.json()["results"]}
            assert shown <= here, text
            assert key not in shown


@pytest.mark.parametrize("address", sorted(RESOURCES))
def test_naming_a_row_elsewhere_is_answered_like_naming_none(address: str, people: People) -> None:
    """Every reference that a POST takes: another brand's row is as unknown as no row."""
    viewset = RESOURCES[address]
    if not hasattr(viewset, "create"):
        return
    fields = viewset.serializer_class().fields
    client = people.api(people.ops if viewset.change_roles <= {"ops"} else people.owner)
    for name, field in fields.items():
        model = getattr(getattr(field, "queryset", None), "model", None)
        if model not in FACTORIES or model.__name__ in ("Retailer", "Brand"):
            continue
        row = FACTORIES[model](brand=people.other)
        there = str(row.pk if isinstance(row, Run) else row.uuid)
        said = [
            client.post(f"/api/v1/{address}/", {"brand": "acme", name: value}, format="json")
            for value in (there, NOWHERE)
        ]
        assert said[0].status_code == said[1].status_code < 500, name
        bodies = [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "...", one.content.decode()) for one in said]
        assert bodies[0] == bodies[1], name


def test_the_probes_are_at_least_three_hundred() -> None:
    lists = set(RESOURCES) - COMMON
    assert sum(len(probes_of(address)) + 5 for address in lists) > 300


def test_the_schema_validates(people: People) -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    assert people.api(people.owner).get("/api/schema/?format=json").status_code == 200


@pytest.mark.parametrize("path", ["nothing/", "runs/quantization/", "exports/none/file/"])
def test_an_address_that_is_not_there_is_a_problem_for_programs(path: str, people: People) -> None:
    answer = people.api(people.owner).get(f"/api/v1/{path}")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


def test_the_schema_says_that_any_operation_may_answer_with_a_problem() -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert all("default" in operation["responses"] for operation in operations)
    listed = schema["paths"]["/api/v1/runs/"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert listed == {"$ref": "#/components/schemas/RunPage"}


def test_every_address_of_the_api_is_in_a_router_or_a_list() -> None:
    patterns = [str(p.pattern) for p in get_resolver("rmn.api").url_patterns]
    assert patterns == ["v1/", "schema/", "docs/"]
