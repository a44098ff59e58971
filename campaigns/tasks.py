"""Work on campaigns that outlives a request: curves fitted, budgets split."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from typing import Any

from celery import shared_task
from django.db import transaction
from django.db.models import Max, Min

from campaigns import history
from campaigns.domain import fitting, planning
from campaigns.models import BudgetPlan, Campaign, CurveFit, Recommendation, ResponseCurve, Task
from retailers.models import Brand, PerformanceMetric, Retailer
from rmn.lib.errors import BadInput
from rmn.lib.tasks import TenantTask

WEEK = 7

# -- campaigns


@shared_task(base=TenantTask)
def link_campaigns(brand_id: int) -> dict[str, int]:
    """A campaign for every network campaign that the metrics name; dates widen, nothing else changes."""
    return link(Brand.objects.get(pk=brand_id))


@shared_task
def link_all_campaigns() -> None:
    """Nightly: one message per brand."""
    for key in Brand.objects.filter(is_active=True).values_list("pk", flat=True):
        link_campaigns.delay(key, tenant=str(key))


def link(brand: Brand) -> dict[str, int]:
    rows = (
        PerformanceMetric.objects.filter(brand=brand)
        .exclude(campaign_id="")
        .order_by()
        .values("retailer", "account_id", "campaign_id")
        .annotate(
            name=Max("campaign_name"),
            tactic=Max("ad_product"),
            currency=Max("currency"),
            first=Min("period_start"),
            last=Max("period_end"),
        )
    )
    made = changed = 0
    for row in rows:
        known = Campaign.objects.filter(
            brand=brand,
            retailer_id=row["retailer"],
            account_id=row["account_id"],
            network_campaign_id=row["campaign_id"],
        ).first()
        if known is None:
            _make(brand, row)
            made += 1
        elif (known.start_date or row["first"]) > row["first"] or (known.end_date or row["last"]) < row["last"]:
            known.start_date = min(known.start_date or row["first"], row["first"])
            known.end_date = max(known.end_date or row["last"], row["last"])
            known.save(update_fields=["start_date", "end_date"])
            changed += 1
    return {"made": made, "changed": changed}


def _make(brand: Brand, row: dict[str, Any]) -> Campaign:
    name = row["name"] or row["campaign_id"]
    taken = Campaign.objects.filter(brand=brand, retailer_id=row["retailer"], name=name).exists()
    return Campaign.objects.create(
        brand=brand,
        retailer_id=row["retailer"],
        name=f"{name} ({row['campaign_id']})" if taken else name,
        account_id=row["account_id"],
        network_campaign_id=row["campaign_id"],
        tactic=row["tactic"],
        currency=row["currency"] or brand.currency,
        start_date=row["first"],
        end_date=row["last"],
        status=Campaign.Status.LIVE,
    )


# -- curves


@shared_task(base=TenantTask)
def fit_curves(run_id: str) -> None:
    """Fit a response curve to each arm of a brand's past, and make them the current ones."""
    run = CurveFit.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        fit(run)


def fit(run: CurveFit) -> None:
    assert run.brand is not None  # noqa: S101  # curves always belong to a brand
    run.report(0.05, "Reading the metrics")
    past = history.read(run.brand, run.retailer, run.window_start, run.window_end)
    if not past.arms:
        raise BadInput(
            f"{run.brand}: no metrics with spend and a campaign in this window; load a feed first, or widen the window"
        )
    if len(past.currencies) > 1:
        raise BadInput(
            f"{run.brand}: metrics in {', '.join(sorted(past.currencies))}; fit one retailer, or one currency, at a time"
        )
    run.report(0.3, f"Fitting {len(past.arms)} arms")
    draws = int(run.config.get("draws", 200))
    found = fitting.fit(past.arms, draws=draws, seed=int(run.config.get("seed", 1)))
    run.report(0.9, "Keeping the curves")
    told = fitting.as_json(found, past.arms)
    by_arm = {one.arm: one for one in past.arms}
    campaigns = {
        f"{c.retailer.slug}/{c.network_campaign_id}": c
        for c in Campaign.objects.filter(brand=run.brand).select_related("retailer")
    }
    shops = {shop.slug: shop for shop in Retailer.objects.all()}
    rows = []
    for one, arm in zip(found, told["arms"], strict=True):
        attributes = by_arm[one.arm].attributes
        rows.append(
            ResponseCurve(
                brand=run.brand,
                retailer=shops[attributes["retailer"]],
                fit=run,
                campaign=campaigns.get(f"{attributes['retailer']}/{attributes['campaign']}"),
                arm=one.arm,
                tactic=attributes.get("tactic", ""),
                kind=arm["curve"]["kind"],
                scale=one.scale,
                half=one.half,
                std={"scale": arm["std"]["scale"], "spend_mean": one.spend_mean},
                draws=[[d["scale"], d["half"]] for d in told["draws"][one.arm]],
                currency=next(iter(past.currencies), ""),
                period_days=WEEK,
                spend_seen_max=one.spend_max,
                evidence=one.evidence,
                spend_assumed=one.arm in past.assumed,
                warnings=list(one.warnings),
            )
        )
    with transaction.atomic():
        old = ResponseCurve.objects.filter(brand=run.brand, is_current=True)
        (old if run.retailer is None else old.filter(retailer=run.retailer)).update(is_current=False)
        ResponseCurve.objects.bulk_create(rows, batch_size=100)
    run.result = {
        "arms": len(rows),
        "intervals": told["intervals"],
        "fits": told["fits"],
        "warnings": told["warnings"],
        "adstock": told["adstock"],
        "attributions": past.attributions,
        "names": past.names,
        "spend_assumed": sorted(past.assumed),
        "window": [str(past.first), str(past.last)],
    }
    run.save(update_fields=["result"])


# -- budgets


@shared_task(base=TenantTask)
def optimize(run_id: str) -> None:
    """Split the plan's budget, and propose it."""
    run = BudgetPlan.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        propose(run)


def propose(run: BudgetPlan) -> None:
    run.report(0.1, f"Allocating {run.total_budget:,.0f} {run.currency} over {len(run.problem.get('arms', []))} arms")
    found = planning.solve(run.problem)
    split = found["even_split"]
    run.plan = found
    run.even_split = split["objective"] if split else None
    run.state = BudgetPlan.State.PROPOSED if found["status"] != "infeasible" else BudgetPlan.State.DRAFT
    run.save(update_fields=["plan", "even_split", "state"])
    if run.state == BudgetPlan.State.PROPOSED:
        offer(run)


def offer(run: BudgetPlan) -> Recommendation:
    """The plan as the thing people judge; one for each plan."""
    problem = json.dumps(run.problem, sort_keys=True).encode()
    row, _ = Recommendation.objects.get_or_create(
        brand=run.brand,
        plan=run,
        defaults={
            "retailer": run.retailer,
            "task": Task.BUDGETING,
            "title": run.name,
            "text": run.plan["explanation"],
            "prompt": f"Split {run.total_budget:,.0f} {run.currency} over {len(run.allocations)} arms.",
            "content": {
                "allocations": run.allocations,
                "objective": run.plan["objective"],
                "upper_bound": run.plan["upper_bound"],
                "spend_assumed": run.spend_assumed,
            },
            "source": Recommendation.Source.OPTIMIZER,
            "model": f"allocate_budget/{run.plan['method']}",
            "prompt_cluster": hashlib.sha256(problem).hexdigest(),
            "made_by": run.requested_by,
        },
    )
    return row


def days(start: date | None, end: date | None) -> int:
    """Length of a plan, both ends inclusive; a quarter where no dates are given."""
    return (end - start).days + 1 if start and end else 13 * WEEK
