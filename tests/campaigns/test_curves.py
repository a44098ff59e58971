from __future__ import annotations

import numpy as np
import pytest

from campaigns.domain.curves import HILL, LINEAR, LOG, MICHAELIS_MENTEN, PIECEWISE, POWER, Curves, envelope

SPEND = np.array([0.0, 1e-6, 0.3, 7.0, 50.0, 400.0, 1e6])


def one(kind: int, exponent: float = 1.0, size: int = SPEND.size, points: np.ndarray | None = None) -> Curves:
    given = {} if points is None else dict.fromkeys(range(size), points)
    return Curves(np.full(size, kind), np.full(size, 200.0), np.full(size, 50.0), np.full(size, exponent), given)


@pytest.mark.parametrize(
    ("kind", "exponent"), [(LOG, 1), (POWER, 0.5), (MICHAELIS_MENTEN, 1), (HILL, 2.5), (HILL, 0.6), (LINEAR, 1)]
)
def test_slope_and_curvature_are_the_derivatives(kind: int, exponent: float) -> None:
    curves, at = one(kind, exponent, 5), SPEND[2:]
    step = 1e-5 * at
    assert curves.slope(at) == pytest.approx((curves.value(at + step) - curves.value(at - step)) / (2 * step), rel=1e-5)
    rise = (curves.slope(at + step) - curves.slope(at - step)) / (2 * step)
    assert curves.curvature(at) == pytest.approx(rise, rel=1e-4, abs=1e-12)


def test_no_spend_brings_no_sales_and_more_never_brings_less() -> None:
    for kind, exponent in [(LOG, 1), (POWER, 0.5), (MICHAELIS_MENTEN, 1), (HILL, 2.5), (HILL, 50.0)]:
        value = one(kind, exponent).value(SPEND)
        assert value[0] == 0
        assert np.all(np.diff(value) >= 0)


def test_a_hill_curve_of_high_exponent_neither_overflows_nor_loses_its_half() -> None:
    value = one(HILL, 100.0, 3).value(np.array([1e-9, 50.0, 1e12]))
    assert value == pytest.approx([0, 100, 200])


@pytest.mark.parametrize(("low", "high", "gate"), [(0, 300, 0), (5, 300, 0), (60, 300, 0), (0, 20, 0), (0, 300, 90)])
@pytest.mark.parametrize("kind", ["hill", "piecewise", "log"])
def test_the_envelope_stands_above_the_curve_and_is_concave(kind: str, low: float, high: float, gate: float) -> None:
    points = np.array([[0, 0], [20, 5], [40, 60], [60, 62], [100, 120], [400, 150]], float)
    curves = {
        "hill": one(HILL, 2.5, 1), "log": one(LOG, 1, 1), "piecewise": one(PIECEWISE, 1, 1, points),
    }[kind]  # fmt: skip
    hull = envelope(curves, np.array([low], float), np.array([high], float), np.array([gate], float))
    at = np.linspace(low, high, 400)
    above = []
    for x in at:
        spends = np.clip(x, hull.low_E, hull.high_E)
        above.append(hull.per_arm_value(spends)[0])
    true = np.array([curves.value(np.array([x]))[0] for x in at])
    allowed = at >= gate if gate else np.ones(at.size, bool)
    assert np.all(np.array(above)[allowed] >= true[allowed] - 1e-9)
    assert np.all(np.diff(above, 2) <= 1e-8)
    assert above[0] == pytest.approx(true[0])
    assert above[-1] == pytest.approx(true[-1])


def test_each_piece_answers_a_price_with_its_best_spend() -> None:
    kinds = np.array([LOG, POWER, MICHAELIS_MENTEN, HILL, HILL])
    curves = Curves(kinds, np.full(5, 200.0), np.full(5, 50.0), np.array([1, 0.5, 1, 0.6, 2.5]))
    hull = envelope(curves, np.zeros(5), np.full(5, 400.0))
    grid = np.linspace(0, 400, 40001)
    for price in (0.2, 0.9, 3.0):
        best = hull.per_arm(hull.respond(price))
        for arm in range(4):
            single = curves.take(np.full(grid.size, arm))
            net = single.value(grid) - price * grid
            assert best[arm] == pytest.approx(grid[np.argmax(net)], abs=0.011)
