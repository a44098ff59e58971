"""What people and programs may ask of campaigns: curves, budgets, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from django.db import transaction

from campaigns.domain import optimizer, planning
from campaigns.domain import problem as problems
from campaigns.models import BudgetPlan, Campaign, CurveFit, ResponseCurve
from campaigns.tasks import days
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput

# -- curves


def wish_for_fit(
    *,
    brand: Brand,
    retailer: Retailer | None = None,
    start: date | None = None,
    end: date | None = None,
    by: Any = None,
    **config: Any,
) -> CurveFit:
    """Record a fit of a brand's curves; nothing is queued yet."""
    return CurveFit.objects.create(
        brand=brand, retailer=retailer, window_start=start, window_end=end, requested_by=by, config=config
    )


@transaction.atomic
def request_fit(**wish: Any) -> CurveFit:
    run = wish_for_fit(**wish)
    run.enqueue()
    return run


# -- budgets


def problem_from_curves(
    *,
    brand: Brand,
    total_budget: Decimal | float,
    retailer: Retailer | None = None,
    start: date | None = None,
    end: date | None = None,
    groups: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    **more: Any,
) -> tuple[dict[str, Any], bool]:
    """The budget problem of the brand's current curves, and whether any of their spend is assumed.

    A campaign's own constraints (min, max, fixed, max_change per plan period) are kept; ``limits`` by
    arm override them.

    Raises:
        BadInput: no curves, or curves in several currencies.
    """
    curves = ResponseCurve.objects.current().filter(brand=brand).select_related("retailer", "campaign")
    if retailer is not None:
        curves = curves.filter(retailer=retailer)
    rows = list(curves)
    if not rows:
        raise BadInput(f"{brand}: no response curves yet; fit them first (they need loaded feeds with spend and sales)")
    currencies = {row.currency for row in rows}
    if len(currencies) > 1:
        raise BadInput(
            f"{brand}: curves in {', '.join(sorted(currencies))}; name one retailer, so that one currency is left"
        )
    own: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.campaign is not None:
            own[row.arm] = {**row.campaign.constraints}
            if row.campaign.status == Campaign.Status.ARCHIVED:
                own[row.arm]["available"] = False
    for arm, given in (limits or {}).items():
        own[arm] = {**own.get(arm, {}), **given}
    given = planning.problem_of(
        [_arm(row) for row in rows],
        total_budget=float(total_budget),
        days=days(start, end),
        currency=currencies.pop(),
        groups=groups,
        limits=own,
        **more,
    )
    return given, any(row.spend_assumed for row in rows)


def _arm(row: ResponseCurve) -> dict[str, Any]:
    return {
        "id": row.arm,
        "retailer": row.retailer.slug,
        "campaign": row.campaign.network_campaign_id if row.campaign else None,
        "tactic": row.tactic or None,
        "kind": row.kind,
        "scale": row.scale,
        "half": row.half,
        "exponent": row.exponent,
        "points": row.points,
        "std": {"scale": row.std["scale"]} if row.std.get("scale") else None,
        "last": row.std.get("spend_mean"),
        "seen": row.spend_seen_max,
        "period_days": row.period_days,
        "evidence": row.evidence,
    }


def wish_for_plan(
    *,
    brand: Brand,
    name: str,
    problem: Mapping[str, Any],
    retailer: Retailer | None = None,
    start: date | None = None,
    end: date | None = None,
    spend_assumed: bool = False,
    by: Any = None,
) -> BudgetPlan:
    """Record a wish for a plan; the problem is checked now, so that a mistake is told at once.

    Raises:
        BadInput: the problem is malformed.
    """
    checked = problems.read(problem)
    return BudgetPlan.objects.create(
        brand=brand,
        retailer=retailer,
        name=name[:160],
        total_budget=Decimal(str(checked.total_budget)),
        currency=checked.currency,
        period_start=start,
        period_end=end,
        problem=dict(problem),
        spend_assumed=spend_assumed,
        requested_by=by,
    )


@transaction.atomic
def request_plan(**wish: Any) -> BudgetPlan:
    run = wish_for_plan(**wish)
    run.enqueue()
    return run


def request_plan_as_wished(
    *,
    brand: Brand,
    name: str,
    by: Any,
    retailer: Retailer | None = None,
    problem: Mapping[str, Any] | None = None,
    total_budget: Decimal | float = 0,
    period_start: date | None = None,
    period_end: date | None = None,
    **limits: Any,
) -> BudgetPlan:
    """A plan over a whole problem where one is given, else over the brand's fitted curves."""
    assumed = False
    if problem is None:
        problem, assumed = problem_from_curves(
            brand=brand, retailer=retailer, total_budget=total_budget, start=period_start, end=period_end, **limits
        )
    return request_plan(
        brand=brand,
        retailer=retailer,
        name=name,
        problem=problem,
        start=period_start,
        end=period_end,
        spend_assumed=assumed,
        by=by,
    )


def what_if(plan: BudgetPlan, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """The plan's problem under other budgets, at once: solving takes milliseconds."""
    return optimizer.what_if(problems.read(plan.problem), budgets)
