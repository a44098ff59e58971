"""What an experiment says: effect, interval, p-value, verdict, by the method its design asks for.

Interval and p-value come from one test, inverted, so that they cannot disagree. ``effect`` needs
p < alpha; ``no_effect`` an interval inside +-mde; all else is ``not_enough_evidence``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from scipy import stats as st

from campaigns.domain.experiments import geo, people, rates, series
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.design import alpha_of, number
from campaigns.domain.experiments.found import Found, plain, tails_of
from campaigns.domain.experiments.looks import levels
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
    if spec.get("monitor") is not None and "looks" in spec["monitor"]:
        return _watched_people(spec, kind, method, given, where)
    if spec.get("cells") is not None:
        return _cells(spec, kind, method, given, where)
    return _read(spec, kind, method, given, where)


def _read(spec: Mapping[str, Any], kind: str, method: str, frame: pl.DataFrame, where: str) -> dict[str, Any]:
    found = (geo.METHODS if kind == "geo" else ROWS)[method](spec, frame, where)
    if found.iroas is None and isinstance(spec.get("cost"), str) and method in ("ttest", "naive", "cuped"):
        people.iroas(spec, frame, where, found)
    for name, users in USED_BY.items():
        if spec.get(name) and method not in users:
            found.warnings.append(f"{name} is not used by {method}")
    return _result(spec, method, found)


USED_BY = {
    "covariates": ("cuped", "ols", "did", "doubly_robust", "matching", "causal_impact"),
    "ridge": ("augmented_synthetic_control",),
    "fixed_effects": ("synthetic_control", "augmented_synthetic_control", "did"),
    "learner": ("doubly_robust",),
    "cluster": ("ttest", "ratio", "cuped", "naive", "ols"),
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
        if kind != "geo" and method not in ("ttest", "cuped", "ratio"):
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
    looks = looks_of(spec["monitor"], alpha_of(spec))
    reached = [(place, end, level) for place, (end, level) in enumerate(looks, 1) if end <= cut.length]
    if not reached:
        raise BadInput(f"{where}: {cut.length} periods of the test so far; the first look comes after {looks[0][0]}")
    plain = {name: value for name, value in spec.items() if name != "monitor"}
    told: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for place, end, level in reached:
        last = cut.panel.times[cut.test.start + end - 1]
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


def _watched_people(spec: Mapping[str, Any], kind: str, method: str, frame: pl.DataFrame, where: str) -> dict[str, Any]:
    """People looked at K times by a rule set beforehand: each look has the level of O'Brien and Fleming's bound.

    ``monitor``: ``looks``, and ``n``, how many people (clusters, where those were assigned) the whole test will have.
    """
    _, t = people.columns(spec, frame, where)
    there, planned = (
        len(set(people.assigned(spec, frame, t, where).tolist())),
        number(spec["monitor"], "n", None, 4, 1e12),
    )
    count = int(number(spec["monitor"], "looks", None, 1, 20))
    look = min(int(count * there / planned), count)
    if look < 1:
        raise BadInput(
            f"{where}: {there} of {planned:.0f} so far; the first look comes after {math.ceil(planned / count)}"
        )
    level = levels(alpha_of(spec), count, tails_of(spec))[look - 1]
    plain = {name: value for name, value in spec.items() if name != "monitor"}
    result = _read({**plain, "alpha": level}, kind, method, frame, where)
    found = result["verdict"] == "effect"
    told = {"look": look, "n": there, "level": level, "p_value": result["p_value"], "interval": result["interval"]}
    ended = "the test has ended" if look == count else "go on"
    decision = "stop: an effect is found" if found else ended
    result["diagnostics"]["monitoring"] = {"looks": [told | {"found": found}], "of": count, "decision": decision}
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
    alpha = alpha_of(spec)
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
    rate = rates.of(method, spec.get("inference", "block"))
    if rate is not None and (method != "did" or spec.get("kind") == "geo"):  # of rows of two groups nothing was played
        found.diagnostics["false_alarms"] = {"nominal": 0.1, **asdict(rate)}
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


ROWS: dict[str, Callable[[Mapping[str, Any], pl.DataFrame, str], Found]] = {
    "ttest": people.t_of_means,
    "ratio": people.ratio,
    "cuped": people.cuped,
    "naive": people.naive,
    "ols": people.ols,
    "did": people.differences,
    "doubly_robust": people.doubly_robust,
    "matching": people.matching,
    "causal_impact": series.causal_impact,
    "switchback": series.switchback,
}
