"""Screens of reports: what they say, how fresh they are, how one is brought in, what was refused."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min, Sum
from django.db.models.functions import TruncDate
from django.http import Http404, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from retailers import audit, charts, loads, services
from retailers.domain import catalogue
from retailers.domain import mapping as mappings
from retailers.forms import DRAFT, FeedForm
from retailers.models import (
    AuditEntry,
    AuditHead,
    Brand,
    FeedLoad,
    FeedMapping,
    Membership,
    PerformanceMetric,
    QuarantinedRow,
    Retailer,
    roles,
)
from rmn.lib import pages
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.http import StaffRequest

SPANS = (("7", "7 days"), ("28", "28 days"), ("91", "13 weeks"), ("366", "A year"))
CHANGERS = {Membership.Role.MARKETER, Membership.Role.ANALYST, Membership.Role.INTEGRATION, Membership.Role.OPS}


def _may_change(request: StaffRequest, brand: Brand) -> None:
    if not roles(request.user, brand) & CHANGERS:
        raise PermissionDenied


# -- performance


@require_GET
@login_required
def performance(request: StaffRequest) -> HttpResponseBase:
    """One brand's reports on one grain, with how each value was attributed."""
    brands = list(Brand.objects.for_user(request.user).order_by("name"))
    brand = next((b for b in brands if str(b.uuid) == request.GET.get("brand")), brands[0] if brands else None)
    if brand is None:
        return render(request, "retailers/performance.html", {"brand": None})
    days = next((int(d) for d, _ in SPANS if d == request.GET.get("days")), 28)
    rows = PerformanceMetric.objects.visible_to(request.user).filter(brand=brand)
    stores = list(Retailer.objects.filter(pk__in=rows.order_by().values("retailer")).order_by("name"))
    retailer = next((r for r in stores if r.slug == request.GET.get("retailer")), None)
    if retailer is not None:
        rows = rows.filter(retailer=retailer)
    context: dict[str, Any] = {
        "brand": brand,
        "brands": brands,
        "stores": stores,
        "retailer": retailer,
        "days": days,
        "spans": [(int(value), words) for value, words in SPANS],
    }
    found = services.performance(rows, days)
    if not found:
        return render(request, "retailers/performance.html", context)
    evidence = _evidence(found)
    context |= _in_one_currency(request, rows, found, brand)
    pictures = []
    for currency in sorted({row["currency"] for row in found["trend"]}):
        trend = [row for row in found["trend"] if row["currency"] == currency]
        picture = charts.spend_by_day(trend, currency, evidence)
        pictures.append(picture)
    chosen = request.GET.get("campaign")
    table = _products(request, rows, found, chosen) if chosen is not None else _campaigns(request, found)
    answer = table.answer()
    if answer is not None:
        return answer
    if chosen is not None:
        mine = rows.counted_once().filter(period_start__gte=found["since"])
        by_id = mine.filter(campaign_id=chosen)
        days_of = by_id if by_id.exists() else mine.filter(campaign_name=chosen)
        context["days_of"] = days_of.order_by("-period_start", "pk")[:60]
    context |= {**found, "evidence": evidence, "pictures": pictures, "table": table, "campaign": chosen}
    return pages.show(request, "retailers/performance.html", context, pictures)


def _in_one_currency(request: StaffRequest, rows: Any, found: dict[str, Any], brand: Brand) -> dict[str, Any]:
    """The spend in one currency where somebody asks for it, or why that cannot be said."""
    codes = sorted({row["currency"] for row in found["slices"] if row["currency"]} | {brand.currency})
    wanted = request.GET.get("in", "")
    context: dict[str, Any] = {"codes": codes, "wanted": wanted}
    if wanted in codes:
        try:
            context["converted"] = services.converted(rows, wanted, found["since"])
        except BadInput as error:
            context["no_rate"] = str(error)
    return context


def _evidence(found: dict[str, Any]) -> str:
    """Where a page's numbers come from, in one line."""
    facts = found["evidence"]
    grains = sorted({row["grain"].replace("_", " ") for row in found["slices"]})
    line = f"From {facts['files']} file{'s' if facts['files'] != 1 else ''}, {facts['mappings']} mapping version"
    line += (
        f"{'s' if facts['mappings'] != 1 else ''}, one grain each ({', '.join(grains)}), newest day {found['newest']}"
    )
    if facts["taken"]:
        line += f", taken {facts['taken']:%Y-%m-%d %H:%M} UTC"
    if facts["open"]:
        line += f"; {facts['open']:,} rows not final"
    return line + ("; spend partly assumed by a stated rule" if facts["assumed"] else "")


def _campaigns(request: StaffRequest, found: dict[str, Any]) -> pages.Table:
    def address(row: dict[str, Any]) -> str:
        query = request.GET.copy()
        query["campaign"] = row["campaign_id"] or row["campaign_name"]
        return f"?{query.urlencode()}"

    return pages.Table(
        request,
        found["campaigns"],
        title="Campaigns, most spend first",
        name="campaigns",
        columns=[
            pages.Column("name", "Campaign", href=address),
            pages.Column("retailer", "Retailer"),
            pages.Column("spend", "Spend", kind="money"),
            pages.Column("currency", "Currency"),
            pages.Column("change", "Against the days before", kind="money"),
            pages.Column("clicks", "Clicks"),
        ],
    )


def _products(request: StaffRequest, rows: Any, found: dict[str, Any], campaign: str) -> pages.Table:
    """What the product report of the same days says of one campaign: a grain of its own, never added to the rest."""
    mine = rows.at_grain("product").filter(period_start__gte=found["since"])
    by_id = mine.filter(campaign_id=campaign)
    products = (
        (by_id if by_id.exists() else mine.filter(campaign_name=campaign))
        .order_by()
        .values("product_id_type", "product_id", "gtin14", "currency")
        .annotate(spend_sum=Sum("spend"), click_sum=Sum("clicks"), impression_sum=Sum("impressions"))
        .order_by("-spend_sum", "product_id")
    )
    return pages.Table(
        request,
        list(products),
        title=f"Products of {campaign}, from the product report",
        name="products",
        empty="No product report was loaded for this campaign.",
        columns=[
            pages.Column("product_id", "Product"),
            pages.Column("product_id_type", "Kind of id"),
            pages.Column("gtin14", "GTIN"),
            pages.Column("spend_sum", "Spend", kind="money"),
            pages.Column("currency", "Currency"),
            pages.Column("click_sum", "Clicks"),
            pages.Column("impression_sum", "Impressions"),
        ],
    )


@require_GET
@login_required
def metric(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """Lineage of one value: file, row, mapping version, and what it said before."""
    row = get_object_or_404(
        PerformanceMetric.objects.visible_to(request.user).select_related("brand", "retailer", "load"), uuid=pk
    )
    outcomes = [{"words": services.attribution(vars(one)), "one": one} for one in row.outcomes.order_by("metric", "pk")]
    context = {"row": row, "outcomes": outcomes, "revisions": row.revisions.order_by("-extracted_at")}
    return render(request, "retailers/metric.html", context)


# -- feeds


@require_GET
@login_required
def feeds(request: StaffRequest) -> HttpResponseBase:
    """Each feed: how fresh, which days are missing, what was refused, what changed in its columns."""
    mine = FeedLoad.objects.visible_to(request.user)
    health = services.feed_health(mine, timezone.now().date())
    table = pages.Table(
        request,
        health,
        title="Feeds",
        name="feeds",
        empty="No report was loaded yet. Upload one: it is shown before anything is written.",
        columns=[
            pages.Column("report", "Report", href=lambda row: row["load"].get_absolute_url()),
            pages.Column("brand", "Brand"),
            pages.Column("retailer", "Retailer"),
            pages.Column("newest", "Newest day"),
            pages.Column("late", "Days old"),
            pages.Column("missing", "Missing days", value=_missing),
            pages.Column("refused", "Rows kept apart"),
            pages.Column("drift", "Columns changed"),
            pages.Column("rows", "Rows taken"),
            pages.Column("not_final", "Rows not final"),
            pages.Column("loads", "Files"),
        ],
    )
    answer = table.answer()
    if answer is not None:
        return answer
    by_day = (
        mine.finished()
        .annotate(day=TruncDate("created_at"))
        .order_by("day")
        .values("day")
        .annotate(accepted=Sum("rows_accepted"), refused=Sum("rows_quarantined"))
    )
    rows = [
        {"day": row["day"], "which": which, "rows": row[name]}
        for row in list(by_day)[-31:]
        for which, name in (("accepted", "accepted"), ("kept apart", "refused"))
    ]
    spent = services.spend_by_week(PerformanceMetric.objects.visible_to(request.user))
    pictures = [
        charts.spend_taken(part, currency, "Of the reports that count: one grain for each account and day.")
        for currency, part in spent.items()
    ]
    if rows:
        pictures.append(charts.loads_by_day(rows))
    waiting = QuarantinedRow.objects.visible_to(request.user).open().count()
    context = {"table": table, "pictures": pictures, "waiting": waiting}
    return pages.show(request, "retailers/feeds.html", context, pictures)


def _missing(row: dict[str, Any]) -> str:
    days = row["missing"]
    return f"{len(days)}: {', '.join(map(str, days[:3]))}{' ...' if len(days) > 3 else ''}" if days else ""


@require_http_methods(["GET", "POST"])
@login_required
def upload(request: StaffRequest) -> HttpResponseBase:
    """Choose a report; what it would become is shown before anything is written."""
    form = FeedForm(request.POST or None, request.FILES or None, user=request.user)
    if request.method != "POST" or not form.is_valid():
        return render(request, "retailers/upload.html", {"form": form}, status=200 if request.method == "GET" else 422)
    wish = form.cleaned_data
    _may_change(request, wish["brand"])
    name = Path(wish["file"].name).name[:240]
    try:
        path, digest = loads.keep_file(wish["brand"], wish["file"].chunks())
        chosen = wish["mapping"]
        text = ""
        if chosen == DRAFT:
            text = services.draft_mapping(Path(settings.MEDIA_ROOT) / path, name, wish["retailer"].network)
        elif chosen != catalogue.NAME:
            text = _text_of(request, chosen)
    except RmnError as error:
        form.add_error("file", str(error))
        return render(request, "retailers/upload.html", {"form": form}, status=422)
    kept = {
        "brand": str(wish["brand"].uuid),
        "retailer": str(wish["retailer"].uuid),
        "path": path,
        "digest": digest,
        "name": name,
        "mapping": "" if chosen == DRAFT else chosen,
        "as_of": (wish["as_of"] or timezone.now()).isoformat() if wish["as_of"] else None,
        "period": f"{wish['start']}:{wish['end']}" if wish["start"] else None,
        "repair": wish["repair"],
    }
    if chosen == catalogue.NAME:
        return _preview_catalogue(request, kept, wish["brand"], wish["retailer"])
    return _preview(request, kept, text)


def _text_of(request: StaffRequest, chosen: str) -> str:
    if mappings.NAME.match(chosen):
        return mappings.find(chosen).read_text(encoding="utf-8-sig")
    return get_object_or_404(FeedMapping.objects.visible_to(request.user), uuid=chosen).yaml


@require_POST
@login_required
def check_upload(request: StaffRequest) -> HttpResponseBase:
    """Look again under a corrected mapping, or load."""
    try:
        kept = signing.loads(request.POST.get("kept", ""), salt="feed", max_age=86_400)
    except signing.BadSignature:
        raise Http404 from None
    brand = get_object_or_404(Brand.objects.for_user(request.user), uuid=kept["brand"])
    retailer = get_object_or_404(Retailer.objects.visible_to(request.user), uuid=kept["retailer"])
    _may_change(request, brand)
    text = request.POST.get("text", "").replace("\r\n", "\n")[: mappings.MAX_MAPPING_BYTES]
    is_catalogue = kept["mapping"] == catalogue.NAME
    if is_catalogue:
        kept["repair"] = bool(request.POST.get("repair"))
    if request.POST.get("do") != "load":
        return _preview_catalogue(request, kept, brand, retailer) if is_catalogue else _preview(request, kept, text)
    mapping: FeedMapping | str = kept["mapping"]
    try:
        if is_catalogue:
            pass
        elif not mapping or text.strip() != _text_of(request, kept["mapping"]).replace("\r\n", "\n").strip():
            mapping = services.keep_mapping(brand=brand, retailer=retailer, text=text, by=request.user)
        elif not mappings.NAME.match(kept["mapping"]):
            mapping = get_object_or_404(FeedMapping.objects.visible_to(request.user), uuid=kept["mapping"])
        with (Path(settings.MEDIA_ROOT) / kept["path"]).open("rb") as file:
            run = services.request_feed_load(
                brand=brand,
                retailer=retailer,
                file_name=kept["name"],
                chunks=iter(lambda: file.read(1 << 20), b""),
                mapping=mapping,
                as_of=kept["as_of"],
                period=kept["period"],
                repair=kept["repair"],
                by=request.user,
            )
    except (RmnError, OSError) as error:
        if is_catalogue:
            return _preview_catalogue(request, kept, brand, retailer, str(error))
        return _preview(request, kept, text, str(error))
    return redirect(run.get_absolute_url())


def _preview(request: StaffRequest, kept: dict[str, Any], text: str, problem: str = "") -> HttpResponseBase:
    report: dict[str, Any] = {}
    marks = [line.strip() for line in text.splitlines() if mappings.FILL_IN in line]
    try:
        if not problem and not marks:
            report = services.look_at(
                Path(settings.MEDIA_ROOT) / kept["path"],
                kept["name"],
                text,
                as_of=datetime.fromisoformat(kept["as_of"]) if kept["as_of"] else None,
                period=kept["period"],
            )
    except BadInput as error:
        problem = str(error)
    samples = [
        {
            "number": sample["row_number"],
            "before": [(k, v) for k, v in sample["before"].items() if v not in (None, "")],
            "after": [(k, v) for k, v in sample["after"].items() if k not in ("outcomes", "row_key", "row_number")],
            "outcomes": [
                (o["metric"], services.attribution({k: v or "" for k, v in o.items()}), o["value"])
                for o in sample["after"]["outcomes"]
            ],
        }
        for sample in report.get("samples", [])
    ]
    context = {
        "kept": kept,
        "signed": signing.dumps(kept, salt="feed"),
        "text": text,
        "marks": marks,
        "problem": problem,
        "report": report,
        "samples": samples,
        "lint": [] if problem or marks else mappings.lint(mappings.parse(text)),
    }
    return render(request, "retailers/upload_check.html", context, status=422 if problem else 200)


def _preview_catalogue(
    request: StaffRequest, kept: dict[str, Any], brand: Brand, retailer: Retailer, problem: str = ""
) -> HttpResponseBase:
    """What a product file would change, before anything is written."""
    report: dict[str, Any] = {}
    try:
        if not problem:
            path = Path(settings.MEDIA_ROOT) / kept["path"]
            report = services.look_at_catalogue(
                path, kept["name"], brand=brand, retailer=retailer, repair=kept["repair"]
            )
    except (BadInput, OSError) as error:
        problem = str(error)
    samples = [
        {
            "number": sample["row_number"],
            "before": [(name, value) for name, value in sample["before"].items() if value],
            "after": [(name, value) for name, value in sample["after"].items() if value not in (None, "")],
        }
        for sample in report.get("samples", [])
    ]
    context = {
        "kept": kept,
        "signed": signing.dumps(kept, salt="feed"),
        "brand": brand,
        "problem": problem,
        "report": report,
        "samples": samples,
    }
    return render(request, "retailers/catalogue_check.html", context, status=422 if problem else 200)


# -- quarantine


@require_GET
@login_required
def quarantine(request: StaffRequest) -> HttpResponseBase:
    """Rows that were refused: by file and reason, to be answered many at a time, and one by one."""
    rows = QuarantinedRow.objects.visible_to(request.user).select_related("brand", "retailer", "load")
    groups = (
        rows.open()
        .order_by("-load__created_at", "rule", "column")
        .values("load", "load__file_name", "load__mapping_version", "brand__name", "rule", "column", "load__created_at")
        .annotate(rows=Count("pk"), example=Min("message"))[:60]
    )
    rules = [(name, name) for name in rows.order_by("rule").values_list("rule", flat=True).distinct()[:60]]
    table = pages.Table(
        request,
        rows,
        title="Rows kept apart",
        name="quarantine",
        order="-created_at",
        search=["message", "raw", "file_sha256"],
        filters=[
            pages.Filter("status", "State", QuarantinedRow.Status.choices),
            pages.Filter("rule", "Reason", rules),
        ],
        columns=[
            pages.Column(
                "file", "File", value=lambda row: row.load.file_name, href=lambda row: row.load.get_absolute_url()
            ),
            pages.Column("row_number", "Row", sort="row_number", value=lambda row: str(row.row_number)),
            pages.Column("rule", "Reason", sort="rule"),
            pages.Column("column", "Column"),
            pages.Column("message", "What is wrong"),
            pages.Column("raw", "The row as it came", value=_raw),
            pages.Column("status", "State"),
        ],
        empty="Nothing was refused.",
    )
    answer = table.answer()
    if answer is not None:
        return answer
    return render(request, "retailers/quarantine.html", {"table": table, "groups": list(groups)})


def _raw(row: QuarantinedRow) -> str:
    try:
        cells = json.loads(row.raw)
    except ValueError:
        return row.raw[:200]
    text = ", ".join(f"{name}: {value}" for name, value in cells.items() if value not in (None, ""))
    return text if len(text) <= 200 else f"{text[:200]} ..."


@require_POST
@login_required
def answer_quarantine(request: StaffRequest) -> HttpResponseBase:
    """Read the chosen files again with the mappings of now, or dismiss the chosen reasons."""
    chosen = [one.split("|") for one in request.POST.getlist("group")]
    mine = QuarantinedRow.objects.visible_to(request.user).open()
    files: dict[str, FeedLoad] = {}
    dismissed = 0
    for group in chosen:
        if len(group) != 3:
            raise Http404
        load, rule, column = group
        rows = mine.filter(load=_uuid(load), rule=rule, column=column)
        first = rows.select_related("load__brand", "load__retailer", "load__mapping").first()
        if first is None:
            continue
        _may_change(request, first.load.brand)
        if request.POST.get("do") == "dismiss":
            dismissed += rows.update(status=QuarantinedRow.Status.DISMISSED)
        else:
            files[load] = first.load
    for one in files.values():
        services.request_replay(load=one, mapping=services.newest_mapping(one), by=request.user)
    if files:
        messages.success(request, f"{len(files)} files are read again with the mappings of now.")
    elif dismissed:
        messages.success(request, f"{dismissed} rows dismissed; they stay in the log.")
    else:
        messages.info(request, "Choose at least one line.")
    return redirect(reverse("quarantine"))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def asked_brand(request: StaffRequest) -> tuple[list[Brand], Brand | None]:
    """The person's brands by name, and the one the address asks for, else the first; any other is as unknown as none."""
    brands = list(Brand.objects.for_user(request.user).order_by("name"))
    asked = request.GET.get("brand", "")
    if asked and asked not in {brand.slug for brand in brands}:
        raise Http404
    return brands, next((one for one in brands if one.slug == asked), brands[0] if brands else None)


# -- the audit chain

SHORT_CHAIN = 5_000  # lines that are verified while the page is made; a longer chain when asked


@require_GET
@login_required
def audit_chain(request: StaffRequest) -> HttpResponseBase:
    """What was done for one of the person's brands, whether the chain is whole, and its signed head to take along."""
    brands, brand = asked_brand(request)
    if brand is None:
        return render(request, "retailers/audit.html", {"brand": None})
    if "head" in request.GET:
        answer = JsonResponse(audit.heads(brand), json_dumps_params={"indent": 1, "ensure_ascii": False})
        answer["Content-Disposition"] = f'attachment; filename="audit-head-{brand.slug}.json"'
        return answer
    lines = AuditEntry.objects.visible_to(request.user).filter(brand=brand)
    actions = lines.order_by("action").values_list("action", flat=True).distinct()
    table = pages.Table(
        request,
        lines,
        title=f"Audit chain of {brand}",
        name="audit",
        order="-sequence",
        columns=[
            pages.Column("sequence", "Line", sort="sequence", value=lambda row: str(row.sequence)),
            pages.Column("at", "When", sort="at"),
            pages.Column("actor", "Who", sort="actor"),
            pages.Column("action", "What", sort="action"),
            pages.Column("subject_type", "On", value=lambda row: row.subject_type.rpartition(".")[2]),
            pages.Column("subject_id", "Which"),
            pages.Column("payload", "Details", value=lambda row: json.dumps(row.payload, ensure_ascii=False)[:300]),
            pages.Column("hash", "Hash"),
        ],
        search=["actor", "subject_id"],
        filters=[pages.Filter("action", "What", [(one, one) for one in actions])],
        empty="No line of this brand's chain matches.",
    )
    exported = table.answer()
    if exported is not None:
        return exported
    head = AuditHead.objects.filter(brand=brand).first()
    verified = None
    if head is None or head.sequence <= SHORT_CHAIN or "verify" in request.GET:
        verified = audit.verify(head.chain if head else brand.slug)
    context = {"brand": brand, "brands": brands, "table": table, "head": head, "verified": verified}
    return render(request, "retailers/audit.html", context)
