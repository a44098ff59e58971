"""What an experiment says: effect, interval, p-value, verdict, by the method its design asks for.

Interval and p-value come from one test, inverted, so that they cannot disagree. ``effect`` needs
p < alpha; ``no_effect`` an interval inside +-mde; all else is ``not_enough_evidence``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats as st

from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments import placebo, synthetic
from campaigns.domain.experiments.design import number, seed_of
from campaigns.domain.experiments.panel import Panel
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

METHODS = {
    "ab": ("ttest", "ratio", "cuped", "naive", "ols"),
    "audience": ("ttest", "ratio", "cuped", "naive", "ols"),
    "did": ("did",),
    "geo": ("synthetic_control", "augmented_synthetic_control", "synthetic_did", "did", "gbr", "tbr"),
    "switchback": ("switchback",),
    "time_series": ("causal_impact",),
    "observational": ("doubly_robust", "matching", "ols", "naive"),
}
TESTED = ("block", "iid", "textbook")


@dataclass
class Found:
    """What a method found, before it becomes RESULT."""

    att: float
    interval: tuple[float, float]
    p_value: float
    count: float  # treated units times periods, or treated people: att times it is the sum
    base: float | None  # what a treated unit and period would have been
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    iroas: dict[str, Any] | None = None


def analyze(
    spec: Mapping[str, Any], *, folder: Path | None = None, frame: pl.DataFrame | None = None, progress: Any = None
) -> dict[str, Any]:
    """RESULT of a specification (CONTRACTS section 4).

    Args:
        spec: kind, method, data and columns.
        folder: that paths in it are relative to.
        frame: the data, where they are at hand.
        progress: told (done, of, what) by methods that take long.

    Raises:
        BadInput: the specification or the data make no sense; with the place.
    """
    del progress  # every method here answers within seconds
    kind = spec.get("kind")
    if kind not in METHODS:
        raise BadInput(f"kind is {kind!r}: one of {', '.join(METHODS)}")
    method = spec.get("method") or "auto"
    allowed = METHODS[kind]
    if method == "auto":
        method = "cuped" if kind in ("ab", "audience") and spec.get("covariates") else allowed[0]
    if method not in allowed:
        raise BadInput(f"method is {method!r}: for {kind} one of auto, {', '.join(allowed)}")
    if spec.get("inference", "block") not in TESTED:
        raise BadInput(f"inference is {spec['inference']!r}: one of {', '.join(TESTED)}")
    given, where = panels.of_spec(spec, folder, frame)
    if spec.get("exclude"):
        unit = panels.column(given, spec.get("unit", "unit"), where)
        given = given.filter(
            ~pl.col(unit).cast(pl.String).str.to_lowercase().is_in([str(u).lower() for u in spec["exclude"]])
        )
    _fields(spec, kind, method)
    if spec.get("monitor") is not None and kind == "geo":
        return _watched(spec, kind, method, given, where)
    if spec.get("cells") is not None:
        return _cells(spec, kind, method, given, where)
    return _read(spec, kind, method, given, where)


def _read(spec: Mapping[str, Any], kind: str, method: str, frame: pl.DataFrame, where: str) -> dict[str, Any]:
    found = (GEO if kind == "geo" else ROWS)[method](spec, frame, where)
    if found.iroas is None and isinstance(spec.get("cost"), str) and method in ("ttest", "naive", "cuped"):
        _iroas_of_people(spec, frame, where, found)
    for name, users in USED_BY.items():
        if spec.get(name) and method not in users:
            found.warnings.append(f"{name} is not used by {method}")
    return _result(spec, method, found)


USED_BY = {
    "covariates": ("cuped", "ols", "did", "doubly_robust", "matching", "causal_impact"),
    "ridge": ("augmented_synthetic_control",),
    "fixed_effects": ("synthetic_control", "augmented_synthetic_control", "did"),
}


def _fields(spec: Mapping[str, Any], kind: str, method: str) -> None:
    """What a specification asks for must be done or refused.

    Raises:
        BadInput: a field that this method cannot honour, or a cost that is none.
    """
    if spec.get("predictors") and method != "synthetic_control":
        raise BadInput(f"predictors: only synthetic_control matches on them, not {method}")
    if spec.get("monitor") is not None:
        if not isinstance(spec["monitor"], Mapping):
            raise BadInput('monitor: an object was expected, such as {"looks": 4, "duration": 8}')
        if kind != "geo" and method not in ("ttest", "cuped"):
            raise BadInput(f"monitor: {method} of {kind} cannot be looked at while it runs")
        if spec.get("cells") is not None:
            raise BadInput("monitor and cells: one of them at a time")
    if spec.get("cells") is not None and kind != "geo":
        raise BadInput(f"cells: only geo has them, not {kind}")
    cost = spec.get("cost")
    if cost is None:
        return
    if isinstance(cost, bool) or not isinstance(cost, str | int | float):
        raise BadInput(f"cost is {cost!r}: a column or an amount was expected")
    if not isinstance(cost, str) and not (math.isfinite(cost) and cost > 0):
        raise BadInput(f"cost is {cost!r}: an amount above 0 was expected")
    a_column = kind == "geo" or method in ("ttest", "naive", "cuped") or (kind == "did" and not spec.get("post"))
    if isinstance(cost, str) and not a_column:
        raise BadInput(f"cost: {method} of {kind} takes an amount, not a column")


def looks_of(monitor: Mapping[str, Any], alpha: float) -> list[tuple[int, float]]:
    """When a running geo test is looked at, and the level of each look; the levels add up to ``alpha``.

    Looks are evenly spaced and spend alpha in proportion to (j / K)^2, so that late looks, which know
    more, have more of it. The sum bounds the chance of any false alarm, however the looks are correlated.
    """
    count = int(number(monitor, "looks", 4, 1, 20))
    duration = int(number(monitor, "duration", None, 1, 10_000))
    if count > duration:
        raise BadInput(f"monitor.looks is {count}: a test of {duration} periods has no more looks than periods")
    ends = [math.ceil(duration * (j + 1) / count) for j in range(count)]
    return [(end, alpha * (2 * j + 1) / count**2) for j, end in enumerate(ends)]


def _watched(spec: Mapping[str, Any], kind: str, method: str, frame: pl.DataFrame, where: str) -> dict[str, Any]:
    """A test that is looked at while it runs, by the rule set beforehand: it stops at the first look that finds an effect."""
    cut = _cut(spec, frame, where, fill=0.0 if method in ("gbr", "tbr") else None)
    looks = looks_of(spec["monitor"], number(spec, "alpha", 0.1, 1e-4, 0.5))
    reached = [(place, end, level) for place, (end, level) in enumerate(looks, 1) if end <= cut.length]
    if not reached:
        raise BadInput(f"{where}: {cut.length} periods of the test so far; the first look comes after {looks[0][0]}")
    plain = {name: value for name, value in spec.items() if name != "monitor"}
    told: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for place, end, level in reached:
        last = cut.panel.times[cut.test.start + end - 1]
        level = max(level, 1e-4)
        result = _read({**plain, "end": last, "alpha": level}, kind, method, frame, where)
        crossed = result["p_value"] < level
        one = {"look": place, "time": last, "periods": end, "level": level, "p_value": result["p_value"]}
        told.append({**one, "interval": result["interval"], "found": crossed})
        if crossed:
            break
    if told[-1]["found"]:
        decision = "stop: an effect is found"
    else:
        decision = "the test has ended" if told[-1]["look"] == len(looks) else "go on"
    result["diagnostics"]["monitoring"] = {"looks": told, "of": len(looks), "decision": decision}
    return result


def _cells(spec: Mapping[str, Any], kind: str, method: str, frame: pl.DataFrame, where: str) -> dict[str, Any]:
    """Several treatments at once: all cells together, and each alone with the others left out.

    p-values of the cells are also given after Holm, since several questions are asked of one test.
    """
    cells = spec["cells"]
    if not isinstance(cells, Mapping) or not cells:
        raise BadInput('cells: an object of lists of units was expected, such as {"video": ["chicago"]}')
    every: list[str] = []
    for name, units in cells.items():
        if not isinstance(units, list) or not units:
            raise BadInput(f"cells: {name} is {units!r}; a list of units was expected")
        every += [str(unit) for unit in units]
    folded = [unit.casefold() for unit in every]
    twice = sorted({unit for unit in folded if folded.count(unit) > 1})
    if twice:
        raise BadInput(f"cells: {twice[0]} stands in two cells")
    named = {str(unit).casefold() for unit in spec.get("treated_units") or every}
    if named != set(folded):
        raise BadInput("treated_units and cells name different units; give one of them")
    plain = {name: value for name, value in spec.items() if name not in ("cells", "treatment")}
    unit = panels.column(frame, spec.get("unit", "unit"), where)
    lower = frame[unit].cast(pl.String).str.strip_chars().str.to_lowercase()
    whole = _read({**plain, "treated_units": every}, kind, method, frame, where)
    told = {}
    for name, units in cells.items():
        mine = {str(one).casefold() for one in units}
        rest = frame.filter(~lower.is_in([one.lower() for one in every if one.casefold() not in mine]))
        one = _read({**plain, "treated_units": units}, kind, method, rest, where)
        told[name] = {key: one[key] for key in ("estimate", "interval", "p_value", "iroas", "verdict")}
    worst = 0.0
    for rank, name in enumerate(sorted(told, key=lambda cell: told[cell]["p_value"])):
        worst = max(worst, min(1.0, told[name]["p_value"] * (len(told) - rank)))
        told[name]["p_value_holm"] = worst
    whole["diagnostics"]["cells"] = told
    return whole


def _result(spec: Mapping[str, Any], method: str, found: Found) -> dict[str, Any]:
    alpha = number(spec, "alpha", 0.1, 1e-4, 0.5)
    total = found.att * found.count
    low, high = found.interval
    iroas = found.iroas
    cost = spec.get("cost")
    if iroas is None and isinstance(cost, int | float):
        iroas = {
            "estimate": total / cost,
            "interval": [_plain(low * found.count / cost), _plain(high * found.count / cost)],
            "cost": float(cost),
        }
    mde = spec.get("mde")
    verdict = "effect" if found.p_value < alpha else "not_enough_evidence"
    if verdict != "effect" and isinstance(mde, int | float) and mde > 0:
        bound = mde * abs(found.base) if spec.get("relative", True) and found.base else mde
        if -bound <= low and high <= bound:
            verdict = "no_effect"
    if verdict == "not_enough_evidence":
        found.diagnostics["would_need"] = _needed(found, alpha)
    told = {
        "method": method,
        "estimate": {
            "att": found.att,
            "cumulative": total,
            "lift_percent": 100 * found.att / found.base if found.base else None,
        },
        "interval": [_plain(low), _plain(high)],
        "interval_of": "att",
        "interval_level": 1 - alpha,
        "p_value": found.p_value,
        "iroas": iroas,
        "verdict": verdict,
        "diagnostics": found.diagnostics,
        "warnings": found.warnings,
        "series": found.series,
    }
    return dict(_finite(told))


def _finite(value: Any) -> Any:
    """The same with null for what is no number of JSON."""
    if isinstance(value, float):
        return _plain(value)
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _needed(found: Found, alpha: float) -> str:
    half = (found.interval[1] - found.interval[0]) / 2
    if not math.isfinite(half) or not found.att:
        return "more periods before and during the test"
    times = (half / abs(found.att) * (st.norm.ppf(1 - alpha / 2) + 0.84) / st.norm.ppf(1 - alpha / 2)) ** 2
    return f"about {max(times, 1.1):.1f} times the data, if the true effect is the one seen"


def _tails(spec: Mapping[str, Any]) -> int:
    tails = spec.get("tails", 2)
    if tails not in (1, 2):
        raise BadInput(f"tails is {tails!r}: 1 or 2")
    return int(tails)


def _t_test(
    estimate: float, error: float, freedom: float, spec: Mapping[str, Any]
) -> tuple[tuple[float, float], float]:
    """Interval and p-value of a t-distributed estimate; one tail looks for a gain."""
    alpha = number(spec, "alpha", 0.1, 1e-4, 0.5)
    law = st.t(freedom) if math.isfinite(freedom) else st.norm()
    if error <= 0:
        return (estimate, estimate), 0.0 if estimate else 1.0
    if _tails(spec) == 1:
        return (estimate - law.ppf(1 - alpha) * error, math.inf), float(law.sf(estimate / error))
    half = law.ppf(1 - alpha / 2) * error
    return (estimate - half, estimate + half), float(2 * law.sf(abs(estimate) / error))


# -- people


def _columns(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> tuple[Array, Array]:
    """Outcome and 0/1 treatment per row."""
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    name = panels.column(frame, spec.get("treatment", "treatment"), where)
    t = panels.numbers(frame, name, where)
    if not set(np.unique(t)) <= {0.0, 1.0} or len(np.unique(t)) < 2:
        raise BadInput(f"{where}: {name} must hold 0 and 1, both")
    _varies(y, spec, where)
    return y, t


def _varies(y: Array, spec: Mapping[str, Any], where: str) -> None:
    if not np.ptp(y):
        raise BadInput(
            f"{where}: {spec.get('outcome', 'outcome')} is {y.flat[0]:g} in every row; nothing can be measured"
        )


def _covariates(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, *, needed: bool = False) -> Array:
    names = spec.get("covariates") or []
    if needed and not names:
        raise BadInput("covariates: at least one column was expected")
    columns = []
    for name in names:
        own = panels.column(frame, name, where)
        values = frame[own].to_list()
        try:
            columns.append(np.array([float(v) for v in values]))
        except (TypeError, ValueError):
            kinds = sorted({str(v) for v in values})
            if len(kinds) > 50:
                raise BadInput(
                    f"{where}: {own} has {len(kinds)} different texts; numbers or a few words were expected"
                ) from None
            columns += [np.array([float(str(v) == kind) for v in values]) for kind in kinds[1:]]
    return np.column_stack(columns) if columns else np.empty((frame.height, 0))


def _ttest(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    y, t = _columns(spec, frame, where)
    return _welch(y[t == 1], y[t == 0], spec)


def _welch(a: Array, b: Array, spec: Mapping[str, Any]) -> Found:
    if min(len(a), len(b)) < 2:
        raise BadInput("at least two rows on each side are needed")
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if error else len(a) + len(b) - 2
    att = float(a.mean() - b.mean())
    interval, p = _always_valid(att, error, spec) if spec.get("monitor") else _t_test(att, error, freedom, spec)
    found = Found(
        att, interval, p, len(a), float(b.mean()), {"n_treatment": len(a), "n_control": len(b), "std_error": error}
    )
    _sample_ratio(found, len(a), len(b), spec)
    return found


def _always_valid(estimate: float, error: float, spec: Mapping[str, Any]) -> tuple[tuple[float, float], float]:
    """Interval and p-value that hold at every look, however often and whenever one stops (mixture SPRT, Johari 2017).

    ``monitor.effect``, set beforehand, is the effect for which the test is quickest.
    """
    alpha = number(spec, "alpha", 0.1, 1e-4, 0.5)
    if _tails(spec) == 1:
        raise BadInput("tails is 1: a test that is watched has two sides")
    hoped = number(spec["monitor"], "effect", None, 1e-300, 1e300) ** 2
    if error <= 0:
        return (estimate, estimate), 0.0 if estimate else 1.0
    known = error**2
    wide = 2 * known * (known + hoped) / hoped
    grown = 0.5 * math.log((known + hoped) / known)
    half = math.sqrt(wide * (grown - math.log(alpha)))
    p = 1.0 if estimate**2 / wide <= grown else math.exp(grown - estimate**2 / wide)
    if (p < alpha) != (abs(estimate) > half):  # the last digit
        p = alpha if abs(estimate) <= half else math.nextafter(alpha, 0.0)
    return (estimate - half, estimate + half), p


def _sample_ratio(found: Found, treated: int, control: int, spec: Mapping[str, Any]) -> None:
    """A share of people far from the planned one tells of a broken assignment."""
    share = 1 / (1 + 1 / number(spec, "ratio", 1.0, 1e-3, 1e3))
    p = float(st.binomtest(treated, treated + control, share).pvalue)
    found.diagnostics["sample_ratio_p"] = p
    if p < 1e-3 and spec.get("kind") in ("ab", "audience"):
        found.warnings.append(
            f"{treated} treated and {control} control are not the planned ratio (p {p:.1e}): find out why before believing the effect"
        )


def _ratio(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Ratio of sums per side (revenue per visit ...), by the delta method over rows."""
    y, t = _columns(spec, frame, where)
    d = panels.numbers(frame, panels.column(frame, spec.get("denominator", "denominator"), where), where)
    parts = []
    for side in (1, 0):
        num, den = y[t == side], d[t == side]
        if den.sum() == 0:
            raise BadInput(f"{where}: the denominator sums to 0 on one side")
        value = num.sum() / den.sum()
        linear = (num - value * den) / den.mean()
        parts.append((value, linear.var(ddof=1) / len(num), len(num)))
    att = float(parts[0][0] - parts[1][0])
    interval, p = _t_test(att, math.sqrt(parts[0][1] + parts[1][1]), math.inf, spec)
    return Found(
        att,
        interval,
        p,
        float(d[t == 1].sum()),
        float(parts[1][0]),
        {"n_treatment": parts[0][2], "n_control": parts[1][2]},
    )


def _cuped(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Outcome less what pre-period covariates foretell (Deng 2013): the same effect, smaller variance."""
    y, t = _columns(spec, frame, where)
    x = _covariates(spec, frame, where, needed=True)
    centred = x - x.mean(axis=0)
    theta, *_ = np.linalg.lstsq(centred, y - y.mean(), rcond=None)
    adjusted = y - centred @ theta
    found = _welch(adjusted[t == 1], adjusted[t == 0], spec)
    found.diagnostics["variance_factor"] = float(adjusted.var() / y.var()) if y.var() else 1.0
    found.diagnostics["covariate_gap_p"] = [
        float(st.ttest_ind(x[t == 1, i], x[t == 0, i], equal_var=False).pvalue) for i in range(x.shape[1])
    ]
    if any(p < 1e-3 for p in found.diagnostics["covariate_gap_p"]):
        found.warnings.append("a covariate differs between the sides: it may have been touched by the treatment")
    return found


def _ols(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Least squares on treatment and covariates, errors robust to unequal variance (HC1)."""
    y, t = _columns(spec, frame, where)
    x = np.column_stack([np.ones(len(y)), t, _covariates(spec, frame, where)])
    beta, error = _hc1(x, y)
    interval, p = _t_test(beta[1], error[1], len(y) - x.shape[1], spec)
    found = Found(
        float(beta[1]),
        interval,
        p,
        float(t.sum()),
        float(y[t == 1].mean() - beta[1]),
        {"n": len(y), "std_error": float(error[1])},
    )
    if spec.get("kind") == "observational":
        found.warnings.append(
            "nobody was assigned at random: what is not among the covariates may explain the difference"
        )
    return found


def _hc1(x: Array, y: Array, groups: Sequence[Any] | None = None) -> tuple[Array, Array]:
    bread = np.linalg.pinv(x.T @ x)
    beta = bread @ x.T @ y
    scores = x * (y - x @ beta)[:, None]
    n, k = x.shape
    if groups is not None:
        names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
        summed = np.zeros((len(names), k))
        np.add.at(summed, [names[g] for g in groups], scores)
        scores, factor = summed, len(names) / max(len(names) - 1, 1) * (n - 1) / max(n - k, 1)
    else:
        factor = n / max(n - k, 1)
    return beta, np.sqrt(np.maximum(np.diag(bread @ (scores.T @ scores) @ bread) * factor, 0))


def _naive(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    found = _ttest(spec, frame, where)
    found.warnings.append("a plain difference of means: right only under random assignment")
    return found


def _did_rows(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Two groups, before and after: rows are people or shops at one time each."""
    if not spec.get("post"):
        return _did_panel(spec, frame, where)
    y, t = _columns(spec, frame, where)
    post = panels.numbers(frame, panels.column(frame, spec["post"], where), where)
    if not set(np.unique(post)) <= {0.0, 1.0}:
        raise BadInput(f"{where}: {spec['post']} must hold 0 and 1")
    x = np.column_stack([np.ones(len(y)), t, post, t * post, _covariates(spec, frame, where)])
    groups = frame[panels.column(frame, spec["unit"], where)].to_list() if spec.get("unit") else None
    beta, error = _hc1(x, y, groups)
    freedom = (len(set(groups)) if groups else len(y)) - (1 if groups else x.shape[1])
    interval, p = _t_test(beta[3], error[3], max(freedom, 1), spec)
    mine = (t == 1) & (post == 1)
    return Found(
        float(beta[3]),
        interval,
        p,
        float(mine.sum()),
        float(y[mine].mean() - beta[3]),
        {"n": len(y), "std_error": float(error[3])},
        ["rests on parallel trends: without treatment both groups would have moved alike"],
    )


def _propensity(x: Array, t: Array) -> Array:
    from sklearn.linear_model import LogisticRegression

    scaled = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    return np.asarray(LogisticRegression(C=1e3, max_iter=2000).fit(scaled, t).predict_proba(scaled)[:, 1])


def _overlap(e: Array, t: Array) -> tuple[dict[str, Any], list[str]]:
    outside = float(((e[t == 1] > e[t == 0].max()) | (e[t == 1] < e[t == 0].min())).mean())
    told = {"propensity": [float(e.min()), float(e.max())], "treated_outside_overlap": outside}
    words = ["nobody was assigned at random: what is not among the covariates may explain the difference"]
    if outside > 0.05:
        words.append(f"{outside:.0%} of the treated have no comparable control")
    return told, words


def _doubly_robust(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Effect on the treated: outcome regression corrected by propensity weights (right if either model is)."""
    y, t = _columns(spec, frame, where)
    x = _covariates(spec, frame, where, needed=True)
    e = np.clip(_propensity(x, t), 0.01, 0.99)
    design = np.column_stack([np.ones(len(y)), x])
    beta = np.linalg.lstsq(design[t == 0], y[t == 0], rcond=None)[0]
    rest = y - design @ beta
    weight = e / (1 - e)
    share = t.mean()
    score = (t * rest - (1 - t) * weight * rest) / share
    att = float(score.mean())
    error = float(np.std(score - t * att / share, ddof=1) / math.sqrt(len(y)))
    interval, p = _t_test(att, error, math.inf, spec)
    told, words = _overlap(e, t)
    return Found(att, interval, p, float(t.sum()), float(y[t == 1].mean() - att), {**told, "std_error": error}, words)


def _matching(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Each treated beside its nearest control by propensity, with replacement; errors as Abadie and Imbens (2006)."""
    y, t = _columns(spec, frame, where)
    x = _covariates(spec, frame, where, needed=True)
    logit = np.log(np.clip(_propensity(x, t), 1e-6, 1 - 1e-6))
    treated, control = np.flatnonzero(t == 1), np.flatnonzero(t == 0)
    order = control[np.argsort(logit[control], kind="stable")]
    at = np.searchsorted(logit[order], logit[treated])
    left, right = order[np.clip(at - 1, 0, len(order) - 1)], order[np.clip(at, 0, len(order) - 1)]
    chosen = np.where(np.abs(logit[left] - logit[treated]) <= np.abs(logit[right] - logit[treated]), left, right)
    gaps = y[treated] - y[chosen]
    att = float(gaps.mean())
    used = np.bincount(chosen, minlength=len(y))
    spread = float(y[control].var(ddof=1))
    error = math.sqrt(
        (float(((gaps - att) ** 2).sum()) + spread * float((used * (used - 1)).sum())) / len(treated) ** 2
    )
    interval, p = _t_test(att, error, math.inf, spec)
    told, words = _overlap(np.exp(logit), t)
    return Found(
        att,
        interval,
        p,
        len(treated),
        float(y[treated].mean() - att),
        {**told, "controls_used": int((used > 0).sum())},
        words,
    )


# -- panels


@dataclass(frozen=True)
class Cut:
    """A panel cut into treated and control, before and during."""

    panel: Panel
    treated: list[int]
    control: list[int]
    test: slice
    frame: pl.DataFrame

    @property
    def mine(self) -> Array:
        return self.panel.y_UT[self.treated].mean(axis=0)

    @property
    def others(self) -> Array:
        return self.panel.y_UT[self.control]

    @property
    def pre(self) -> Array:
        return np.arange(len(self.panel.times)) < self.test.start

    @property
    def length(self) -> int:
        return int(self.test.stop - self.test.start)

    @property
    def count(self) -> float:
        return float(self.length * len(self.treated))


def _cut(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, *, fill: float | None = None) -> Cut:
    data = panels.panel(
        frame, spec.get("unit", "unit"), spec.get("time", "time"), spec.get("outcome", "outcome"), where, fill=fill
    )
    named = spec.get("treated_units")
    start, end = spec.get("start"), spec.get("end")
    if not named and spec.get("treatment"):
        flags = panels.panel(frame, spec.get("unit", "unit"), spec.get("time", "time"), spec["treatment"], where)
        on = flags.y_UT > 0
        named = [flags.units[u] for u in range(len(flags.units)) if on[u].any()]
        if start is None and on.any():
            start = flags.times[int(np.flatnonzero(on.any(axis=0))[0])]
    if not named:
        raise BadInput("treated_units: a list of units was expected (or treatment: a 0/1 column)")
    treated = data.rows_of(named, "treated_units")
    if start is None:
        raise BadInput("start: the first period of the test is missing")
    first = data.place_of(start, "start")
    last = data.place_of(end, "end", last=True) if end is not None else len(data.times) - 1
    if last < first:
        raise BadInput(f"end {end} lies before start {start}")
    if first < 3:
        raise BadInput(f"start: {first} periods before the test; at least 3 are needed")
    keep = last + 1
    data = Panel(data.units, data.times[:keep], data.y_UT[:, :keep])
    _varies(data.y_UT, spec, where)
    control = [u for u in range(len(data.units)) if u not in set(treated)]
    if not control:
        raise BadInput("treated_units: every unit is treated; nothing is left to compare with")
    return Cut(data, treated, control, slice(first, keep), frame)


Gap = Callable[[Array, Array, Array], tuple[Array, Array]]  # treated, controls, periods to fit on: gap, weights
PUBLISHED = "errors are taken as independent from period to period, as published: its size is not valid where they are correlated"


def _gap_method(
    spec: Mapping[str, Any],
    cut: Cut,
    gap: Gap,
    diagnostics: dict[str, Any],
    published: Callable[[], Any] | None = None,
    beside_UK: Array | None = None,
) -> Found:
    """Effect, interval and p-value of a method that gives a gap in every period.

    Inference ranks the gap among placebo sets of untreated units; where these are too few to reject
    anything, among blocks in time.

    Args:
        published: the interval and p-value of the method's authors, for ``iid`` and ``textbook``.
        beside_UK: what ``gap`` needs of each unit besides its outcomes; it finds them after the periods.
    """
    alpha, inference = number(spec, "alpha", 0.1, 1e-4, 0.5), spec.get("inference", "block")
    mine, test, before = cut.mine, cut.test, cut.test.start
    seed = seed_of(spec)
    given, others = mine, cut.others
    if beside_UK is not None:
        given = np.append(mine, beside_UK[cut.treated].mean(axis=0))
        others = np.hstack([others, beside_UK[cut.control]])
    series, weights = gap(given, others, cut.pre)
    att = float(series[test].mean())
    every = np.ones(len(mine), bool)
    warnings: list[str] = []
    error = placebo.error_before(series, before)
    placebos = placebo.gaps(
        lambda y, rest: gap(y, rest, cut.pre)[0], others, len(cut.treated), before, seed, placebo.wanted(alpha)
    )
    in_space = 1 / (len(placebos) + 1) < alpha

    def p_of(effect: float, *, of_sum: bool = False) -> float:
        changed = given.copy()
        changed[test] -= effect
        residual, _ = gap(changed, others, every)
        if inference == "iid":
            return synthetic.iid_p(residual, test, seed=seed, of_sum=of_sum)
        return synthetic.block_p(residual, test)

    if published is not None and inference != "block":
        interval, p = published()
        how = "textbook"
        warnings.append(PUBLISHED)
    elif inference != "iid" and in_space:
        how = "placebo"
        if inference == "textbook":
            warnings.append("this method has no textbook interval: the one of placebo units is given instead")
        interval, p = placebo.ranked(att, error, placebos[:, test].mean(axis=1), alpha, tails=_tails(spec))
    else:
        how = "iid" if inference == "iid" else "block"
        if inference == "textbook":
            warnings.append("this method has no textbook interval: the one of blocks in time is given instead")
        if _tails(spec) == 1:
            raise BadInput("tails is 1: blocks in time have no sides, and there are too few units for placebos; use 2")
        p = p_of(0.0)
        spread = float(np.std(series[cut.pre])) or abs(att) or 1.0
        if p_of(att) < alpha:  # no constant effect at all passes: the statistic sees a noisier test period
            warnings.append(
                "the test rejects every constant effect, also the one it estimates; the interval is that of the mean gap under the same shuffles"
            )
            interval = synthetic.invert(
                lambda effect: p_of(effect, of_sum=True), att, spread / 4, alpha, zero_kept=p >= alpha
            )
        else:
            interval = synthetic.invert(p_of, att, spread / 4, alpha)
        if how == "iid":
            warnings.append(
                "iid inference reproduces published figures; its size is not valid where periods are correlated"
            )
        if 1 / len(mine) >= alpha:
            warnings.append(
                f"{len(mine)} periods allow no p-value under {1 / len(mine):.3f}: nothing can be significant at {alpha:g}"
            )
    pre_gap = series[cut.pre]
    scale = float(np.abs(mine[cut.pre]).mean()) or 1.0
    diagnostics |= {
        "inference": how,
        "l2": float(np.sqrt((pre_gap**2).sum())),
        "pre_mape": float(np.abs(pre_gap).mean() / scale),
        "placebo_sets": len(placebos),
        "smallest_p": 1 / (len(placebos) + 1) if how == "placebo" else 1 / len(mine),
        "weights": {
            cut.panel.units[cut.control[i]]: float(w)
            for i, w in sorted(enumerate(weights), key=lambda iw: -abs(iw[1]))[:15]
            if abs(w) > 1e-4
        },
    }
    if how == "placebo":
        diagnostics["placebo_effects"] = sorted(float(v) for v in placebos[:, test].mean(axis=1) * error)
        diagnostics["p_of_blocks_in_time"] = p_of(0.0)
    diagnostics |= _placebo_in_time(gap, given, others, cut)
    if diagnostics["pre_mape"] > 0.15:
        warnings.append(
            f"before the test the control misses the treated by {diagnostics['pre_mape']:.0%}: do not lean on the size of the effect"
        )
    base = float((mine[test] - series[test]).mean())
    told = _told(cut, series, error, placebos if in_space else None, alpha)
    iroas = _iroas_of_column(spec, cut, att, interval, series, warnings)
    return Found(att, interval, p, cut.count, base, diagnostics, warnings, told, iroas)


def _told(cut: Cut, series: Array, error: float, placebos: Array | None, alpha: float) -> list[dict[str, Any]]:
    """Observed and expected period by period; with placebos the band in which they stay, also added up over the test."""
    mine, test = cut.mine, cut.test
    summed = np.cumsum(series[test])
    told: list[dict[str, Any]] = [
        {
            "time": time,
            "observed": float(mine[i]),
            "expected": float(mine[i] - series[i]),
            "effect": float(series[i]),
            "test": bool(i >= test.start),
        }
        for i, time in enumerate(cut.panel.times)
    ]
    for i, row in enumerate(told[test.start :]):
        row["cumulative"] = float(summed[i])
    if placebos is not None:
        running = np.cumsum(placebos[:, test], axis=1)
        for i, row in enumerate(told):
            half = placebo.reach(placebos[:, i], alpha) * error
            row |= {"low": row["expected"] - half, "high": row["expected"] + half}
            if row["test"]:
                half = placebo.reach(running[:, i - test.start], alpha) * error
                row |= {"cumulative_low": row["cumulative"] - half, "cumulative_high": row["cumulative"] + half}
    return told


def _placebo_in_time(gap: Gap, mine: Array, others: Array, cut: Cut) -> dict[str, Any]:
    """The same analysis with a test that never was, in the last stretch before the true one."""
    start = cut.test.start - cut.length
    if start < 3:
        return {}
    fit = np.arange(len(cut.panel.times)) < start
    series, _ = gap(mine, others, fit)
    return {"placebo_in_time": float(series[start : cut.test.start].mean())}


def _iroas_of_column(
    spec: Mapping[str, Any], cut: Cut, att: float, interval: tuple[float, float], gap_T: Array, warnings: list[str]
) -> dict[str, Any] | None:
    """What a unit of added money brought, where money is a column: spend above the usual of before.

    Usual spend that varies makes the denominator uncertain too; the interval is then Fieller's, with the
    errors of both before the test and as wide as the interval of the effect.
    """
    if not isinstance(spec.get("cost"), str):
        return None
    money = _money(spec, cut.frame)
    rows = money.rows_of([cut.panel.units[u] for u in cut.treated], "cost")
    spent = money.y_UT[rows][:, : cut.test.stop].mean(axis=0)
    before = cut.test.start
    usual = float(spent[:before].mean())
    added = float(spent[cut.test].mean()) - usual
    if added <= 0:
        warnings.append(
            f"the treated spent {added + usual:,.2f} a period during the test and {usual:,.2f} before: no money was added, so there is no iROAS"
        )
        return None
    over, error = spent[:before] - usual, placebo.error_before(gap_T, before)
    low, high = interval
    if not over.any():
        told = (low / added, high / added)
    else:
        wide = (att - low if math.isinf(high) else max(att - low, high - att)) / error
        told = fieller(att, added, wide, error**2, float((gap_T[:before] * over).mean()), float((over**2).mean()))
        if math.isinf(high) and math.isfinite(told[1]):
            told = (told[0], math.inf)
        if not math.isfinite(told[0]):
            warnings.append("the added spend is no larger than the usual ups and downs of spend: iROAS has no bounds")
    return {
        "estimate": att / added,
        "interval": [_plain(v) for v in told],
        "cost": added * cut.count,
        "usual_cost": usual * cut.count,
    }


def _money(spec: Mapping[str, Any], frame: pl.DataFrame) -> Panel:
    """The cost column as a panel; no row means nothing was spent."""
    name = panels.column(frame, spec["cost"], "cost")
    panels.no_negative(panels.numbers(frame, name, "cost"), frame, name, "cost")
    return panels.panel(frame, spec.get("unit", "unit"), spec.get("time", "time"), name, "cost", fill=0.0)


def fieller(top: float, bottom: float, wide: float, s_tt: float, s_tb: float, s_bb: float) -> tuple[float, float]:
    """The ratios r for which ``top - r bottom`` lies within ``wide`` of its own standard errors of zero (Fieller 1954).

    Unbounded where the bottom itself cannot be told from zero.
    """
    if not math.isfinite(wide):
        return -math.inf, math.inf
    a = bottom**2 - wide**2 * s_bb
    b = top * bottom - wide**2 * s_tb
    c = top**2 - wide**2 * s_tt
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return (b - root) / a, (b + root) / a


def _iroas_of_people(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, found: Found) -> None:
    """The same for people: what the treated cost more than the others, each side's spread counted."""
    y, t = _columns(spec, frame, where)
    name = panels.column(frame, spec["cost"], where)
    cost = panels.numbers(frame, name, where)
    panels.no_negative(cost, frame, name, where)
    sides = [(y[t == side], cost[t == side]) for side in (1, 0)]
    added = float(sides[0][1].mean() - sides[1][1].mean())
    if added <= 0:
        found.warnings.append("the treated cost no more than the others: there is no iROAS")
        return
    s_tb = sum(float(np.cov(a, b)[0, 1]) / len(a) for a, b in sides)
    s_bb = sum(float(b.var(ddof=1)) / len(b) for _, b in sides)
    error, (low, high) = float(found.diagnostics["std_error"]), found.interval
    wide = (found.att - low) / error if error > 0 else 0.0
    told = fieller(found.att, added, wide, error**2, s_tb, s_bb)
    if math.isinf(high):
        told = (told[0], math.inf)
    found.iroas = {"estimate": found.att / added, "interval": [_plain(v) for v in told], "cost": added * found.count}


def _synthetic_control(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    cut = _cut(spec, frame, where)
    fixed = bool(spec.get("fixed_effects", False))
    told: dict[str, Any] = {"fixed_effects": fixed}
    beside, importance = None, np.empty(0)
    if spec.get("predictors"):
        names, beside = _predictors(spec, cut, where)
        order = [cut.treated, *([u] for u in cut.control)]
        x_UK = np.array([beside[one].mean(axis=0) for one in order])
        y_UT = np.array([cut.panel.y_UT[one].mean(axis=0) for one in order])[:, : cut.test.start]
        importance = synthetic.predictor_importance(x_UK, y_UT)
        told["predictors"] = dict(zip(names, (float(v) for v in importance), strict=True))
    periods = len(cut.panel.times)

    def gap(treated: Array, others: Array, fit: Array) -> tuple[Array, Array]:
        if beside is None:
            return synthetic.residuals(treated, others, fit, fixed_effects=fixed)
        weights = synthetic.matched(treated[periods:], others[:, periods:], importance)
        both = np.vstack([treated, others])[:, :periods]
        both = synthetic.centred(both, fit) if fixed else both
        return both[0] - weights @ both[1:], weights

    naive = cut.mine - cut.others.mean(axis=0)
    naive = naive - naive[cut.pre].mean() if fixed else naive
    found = _gap_method(spec, cut, gap, told, beside_UK=beside)
    scale = float(np.sqrt((naive[cut.pre] ** 2).sum()))
    found.diagnostics["scaled_l2"] = found.diagnostics["l2"] / scale if scale else 0.0
    if beside is None:
        found.diagnostics["leave_one_out"] = _leave_one_out(cut, gap, fixed=fixed)
    return found


def _predictors(spec: Mapping[str, Any], cut: Cut, where: str) -> tuple[list[str], Array]:
    """Each predictor's mean by unit over its periods, in units of its spread."""
    unit, time = (panels.column(cut.frame, spec.get(name, name), where) for name in ("unit", "time"))
    names, columns = [], []
    if not isinstance(spec["predictors"], list):
        raise BadInput("predictors: a list of {column, from, to} was expected")
    # the frame's own periods: a predictor may be known before the outcome is
    texts = list(dict.fromkeys(str(value).strip() for value in cut.frame[time].to_list()))
    keys = dict(zip(texts, panels.sorted_keys(texts), strict=True))
    axis = Panel(("all",), tuple(sorted(texts, key=lambda text: keys[text])), np.empty((1, 0)))
    for place, one in enumerate(spec["predictors"]):
        at = f"predictors[{place}]"
        if isinstance(one, str):
            one = {"column": one}
        if not isinstance(one, Mapping) or not one.get("column"):
            raise BadInput(f"{at} is {one!r}: an object with column, from and to was expected")
        name = panels.column(cut.frame, one["column"], f"{where} {at}")
        first = axis.place_of(one["from"], f"{at} from") if one.get("from") is not None else 0
        last = (
            axis.place_of(one["to"], f"{at} to", last=True)
            if one.get("to") is not None
            else axis.times.index(cut.panel.times[cut.test.start]) - 1
        )
        if axis.times.index(cut.panel.times[cut.test.start]) <= last:
            raise BadInput(f"{at}: reaches into the test, which begins {cut.panel.times[cut.test.start]}")
        if last < first:
            raise BadInput(f"{at}: to lies before from")
        span = axis.times[first : last + 1]
        values = panels.means(cut.frame, unit, time, name, set(span), cut.panel.units, where)
        spread = float(values.std(ddof=1))
        if spread == 0:
            raise BadInput(f"{at}: {name} is the same in every unit and tells nothing")
        columns.append(values / spread)
        names.append(f"{name} {span[0]} to {span[-1]}" if len(span) > 1 else f"{name} {span[0]}")
    return names, np.column_stack(columns)


def _leave_one_out(cut: Cut, gap: Gap, *, fixed: bool) -> dict[str, float]:
    """The effect without each of the three heaviest controls."""
    _, weights = gap(cut.mine, cut.others, cut.pre)
    told = {}
    for place in np.argsort(-weights)[:3]:
        if weights[place] > 0.01:
            rest = np.delete(cut.others, place, axis=0)
            series, _ = synthetic.residuals(cut.mine, rest, cut.pre, fixed_effects=fixed)
            told[cut.panel.units[cut.control[place]]] = float(series[cut.test].mean())
    return told


def _augmented(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Synthetic control whose remaining misfit a ridge regression takes away (Ben-Michael 2021)."""
    cut = _cut(spec, frame, where)
    fixed = bool(spec.get("fixed_effects", False))
    asked = spec.get("ridge", "auto")
    ridge = float(asked) if isinstance(asked, int | float) and not isinstance(asked, bool) else None

    def weights_of(x_CT: Array, y_T: Array, penalty: float) -> Array:
        plain = synthetic.simplex_weights(x_CT, y_T)
        rest = y_T - plain @ x_CT
        kernel = x_CT.T @ x_CT + penalty * np.eye(x_CT.shape[1])
        return plain + x_CT @ np.linalg.solve(kernel, rest)

    def chosen(x_CT: Array, y_T: Array) -> float:
        size = float(np.linalg.norm(x_CT, 2) ** 2)
        grid = [size * 10.0**-k for k in range(5)]
        half = max(len(y_T) * 3 // 4, 2)
        scores = [
            float(((y_T[half:] - weights_of(x_CT[:, :half], y_T[:half], p) @ x_CT[:, half:]) ** 2).sum()) for p in grid
        ]
        return grid[int(np.argmin(scores))]

    def gap(treated: Array, others: Array, fit: Array) -> tuple[Array, Array]:
        both = np.vstack([treated, others])
        both = synthetic.centred(both, fit) if fixed else both
        penalty = ridge if ridge is not None else used
        weights = weights_of(both[1:, fit], both[0, fit], penalty)
        return both[0] - weights @ both[1:], weights

    both = np.vstack([cut.mine, cut.others])
    both = synthetic.centred(both, cut.pre) if fixed else both
    used = ridge if ridge is not None else chosen(both[1:, cut.pre], both[0, cut.pre])
    return _gap_method(spec, cut, gap, {"fixed_effects": fixed, "ridge": used})


def _synthetic_did(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Weights over units and over periods, then a difference in differences (Arkhangelsky 2021); errors by placebo units."""
    cut = _cut(spec, frame, where)
    estimate = _sdid(cut.mine, cut.others, cut.test, len(cut.treated))
    rng = np.random.default_rng(seed_of(spec))
    size = min(len(cut.treated), max(len(cut.control) // 2, 1))
    placebos = []
    for _ in range(200):
        drawn = rng.choice(len(cut.control), size, replace=False)
        rest = np.delete(cut.others, drawn, axis=0)
        if len(rest) > 1:
            placebos.append(_sdid(cut.others[drawn].mean(axis=0), rest, cut.test, size))
    error = float(np.std(placebos, ddof=1)) if len(placebos) > 10 else math.inf
    interval, p = _t_test(estimate, error, math.inf, spec)
    mine, warnings = cut.mine, [] if math.isfinite(error) else ["too few units to play placebos: there is no interval"]
    plain = synthetic.centred(np.vstack([mine, cut.others.mean(axis=0)]), cut.pre)
    iroas = _iroas_of_column(spec, cut, estimate, interval, plain[0] - plain[1], warnings)
    return Found(
        estimate,
        interval,
        p,
        cut.count,
        float(mine[cut.test].mean() - estimate),
        {"std_error": error, "placebo_units": len(placebos)},
        warnings,
        [],
        iroas,
    )


def _sdid(mine: Array, others: Array, test: slice, treated: int) -> float:
    pre, length = slice(0, test.start), test.stop - test.start
    noise = float(np.diff(others[:, pre], axis=1).std(ddof=1))
    zeta = (treated * length) ** 0.25 * noise
    omega = _ridge_simplex(others[:, pre], mine[pre], zeta**2 * test.start)
    lam = _ridge_simplex(others[:, pre].T, others[:, test].mean(axis=1), (1e-6 * noise) ** 2 * len(others))
    change = mine[test].mean() - lam @ mine[pre]
    return float(change - (omega @ others[:, test]).mean() + lam @ (omega @ others[:, pre]))


def _ridge_simplex(x_CT: Array, y_T: Array, penalty: float) -> Array:
    """Simplex weights with an intercept and a ridge penalty."""
    x, y = x_CT - x_CT.mean(axis=1, keepdims=True), y_T - y_T.mean()
    extra = math.sqrt(max(penalty, 0.0)) * np.eye(len(x))
    return synthetic.simplex_weights(np.hstack([x, extra]), np.append(y, np.zeros(len(x))))


def _did_panel(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Each unit's change, treated against control (published errors: clustered by unit, one number each)."""
    cut = _cut(spec, frame, where)
    change = cut.panel.y_UT[:, cut.test].mean(axis=1) - cut.panel.y_UT[:, cut.pre].mean(axis=1)
    a, b = change[cut.treated], change[cut.control]
    warnings = ["rests on parallel trends: without treatment both groups would have moved alike"]
    if len(a) > 1 and len(b) > 1:
        error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        freedom: float = min(len(a), len(b)) - 1
    else:
        error, freedom = (
            float(b.std(ddof=1)) * math.sqrt(1 + 1 / len(b)) if len(b) > 1 else math.inf,
            max(len(b) - 1, 1),
        )
        warnings.append("one treated unit: its error is taken from how much the others changed")

    def gap(treated: Array, others: Array, fit: Array) -> tuple[Array, Array]:
        both = synthetic.centred(np.vstack([treated, others.mean(axis=0)]), fit)
        return both[0] - both[1], np.full(len(others), 1 / len(others))

    att = float(a.mean() - b.mean())
    found = _gap_method(spec, cut, gap, {"std_error": error}, lambda: _t_test(att, error, freedom, spec))
    found.diagnostics.pop("weights")
    found.warnings = warnings + found.warnings
    return found


def _tbr(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Time-based regression (Kerman 2017): the treated on control totals before the test, foretold during it."""
    cut = _cut(spec, frame, where, fill=0.0)  # regions without a row sold nothing; only totals count here
    y, x = cut.mine, cut.others.sum(axis=0)
    before, n = cut.test.start, cut.length
    if x[:before].std() == 0:
        raise BadInput("tbr: the controls' total never changes before the test; no line can be fitted through it")

    def gap(treated: Array, others: Array, fit: Array) -> tuple[Array, Array]:
        total = others.sum(axis=0)
        x0, y0 = total[fit] - total[fit].mean(), treated[fit]
        slope = float((x0 * (y0 - y0.mean())).sum() / max(float((x0**2).sum()), 1e-300))
        return treated - y0.mean() - slope * (total - total[fit].mean()), np.full(len(others), slope)

    effect, _ = gap(y, cut.others, cut.pre)
    spread = float(((x[:before] - x[:before].mean()) ** 2).sum())
    squares = float((effect[:before] ** 2).sum())
    error = math.sqrt(
        squares / (before - 2) * (1 / n + 1 / before + (x[cut.test].mean() - x[:before].mean()) ** 2 / spread)
    )
    own = float(((y[:before] - y[:before].mean()) ** 2).sum())
    told = {"incremental_std_error": error * cut.count, "r2": 1 - squares / own if own else 0.0}
    att = float(effect[cut.test].mean())
    found = _gap_method(spec, cut, gap, told, lambda: _t_test(att, error, before - 2, spec))
    found.diagnostics.pop("weights")
    if found.diagnostics["r2"] < 0.8:
        found.warnings.append(
            f"before the test the control explains {found.diagnostics['r2']:.0%}: this method needs 80 %"
        )
    return found


def _gbr(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Geo-based regression (Vaver and Koehler 2011): one row per region, weights 1 / sales before.

    The published t interval trusts that weighting; by default the t-value is ranked among those of
    placebo regions instead.
    """
    cut = _cut(spec, frame, where, fill=0.0)  # regions without a row sold nothing; only totals count here
    before, during = cut.panel.y_UT[:, : cut.test.start].sum(axis=1), cut.panel.y_UT[:, cut.test].sum(axis=1)
    if (before <= 0).any():
        name = cut.panel.units[int(np.flatnonzero(before <= 0)[0])]
        raise BadInput(f"gbr: {name} sold nothing before the test and cannot be weighted; exclude it")
    if len(before) < 4:
        raise BadInput(f"gbr: {len(before)} units; a regression with three coefficients needs at least 4")
    alpha, scale = number(spec, "alpha", 0.1, 1e-4, 0.5), float(cut.length)
    t = np.zeros(len(before))
    t[cut.treated] = 1.0
    beta, error = _weighted(before, during, t)
    att, error = beta / scale, error / scale
    ratios = []
    control = np.array(cut.control)
    size = min(len(cut.treated), len(control) // 2)
    for chosen in placebo.sets(len(control), size, seed_of(spec), placebo.wanted(alpha)):
        if len(control) < 4:
            break
        t = np.zeros(len(control))
        t[list(chosen)] = 1.0
        one, spread = _weighted(before[control], during[control], t)
        ratios.append(one / max(spread, 1e-300))
    warnings = []
    in_space = 1 / (len(ratios) + 1) < alpha
    if spec.get("inference", "block") == "block" and in_space:
        interval, p = placebo.ranked(att, error, np.array(ratios), alpha, tails=_tails(spec))
    else:
        interval, p = _t_test(att, error, len(before) - 3, spec)
        warnings.append(
            "a t interval, as published: it holds only where the spread of regions grows as the weights say"
        )
    found = Found(
        att,
        interval,
        p,
        cut.count,
        float((during[cut.treated].mean() - beta) / scale),
        {"std_error": error, "placebo_sets": len(ratios)},
        warnings,
    )
    if isinstance(spec.get("cost"), str):
        money = _money(spec, cut.frame)
        cost = (
            money.y_UT[:, cut.test].sum(axis=1)
            - money.y_UT[:, : cut.test.start].sum(axis=1) * cut.length / cut.test.start
        )
        if np.ptp(cost) > 0:
            slope, spread = _weighted(before, during, cost)
            # what ranks the effect also widens the ratio: how many errors the interval reaches
            published = _t_test(slope, spread, len(before) - 3, spec)[0]
            wide = (interval[1] - interval[0]) / 2 / error if error > 0 else math.inf
            both = published if warnings else (slope - wide * spread, slope + wide * spread)
            found.iroas = {"estimate": slope, "interval": [_plain(v) for v in both], "std_error": spread}
    return found


def _weighted(before: Array, during: Array, exposure: Array) -> tuple[float, float]:
    """What a unit of exposure adds to sales during the test, and its error; regions weigh 1 / sales before."""
    weight = 1 / before  # of the published method: variance grows with the square of sales
    x = np.column_stack([np.ones(len(before)), before, exposure]) * weight[:, None]
    beta, *_ = np.linalg.lstsq(x, during * weight, rcond=None)
    rest = during * weight - x @ beta
    sigma2 = float((rest**2).sum()) / (len(before) - 3)
    return float(beta[2]), math.sqrt(sigma2 * float(np.linalg.pinv(x.T @ x)[2, 2]))


def _causal_impact(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """One series against what a local level with regressors foretells (maximum likelihood)."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    when = panels.column(frame, spec.get("time", "time"), where)
    keys = panels.sorted_keys([str(v) for v in frame[when].to_list()])
    frame = frame[sorted(range(frame.height), key=lambda row: keys[row])]
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    _varies(y, spec, where)
    times = [str(v).strip() for v in frame[when].to_list()]
    for before, after in pairwise(times):
        if before == after:
            raise BadInput(f"{where}: {after} stands twice; one series has each period once")
    panels.whole(times, where)
    axis = Panel(("series",), tuple(times), y[None, :])
    if spec.get("start") is None:
        raise BadInput("start: the first period of the intervention is missing")
    first = axis.place_of(spec["start"], "start")
    last = axis.place_of(spec["end"], "end", last=True) if spec.get("end") is not None else len(y) - 1
    if first < 10:
        raise BadInput(f"start: {first} periods before it; at least 10 are needed")
    x = _covariates(spec, frame, where)
    exog = (
        (x[:first] - x[:first].mean(axis=0), x[first : last + 1] - x[:first].mean(axis=0))
        if x.shape[1]
        else (None, None)
    )
    fitted = UnobservedComponents(y[:first], level="local level", exog=exog[0]).fit(disp=False, maxiter=500)
    ahead = fitted.get_forecast(last + 1 - first, exog=exog[1])
    expected = np.asarray(ahead.predicted_mean)
    rng = np.random.default_rng(seed_of(spec))
    paths = np.column_stack(
        [fitted.simulate(last + 1 - first, anchor="end", exog=exog[1], rng=rng) for _ in range(400)]
    )
    error = float(paths.mean(axis=0).std(ddof=1))
    gap = y[first : last + 1] - expected
    att = float(gap.mean())
    interval, p = _t_test(att, error, first - 1 - x.shape[1], spec)
    warnings = ["one series and no control: whatever else happened at the same time is in the effect"]
    shown = np.concatenate([np.asarray(fitted.fittedvalues), expected])
    series = [
        {
            "time": times[i],
            "observed": float(y[i]),
            "expected": float(shown[i]),
            "effect": float(y[i] - shown[i]),
            "test": i >= first,
        }
        for i in range(last + 1)
    ]
    return Found(
        att, interval, p, float(last + 1 - first), float(expected.mean()), {"std_error": error}, warnings, series
    )


def _switchback(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """On and off in turn: treatment beside unit and period effects, errors clustered by unit and block."""
    y, t = _columns(spec, frame, where)
    units = (
        [str(v) for v in frame[panels.column(frame, spec.get("unit", "unit"), where)].to_list()]
        if spec.get("unit")
        else ["all"] * len(y)
    )
    times = [str(v) for v in frame[panels.column(frame, spec.get("time", "time"), where)].to_list()]
    keys = panels.sorted_keys(times)
    order = sorted(range(len(y)), key=lambda i: (units[i], keys[i]))
    y, t = y[order], t[order]
    units, times = [units[i] for i in order], [times[i] for i in order]
    blocks, current = [], 0
    for i in range(len(y)):
        if i and (units[i] != units[i - 1] or t[i] != t[i - 1]):
            current += 1
        blocks.append(current)
    columns = [t]
    many = sorted(set(units))
    columns += [np.array([float(u == name) for u in units]) for name in many]
    if len(many) > 1:
        columns += [np.array([float(x == name) for x in times]) for name in sorted(set(times))[1:]]
    x = np.column_stack(columns)
    beta, error = _hc1(x, y, blocks)
    interval, p = _t_test(beta[0], error[0], max(len(set(blocks)) - 1, 1), spec)
    return Found(
        float(beta[0]),
        interval,
        p,
        float(t.sum()),
        float(y[t == 1].mean() - beta[0]),
        {"blocks": len(set(blocks)), "std_error": float(error[0])},
        ["effects that last over a switch are counted on the wrong side; leave out the first periods of each block"],
    )


GEO: dict[str, Callable[[Mapping[str, Any], pl.DataFrame, str], Found]] = {
    "synthetic_control": _synthetic_control,
    "augmented_synthetic_control": _augmented,
    "synthetic_did": _synthetic_did,
    "did": _did_panel,
    "gbr": _gbr,
    "tbr": _tbr,
}
ROWS: dict[str, Callable[[Mapping[str, Any], pl.DataFrame, str], Found]] = {
    "ttest": _ttest,
    "ratio": _ratio,
    "cuped": _cuped,
    "naive": _naive,
    "ols": _ols,
    "did": _did_rows,
    "doubly_robust": _doubly_robust,
    "matching": _matching,
    "causal_impact": _causal_impact,
    "switchback": _switchback,
}
