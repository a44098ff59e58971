"""Response curves from history: what the data can say, how sure it is, and where it cannot say.

Each arm's sales are a baseline, controls (demand, price, stock, season ...), a saturating response
``scale * a / (half + a)`` of the carried-over spend a, and noise. Arms of one tactic share a rate
of carry-over, and their half saturations and returns are pooled over retailers. Fitting is least
squares with bounds and weak priors; the answer is draws from the posterior, not a point.

History cannot tell an advertiser who spends more when demand is high from one whose spend works: a
simulation in which spend follows demand (correlation 0.7) gave 1.9 times the true marginal return,
and more weeks made it only surer. So a history without demand in it is warned about, and where a
lift test disagrees, the level comes from the test and the history keeps its shape only.

Sources: Jin et al. (2017), Bayesian Methods for Media Mix Modeling with Carryover and Shape Effects;
Efron and Morris (1975) for the pooling; Rubin (1988) for sampling importance resampling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

CARRY = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
BEYOND = 1.5  # times the spend seen: no curve is used past it
FEW, LITTLE = 20, 0.15  # rows and coefficient of variation of spend under which the curve is mostly prior
DISCOUNT = 3.0  # times the noise of a history whose level a test contradicts: its shape counts less too
DISAGREE = 1.64  # standard errors between history and test
DEMAND_WORDS = ("demand", "search", "traffic", "category", "market", "season", "trend", "basket", "visits", "index")
ATTRIBUTES = ("brand", "retailer", "campaign", "tactic", "currency")


@dataclass(frozen=True)
class History:
    """One arm's past, a row per period, in order of time."""

    arm: str
    spend_D: Array
    sales_D: Array
    controls: Mapping[str, Array] = field(default_factory=dict)  # name -> value per period
    attributes: Mapping[str, str] = field(default_factory=dict)  # retailer, tactic ...

    @property
    def tactic(self) -> str:
        return self.attributes.get("tactic") or self.arm


@dataclass(frozen=True)
class LiftTest:
    """A measured gain in sales per period from moving an arm's spend per period from one level to another."""

    arm: str
    spend_from: float
    spend_to: float
    lift: float
    se: float


@dataclass(frozen=True)
class Fit:
    """One arm's curve: the posterior's draws, and all that a reader needs to judge them."""

    arm: str
    scale: float
    half: float
    carry: float
    scale_S: Array
    half_S: Array
    baseline: float
    noise: float
    evidence: str  # calibrated or attribution
    spend_mean: float
    spend_max: float
    rows: int
    explained: float  # share of the variance that the model explains
    warnings: tuple[str, ...]
    history_weight: str = "full"  # shape only, where a test contradicted the level
    tests: tuple[
        Mapping[str, Any], ...
    ] = ()  # lift tests used: what history foretold of each, and its weight beside it

    @property
    def scale_std(self) -> float:
        return float(self.scale_S.std())

    def slope(self, spend: float) -> float:
        return self.scale * self.half / (self.half + spend) ** 2

    def slope_S(self, spend: float) -> Array:
        return self.scale_S * self.half_S / (self.half_S + spend) ** 2


def carried(spend_D: Array, rate: float) -> Array:
    """Spend with what carries over: a steady spend stays what it is, ``a = (1 - r) s + r a_before``."""
    if rate <= 0:
        return spend_D
    from scipy.signal import lfilter

    # before the history began, spend is taken to have been as in its first quarter
    before = float(spend_D[: max(len(spend_D) // 4, 1)].mean())
    result, _ = lfilter([1.0 - rate], [1.0, -rate], spend_D, zi=[rate * before])
    return np.asarray(result, float)


def fit(
    histories: Sequence[History],
    tests: Sequence[LiftTest] = (),
    *,
    draws: int = 300,
    seed: int = 1,
) -> list[Fit]:
    """A curve for each arm.

    Args:
        histories: the arms' pasts; spend and sales per period.
        tests: lift tests, any number per arm.
        draws: how many draws of each curve.
        seed: of the random numbers.

    Returns:
        A fit for each arm with any spend and at least 3 rows, in the given order.

    Raises:
        BadInput: no arm can be fitted, or a test names an arm that has no history.
    """
    names = {history.arm for history in histories}
    for test in tests:
        if test.arm not in names:
            raise BadInput(f"lift test of arm {test.arm!r}: the history has no such arm; check the spelling")
    usable = [h for h in histories if len(h.spend_D) >= 3 and float(h.spend_D.max()) > 0]
    if not usable:
        raise BadInput("no arm has three rows and any spend: nothing can be fitted")
    rng = np.random.default_rng(seed)
    tactics = {h.tactic: [o for o in usable if o.tactic == h.tactic] for h in usable}
    rates = {tactic: _carry_rate(members) for tactic, members in tactics.items()}
    first = {h.arm: _posterior(h, rates[h.tactic], _Prior()) for h in usable}
    priors = {tactic: _pooled([first[h.arm] for h in members]) for tactic, members in tactics.items()}
    fits = []
    for history in usable:
        pooled = priors[history.tactic]
        posterior = first[history.arm] if pooled is None else _posterior(history, rates[history.tactic], pooled)
        mine = [test for test in tests if test.arm == history.arm]
        fits.append(_describe(history, posterior, mine, pooled, draws, rng))
    return fits


# -- one arm


@dataclass(frozen=True)
class _Prior:
    """Normal priors in logarithms, in units of the arm itself.

    ``half`` is relative to the mean spend, ``rate`` the curve's average return at the mean spend
    relative to sales per spend seen.
    """

    half_mean: float = 0.0
    half_sd: float = 1.0
    rate_mean: float = -0.7
    rate_sd: float = 1.5


@dataclass(frozen=True)
class _Posterior:
    """The mode and what is needed to draw around it. Parameters: ln V/u, ln K/u, baseline, betas."""

    history: History
    rate: float
    prior: _Prior
    mode_P: Array
    cov_PP: Array
    noise: float
    inflation: float  # of the variance, for noise that persists from period to period
    controls_DX: Array
    tests: tuple[LiftTest, ...] = ()
    free_level: bool = False  # a last parameter: ln of the factor by which history overstates

    @cached_property
    def unit(self) -> float:
        return float(self.history.spend_D.mean())

    @cached_property
    def worth(self) -> float:
        return max(float(self.history.sales_D.mean()), 1e-12)


def _curve(scale: Any, half: Any, spend: Any) -> Any:
    return scale * spend / (half + spend)


def _controls(history: History) -> Array:
    """Controls as standardised columns; those that do not vary say nothing."""
    columns = []
    for values in history.controls.values():
        sd = float(values.std())
        if sd > 1e-12 * max(float(np.abs(values).max()), 1e-300):
            columns.append((values - values.mean()) / sd)
    return np.stack(columns, 1) if columns else np.zeros((len(history.spend_D), 0))


def _residuals(p: Array, posterior: _Posterior, a_D: Array) -> Array:
    """Misfit of history, tests and priors, each in its own standard errors; of one set of parameters or a row of each."""
    history, prior, X, worth = posterior.history, posterior.prior, posterior.controls_DX, posterior.worth
    scale, half = np.exp(p[..., :1]) * worth, np.exp(p[..., 1:2]) * posterior.unit
    level = np.exp(p[..., -1:]) if posterior.free_level else 1.0
    betas = p[..., 3 : 3 + X.shape[1]]
    model = level * _curve(scale, half, a_D) + p[..., 2:3] * worth + betas @ X.T * worth
    noise = posterior.noise * np.sqrt(posterior.inflation) * (DISCOUNT if posterior.free_level else 1.0)
    parts = [(history.sales_D - model) / noise]
    for test in posterior.tests:
        lift = _curve(scale, half, test.spend_to) - _curve(scale, half, test.spend_from)
        parts.append((test.lift - lift) / test.se)
    average = p[..., :1] - np.log1p(np.exp(p[..., 1:2]))  # ln of the return at the mean spend, relative
    parts += [(p[..., 1:2] - prior.half_mean) / prior.half_sd, (average - prior.rate_mean) / prior.rate_sd]
    parts += [p[..., 2:3] / 0.7, betas / 2.0]
    if posterior.free_level:
        parts.append(p[..., -1:] / 2.0)
    return np.concatenate(parts, axis=-1)


def _slopes(p: Array, posterior: _Posterior, a_D: Array) -> Array:
    """Change of the misfit with each parameter: forward differences, all parameters in one pass."""
    step_P = 1.5e-8 * np.maximum(np.abs(p), 1.0)
    misfit_PN = _residuals(np.vstack([p, p + np.diag(step_P)]), posterior, a_D)
    return np.asarray(((misfit_PN[1:] - misfit_PN[0]) / step_P[:, None]).T)


def _posterior(
    history: History, rate: float, prior: _Prior, tests: tuple[LiftTest, ...] = (), *, free_level: bool = False
) -> _Posterior:
    """Mode and curvature by bounded least squares; the noise is estimated along the way."""
    X = _controls(history)
    size = 3 + X.shape[1] + free_level
    empty = _Posterior(history, rate, prior, np.zeros(size), np.eye(size), 1.0, 1.0, X, tests, free_level)
    a_D = carried(history.spend_D, rate)
    low = np.concatenate([[-8.0, np.log(0.02), 0.0], np.full(X.shape[1], -20.0), [-4.0] * free_level])
    high = np.concatenate([[8.0, np.log(50.0), 5.0], np.full(X.shape[1], 20.0), [4.0] * free_level])
    noise = max(float(history.sales_D.std()), 1e-6 * empty.worth)
    best: Any = None
    posterior = empty
    for round_ in range(3):
        posterior = replace(posterior, noise=noise)
        starts = [np.log([0.5, 2.0]), np.log([0.3, 0.3]), np.log([1.0, 8.0])] if round_ == 0 else [best.x[:2]]
        answers = []
        for start in starts:
            guess = np.zeros(size)
            guess[:2] = start
            guess[2] = 0.3
            if round_:
                guess = best.x
            guess = np.clip(guess, low + 1e-9, high - 1e-9)
            answers.append(least_squares(_residuals, guess, jac=_slopes, bounds=(low, high), args=(posterior, a_D), x_scale=1.0))  # fmt: skip
        best = min(answers, key=lambda a: a.cost)
        left_D = best.fun[: len(a_D)] * noise * np.sqrt(posterior.inflation) * (DISCOUNT if free_level else 1.0)
        free = max(len(a_D) - 3 - X.shape[1], 2)
        noise = max(float(np.sqrt((left_D**2).sum() / free)), 1e-6 * empty.worth)
        persist = 0.0
        if len(a_D) > 8 and float(left_D.std()) > 0:
            persist = float(np.clip(np.corrcoef(left_D[:-1], left_D[1:])[0, 1], 0.0, 0.9))
        posterior = replace(
            posterior, inflation=(1 + persist) / (1 - persist) if persist > 2 / np.sqrt(len(a_D)) else 1.0
        )
    posterior = replace(posterior, noise=noise)
    J = best.jac
    cov = np.linalg.pinv(J.T @ J + 1e-10 * np.eye(size))
    return replace(posterior, mode_P=best.x, cov_PP=cov)


def _draw(posterior: _Posterior, count: int, rng: np.random.Generator) -> Array:
    """Draws from the posterior: t proposals around the mode, weighed by the posterior itself."""
    size = posterior.mode_P.size
    a_D = carried(posterior.history.spend_D, posterior.rate)
    try:
        root = np.linalg.cholesky(posterior.cov_PP + 1e-12 * np.eye(size))
    except np.linalg.LinAlgError:  # a history that says nothing leaves directions without any curvature
        along_P, axes_PP = np.linalg.eigh(posterior.cov_PP)
        root = axes_PP * np.sqrt(np.maximum(along_P, 0.0))
    tries = max(2000, 6 * count)
    z = rng.standard_normal((tries, size))
    stretch = np.sqrt(5.0 / rng.chisquare(5.0, tries))[:, None]
    proposals = posterior.mode_P + (z * stretch) @ root.T
    proposals[:, 2] = np.abs(proposals[:, 2])
    proposals[:, 1] = np.clip(proposals[:, 1], np.log(0.02), np.log(50.0))
    proposals[:, 0] = np.clip(proposals[:, 0], -8.0, 8.0)
    log_target = -0.5 * np.sum(_residuals(proposals, posterior, a_D) ** 2, axis=1)
    distance = np.sum((z * stretch) ** 2, axis=1)
    log_weight = log_target + 0.5 * (5 + size) * np.log1p(distance / 5.0)
    weight = np.exp(log_weight - log_weight.max())
    chosen = rng.choice(tries, count, p=weight / weight.sum())
    return np.asarray(proposals[chosen])


# -- many arms


def _carry_rate(members: Sequence[History]) -> float:
    """One carry-over rate for a tactic: the one all its arms together find most likely.

    A rate above 0 has to be 3 units of log likelihood better than none.
    """
    scores = []
    for rate in CARRY:
        total = 0.0
        for history in members:
            a_D, X = carried(history.spend_D, rate), _controls(history)
            best = np.inf
            for half in np.array([0.2, 0.6, 1.5, 4.0, 12.0]) * max(float(history.spend_D.mean()), 1e-12):
                design = np.column_stack([a_D / (half + a_D), np.ones(len(a_D)), X])
                answer, *_ = np.linalg.lstsq(design, history.sales_D, rcond=None)
                best = min(best, float(((history.sales_D - design @ answer) ** 2).sum()))
            total += -0.5 * len(a_D) * np.log(max(best, 1e-300))
        scores.append(total)
    place = int(np.argmax(scores))
    return CARRY[place] if scores[place] > scores[0] + 3.0 else 0.0


def _pooled(posteriors: Sequence[_Posterior]) -> _Prior | None:
    """What a tactic's arms have in common, as a prior for each: mean and spread between arms."""
    if len(posteriors) < 3:
        return None
    half = np.array([p.mode_P[1] for p in posteriors])
    rate = np.array([p.mode_P[0] - np.log1p(np.exp(p.mode_P[1])) for p in posteriors])
    half_var = np.array([p.cov_PP[1, 1] for p in posteriors])
    rate_var = np.array([_rate_variance(p) for p in posteriors])

    def pool(value: Array, own: Array) -> tuple[float, float]:
        weight = 1.0 / (own + 0.05)
        mean = float((weight * value).sum() / weight.sum())
        between = max(float((weight * ((value - mean) ** 2 - own)).sum() / weight.sum()), 0.0)
        return mean, float(np.sqrt(between + 1.0 / weight.sum() + 0.15**2))

    return _Prior(*pool(half, half_var), *pool(rate, rate_var))


def _rate_variance(posterior: _Posterior) -> float:
    share = 1.0 / (1.0 + np.exp(-posterior.mode_P[1]))
    gradient = np.array([1.0, -share])
    return float(gradient @ posterior.cov_PP[:2, :2] @ gradient)


# -- tests, warnings, words


def _describe(
    history: History,
    posterior: _Posterior,
    tests: Sequence[LiftTest],
    pooled: _Prior | None,
    draws: int,
    rng: np.random.Generator,
) -> Fit:
    warnings = warnings_of(history)
    weight, evidence = "full", "attribution"
    used: list[dict[str, float]] = []
    if tests:
        evidence = "calibrated"
        used = _foretold(posterior, tests, rng)
        off = max((one["disagreement"] for one in used), key=abs)
        if abs(off) > DISAGREE:
            weight = "shape only"
            warnings.append(
                f"{history.arm}: history and lift test disagree by {abs(off):.1f} standard errors (history"
                f" {'over' if off > 0 else 'under'}states); the level follows the test, history is discounted to its shape"
            )
            posterior = _posterior(
                history, posterior.rate, pooled or _Prior(), tuple(tests), free_level=weight != "full"
            )
    drawn = _draw(posterior, draws, rng)
    scale_S, half_S = np.exp(drawn[:, 0]) * posterior.worth, np.exp(drawn[:, 1]) * posterior.unit
    a_D = carried(history.spend_D, posterior.rate)
    left = _residuals(posterior.mode_P, posterior, a_D)[: len(a_D)] * posterior.noise * np.sqrt(posterior.inflation)
    left *= DISCOUNT if posterior.free_level else 1.0
    spread = float(((history.sales_D - history.sales_D.mean()) ** 2).sum())
    mean = float(history.spend_D.mean())
    scale, half = _middle(scale_S, half_S, mean, float(history.spend_D.max()))
    found = Fit(
        arm=history.arm,
        scale=scale,
        half=half,
        carry=posterior.rate,
        scale_S=scale_S,
        half_S=half_S,
        baseline=float(posterior.mode_P[2]) * posterior.worth,
        noise=posterior.noise,
        evidence=evidence,
        spend_mean=mean,
        spend_max=float(history.spend_D.max()),
        rows=len(history.spend_D),
        explained=1.0 - float((left**2).sum()) / spread if spread > 0 else 0.0,
        warnings=tuple(warnings),
        history_weight=weight,
        tests=tuple(used),
    )
    low, high = np.quantile(found.slope_S(mean), [0.05, 0.95])
    if high > 4 * max(low, 1e-300) and evidence == "attribution":
        words = (
            f"{history.arm}: the next unit of spend brings between {low:.3g} and {high:.3g} (90 %): history hardly"
            " identifies this curve; vary the spend or run a lift test"
        )
        found = replace(found, warnings=(*found.warnings, words))
    return found


def _middle(scale_S: Array, half_S: Array, mean: float, most: float) -> tuple[float, float]:
    """The one curve nearest to the draws' mean curve over the spend seen."""
    grid = np.linspace(0.05 * mean, max(BEYOND * most, mean), 40)
    target = _curve(scale_S[:, None], half_S[:, None], grid).mean(0)
    start = np.array([np.log(np.median(scale_S)), np.log(np.median(half_S))])
    size = max(float(target.max()), 1e-300)
    answer = least_squares(lambda p: (_curve(np.exp(p[0]), np.exp(p[1]), grid) - target) / size, start)
    return float(np.exp(answer.x[0])), float(np.exp(answer.x[1]))


def _foretold(posterior: _Posterior, tests: Sequence[LiftTest], rng: np.random.Generator) -> list[dict[str, float]]:
    """What history alone expects of each test, how far off that was in standard errors, and what the test weighs beside it."""
    drawn = _draw(posterior, 400, rng)
    scale, half = np.exp(drawn[:, 0]) * posterior.worth, np.exp(drawn[:, 1]) * posterior.unit
    found = []
    for test in tests:
        lifts = _curve(scale, half, test.spend_to) - _curve(scale, half, test.spend_from)
        mean, spread = float(lifts.mean()), float(lifts.std())
        found.append(
            {
                **asdict(test),
                "foretold": mean,
                "foretold_std": spread,
                "disagreement": (mean - test.lift) / float(np.hypot(spread, test.se)),
                "weight": spread**2 / (spread**2 + test.se**2),
            }
        )
    return found


def warnings_of(history: History) -> list[str]:
    """Why this history may not identify the curve, each with its reason and what to do."""
    found = []
    arm, spend_D = history.arm, history.spend_D
    if len(spend_D) < FEW:
        found.append(
            f"{arm}: {len(spend_D)} periods are few: the curve rests mostly on the prior; give more or a lift test"
        )
    mean = float(spend_D.mean())
    varies = float(spend_D.std()) / mean if mean > 0 else 0.0
    if varies < LITTLE:
        found.append(
            f"{arm}: spend hardly varied (coefficient of variation {varies:.2f}): history cannot identify the curve;"
            " vary the spend or run a lift test"
        )
    if not any(word in name.lower() for name in history.controls for word in DEMAND_WORDS):
        found.append(
            f"{arm}: no demand control in the history: if spend follows demand the curve is confounded and the return"
            " overstated (up to twofold); add a demand, search or season column, or calibrate with a lift test"
        )
    for name, values in history.controls.items():
        if float(values.std()) <= 0 or varies == 0:
            continue
        together = float(np.corrcoef(spend_D, values)[0, 1])
        if abs(together) > 0.9:
            found.append(
                f"{arm}: spend and {name} move together (correlation {together:.2f}): history cannot identify which of"
                " them works; run a lift test"
            )
        elif abs(together) > 0.5:
            found.append(
                f"{arm}: spend follows {name} (correlation {together:.2f}), which is held constant in the fit; what"
                " it does not capture still confounds"
            )
    return found


def as_json(fits: Sequence[Fit], histories: Sequence[History], *, periods: float = 1.0) -> dict[str, Any]:
    """Arms for a budget problem with intervals, draws and warnings.

    Args:
        fits: the curves, per period of the history.
        histories: where the arms' attributes stand.
        periods: how many of the history's periods the plan will have; an even spend is assumed, so
            spend, sales, scale and half grow with it.

    Returns:
        ``arms`` as in a budget problem, with ``max`` at 1.5 times the most that was ever spent;
        ``intervals`` (5 to 95 %); ``draws`` as a budget problem takes them; ``warnings``.
    """
    by_arm = {history.arm: history for history in histories}
    arms, intervals, draws, fitted = [], {}, {}, {}
    for found in fits:
        history = by_arm[found.arm]
        mean = found.spend_mean
        arm: dict[str, Any] = {"id": found.arm, **{key: history.attributes.get(key) for key in ATTRIBUTES}}
        arm |= {
            "min": 0.0,
            "max": BEYOND * found.spend_max * periods,
            "last": mean * periods,
            "curve": {"kind": "michaelis_menten", "scale": found.scale * periods, "half": found.half * periods},
            "std": {"scale": found.scale * periods * float(np.std(_levels(found)))},
            "evidence": found.evidence,
            "seen": found.spend_max * periods,
        }
        arms.append(arm)
        average_S = found.scale_S / (found.half_S + mean)
        intervals[found.arm] = {
            "level": 0.9,
            "scale": _interval(found.scale_S * periods),
            "half": _interval(found.half_S * periods),
            "roas": _interval(average_S),
            "marginal_roas": _interval(found.slope_S(mean)),
            "at_spend": mean * periods,
        }
        draws[found.arm] = [
            {"scale": float(v * periods), "half": float(k * periods)}
            for v, k in zip(found.scale_S, found.half_S, strict=True)
        ]
        fitted[found.arm] = {
            "rows": found.rows,
            "adstock": found.carry,
            "baseline": found.baseline,
            "noise": found.noise,
            "explained": found.explained,
            "history": found.history_weight,
            "tests": [dict(one) for one in found.tests],
            "marginal_roas": found.slope(mean),
        }
    skipped = [h.arm for h in histories if h.arm not in {f.arm for f in fits}]
    warnings = [f"{arm}: no curve: fewer than 3 rows, or no spend at all" for arm in skipped]
    warnings += [warning for found in fits for warning in found.warnings]
    return {
        "arms": arms,
        "intervals": intervals,
        "draws": draws,
        "warnings": warnings,
        "adstock": {h.tactic: f.carry for f in fits if (h := by_arm[f.arm]).attributes.get("tactic")},
        "fits": fitted,
        "periods": periods,
    }


def _levels(found: Fit) -> Array:
    """How far each draw's sales at the mean spend lie from the middle one's, relative."""
    at = found.spend_mean
    return _curve(found.scale_S, found.half_S, at) / _curve(found.scale, found.half, at)


def _interval(values: Array) -> list[float]:
    return [float(x) for x in np.quantile(values, [0.05, 0.95])]


# -- reading


def read_history(columns: Mapping[str, Sequence[Any]], where: str = "history") -> list[History]:
    """Arms' histories from a table's columns: arm, date, spend, sales; others are attributes or controls.

    Raises:
        BadInput: a column is missing, a value is no number, spend is negative, or an arm has a date
            twice; with the row.
    """
    missing = [name for name in ("arm", "date", "spend", "sales") if name not in columns]
    if missing:
        raise BadInput(f"{where}: column {', '.join(missing)} is missing; arm, date, spend and sales are needed")
    arms = [str(a).strip() if a is not None else "" for a in columns["arm"]]
    if not arms:
        raise BadInput(f"{where}: has no rows")
    dates = [str(d).strip() if d is not None else "" for d in columns["date"]]
    seen: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(arms, dates, strict=True)):
        if not key[0] or not key[1]:
            raise BadInput(f"{where} row {row + 2}: arm or date is empty")
        if key in seen:
            raise BadInput(f"{where} row {row + 2}: arm {key[0]!r} has {key[1]} twice (row {seen[key] + 2})")
        seen[key] = row
    order = _order(dates, where)
    spend = _numbers(columns["spend"], where, "spend")
    sales = _numbers(columns["sales"], where, "sales")
    for row in map(int, np.flatnonzero(spend < 0)):
        raise BadInput(f"{where} row {row + 2}: spend is {spend[row]:g}; at least 0 was expected")
    controls = _control_columns(columns, where)
    found = []
    for arm in dict.fromkeys(arms):
        rows = sorted((r for r, name in enumerate(arms) if name == arm), key=lambda r: order[r])
        attributes = {}
        for name in ATTRIBUTES:
            values = {str(columns[name][r]) for r in rows if columns[name][r] is not None} if name in columns else set()
            if len(values) > 1:
                raise BadInput(f"{where}: arm {arm!r} has several values of {name}: {', '.join(sorted(values)[:3])}")
            if values:
                attributes[name] = values.pop()
        found.append(History(arm, spend[rows], sales[rows], {n: v[rows] for n, v in controls.items()}, attributes))
    return found


PERIOD = re.compile(r"\d{4}-(0[1-9]|1[0-2]|W[0-5]\d|Q[1-4])")  # months, weeks and quarters of a year sort as text


def _order(dates: Sequence[str], where: str) -> list[Any]:
    """What puts periods in their order: days, or numbers, or months, weeks or quarters of years; all of one kind."""

    def day(text: str) -> float:
        return float(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())

    def period(text: str) -> str:
        if PERIOD.fullmatch(text) is None:
            raise ValueError(text)
        return text

    for read in (day, float, period):
        try:
            _ = read(dates[0])
        except ValueError:
            continue
        found: list[Any] = []
        for row, text in enumerate(dates):
            try:
                found.append(read(text))
            except ValueError:
                raise BadInput(f"{where} row {row + 2}: date is {text!r}; like {dates[0]!r} was expected") from None
        return found
    raise BadInput(
        f"{where} row 2: date is {dates[0]!r}; write 2026-01-31, 2026-W05, 2026-01 or the number of the period"
    )


def _numbers(values: Sequence[Any], where: str, name: str) -> Array:
    result = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            result[row] = float(value)
        except (TypeError, ValueError):
            raise BadInput(f"{where} row {row + 2}: {name} is {value!r}; a number was expected") from None
        if not np.isfinite(result[row]):
            raise BadInput(f"{where} row {row + 2}: {name} is {value!r}; a finite number was expected")
    return result


def _control_columns(columns: Mapping[str, Sequence[Any]], where: str) -> dict[str, Array]:
    """Numeric columns as they are, gaps at their mean; short lists of words as 0/1 columns."""
    controls: dict[str, Array] = {}
    for name, values in columns.items():
        if name in ("arm", "date", "spend", "sales", *ATTRIBUTES):
            continue
        try:
            numbers = np.array([np.nan if v is None or v == "" else float(v) for v in values])
        except (TypeError, ValueError):
            words = [str(v) for v in values]
            kinds = sorted(set(words))
            if len(kinds) > 12:
                raise BadInput(
                    f"{where}: column {name} has {len(kinds)} different texts; a control is a number or a few words"
                ) from None
            for kind in kinds[1:]:
                controls[f"{name}={kind}"] = np.array([float(w == kind) for w in words])
            continue
        if np.all(np.isnan(numbers)):
            continue
        controls[name] = np.where(np.isnan(numbers), np.nanmean(numbers), numbers)
    return controls


def read_tests(
    rows: Sequence[Mapping[str, Any]], histories: Sequence[History], where: str = "lift tests"
) -> list[LiftTest]:
    """Lift tests from rows: arm, lift, se (or low and high at 90 %), spend_from, spend_to (or change).

    Without ``spend_from`` the arm's mean spend is meant.

    Raises:
        BadInput: a field is missing or no number, a standard error is not positive, or the test
            changed nothing.
    """
    means = {h.arm: float(h.spend_D.mean()) for h in histories}
    found = []
    for number, row in enumerate(rows, 1):
        place = f"{where} test {number}"
        arm = str(row.get("arm") or "")
        if arm not in means:
            raise BadInput(f"{place}: arm is {arm!r}; the history has no such arm")

        def get(*names: str, default: float | None = None, row: Mapping[str, Any] = row, place: str = place) -> float:
            for name in names:
                if row.get(name) not in (None, ""):
                    return float(_numbers([row[name]], place, name)[0])
            if default is None:
                raise BadInput(f"{place}: {names[0]} is missing")
            return default

        start = get("spend_from", "spend", "base_spend", default=means[arm])
        if row.get("spend_to") not in (None, ""):
            end = get("spend_to")
        else:
            end = start + get("change", "delta", "spend_change", "extra_spend", "delta_spend", "incremental_spend")
        lift = get("lift", "estimate", "incremental_sales", "delta_sales")
        if row.get("low") not in (None, "") and row.get("high") not in (None, ""):
            error = (get("high") - get("low")) / (2 * 1.6448536269514722)
        else:
            error = get("se", "std_error", "standard_error", "std")
        if error <= 0:
            raise BadInput(f"{place}: se is {error:g}; more than 0 was expected")
        if start == end or min(start, end) < 0:
            raise BadInput(f"{place}: spend from {start:g} to {end:g} is no test")
        found.append(LiftTest(arm, start, end, lift, error))
    return found
