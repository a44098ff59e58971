"""What a request carries: a typed user, HTMX's facts, and the brands it acts for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, IntegrityError, InterfaceError, OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django_htmx.middleware import HtmxDetails
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken

from rmn.lib import sealing, tenancy
from rmn.lib.bearer import Bearer

# Alpine, which the console is built on, evaluates expressions; our own screens run no such thing.
CONSOLE_POLICY = {
    "script-src": ["'self'", "'unsafe-inline'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
}
PROBES = {"/healthz", "/readyz", "/metrics"}  # asked by machines about nobody's rows

SEALED = "rmn:sealed"


class StaffRequest(HttpRequest):
    user: User
    htmx: HtmxDetails


class TenantMiddleware:
    """Sets the brands a request acts for, and clears them when it is answered.

    The tenant comes from who is logged in (session or bearer token), never from what the client
    says. On PostgreSQL the whole request runs in one transaction that carries the scope. Probes have
    neither: they must be answered while the database is away.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path in PROBES:
            request.acting_user = None  # type: ignore[attr-defined]
            return self.get_response(request)
        person = acting_user(request)
        request.acting_user = person  # type: ignore[attr-defined]
        try:
            with scope_of(person):
                response = self._answer(request, person)
        except KeyTaken as taken:  # what was begun for it is undone
            with scope_of(person):
                response = _answer_again(person, taken.key, taken.digest)
        if response.streaming and hasattr(response, "streaming_content"):
            response.streaming_content = _within(person, response.streaming_content)
        return response

    def _answer(self, request: HttpRequest, person: Any) -> HttpResponseBase:
        if request.path.startswith(f"/{settings.ADMIN_PATH}"):
            response = self.get_response(request)
            response._csp_update = CONSOLE_POLICY  # type: ignore[attr-defined]
            return response
        key = request.headers.get("Idempotency-Key", "")
        path = request.path
        if (
            key
            and person is not None
            and request.method == "POST"
            and path.startswith("/api/v1/")
            and "/token/" not in path
        ):
            return answer_once(request, person, key, self.get_response)
        return self.get_response(request)


def acting_user(request: HttpRequest) -> Any:
    """Who asks: the bearer of a valid token, else the session's user, else nobody."""
    if request.headers.get("Authorization", "").startswith("Bearer "):
        try:
            found = _at_the_first_word(lambda: Bearer().authenticate(request))
        except (AuthenticationFailed, InvalidToken):
            return None
        request.bearer = found  # type: ignore[attr-defined]  # the API takes it from here (rmn.lib.bearer)
        return found[0] if found else None
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _at_the_first_word(ask: Callable[[], Any]) -> Any:
    """Ask the database on a connection that may have been closed while it lay idle: then once more on a new one.

    This question tells what Django's health check would ask for, which is therefore left out.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.in_atomic_block:
        return ask()
    connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        return ask()
    except (OperationalError, InterfaceError):
        connection.close()
        return ask()


@contextmanager
def scope_of(person: Any) -> Iterator[None]:
    """The rest of the block acts for this person's brands; on PostgreSQL in one transaction."""
    scope = tenancy.NOBODY
    if person is not None:
        brands = apps.get_model("retailers", "Brand").objects
        scope = tenancy.EVERYONE if brands.sees_all(person) else tenancy.named(brands.keys_of(person))
    with tenancy.in_transaction(scope):
        yield


def _within(person: Any, content: Iterable[Any]) -> Iterator[Any]:
    """A streamed answer is made after the middleware has gone; it keeps the request's scope."""
    with scope_of(person):
        yield from content


class KeyTaken(Exception):
    """A request with this Idempotency-Key came before."""

    def __init__(self, key: str, digest: str) -> None:
        super().__init__(key)
        self.key, self.digest = key, digest


def answer_once(
    request: HttpRequest, person: Any, key: str, get_response: Callable[[HttpRequest], HttpResponseBase]
) -> HttpResponseBase:
    """Answer a POST that carries an Idempotency-Key: the first time by doing it, then from memory.

    The key is stored in the same transaction as the effect, so neither stands without the other.

    Raises:
        KeyTaken: to be answered once this transaction is undone.
    """
    keys = apps.get_model("retailers", "IdempotencyKey").objects
    body = (
        request.body
        if "multipart" not in (request.content_type or "")
        else str(request.META.get("CONTENT_LENGTH")).encode()
    )
    digest = hashlib.sha256(request.get_full_path().encode() + b"\n" + body).hexdigest()
    within = connections[DEFAULT_DB_ALIAS].vendor == "postgresql"  # the transaction of the whole request
    with transaction.atomic(savepoint=not within):
        try:
            row = keys.create(user=person, key=key[:120], path=request.path[:200], body_sha256=digest)
        except IntegrityError:
            raise KeyTaken(key[:120], digest) from None
        response = get_response(request)
        if response.status_code >= 500 or response.status_code == 429 or response.streaming:
            row.delete()  # nothing was promised: it may be tried again
            return response
        content = getattr(response, "content", None)
        try:
            row.response = json.loads(content or b"null")
        except ValueError:
            row.delete()
            return response
        if "no-store" in response.get("Cache-Control", ""):  # it tells a secret, which may not lie open in a table
            row.response = {SEALED: sealing.seal(json.dumps(row.response), f"answers to {person.pk}")}
        row.status_code = response.status_code
        row.save(update_fields=["status_code", "response"])
        return response


def _answer_again(person: Any, key: str, digest: str) -> HttpResponse:
    row = apps.get_model("retailers", "IdempotencyKey").objects.get(user=person, key=key)
    if row.body_sha256 != digest:
        return problem_response(
            422, "Idempotency-Key used before", "This key came with another request. Use a new key for a new request."
        )
    if row.status_code is None:
        return problem_response(
            409, "Still working", "The first request with this key is not answered yet. Try again shortly."
        )
    told = row.response
    if isinstance(told, dict) and SEALED in told:
        told = json.loads(sealing.unseal(told[SEALED], f"answers to {row.user_id}"))
    answer = JsonResponse(told, status=row.status_code, safe=False)
    answer["Idempotency-Replayed"] = "true"
    return answer


def staff_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For ops staff. Who else is logged in is told so: the login would send them straight back here."""

    @login_required
    @wraps(view)
    def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_staff:
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return asked


def problem_response(status: int, title: str, detail: str) -> HttpResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JsonResponse(body, status=status, content_type="application/problem+json")


def navigation(request: HttpRequest) -> dict[str, Any]:
    """What every page's frame needs: the person's brands and roles."""
    person = getattr(request, "user", None)
    if person is None or not person.is_authenticated:
        return {"my_brands": [], "my_roles": set()}
    brands = apps.get_model("retailers", "Brand").objects
    return {"my_brands": brands.for_user(person), "my_roles": brands.roles_of(person)}
