"""Who is better, from pairs: Bradley-Terry, with ties as Davidson has them, and control of a covariate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

PRIOR = 1e-2  # precision that keeps an item that never lost at a finite strength; only used there
STEPS = 200


@dataclass(frozen=True)
class Contest:
    """How often a beat b, b beat a, and neither; ``difference`` is a covariate of a minus b (log length ...)."""

    a: str
    b: str
    wins_a: float
    wins_b: float
    ties: float = 0.0
    difference: float = 0.0


@dataclass(frozen=True)
class Ranking:
    """Strengths on the log scale beside the first item, with standard errors and intervals."""

    items: list[str]
    log_ability_I: Array
    se_I: Array
    tie_parameter: float | None  # Davidson's nu: 0 no ties
    covariate: float | None  # log odds of one unit of difference
    covariate_se: float | None
    log_likelihood: float
    comparisons: float
    separated: bool  # somebody never lost or never met the others: strengths rest on the prior
    covariance_II: Array
    level: float = 0.95

    @property
    def order(self) -> list[int]:
        return sorted(range(len(self.items)), key=lambda place: -float(self.log_ability_I[place]))

    def chance(self, a: str, b: str) -> float:
        """How likely a beats b when one of them does."""
        gap = self.log_ability_I[self.items.index(a)] - self.log_ability_I[self.items.index(b)]
        return float(1 / (1 + np.exp(-gap)))

    def surely_better(self, place: int, other: int) -> bool:
        """Whether the interval of the difference lies above nought."""
        gap = self.log_ability_I[place] - self.log_ability_I[other]
        covariance = self.covariance_II
        variance = covariance[place, place] + covariance[other, other] - 2 * covariance[place, other]
        return bool(gap > norm.ppf((1 + self.level) / 2) * np.sqrt(max(float(variance), 0.0)) and gap > 0)

    def centred(self) -> tuple[Array, Array]:
        """Strengths beside the mean of all, with standard errors: no item is a certain nought."""
        size = len(self.items)
        centre_II = np.eye(size) - 1 / size
        covariance_II = centre_II @ self.covariance_II @ centre_II.T
        return centre_II @ self.log_ability_I, np.sqrt(np.clip(np.diag(covariance_II), 0, None))

    def row(self) -> dict[str, Any]:
        z = float(norm.ppf((1 + self.level) / 2))
        abilities = {}
        beside_mean_I, beside_mean_se_I = self.centred()
        for place, item in enumerate(self.items):
            value, se = float(self.log_ability_I[place]), float(self.se_I[place])
            better = sum(self.surely_better(other, place) for other in range(len(self.items)))
            abilities[item] = {
                "log_ability": value,
                "se": se,
                "interval": [value - z * se, value + z * se],
                "beside_mean": float(beside_mean_I[place]),
                "beside_mean_interval": [
                    float(beside_mean_I[place] - z * beside_mean_se_I[place]),
                    float(beside_mean_I[place] + z * beside_mean_se_I[place]),
                ],
                "rank": 1 + better,  # ranks part only where intervals of the difference do
            }
        return {
            "model": "Davidson" if self.tie_parameter is not None else "Bradley-Terry",
            "abilities": abilities,
            "order": [self.items[place] for place in self.order],
            "tie_parameter": self.tie_parameter,
            "covariate": self.covariate,
            "covariate_se": self.covariate_se,
            "log_likelihood": self.log_likelihood,
            "comparisons": self.comparisons,
            "separated": self.separated,
        }


def uncertainty(wins: float, losses: float) -> float:
    """How little is known of a share after so many wins and losses: 1 nothing, towards 0 all.

    The standard deviation of the posterior from a flat prior, Beta(1 + wins, 1 + losses), as a share of
    the prior's own: more votes and a clearer lead both lower it.
    """
    a, b = 1 + wins, 1 + losses
    return float(np.sqrt(12 * a * b / ((a + b) ** 2 * (a + b + 1))))


def fit(contests: Sequence[Contest], *, level: float = 0.95) -> Ranking:
    """Strengths of maximum likelihood, the first item of the first contest fixed at 0.

    P(a) : P(b) : P(tie) = e^a : e^b : nu e^((a + b) / 2). Without any tie this is Bradley-Terry. Where
    differences are given and vary, their effect is estimated beside the strengths ("style control").
    Newton's method; the likelihood is concave.

    Raises:
        BadInput: no contest, negative or no counts, an item against itself.

    Source: Bradley and Terry 1952; Davidson 1970.
    """
    if not contests:
        raise BadInput("ranking: no contests")
    for number, each in enumerate(contests, 1):
        if each.a == each.b:
            raise BadInput(f"contest {number}: {each.a!r} meets itself")
        if min(each.wins_a, each.wins_b, each.ties) < 0 or not np.isfinite([each.wins_a, each.wins_b, each.ties]).all():
            raise BadInput(f"contest {number}: counts are at least 0")
    items = list(dict.fromkeys(item for each in contests for item in (each.a, each.b)))
    counts_C3 = np.array([[each.wins_a, each.wins_b, each.ties] for each in contests], dtype=float)
    if counts_C3.sum() <= 0:
        raise BadInput("ranking: all counts are 0")
    has_ties = counts_C3[:, 2].sum() > 0
    difference_C = np.array([each.difference for each in contests])
    has_covariate = bool(np.any(difference_C != 0))
    features_C3P = _features(contests, items, has_ties, has_covariate)
    separated = not _connected(contests, items)
    precision = PRIOR if separated else 0.0
    beta_P, information_PP, likelihood = _newton(features_C3P, counts_C3, precision, has_ties)
    covariance_PP = np.linalg.pinv(information_PP)
    free = len(items) - 1
    ability_I = np.concatenate([[0.0], beta_P[:free]])
    covariance_II = np.zeros((len(items), len(items)))
    covariance_II[1:, 1:] = covariance_PP[:free, :free]
    return Ranking(
        items=items,
        log_ability_I=ability_I,
        se_I=np.sqrt(np.clip(np.diag(covariance_II), 0, None)),
        tie_parameter=float(np.exp(beta_P[free])) if has_ties else None,
        covariate=float(beta_P[-1]) if has_covariate else None,
        covariate_se=float(np.sqrt(covariance_PP[-1, -1])) if has_covariate else None,
        log_likelihood=likelihood,
        comparisons=float(counts_C3.sum()),
        separated=separated,
        covariance_II=covariance_II,
        level=level,
    )


def _features(contests: Sequence[Contest], items: list[str], has_ties: bool, has_covariate: bool) -> Array:
    """Contests by outcomes (a, b, tie) by parameters: strengths but the first, log nu, covariate."""
    free = len(items) - 1
    place = {item: number - 1 for number, item in enumerate(items)}
    features = np.zeros((len(contests), 3, free + has_ties + has_covariate))
    for number, each in enumerate(contests):
        for outcome, item in ((0, each.a), (1, each.b)):
            if place[item] >= 0:
                features[number, outcome, place[item]] = 1.0
                features[number, 2, place[item]] += 0.5
        if has_covariate:
            features[number, 0, -1] = each.difference
            features[number, 2, -1] = each.difference / 2
    if has_ties:
        features[:, 2, free] = 1.0
    return features


def _newton(features_C3P: Array, counts_C3: Array, precision: float, has_ties: bool) -> tuple[Array, Array, float]:
    size = features_C3P.shape[2]
    beta_P = np.zeros(size)
    n_C = counts_C3.sum(axis=1)

    def state(beta_P: Array) -> tuple[float, Array]:
        score_C3 = features_C3P @ beta_P
        if not has_ties:
            score_C3[:, 2] = -np.inf
        top_C = score_C3.max(axis=1, keepdims=True)
        log_p_C3 = score_C3 - top_C - np.log(np.exp(score_C3 - top_C).sum(axis=1, keepdims=True))
        seen = counts_C3 > 0
        given = counts_C3[seen] * log_p_C3[seen]
        return float(given.sum() - precision / 2 * beta_P @ beta_P), np.exp(log_p_C3)

    likelihood, p_C3 = state(beta_P)
    information_PP = np.eye(size)
    for _ in range(STEPS):
        residual_C3 = counts_C3 - n_C[:, None] * p_C3
        gradient_P = np.einsum("co,cop->p", residual_C3, features_C3P) - precision * beta_P
        mean_CP = np.einsum("co,cop->cp", p_C3, features_C3P)
        second = np.einsum("c,co,cop,coq->pq", n_C, p_C3, features_C3P, features_C3P)
        information_PP = second - np.einsum("c,cp,cq->pq", n_C, mean_CP, mean_CP) + precision * np.eye(size)
        if np.abs(gradient_P).max(initial=0.0) < 1e-9 * max(1.0, float(n_C.sum())):
            break
        step_P = np.linalg.lstsq(information_PP, gradient_P, rcond=None)[0]
        shrink = 1.0
        while shrink > 1e-8:  # a full step may overshoot; the likelihood must not fall
            tried, p_tried = state(beta_P + shrink * step_P)
            if tried >= likelihood - 1e-12 * abs(likelihood):
                break
            shrink /= 2
        beta_P, likelihood, p_C3 = beta_P + shrink * step_P, tried, p_tried
    return beta_P, information_PP, likelihood


def _connected(contests: Sequence[Contest], items: list[str]) -> bool:
    """Can every item be reached from every other along wins (ties count both ways)? Ford's condition."""
    beats: dict[str, set[str]] = {item: set() for item in items}
    beaten: dict[str, set[str]] = {item: set() for item in items}
    for each in contests:
        for winner, loser, n in ((each.a, each.b, each.wins_a + each.ties), (each.b, each.a, each.wins_b + each.ties)):
            if n > 0:
                beats[winner].add(loser)
                beaten[loser].add(winner)
    return all(len(_reached(items[0], edges)) == len(items) for edges in (beats, beaten))


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen, queue = {start}, [start]
    while queue:
        fresh = edges[queue.pop()] - seen
        seen |= fresh
        queue += fresh
    return seen
