"""Screens for people who judge: choose, answer, undo, look at the figures, export."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.db.models import Count, Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from campaigns.models import Recommendation, Task
from feedback import charts, drafts, figures, services
from feedback.domain import wording
from feedback.domain.reasons import CORRECTED, REASONS
from feedback.forms import AnswerForm, ExportForm, FiltersForm, LeaveForm
from feedback.models import Export, Feedback, ReviewTask
from retailers.models import Brand, SKUCatalog
from rmn.lib import pages, words
from rmn.lib.charts import harmless
from rmn.lib.errors import BadInput
from rmn.lib.http import StaffRequest

SALT = "feedback.showing"
SHOWING_S = 24 * 3600
QUEUES = (("mine", "Mine"), ("disputed", "Disputed"))
KIND_WORDS = {"pair": "Pairs", "rating": "Stars", "thumb": "Thumbs", "correction": "Wording"}
ASKS = {
    "pair": "Which is better?",
    "rating": "How good is it?",
    "thumb": "Would you use it?",
    "correction": "How should it read?",
}


def _brand(user: Any, slug: str) -> Brand:
    return get_object_or_404(Brand.objects.for_user(user), slug=slug)


def _place(user: Any, slug: str, task: str) -> Brand:
    """The brand of an address with a brand and a task; anything else is not there."""
    if task not in Task.values:
        raise Http404
    return _brand(user, slug)


# -- choose


@require_GET
@login_required
def choose(request: StaffRequest) -> HttpResponse:
    """Which brand, then which task; with one brand the first question falls away."""
    brands = list(Brand.objects.for_user(request.user).order_by("name")[:200])
    slug = request.GET.get("brand") or (brands[0].slug if len(brands) == 1 else "")
    brand = _brand(request.user, slug) if slug else None
    waiting: Counter[str] = Counter()
    fresh: Counter[str] = Counter()
    if brand is not None:
        free = services.waiting_for(request.user, brand=brand).order_by()
        waiting.update(dict(free.values_list("task").annotate(Count("pk"))))
        offered = _offered(request.user, brand).order_by()
        fresh.update(dict(offered.values_list("task").annotate(Count("pk"))))
    tasks = [
        {"value": value, "words": said, "waiting": waiting[value], "drafts": fresh[value]}
        for value, said in Task.choices
    ]
    return render(request, "feedback/choose.html", {"brands": brands, "brand": brand, "tasks": tasks})


def _offered(user: Any, brand: Brand) -> Any:
    return Recommendation.objects.visible_to(user).filter(brand=brand, status=Recommendation.Status.OFFERED)


# -- review


@require_http_methods(["GET", "POST"])
@login_required
def review(request: StaffRequest, slug: str, task: str) -> HttpResponse:
    """One question at a time: shown, answered, skipped; the next one is there with the answer."""
    brand = _place(request.user, slug, task)
    if request.method == "POST":
        return _answer(request, brand, task)
    return _show(request, brand, task)


def _show(
    request: StaffRequest,
    brand: Brand,
    task: str,
    *,
    question: ReviewTask | None = None,
    form: AnswerForm | None = None,
    kept: Feedback | None = None,
    said: str = "",
    status: int = 200,
) -> HttpResponse:
    """The screen with a question: the given one again, else the next, below the answer that was just kept."""
    kind, queue = _asked(request)
    judged = services.judged_today(request.user, brand, task)
    skipped = request.session.get("skipped", [])
    if question is None:
        wish: dict[str, Any] = {
            "by": request.user,
            "brand": brand,
            "task": task,
            "kind": kind,
            "view": queue,
            "judged": judged,
        }
        question = services.next_task(**wish, skipped=skipped)
        if question is None and not kind and queue == "mine" and _fill(request, brand, task):
            question = services.next_task(**wish, skipped=skipped)
    context = _around(request, brand, task, kind, queue)
    context |= {
        "question": question,
        "form": form,
        "said": said,
        "done": judged,
        "undo": _undo_bar(request, brand, task, kept),
    }
    pictures: list[Any] = []
    if question is not None:
        shown, pictures = _shown(request, question, form)
        context |= shown
        if question.other_id is None and context["undo"]:  # there the key opens the question's own wording
            context["undo"].get("more", {}).pop("key", None)
    elif not context["drafts"]:
        context["drafts"] = _offered(request.user, brand).filter(task=task).count()
    if request.htmx:
        return render(request, "feedback/review.html#screen", context, status=status)
    return pages.show(request, "feedback/review.html", context, pictures, status=status)


def _asked(request: HttpRequest) -> tuple[str, str]:
    """Kind and queue by the address; what is no kind is none."""
    kind, queue = request.GET.get("kind", ""), request.GET.get("queue", "")
    return kind if kind in Feedback.Kind.values else "", queue if queue in dict(QUEUES) else "mine"


def _fill(request: StaffRequest, brand: Brand, task: str) -> int:
    """Questions of drafts that nobody was asked about yet, where nothing else waits."""
    for kind in (Feedback.Kind.PAIR, Feedback.Kind.RATING):
        made = services.fill_queue(by=request.user, brand=brand, task=task, kind=kind, untouched=True)
        if made:
            return made
    return 0


def _around(request: StaffRequest, brand: Brand, task: str, kind: str, queue: str) -> dict[str, Any]:
    """What stands around the question: counts and tabs."""
    user = request.user
    free = ReviewTask.objects.visible_to(user).free(timezone.now(), user).filter(brand=brand, task=task).order_by()
    by_kind = list(free.values_list("kind", "status").annotate(Count("pk")))
    counts: Counter[str] = Counter()
    for of_kind, _, n in by_kind:
        counts[of_kind] += n
    disputed = sum(n for _, status, n in by_kind if status == ReviewTask.Status.DISPUTED)
    here = reverse("review", args=[brand.slug, task])
    tabs = [{"words": "All", "count": counts.total(), "url": here, "current": not kind and queue == "mine"}]
    tabs += [
        {"words": said, "count": counts[value], "url": f"{here}?kind={value}", "current": kind == value}
        for value, said in KIND_WORDS.items()
        if counts[value] or kind == value
    ]
    if disputed or queue == "disputed":
        tabs.append(
            {"words": "Disputed", "count": disputed, "url": f"{here}?queue=disputed", "current": queue == "disputed"}
        )
    address = here + (f"?kind={kind}" if kind else f"?queue={queue}" if queue != "mine" else "")
    return {
        "brand": brand,
        "task": task,
        "task_words": Task(task).label,
        "waiting": counts.total(),
        "tabs": tabs,
        "here": address,
        "kinds": KIND_WORDS,
        "drafts": 0,
    }


def _undo_bar(request: StaffRequest, brand: Brand, task: str, row: Feedback | None) -> dict[str, Any] | None:
    """The answer just given, or the question just skipped, with its way back."""
    last = request.session.get("last")
    if not last:
        return None
    if last["what"] == "skip":
        return {
            "words": "Skipped; it comes again at the end.",
            "action": last["url"],
            "key": "u",
            "target": "#screen",
            "fields": {"unskip": last["key"]},
        }
    if row is None:
        mine = Feedback.objects.filter(by=request.user, brand=brand, task=task, undone_at=None)
        row = mine.filter(uuid=last["key"]).select_related("recommendation", "other", "brand").first()
    if row is None:
        return None
    told = f"Kept: {in_words(row)}."
    if row.kind == Feedback.Kind.CORRECTION and last.get("claims"):
        told += f" Claims changed: {last['claims']}."
    same, of = services.team_says(request.user, row.brand, row.task)
    if of:
        told += f" You said what most others said in {same} of your last {of}."
    bar: dict[str, Any] = {
        "words": told,
        "action": reverse("undo-answer", args=[row.uuid]),
        "key": "u",
        "target": "#screen",
    }
    better = row.recommendation if row.outcome == Feedback.Outcome.A else row.other
    if row.outcome in ("a", "b") and better is not None and better.text and not better.content.get("allocations"):
        bar["more"] = {"action": reverse("correct-better", args=[row.uuid]), "words": "Correct it", "key": "c"}
    return bar


def _shown(request: StaffRequest, question: ReviewTask, form: AnswerForm | None) -> tuple[dict[str, Any], list[Any]]:
    """The question as drawn, with the token that says what stood where and since when."""
    before = (
        Feedback.objects.filter(review_task=question, by=request.user, undone_at__isnull=False)
        .order_by("-undone_at")
        .first()
    )
    context: dict[str, Any] = {
        "ask": ASKS[question.kind],
        "guide": services.GUIDE[question.task],
        "brief": drafts.brief(question.recommendation),
        "reasons": REASONS[question.task],
        "corrected": CORRECTED,
        "before": before,
        "before_words": in_words(before) if before else "",
        "checked": form.reasons if form else list(before.reasons) if before else [],
        "note": form.data.get("note", "") if form else before.note if before else "",
        "renew": reverse("renew-question", args=[question.uuid]),
        "release": reverse("release-question", args=[question.uuid]),
    }
    first = ""
    if question.other is not None:
        first = form.first if form else _side(request, question, before)
        sides = [question.recommendation, question.other]
        one, two = sides if first == "a" else sides[::-1]
        context["first"], context["second"] = drafts.draft(one, "draft-a"), drafts.draft(two, "draft-b")
        if context["first"].table is None:
            context["pieces"] = wording.word_diff(one.text, two.text)
    else:
        context["draft"] = drafts.draft(question.recommendation)
        typed = form.data.get("text") if form else before.text if before else ""
        context["typed"] = typed or question.recommendation.text
        context |= _changed(question, context["typed"])
    context["showing"] = signing.dumps([str(question.uuid), first, time.time()], salt=SALT)
    shown = (context.get(name) for name in ("first", "second", "draft"))
    return context, [one.picture for one in shown if one is not None and one.picture]


def _side(request: StaffRequest, question: ReviewTask, before: Feedback | None) -> str:
    """A question taken back stands as it stood; else the coin decides."""
    return before.shown_first if before and before.shown_first else services.swapped_side(question, request.user)


def _names(question: ReviewTask) -> list[str]:
    """Product names whose coming or going in a correction is told."""
    product = question.recommendation.sku
    listed = SKUCatalog.objects.filter(brand=question.brand).values_list("name", flat=True)[:200]
    return list(dict.fromkeys([product.name if product else "", *listed]))


def _answer(request: StaffRequest, brand: Brand, task: str) -> HttpResponse:
    if request.POST.get("unskip"):
        return _unskip(request, brand, task)
    try:
        address, first, shown_at = signing.loads(request.POST.get("showing", ""), salt=SALT, max_age=SHOWING_S)
    except signing.BadSignature:
        messages.error(request, "That page was too old to answer, so nothing was kept. Here is the next question.")
        return _on(request, brand, task)
    found = ReviewTask.objects.visible_to(request.user).filter(uuid=address, brand=brand, task=task)
    question = found.select_related("recommendation", "other", "brand", "retailer").first()
    if question is None:
        raise Http404
    if request.POST.get("answer") == "skip":
        return _skip(request, question)
    form = AnswerForm(request.POST, question=question, first=str(first))
    if not form.is_valid():
        return _show(request, brand, task, question=question, form=form, status=422)
    try:
        when = datetime.fromtimestamp(float(shown_at), UTC)
        row = services.answer(question, by=request.user, shown_at=when, **form.said())
    except services.AlreadyAnswered:
        messages.info(request, "You had answered that one already; your first answer stands. Undo it to change it.")
        return _on(request, brand, task)
    except BadInput as error:
        form.add_error(None, str(error))
        return _show(request, brand, task, question=question, form=form, status=422)
    claims = _changed(question, row.text).get("claims", "") if row.kind == Feedback.Kind.CORRECTION else ""
    request.session["last"] = {"what": "answer", "key": str(row.uuid), "url": request.get_full_path(), "claims": claims}
    return _on(request, brand, task, said=f"Kept: {in_words(row)}.", kept=row)


def _on(request: StaffRequest, brand: Brand, task: str, said: str = "", kept: Feedback | None = None) -> HttpResponse:
    """To the next question: at once where HTMX asks, else by a redirect, so that reload asks nothing."""
    if request.htmx:
        return _show(request, brand, task, said=said, kept=kept)
    return redirect(request.get_full_path())


def _skip(request: StaffRequest, question: ReviewTask) -> HttpResponse:
    services.release(question, by=request.user)
    key = str(question.uuid)
    skipped = [one for one in request.session.get("skipped", []) if one != key]
    request.session["skipped"] = [*skipped, key][-500:]
    request.session["last"] = {"what": "skip", "key": key, "url": request.get_full_path()}
    return _on(request, question.brand, question.task, said="Skipped.")


def _unskip(request: StaffRequest, brand: Brand, task: str) -> HttpResponse:
    key = request.POST["unskip"]
    request.session["skipped"] = [one for one in request.session.get("skipped", []) if one != key]
    request.session.pop("last", None)
    held = ReviewTask.objects.visible_to(request.user).filter(reserved_by=request.user, repeats=None)
    held.filter(brand=brand, task=task).update(reserved_by=None, reserved_until=None)
    for question in ReviewTask.objects.visible_to(request.user).filter(uuid=_uuid(key), brand=brand, task=task):
        services.reserve(question, by=request.user)
    return _on(request, brand, task, said="Here it is again.")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def in_words(row: Feedback) -> str:
    """An answer as its giver saw it."""
    if row.kind == Feedback.Kind.PAIR:
        if row.outcome not in ("a", "b"):
            return "equally good" if row.outcome == "tie" else "both bad"
        side = "A" if row.outcome == (row.shown_first or "a") else "B"
        return f"{side} {'much ' if row.strength > 1 else ''}better"
    if row.kind == Feedback.Kind.THUMB:
        return "use it" if row.value == 1 else "do not use it"
    if row.kind == Feedback.Kind.RATING:
        return f"{row.value} of 5 stars"
    return "your wording"


@require_POST
@login_required
def undo(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Take one's own answer back; its question stands on the screen again with what was said."""
    row = _own(request, pk)
    services.undo(row, request.user)
    request.session.pop("last", None)
    if request.POST.get("stay"):
        messages.success(request, "Taken back; the question waits for you again.")
        return redirect("my-answers", row.brand.slug, row.task)
    if row.review_task is None:
        messages.success(request, "Taken back.")
        return redirect("review", row.brand.slug, row.task)
    if not request.htmx:
        return redirect("review", row.brand.slug, row.task)
    question = ReviewTask.objects.whole().get(pk=row.review_task.pk)
    held = question.reserved_by_id == request.user.pk
    return _show(request, row.brand, row.task, question=question if held else None, said="Taken back.")


@require_POST
@login_required
def correct(request: StaffRequest, pk: UUID) -> HttpResponse:
    """How should the better one read? Asked of who just chose it."""
    row = _own(request, pk)
    try:
        question = services.correct_better(row, by=request.user)
    except BadInput as error:
        messages.error(request, str(error))
        return redirect("review", row.brand.slug, row.task)
    if not request.htmx:
        return redirect(f"{reverse('review', args=[row.brand.slug, row.task])}?kind=correction")
    question = ReviewTask.objects.whole().get(pk=question.pk)
    return _show(request, row.brand, row.task, question=question, said="How should it read?")


def _own(request: StaffRequest, pk: UUID) -> Feedback:
    rows = Feedback.objects.visible_to(request.user).select_related("brand", "review_task", "recommendation", "other")
    return get_object_or_404(rows, uuid=pk, by=request.user)


@require_POST
@login_required
def renew(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Ten more minutes for who is still at it; 409 where it went to somebody else."""
    question = get_object_or_404(ReviewTask.objects.visible_to(request.user), uuid=pk)
    until = services.reserve(question, by=request.user)
    return JsonResponse({"until": until.isoformat()}) if until else HttpResponse(status=409)


@require_POST
@login_required
def release(request: StaffRequest, pk: UUID) -> HttpResponse:
    """The page was left: the next person can have the question."""
    question = get_object_or_404(ReviewTask.objects.visible_to(request.user), uuid=pk)
    form = LeaveForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=422)
    services.release(question, by=request.user, held_until=form.cleaned_data["until"])
    return HttpResponse(status=204)


@require_POST
@login_required
def difference(request: StaffRequest, pk: UUID) -> HttpResponse:
    """What a wording changes, while it is typed: word by word, and in its claims."""
    question = get_object_or_404(
        ReviewTask.objects.visible_to(request.user).select_related("recommendation__sku", "brand"), uuid=pk
    )
    return render(request, "feedback/difference.html", _changed(question, request.POST.get("text", "")))


def _changed(question: ReviewTask, text: str) -> dict[str, Any]:
    """The difference from the draft to a wording, and the claims that it changes; nothing where it is the same."""
    before, after = question.recommendation.text, services.clean(text[: services.MOST_CHARACTERS])
    if after == services.clean(before):
        return {}
    changed = wording.changed_claims(before, after, _names(question))
    return {"pieces": wording.word_diff(before, after), "claims": str(changed)}


@require_POST
@login_required
def ask(request: StaffRequest, slug: str, task: str) -> HttpResponse:
    """Make questions of the drafts on offer."""
    brand = _place(request.user, slug, task)
    kind = request.POST.get("kind", "")
    if kind not in Feedback.Kind.values:
        raise Http404
    made = services.fill_queue(by=request.user, brand=brand, task=task, kind=kind)
    if made:
        messages.success(request, f"{words.counted(made, 'question')} made of drafts on offer.")
    else:
        messages.info(request, "No draft on offer suits this: all were asked about, or no two answer the same brief.")
    return redirect(
        f"{reverse('review', args=[slug, task])}?kind={kind}" if made else reverse("review", args=[slug, task])
    )


@require_GET
@login_required
def team(request: StaffRequest, slug: str, task: str) -> HttpResponseBase:
    """Who holds what, and what still wants answers; what was said stays hidden."""
    brand = _place(request.user, slug, task)
    rows = ReviewTask.objects.visible_to(request.user).filter(brand=brand, task=task, repeats=None)
    rows = rows.select_related("recommendation", "reserved_by")
    rows = rows.annotate(given=Count("answers", filter=Q(answers__undone_at=None)))
    now = timezone.now()

    def holder(row: Any) -> str:
        return row.reserved_by.username if row.reserved_by and row.reserved_until and row.reserved_until > now else ""

    table = pages.Table(
        request,
        rows,
        title="Questions",
        name="questions",
        order="-priority",
        columns=[
            pages.Column("kind", "Kind", sort="kind", value=lambda row: KIND_WORDS[row.kind]),
            pages.Column(
                "brief", "About", value=lambda row: drafts.brief(row.recommendation)[:80] or row.recommendation.title
            ),
            pages.Column("status", "State", sort="status", value=lambda row: row.get_status_display()),
            pages.Column("given", "Answers", sort="given"),
            pages.Column("votes_wanted", "Wanted", sort="votes_wanted"),
            pages.Column("held_by", "Held by", value=holder),
            pages.Column("priority", "Priority", sort="priority", hint="Higher comes first: what the gate still needs"),
        ],
        filters=[
            pages.Filter("kind", "Kind", list(KIND_WORDS.items())),
            pages.Filter("status", "State", ReviewTask.Status.choices),
        ],
        empty="No question yet. Make some of the drafts on offer from the review screen.",
    )
    context = {"brand": brand, "task": task, "task_words": Task(task).label, "table": table}
    return table.answer() or render(request, "feedback/team.html", context)


@require_GET
@login_required
def my_answers(request: StaffRequest, slug: str, task: str) -> HttpResponse:
    """What this person said here, newest first, each with its way back."""
    brand = _place(request.user, slug, task)
    rows = Feedback.objects.filter(by=request.user, brand=brand, task=task).select_related("recommendation", "other")
    told = [
        {
            "row": row,
            "words": in_words(row),
            "about": drafts.brief(row.recommendation)[:100] if row.recommendation else row.prompt[:100],
        }
        for row in rows.order_by("-pk")[:100]
    ]
    context = {"brand": brand, "task": task, "task_words": Task(task).label, "answers": told}
    return render(request, "feedback/answers.html", context)


# -- figures


@require_GET
@login_required
def statistics(request: StaffRequest) -> HttpResponseBase:
    """What was said, how far people agree, who is better, and what sways the votes."""
    form = FiltersForm(request.GET, user=request.user)
    form.is_valid()
    if "brand" in form.errors:
        raise Http404
    brand = form.cleaned_data.get("brand")
    filters = form.filters(timezone.now())
    rows = Feedback.objects.visible_to(request.user)
    tasks = ReviewTask.objects.visible_to(request.user).filter(repeats=None)
    if brand is not None:
        rows, tasks = rows.filter(brand=brand), tasks.filter(brand=brand)
    if filters.task:
        tasks = tasks.filter(task=filters.task)
    key = f"{request.user.pk}:{brand.pk if brand else ''}:{sorted(filters.row().items())}"
    stats = figures.kept(key, lambda: figures.figures(request.user, brand, filters))
    if request.GET.get("export") == "csv":
        told = [[harmless(cell) for cell in row.values()] for row in figures.flat(stats)]
        return pages.csv_response("figures", ("section", "what", "estimate", "low", "high", "n"), told)
    you = figures.profile(rows, request.user)
    drawn = [
        charts.win_rates(stats["adapters"]["win_rates"], stats["adapters"]["decision"]),
        charts.agreement(stats["agreement"]),
        charts.approval(stats["tasks"]),
        charts.bias(stats["first_side"], stats["longer_text"]),
        charts.by_week(stats["weeks"]),
    ]
    pictures = [picture for picture in drawn if picture is not None]
    context = {
        "form": form,
        "stats": stats,
        "coverage": figures.coverage(tasks),
        "you": you,
        "readers": figures.profiles(rows) if services.may_see_everyone(request.user) else [],
        "pictures": pictures,
        "ranked": _ranked(stats["adapters"]),
        "exported": f"?{_with(request, export='csv')}",
        "address": _with(request),
        "brand": brand,
    }
    return pages.show(request, "feedback/statistics.html", context, pictures)


def _with(request: HttpRequest, **more: str) -> str:
    """The address's query with more in it."""
    query = request.GET.copy()
    for name, value in more.items():
        query[name] = value
    return query.urlencode()


def _ranked(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Adapters best first, with their strength as it is and with length held equal."""
    ranking, controlled = found["ranking"], (found["length_controlled"] or {}).get("abilities", {})
    return [
        {
            "name": name,
            "rank": ranking["abilities"][name]["rank"],
            "strength": ranking["abilities"][name]["beside_mean"],
            "low": ranking["abilities"][name]["beside_mean_interval"][0],
            "high": ranking["abilities"][name]["beside_mean_interval"][1],
            "controlled": controlled.get(name, {}).get("beside_mean"),
            "controlled_between": controlled.get(name, {}).get("beside_mean_interval"),
        }
        for name in (ranking or {"order": []})["order"]
    ]


@require_http_methods(["GET", "POST"])
@login_required
def export(request: StaffRequest) -> HttpResponse:
    """Wish an export; its run page follows it. Earlier ones stay to fetch."""
    form = ExportForm(request.POST if request.method == "POST" else None, user=request.user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        return redirect("run", services.request_export(**form.wish(timezone.now()), by=request.user).pk)
    if "brand" in form.errors and request.POST.get("brand"):
        raise Http404
    runs = Export.objects.visible_to(request.user).select_related("brand", "requested_by")[:30]
    context = {"form": form, "exports": runs}
    return render(request, "feedback/export.html", context, status=422 if form.errors else 200)


@require_GET
@login_required
def export_file(request: StaffRequest, pk: UUID) -> FileResponse:
    run = get_object_or_404(Export.objects.visible_to(request.user), pk=pk)
    if run.path is None:
        raise Http404
    return FileResponse(run.path.open("rb"), as_attachment=True, filename=run.path.name)
