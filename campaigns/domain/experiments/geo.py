"""Methods on panels of units and periods: effect, inference, sensitivity and return on money."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from campaigns.domain.experiments import contrasts, placebo, synthetic
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.contrasts import Contrast
from campaigns.domain.experiments.design import alpha_of, number, seed_of
from campaigns.domain.experiments.found import Found, fieller, plain, t_test, tails_of, varies
from campaigns.domain.experiments.panel import Panel
from campaigns.domain.experiments.placebo import Placebos
from rmn.lib.arrays import Array, BoolArray
from rmn.lib.errors import BadInput

PUBLISHED = "errors are taken as independent from period to period, as published: its size is not valid where they are correlated"
LEFT_OUT = 5  # units of each side that are left out in turn
UNLIKE = 3  # times the smallest treated region: from here on gbr's weights are told
IN_TIME = 5  # stretches before the test that play it


@dataclass(frozen=True)
class Cut:
    """A panel cut into treated and control, before and during."""

    panel: Panel
    treated: list[int]
    control: list[int]
    test: slice
    frame: pl.DataFrame
    strata: list[list[int]] | None = None

    @property
    def y_UT(self) -> Array:
        return self.panel.y_UT

    @property
    def mine(self) -> Array:
        return self.y_UT[self.treated].mean(axis=0)

    @property
    def others(self) -> Array:
        return self.y_UT[self.control]

    @property
    def pre(self) -> BoolArray:
        return np.arange(len(self.panel.times)) < self.test.start

    @property
    def length(self) -> int:
        return int(self.test.stop - self.test.start)

    @property
    def count(self) -> float:
        return float(self.length * len(self.treated))

    def gap(self, contrast: Contrast) -> tuple[Array, Array]:
        """Gap by period, and weight by unit, of the treated."""
        gap_ST, weight_SU = contrast.gaps(self.y_UT, [self.treated], self.pre, self.test)
        return gap_ST[0], weight_SU[0]


def cut_of(spec: Mapping[str, Any], frame: pl.DataFrame, where: str, *, fill: float | None = None) -> Cut:
    """The panel and the test that a specification names.

    Raises:
        BadInput: units or periods that the data do not hold, or nothing to compare with.
    """
    unit, time = spec.get("unit", "unit"), spec.get("time", "time")
    data = panels.panel(frame, unit, time, spec.get("outcome", "outcome"), where, fill=fill)
    named, start, end = spec.get("treated_units"), spec.get("start"), spec.get("end")
    if not named and spec.get("treatment"):
        flags = panels.panel(frame, unit, time, spec["treatment"], where, fill=0.0)
        on_UT = flags.y_UT > 0
        named = [flags.units[u] for u in np.flatnonzero(on_UT.any(axis=1))]
        begins = {int(np.flatnonzero(row)[0]) for row in on_UT if row.any() and not row.all()}
        if start is None and spec.get("post"):
            after = panels.panel(frame, unit, time, spec["post"], where, fill=0.0).y_UT.max(axis=0) > 0
            start = flags.times[int(np.flatnonzero(after)[0])] if after.any() else None
        if start is None and begins:
            if len(begins) > 1:
                told = ", ".join(flags.times[i] for i in sorted(begins)[:4])
                raise BadInput(
                    f"{where}: {spec['treatment']} begins at {told}; name one start, or analyse cohorts apart"
                )
            start = flags.times[begins.pop()]
    if not named:
        raise BadInput("treated_units: a list of units was expected (or treatment: a 0/1 column)")
    named = [named] if isinstance(named, str | int) else named
    treated = list(dict.fromkeys(data.rows_of(named, "treated_units")))
    if start is None:
        raise BadInput("start: the first period of the test is missing")
    first = data.place_of(start, "start")
    last = data.place_of(end, "end", last=True) if end is not None else len(data.times) - 1
    if last < first:
        raise BadInput(f"end {end} lies before start {start}")
    if first < 1:
        raise BadInput("start: no period lies before the test; at least one is needed")
    keep = last + 1
    data = Panel(data.units, data.times[:keep], data.y_UT[:, :keep])
    varies(data.y_UT, spec, where)
    control = [u for u in range(len(data.units)) if u not in set(treated)]
    if not control:
        raise BadInput("treated_units: every unit is treated; nothing is left to compare with")
    return Cut(data, treated, control, slice(first, keep), frame, _strata(spec, data, frame, treated, where))


def _strata(
    spec: Mapping[str, Any], data: Panel, frame: pl.DataFrame, treated: Sequence[int], where: str
) -> list[list[int]] | None:
    """Groups within which units were assigned: a column, or lists of units; those with no choice are left as they are."""
    asked = spec.get("strata")
    if asked is None:
        return None
    if isinstance(asked, str):
        own = panels.column(frame, asked, where)
        unit = panels.column(frame, spec.get("unit", "unit"), where)
        groups: dict[str, list[str]] = {}
        for row in frame.select(unit, own).unique().iter_rows():
            groups.setdefault(str(row[1]), []).append(str(row[0]))
        asked = list(groups.values())
    if not isinstance(asked, list) or not all(isinstance(one, list) and one for one in asked):
        raise BadInput('strata: a column or lists of units were expected, such as [["a", "b"], ["c", "d"]]')
    found = [data.rows_of([str(u) for u in one], "strata") for one in asked]
    every = [u for one in found for u in one]
    if len(every) != len(set(every)):
        twice = next(u for u in every if every.count(u) > 1)
        raise BadInput(f"strata: {data.units[twice]} stands in two of them")
    missing = sorted(set(range(len(data.units))) - set(every))
    if missing:
        raise BadInput(f"strata: {data.units[missing[0]]} stands in none of them ({len(missing)} in all)")
    for one in found:
        if set(one) <= set(treated):
            raise BadInput(f"strata: every unit of {', '.join(data.units[u] for u in one[:3])} is treated")
    return found


# -- inference


def played(cut: Cut, contrast: Contrast, seed: int, most: int) -> tuple[Placebos, Array]:
    """The true set and the others through one contrast, and the true set's weights."""
    sets = [tuple(cut.treated), *placebo.sets(len(cut.panel.units), cut.treated, seed, most, cut.strata)]
    gap_ST, weight_SU = contrast.gaps(cut.y_UT, sets, cut.pre, cut.test)
    touch_S = weight_SU @ placebo.shares(cut.y_UT, cut.treated, cut.pre)
    size_U = np.abs(cut.y_UT[:, cut.pre]).mean(axis=1)
    level_S = size_U[np.array(sets)].mean(axis=1)
    return Placebos(gap_ST, level_S, touch_S / (touch_S[0] or 1.0), cut.test), weight_SU[0]


def read(
    spec: Mapping[str, Any],
    cut: Cut,
    contrast: Contrast,
    diagnostics: dict[str, Any],
    published: Callable[[], Any] | None = None,
    without: Callable[[list[int]], Contrast | None] | None = None,
) -> Found:
    """Effect, interval and p-value of a method that is one contrast.

    Inference ranks the gap among other sets of units; where these are too few to reject anything, among
    blocks in time.

    Args:
        published: the interval and p-value of the method's authors, for ``iid`` and ``textbook``.
        without: the contrast where only these units are left, by default the same; None where there is none.
    """
    alpha, inference = alpha_of(spec), spec.get("inference", "block")
    tails, seed, test, before = tails_of(spec), seed_of(spec), cut.test, cut.test.start
    asked = inference == "block" or (inference == "textbook" and published is None)
    among, weight_U = played(cut, contrast, seed, placebo.wanted(alpha) if asked else 0)
    series = among.gap_ST[0]
    att, count = float(among.effect_S[0]), len(among.gap_ST) - 1
    own_U = np.maximum(weight_U, 0)[cut.treated]
    mine = (own_U / own_U.sum()) @ cut.y_UT[cut.treated] if own_U.sum() > 0 else cut.mine
    warnings: list[str] = []
    in_space = asked and (
        1 / (count + 1) < alpha or count >= placebo.MOST
    )  # the first looks of many need not find anything

    def p_of(effect: float, *, of_sum: bool = False) -> float:
        changed_UT = cut.y_UT.copy()
        changed_UT[cut.treated, test] -= effect
        every = np.ones(changed_UT.shape[1], bool)
        residual = contrast.gaps(changed_UT, [cut.treated], every, test)[0][0]
        if inference == "iid":
            return synthetic.iid_p(residual, test, seed=seed, of_sum=of_sum)
        return synthetic.block_p(residual, test)

    if published is not None and inference != "block":
        interval, p = published()
        how = "textbook"
        warnings.append(PUBLISHED)
    elif in_space:
        how = "placebo"
        if inference == "textbook":
            warnings.append("this method has no textbook interval: the one of placebo units is given instead")
        interval, p = among.bounds(alpha, tails=tails)
    else:
        how = "iid" if inference == "iid" else "block"
        if inference == "textbook":
            warnings.append("this method has no textbook interval: the one of blocks in time is given instead")
        if tails == 1:
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
        if 1 / len(series) >= alpha:
            warnings.append(
                f"{len(series)} periods allow no p-value under {1 / len(series):.3f}: nothing can be significant at {alpha:g}"
            )
    pre_gap = series[cut.pre]
    scale = float(np.abs(mine[cut.pre]).mean()) or 1.0
    heavy = sorted(cut.control, key=lambda u: -abs(weight_U[u]))[:15]
    diagnostics |= {
        "inference": how,
        "periods": cut.length,
        "treated_share": float(cut.y_UT[cut.treated][:, cut.pre].sum() / (cut.y_UT[:, cut.pre].sum() or math.nan)),
        "l2": float(np.sqrt((pre_gap**2).sum())),
        "pre_mape": float(np.abs(pre_gap).mean() / scale),
        "placebo_sets": count if how == "placebo" else 0,
        "smallest_p": 1 / (count + 1) if how == "placebo" else 1 / len(series),
        "weights": {cut.panel.units[u]: -float(weight_U[u]) for u in heavy if abs(weight_U[u]) > 1e-4},
    }
    if how == "placebo":
        diagnostics["placebo_effects"] = among.shown()
        diagnostics["p_of_blocks_in_time"] = p_of(0.0)
    diagnostics |= _in_time(cut, contrast)
    diagnostics["leave_one_out"] = _left_out(cut, without or (lambda _: contrast), weight_U)
    if diagnostics["pre_mape"] > 0.15:
        warnings.append(
            f"before the test the control misses the treated by {diagnostics['pre_mape']:.0%}: do not lean on the size of the effect"
        )
    turns = [name for name, effect in diagnostics.get("leave_one_out", {}).items() if effect * att < 0]
    if turns:
        warnings.append(f"without {turns[0]} the effect has the other sign: it hangs on single units")
    if before < 3:
        warnings.append(f"{before} periods before the test: whether the groups moved alike before cannot be seen")
    told = _told(cut, mine, series, among if how == "placebo" else None, alpha, tails)
    iroas = _iroas_of_column(spec, cut, att, interval, series, warnings)
    base = float((mine[test] - series[test]).mean())
    return Found(att, interval, p, cut.count, base, diagnostics, warnings, told, iroas)


def _told(
    cut: Cut, mine: Array, series: Array, among: Placebos | None, alpha: float, tails: int
) -> list[dict[str, Any]]:
    """Observed and expected period by period; with placebos the band in which they stay, and the lift added up with its interval."""
    start = cut.test.start
    told: list[dict[str, Any]] = [
        {
            "time": time,
            "observed": float(mine[i]),
            "expected": float(mine[i] - series[i]),
            "effect": float(series[i]),
            "test": bool(i >= start),
        }
        for i, time in enumerate(cut.panel.times)
    ]
    summed = np.cumsum(series[cut.test])
    for i, row in enumerate(told):
        past = i - start + 1
        if row["test"]:
            row["cumulative"] = float(summed[past - 1])
        if among is None:
            continue
        half = among.band(i, alpha)
        row |= {"low": row["expected"] - half, "high": row["expected"] + half}
        if row["test"]:
            low, high = among.upto(past).bounds(alpha, tails=tails)[0]
            row |= {"cumulative_low": low * past, "cumulative_high": high * past}
    return told


# -- sensitivity


def _in_time(cut: Cut, contrast: Contrast) -> dict[str, Any]:
    """The same analysis with tests that never were, in the stretches before the true one, the nearest first."""
    found: dict[str, float] = {}
    for back in range(1, IN_TIME + 1):
        start = cut.test.start - back * cut.length
        if start < max(3, min(cut.length, cut.test.start // 3)):
            break
        fit_T = np.arange(cut.y_UT.shape[1]) < start
        stretch = slice(start, start + cut.length)
        gap_ST, _ = contrast.gaps(cut.y_UT, [cut.treated], fit_T, stretch)
        found[cut.panel.times[start]] = float(gap_ST[0, stretch].mean())
    if not found:
        return {}
    return {"placebo_in_time": next(iter(found.values())), "placebos_in_time": found}


def _left_out(cut: Cut, without: Callable[[list[int]], Contrast | None], weight_U: Array) -> dict[str, float]:
    """The effect without each of the units that move it most, treated and control."""
    change_U = cut.y_UT[:, cut.test].mean(axis=1) - cut.y_UT[:, cut.pre].mean(axis=1)
    pull_U = np.abs(weight_U * (change_U - change_U.mean()))
    told = {}
    for side in (cut.control, cut.treated):
        for unit in sorted(side, key=lambda u: -pull_U[u])[:LEFT_OUT]:
            if len(side) == 1 or abs(weight_U[unit]) < 0.01 / len(side):
                continue
            kept = [u for u in range(len(weight_U)) if u != unit]
            contrast = without(kept)
            if contrast is not None:
                treated = [kept.index(u) for u in cut.treated if u != unit]
                gap_ST, _ = contrast.gaps(cut.y_UT[kept], [treated], cut.pre, cut.test)
                told[cut.panel.units[unit]] = float(gap_ST[0, cut.test].mean())
    return told


# -- money


def _iroas_of_column(
    spec: Mapping[str, Any], cut: Cut, att: float, interval: tuple[float, float], gap_T: Array, warnings: list[str]
) -> dict[str, Any] | None:
    """What a unit of added money brought, where money is a column: spend above the usual of before.

    Usual spend that varies makes the denominator uncertain too; the interval is then Fieller's, with the
    errors of both before the test and as wide as the interval of the effect.
    """
    if not isinstance(spec.get("cost"), str):
        return None
    money = money_of(spec, cut.frame)
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
    over, error = spent[:before] - usual, float(placebo.misfit(gap_T[:before]))
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
        "interval": [plain(v) for v in told],
        "cost": added * cut.count,
        "usual_cost": usual * cut.count,
    }


def money_of(spec: Mapping[str, Any], frame: pl.DataFrame) -> Panel:
    """The cost column as a panel; no row means nothing was spent."""
    name = panels.column(frame, spec["cost"], "cost")
    panels.no_negative(panels.numbers(frame, name, "cost"), frame, name, "cost")
    return panels.panel(frame, spec.get("unit", "unit"), spec.get("time", "time"), name, "cost", fill=0.0)


# -- methods


def synthetic_control(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Weights on the simplex; matched on predictors where the specification names some."""
    cut = cut_of(spec, frame, where)
    fixed = bool(spec.get("fixed_effects", False))
    told: dict[str, Any] = {"fixed_effects": fixed}
    contrast, without = contrasts.synthetic_control(fixed=fixed), None
    if spec.get("predictors"):
        names, x_UK = _predictors(spec, cut, where)
        order = [cut.treated, *([u] for u in cut.control)]
        past_UT = np.array([cut.y_UT[one].mean(axis=0) for one in order])[:, cut.pre]
        importance = synthetic.predictor_importance(np.array([x_UK[one].mean(axis=0) for one in order]), past_UT)
        told["predictors"] = dict(zip(names, (float(v) for v in importance), strict=True))
        contrast = contrasts.matched(x_UK, importance, fixed=fixed)

        def without(kept: list[int]) -> Contrast | None:
            return contrasts.matched(x_UK[kept], importance, fixed=fixed)

    found = read(spec, cut, contrast, told, without=without)
    naive = cut.mine - cut.others.mean(axis=0)
    naive = naive - naive[cut.pre].mean() if fixed else naive
    scale = float(np.sqrt((naive[cut.pre] ** 2).sum()))
    found.diagnostics["scaled_l2"] = found.diagnostics["l2"] / scale if scale else 0.0
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


def augmented(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Synthetic control whose remaining misfit a ridge takes away; its penalty is given, or cross-validated."""
    cut = cut_of(spec, frame, where)
    fixed = bool(spec.get("fixed_effects", False))
    asked = spec.get("ridge", "auto")
    given = isinstance(asked, int | float) and not isinstance(asked, bool)
    if given:
        penalty = number(spec, "ridge", None, 0.0, 1e300)
    else:
        penalty = contrasts.penalty_of(cut.y_UT[:, cut.pre], cut.treated, fixed=fixed)
    contrast = contrasts.augmented(penalty, fixed=fixed, relative=not given)
    return read(spec, cut, contrast, {"fixed_effects": fixed, "ridge" if given else "ridge_relative": penalty})


def synthetic_did(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Weights over units and periods (published errors: placebo units among the controls, normal)."""
    cut = cut_of(spec, frame, where)
    told: dict[str, Any] = {}
    contrast = contrasts.synthetic_differences()

    def published() -> tuple[tuple[float, float], float]:
        n = len(cut.control)
        size = min(len(cut.treated), max(n // 2, 1))
        effects = []
        for one in placebo.sets(n, range(size), seed_of(spec)) if n > 1 else []:
            effects.append(contrast.gaps(cut.others, [one], cut.pre, cut.test)[0][0, cut.test].mean())
        error = float(np.std(effects, ddof=1)) if len(effects) > 10 else math.inf
        told["std_error"] = error
        return t_test(float(cut.gap(contrast)[0][cut.test].mean()), error, math.inf, spec)

    return read(spec, cut, contrast, told, published)


def differences(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Each unit's change, treated against control (published errors: clustered by unit, one number each)."""
    cut = cut_of(spec, frame, where)
    change = cut.y_UT[:, cut.test].mean(axis=1) - cut.y_UT[:, cut.pre].mean(axis=1)
    a, b = change[cut.treated], change[cut.control]
    warnings = ["rests on parallel trends: without treatment both groups would have moved alike"]
    if len(a) > 1 and len(b) > 1:
        error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        freedom: float = min(len(a), len(b)) - 1
    else:
        error = float(b.std(ddof=1)) * math.sqrt(1 + 1 / len(b)) if len(b) > 1 else math.inf
        freedom = max(len(b) - 1, 1)
        warnings.append("one treated unit: its error is taken from how much the others changed")
    att = float(a.mean() - b.mean())
    contrast = contrasts.differences(cut.strata)
    told, without = {"std_error": error}, None
    if cut.strata:
        without = _fewer_strata(cut)
    found = read(spec, cut, contrast, told, lambda: t_test(att, error, freedom, spec), without)
    found.diagnostics.pop("weights")
    found.warnings = warnings + found.warnings
    return found


def _fewer_strata(cut: Cut) -> Callable[[list[int]], Contrast | None]:
    def without(kept: list[int]) -> Contrast | None:
        on = set(cut.treated)
        strata = [[u for u in one if u in set(kept)] for one in cut.strata or []]
        if any(set(one) <= on or not set(one) & on for one in strata if one):
            return None  # a pair without one of its two is no comparison
        return contrasts.differences([[kept.index(u) for u in one] for one in strata])

    return without


def time_regression(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Time-based regression (Kerman 2017): the treated on control totals before the test, foretold during it."""
    cut = cut_of(spec, frame, where, fill=0.0)  # regions without a row sold nothing; only totals count here
    y, x = cut.mine, cut.others.sum(axis=0)
    before, n = cut.test.start, cut.length
    if before < 3:
        raise BadInput(f"start: {before} periods before the test; tbr fits a line on them and needs at least 3")
    if x[:before].std() == 0:
        raise BadInput("tbr: the controls' total never changes before the test; no line can be fitted through it")
    effect, _ = cut.gap(contrasts.regression_on_total())
    spread = float(((x[:before] - x[:before].mean()) ** 2).sum())
    squares = float((effect[:before] ** 2).sum())
    error = math.sqrt(
        squares / (before - 2) * (1 / n + 1 / before + (x[cut.test].mean() - x[:before].mean()) ** 2 / spread)
    )
    own = float(((y[:before] - y[:before].mean()) ** 2).sum())
    told = {"incremental_std_error": error * cut.count, "r2": 1 - squares / own if own else 0.0}
    att = float(effect[cut.test].mean())
    found = read(spec, cut, contrasts.regression_on_total(), told, lambda: t_test(att, error, before - 2, spec))
    found.diagnostics.pop("weights")
    if found.diagnostics["r2"] < 0.8:
        found.warnings.append(
            f"before the test the control explains {found.diagnostics['r2']:.0%}: this method needs 80 %"
        )
    return found


def region_regression(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """Geo-based regression (Vaver and Koehler 2011): one row per region, weights 1 / sales before.

    Its effect is the mean over the treated by the regression's own weights, in which small regions count
    most; where effects grow with sales that is not the plain mean.
    """
    cut = cut_of(spec, frame, where, fill=0.0)  # regions without a row sold nothing; only totals count here
    before, during = cut.y_UT[:, cut.pre].sum(axis=1), cut.y_UT[:, cut.test].sum(axis=1)
    if (before <= 0).any():
        name = cut.panel.units[int(np.flatnonzero(before <= 0)[0])]
        raise BadInput(f"gbr: {name} sold nothing before the test and cannot be weighted; exclude it")
    if len(before) < 4:
        raise BadInput(f"gbr: {len(before)} units; a regression with three coefficients needs at least 4")
    scale = float(cut.length)
    on_U = np.zeros(len(before))
    on_U[cut.treated] = 1.0
    beta, error = _weighted(before, during, on_U)
    att, error = beta / scale, error / scale
    weight_U = cut.gap(contrasts.regression_on_regions())[1]
    told = {
        "std_error": error,
        "estimand": "mean over the treated, weighted by the regression: small regions count most",
        "treated_weights": {cut.panel.units[u]: float(weight_U[u]) for u in cut.treated},
    }
    found = read(spec, cut, contrasts.regression_on_regions(), told, lambda: t_test(att, error, len(before) - 3, spec))
    found.diagnostics.pop("weights")
    own = before[cut.treated]
    if own.max() > UNLIKE * own.min():
        found.warnings.append(
            f"the treated sold {own.min() / cut.test.start:,.3g} to {own.max() / cut.test.start:,.3g} a period before: gbr counts the"
            " small ones most, so its effect and its sum are those of the plain mean only if large regions gain no more than small ones"
        )
    if isinstance(spec.get("cost"), str):
        money = money_of(spec, cut.frame)
        cost = (
            money.y_UT[:, cut.test].sum(axis=1)
            - money.y_UT[:, : cut.test.start].sum(axis=1) * cut.length / cut.test.start
        )
        found.iroas = None
        if np.ptp(cost) > 0:
            slope, spread = _weighted(before, during, cost)
            low, high = found.interval
            # what ranks the effect also widens the ratio: how many errors the interval reaches
            below, above = ((att - low) / error, (high - att) / error) if error > 0 else (math.inf, math.inf)
            if spec.get("inference", "block") != "block":
                both = t_test(slope, spread, len(before) - 3, spec)[0]
            else:
                both = (slope - below * spread, slope + above * spread)
            found.iroas = {"estimate": slope, "interval": [plain(v) for v in both], "std_error": spread}
    return found


def _weighted(before: Array, during: Array, exposure: Array) -> tuple[float, float]:
    """What a unit of exposure adds to sales during the test, and its error; regions weigh 1 / sales before."""
    weight = 1 / before  # of the published method: variance grows with the square of sales
    x = np.column_stack([np.ones(len(before)), before, exposure]) * weight[:, None]
    beta, *_ = np.linalg.lstsq(x, during * weight, rcond=None)
    rest = during * weight - x @ beta
    sigma2 = float((rest**2).sum()) / (len(before) - 3)
    return float(beta[2]), math.sqrt(sigma2 * float(np.linalg.pinv(x.T @ x)[2, 2]))


METHODS: dict[str, Callable[[Mapping[str, Any], pl.DataFrame, str], Found]] = {
    "synthetic_control": synthetic_control,
    "augmented_synthetic_control": augmented,
    "synthetic_did": synthetic_did,
    "did": differences,
    "gbr": region_regression,
    "tbr": time_regression,
}
