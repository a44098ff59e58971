"""Forecasts: made with a decision, resolved by what was measured, scored; and what a stated confidence is worth.

A forecast is never edited. It is resolved once: by an analysed experiment, by the metrics of its period,
or by a person; or it is said why it cannot be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
from django.db import transaction
from django.utils import timezone

from agents.domain import calibration
from agents.domain.reflection import BIASES
from agents.models import CleanRoomQuery, Forecast
from campaigns import history
from campaigns.domain import fitting
from campaigns.models import BudgetPlan, Experiment
from feedback.models import Feedback
from retailers import audit
from retailers.models import Brand, Retailer
from rmn.lib import words
from rmn.lib.errors import BadInput

GIVE_UP = timedelta(days=90)  # after the due day, when what would resolve it has not come
LATE = timedelta(days=6)  # a period's reports may end so much before it: weeks do not end with plans
CARRIED_OUT = (0.5, 1.5)  # spent over planned: outside it the plan was not what was tried
ENOUGH_VOTES = 10
COMPARISONS = (">=", "<=", "between")
OF_EXPERIMENT = ("lift_percent", "att", "cumulative", "iroas")
OF_METRICS = ("sales", "spend", "roas", "clicks", "impressions", "ctr")
BY = ("agent", "adapter", "person", "retailer", "task")


# -- made


def make(
    *,
    brand: Brand,
    statement: str,
    metric: str,
    comparison: str,
    due: date,
    value: float | None = None,
    low: float | None = None,
    high: float | None = None,
    level: float | None = None,
    probability: float | None = None,
    subject: Mapping[str, Any] | None = None,
    retailer: Retailer | None = None,
    task: str = "",
    agent: str = "",
    by: Any = None,
    today: date | None = None,
) -> Forecast:
    """A claim that will turn out true or false, or an interval with its level.

    Args:
        comparison: how ``metric`` is held against ``value`` (>=, <=), or ``between`` low and high.
        probability: that the claim holds; ``level`` says the same of an interval.
        subject: where the answer is read: {"experiment": id}, {"plan": id}, {"metrics": {campaign, start,
            end}}; without one a person resolves it.
        agent: who claims it; empty where ``by`` does.

    Raises:
        BadInput: what is missing or does not fit, by its name.
    """
    if not statement.strip() or len(statement) > 400:
        raise BadInput("statement: what is claimed, in 1 to 400 characters")
    if comparison not in COMPARISONS:
        raise BadInput(f"comparison {comparison!r}: one of {', '.join(COMPARISONS)}")
    if comparison == "between":
        if low is None or high is None or high < low:
            raise BadInput("between: needs low and high, low first")
        level = probability if level is None else level
        probability = level if probability is None else probability
    elif value is None:
        raise BadInput(f"value: what {metric} is held against")
    if probability is None or not 0 <= probability <= 1:
        raise BadInput("probability: between 0 and 1")
    if level is not None and not 0 < level < 1:
        raise BadInput("level: above 0 and below 1")
    if due <= (today or timezone.now().date()):
        raise BadInput(f"due {due}: a forecast is about a day to come")
    return Forecast.objects.create(
        brand=brand,
        retailer=retailer,
        task=task,
        agent=agent[:60],
        made_by=by,
        statement=statement.strip().replace("\x00", ""),
        metric=metric[:80],
        comparison=comparison,
        value=value,
        low=low,
        high=high,
        level=level,
        probability=probability,
        subject=_subject(brand, metric, dict(subject or {})),
        due=due,
    )


def _subject(brand: Brand, metric: str, subject: dict[str, Any]) -> dict[str, Any]:
    """The subject, checked: rows it names are the brand's own."""
    kinds = [kind for kind in ("experiment", "plan", "metrics") if kind in subject]
    if not subject:
        return {}
    if len(kinds) != 1 or set(subject) - set(kinds):
        raise BadInput("subject: one of experiment, plan or metrics")
    if kinds[0] == "metrics":
        asked = subject["metrics"]
        if not isinstance(asked, Mapping) or set(asked) - {"campaign", "start", "end"}:
            raise BadInput("subject.metrics: an object with start, end and perhaps campaign")
        first, last = _day(asked.get("start"), "start"), _day(asked.get("end"), "end")
        if last < first:
            raise BadInput(f"subject.metrics: ends {last}, before it starts {first}")
        if metric not in OF_METRICS:
            raise BadInput(f"metric {metric!r}: one of {', '.join(OF_METRICS)}")
        return {"metrics": {"start": str(first), "end": str(last), "campaign": str(asked.get("campaign") or "")}}
    model: Any = Experiment if kinds[0] == "experiment" else BudgetPlan
    if _row(model, brand, subject[kinds[0]]) is None:
        raise BadInput(f"subject: there is no such {kinds[0]}")
    allowed = OF_EXPERIMENT if kinds[0] == "experiment" else OF_METRICS
    if metric not in allowed:
        raise BadInput(f"metric {metric!r}: one of {', '.join(allowed)}")
    return {kinds[0]: str(subject[kinds[0]])}


def _day(value: Any, name: str) -> date:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise BadInput(f"subject.metrics.{name}: {value!r} is no date such as 2026-07-01") from None


def _row(model: Any, brand: Brand, key: Any) -> Any:
    try:
        return model.objects.filter(brand=brand, pk=UUID(str(key))).first()
    except ValueError:
        return None


@transaction.atomic
def beside(forecast: Forecast, probability: float, by: Any) -> Forecast:
    """A person's own probability for an open claim, made before its day: agents and people on one board.

    Raises:
        BadInput: it is closed or due, or the person has said theirs already.
    """
    row = Forecast.objects.select_for_update().get(pk=forecast.pk)
    if row.status != Forecast.Status.OPEN or row.due <= timezone.now().date():
        raise BadInput("this forecast is closed: say yours before its day")
    if not 0 <= probability <= 1:
        raise BadInput("probability: between 0 and 1")
    same: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("brand", "retailer", "reflection", "recommendation", "task", "statement", "metric", "comparison", "value", "low", "high", "subject", "due")
    }  # fmt: skip
    if Forecast.objects.filter(
        brand=row.brand, agent="", made_by=by, statement=row.statement, due=row.due, status=Forecast.Status.OPEN
    ).exists():
        raise BadInput("you have said yours; a forecast is not changed afterwards")
    return Forecast.objects.create(**same, probability=probability, agent="", made_by=by)


def look_back(
    brand: Brand, retailer: Retailer | None = None, *, agent: str, weeks: int = 4, rounds: int = 3, draws: int = 200
) -> list[Forecast]:
    """Claims about weeks that are past, from what was known before them, so that confidence can be scored at once.

    ``rounds`` times, ``weeks`` further back each time, curves are fitted on the reports before a day. Each arm's
    claim is that it sells, with the spend that it then had, at least as much a week as in the weeks before; its
    probability is the share of drawn curves, with the noise of the weeks, that reach it. Nothing of the weeks
    claimed about is used. The statements say that they look back, and they are resolved like any other. Asked
    again for the same weeks, the claims made before are answered.

    Raises:
        BadInput: the history is too short.
    """
    last = history.window(brand)[1]
    if last is None:
        raise BadInput(f"{brand}: nothing is loaded to look back on")
    rng = np.random.default_rng(1)
    made = []
    end = history.monday(last + timedelta(days=1)) - timedelta(days=1)  # the last whole week's Sunday
    for _ in range(rounds):
        cut = end - timedelta(weeks=weeks)
        past, ahead = (
            history.read(brand, retailer, None, cut),
            history.read(brand, retailer, cut + timedelta(days=1), end),
        )
        fits = {one.arm: one for one in fitting.fit(past.arms, draws=draws)}
        before = {arm.arm: arm for arm in past.arms}
        for arm in ahead.arms:
            found = fits.get(arm.arm)
            if found is None or not float(arm.spend_D.sum()):
                continue
            bar = float(before[arm.arm].sales_D[-weeks:].mean()) * len(arm.spend_D)
            sales_SD = found.scale_S[:, None] * arm.spend_D / (found.half_S[:, None] + arm.spend_D) + found.baseline
            noise_S = found.noise * np.sqrt(len(arm.spend_D)) * rng.standard_normal(len(found.scale_S))
            sure = float(np.mean(sales_SD.sum(axis=1) + noise_S >= bar))
            name, currency = past.names[arm.arm][:160], next(iter(past.currencies))
            claim = f"Looking back from {cut}: {name} sells at least {bar:,.0f} {currency} to {end}"
            days = {"start": str(cut + timedelta(days=1)), "end": str(end)}
            made.append(
                Forecast.objects.filter(brand=brand, agent=agent, statement=claim, due=end).first()
                or make(
                    brand=brand,
                    retailer=retailer,
                    statement=claim,
                    metric="sales",
                    comparison=">=",
                    value=bar,
                    probability=min(max(sure, 0.01), 0.99),
                    subject={"metrics": {"campaign": arm.attributes["campaign"], **days}},
                    task="budgeting",
                    agent=agent,
                    due=end,
                    today=cut,
                )
            )
        end = cut
    return made


# -- resolved


@dataclass(frozen=True)
class Reading:
    """What was observed and where; or why there is nothing to read, yet or ever."""

    observed: float | None = None
    source: Mapping[str, Any] | None = None
    why: str = ""
    never: bool = False


def read(forecast: Forecast, today: date, totals: Callable[..., history.Totals] = history.totals) -> Reading:
    """What the forecast's subject says now; ``totals`` may remember what it read."""
    subject = forecast.subject
    if "experiment" in subject:
        return _of_experiment(forecast)
    if "question" in subject:
        return _of_question(forecast)
    if today < forecast.due:
        return Reading(why="its day has not come")
    if "adapter" in subject:
        return _of_votes(forecast)
    if "plan" in subject:
        return _of_plan(forecast, totals)
    if "metrics" in subject:
        asked = subject["metrics"]
        return _of_metrics(forecast, date.fromisoformat(asked["start"]), date.fromisoformat(asked["end"]), totals)
    return Reading(why="a person says what came of it")


def _of_experiment(forecast: Forecast) -> Reading:
    test = _row(Experiment, forecast.brand, forecast.subject["experiment"])
    if test is None:
        return Reading(why="the experiment is gone", never=True)
    if test.state == Experiment.State.STOPPED:
        return Reading(why="the experiment was stopped", never=True)
    if test.state != Experiment.State.ANALYSED:
        return Reading(why=f"the experiment is {test.state}")
    result = test.result
    part = result.get("iroas") if forecast.metric == "iroas" else result.get("estimate")
    observed = (part or {}).get("estimate" if forecast.metric == "iroas" else forecast.metric)
    if observed is None:
        return Reading(why=f"the analysis gives no {forecast.metric}", never=True)
    source = {"experiment": str(test.pk), "method": result.get("method"), "verdict": result.get("verdict")}
    return Reading(float(observed), source)


def _of_question(forecast: Forecast) -> Reading:
    query = _row(CleanRoomQuery, forecast.brand, forecast.subject["question"])
    if query is None:
        return Reading(why="the question is gone", never=True)
    if query.state in (CleanRoomQuery.State.PROPOSED, CleanRoomQuery.State.REJECTED):
        return Reading(why="its approval was taken back", never=True)
    if query.state not in (CleanRoomQuery.State.RELEASED, CleanRoomQuery.State.REFUSED):
        return Reading(why=f"the question is {query.state}")
    rows = len((query.result or {}).get("rows", ()))
    return Reading(float(rows), {"question": str(query.pk), "state": query.state, "left out": query.suppressed})


def votes(rows: Any, digest: str) -> tuple[int, int]:
    """Blind pairs that people decided for this version and against it; ties and pairs with itself aside."""
    said = rows.filter(kind="pair", origin="human", undone_at=None, is_gold=False)
    here = said.filter(adapter_digest=digest).exclude(other_adapter_digest=digest)
    there = said.filter(other_adapter_digest=digest).exclude(adapter_digest=digest)
    wins = here.filter(outcome="a").count() + there.filter(outcome="b").count()
    return wins, here.filter(outcome="b").count() + there.filter(outcome="a").count()


def _of_votes(forecast: Forecast) -> Reading:
    wins, losses = votes(Feedback.objects.filter(brand=forecast.brand), forecast.subject["adapter"])
    if wins + losses < ENOUGH_VOTES:
        return Reading(why=f"{wins + losses} blind pairs; {ENOUGH_VOTES} are the least")
    return Reading(wins / (wins + losses), {"votes": wins + losses})


def _of_plan(forecast: Forecast, totals: Callable[..., history.Totals]) -> Reading:
    plan = _row(BudgetPlan, forecast.brand, forecast.subject["plan"])
    if plan is None or plan.period_start is None or plan.period_end is None:
        return Reading(why="the plan has no period to measure", never=True)
    arms = {row["id"] for row in plan.allocations}
    planned = sum(float(row["spend"]) for row in plan.allocations)
    return _of_metrics(forecast, plan.period_start, plan.period_end, totals, arms, planned)


def _of_metrics(
    forecast: Forecast,
    start: date,
    end: date,
    totals: Callable[..., history.Totals],
    arms: set[str] | None = None,
    planned: float | None = None,
) -> Reading:
    found = totals(forecast.brand, forecast.retailer, start, end)
    if found.last is None or found.last < end - LATE:
        return Reading(why=f"reports reach to {found.last or 'no day'} of a period that ends {end}")
    if len(found.currencies) > 1:
        return Reading(why=f"reports in {', '.join(sorted(found.currencies))}: no single sum", never=True)
    campaign = (forecast.subject.get("metrics") or {}).get("campaign")
    wanted = arms or {arm for arm in found.spend if not campaign or arm.rpartition("/")[2] == campaign}
    spend = sum(found.spend.get(arm, 0.0) for arm in wanted)
    sales = sum(found.sales.get(arm, 0.0) for arm in wanted)
    if planned and not CARRIED_OUT[0] <= spend / planned <= CARRIED_OUT[1]:
        return Reading(why=f"{spend:,.0f} of {planned:,.0f} were spent: the plan was not carried out", never=True)
    clicks, impressions = found.counts["clicks"], found.counts["impressions"]
    values = {
        "sales": sales,
        "spend": spend,
        "roas": sales / spend if spend else None,
        "clicks": clicks,
        "impressions": impressions,
        "ctr": clicks / impressions if impressions else None,
    }
    observed = values.get(forecast.metric)
    if observed is None:
        return Reading(why=f"the reports give no {forecast.metric}", never=True)
    return Reading(observed, {"metrics": [str(start), str(end)], "arms": len(wanted), "spend": spend})


def holds(forecast: Forecast, observed: float) -> bool:
    """Whether the claim is true of what was observed."""
    if forecast.comparison == "between":
        return float(forecast.low or 0) <= observed <= float(forecast.high or 0)
    bar = float(forecast.value or 0)
    return observed >= bar if forecast.comparison == ">=" else observed <= bar


@transaction.atomic
def resolve(
    forecast: Forecast,
    *,
    observed: float | None = None,
    happened: bool | None = None,
    by: Any = None,
    note: str = "",
    source: Mapping[str, Any] | None = None,
) -> Forecast:
    """Say what came of it, once; the same said again changes nothing.

    Raises:
        BadInput: neither a value nor an outcome, the two disagree, or it was resolved otherwise before.
    """
    row = Forecast.objects.select_for_update().get(pk=forecast.pk)
    if observed is not None:
        told = holds(row, observed)
        if happened is not None and happened != told:
            raise BadInput(f"{row.metric} of {observed:g} makes the claim {'true' if told else 'false'}, not the other")
        happened = told
    if happened is None:
        raise BadInput("say what was observed, or whether it happened")
    if row.status != Forecast.Status.OPEN:
        if row.status == Forecast.Status.RESOLVED and row.happened == happened:
            return row
        raise BadInput(f"it was {row.status} before; a forecast is resolved once")
    row.status, row.happened, row.observed, row.resolved_at = "resolved", happened, observed, timezone.now()
    row.resolution = _by_whom(by, note, source)
    row.save(update_fields=["status", "happened", "observed", "resolved_at", "resolution"])
    _tell(row, "came true" if happened else "did not come true", by)
    return row


@transaction.atomic
def give_up(forecast: Forecast, reason: str, by: Any = None) -> Forecast:
    """It cannot be resolved, and why; it counts in no score.

    Raises:
        BadInput: no reason, or it was resolved before.
    """
    if not reason.strip():
        raise BadInput("say why it cannot be resolved")
    row = Forecast.objects.select_for_update().get(pk=forecast.pk)
    if row.status == Forecast.Status.UNRESOLVABLE:
        return row
    if row.status != Forecast.Status.OPEN:
        raise BadInput("it was resolved before")
    row.status, row.resolved_at = Forecast.Status.UNRESOLVABLE, timezone.now()
    row.resolution = _by_whom(by, reason, None)
    row.save(update_fields=["status", "resolved_at", "resolution"])
    _tell(row, f"cannot be resolved: {reason}", by)
    return row


def _by_whom(by: Any, note: str, source: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"by": getattr(by, "username", "") or "the schedule", "note": note[:2000], **(source or {})}


def _tell(row: Forecast, what: str, by: Any) -> None:
    """The reflection that it came from learns of it, and so does the audit chain."""
    log = row.reflection
    if log is not None:
        seen = "" if row.observed is None else f" ({row.metric} was {words.short(row.observed)})"
        line = f"{timezone.now().date()}: {row.statement}: {what}{seen}"
        log.outcome = "\n".join(part for part in (log.outcome, line) if part)
        if not log.forecasts.filter(status=Forecast.Status.OPEN).exists():
            log.phase = log.Phase.REVIEW
        log.save(update_fields=["outcome", "phase"])
    audit.record(
        brand=row.brand,
        actor=getattr(by, "username", "") or "the schedule",
        action=f"forecast {row.status}",
        subject=row,
        payload={"happened": row.happened, "observed": row.observed, **row.resolution},
    )


def resolve_ready(rows: Iterable[Forecast], today: date) -> dict[str, int]:
    """Resolve what measurement can say something about; give up what waited too long."""
    counts = {"resolved": 0, "unresolvable": 0, "open": 0}
    totals = cache(history.totals)  # many claims are about one period
    for row in rows:
        if row.status != Forecast.Status.OPEN:
            continue
        reading = read(row, today, totals)
        if reading.observed is not None:
            resolve(row, observed=reading.observed, source=reading.source)
            counts["resolved"] += 1
        elif reading.never or (row.subject and today > row.due + GIVE_UP):
            give_up(row, reading.why)
            counts["unresolvable"] += 1
        else:
            counts["open"] += 1
    return counts


# -- scored


def learned(brand: Brand, agent: str) -> calibration.Map:
    """What this agent's stated probabilities have meant for this brand so far."""
    known = Forecast.objects.filter(brand=brand, agent=agent).resolved().exclude(probability=None)
    pairs = list(known.order_by("created_at", "pk").values_list("probability", "happened"))
    if not pairs:
        return calibration.Map(0, 0.0)
    return calibration.recalibrate([p for p, _ in pairs], [float(bool(y)) for _, y in pairs])


def score(rows: Any, by: str = "") -> dict[str, Any]:
    """Scores of resolved forecasts: all together, by whom or what, and what each bias flag was worth.

    Args:
        rows: forecasts that the asking person may see.
        by: agent, adapter, person, retailer or task; persons are those who forecast themselves.

    Raises:
        BadInput: another ``by``.
    """
    if by and by not in BY:
        raise BadInput(f"by {by!r}: one of {', '.join(BY)}")
    known = list(rows.resolved().select_related("made_by", "retailer", "reflection").order_by("created_at", "pk"))
    told: dict[str, Any] = {
        "resolved": len(known),
        "open": rows.open().count(),
        "unresolvable": rows.filter(status=Forecast.Status.UNRESOLVABLE).count(),
        "all": _scores(known),
    }
    if by:
        groups: dict[str, list[Forecast]] = defaultdict(list)
        for row in known:
            name = _group(row, by)
            if name:
                groups[name].append(row)
        scored = [{"name": name, **(_scores(part) or {"n": len(part)})} for name, part in groups.items()]
        told["by"] = by
        told["groups"] = sorted(scored, key=lambda one: (one.get("brier") is None, one.get("brier", 0.0), one["name"]))
    told["biases"] = bias_values(known)
    return told


def _group(row: Forecast, by: str) -> str:
    if by == "agent":
        return row.agent
    if by == "adapter":
        return row.adapter_digest[:12]
    if by == "person":
        return row.made_by.username if row.made_by and not row.agent else ""
    if by == "retailer":
        return row.retailer.slug if row.retailer else "-"
    return row.task or "-"


def _scores(rows: list[Forecast]) -> dict[str, Any] | None:
    pairs = [(row.probability, float(bool(row.happened))) for row in rows if row.probability is not None]
    told: dict[str, Any] = calibration.scores(*zip(*pairs, strict=True)) if pairs else {}
    bands = [row for row in rows if row.level is not None and row.low is not None and row.observed is not None]
    if bands:
        columns = ([getattr(row, name) for row in bands] for name in ("low", "high", "level", "observed"))
        told["intervals"] = calibration.interval_scores(*columns)
    return told or None


def bias_values(rows: Iterable[Forecast]) -> dict[str, Any]:
    """For each bias: did forecasts whose reflection carried its flag turn out worse?"""
    known = [row for row in rows if row.probability is not None and row.reflection is not None]
    if not known:
        return {}
    p, y = [row.probability for row in known], [float(bool(row.happened)) for row in known]
    told = {}
    for kind in BIASES:
        flagged = [
            any(flag.get("type") == kind for flag in row.reflection.biases) if row.reflection else False
            for row in known
        ]
        if any(flagged):
            told[kind] = calibration.flag_value(p, y, flagged)
    return told


def worthless_flags(brand: Brand) -> set[str]:
    """Biases whose flag has been shown to predict nothing for this brand: they are not raised any more."""
    rows = Forecast.objects.filter(brand=brand).resolved().exclude(reflection=None).select_related("reflection")
    return {kind for kind, found in bias_values(rows).items() if not found["keep"]}
