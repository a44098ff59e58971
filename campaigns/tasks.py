"""Work on campaigns that outlives a request: curves fitted, budgets split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import structlog
from celery import shared_task
from django.conf import settings
from django.db import transaction
from django.db.models import Max, Min
from django.utils import timezone

from campaigns import history
from campaigns.domain import fitting, planning
from campaigns.domain import problem as problems
from campaigns.domain.experiments import analysis as analyses
from campaigns.domain.experiments import closing, words, worth
from campaigns.domain.experiments import design as designs
from campaigns.domain.experiments import panel as panels
from campaigns.models import BudgetPlan, Campaign, CurveFit, Experiment, Recommendation, ResponseCurve, Task
from retailers import audit
from retailers.models import Brand, PerformanceMetric, Retailer
from rmn.lib.errors import BadInput
from rmn.lib.tasks import TenantTask

log = structlog.get_logger(__name__)

TEST_DAYS = 28  # how long a test of an arm is taken to last when its worth is weighed
DESIGNED_FROM_DATA = ("geo", "switchback")
DESIGNED_BY_NUMBERS = ("ab", "audience")  # what they need is in the specification

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
    tests, named = lift_tests(run, past.arms)
    found = fitting.fit(past.arms, tests, draws=draws, seed=int(run.config.get("seed", 1)))
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
                period_days=history.WEEK,
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
        "tests": [
            {**used, "experiment": named[tests.index(test)]} for one in found for test, used in _used(one, tests)
        ],
        "warnings": told["warnings"],
        "adstock": told["adstock"],
        "attributions": past.attributions,
        "names": past.names,
        "spend_assumed": sorted(past.assumed),
        "window": [str(past.first), str(past.last)],
    }
    run.save(update_fields=["result"])


def lift_tests(run: CurveFit, arms: Sequence[fitting.History]) -> tuple[list[fitting.LiftTest], list[str]]:
    """What the brand's analysed tests say about these arms, and which test said it."""
    tests, named = [], []
    rows = (
        Experiment.objects.analysed()
        .filter(brand=run.brand)
        .select_related("campaign__retailer")
        .order_by("created_at")
    )
    for row in rows:
        told = row.result.get("calibration") or {}
        arm = next((one for one in arms if one.arm == told.get("arm")), None)
        if arm is None or "lift" not in told:
            continue
        spend = float(arm.spend_D.mean())
        after = max(spend + told["spend_change"], 0.0)
        if after != spend:
            tests.append(fitting.LiftTest(arm.arm, spend, after, told["lift"], told["se"]))
            named.append(str(row.pk))
    return tests, named


def _used(found: fitting.Fit, tests: Sequence[fitting.LiftTest]) -> list[tuple[fitting.LiftTest, Mapping[str, Any]]]:
    return list(zip([test for test in tests if test.arm == found.arm], found.tests, strict=True))


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
    if found["status"] != "infeasible":
        run.report(0.6, "Asking which test would move the plan most")
        found["next_tests"] = next_tests(run, found)
    run.plan = found
    run.even_split = split["objective"] if split else None
    run.state = BudgetPlan.State.PROPOSED if found["status"] != "infeasible" else BudgetPlan.State.DRAFT
    run.save(update_fields=["plan", "even_split", "state"])
    if run.state == BudgetPlan.State.PROPOSED:
        offer(run)


@shared_task
def plan_again() -> None:
    """Nightly: every approved plan that runs is split anew over the brand's newest curves and readiness."""
    today = timezone.localdate()
    for key, brand in BudgetPlan.objects.running_on(today).values_list("pk", "brand_id"):
        plan_one_again.delay(str(key), tenant=str(brand))


@shared_task(base=TenantTask)
def plan_one_again(plan_id: str) -> None:
    """Propose what is left of an approved plan anew; once a day, and only where the proposal would differ."""
    plan = BudgetPlan.objects.select_related("brand", "retailer").get(pk=plan_id)
    run = again(plan, timezone.localdate())
    if run is not None:
        optimize.delay(str(run.pk), tenant=run.tenant)


def again(plan: BudgetPlan, today: date) -> BudgetPlan | None:
    """A new wish for the rest of a plan's money and days; None where nothing is left or it stands already."""
    assert plan.period_start is not None  # noqa: S101  # running_on asked for both days
    assert plan.period_end is not None  # noqa: S101
    seen = history.totals(plan.brand, plan.retailer, plan.period_start, today - timedelta(days=1))
    left = float(plan.total_budget) - sum(seen.spend.get(row["id"], 0.0) for row in plan.allocations)
    if left <= 0 or today >= plan.period_end:
        return None
    try:
        problem, assumed = history.problem_from_curves(
            brand=plan.brand,
            retailer=plan.retailer,
            total_budget=round(left, 2),
            start=today,
            end=plan.period_end,
            groups=plan.problem.get("groups") or (),
            spend_all=bool(plan.problem.get("spend_all")),
        )
        problems.read(problem)
    except BadInput as error:  # no curves any more, or a group whose arms have gone: a person has to look
        log.warning("plan_not_made_again", plan=str(plan.pk), cause=str(error))
        return None
    return BudgetPlan.objects.follow_up(plan, problem, left, today, assumed=assumed)


def next_tests(run: BudgetPlan, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which arm's test would add most to this plan for its cost, from the draws of the brand's current curves."""
    own = {arm["id"]: arm["curve"] for arm in run.problem["arms"]}
    drawn = {}
    for row in ResponseCurve.objects.current().filter(brand=run.brand, arm__in=list(own)):
        curve = own[row.arm]
        if row.draws and row.scale > 0 and row.half > 0 and row.kind == curve["kind"] == "michaelis_menten":
            # the plan's period is longer than the curve's: scale and half grow with it
            grow = [curve["scale"] / row.scale, curve["half"] / row.half]
            drawn[row.arm] = [[a * grow[0], b * grow[1]] for a, b in row.draws]
    length = history.days(run.period_start, run.period_end)
    spend = {row["id"]: float(row["spend"]) for row in plan["allocations"]}
    return worth.rank(run.problem, spend, drawn, part=min(TEST_DAYS / length, 1.0))


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


# -- experiments


@shared_task(base=TenantTask)
def work_on_experiment(run_id: str) -> None:
    """Design a test, or read one that ran: what its row asks for."""
    run = Experiment.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        work = run.config.get("work")
        if work in ("analyse", "look"):
            analyse_experiment(run, final=work == "analyse")
        else:
            design_experiment(run)


def design_experiment(run: Experiment) -> None:
    """Design the test, and write down how its data will be read."""
    if run.kind in DESIGNED_FROM_DATA or run.kind in DESIGNED_BY_NUMBERS:
        run.report(0.05, "Reading the past")
        frame = panel_of(run) if run.kind in DESIGNED_FROM_DATA else None
        if frame is not None:
            run.panel = {**run.panel, **_shape(frame, run.spec)}
        found = designs.design(
            run.spec, frame=frame, progress=lambda done, of, what: run.report(0.1 + 0.85 * done / of, f"Trying {what}")
        )
        run.design = found
    run.analysis_spec = {**analysis_of(run), **run.analysis_spec}
    watched = run.analysis_spec.get("monitor")
    if isinstance(watched, dict) and run.kind == "geo":
        watched.setdefault("duration", run.spec.get("duration"))
        analyses.looks_of(watched, float(run.analysis_spec.get("alpha", 0.1)))  # a rule that makes no sense is told now
    run.state = Experiment.State.DESIGNED
    run.save(update_fields=["design", "analysis_spec", "panel", "state"])


def analysis_of(run: Experiment) -> dict[str, Any]:
    """How the test will be read if nobody says otherwise: by the method its design was tried with."""
    columns = {name: run.spec[name] for name in ("unit", "time", "outcome") if name in run.spec}
    own = run.design.get("analysis")
    if not own and run.kind == "geo" and run.design.get("best"):
        own = {"method": "synthetic_control", "fixed_effects": True, "treated_units": run.design["best"]["units"]}
    given = {name: run.spec[name] for name in ("alpha", "tails") if name in run.spec}
    return {"kind": run.kind, **columns, **given, **(own or {})}


def analyse_experiment(run: Experiment, *, final: bool = True) -> None:
    """Read the test as it was registered; ``final`` ends it, else it was a look while it runs.

    Raises:
        BadInput: the plan is not the registered one, or the data do not hold the test.
    """
    if run.registration_hash() != run.registered_hash:
        raise BadInput(f"{run}: its plan is not the one that was registered; nothing is read from it")
    run.report(0.1, "Reading the data")
    frame = panel_of(run)
    spec = dict(run.analysis_spec)
    if run.kind not in DESIGNED_BY_NUMBERS and run.start_date is not None:
        spec.setdefault("start", str(run.start_date))
        if run.end_date is not None:
            spec.setdefault("end", str(run.end_date))
    run.report(0.3, f"Comparing by {spec.get('method', 'auto')}")
    found = analyses.analyze(spec, frame=frame)
    run.result = {**found, "summary": words.summary(found)}
    if final and run.kind == "geo":
        run.result["calibration"] = calibration_of(run, found, frame)
    run.panel = {**run.panel, "analysed": _shape(frame, run.analysis_spec)}
    if final:
        run.state = Experiment.State.ANALYSED
    run.save(update_fields=["result", "panel", "state"])
    told = {"registered": run.registered_hash, "verdict": found["verdict"], "p_value": found["p_value"]}
    watched = found["diagnostics"].get("monitoring")
    audit.record(
        brand=run.brand,
        actor="measurement",
        action="experiment analysed" if final else "experiment looked at",
        subject=run,
        payload={**told, "decision": watched["decision"]} if watched else told,
    )


def calibration_of(run: Experiment, found: Mapping[str, Any], frame: pl.DataFrame) -> dict[str, Any]:
    """What the test tells the next fit of curves, and of which arm; or why nothing."""
    asked = run.analysis_spec.get("calibrates") or {}
    arm = asked.get("arm")
    if not arm and run.campaign is not None:
        curves = ResponseCurve.objects.current().filter(brand=run.brand, campaign=run.campaign)
        arm = curves.values_list("arm", flat=True).first()
    if not arm:
        return {"reason": "no arm is named: give the test a campaign with a curve, or calibrates.arm"}
    step = _shape(frame, run.analysis_spec).get("step_days") or asked.get("step_days")
    if not step:
        return {"arm": arm, "reason": "the periods are no dates: give calibrates.step_days"}
    return {"arm": arm, **closing.lift_test(found, asked, step_days=float(step))}


def panel_of(run: Experiment) -> pl.DataFrame:
    """The data a test names: a file that was handed in, else the retailer's own sales by store.

    Raises:
        BadInput: there are none.
    """
    if run.panel.get("file"):
        path = Path(settings.MEDIA_ROOT) / run.panel["file"]
        if not path.is_file():
            raise BadInput(f"{run.panel.get('name', 'the file')}: it is no longer kept here; hand it in again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != run.panel["sha256"]:
            raise BadInput(f"{run.panel.get('name', 'the file')}: it is not the file that was handed in")
        return panels.table(path)
    if run.retailer is None:
        raise BadInput("data: hand in a table, or name the retailer whose stores are meant")
    rows = history.store_panel(run.brand, run.retailer)
    if not rows:
        raise BadInput(f"{run.retailer} has no store sales loaded: load them, or hand in a table")
    frame = pl.DataFrame(rows)
    weeks = frame["time"].n_unique()
    steady = frame.group_by("unit").agg(pl.len(), pl.col("outcome").min().alias("least"))
    steady = steady.filter(pl.col("len") == weeks, pl.col("least") > 0)
    return frame.join(steady.select("unit"), on="unit", how="semi").sort("unit", "time")


def _shape(frame: pl.DataFrame, spec: Mapping[str, Any]) -> dict[str, Any]:
    """How large the data were, and the days from one period to the next."""
    told: dict[str, Any] = {"rows": frame.height}
    by_name = {name.casefold(): name for name in frame.columns}
    unit, time = (by_name.get(str(spec.get(name, name)).casefold()) for name in ("unit", "time"))
    if unit:
        told["units"] = frame[unit].n_unique()
    if time:
        times = sorted({str(value) for value in frame[time].to_list()})
        told |= {"periods": len(times), "first": times[0], "last": times[-1]}
        try:
            dates = [date.fromisoformat(text[:10]) for text in times]
        except ValueError:
            return told
        if len(dates) > 1:
            told["step_days"] = min((b - a).days for a, b in pairwise(dates))
    return told
