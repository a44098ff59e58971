"""Methods on rows of people: random assignment, or what can be made of none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import stats as st
from scipy.special import expit

from campaigns.domain.experiments import geo
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.design import alpha_of, number, seed_of
from campaigns.domain.experiments.found import Found, fieller, plain, t_test, tails_of, varies
from rmn.lib.arrays import Array, IntArray
from rmn.lib.errors import BadInput

RIDGE = 1e-3  # of standardised coefficients of the propensity
ECONML = "econml>=0.17,<0.18"  # optional


def columns(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> tuple[Array, Array]:
    """Outcome and 0/1 treatment per row."""
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    name = panels.column(frame, spec.get("treatment", "treatment"), where)
    t = panels.numbers(frame, name, where)
    if not set(np.unique(t)) <= {0.0, 1.0} or len(np.unique(t)) < 2:
        raise BadInput(f"{where}: {name} must hold 0 and 1, both")
    varies(y, spec, where)
    return y, t


def covariates(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, *, needed: bool = False) -> Array:
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


def assigned(spec: Mapping[str, Any], frame: pl.DataFrame, t: Array, where: str) -> IntArray:
    """Of each row, the number of what was assigned: the row itself, or its ``cluster``.

    Raises:
        BadInput: a cluster that is treated and control at once.
    """
    if spec.get("cluster") is None:
        return np.arange(len(t))
    name = panels.column(frame, spec["cluster"], where)
    known: dict[str, int] = {}
    own = np.array([known.setdefault(str(value).strip(), len(known)) for value in frame[name].to_list()])
    on, rows = np.bincount(own, t), np.bincount(own)
    mixed = np.flatnonzero((on > 0) & (on < rows))
    if len(mixed):
        raise BadInput(
            f"{where}: {name} {list(known)[mixed[0]]} has treated and control rows, so {name} is not what was assigned; leave cluster out"
        )
    return own


def _side(y: Array, n: Array, own: IntArray) -> tuple[float, Array]:
    """Ratio of sums on one side, and by how much each of what was assigned pulls it (delta method)."""
    _, place = np.unique(own, return_inverse=True)
    y_G, n_G = np.bincount(place, y), np.bincount(place, n)
    value = float(y_G.sum() / n_G.sum())
    return value, (y_G - value * n_G) / n_G.mean()


def _compared(y: Array, n: Array, t: Array, own: IntArray, spec: Mapping[str, Any]) -> Found:
    """Difference of the sides' ratios of sums (means, where n is 1), by Welch's t over what was assigned."""
    (mine, pull_G), (theirs, other_G) = (_side(y[t == side], n[t == side], own[t == side]) for side in (1, 0))
    if min(len(pull_G), len(other_G)) < 2:
        raise BadInput(f"at least two {'clusters' if spec.get('cluster') else 'rows'} on each side are needed")
    va, vb = pull_G.var(ddof=1) / len(pull_G), other_G.var(ddof=1) / len(other_G)
    error = math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(pull_G) - 1) + vb**2 / (len(other_G) - 1)) if error else math.inf
    att, always = mine - theirs, spec.get("monitor") is not None
    interval, p = _always_valid(att, error, spec) if always else t_test(att, error, freedom, spec)
    told = {"n_treatment": len(pull_G), "n_control": len(other_G), "std_error": error}
    found = Found(att, interval, p, float(n[t == 1].sum()), theirs, told)
    _sample_ratio(found, len(pull_G), len(other_G), spec)
    return found


def t_of_means(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    y, t = columns(spec, frame, where)
    return _compared(y, np.ones(len(y)), t, assigned(spec, frame, t, where), spec)


def _always_valid(estimate: float, error: float, spec: Mapping[str, Any]) -> tuple[tuple[float, float], float]:
    """Interval and p-value that hold at every look, however often and whenever one stops (mixture SPRT, Johari 2017).

    ``monitor.effect``, set beforehand, is the effect for which the test is quickest.
    """
    alpha = alpha_of(spec)
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


def ratio(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Ratio of sums per side (revenue per visit ...), by the delta method over what was assigned."""
    y, t = columns(spec, frame, where)
    d = panels.numbers(frame, panels.column(frame, spec.get("denominator", "denominator"), where), where)
    if d[t == 1].sum() == 0 or d[t == 0].sum() == 0:
        raise BadInput(f"{where}: the denominator sums to 0 on one side")
    return _compared(y, d, t, assigned(spec, frame, t, where), spec)


def cuped(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Outcome less what pre-period covariates foretell (Deng 2013): the same effect, smaller variance."""
    y, t = columns(spec, frame, where)
    x = covariates(spec, frame, where, needed=True)
    centred = x - x.mean(axis=0)
    theta, *_ = np.linalg.lstsq(centred, y - y.mean(), rcond=None)
    adjusted = y - centred @ theta
    found = _compared(adjusted, np.ones(len(y)), t, assigned(spec, frame, t, where), spec)
    found.diagnostics["variance_factor"] = float(adjusted.var() / y.var()) if y.var() else 1.0
    found.diagnostics["covariate_gap_p"] = [
        float(st.ttest_ind(x[t == 1, i], x[t == 0, i], equal_var=False).pvalue) for i in range(x.shape[1])
    ]
    if any(p < 1e-3 for p in found.diagnostics["covariate_gap_p"]):
        found.warnings.append("a covariate differs between the sides: it may have been touched by the treatment")
    return found


def ols(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Least squares on treatment and covariates, errors robust to unequal variance, clustered where rows were assigned in clusters."""
    y, t = columns(spec, frame, where)
    x = np.column_stack([np.ones(len(y)), t, covariates(spec, frame, where)])
    if len(y) <= x.shape[1]:
        raise BadInput(
            f"{where}: {len(y)} rows for {x.shape[1]} coefficients; more rows or fewer covariates are needed"
        )
    own = assigned(spec, frame, t, where)
    clustered = spec.get("cluster") is not None
    beta, error = least_squares(x, y, own.tolist() if clustered else None)
    interval, p = t_test(beta[1], error[1], int(own.max()) if clustered else len(y) - x.shape[1], spec)
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


def least_squares(x: Array, y: Array, groups: Sequence[Any] | None = None, *, absorbed: int = 0) -> tuple[Array, Array]:
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


def naive(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    found = t_of_means(spec, frame, where)
    found.warnings.append("a plain difference of means: right only under random assignment")
    return found


def differences(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Two groups, before and after: rows are people or shops at one time each."""
    if not spec.get("post"):
        return geo.differences(spec, frame, where)
    y, t = columns(spec, frame, where)
    post = panels.numbers(frame, panels.column(frame, spec["post"], where), where)
    if not set(np.unique(post)) <= {0.0, 1.0}:
        raise BadInput(f"{where}: {spec['post']} must hold 0 and 1")
    x = np.column_stack([np.ones(len(y)), t, post, t * post, covariates(spec, frame, where)])
    groups = frame[panels.column(frame, spec["unit"], where)].to_list() if spec.get("unit") else None
    beta, error = least_squares(x, y, groups)
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


def propensity(x: Array, t: Array) -> Array:
    """Chance of treatment by logistic regression, a ridge so small that it only stops perfect foresight from running away."""
    scaled = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    design = np.column_stack([np.ones(len(t)), scaled])
    ridge = np.append(0.0, np.full(x.shape[1], RIDGE))
    beta = np.zeros(design.shape[1])
    chance = expit(design @ beta)
    for _ in range(100):  # Newton's steps, none longer than where the logit saturates
        slope = design.T @ (t - chance) - ridge * beta
        bend = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge + 1e-12 * len(t))
        step = np.linalg.solve(bend, slope)
        beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-300))
        chance = expit(design @ beta)
        if float(np.abs(step).max()) < 1e-9:
            break
    return np.asarray(chance)


def _overlap(e: Array, t: Array) -> tuple[dict[str, Any], list[str]]:
    outside = float(((e[t == 1] > e[t == 0].max()) | (e[t == 1] < e[t == 0].min())).mean())
    told = {"propensity": [float(e.min()), float(e.max())], "treated_outside_overlap": outside}
    words = ["nobody was assigned at random: what is not among the covariates may explain the difference"]
    if outside > 0.05:
        words.append(f"{outside:.0%} of the treated have no comparable control")
    return told, words


LEARNERS = ("linear", "forest")


def doubly_robust(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Effect on the treated: outcome regression corrected by propensity weights (right if either model is).

    ``learner: forest`` takes both from forests and lets the effect differ from person to person.
    """
    learner = spec.get("learner", "linear")
    if learner not in LEARNERS:
        raise BadInput(f"learner is {learner!r}: one of {', '.join(LEARNERS)}")
    y, t = columns(spec, frame, where)
    x = covariates(spec, frame, where, needed=True)
    e = np.clip(propensity(x, t), 0.01, 0.99)
    told, words = _overlap(e, t)
    # what the regression of the controls takes is missing in small samples
    freedom = float((t == 0).sum() - 1 - x.shape[1])
    if freedom < 1:
        raise BadInput(
            f"{where}: {(t == 0).sum():.0f} control rows for {x.shape[1]} covariates; more of them are needed"
        )
    if learner == "forest":
        att, error, more = _forest(y, t, x, seed_of(spec))
        told |= more
    else:
        design = np.column_stack([np.ones(len(y)), x])
        beta = np.linalg.lstsq(design[t == 0], y[t == 0], rcond=None)[0]
        rest = y - design @ beta
        share = t.mean()
        score = (t * rest - (1 - t) * e / (1 - e) * rest) / share
        att = float(score.mean())
        error = float(np.std(score - t * att / share, ddof=1) / math.sqrt(len(y)))
        error *= math.sqrt((freedom + 1 + x.shape[1]) / freedom)
    interval, p = t_test(att, error, freedom, spec)
    return Found(att, interval, p, float(t.sum()), float(y[t == 1].mean() - att), {**told, "std_error": error}, words)


def _forest(y: Array, t: Array, x: Array, seed: int) -> tuple[float, float, dict[str, Any]]:
    """econML's causal forest: effect on the treated, its error, and how effects spread over people.

    econML is an optional extra, imported here alone: a gigabyte with what it brings.

    Raises:
        BadInput: it is not installed.
    """
    try:
        from econml.dml import CausalForestDML  # type: ignore[import-not-found]
    except ImportError:
        raise BadInput(
            f"learner: forest needs econML, which is not installed; .venv/bin/pip install '{ECONML}', or leave learner out"
        ) from None
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kept = {"min_samples_leaf": 20, "random_state": seed}
    forest = CausalForestDML(
        model_y=RandomForestRegressor(**kept),
        model_t=RandomForestClassifier(**kept),
        discrete_treatment=True,
        cv=5,
        n_estimators=400,
        n_jobs=1,
        random_state=seed,
    )
    forest.fit(y, t.astype(int), X=x)
    each = np.quantile(forest.effect(x[t == 1]), [0.1, 0.5, 0.9])
    told = {"effect_of_people": {"10%": float(each[0]), "50%": float(each[1]), "90%": float(each[2])}}
    att, error = (float(np.ravel(v)[0]) for v in (forest.att_(T=1), forest.att_stderr_(T=1)))
    return att, error, told


def matching(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Each treated beside its nearest control by propensity, with replacement, what still differs between the two taken
    away by a regression among the matched controls; errors as Abadie and Imbens (2006, 2011)."""
    y, t = columns(spec, frame, where)
    x = covariates(spec, frame, where, needed=True)
    logit = np.log(np.clip(propensity(x, t), 1e-6, 1 - 1e-6))
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
    # only controls that were matched tell of the error, and the regression among them takes its part
    freedom = min(len(treated) - 1, int((used > 0).sum()) - pairs.shape[1])
    interval, p = t_test(att, error, max(freedom, 1), spec)
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


def iroas(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, found: Found) -> None:
    """The same for people: what the treated cost more than the others, each side's spread counted."""
    y, t = columns(spec, frame, where)
    name = panels.column(frame, spec["cost"], where)
    cost = panels.numbers(frame, name, where)
    panels.no_negative(cost, frame, name, where)
    own, ones = assigned(spec, frame, t, where), np.ones(len(y))
    sides = [[_side(v[t == side], ones[t == side], own[t == side]) for v in (y, cost)] for side in (1, 0)]
    added = sides[0][1][0] - sides[1][1][0]
    if added <= 0:
        found.warnings.append("the treated cost no more than the others: there is no iROAS")
        return
    s_tb = sum(float(np.cov(a, b)[0, 1]) / len(a) for (_, a), (_, b) in sides)
    s_bb = sum(float(b.var(ddof=1)) / len(b) for _, (_, b) in sides)
    error, (low, high) = float(found.diagnostics["std_error"]), found.interval
    wide = (found.att - low) / error if error > 0 else 0.0
    told = fieller(found.att, added, wide, error**2, s_tb, s_bb)
    if math.isinf(high):
        told = (told[0], math.inf)
    found.iroas = {"estimate": found.att / added, "interval": [plain(v) for v in told], "cost": added * found.count}
