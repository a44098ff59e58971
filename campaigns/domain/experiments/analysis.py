"""What an experiment says: effect, interval, p-value, verdict, by the method its design asks for.

Interval and p-value come from one test, inverted, so that they cannot disagree. ``effect`` needs
p < alpha; ``no_effect`` an interval inside +-mde; all else is ``not_enough_evidence``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats as st

from campaigns.domain.experiments import geo
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.design import number
from campaigns.domain.experiments.found import Found, fieller, plain, t_test, tails_of, varies
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
    found = (geo.METHODS if kind == "geo" else ROWS)[method](spec, frame, where)
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
    cut = geo.cut_of(spec, frame, where, fill=0.0 if method in ("gbr", "tbr") else None)
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
            "interval": [plain(low * found.count / cost), plain(high * found.count / cost)],
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
        "interval": [plain(low), plain(high)],
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
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _needed(found: Found, alpha: float) -> str:
    half = (found.interval[1] - found.interval[0]) / 2
    if not math.isfinite(half) or not found.att:
        return "more periods before and during the test"
    times = (half / abs(found.att) * (st.norm.ppf(1 - alpha / 2) + 0.84) / st.norm.ppf(1 - alpha / 2)) ** 2
    return f"about {max(times, 1.1):.1f} times the data, if the true effect is the one seen"


# -- people


def _columns(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> tuple[Array, Array]:
    """Outcome and 0/1 treatment per row."""
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    name = panels.column(frame, spec.get("treatment", "treatment"), where)
    t = panels.numbers(frame, name, where)
    if not set(np.unique(t)) <= {0.0, 1.0} or len(np.unique(t)) < 2:
        raise BadInput(f"{where}: {name} must hold 0 and 1, both")
    varies(y, spec, where)
    return y, t


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
    interval, p = _always_valid(att, error, spec) if spec.get("monitor") else t_test(att, error, freedom, spec)
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
    if tails_of(spec) == 1:
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
    interval, p = t_test(att, math.sqrt(parts[0][1] + parts[1][1]), math.inf, spec)
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
    interval, p = t_test(beta[1], error[1], len(y) - x.shape[1], spec)
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


def _hc1(x: Array, y: Array, groups: Sequence[Any] | None = None, *, absorbed: int = 0) -> tuple[Array, Array]:
    """Least squares with errors robust to unequal variance, clustered where groups are given.

    Args:
        absorbed: coefficients that were taken out of x and y before.
    """
    bread = np.linalg.pinv(x.T @ x)
    beta = bread @ x.T @ y
    scores = x * (y - x @ beta)[:, None]
    n, k = len(x), x.shape[1] + absorbed
    if groups is not None:
        names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
        summed = np.zeros((len(names), x.shape[1]))
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
        return geo.differences(spec, frame, where)
    y, t = _columns(spec, frame, where)
    post = panels.numbers(frame, panels.column(frame, spec["post"], where), where)
    if not set(np.unique(post)) <= {0.0, 1.0}:
        raise BadInput(f"{where}: {spec['post']} must hold 0 and 1")
    x = np.column_stack([np.ones(len(y)), t, post, t * post, _covariates(spec, frame, where)])
    groups = frame[panels.column(frame, spec["unit"], where)].to_list() if spec.get("unit") else None
    beta, error = _hc1(x, y, groups)
    freedom = (len(set(groups)) if groups else len(y)) - (1 if groups else x.shape[1])
    interval, p = t_test(beta[3], error[3], max(freedom, 1), spec)
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
    interval, p = t_test(att, error, math.inf, spec)
    told, words = _overlap(e, t)
    return Found(att, interval, p, float(t.sum()), float(y[t == 1].mean() - att), {**told, "std_error": error}, words)


def _matching(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Each treated beside its nearest control by propensity, with replacement, what still differs between the two taken
    away by a regression among the matched controls; errors as Abadie and Imbens (2006, 2011)."""
    y, t = _columns(spec, frame, where)
    x = _covariates(spec, frame, where, needed=True)
    logit = np.log(np.clip(_propensity(x, t), 1e-6, 1 - 1e-6))
    treated, control = np.flatnonzero(t == 1), np.flatnonzero(t == 0)
    if len(control) < 3:
        raise BadInput(f"{where}: {len(control)} control rows; at least 3 are needed to match")
    order = control[np.argsort(logit[control], kind="stable")]
    at = np.searchsorted(logit[order], logit[treated])
    left, right = order[np.clip(at - 1, 0, len(order) - 1)], order[np.clip(at, 0, len(order) - 1)]
    chosen = np.where(np.abs(logit[left] - logit[treated]) <= np.abs(logit[right] - logit[treated]), left, right)
    used = np.bincount(chosen, minlength=len(y))
    # of the matched controls, each as often as it was used
    pairs = np.column_stack([np.ones(len(chosen)), x[chosen]])
    slope = np.linalg.lstsq(pairs, y[chosen], rcond=None)[0][1:] if len(chosen) > pairs.shape[1] + 1 else 0.0 * x[0]
    rest = y - x @ slope
    gaps = rest[treated] - rest[chosen]
    att = float(gaps.mean())
    # what outcomes of like controls differ by: each beside its neighbour in propensity
    spread = np.zeros(len(y))
    step = np.diff(rest[order]) ** 2 / 2
    spread[order] = (np.append(step[:1], step) + np.append(step, step[-1:])) / 2
    error = math.sqrt(
        (float(((gaps - att) ** 2).sum()) + float((spread * used * (used - 1)).sum())) / len(treated) ** 2
    )
    interval, p = t_test(att, error, max(len(treated) - 1, 1), spec)
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
    found.iroas = {"estimate": found.att / added, "interval": [plain(v) for v in told], "cost": added * found.count}


# -- series and switches


def _causal_impact(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """One series against what a local level with regressors foretells (maximum likelihood)."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    when = panels.column(frame, spec.get("time", "time"), where)
    keys = panels.sorted_keys([str(v) for v in frame[when].to_list()])
    frame = frame[sorted(range(frame.height), key=lambda row: keys[row])]
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    varies(y, spec, where)
    times = [str(v).strip() for v in frame[when].to_list()]
    for earlier, after in pairwise(times):
        if earlier == after:
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
    if first <= x.shape[1] + 3:
        raise BadInput(f"start: {first} periods before it are too few for {x.shape[1]} covariates")
    centre, size = y[:first].mean(), y[:first].std() or 1.0
    spread = np.where(x[:first].std(axis=0) > 0, x[:first].std(axis=0), 1.0)
    x = (x - x[:first].mean(axis=0)) / spread
    # coefficients stand in the state, so that what is unknown of them widens the forecast
    model = UnobservedComponents(
        (y[:first] - centre) / size,
        level="local level",
        exog=x[:first] if x.shape[1] else None,
        mle_regression=not x.shape[1],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(disp=False, maxiter=500)
        if not fitted.mle_retvals["converged"]:
            fitted = model.fit(fitted.params, method="powell", disp=False, maxiter=500)
    noise, drift = (float(v) for v in fitted.params[:2])
    length = last + 1 - first
    rows = np.column_stack([np.ones(last + 1), x[: last + 1]])
    state, doubt = fitted.filtered_state[:, -1], fitted.filtered_state_cov[:, :, -1]
    expected = centre + size * rows[first:] @ state
    gap = y[first : last + 1] - expected
    att = float(gap.mean())
    error = size * _error_of_mean(rows[first:], doubt, noise, drift)
    interval, p = t_test(att, error, first - 1 - x.shape[1], spec)
    told = ["one series and no control: whatever else happened at the same time is in the effect"]
    reach = float(st.t(first - 1 - x.shape[1]).ppf(1 - number(spec, "alpha", 0.1, 1e-4, 0.5) / 2))
    before = centre + size * (rows[:first] * fitted.smoothed_state.T).sum(axis=1)
    shown = np.concatenate([before, expected])
    series: list[dict[str, Any]] = []
    for i in range(last + 1):
        row = {"time": times[i], "observed": float(y[i]), "expected": float(shown[i]), "effect": float(y[i] - shown[i])}
        series.append(row | {"test": i >= first})
        if i >= first:
            ahead = i - first + 1
            one = size * math.sqrt(float(rows[i] @ doubt @ rows[i]) + ahead * drift + noise)
            total, half = (
                float(gap[:ahead].sum()),
                ahead * reach * size * _error_of_mean(rows[first : i + 1], doubt, noise, drift),
            )
            series[-1] |= {"low": float(shown[i]) - reach * one, "high": float(shown[i]) + reach * one}
            series[-1] |= {"cumulative": total, "cumulative_low": total - half, "cumulative_high": total + half}
    diagnostics = {"std_error": error, "noise_std": size * math.sqrt(noise), "level_std": size * math.sqrt(drift)}
    return Found(att, interval, p, float(length), float(expected.mean()), diagnostics, told, series)


def _error_of_mean(rows_HK: Array, doubt_KK: Array, noise: float, drift: float) -> float:
    """Standard error of the mean of a local level model's forecasts over a horizon.

    Args:
        rows_HK: what each forecast counts of the state: 1 for the level, then the covariates.
        doubt_KK: covariance of the state at the end of the past.
        noise: variance of one observation.
        drift: variance of one step of the level.
    """
    length = len(rows_HK)
    mean_K = rows_HK.mean(axis=0)
    steps = float(((np.arange(length, 0, -1) / length) ** 2).sum())
    return math.sqrt(float(mean_K @ doubt_KK @ mean_K) + drift * steps + noise / length)


def _within(y_UT: Array) -> Array:
    """Without unit and period means."""
    return np.asarray(y_UT - y_UT.mean(axis=1, keepdims=True) - y_UT.mean(axis=0) + y_UT.mean())


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
    many, when = sorted(set(units)), sorted(set(times))
    absorbed = len(many) + (len(when) - 1 if len(many) > 1 else 0)
    if len(many) > 1 and len(y) == len(many) * len(when) == len(set(zip(units, times, strict=True))):
        t_R, y_R = (_within(v.reshape(len(many), len(when))).ravel() for v in (t, y))
    else:  # unit and period effects as columns, where cells are missing
        x = np.column_stack([[float(u == name) for u in units] for name in many])
        if len(many) > 1:
            x = np.column_stack([x, *([float(one == name) for one in times] for name in when[1:])])
        t_R, y_R = (v - x @ np.linalg.lstsq(x, v, rcond=None)[0] for v in (t, y))
    if float(t_R @ t_R) < 1e-9 * len(t):
        raise BadInput(f"{where}: treatment follows units and periods exactly; on and off cannot be told apart")
    beta, error = _hc1(t_R[:, None], y_R, blocks, absorbed=absorbed)
    interval, p = t_test(beta[0], error[0], max(len(set(blocks)) - 1, 1), spec)
    return Found(
        float(beta[0]),
        interval,
        p,
        float(t.sum()),
        float(y[t == 1].mean() - beta[0]),
        {"blocks": len(set(blocks)), "std_error": float(error[0])},
        ["effects that last over a switch are counted on the wrong side; leave out the first periods of each block"],
    )


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
