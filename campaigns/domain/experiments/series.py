"""Methods on one series, and on units that are switched on and off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from scipy import stats as st
from scipy.optimize import minimize, minimize_scalar

from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments import people, synthetic
from campaigns.domain.experiments.design import alpha_of, seed_of
from campaigns.domain.experiments.found import Found, t_test, tails_of, varies
from campaigns.domain.experiments.panel import Panel
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

CLOSE = {"xatol": 1e-2, "fatol": 1e-4}
STEADY, STEP = 32.0, 0.01  # CausalImpact's prior of the level's steps: weight, and size in spreads of the outcome


def causal_impact(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """One series against what a local level with regressors foretells.

    What the covariates leave of the outcome, the effect taken out, is shifted in time, round the end; the mean
    of the test less the level's forecast is ranked among those of all shifts (Chernozhukov 2021). The effect
    is the one that leaves nothing. ``textbook`` is the forecast from the past alone, with the model's errors.
    """
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    when = panels.column(frame, spec.get("time", "time"), where)
    y = panels.numbers(frame, panels.column(frame, spec.get("outcome", "outcome"), where), where)
    varies(y, spec, where)
    times = [str(v).strip() for v in frame[when].to_list()]
    for earlier, after in pairwise(sorted(times)):
        if earlier == after:
            raise BadInput(f"{where}: {after} stands twice; one series has each period once")
    panels.in_order(["the series"] * len(y), times, where)
    panels.whole(times, where)
    axis = Panel(("series",), tuple(times), y[None, :])
    if spec.get("start") is None:
        raise BadInput("start: the first period of the intervention is missing")
    first = axis.place_of(spec["start"], "start")
    last = axis.place_of(spec["end"], "end", last=True) if spec.get("end") is not None else len(y) - 1
    if first < 10:
        raise BadInput(f"start: {first} periods before it; at least 10 are needed")
    x = people.covariates(spec, frame, where)
    if first <= x.shape[1] + 3:
        raise BadInput(f"start: {first} periods before it are too few for {x.shape[1]} covariates")
    centre, size = y[:first].mean(), y[:first].std() or 1.0
    spread = np.where(x[:first].std(axis=0) > 0, x[:first].std(axis=0), 1.0)
    rows = np.column_stack([np.ones(last + 1), ((x - x[:first].mean(axis=0)) / spread)[: last + 1]])
    # coefficients stand in the state, so that what is unknown of them widens the forecast
    model = UnobservedComponents(
        (y[:first] - centre) / size,
        level="local level",
        exog=rows[:first, 1:] if x.shape[1] else None,
        mle_regression=not x.shape[1],
    )
    inference, tails, alpha = spec.get("inference", "block"), tails_of(spec), alpha_of(spec)
    published, seed = inference == "textbook", seed_of(spec) if inference == "iid" else None
    noise, drift = _as_published(model) if published else _as_told(model, first)
    fitted = model.smooth([noise, drift])
    state, doubt = fitted.filtered_state[:, -1], fitted.filtered_state_cov[:, :, -1]
    before = centre + size * (rows[:first] * fitted.smoothed_state.T).sum(axis=1)
    freedom = first - 1 - x.shape[1]
    told = ["one series and no control: whatever else happened at the same time is in the effect"]
    ahead_T = centre + size * rows[first:] @ state

    def read(length: int) -> tuple[float, tuple[float, float], float]:
        """Effect over the first periods of the test, its interval and p-value."""
        seen = rows[: first + length]
        if published:
            att = float((y[first : first + length] - ahead_T[:length]).mean())
            return att, *t_test(att, size * _error_of_mean(seen[first:], doubt, noise, drift), freedom, spec)
        weight = _forecast_weights(np.ones((first + length, 1)), first, noise, drift)
        among = synthetic.shifted(weight, y[: first + length], seen, first, seed=seed)
        return float(among.effect_S[0]), *among.bounds(alpha, tails=tails)

    att, interval, p = read(last + 1 - first)
    if published:
        told.append(
            "the model's own error is given, as published: too narrow or too wide where the level does not move as the model says"
        )
    elif inference == "iid":
        told.append("iid inference shuffles periods freely; its size is not valid where periods are correlated")
    if not published:
        on_T = np.arange(last + 1) >= first
        slope_K = np.linalg.lstsq(rows, y[: last + 1] - att * on_T, rcond=None)[0]
        level = -_forecast_weights(np.ones((last + 1, 1)), first, noise, drift)[:first] @ (
            y[:first] - rows[:first] @ slope_K
        )
        ahead_T = rows[first:] @ slope_K + level
    if not published and 1 / (last + 1) >= alpha:
        told.append(
            f"{last + 1} periods allow no p-value under {1 / (last + 1):.3f}: nothing can be significant at {alpha:g}"
        )
    shown = np.concatenate([before, ahead_T])
    gap = y[: last + 1] - shown
    reach = float(st.t(freedom).ppf(1 - alpha / 2))
    series: list[dict[str, Any]] = []
    for i in range(last + 1):
        row = {"time": times[i], "observed": float(y[i]), "expected": float(shown[i]), "effect": float(gap[i])}
        series.append(row | {"test": i >= first})
        if i >= first:
            ahead = i - first + 1
            one = size * math.sqrt(float(rows[i] @ doubt @ rows[i]) + ahead * drift + noise)
            mean, (low, high), _ = read(ahead)
            series[-1] |= {"low": float(shown[i]) - reach * one, "high": float(shown[i]) + reach * one}
            series[-1] |= {"cumulative": ahead * mean, "cumulative_low": ahead * low, "cumulative_high": ahead * high}
    error = size * _error_of_mean(rows[first:], doubt, noise, drift)
    diagnostics = {
        "inference": inference,
        "periods": last + 1 - first,
        "std_error": error,
        "noise_std": size * math.sqrt(noise),
        "level_std": size * math.sqrt(drift),
    }
    base = float(shown[first:].mean())
    return Found(att, interval, p, float(last + 1 - first), base, diagnostics, told, series)


def _as_told(model: Any, periods: int) -> tuple[float, float]:
    """Variances of one observation and of one step of the level, by maximum likelihood.

    The level moves only where the likelihood says so (Schwarz's criterion): what a few dozen periods cannot
    tell from noise is not taken for a level that wanders.
    """

    def miss(logs: Array) -> float:
        noise, drift = np.exp(np.clip(logs, -30, 10))
        return -float(model.loglike([noise, drift]))

    still = minimize_scalar(lambda log: miss(np.array([log, -30.0])), bounds=(-20, 5), method="bounded")
    moving = minimize(miss, np.array([still.x, still.x - 3]), method="Nelder-Mead", options=CLOSE)
    logs = moving.x if still.fun - moving.fun > 0.5 * math.log(periods) else [still.x, -30.0]
    noise, drift = np.exp(np.clip(logs, -30, 10))
    return float(noise), float(drift)


def _as_published(model: Any) -> tuple[float, float]:
    """The same with CausalImpact's prior that the level hardly moves: a standard deviation of .01 for each
    step, in spreads of the outcome, with the weight of 32 observations."""

    def miss(logs: Array) -> float:
        noise, drift = np.exp(np.clip(logs, -30, 10))
        prior = (STEADY / 2 + 1) * math.log(drift) + STEADY * STEP**2 / (2 * drift)
        return prior - float(model.loglike([noise, drift]))

    found = minimize(miss, np.log([0.5, STEP**2]), method="Nelder-Mead", options=CLOSE)
    noise, drift = np.exp(np.clip(found.x, -30, 10))
    return float(noise), float(drift)


def _forecast_weights(rows_TK: Array, first: int, noise: float, drift: float) -> Array:
    """Weight of each period in the mean of the test less its forecast (generalized least squares).

    Args:
        rows_TK: 1 for the level, then the covariates.
        first: period of the test that comes first.
    """
    step = np.arange(1.0, first + 1)
    cover = noise * np.eye(first) + drift * np.minimum.outer(step, step)
    past_TK, ahead_K = rows_TK[:first], rows_TK[first:].mean(axis=0)
    solved = np.linalg.solve(cover, np.column_stack([past_TK, drift * step]))
    by_row, by_level = solved[:, :-1], solved[:, -1]
    past = by_level + by_row @ np.linalg.lstsq(past_TK.T @ by_row, ahead_K - past_TK.T @ by_level, rcond=None)[0]
    return np.concatenate([-past, np.full(len(rows_TK) - first, 1 / (len(rows_TK) - first))])


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


def switchback(spec: Mapping[str, Any], frame: pl.DataFrame, where: str) -> Found:
    """On and off in turn: treatment beside unit and period effects, errors clustered by unit and block."""
    y, t = people.columns(spec, frame, where)
    units = (
        [str(v) for v in frame[panels.column(frame, spec.get("unit", "unit"), where)].to_list()]
        if spec.get("unit")
        else ["all"] * len(y)
    )
    times = [str(v) for v in frame[panels.column(frame, spec.get("time", "time"), where)].to_list()]
    keys = panels.sorted_keys(times)
    if spec.get("unit"):
        panels.in_order(units, times, where)
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
    beta, error = people.least_squares(t_R[:, None], y_R, blocks, absorbed=absorbed)
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
