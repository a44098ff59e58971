"""May a candidate replace the champion? Paired cases, exact tests, four verdicts.

Every case is answered by both. The difference in passing is tested by sign flips over clusters (exact
McNemar where every cluster has one case), with Holm over the suite's guards. ``better`` needs a certain
gain, ``not_worse`` that no loss beyond the margin is plausible, ``worse`` a certain loss; all else is
``not_enough_evidence``, with the number of cases that would decide. A gain of longer texts counts only where it
stands at equal length too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binom

from rmn.lib import stats
from rmn.lib.errors import BadInput

MARGIN = 0.05  # of a rate: a smaller loss is none
MINIMUM = 0.02  # of a rate: a smaller gain is not worth a change
LEAST_P = 0.0001  # smaller chances are said as smaller than it
PROMPT_ALONE = " (prompt alone)"


@dataclass(frozen=True)
class Result:
    verdict: str
    metrics: Mapping[str, Any]
    tests: tuple[Mapping[str, Any], ...]
    needed_cases: int | None
    reasons: tuple[str, ...] = field(default=())

    def row(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "metrics": dict(self.metrics),
            "tests": [dict(test) for test in self.tests],
            "needed_cases": self.needed_cases,
            "reasons": list(self.reasons),
        }


def compare(
    candidate: Mapping[str, Sequence[float]],
    champion: Mapping[str, Sequence[float]],
    clusters: Sequence[str],
    *,
    primary: str = "passes",
    parts: Collection[str] = (),
    longer: Sequence[float] | None = None,
    alpha: float = 0.05,
    margin: float = MARGIN,
    minimum: float = MINIMUM,
) -> Result:
    """The gate's verdict.

    Args:
        candidate, champion: for each measure one value per case, higher is better (0 or 1 for rules).
        clusters: of each case.
        primary: the measure that must gain; the others are guards that may not lose beyond ``margin``.
        parts: measures that the primary includes already. Of these only a certain loss refuses, for what they
            could lose stands in the primary; to clear each alone would take ln(20) / margin clusters.
        longer: by how many characters the candidate's text is longer, per case; where it is on average, the gain
            must be certain at equal length as well. None where length is no virtue that could be mistaken for one.
        minimum: the least gain worth a change.

    Raises:
        BadInput: no cases, or measures of different lengths.
    """
    count = len(clusters)
    if not count or primary not in candidate:
        raise BadInput("a gate needs cases and its primary measure")
    for name in candidate:
        if len(candidate[name]) != count or len(champion[name]) != count:
            raise BadInput(f"{name}: {count} cases were expected on both sides")
    tests: list[dict[str, Any]] = []
    for name in candidate:
        mine, theirs = np.asarray(candidate[name], float), np.asarray(champion[name], float)
        gap = mine - theirs
        low, high = _interval(mine, theirs, clusters, 1 - alpha)
        tests.append(
            {
                "name": name,
                "estimate": float(gap.mean()),
                "interval": [float(low), float(high)],
                "p_value": float(stats.sign_flip_p(gap, clusters)),  # one-sided: the candidate is better
                "p_worse": float(stats.sign_flip_p(-gap, clusters)),
                "candidate": float(np.mean(candidate[name])),
                "champion": float(np.mean(champion[name])),
            }
        )
    for test, adjusted in zip(tests, stats.holm([t["p_worse"] for t in tests]), strict=True):
        test["p_worse_holm"] = float(adjusted)
    main = next(t for t in tests if t["name"] == primary)
    guards = [t for t in tests if t["name"] != primary]
    broken = [t["name"] for t in guards if t["p_worse_holm"] < alpha and t["estimate"] < -margin]
    unsure = [t["name"] for t in guards if t["name"] not in parts and t["interval"][0] < -margin]
    level = None
    if longer is not None:
        level = at_equal_length(candidate[primary], champion[primary], longer, clusters)
        main["gain_at_equal_length"] = level
    by_length = level is not None and level["longer"] > 0 and not level["p_value"] < alpha
    reasons = []
    if broken:
        verdict = "worse"
        reasons.append(f"guards lost: {', '.join(broken)}")
    elif main["p_worse"] < alpha:
        verdict = "worse"
        reasons.append(f"{primary} fell by {-main['estimate']:.3f}")
    elif main["p_value"] < alpha and main["estimate"] >= minimum and not unsure and not by_length:
        verdict = "better"
        chance = f"p {main['p_value']:.4f}" if main["p_value"] >= LEAST_P else f"p under {LEAST_P:.4f}"
        reasons.append(f"{primary} rose by {main['estimate']:.3f}, {chance}")
    elif main["interval"][0] >= -margin and not unsure:
        verdict = "not_worse"
        gained = main["p_value"] < alpha and main["estimate"] >= minimum
        told = "its gain may be length alone" if gained else f"a gain of {minimum:g} or more is not shown"
        reasons.append(f"a loss of {primary} beyond {margin:g} is not plausible; {told}")
    else:
        verdict = "not_enough_evidence"
        reasons.append(
            f"{primary} {main['estimate']:+.3f}, interval {main['interval'][0]:+.3f} to {main['interval'][1]:+.3f}"
        )
        if unsure:
            reasons.append(f"guards not cleared: {', '.join(unsure)}")
    if by_length and level is not None and main["p_value"] < alpha and verdict not in ("better", "worse"):
        reasons.append(
            f"its texts are {level['longer']:.1f} characters longer, and at equal length the gain is not certain (p {level['p_value']:.3f})"
        )
    gap = np.asarray(candidate[primary], float) - np.asarray(champion[primary], float)
    needed = None
    if verdict in ("not_enough_evidence", "not_worse"):
        discordant = max(float(np.mean(gap != 0)), 1.0 / (count + 1))
        aim = abs(main["estimate"]) if abs(main["estimate"]) > margin / 2 else margin
        effect = stats.design_effect(gap, clusters)
        needed = int(np.ceil(effect * cases_needed(min(aim, discordant), discordant, alpha=alpha)))
        needed = max(needed, count + 1)
    metrics = {
        name: {"candidate": float(np.mean(candidate[name])), "champion": float(np.mean(champion[name]))}
        for name in candidate
    }
    return Result(
        verdict, {**metrics, "cases": count, "clusters": len(set(clusters))}, tuple(tests), needed, tuple(reasons)
    )


def at_equal_length(
    candidate: Sequence[float], champion: Sequence[float], longer: Sequence[float], clusters: Sequence[str]
) -> dict[str, Any]:
    """What is left of a paired difference where both texts are equally long.

    The difference is regressed on how much longer the candidate's text is; the constant is the difference at equal
    length. Its test flips the signs of the residuals without the constant, cluster by cluster, so where all
    lengths are equal it is the test of the plain difference, and where length explains all nothing is certain.

    Returns:
        ``estimate`` of the difference (None where length cannot be told from the rest), its one-sided ``p_value``
        and by how many characters the candidate is ``longer`` on average.

    Source: Freedman and Lane (1983), a nonstochastic interpretation of reported significance levels.
    """
    gap = np.asarray(candidate, float) - np.asarray(champion, float)
    extra = np.asarray(longer, float)
    if len(extra) != len(gap):
        raise BadInput(f"{len(extra)} lengths: {len(gap)} were expected")
    square = float(extra @ extra)
    free = np.ones(len(gap)) - (extra * extra.sum() / square if square else 0.0)  # of the constant, what length leaves
    left = gap - (extra * (extra @ gap) / square if square else 0.0)
    weight = float(free @ free)
    if weight < 1e-9 * len(gap):
        return {"estimate": None, "p_value": 1.0, "longer": float(extra.mean())}
    p = stats.sign_flip_p(free * left, clusters)
    return {"estimate": float(free @ gap) / weight, "p_value": float(p), "longer": float(extra.mean())}


def power(cases: int, difference: float, discordant: float, *, alpha: float = 0.05) -> float:
    """Chance that the exact one-sided test of independent cases sees a difference of two paired shares.

    Args:
        difference: A minus B as a share of the cases.
        discordant: share of cases on which the two differ.
    """
    wins = (discordant + difference) / 2 / discordant
    spread = 6 * np.sqrt(cases * discordant * (1 - discordant)) + 1
    d = np.arange(max(int(cases * discordant - spread), 0), min(int(cases * discordant + spread), cases) + 1)
    least = binom.isf(alpha, d, 0.5) + 1  # the fewest wins that are certain
    return float((binom.pmf(d, cases, discordant) * binom.sf(least - 1, d, wins)).sum())


def cases_needed(difference: float, discordant: float, *, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """Independent paired cases that the exact test needs: the textbook's number, raised until its power is there.

    The textbook's number (``stats.cases_for_difference``) is of the normal approximation; the exact
    test falls up to four points short of it at under 200 cases.
    """
    count = stats.cases_for_difference(difference, discordant, alpha=alpha, power=wanted)
    while power(count, difference, max(discordant, difference), alpha=alpha) < wanted:
        count = int(np.ceil(count * 1.02)) + 1
    return count


def pairs_needed(rate: float, *, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """Blind pairs that the exact one-sided test needs to tell a win rate from one half with that power.

    The textbook's number falls up to four points short of it.
    """
    rate = min(max(rate, 1 - rate), 0.99)

    def found(pairs: int) -> float:
        return float(binom.sf(binom.isf(alpha, pairs, 0.5), pairs, rate))

    count = stats.cases_for_win_rate(rate, alpha=alpha, power=wanted)
    while found(count) < wanted:
        count += 1
    return count


def earned(against_champion: Result, against_prompt: Result | None) -> Result:
    """The verdict that counts: a gain over the champion is one only if the best prompt alone is beaten too.

    Args:
        against_champion: the comparison with what serves.
        against_prompt: with the base model under its best prompt; None where that is what serves.
    """
    if against_prompt is None:
        return against_champion
    told = [{**test, "name": f"{test['name']}{PROMPT_ALONE}"} for test in against_prompt.tests]
    tests = (*against_champion.tests, *told)
    metrics = {**against_champion.metrics, "prompt_alone": dict(against_prompt.metrics)}
    why = tuple(f"prompt alone: {reason}" for reason in against_prompt.reasons)
    if against_champion.verdict != "better" or against_prompt.verdict == "better":
        needed = against_champion.needed_cases
        return Result(against_champion.verdict, metrics, tests, needed, (*against_champion.reasons, *why))
    reasons = ("better than the champion, but a prompt with examples does as well: nothing to train for", *why)
    return Result(against_prompt.verdict, metrics, tests, against_prompt.needed_cases, reasons)


def heard(found: Result, voted: Mapping[str, Any] | None, *, alpha: float = 0.05) -> Result:
    """The verdict with what people said of the two blind: a certain loss there refuses, corrected with the guards."""
    if voted is None:
        return found
    suite = [test for test in found.tests if not str(test["name"]).endswith(PROMPT_ALONE)]
    adjusted = stats.holm([*(test["p_worse"] for test in suite), voted["p_worse"]])[-1]
    tests = (*found.tests, {**voted, "p_worse_holm": float(adjusted)})
    if adjusted >= alpha or found.verdict == "worse":
        return Result(found.verdict, found.metrics, tests, found.needed_cases, found.reasons)
    lost = f"people prefer what serves: it won {voted['candidate']:.0%} of {voted['votes']} blind votes"
    return Result("worse", found.metrics, tests, None, (lost, *found.reasons))


def votes(
    outcomes: Sequence[float], longer: Sequence[float], clusters: Sequence[str], *, alpha: float = 0.05
) -> dict[str, Any]:
    """Blind pairs between candidate and champion as one test: the win rate, and what is left of it at equal length.

    Args:
        outcomes: 1 the candidate won, 0 it lost, 0.5 a tie.
        longer: by how many characters the candidate's text was longer.
        clusters: what the pairs share (the prompt).

    Returns:
        A test as ``compare`` has them (estimate: win rate minus one half), with ``at_equal_length``:
        the win rate that a logistic fit of the decided pairs on the difference in length leaves at
        difference 0, None under 20 decided pairs or where length alone separates wins from losses.

    Raises:
        BadInput: no votes, or lists of different lengths.

    Source: Dubois et al. (2024), length-controlled win rates, with the length term alone.
    """
    won, extra = np.asarray(outcomes, float), np.asarray(longer, float)
    if not len(won) or len(won) != len(extra) or len(won) != len(clusters):
        raise BadInput(f"{len(won)} votes, {len(extra)} lengths and {len(clusters)} clusters: one of each per vote")
    gap = 2 * won - 1
    effect = stats.design_effect(gap, clusters)
    low, high = stats.wilson(won.sum() / effect, len(won) / effect, 1 - alpha)
    return {
        "name": "blind votes",
        "estimate": float(won.mean() - 0.5),
        "interval": [low - 0.5, high - 0.5],
        "p_value": float(stats.sign_flip_p(gap, clusters)),
        "p_worse": float(stats.sign_flip_p(-gap, clusters)),
        "candidate": float(won.mean()),
        "champion": float(1 - won.mean()),
        "votes": len(won),
        "at_equal_length": _at_equal_length(won, extra),
        "needed_votes": pairs_needed(min(max(float(won.mean()), 1 - float(won.mean()), 0.55), 0.95), alpha=alpha),
    }


def _at_equal_length(won: Any, extra: Any) -> float | None:
    decided = won != 0.5
    y, spread = won[decided], float(extra[decided].std()) if decided.any() else 0.0
    if len(y) < 20 or len(set(y)) < 2:
        return None
    if spread == 0:
        return float(y.mean())
    x = np.column_stack([np.ones(len(y)), extra[decided] / spread])
    beta = np.zeros(2)
    for _ in range(50):  # Newton's steps, with a little ridge on the slope
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (y - p) - np.array([0.0, 1e-3]) * beta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag([1e-9, 1e-3]), slope)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    if not np.isfinite(beta).all() or abs(beta[1]) > 15:  # length alone separates them: nothing is left to say
        return None
    return float(1 / (1 + np.exp(-beta[0])))


def _interval(mine: Any, theirs: Any, clusters: Sequence[str], level: float) -> tuple[float, float]:
    """Of the mean difference: for right or wrong from the paired counts, thinned by the design effect."""
    gap = mine - theirs
    if set(np.unique(np.concatenate([mine, theirs]))) <= {0.0, 1.0}:
        effect = stats.design_effect(gap, clusters)
        counts = [((mine == a) & (theirs == b)).sum() / effect for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
        return stats.paired_interval(counts[0], counts[1], counts[2], counts[3], level)
    return stats.paired_bootstrap(gap, clusters, level=level)
