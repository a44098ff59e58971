"""The pages of no single app: home by role, and any run's progress."""

from __future__ import annotations

import sys
from base64 import b32encode
from typing import Any
from uuid import UUID

import qrcode
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import Resolver404, resolve, reverse
from django.utils import timezone
from django.views import defaults
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_otp import login as otp_login
from django_otp.plugins.otp_totp.models import TOTPDevice
from qrcode.image.svg import SvgPathImage

from agents import decisions
from agents.models import AgentRun, Forecast, ReflectionLog
from campaigns.models import Recommendation
from feedback.models import ReviewTask
from retailers.models import QuarantinedRow, roles
from retailers.views import asked_brand
from rmn import health, masked
from rmn.lib import pages, runs
from rmn.lib.http import StaffRequest, problem_response, staff_only
from rmn.lib.words import noun
from rmn.models import SavedView

HTMX_STOP_POLLING = 286
API = "/api/"
QUERY_AT_MOST = 1000


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """No such address: problem details for programs, a page for people."""
    if request.path.startswith(API):
        return problem_response(404, "Not found", "There is nothing here that you may see.")
    return defaults.page_not_found(request, exception)


def broke_down(request: HttpRequest) -> HttpResponse:
    """Our own error: the log has it, with the request's id. While tables change under a release, a wait instead."""
    if isinstance(sys.exception(), DatabaseError) and health.is_upgrading():
        answer = (
            problem_response(503, "An upgrade is under way", "Nothing was saved. Try again in a few seconds.")
            if request.path.startswith(API)
            else HttpResponse(render_to_string("503.html"), status=503)
        )
        answer["Retry-After"] = "5"
        return answer
    if request.path.startswith(API):
        return problem_response(
            500, "Server error", "This was not foreseen; try again, and quote the time if it stays."
        )
    return defaults.server_error(request)


@require_GET
def favicon(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """Browsers ask for it at this address on pages that name no icon."""
    return redirect(static("icon.svg"))


@require_GET
@login_required
def home(request: StaffRequest) -> HttpResponse:
    return render(request, "home.html", {"waiting": waiting(request.user), "runs": latest_runs(request.user)})


def waiting(user: User) -> list[dict[str, Any]]:
    """What needs this person, with where to go."""
    brand_roles = roles(user)
    asking, reopened = AgentRun.objects.visible_to(user).asking(), ReflectionLog.objects.visible_to(user).reopened()
    inbox = decisions.for_me(user) + asking.count() + reopened.count()
    questions = ReviewTask.objects.visible_to(user).free(timezone.now(), user).count()
    proofs = Recommendation.objects.visible_to(user).needing_proof().count()
    found = [
        (
            inbox,
            "proposal, question or reopened decision in your inbox",
            "proposals, questions and reopened decisions in your inbox",
            reverse("inbox"),
            "Decide",
        ),
        (questions, "draft to judge", "drafts to judge", "/feedback/", "Review"),
        (proofs, "text that needs proof", "texts that need proof", reverse("copy"), "Prove"),
    ]
    if "ops" in brand_roles:
        failed = sum(model.objects.visible_to(user).failed().count() for model in runs.kinds())
        rows = QuarantinedRow.objects.visible_to(user).open().count()
        found += [
            (failed, "run failed", "runs failed", reverse("admin:index"), "Look"),
            (rows, "row in quarantine", "rows in quarantine", reverse("admin:index"), "Look"),
        ]
    due = Forecast.objects.visible_to(user).due(timezone.now().date()).count()
    found.append((due, "forecast due", "forecasts due", "/forecasts/", "Look"))
    return [
        {"count": n, "words": noun(n, one, many), "url": url, "verb": verb} for n, one, many, url, verb in found if n
    ]


def latest_runs(user: User, count: int = 12) -> list[runs.Run]:
    newest: list[Any] = []
    for model in runs.kinds():
        if model.is_errand:
            continue
        newest += model.objects.visible_to(user).select_related("brand").order_by("-created_at")[:count]
    return sorted(newest, key=lambda run: run.created_at, reverse=True)[:count]


@require_GET
@login_required
def masked_data(request: StaffRequest) -> HttpResponseBase:
    """Of one of the person's brands: which kinds of personal data were masked, where and when, and how often."""
    brands, brand = asked_brand(request)
    if brand is None:
        return render(request, "masked.html", {"brand": None})
    table = pages.Table(
        request,
        masked.report(brand),
        columns=masked.COLUMNS,
        title=f"Masked data of {brand}",
        name=f"masked-{brand.slug}",
        empty=f"Nothing was masked in the last {masked.DAYS} days.",
    )
    days = masked.DAYS
    return table.answer() or render(
        request, "masked.html", {"brand": brand, "brands": brands, "table": table, "days": days}
    )


@require_GET
@login_required
def run(request: StaffRequest, pk: UUID) -> HttpResponse:
    found = _find(request, pk)
    if not request.htmx:
        return render(request, "run.html", {"run": found})
    status = HTMX_STOP_POLLING if found.is_finished else 200
    return render(request, "run.html#progress", {"run": found}, status=status)


@require_POST
@login_required
def cancel_run(request: StaffRequest, pk: UUID) -> HttpResponse:
    _find(request, pk).request_cancel()
    return redirect("run", pk)


@require_POST
@login_required
def retry_run(request: StaffRequest, pk: UUID) -> HttpResponse:
    _find(request, pk).retry()
    return redirect("run", pk)


@require_POST
@staff_only
def save_view(request: StaffRequest) -> HttpResponse:
    """Keep a list of the console as it is filtered; the same name again is the newer list."""
    path, _, query = request.POST.get("address", "").partition("?")
    name = request.POST.get("name", "").strip()[:60]
    try:
        known = (resolve(path).url_name or "").endswith("_changelist") and path.startswith(f"/{settings.ADMIN_PATH}")
    except Resolver404:
        known = False
    if not known or not name or len(query) > QUERY_AT_MOST:
        return redirect("admin:index")
    view, _ = SavedView.objects.update_or_create(user=request.user, name=name, defaults={"path": path, "query": query})
    return redirect(view.url)


@require_POST
@login_required
def forget_view(request: StaffRequest, pk: UUID) -> HttpResponse:
    view = get_object_or_404(SavedView, uuid=pk, user=request.user)
    view.delete()
    return redirect(view.path)


@require_http_methods(["GET", "POST"])
@login_required
def second_factor(request: StaffRequest) -> HttpResponse:
    """Enrol an authenticator app, or answer with its code; the console asks for it."""
    device = TOTPDevice.objects.filter(user=request.user).order_by("-confirmed").first()
    if device is None:
        device = TOTPDevice.objects.create(user=request.user, name="authenticator", confirmed=False)
    wrong = False
    if request.method == "POST":
        if device.verify_is_allowed()[0] and device.verify_token(request.POST.get("token", "").replace(" ", "")):
            device.confirmed = True
            device.save()
            otp_login(request, device)
            return redirect("admin:index")
        wrong = True
    picture = (
        "" if device.confirmed else qrcode.make(device.config_url, image_factory=SvgPathImage).to_string().decode()
    )
    context = {
        "picture": picture,
        "secret": "" if device.confirmed else b32encode(device.bin_key).decode(),
        "wrong": wrong,
    }
    return render(request, "registration/second_factor.html", context)


def _find(request: StaffRequest, pk: UUID) -> runs.Run:
    found = runs.find(pk, request.user)
    if found is None:
        raise Http404
    return found
