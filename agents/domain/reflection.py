"""Reflection: why a decision is taken, what could go wrong, how sure we are, and whether to go on.

A reflection passes five phases: reflection (frames, memories), analysis (risks, confidence), decision
(threshold), execution, review (what came of it). It may proceed when its threshold holds on the
calibrated confidence and no critical risk stands without mitigation.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agents.domain import threshold as thresholds
from agents.domain.calibration import ENOUGH, Map
from rmn.lib.errors import BadInput, RmnError

PHASES = ("reflection", "analysis", "decision", "execution", "review")
BIASES = ("availability", "anchoring", "confirmation", "sunk_cost", "recency", "optimism", "status_quo")
SEVERITIES = ("low", "medium", "high", "critical")
DEFAULT_THRESHOLD = "confidence >= 0.8"
NOTHING = {"", "-", "none", "n/a", "na", "tbd", "todo", "unknown", "no", "null", "nil", "to be decided"}


class WrongPhase(RmnError):
    """The reflection is not where this step belongs."""


@dataclass(frozen=True)
class Risk:
    """A thing that may go wrong: how bad, how likely (0 to 1), what it does, what is done about it."""

    factor: str
    severity: str
    probability: float | None = None
    impact: str = ""
    mitigation: str = ""

    def row(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "severity": self.severity,
            "probability": self.probability,
            "impact": self.impact,
            "mitigation": self.mitigation,
        }


@dataclass(frozen=True)
class Reflection:
    """One reflection in the shape of the source document; changes make a new one."""

    phase: str = "reflection"
    memory_reference: tuple[Any, ...] = ()
    alternate_frames: tuple[Any, ...] = ()
    risks: tuple[Risk, ...] = ()
    mitigation: tuple[str, ...] = ()  # for the whole, each naming the factor that it answers
    confidence: float | None = None
    rationale: str = ""
    supporting: tuple[Any, ...] = ()
    contradicting: tuple[Any, ...] = ()
    decision_threshold: str = DEFAULT_THRESHOLD
    bias_checkpoint: str = ""
    biases: tuple[dict[str, Any], ...] = ()
    validations: tuple[str, ...] = ()

    @classmethod
    def read(cls, record: Any) -> Reflection:
        """A reflection from its record (CONTRACTS section 8).

        Raises:
            BadInput: a phase, severity or bias that does not exist, a probability or confidence
                outside 0 to 1, a list that is none; with the place.
        """
        if not isinstance(record, dict):
            raise BadInput("reflection: the record is an object")
        assessment = record.get("risk_assessment") or {}
        if isinstance(assessment, list):
            assessment = {"high_risk_factors": assessment}
        confidence = record.get("confidence") or {}
        if isinstance(confidence, int | float) and not isinstance(confidence, bool):
            confidence = {"value": confidence}
        if not isinstance(assessment, dict) or not isinstance(confidence, dict):
            raise BadInput("reflection: risk_assessment and confidence are objects")
        biases = []
        for place, bias in enumerate(_list(record, "biases")):
            kind = str(bias.get("type", "") if isinstance(bias, dict) else bias).strip().lower().replace(" ", "_")
            if kind not in BIASES:
                raise BadInput(f"biases[{place}]: {kind!r} is none of {', '.join(BIASES)}")
            biases.append({"type": kind, "note": str(bias.get("note", "")) if isinstance(bias, dict) else ""})
        return cls(
            phase=_one_of(record.get("phase", "reflection"), PHASES, "phase"),
            memory_reference=tuple(_list(record, "memory_reference")),
            alternate_frames=tuple(_list(record, "alternate_frames")),
            risks=tuple(
                _risk(each, place)
                for place, each in enumerate(_list(assessment, "high_risk_factors", "risk_assessment."))
            ),
            mitigation=tuple(_words(each) for each in _list(assessment, "mitigation", "risk_assessment.")),
            confidence=_share(confidence.get("value"), "confidence.value"),
            rationale=str(confidence.get("rationale") or ""),
            supporting=tuple(_list(confidence, "supporting", "confidence.")),
            contradicting=tuple(_list(confidence, "contradicting", "confidence.")),
            decision_threshold=_text(record.get("decision_threshold"), "decision_threshold") or DEFAULT_THRESHOLD,
            bias_checkpoint=str(record.get("bias_checkpoint") or ""),
            biases=tuple(biases),
            validations=tuple(_validation(each) for each in _list(record, "validations")),
        )

    def row(self) -> dict[str, Any]:
        """The record again (CONTRACTS section 8)."""
        return {
            "phase": self.phase,
            "memory_reference": list(self.memory_reference),
            "alternate_frames": list(self.alternate_frames),
            "risk_assessment": {
                "high_risk_factors": [risk.row() for risk in self.risks],
                "mitigation": list(self.mitigation),
            },
            "confidence": {
                "value": self.confidence,
                "rationale": self.rationale,
                "supporting": list(self.supporting),
                "contradicting": list(self.contradicting),
            },
            "decision_threshold": self.decision_threshold,
            "bias_checkpoint": self.bias_checkpoint,
            "biases": list(self.biases),
            "validations": list(self.validations),
        }

    @property
    def unmitigated_critical(self) -> list[str]:
        """Critical risks for which nothing is planned, by name."""
        return [risk.factor for risk in self.risks if risk.severity == "critical" and not self._mitigated(risk)]

    def _mitigated(self, risk: Risk) -> bool:
        if risk.mitigation.strip().strip(".").casefold() not in NOTHING:
            return True
        factor = risk.factor.casefold()
        return any(
            factor in each.casefold() and each.casefold().replace(factor, "").strip(" :.-") not in NOTHING
            for each in self.mitigation
        )

    def names(self, calibrated: float | None, resolved: int) -> dict[str, float | None]:
        """What a threshold expression may name."""
        return {
            "confidence": calibrated,
            "confidence_raw": self.confidence,
            "n": resolved,
            "risks": len(self.risks),
            "high_risks": sum(risk.severity in ("high", "critical") for risk in self.risks),
            "unmitigated_critical": len(self.unmitigated_critical),
            "biases": len(self.biases),
            "supporting": len(self.supporting),
            "contradicting": len(self.contradicting),
            "frames": len(self.alternate_frames),
        }


def _list(record: Mapping[str, Any], name: str, where: str = "") -> list[Any]:
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadInput(f"{where}{name}: a list was expected, this is {type(value).__name__}")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    text = str(value).strip().lower()
    if text not in allowed:
        raise BadInput(f"{where}: {value!r} is none of {', '.join(allowed)}")
    return text


def _share(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput(f"{where}: {value!r} is not a number from 0 to 1")
    return float(value)


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{where}: text was expected, this is {type(value).__name__}")
    return (value or "").strip()


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ": ".join(
            str(each) for each in (value.get("factor"), value.get("mitigation") or value.get("action")) if each
        )
    return str(value)


def _risk(each: Any, place: int) -> Risk:
    where = f"risk_assessment.high_risk_factors[{place}]"
    if not isinstance(each, dict) or not str(each.get("factor") or "").strip():
        raise BadInput(f"{where}: a risk is an object with a factor and a severity")
    mitigation = each.get("mitigation")
    if isinstance(mitigation, list):
        mitigation = "; ".join(str(part) for part in mitigation)
    return Risk(
        factor=str(each["factor"]).strip(),
        severity=_one_of(each.get("severity", ""), SEVERITIES, f"{where}.severity"),
        probability=_share(each.get("probability"), f"{where}.probability"),
        impact=str(each.get("impact") or ""),
        mitigation=str(mitigation or ""),
    )


def _validation(each: Any) -> str:
    if isinstance(each, dict):
        each = each.get("from") or each.get("name") or ""
    return str(each)


@dataclass(frozen=True)
class Verdict:
    """Whether a decision may be carried out, and how that was reached."""

    should_proceed: bool
    threshold_met: bool
    evaluated: dict[str, Any]
    confidence_raw: float | None
    confidence_calibrated: float | None
    n: int
    unmitigated_critical: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {
            "should_proceed": self.should_proceed,
            "threshold_met": self.threshold_met,
            "evaluated": self.evaluated,
            "confidence_raw": self.confidence_raw,
            "confidence_calibrated": self.confidence_calibrated,
            "n": self.n,
            "unmitigated_critical": self.unmitigated_critical,
            "reasons": self.reasons,
        }


def decide(reflection: Reflection, calibration: Map) -> Verdict:
    """Should it proceed? The threshold on the calibrated confidence, and no critical risk left open.

    Args:
        reflection: as far as it has come.
        calibration: what stated confidence has meant for this agent; under 30 resolved forecasts it
            changes nothing, and the reasons say so.
    """
    raw = reflection.confidence
    calibrated = None if raw is None else calibration(raw)
    outcome = thresholds.evaluate(
        reflection.decision_threshold, reflection.names(calibrated, calibration.n), reflection.validations
    )
    open_risks = reflection.unmitigated_critical
    reasons = list(outcome.reasons)
    if raw is None:
        reasons.append("no confidence was stated")
    elif not calibration.usable:
        reasons.append(
            f"{calibration.n} resolved forecasts, {ENOUGH} are needed: the stated confidence is used as it is"
        )
    else:
        reasons.append(f"says {raw:.2f}; at that level {calibrated:.2f} came true ({calibration.n} resolved forecasts)")
    for factor in open_risks:
        reasons.append(f"critical risk without mitigation: {factor}")
    return Verdict(
        should_proceed=outcome.met and not open_risks,
        threshold_met=outcome.met,
        evaluated=outcome.row(),
        confidence_raw=raw,
        confidence_calibrated=calibrated,
        n=calibration.n,
        unmitigated_critical=open_risks,
        reasons=reasons,
    )


def missing_for(reflection: Reflection, phase: str) -> list[str]:
    """What a reflection still lacks before it may enter a phase."""
    lacks: list[str] = []
    if phase == "analysis" and not (reflection.alternate_frames or reflection.memory_reference):
        lacks.append("an alternate frame or a memory to compare with")
    if phase == "decision":
        if reflection.confidence is None:
            lacks.append("a confidence")
        elif not reflection.supporting and not reflection.rationale:
            lacks.append("a rationale or supporting evidence for the confidence")
        if not reflection.risks:
            lacks.append("a risk assessment")
    return lacks


def advance(reflection: Reflection, phase: str, verdict: Verdict | None = None) -> Reflection:
    """The reflection one phase on; from review back to reflection when an early sign re-opens it.

    Raises:
        WrongPhase: a phase is skipped, something is missing, or execution without a verdict that allows it.
    """
    here = PHASES.index(reflection.phase)
    follows = PHASES[here + 1] if here + 1 < len(PHASES) else PHASES[0]
    if phase != follows:
        raise WrongPhase(f"the reflection is in {reflection.phase}; {follows} comes next, not {phase}")
    if lacks := missing_for(reflection, phase):
        raise WrongPhase(f"{phase} needs {' and '.join(lacks)} first")
    if phase == "execution" and (verdict is None or not verdict.should_proceed):
        why = "; ".join(verdict.reasons) if verdict else "it was not decided yet"
        raise WrongPhase(f"it should not proceed: {why}")
    return replace(reflection, phase=phase)


# ------------------------------------------------------------------------------------------------
# Biases, found in the data that a decision rests on


@dataclass(frozen=True)
class Evidence:
    """What a budget decision was taken from; what is not known stays None."""

    last_spend: Mapping[str, float] = field(default_factory=dict)  # arm: spend of the period before
    spend: Mapping[str, float] = field(default_factory=dict)  # arm: spend now proposed
    best_spend: Mapping[str, float] = field(default_factory=dict)  # arm: spend without limits on change
    marginal_roas: Mapping[str, float] = field(default_factory=dict)  # arm: sales per further unit of spend
    recent_return: float | None = None  # sales per unit of spend in the window used
    whole_return: float | None = None  # the same over all there is
    window_weeks: int | None = None  # weeks of data used
    history_weeks: int | None = None  # weeks of data there are
    forecast: float | None = None  # expected result
    past_results: tuple[float, ...] = ()  # results of like decisions
    probability: float | None = None
    base_rate: float | None = None  # how often like claims came true
    supporting: int = 0
    contradicting: int = 0
    frames: int = 0
    memories: tuple[str, ...] = ()  # what recalled decisions were remembered for


def biases(evidence: Evidence) -> list[dict[str, str]]:
    """The biases that the data make likely, each with the figures that show it.

    Anchoring: the proposal stays near last period's spend though the unlimited optimum is elsewhere.
    Status quo: nothing moves at all while marginal returns differ. Sunk cost: the arm that got most so
    far keeps its share though its marginal return is under half of the best. Recency: a short window
    of the history, whose mean differs from the whole. Optimism: the forecast lies above nearly all past
    results, or the probability far above the base rate. Confirmation: support and not one objection.
    Availability: a single memory, or no other frame, carries the case.
    """
    detectors = (_anchoring, _status_quo, _sunk_cost, _recency, _optimism, _confirmation, _availability)
    return [found for detect in detectors if (found := detect(evidence))]


def _flag(kind: str, note: str) -> dict[str, str]:
    return {"type": kind, "note": note}


def _shift(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Share of the money that stands elsewhere: half the absolute differences, over the total."""
    arms = set(one) | set(other)
    total = max(sum(one.values()), sum(other.values()))
    return sum(abs(one.get(arm, 0.0) - other.get(arm, 0.0)) for arm in arms) / 2 / total if total > 0 else None


def _anchoring(evidence: Evidence) -> dict[str, str] | None:
    if not evidence.last_spend or not evidence.best_spend or not evidence.spend:
        return None
    moved, wanted = _shift(evidence.last_spend, evidence.spend), _shift(evidence.last_spend, evidence.best_spend)
    if moved is not None and wanted is not None and wanted > 0.15 and moved < wanted / 2:
        return _flag("anchoring", f"moves {moved:.0%} of last period's split; without limits {wanted:.0%} would move")
    return None


def _status_quo(evidence: Evidence) -> dict[str, str] | None:
    moved = _shift(evidence.last_spend, evidence.spend) if evidence.last_spend and evidence.spend else None
    returns = [value for value in evidence.marginal_roas.values() if value > 0]
    if moved is not None and moved < 0.02 and len(returns) > 1 and max(returns) > 1.25 * min(returns):
        return _flag(
            "status_quo",
            f"{moved:.1%} moves, though marginal returns run from {min(returns):.2f} to {max(returns):.2f}",
        )
    return None


def _sunk_cost(evidence: Evidence) -> dict[str, str] | None:
    shared = [arm for arm in evidence.last_spend if arm in evidence.spend and arm in evidence.marginal_roas]
    if len(shared) < 2:
        return None
    favourite = max(shared, key=lambda arm: evidence.last_spend[arm])
    best = max(evidence.marginal_roas[arm] for arm in shared)
    own = evidence.marginal_roas[favourite]
    if evidence.spend[favourite] >= evidence.last_spend[favourite] > 0 and own < best / 2:
        return _flag(
            "sunk_cost", f"{favourite} keeps its money at a marginal return of {own:.2f}; the best is {best:.2f}"
        )
    return None


def _recency(evidence: Evidence) -> dict[str, str] | None:
    recent, whole, window = evidence.recent_return, evidence.whole_return, evidence.window_weeks
    if window is None or not evidence.history_weeks or window >= evidence.history_weeks / 2 or recent is None:
        return None
    if whole and abs(recent / whole - 1) > 0.15:
        return _flag(
            "recency",
            f"rests on {window} of {evidence.history_weeks} weeks; their return is {recent:.2f}, of all {whole:.2f}",
        )
    return None


def _optimism(evidence: Evidence) -> dict[str, str] | None:
    past = evidence.past_results
    if evidence.forecast is not None and len(past) >= 5:
        beaten = sum(evidence.forecast > each for each in past)
        if beaten >= 0.9 * len(past):
            return _flag("optimism", f"expects more than {beaten} of {len(past)} like decisions brought")
    if (
        evidence.probability is not None
        and evidence.base_rate is not None
        and evidence.probability > evidence.base_rate + 0.2
    ):
        return _flag(
            "optimism", f"says {evidence.probability:.0%}; like claims came true {evidence.base_rate:.0%} of the time"
        )
    return None


def _confirmation(evidence: Evidence) -> dict[str, str] | None:
    if evidence.supporting >= 2 and evidence.contradicting == 0:
        return _flag("confirmation", f"{evidence.supporting} reasons for it and none against")
    return None


def _availability(evidence: Evidence) -> dict[str, str] | None:
    if len(evidence.memories) == 1:
        return _flag(
            "availability",
            f"one remembered case carries it: {textwrap.shorten(evidence.memories[0], 160, placeholder=' ...')}",
        )
    if evidence.memories and not evidence.frames:
        return _flag("availability", f"{len(evidence.memories)} remembered cases and no other frame")
    return None


@dataclass(frozen=True)
class Story:
    """A way it failed: what that does, its early sign, the measure that shows it, the value under which it fires."""

    story: str
    impact: str
    early_sign: str
    metric: str
    below: float | None = None  # None: it depends on what the decision counts on


PREMORTEM = {  # by what was decided
    "plan": (
        Story(
            "Returns fell as spend grew past what was ever seen",
            "half of the expected sales or less for the whole budget",
            "return since the start under half of what is expected",
            "roas",
        ),
        Story(
            "The product ran out and the money went on",
            "spend without sales until somebody stops it",
            "sales of the last week under 40 % of the four weeks before while spend goes on",
            "sales_trend",
            0.4,
        ),
        Story(
            "A rival took the shelf: the same money reached fewer people",
            "dearer reach; the plan's sales are missed",
            "impressions of the last week under 60 % of the four weeks before while spend goes on",
            "impressions_trend",
            0.6,
        ),
    ),
    "experiment": (
        Story(
            "Stores stopped reporting: too few were left to tell an effect from chance",
            "no verdict for the cost of a test",
            "the last week reported by under 90 % of the stores that reported before the start",
            "stores_reporting",
            0.9,
        ),
        Story(
            "What was to be tested did not run",
            "no effect is read where none was tried",
            "spend since the start under half of the four weeks before it",
            "spend_trend",
            0.5,
        ),
        Story(
            "Something else moved the whole market: a strike, a feast, a price war",
            "the effect drowns in noise, or is not the ad's",
            "sales of the untreated stores since the start under 70 % of the four weeks before it",
            "untreated_trend",
            0.7,
        ),
    ),
    "adapter": (
        Story(
            "People like it less than what it followed",
            "worse texts until it is taken back",
            "wins under 40 % of its blind pairs, ten of them at least",
            "win_rate",
            0.4,
        ),
        Story(
            "It learnt to claim what the rules forbid",
            "fewer texts to choose from, and more work for those who check them",
            "texts that pass the rules under 80 % of the share that passed before it",
            "pass_share",
        ),
        Story(
            "It rambles: headlines are cut off at their longest",
            "texts that nobody can use",
            "under 80 % of its texts come to an end of their own",
            "finished_share",
            0.8,
        ),
    ),
}


def premortem(kind: str, **below: float | None) -> list[dict[str, Any]]:
    """Three stories of how it failed, each with an early sign that is watched: {story, impact, early_sign, metric, below}.

    Args:
        kind: what was decided, of ``PREMORTEM``.
        below: by metric, the value under which a sign fires where the story has none of its own; None leaves it unwatched.
    """
    return [asdict(replace(one, below=below.get(one.metric) if one.below is None else one.below)) for one in PREMORTEM[kind]]  # fmt: skip


def likely(came: int, watched: int) -> float:
    """How likely an early sign is: how often it came among earlier decisions, with one in five before any is known."""
    return (came + 1) / (watched + 5)


def fires(monitor: Mapping[str, Any], signs: Mapping[str, float]) -> bool:
    """Whether an early sign has come up; what is not known does not fire."""
    seen, below = signs.get(monitor["metric"]), monitor.get("below")
    return seen is not None and below is not None and seen < below
