"""Screens where agents' proposals are decided, what decisions expected, and which adapters write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from statistics import median
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from agents import charts, decisions, services, serving
from agents.domain import briefs
from agents.forms import PlaygroundForm
from agents.models import Adapter, AdapterAlias, Forecast, Generation
from campaigns.models import BudgetPlan, Task
from feedback.models import Feedback
from retailers.models import Brand, roles
from retailers.services import check_text
from rmn.lib import pages, stats, words
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.http import StaffRequest


@require_POST
@login_required
def decide_plan(request: StaffRequest, pk: UUID, outcome: str) -> HttpResponse:
    """Approve or reject a plan, with its note; analysts and ops may."""
    plan = get_object_or_404(BudgetPlan.objects.visible_to(request.user), pk=pk)
    if outcome not in ("approve", "reject"):
        raise Http404
    if not {"analyst", "ops"} & set(roles(request.user)) and not request.user.is_superuser:
        messages.error(request, "Only analysts and ops staff decide on budgets; ask one of them.")
        return redirect("budget-plan", pk)
    try:
        decided = decisions.decide_plan(plan, outcome, request.user, request.POST.get("note", ""))
    except BadInput as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"The plan is {decided.state}.")
    return redirect("budget-plan", pk)


@require_GET
@login_required
def forecasts(request: StaffRequest) -> HttpResponseBase:
    """What decisions expect, and what came true."""
    table = pages.Table(
        request,
        Forecast.objects.visible_to(request.user).select_related("brand"),
        title="Forecasts",
        name="forecasts",
        order="due",
        columns=[
            pages.Column("statement", "It is expected that"),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("probability", "How sure", sort="probability", kind="share"),
            pages.Column("due", "Due", sort="due"),
            pages.Column("status", "State", sort="status"),
            pages.Column("happened", "Came true", value=lambda row: {True: "yes", False: "no"}.get(row.happened, "")),
            pages.Column("agent", "By"),
        ],
        search=["statement", "agent"],
        filters=[pages.Filter("status", "State", Forecast.Status.choices)],
        empty="No forecast yet: each approved decision leaves one.",
    )
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Forecasts"})


# -- adapters


@require_GET
@login_required
def adapters(request: StaffRequest) -> HttpResponseBase:
    """Every version of the person's brands: what it is, whether it was proved, where it serves."""
    table = pages.Table(
        request,
        Adapter.objects.visible_to(request.user).select_related("brand", "retailer").prefetch_related("aliases"),
        title="Adapters",
        name="adapters",
        order="-created_at",
        columns=[
            pages.Column(
                "digest", "Version", value=lambda row: row.digest[:12], href=lambda row: reverse("adapter", args=[row.uuid])
            ),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "all brands"),
            pages.Column("retailer", "Retailer", value=lambda row: row.retailer.name if row.retailer else "any"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("state", "State", sort="state"),
            pages.Column("serves", "Serves as", value=lambda row: ", ".join(a.name for a in row.aliases.all())),
            pages.Column("created_at", "Made", sort="created_at"),
            pages.Column("proved", "Proved", value=lambda row: {True: "yes", False: "no"}.get(row.proof.get("passed"), "")),
            pages.Column("rank", "Rank", sort="rank"),
        ],
        search=["digest", "brand__name", "retailer__name"],
        filters=[
            pages.Filter("state", "State", Adapter.State.choices),
            pages.Filter("task", "Task", Task.choices),
        ],
        empty="No adapter yet: answers on the review screen become one. See the training runs in the console.",
    )  # fmt: skip
    context = {"table": table, "title": "Adapters", "more": [(reverse("playground"), "Playground")]}
    return table.answer() or render(request, "campaigns/list.html", context)


@require_GET
@login_required
def adapter(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One version: how it does with people, its proof, its gate, where it comes from and what came of it."""
    seen = Adapter.objects.visible_to(request.user)
    row = get_object_or_404(seen.select_related("brand", "retailer"), uuid=pk)
    parents = {one.digest: one for one in seen.filter(digest__in=row.parents)}
    kin = seen.filter(brand=row.brand).exclude(pk=row.pk).order_by("-created_at")[:500]
    children = [one for one in kin if row.digest in one.parents]
    aliases = list(row.aliases.all())
    picture = charts.lineage(_steps(row, children, aliases))
    context = {
        "adapter": row,
        "aliases": aliases,
        "won": _won(request.user, row.digest),
        **_written(request.user, row),
        "parents": [
            {"words": digest[:12], "url": reverse("adapter", args=[parents[digest].uuid]) if digest in parents else ""}
            for digest in row.parents
        ],
        "children": [{"words": one.digest[:12], "url": reverse("adapter", args=[one.uuid])} for one in children],
        "picture": picture,
        "verdict": str(row.gate.get("verdict", "")).replace("_", " ").capitalize(),
        "may_deploy": _may_deploy(request.user),
    }
    return pages.show(request, "agents/adapter.html", context, [picture] if picture else [])


def _steps(row: Adapter, children: list[Adapter], aliases: list[AdapterAlias]) -> list[tuple[str, str]]:
    """From the answers of people to what serves, as far as the version's own records tell."""
    told: dict[str, Any] = row.manifest
    data: dict[str, Any] = told["data"] if isinstance(told.get("data"), dict) else {}
    sources = data.get("sources") or {}
    steps = [("Answers", f"{count} {str(name).replace('_', ' ')}") for name, count in list(sources.items())[:3]]
    if digest := str(data.get("set") or data.get("digest") or ""):
        rows = f", {data['rows']} rows" if data.get("rows") else ""
        steps.append(("Data set", f"{digest[:12]}{rows}"))
    steps += [("Made from", digest[:12]) for digest in row.parents[:3]]
    if told.get("method"):
        steps.append(
            ("Training", f"{str(told['method']).upper()}, {words.counted(int(told.get('steps') or 0), 'step')}")
        )
    if row.gate.get("verdict"):
        steps.append(("Gate", str(row.gate["verdict"]).replace("_", " ")))
    steps.append(("This version", row.digest[:12]))
    last = row.deployments.order_by("-created_at").first()
    if last is not None:
        steps.append(("Deployed", f"{last.created_at:%d %b %Y}, {last.get_status_display().lower()}"))
    steps += [("Serves as", f"{alias.name}") for alias in aliases]
    return steps + [("Led to", one.digest[:12]) for one in children[:3]]


def _written(user: Any, row: Adapter) -> dict[str, Any]:
    """What the version wrote: how much of its scope's texts of 30 days, how fast, and how much the rules let pass."""
    seen = Generation.objects.visible_to(user)
    mine = seen.filter(adapter_digest=row.digest)
    latest = list(mine.order_by("-created_at").values_list("latency_s", flat=True)[:200])
    found: dict[str, Any] = {"written": mine.count(), "latency": words.short(median(latest)) if latest else None}
    lately = seen.filter(brand=row.brand, task=row.task, created_at__gte=timezone.now() - timedelta(days=30)).exclude(
        alias="shadow"
    )
    if row.retailer_id is not None:
        lately = lately.filter(retailer=row.retailer)
    whole = lately.count()
    if whole:
        part = lately.filter(adapter_digest=row.digest).count()
        found["traffic"] = {"value": words.share(part / whole), "evidence": f"{part} of {whole} texts in 30 days"}
    judged = mine.exclude(verdict="").count()
    if judged:
        good = mine.filter(verdict="pass").count()
        low, high = stats.wilson(good, judged)
        found["passing"] = {
            "value": words.share(good / judged),
            "low": words.share(low),
            "high": words.share(high),
            "evidence": f"{good} of {words.counted(judged, 'text')}",
        }
    return found


def _may_deploy(user: Any) -> bool:
    return "ops" in roles(user)


def _won(user: Any, digest: str) -> dict[str, Any]:
    """Share of blind pairs that people decided for this version, with its Wilson interval."""
    said = Feedback.objects.visible_to(user).filter(kind="pair", origin="human", undone_at=None, is_gold=False)
    wins = said.filter(adapter_digest=digest, outcome="a").exclude(other_adapter_digest=digest).count()
    wins += said.filter(other_adapter_digest=digest, outcome="b").exclude(adapter_digest=digest).count()
    losses = said.filter(adapter_digest=digest, outcome="b").exclude(other_adapter_digest=digest).count()
    losses += said.filter(other_adapter_digest=digest, outcome="a").exclude(adapter_digest=digest).count()
    if not wins + losses:
        return {"value": "no votes", "evidence": "against any other version; ties aside"}
    low, high = stats.wilson(wins, wins + losses)
    return {
        "value": words.share(wins / (wins + losses)),
        "low": words.share(low),
        "high": words.share(high),
        "evidence": f"{words.counted(wins + losses, 'vote')} against other versions; ties aside",
    }


@require_POST
@login_required
def move_adapter(request: StaffRequest, pk: UUID, move: str) -> HttpResponse:
    """Deploy a version, or take it back; ops may."""
    row = get_object_or_404(Adapter.objects.visible_to(request.user).select_related("brand", "retailer"), uuid=pk)
    if move not in ("deploy", "roll-back"):
        raise Http404
    if not _may_deploy(request.user):
        messages.error(request, "Only ops staff say which version serves; ask one of them.")
        return redirect("adapter", row.uuid)
    try:
        if move == "deploy":
            alias = request.POST.get("alias", "")
            share = 0.1 if alias == "challenger" else 1.0
            run = services.deploy_adapter(adapter=row, alias=alias, share=share, by=request.user)
            return redirect(run.get_absolute_url())
        if row.brand is None:
            raise BadInput("Shared knowledge serves no brand by itself; there is nothing to take back.")
        reason = request.POST.get("reason", "")[:400]
        for held in row.aliases.exclude(name="previous"):
            services.roll_back_adapter(
                brand=row.brand, retailer=row.retailer, task=row.task, alias=held.name, reason=reason, by=request.user
            )
        messages.success(request, "Taken back; the version before it serves.")
    except RmnError as error:
        messages.error(request, str(error))
    return redirect("adapter", row.uuid)


# -- playground


@require_GET
@login_required
def playground(request: StaffRequest) -> HttpResponse:
    """One brief, written by the champion and by its challenger (or the base model), side by side."""
    asked = "product" in request.GET
    first = Brand.objects.for_user(request.user).order_by("name").first()
    initial = {"brand": first, **request.GET.dict()}
    form = PlaygroundForm(request.GET if asked else None, user=request.user, initial=initial)
    context: dict[str, Any] = {"form": form}
    if asked and form.is_valid():
        found = serving.aliases(
            brand=form.cleaned_data["brand"], retailer=form.cleaned_data["retailer"], task=Task.CREATIVE
        )
        sides = ["champion", "challenger" if "challenger" in found else "base"]
        context["lonely"] = "challenger" not in found
        context["panes"] = [
            {
                "name": side,
                "title": side.capitalize() if side != "base" else "Base model",
                "words": _written_by(found[side]) if side in found else "without an adapter",
                "url": f"{reverse('playground-stream')}?{urlencode({**_query(request), 'side': side})}",
            }
            for side in sides
        ]
    return render(request, "agents/playground.html", context)


def _query(request: StaffRequest) -> dict[str, str]:
    return {name: request.GET.get(name, "") for name in PlaygroundForm.base_fields}


def _written_by(route: serving.Route) -> str:
    return f"adapter {route.digest[:12]}" if route.digest else "the base model: no adapter serves here yet"


@require_GET
@login_required
def playground_stream(request: StaffRequest) -> HttpResponseBase:
    """The text of one side as server-sent events: piece, piece ..., then end with the verdict, or problem."""
    form = PlaygroundForm(request.GET, user=request.user)
    if not form.is_valid():
        return HttpResponse("; ".join(f"{k}: {v[0]}" for k, v in form.errors.items()), status=422)
    said = form.cleaned_data
    side = request.GET.get("side", "")
    routes = serving.aliases(brand=said["brand"], retailer=said["retailer"], task=Task.CREATIVE)
    route = serving.Route(None, "base") if side == "base" else routes.get(side)
    if route is None:
        raise Http404
    answer = StreamingHttpResponse(_events(said, route), content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"  # a proxy would keep the pieces together
    return answer


def _events(said: dict[str, Any], route: serving.Route) -> Iterator[bytes]:
    if not settings.RMN_INFERENCE_URL:
        yield _event("problem", words="No model server: start everything with make run, or set RMN_INFERENCE_URL.")
        return
    item = briefs.Item(said["product"], said["brand"].name, said["size"], said["feature"], (said["network"],))
    whole = ""
    try:
        with serving.inference() as client:
            for piece in serving.stream(client, route, briefs.messages(item), brand=said["brand"], max_tokens=40):
                whole += piece
                yield _event("piece", text=piece)
        text = briefs.tidy(whole)
        verdict = check_text(
            text=text,
            network=said["network"],
            brand=said["brand"],
            product=item.product,
            facts=item.policy_facts,
        )
    except RmnError as error:
        yield _event("problem", words=str(error))
        return
    why = [finding.message for finding in verdict.findings]
    if len(text) > item.limit:
        why.append(f"{len(text)} characters, {item.limit} fit")
    good = verdict.verdict == "pass" and len(text) <= item.limit
    ending = {"pass": "Passes" if good else "Does not pass", "block": "Does not pass"}.get(
        verdict.verdict, "Needs proof"
    )
    yield _event(
        "end", text=text, good=good, words=f"{ending} at {said['network']}{': ' + '; '.join(why) if why else ''}"
    )


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
