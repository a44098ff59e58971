"""The decision journal: why something is proposed, written from data before it is decided, reopened by early signs.

A reflection passes through the engine's five phases (``domain.reflection``); nothing here skips one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from agents import forecasts, rooms, signs
from agents.domain import memory
from agents.domain.reflection import (
    PHASES,
    Evidence,
    Reflection,
    Verdict,
    WrongPhase,
    advance,
    biases,
    decide,
    fires,
    likely,
    missing_for,
    premortem,
)
from agents.models import Adapter, CleanRoomQuery, Forecast, ReflectionLog, ReflectionLogQuerySet
from campaigns import history
from campaigns.domain import optimizer
from campaigns.models import BudgetPlan, CurveFit, Experiment, Task
from retailers import audit
from retailers.models import Brand, Retailer, roles
from rmn.lib.errors import BadInput, RmnError

Subject = BudgetPlan | Experiment | CleanRoomQuery | Adapter
AGENT = {BudgetPlan: "budget optimizer", Experiment: "measurement", CleanRoomQuery: "clean rooms", Adapter: "creative"}
TASK = {
    BudgetPlan: Task.BUDGETING,
    Experiment: Task.MEASUREMENT,
    CleanRoomQuery: Task.PLANNING,
    Adapter: Task.CREATIVE,
}
THRESHOLD = "confidence >= 0.8 OR validation from approver"
CONFIDENCE = {"experiment": 0.8, "calibrated": 0.7, "attribution": 0.55, "not stated": 0.5}
FOUND_BEFORE = 0.5  # share of tests that find an effect, before any of the brand's own is known
MEMORIES = 3
MOST_REMEMBERED = 500
NEAREST = 50  # of all decisions, where the database ranks them


# -- opened


def about(subject: Subject) -> ReflectionLog:
    """The reflection on what is proposed; written from data the first time, and kept from then on."""
    known = ReflectionLog.objects.filter(brand=subject.brand, subject=subject.uuid).order_by("-created_at").first()
    if known is not None:
        return known
    assert subject.brand is not None  # noqa: S101  # what is proposed is some brand's
    kind = type(subject)
    record, monitors = {BudgetPlan: _plan, Experiment: _experiment, CleanRoomQuery: _question, Adapter: _adapter}[kind](
        subject
    )  # type: ignore[operator]
    record = advance(record, "analysis")
    record = advance(record, "decision")
    plan = subject if isinstance(subject, BudgetPlan) else None
    return _write(
        ReflectionLog(
            brand=subject.brand,
            retailer=subject.retailer,
            recommendation=plan.recommendations.first() if plan else None,
            subject=subject.uuid,
            task=TASK[kind],
            agent=AGENT[kind],
            context=_context(subject)[:240],
            monitors=monitors,
        ),
        record,
    )


def _context(subject: Subject) -> str:
    if isinstance(subject, BudgetPlan):
        return f"{subject.name}: {subject.total_budget:,.0f} {subject.currency}"
    if isinstance(subject, Experiment):
        return f"Test at {subject.retailer or 'all retailers'}: {subject.name}"
    if isinstance(subject, CleanRoomQuery):
        return str(subject)
    return f"Deploy {subject.scope} {subject.digest[:12]}"


def open_one(
    *, brand: Brand, context: str, record: Mapping[str, Any], retailer: Retailer | None = None, task: str = "", by: Any = None
) -> ReflectionLog:  # fmt: skip
    """A person's own reflection, in the shape of CONTRACTS section 8; it starts where its record says, at most before execution.

    Raises:
        BadInput: no context, or a record that cannot be meant.
    """
    if not context.strip() or len(context) > 240:
        raise BadInput("context: what is to be decided, in 1 to 240 characters")
    read = Reflection.read(dict(record))
    if read.phase not in PHASES[:3]:
        raise BadInput(f"phase {read.phase!r}: a reflection is opened before its decision is carried out")
    if read.validations:
        raise BadInput("validations: nobody validates in another's name; use validate")
    agent = getattr(by, "username", "") or "the operator"
    log = ReflectionLog(brand=brand, retailer=retailer, task=task, agent=agent, context=context.replace("\x00", ""))
    if not read.memory_reference:
        read = replace(read, memory_reference=tuple(remembered(brand, context)))
    return _write(log, read)


def _write(log: ReflectionLog, record: Reflection, **values: Any) -> ReflectionLog:
    """Keep a reflection with its verdict as of now."""
    verdict = verdict_of(log, record)
    for name, value in {
        **record.row(),
        **values,
        "verdict": verdict.row(),
        "should_proceed": verdict.should_proceed,
    }.items():
        setattr(log, name, value)
    log.save()
    return log  # fmt: skip


def verdict_of(log: ReflectionLog, record: Reflection | None = None) -> Verdict:
    """Whether it should proceed, by what stated confidence has meant for its author so far."""
    return decide(record or Reflection.read(log.record), forecasts.learned(log.brand, log.agent))


def rewrite(log: ReflectionLog, record: Mapping[str, Any]) -> ReflectionLog:
    """Replace what a reflection says before its decision; phase and validations stay."""
    kept = Reflection.read({**log.record, **record, "phase": log.phase, "validations": log.validations})
    return _write(log, kept)


# -- on its way


@transaction.atomic
def amend(log: ReflectionLog, parts: Mapping[str, Any]) -> ReflectionLog:
    """Add to a reflection that is not carried out yet: lists grow, single values are replaced.

    Raises:
        BadInput: it is past its decision, or the parts cannot be meant.
    """
    row = ReflectionLog.objects.select_for_update().get(pk=log.pk)
    if row.phase not in PHASES[:3]:
        raise BadInput(f"it is in {row.phase}; what led to a decision is not changed after it")
    unknown = set(parts) - set(row.record) | {"phase", "validations"} & set(parts)
    if unknown:
        raise BadInput(f"{', '.join(sorted(unknown))}: cannot be amended; known are {', '.join(sorted(set(row.record) - {'phase', 'validations'}))}")  # fmt: skip
    record = _merged(row.record, parts)
    return _write(row, Reflection.read(record))


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        named = {each["factor"]: each for each in new if isinstance(each, Mapping) and "factor" in each}
        kept = [
            named.pop(each["factor"], each) if isinstance(each, Mapping) and "factor" in each else each for each in old
        ]
        return kept + [each for each in new if not (isinstance(each, Mapping) and "factor" in each) and each not in old] + list(named.values())  # fmt: skip
    return new


@transaction.atomic
def validate(log: ReflectionLog, name: str, by: Any) -> ReflectionLog:
    """Validate in the name of a role, a group or oneself; ops staff may for any team.

    Raises:
        BadInput: the person does not speak for that name, or the decision is past.
    """
    row = ReflectionLog.objects.select_for_update().get(pk=log.pk)
    wanted = " ".join(name.split())[:80]
    if row.phase not in PHASES[:3]:
        raise BadInput(f"it is in {row.phase}; a validation comes before the decision")
    if not wanted:
        raise BadInput("in whose name? such as: risk team")
    own = {part.casefold() for part in speaks_for(by, row.brand)}
    if wanted.casefold() not in own and "ops" not in own:
        raise BadInput(f"you do not speak for {wanted!r}; you may for {', '.join(sorted(own))}")
    record = Reflection.read(row.record)
    if wanted.casefold() not in {each.casefold() for each in record.validations}:
        record = replace(record, validations=(*record.validations, wanted))
        _tell(row, by, "reflection validated", {"as": wanted})
    return _write(row, record)


def speaks_for(user: Any, brand: Brand) -> set[str]:
    """The names in which somebody may validate: their own, their roles, their groups."""
    return {user.get_username(), *roles(user, brand), *user.groups.values_list("name", flat=True)}


@transaction.atomic
def carry_out(log: ReflectionLog, decision: str, by: Any) -> ReflectionLog:
    """Decide to go on: the missing phases are passed one by one, and none is skipped.

    Raises:
        BadInput: something is missing, a critical risk stands open, or the threshold is not met.
    """
    row = ReflectionLog.objects.select_for_update().get(pk=log.pk)
    record = Reflection.read(row.record)
    if row.phase == "execution":
        return row
    verdict = verdict_of(row, record)
    try:
        while record.phase != "execution":
            record = advance(
                record, PHASES[PHASES.index(record.phase) + 1] if record.phase != "review" else PHASES[0], verdict
            )
    except WrongPhase as error:
        raise BadInput(str(error)) from None
    _tell(row, by, "reflection decided", {"decision": decision[:500], "confidence": verdict.confidence_calibrated})
    who = by if getattr(by, "pk", None) else None
    return _write(row, record, decision=decision[:2000], decided_by=who, decided_at=timezone.now(), reopened_at=None)  # fmt: skip


def approved(log: ReflectionLog, by: Any, note: str) -> ReflectionLog:
    """What it proposes was approved: the approver's word stands as a validation.

    Raises:
        BadInput: a critical risk stands open, or the threshold asks for more.
    """
    record = Reflection.read(log.record)
    names = [getattr(by, "username", "") or "the operator", "approver", *sorted(roles(by, log.brand) if by else ())]
    given = (*record.validations, *(name for name in names if name not in record.validations))
    log.validations = list(given)
    log.save(update_fields=["validations"])
    return carry_out(log, f"approved{f': {note}' if note else ''}", by)


def refused(log: ReflectionLog, by: Any, note: str) -> ReflectionLog:
    log.decision, log.decided_by, log.decided_at = f"rejected{f': {note}' if note else ''}"[:2000], by, timezone.now()
    log.reopened_at = None
    log.save(update_fields=["decision", "decided_by", "decided_at", "reopened_at"])
    return log


def changed(subject: BudgetPlan | Experiment, note: str, word: str = "changed") -> None:
    """What it proposes was changed, or the change taken back: another reflection stands in its place."""
    for log in ReflectionLog.objects.filter(brand=subject.brand, subject=subject.pk):
        log.decision = f"{word}{f': {note}' if note else ''}"[:2000]
        log.save(update_fields=["decision"])


def standing(log: ReflectionLog) -> dict[str, Any]:
    """Where a reflection stands, to be put back there when a decision is undone."""
    return {
        "phase": log.phase,
        "validations": log.validations,
        "decision": log.decision,
        "decided_by": log.decided_by_id,
        "decided_at": log.decided_at and log.decided_at.isoformat(),
        "reopened_at": log.reopened_at and log.reopened_at.isoformat(),
    }


def put_back(log: ReflectionLog, stood: Mapping[str, Any], line: str) -> ReflectionLog:
    """Put a reflection back where it stood; that it was decided meanwhile stays, as a line of its outcome."""
    row = ReflectionLog.objects.select_for_update().get(pk=log.pk)
    record = replace(Reflection.read(row.record), phase=stood["phase"], validations=tuple(stood["validations"]))
    return _write(
        row,
        record,
        decision=stood["decision"],
        decided_by_id=stood["decided_by"],
        decided_at=stood["decided_at"] and datetime.fromisoformat(stood["decided_at"]),
        reopened_at=stood["reopened_at"] and datetime.fromisoformat(stood["reopened_at"]),
        outcome="\n".join(part for part in (row.outcome, f"{timezone.now().date()}: {line}") if part),
    )


def _tell(log: ReflectionLog, by: Any, action: str, payload: dict[str, Any]) -> None:
    actor = getattr(by, "username", "") or "the operator"
    audit.record(brand=log.brand, actor=actor, action=action, subject=log, payload=payload)


# -- memory


def remembered(brand: Brand, question: str, most: int = MEMORIES, leave_out: Any = None) -> list[dict[str, Any]]:
    """Earlier decisions and measured tests of the same brand that are most like this one, with what came of them."""
    cases: list[dict[str, Any]] = []
    logs = ReflectionLog.objects.filter(brand=brand).exclude(decision="")
    if leave_out is not None:
        logs = logs.exclude(pk__in=logs.filter(subject=leave_out).values("pk"))
    for log in candidates(logs, question):
        cases.append(
            {
                "what": log.context,
                "decided": log.decision,
                "came": log.outcome,
                "reflection": str(log.uuid),
                "at": log.created_at,
            }
        )
    tests = Experiment.objects.filter(brand=brand, state=Experiment.State.ANALYSED).exclude(pk=leave_out)
    for test in tests.order_by("-created_at")[:MOST_REMEMBERED]:
        cases.append({"what": f"{test.name} {test.kind} test", "decided": "measured", "came": measured(test), "experiment": str(test.pk), "at": test.created_at})  # fmt: skip
    cases.sort(key=lambda case: case["at"])
    found = memory.recall(question, [f"{case['what']} {case['decided']} {case['came']}" for case in cases], most)
    return [
        {**{k: v for k, v in cases[one.place].items() if k != "at"}, "on": str(cases[one.place]["at"].date()), "likeness": round(one.likeness, 3)}
        for one in found
    ]  # fmt: skip


def candidates(logs: ReflectionLogQuerySet, question: str) -> Iterable[ReflectionLog]:
    """Of one brand's decisions those that may be like this one: the nearest of all where the database compares vectors, else the newest."""
    if not compares_vectors():
        return logs.order_by("-created_at")[:MOST_REMEMBERED]
    for log in logs.filter(embedding=[]):  # new words since they were last asked for
        logs.filter(pk=log.pk).update(embedding=memory.embedding(log.told))
    return logs.most_like(memory.embedding(question))[:NEAREST]


def compares_vectors() -> bool:
    """Whether the database has pgvector."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector')")
        return bool(cursor.fetchone()[0])


def measured(test: Experiment) -> str:
    """What a test brought, in a line."""
    lift = (test.result.get("estimate") or {}).get("lift_percent")
    iroas = (test.result.get("iroas") or {}).get("estimate")
    parts = [str(test.result.get("verdict") or "").replace("_", " ")]
    parts += [f"lift {lift:+.1f} %"] if lift is not None else []
    parts += [f"{iroas:.2f}x incremental ROAS"] if iroas is not None else []
    return ", ".join(part for part in parts if part)


# -- what the reflections say


def _plan(plan: BudgetPlan) -> tuple[Reflection, list[dict[str, Any]]]:
    spent = float(plan.plan.get("total_spend") or 0.0)
    roas = plan.plan["objective"] / spent if spent else None
    past = remembered(plan.brand, _context(plan), leave_out=plan.pk)
    even = (plan.plan.get("even_split") or {}).get("objective")
    tests = [one for one in plan.plan.get("next_tests") or [] if one.get("worth", 0) > 0]
    objective = plan.plan["objective"]
    brings = f" would bring {even:,.0f} instead of {objective:,.0f} {plan.currency}" if even else ""
    frames = [
        f"the even split of the same money{brings}",
        "last period's split, kept as it is",
        f"a test first: {tests[0]['arm']} would move this plan most for its cost" if tests else "a test before the money moves",
    ]  # fmt: skip
    stories, seen = premortem("plan", roas=roas / 2 if roas else None), _watched(plan.brand)
    confidence = sum(CONFIDENCE.get(p["evidence"], 0.5) * p["share"] for p in plan.plan.get("evidence") or []) or 0.5
    supporting = [f"certified: at most {plan.plan['upper_bound']:,.0f} {plan.currency} is possible within the limits"]
    if even and objective > 1.0005 * even:
        supporting.append(f"brings {100 * (objective / even - 1):.1f} % more than the even split")
    against = [str(each) for each in (plan.plan.get("warnings") or [])[:5]]
    if plan.spend_assumed:
        against.append("spend is assumed by a rule, not reported")
    record = Reflection(
        memory_reference=tuple(past),
        alternate_frames=tuple(frames),
        risks=Reflection.read(
            {"risk_assessment": {"high_risk_factors": [_risk(story, seen) for story in stories]}}
        ).risks,
        confidence=round(confidence, 3),
        rationale="weighted by what the plan's curves rest on: tests, calibrated curves, attribution",
        supporting=tuple(supporting),
        contradicting=tuple(against),
        decision_threshold=THRESHOLD,
    )
    found = _flags(plan.brand, _evidence(plan, record, roas))
    return _checked(record, found), stories


def _risk(story: Mapping[str, Any], seen: list[dict[str, Any]]) -> dict[str, Any]:
    """A story of the pre-mortem as a risk; how likely it is says how often its sign came up at earlier decisions."""
    signs = [sign for sign in seen if sign.get("metric") == story["metric"]]
    return {
        "factor": story["story"],
        "severity": "high",
        "probability": round(likely(sum(bool(sign.get("fired")) for sign in signs), len(signs)), 2),
        "impact": story["impact"],
        "mitigation": f"watched: {story['early_sign']}; it reopens this decision",
    }


def _watched(brand: Brand) -> list[dict[str, Any]]:
    """Early signs of the brand's decisions that were carried out, come up or not."""
    logs = ReflectionLog.objects.filter(brand=brand).exclude(decided_at=None).order_by("-created_at")
    decided = [log for log in logs[:MOST_REMEMBERED] if log.phase in PHASES[3:] or log.reopened_at]
    return [sign for log in decided for sign in log.monitors]


def _checked(record: Reflection, found: list[dict[str, str]]) -> Reflection:
    words = "; ".join(f"{flag['type'].replace('_', ' ')}: {flag['note']}" for flag in found)
    return replace(
        record, biases=tuple(found), bias_checkpoint=words or "seven biases looked for in the figures; none found"
    )


def _flags(brand: Brand, evidence: Evidence) -> list[dict[str, str]]:
    """What the data make likely, but for flags that have been shown to predict nothing for this brand."""
    worthless = forecasts.worthless_flags(brand)
    return [flag for flag in biases(evidence) if flag["type"] not in worthless]


def _evidence(plan: BudgetPlan, record: Reflection, roas: float | None) -> Evidence:
    arms = plan.problem.get("arms", [])
    recent, whole, weeks, all_weeks = _returns(plan)
    resolved = Forecast.objects.filter(brand=plan.brand, agent=AGENT[BudgetPlan]).resolved()
    seen = [
        row.observed / row.resolution["spend"]
        for row in resolved.filter(metric="sales", subject__has_key="plan").exclude(observed=None)
        if row.resolution.get("spend")
    ]
    outcomes = list(resolved.values_list("happened", flat=True))
    return Evidence(
        last_spend={arm["id"]: float(arm["last"]) for arm in arms if arm.get("last")},
        spend={row["id"]: float(row["spend"]) for row in plan.allocations},
        best_spend=_unheld(plan),
        marginal_roas={row["id"]: float(row["marginal_roas"]) for row in plan.allocations if row.get("marginal_roas") is not None},
        recent_return=recent,
        whole_return=whole,
        window_weeks=weeks,
        history_weeks=all_weeks,
        forecast=roas,
        past_results=tuple(seen),
        probability=record.confidence,
        base_rate=sum(map(bool, outcomes)) / len(outcomes) if len(outcomes) >= 5 else None,
        supporting=len(record.supporting),
        contradicting=len(record.contradicting),
        frames=len(record.alternate_frames),
        memories=tuple(f"{case['what']}: {case['came'] or case['decided']}" for case in record.memory_reference),
    )  # fmt: skip


def _unheld(plan: BudgetPlan) -> dict[str, float]:
    """The split without minimums, groups and limits on change: where the money would go by the curves alone."""
    held = ("min", "min_if_on", "max_change", "fixed")
    arms = [{name: value for name, value in arm.items() if name not in held} for arm in plan.problem.get("arms", [])]
    if not any(arm.get(name) for arm in plan.problem.get("arms", []) for name in held) and not plan.problem.get(
        "groups"
    ):
        return {row["id"]: float(row["spend"]) for row in plan.allocations}
    try:
        free = optimizer.solve({**plan.problem, "arms": arms, "groups": []})
    except RmnError:
        return {}
    return {row["id"]: float(row["spend"]) for row in free.get("allocations", [])}


def _returns(plan: BudgetPlan) -> tuple[float | None, float | None, int | None, int | None]:
    """Return of the fit's window and of all there is, and both lengths in weeks."""
    first, last = history.window(plan.brand)
    fit = CurveFit.objects.filter(brand=plan.brand, status=CurveFit.Status.SUCCEEDED).order_by("-created_at").first()
    if first is None or last is None or fit is None or not (fit.window_start or fit.window_end):
        return None, None, None, None
    begin, end = max(fit.window_start or first, first), min(fit.window_end or last, last)
    found = []
    for one, other in ((begin, end), (first, last)):
        totals = history.totals(plan.brand, plan.retailer, one, other)
        spend = sum(totals.spend.values())
        found.append(sum(totals.sales.values()) / spend if spend else None)
    return found[0], found[1], ((end - begin).days + 1) // 7, ((last - first).days + 1) // 7


def _experiment(test: Experiment) -> tuple[Reflection, list[dict[str, Any]]]:
    best = test.design.get("best") or test.design
    tests = [row for row in Experiment.objects.filter(brand=test.brand, state=Experiment.State.ANALYSED) if row.result]
    hits = sum(row.result.get("verdict") == "effect" for row in tests)
    confidence = (hits + 2 * FOUND_BEFORE) / (len(tests) + 2)
    supporting = [f"finds a lift of {best['mde']:.1%} in four of five"] if best.get("mde") else []
    stories, seen = premortem("experiment"), _watched(test.brand)
    record = Reflection(
        memory_reference=tuple(remembered(test.brand, _context(test), leave_out=test.pk)),
        alternate_frames=("act on attribution alone", "test another arm", "a longer test with fewer stores"),
        risks=Reflection.read({"risk_assessment": {"high_risk_factors": [
            {"factor": "stores treated and not treated drift apart", "severity": "high", "impact": "a difference that is no effect", "mitigation": "read against placebo sets of untreated stores"},
            {"factor": "the test is read early", "severity": "medium", "impact": "an effect is claimed too often", "mitigation": "its plan is registered; looks only by the registered rule"},
            *(_risk(story, seen) for story in stories),
        ]}}).risks,
        confidence=round(confidence, 3),
        rationale=f"{hits} of {len(tests)} earlier tests of this brand found an effect; two imagined ones, one found, stand before them",
        supporting=tuple(supporting),
        contradicting=tuple(str(each) for each in (test.design.get("warnings") or [])[:5]),
        decision_threshold=THRESHOLD,
    )  # fmt: skip
    evidence = Evidence(
        supporting=len(supporting),
        contradicting=len(record.contradicting),
        frames=len(record.alternate_frames),
        memories=tuple(case["what"] for case in record.memory_reference),
        probability=record.confidence,
        base_rate=hits / len(tests) if len(tests) >= 5 else None,
    )
    return _checked(record, _flags(test.brand, evidence)), stories


def _question(query: CleanRoomQuery) -> tuple[Reflection, list[dict[str, Any]]]:
    place, State = query.connection, CleanRoomQuery.State
    earlier = CleanRoomQuery.objects.filter(connection=place, state__in=[State.RELEASED, State.REFUSED])
    told = [(row.template, row.parameters) for row in earlier.filter(state=State.RELEASED)]
    asked, shown = earlier.count(), len(told)
    record = Reflection(
        memory_reference=tuple(remembered(query.brand, _context(query), leave_out=query.pk)),
        alternate_frames=("what the feeds tell without asking about people", "the same question later, over more people"),
        risks=Reflection.read({"risk_assessment": {"high_risk_factors": [
            {"factor": "its cost never comes back once the room has answered", "severity": "high", "impact": "fewer questions are left for this period", "mitigation": "taken once before it is sent, given back where the room says no"},
            {"factor": "the answer gives few people away", "severity": "critical", "impact": "somebody's data are learnt", "mitigation": f"groups under {place.k_threshold} are left out, also against earlier answers"},
        ]}}).risks,
        confidence=round((shown + 1) / (asked + 2), 3),
        rationale=f"{shown} of {asked} earlier questions to this room were shown; two imagined ones, one shown, stand before them",
        supporting=(f"costs {query.cost:g} of {rooms.left(place):g} units left",),
        contradicting=("just this was answered before",) if (query.template, query.parameters) in told else (),
        decision_threshold=THRESHOLD,
    )  # fmt: skip
    evidence = Evidence(
        supporting=len(record.supporting),
        contradicting=len(record.contradicting),
        frames=len(record.alternate_frames),
        memories=tuple(case["what"] for case in record.memory_reference),
        probability=record.confidence,
    )
    return _checked(record, _flags(query.brand, evidence)), []


def _adapter(adapter: Adapter) -> tuple[Reflection, list[dict[str, Any]]]:
    assert adapter.brand is not None  # noqa: S101
    verdict = str(adapter.gate.get("verdict") or "")
    confidence = {"better": 0.8, "not_worse": 0.6, "worse": 0.2}.get(verdict, 0.5)
    before, seen = signs.pass_share_before(adapter), _watched(adapter.brand)
    stories = premortem("adapter", pass_share=None if before is None else 0.8 * before)
    record = Reflection(
        memory_reference=tuple(remembered(adapter.brand, _context(adapter), leave_out=adapter.uuid)),
        alternate_frames=("the version that serves stays", "serve it to one campaign in ten first"),
        risks=Reflection.read({"risk_assessment": {"high_risk_factors": [
            {"factor": "it does nothing on the server", "severity": "critical", "impact": "the base model writes in the brand's name", "mitigation": "proved by its probes before it serves"},
            *(_risk(story, seen) for story in stories),
        ]}}).risks,
        confidence=confidence,
        rationale=f"its gate said {verdict.replace('_', ' ')}" if verdict else "no evaluation is recorded with it",
        supporting=tuple(str(each) for each in (adapter.gate.get("reasons") or [])[:5]),
        contradicting=() if verdict == "better" else ("the gate did not find it better",),
        decision_threshold=THRESHOLD,
    )  # fmt: skip
    evidence = Evidence(supporting=len(record.supporting), contradicting=len(record.contradicting))
    return _checked(record, _flags(adapter.brand, evidence)), stories


# -- watched


def watch(rows: Iterable[ReflectionLog], today: date) -> int:
    """Look for the early signs of decisions that are being carried out; reopen those whose sign came up."""
    reopened = 0
    for log in rows:
        found = subject_of(log)
        reopened += found is not None and reopen(log, signs.read(found, today), today)
    return reopened


def subject_of(log: ReflectionLog) -> Subject | None:
    """The plan, test, question or adapter that a reflection is about."""
    model: Any = next((model for model, task in TASK.items() if task == log.task), None)
    if model is None or log.subject is None:
        return None
    found = model.objects.filter(brand=log.brand, **{"uuid" if model is Adapter else "pk": log.subject})
    return found.first()  # type: ignore[no-any-return]


@transaction.atomic
def reopen(log: ReflectionLog, seen: Mapping[str, float], today: date) -> bool:
    """Note the signs that came up; the decision goes back to reflection, and somebody has to look."""
    row = ReflectionLog.objects.select_for_update().get(pk=log.pk)
    came = [monitor for monitor in row.monitors if not monitor.get("fired") and fires(monitor, seen)]
    if not came or row.phase != "execution":
        return False
    for monitor in came:
        monitor |= {"fired": str(today), "seen": round(seen[monitor["metric"]], 4)}
    record = advance(advance(Reflection.read(row.record), "review"), "reflection")
    words = "; ".join(f"{one['early_sign']} ({one['seen']:g}, under {one['below']:g})" for one in came)
    row.outcome = "\n".join(part for part in (row.outcome, f"{today}: reopened: {words}") if part)
    _write(row, record, reopened_at=timezone.now())
    _tell(row, None, "decision reopened", {"signs": [one["metric"] for one in came]})
    return True


def lacks(log: ReflectionLog) -> list[str]:
    """What a reflection still needs before it can be decided, in words."""
    record = Reflection.read(log.record)
    ahead = PHASES[PHASES.index(record.phase) + 1 : 3]
    return [each for phase in ahead for each in missing_for(record, phase)]
