"""Generated requests to every operation of the API: none is answered by a 5xx, no answer breaks the schema."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.core.cache import cache
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from rest_framework_simplejwt.tokens import AccessToken
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from retailers import audit
from rmn.lib.runs import Run
from tests.conftest import People
from tests.test_api import FACTORIES, RESOURCES, model_of

pytestmark = pytest.mark.django_db
REQUESTS = int(os.environ.get("RMN_FUZZ_REQUESTS", "20000"))
PART, PARTS = map(int, os.environ.get("RMN_FUZZ_PART", "1/1").split("/"))  # every so manieth operation
HELD_TO = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
DENIED = {"/api/v1/token/", "/api/v1/token/refresh/", "/api/v1/token/blacklist/"}  # open to all by their nature


def known_rows(people: People) -> dict[str, str]:
    """Of every resource an address of a row that exists, so that requests get beyond the first look-up."""
    found = {}
    for address, viewset in RESOURCES.items():
        model = model_of(viewset)
        if model.__name__ == "Brand":
            row: Any = people.brand
        elif model.__name__ == "AuditEntry":  # whose chain must go on
            row = audit.record(brand=people.brand, actor="ops", action="plan approved")
        elif "brand" in {field.name for field in model._meta.fields}:
            row = FACTORIES[model](brand=people.brand)
        else:
            row = FACTORIES[model]()
        found[address] = str(row.pk if isinstance(row, Run) else row.uuid)
    return found


@pytest.fixture(autouse=True)
def one_connection() -> Any:
    """The test's rows live in its transaction: no request may close the connection."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_no_generated_request_breaks_the_server_or_the_schema(people: People, settings: Any) -> None:
    settings.RMN_INFERENCE_URL = "http://127.0.0.1:9"  # nothing that is asked for may start a model
    tokens = {who: str(AccessToken.for_user(getattr(people, who))) for who in ("ops", "owner")}
    rows = known_rows(people)
    schema = schemathesis.openapi.from_wsgi(
        "/api/schema/?format=json", get_wsgi_application(), headers={"Authorization": f"Bearer {tokens['ops']}"}
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    each = max(-(-REQUESTS // len(operations)), 2)
    operations = operations[PART - 1 :: PARTS]
    seen: Counter[int] = Counter()
    broken: list[str] = []

    for operation in operations:
        given = st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )

        @hypothesis.settings(max_examples=each, derandomize=True, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
        @hypothesis.given(case=given, who=st.sampled_from(["ops", "owner", "nobody"]), known=st.booleans())
        def ask(case: Any, who: str, known: bool) -> None:
            resource = case.operation.path.removeprefix("/api/v1/").split("/")[0]
            if known and "id" in (case.path_parameters or {}) and resource in rows:
                case.path_parameters["id"] = rows[resource]
            headers = {"Authorization": f"Bearer {tokens[who]}"} if who in tokens else {}
            case.headers.pop("Authorization", None)
            if case.operation.path in DENIED:
                cache.clear()  # or the allowance for log-ins would answer
            answer = case.call(headers=headers)
            seen[answer.status_code] += 1
            if who == "nobody" and case.operation.path not in DENIED:
                assert answer.status_code in (401, 404, 405), f"without a login: {answer.status_code}"
            case.validate_response(answer, checks=HELD_TO, headers=headers)

        try:
            ask()
        except BaseException as error:  # every operation is asked before the test ends
            if isinstance(error, KeyboardInterrupt):
                raise
            broken.append(f"{operation.method.upper()} {operation.path}: {error}"[:1500])
    print(f"{sum(seen.values()):,} requests to {len(operations)} operations: {dict(sorted(seen.items()))}")  # noqa: T201
    assert not broken, f"{len(broken)} operations:\n" + "\n\n".join(broken[:40])
