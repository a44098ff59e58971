"""What people and programs may ask of campaigns: curves, budgets, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from campaigns import history, tasks
from campaigns.domain import changes, optimizer, pacing
from campaigns.domain import problem as problems
from campaigns.domain.experiments import design
from campaigns.domain.experiments.analysis import METHODS
from campaigns.history import problem_from_curves as problem_from_curves  # offered to the doors
from campaigns.models import BudgetPlan, Campaign, CurveFit, Experiment, ResponseCurve
from retailers import audit
from retailers.loads import keep_file
from retailers.models import AuditEntry, Brand, Retailer, roles
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


def names_of(brand: Brand) -> dict[str, str]:
    """What people call the arms of a brand's newest fit."""
    fit = CurveFit.objects.filter(brand=brand, status=CurveFit.Status.SUCCEEDED).first()
    return dict(fit.result.get("names", {})) if fit else {}


def changes_of(plan: BudgetPlan) -> list[changes.Change]:
    """The plan's change set against the budgets that stand at the networks, else against last period's spend."""
    length = history.days(plan.period_start, plan.period_end)
    curves = ResponseCurve.objects.current().filter(brand=plan.brand).exclude(campaign=None).select_related("campaign")
    budgets = {}
    for row in curves:
        assert row.campaign is not None  # noqa: S101
        if row.campaign.budget_per_day is not None:
            budgets[row.arm] = float(row.campaign.budget_per_day) * length
    return changes.change_set(plan.problem, plan.allocations, days=length, names=names_of(plan.brand), budgets=budgets)


def pacing_of(plan: BudgetPlan) -> tuple[list[pacing.Pace], date | None]:
    """Spend to date against the plan, and the last day that reports cover; nothing for a plan without days."""
    if plan.period_start is None or plan.period_end is None or not plan.allocations:
        return [], None
    seen = history.totals(plan.brand, plan.retailer, plan.period_start, plan.period_end)
    if seen.last is None:
        return [], None
    last = min(seen.last, plan.period_end)
    names = names_of(plan.brand)
    return pacing.pace(
        plan.allocations, seen.spend, start=plan.period_start, end=plan.period_end, seen_to=last, names=names
    ), last


def compared(one: BudgetPlan, other: BudgetPlan) -> dict[str, Any]:
    """Two plans beside each other: what each is worth, and each arm's spend in both, the largest move first."""
    names = names_of(one.brand)
    first, second = ({row["id"]: row for row in plan.allocations} for plan in (one, other))
    rows = []
    for arm in dict.fromkeys([*first, *second]):
        a, b = first.get(arm, {}), second.get(arm, {})
        spends = float(a.get("spend", 0.0)), float(b.get("spend", 0.0))
        rows.append(
            {
                "id": arm,
                "arm": names.get(arm, arm),
                "first": spends[0],
                "second": spends[1],
                "difference": spends[1] - spends[0],
                "sales": float(b.get("expected_sales", 0.0)) - float(a.get("expected_sales", 0.0)),
                "held_first": a.get("binding") or "",
                "held_second": b.get("binding") or "",
            }
        )
    return {
        "plans": [str(one.pk), str(other.pk)],
        "budget": [float(one.total_budget), float(other.total_budget)],
        "objective": [one.plan.get("objective"), other.plan.get("objective")],
        "upper_bound": [one.plan.get("upper_bound"), other.plan.get("upper_bound")],
        "price": [(plan.plan.get("prices") or {}).get("budget") for plan in (one, other)],
        "arms": sorted(rows, key=lambda row: -abs(row["difference"])),
    }


def sketch(plan: BudgetPlan, *, budget: float, min_roas: float = 0.0) -> dict[str, Any]:
    """The plan's problem with another budget and another least return, solved at once.

    Raises:
        BadInput: a number is negative or not finite.
    """
    problem = {**plan.problem, "total_budget": budget}
    if min_roas:
        problem["min_roas"] = min_roas
    found = optimizer.solve({**problem, "time_limit_s": 3.0})
    before = {row["id"]: float(row["spend"]) for row in plan.allocations}
    names = names_of(plan.brand)
    moves = [
        {
            "arm": names.get(row["id"], row["id"]),
            "spend": row["spend"],
            "move": row["spend"] - before.get(row["id"], 0.0),
        }
        for row in found["allocations"]
    ]
    found["moves"] = sorted(moves, key=lambda row: -abs(row["move"]))[:6]
    return found


# -- experiments

DECIDERS = {"analyst", "ops"}
MOST_TABLE_BYTES = 20 * 2**20
MOVES = {  # what a person may do with a test: from which states
    "register": (Experiment.State.DESIGNED,),
    "approve": (Experiment.State.DESIGNED,),
    "start": (Experiment.State.APPROVED,),
    "look": (Experiment.State.RUNNING,),
    "analyse": (Experiment.State.RUNNING,),
    "stop": (Experiment.State.APPROVED, Experiment.State.RUNNING),
}


def wish_for_experiment(
    *,
    brand: Brand,
    name: str,
    spec: Mapping[str, Any],
    retailer: Retailer | None = None,
    campaign: Campaign | None = None,
    hypothesis: str = "",
    analysis_spec: Mapping[str, Any] | None = None,
    table: str = "",
    by: Any = None,
) -> Experiment:
    """Record the wish for a test, designed on the retailer's own past or on a table that is handed in; nothing is queued yet.

    Args:
        spec: SPEC design of CONTRACTS section 4, without ``data``.
        analysis_spec: how the data will be read; by the design's own method where absent.
        table: a CSV as text: units, periods and outcome.

    Raises:
        BadInput: the kind is unknown, or a path stands in the specification.
    """
    kind = spec.get("kind")
    if kind not in METHODS:
        raise BadInput(f"spec.kind is {kind!r}: one of {', '.join(METHODS)}")
    if "data" in spec or "data" in (analysis_spec or {}):
        raise BadInput("data: hand the table in itself; a path is not followed")
    if kind in tasks.DESIGNED_BY_NUMBERS:
        design.design(spec)  # costs nothing, so that a mistake is told at once
    return Experiment.objects.create(
        brand=brand,
        retailer=retailer,
        campaign=campaign,
        name=name[:160],
        kind=kind,
        hypothesis=hypothesis,
        spec=dict(spec),
        analysis_spec=dict(analysis_spec or {}),
        panel=_kept(brand, table) if table else {},
        config={"work": "design"},
        requested_by=by,
    )


@transaction.atomic
def request_experiment(**wish: Any) -> Experiment:
    row = wish_for_experiment(**wish)
    row.enqueue()
    return row


def text_of_table(file: Any) -> str:
    """A table handed in on a page, as text.

    Raises:
        BadInput: too large, or not UTF-8.
    """
    if file.size > MOST_TABLE_BYTES:
        raise BadInput(f"{file.name}: {file.size / 2**20:.0f} MB; at most {MOST_TABLE_BYTES // 2**20} MB are taken")
    try:
        return str(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{file.name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _kept(brand: Brand, table: str) -> dict[str, Any]:
    path, digest = keep_file(brand, [table.encode()])
    return {"file": path, "sha256": digest, "name": "table handed in"}


def moves_of(row: Experiment, user: Any) -> list[str]:
    """What this person may do with a test now, in the order of its life."""
    held = roles(user, row.brand)
    found = [move for move, states in MOVES.items() if row.state in states and row.is_finished]
    if not row.analysis_spec.get("monitor"):
        found = [move for move in found if move != "look"]
    if row.registered_hash or row.status != Experiment.Status.SUCCEEDED:
        found = [move for move in found if move != "register"]
    return [move for move in found if (move != "approve" or held & DECIDERS) and held]


@transaction.atomic
def move_experiment(
    experiment: Experiment, move: str, by: Any, *, note: str = "", day: date | None = None, table: str = ""
) -> Experiment:
    """One step in a test's life; taking it twice changes nothing, and each is a line in the audit chain.

    ``register`` fixes the plan under its hash; ``approve`` registers too where that is missing, and is asked
    for by the approval service alone (doors send people there); ``start`` says from which day; ``look`` reads it while it runs, by the rule that was registered; ``analyse`` queues
    the reading that ends it; ``stop`` ends it without one.

    Raises:
        BadInput: the step does not fit the state, or this person may not take it.
    """
    if move not in MOVES:
        raise BadInput(f"move {move!r}: one of {', '.join(MOVES)}")
    row = Experiment.objects.select_for_update().get(pk=experiment.pk)
    reached = {
        "approve": Experiment.State.APPROVED,
        "start": Experiment.State.RUNNING,
        "stop": Experiment.State.STOPPED,
    }
    if reached.get(move) == row.state or (move == "register" and row.registered_hash):
        return row
    if row.state not in MOVES[move]:
        raise BadInput(f"{row}: is {row.state}; {move} comes after {' or '.join(MOVES[move])}")
    if not row.is_finished:
        raise BadInput(f"{row}: is being worked on; wait until that has ended")
    if move == "approve" and by is not None and not roles(by, row.brand) & DECIDERS:  # None: the operator
        raise BadInput("only analysts and ops staff approve a test; ask one of them")
    payload: dict[str, Any] = {"note": note[:500]}
    if move in ("register", "approve") and not row.registered_hash:
        _register(row, by)
    if move == "approve":
        row.state = Experiment.State.APPROVED
    elif move == "start":
        row.state = Experiment.State.RUNNING
        row.start_date = day or row.start_date or timezone.localdate()
        row.end_date = _last_day(row)
        payload |= {"start": str(row.start_date), "end": str(row.end_date or "")}
    elif move == "stop":
        row.state = Experiment.State.STOPPED
    elif move in ("look", "analyse"):
        if move == "look" and not row.analysis_spec.get("monitor"):
            raise BadInput(f"{row}: no looks were registered; looking now would make its p-value worthless")
        if table:
            row.panel = {**row.panel, **_kept(row.brand, table)}
        _again(row, move)
    row.save()
    if move != "register":
        done = {"approve": "approved", "start": "started", "stop": "stopped"}.get(move, "sent to analysis")
        _told(row, by, f"experiment {done}", {**payload, "registered": row.registered_hash})
    return row


def _register(row: Experiment, by: Any) -> None:
    row.registered_hash, row.registered_at = row.registration_hash(), timezone.now()
    _told(row, by, "experiment registered", {"hash": row.registered_hash, "registration": row.registration()})


def _told(row: Experiment, by: Any, action: str, payload: Mapping[str, Any]) -> None:
    actor = getattr(by, "username", "") or "the operator"
    audit.record(brand=row.brand, actor=actor, action=action, subject=row, payload=payload)


def _last_day(row: Experiment) -> date | None:
    """The last day of a test whose length in periods and period in days are known."""
    duration, step = row.spec.get("duration"), row.panel.get("step_days")
    if row.start_date is None or not duration or not step:
        return row.end_date
    return row.start_date + timedelta(days=int(duration) * int(step) - 1)


def _again(row: Experiment, work: str) -> None:
    """Queue the same row for its next piece of work."""
    row.config = {**row.config, "work": work}
    row.status, row.attempts, row.progress = Experiment.Status.QUEUED, 0, 0.0
    row.step = row.error = row.error_id = ""
    row.cancel_requested, row.queued_at, row.finished_at = False, timezone.now(), None
    row.enqueue()


def registration_line(row: Experiment) -> AuditEntry | None:
    """The line of the audit chain that holds a test's registration."""
    lines = AuditEntry.objects.filter(
        brand=row.brand, subject_type=row._meta.label, subject_id=str(row.pk), action="experiment registered"
    )
    return next((line for line in lines if line.payload.get("hash") == row.registered_hash), None)
