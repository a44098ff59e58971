"""Screens where answers become versions: lessons, data-set cards, run cards, evaluations, withdrawals."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from agents.models import Adapter
from campaigns.models import Recommendation, Task
from feedback.models import Feedback
from retailers.models import roles
from rmn.lib import pages, words
from rmn.lib.errors import RmnError
from rmn.lib.http import StaffRequest
from rmn.lib.runs import Run
from training import charts, services, tasks
from training.domain import cards
from training.forms import LessonForm, WithdrawalForm
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal

MORE = [("training-runs", "Training runs"), ("datasets", "Data sets"), ("evaluations", "Evaluations")]


def _may_train(user: Any) -> bool:
    return bool({"analyst", "ops"} & set(roles(user)))


# -- lessons


@require_http_methods(["GET", "POST"])
@login_required
def lessons(request: StaffRequest) -> HttpResponseBase:
    """Train, gate, stage with one click; and what earlier lessons came to."""
    may = _may_train(request.user)
    form = LessonForm(request.POST or None, user=request.user)
    if request.method == "POST":
        if not may:
            messages.error(request, "Analysts and ops staff start lessons; ask one of them.")
            return redirect("training")
        if form.is_valid():
            try:
                run = services.request_lesson(**form.cleaned_data, by=request.user)
            except RmnError as error:
                messages.error(request, str(error))
            else:
                return redirect("lesson", run.pk)
    table = pages.Table(
        request,
        Lesson.objects.visible_to(request.user).select_related("brand", "retailer", "adapter"),
        title="Lessons",
        name="lessons",
        order="-created_at",
        columns=[
            pages.Column(
                "created_at", "Asked", sort="created_at", href=lambda row: reverse("lesson", args=[row.pk])
            ),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "shared"),
            pages.Column("retailer", "Retailer", value=lambda row: row.retailer.name if row.retailer else "all"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("status", "State", sort="status"),
            pages.Column("outcome", "Came to", value=lambda row: row.outcome.replace("_", " ")),
            pages.Column("reason", "Why"),
        ],
        filters=[pages.Filter("status", "State", Run.Status.choices), pages.Filter("outcome", "Came to", Lesson.Outcome.choices)],
        empty="No lesson yet: one starts at night where new answers can change the verdict, or here.",
    )  # fmt: skip
    more = [(reverse(name), title) for name, title in MORE]
    if "ops" in roles(request.user):
        more.append((reverse("withdrawals"), "Withdrawals"))
    context = {"table": table, "form": form, "may_train": may, "more": more, "standing": _standing(request)}
    return table.answer() or render(
        request, "training/lessons.html", context, status=422 if request.method == "POST" else 200
    )


def _standing(request: StaffRequest) -> list[dict[str, Any]]:
    """For each of the person's scopes: what the night would do, and why."""
    from retailers.models import Brand, Retailer
    from training.domain.lessons import worth

    scopes = tasks.answers_of_people().filter(brand__in=Brand.objects.for_user(request.user, whole=True))
    told = []
    for brand_id, retailer_id, task in sorted(
        scopes.order_by().values_list("brand", "retailer", "task").distinct()[:20], key=str
    ):
        brand, retailer = Brand.objects.get(pk=brand_id), Retailer.objects.filter(pk=retailer_id).first()
        start, why = worth(tasks.standing_of(brand, retailer, task))
        told.append({"where": " · ".join(filter(None, [brand.name, retailer.name if retailer else "", task])), "start": start, "why": why})  # fmt: skip
    return told


@require_GET
@login_required
def lesson(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One lesson: its steps, each with its card, and what came of it."""
    found = get_object_or_404(
        Lesson.objects.visible_to(request.user).select_related("brand", "retailer", "adapter", "deployment"), pk=pk
    )
    steps: list[Any] = [
        *found.datasets.select_related("brand"),
        *found.training_runs.select_related("brand"),
        *found.evaluations.select_related("brand"),
    ]
    if found.deployment is not None:
        steps.append(found.deployment)
    steps.sort(key=lambda step: step.created_at)
    return render(request, "training/lesson.html", {"lesson": found, "run": found, "steps": steps})


# -- data sets


@require_GET
@login_required
def datasets(request: StaffRequest) -> HttpResponseBase:
    """What was put together from answers: how much, of what, and whether it still may train."""
    table = pages.Table(
        request,
        Dataset.objects.visible_to(request.user).select_related("brand", "retailer"),
        title="Data sets",
        name="datasets",
        order="-created_at",
        columns=[
            pages.Column("digest", "Set", value=lambda row: row.digest[:12] or str(row.pk)[:8], href=lambda row: reverse("dataset", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "shared"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("kind", "Kind", sort="kind"),
            pages.Column("rows_train", "Rows to train", sort="rows_train"),
            pages.Column("status", "State", value=lambda row: "withdrawn" if row.revoked_at else row.status),
            pages.Column("created_at", "Built", sort="created_at"),
        ],
        filters=[pages.Filter("task", "Task", Task.choices), pages.Filter("kind", "Kind", [(k, k) for k in ("sft", "dpo", "kto")])],
        search=["digest"],
        empty="No data set yet.",
    )  # fmt: skip
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Data sets"})


@require_GET
@login_required
def dataset(request: StaffRequest, pk: UUID) -> HttpResponse:
    """The set's card: who, what, how much, what was masked and what was left out; and what was made of it."""
    found = get_object_or_404(Dataset.objects.visible_to(request.user).select_related("brand", "retailer"), pk=pk)
    told = found.manifest
    lengths = [
        {"side": side.replace("_", " "), **part}
        for side, part in (told.get("length") or {}).items()
        if isinstance(part, dict)
    ]
    context = {
        "data": found,
        "run": found,
        "told": told,
        "lengths": lengths,
        "dropped": sorted((told.get("dropped") or {}).items(), key=lambda one: -one[1]),
        "sources": sorted((told.get("sources") or {}).items(), key=lambda one: -one[1]),
        "leaks": sum((told.get("leak_check") or {}).values()),
        "trained": found.training_runs.visible_to(request.user).select_related("adapter").order_by("created_at"),
    }
    return render(request, "training/dataset.html", context)


@require_GET
@login_required
def answer(request: StaffRequest, pk: UUID) -> HttpResponse:
    """What came of one answer: the sets that hold it, the versions that rest on those, and how much they wrote."""
    row = get_object_or_404(Feedback.objects.visible_to(request.user).blind_for(request.user), uuid=pk)
    found = tasks.dependants(Feedback.objects.filter(pk=row.pk))
    seen = Adapter.objects.visible_to(request.user).filter(pk__in=[one.pk for one in found.adapters])
    texts = Recommendation.objects.visible_to(request.user)
    context = {
        "answer": row,
        "sets": Dataset.objects.visible_to(request.user).filter(pk__in=[one.pk for one in found.datasets]),
        "versions": [
            {"row": one, "texts": texts.filter(adapter_digest=one.digest).count()}
            for one in seen.select_related("brand", "retailer").order_by("created_at")
        ],
    }
    return render(request, "training/answer.html", context)


# -- trainings


@require_GET
@login_required
def training_runs(request: StaffRequest) -> HttpResponseBase:
    """Every training: on what, how it ended, what it took."""
    table = pages.Table(
        request,
        TrainingRun.objects.visible_to(request.user).select_related("brand", "retailer", "adapter", "dataset"),
        title="Training runs",
        name="training-runs",
        order="-created_at",
        columns=[
            pages.Column("created_at", "Asked", sort="created_at", href=lambda row: reverse("training-run", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "shared"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("method", "Method", sort="method"),
            pages.Column("status", "State", value=lambda row: row.stopped_by.replace("_", " ") or row.status),
            pages.Column("loss", "Loss", value=lambda row: row.metrics[-1].get("loss") if row.metrics else None),
            pages.Column("seconds", "Took", kind="duration"),
            pages.Column("adapter", "Version", value=lambda row: row.adapter.digest[:12] if row.adapter else ""),
        ],
        filters=[pages.Filter("status", "State", Run.Status.choices), pages.Filter("method", "Method", [(k, k) for k in ("sft", "dpo", "kto")])],
        empty="No training yet.",
    )  # fmt: skip
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Training runs"})


@require_GET
@login_required
def training_run(request: StaffRequest, pk: UUID) -> HttpResponse:
    """The run's card: estimate against what it took, live curve, what decided it, and what came out."""
    found = get_object_or_404(
        TrainingRun.objects.visible_to(request.user).select_related(
            "brand", "retailer", "dataset", "parent", "adapter", "forecast"
        ),
        pk=pk,
    )
    pictures = [one for one in (charts.loss(found.metrics, found.stopped_by), charts.margin(found.metrics)) if one]
    manifest = found.adapter.manifest if found.adapter else {}
    estimate = found.estimate
    seconds = found.seconds
    price = estimate["cost"] / estimate["minutes"] if estimate.get("cost") and estimate.get("minutes") else None
    context = {
        "training": found,
        "run": found,
        "pictures": pictures,
        "estimate": estimate,
        "cost": words.money(price * seconds / 60, estimate["currency"]) if price and seconds else "",
        "expected_cost": words.money(estimate["cost"], estimate["currency"]) if estimate.get("cost") else "",
        "took": words.duration(seconds) if seconds else "",
        "took_evidence": "of the last attempt" if found.is_finished else "so far",
        "expected": words.duration(60 * estimate["minutes"]) if "minutes" in estimate else "",
        "manifest": manifest,
        "decided": {**found.config, **(manifest.get("config") or {})},
        "steps": f"of {estimate['steps']}" if "steps" in estimate else "",
        "expected_evidence": f"at most {words.duration(60 * estimate['at_most'])} in eight of ten"
        if "at_most" in estimate
        else "",
        "lamp": LAMPS.get(found.stopped_by, found.stopped_by.replace("_", " ")),
        "evaluations": Evaluation.objects.visible_to(request.user).filter(candidate=found.adapter)
        if found.adapter
        else [],
    }
    return pages.show(request, "training/run.html", context, pictures)


LAMPS = {
    "nan_loss": "the loss was no number: lower the learning rate, and train in bf16 or fp32",
    "zero_loss": "the loss was zero for five steps: nothing is left to learn, or the labels are masked away",
    "stuck_at_ln2": "the loss stood at ln 2: the preferred and the rejected texts look the same to it",
    "margin_collapse": "the rejected texts led: the labels may be the wrong way round",
    "length_drift": "it came to expect texts of twice or half the length: length was learnt, not taste",
    "diverging": "the loss grew to three times its first: lower the learning rate",
    "disk_full": "the disk was full; its checkpoints are kept",
    "out_of_memory": "it did not fit into memory; its checkpoints are kept",
    "early_stop": "people whose answers were held out saw no more gain: the best weights were kept",
}


# -- evaluations


@require_GET
@login_required
def evaluations(request: StaffRequest) -> HttpResponseBase:
    """Every comparison at the gate."""
    table = pages.Table(
        request,
        Evaluation.objects.visible_to(request.user).select_related("brand", "retailer", "candidate", "champion"),
        title="Evaluations",
        name="evaluations",
        order="-created_at",
        columns=[
            pages.Column("created_at", "Asked", sort="created_at", href=lambda row: reverse("evaluation", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "shared"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("candidate", "Candidate", value=lambda row: row.candidate.digest[:12] if row.candidate else "base"),
            pages.Column("champion", "Against", value=lambda row: row.champion.digest[:12] if row.champion else "base"),
            pages.Column("verdict", "Verdict", value=lambda row: row.verdict.replace("_", " ")),
            pages.Column("status", "State", sort="status"),
        ],
        filters=[pages.Filter("verdict", "Verdict", [(v, v.replace("_", " ")) for v in ("better", "not_worse", "worse", "not_enough_evidence")])],
        empty="No evaluation yet.",
    )  # fmt: skip
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Evaluations"})


@require_GET
@login_required
def evaluation(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One comparison: the verdict and its reasons, rates with intervals, every guard, and the texts that flipped."""
    found = get_object_or_404(
        Evaluation.objects.visible_to(request.user).select_related("brand", "retailer", "candidate", "champion"), pk=pk
    )
    result = found.result
    picture = charts.pass_rates(result.get("pass_rate") or {})
    tests = [cards.test_row(test) for test in result.get("tests") or []]
    votes = next((test for test in result.get("tests") or [] if test["name"] == "blind votes"), None)
    flipped = result.get("flipped") or []
    told = (test["gain_at_equal_length"] for test in result.get("tests") or [] if "gain_at_equal_length" in test)
    level = next(told, None)
    context = {
        "evaluation": found,
        "run": found,
        "result": result,
        "pictures": [picture] if picture else [],
        "tests": tests,
        "votes": cards.votes_row(votes) if votes else None,
        "gained": [one for one in flipped if one["passed"]],
        "lost": [one for one in flipped if not one["passed"]],
        "level": cards.level_row(level) if level else None,
        "length": f"against {words.short(result['length']['champion'])}" if result.get("length") else "",
        "headline": cards.VERDICTS.get(found.verdict, ""),
    }
    return pages.show(request, "training/evaluation.html", context, [picture] if picture else [])


@require_GET
@login_required
def model_card(request: StaffRequest, pk: UUID) -> HttpResponse:
    """A version's card as Markdown, with the data's and the gate's words in it."""
    seen = Adapter.objects.visible_to(request.user).select_related("brand", "retailer")
    row = get_object_or_404(seen, uuid=pk)
    trained = TrainingRun.objects.visible_to(request.user).filter(adapter=row).select_related("dataset").first()
    judged = (
        Evaluation.objects.visible_to(request.user)
        .filter(candidate=row, status=Run.Status.SUCCEEDED)
        .select_related("champion")
        .first()
    )
    text = cards.model_card(
        name=f"{row.task} adapter of {row.brand or 'all brands'}",
        digest=row.digest,
        state=row.state,
        made=row.created_at.date().isoformat(),
        scope={"brand": str(row.brand or "all"), "retailer": str(row.retailer or "any"), "task": row.task},
        manifest=row.manifest,
        rank=row.rank,
        parents=row.parents,
        data=trained.dataset.manifest if trained and trained.dataset else {},
        result=judged.result if judged else {},
        proof=row.proof,
    )
    answer = HttpResponse(text, content_type="text/markdown; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="model-card-{row.digest[:12]}.md"'
    return answer


# -- withdrawals


@require_http_methods(["GET", "POST"])
@login_required
def withdrawals(request: StaffRequest) -> HttpResponseBase:
    """Take somebody's answers out of all training: first what rests on them is shown, then it is done."""
    if "ops" not in roles(request.user):
        messages.error(request, "Ops staff take answers out of training; ask one of them.")
        return redirect("training")
    form = WithdrawalForm(request.POST or None, user=request.user)
    found = None
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        if request.POST.get("step") == "withdraw":
            run = services.request_withdrawal(**said, by=request.user)
            return redirect("withdrawal", run.pk)
        found = tasks.dependants(Withdrawal(brand=said["brand"], person=said["person"]).answers)
    table = pages.Table(
        request,
        Withdrawal.objects.visible_to(request.user).select_related("brand", "person"),
        title="Withdrawals",
        name="withdrawals",
        order="-created_at",
        columns=[
            pages.Column("created_at", "Asked", sort="created_at", href=lambda row: reverse("withdrawal", args=[row.pk])),
            pages.Column("person", "Person", value=lambda row: row.person.username if row.person else "everybody"),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "all brands"),
            pages.Column("status", "State", sort="status"),
            pages.Column("versions", "Versions withdrawn", value=lambda row: len(row.result.get("adapters", []))),
            pages.Column("reason", "Why"),
        ],
        empty="Nobody has withdrawn answers.",
    )  # fmt: skip
    status = 422 if request.method == "POST" and form.errors else 200
    context = {"table": table, "form": form, "found": found}
    return table.answer() or render(request, "training/withdrawals.html", context, status=status)


@require_GET
@login_required
def withdrawal(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One withdrawal: what it took out, what was withdrawn with it, what is made anew."""
    found = get_object_or_404(Withdrawal.objects.visible_to(request.user).select_related("brand", "person"), pk=pk)
    told = found.result
    context = {
        "withdrawal": found,
        "run": found,
        "sets": Dataset.objects.visible_to(request.user).filter(pk__in=told.get("datasets", [])),
        "versions": Adapter.objects.visible_to(request.user)
        .filter(digest__in=told.get("adapters", []))
        .select_related("brand", "retailer"),
        "lessons": Lesson.objects.visible_to(request.user)
        .filter(pk__in=told.get("lessons", []))
        .select_related("brand", "retailer"),
    }
    return render(request, "training/withdrawal.html", context)
