from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from campaigns.domain import fitting, optimizer
from rmn.lib.errors import BadInput

TRUE = 200 * 50 / 100**2  # marginal return at spend 50


def history(
    seed: int, weeks: int = 104, varies: float = 0.4, follows: float = 0.0, *, demand: bool = False, arm: str = "a",
    carry: float = 0.0, **attributes: str,
) -> fitting.History:  # fmt: skip
    """A simulated past: spend 50 on average, scale 200, half 50, and spend that may follow demand."""
    rng = np.random.default_rng(seed)
    wanted = rng.standard_normal(weeks)
    moved = follows * wanted + np.sqrt(1 - follows**2) * rng.standard_normal(weeks)
    spend = 50 * np.exp(varies * moved - varies**2 / 2)
    felt = fitting.carried(spend, carry)
    sales = 200 * felt / (50 + felt) + 15 * rng.standard_normal(weeks) + (25 * wanted if follows else 0)
    return fitting.History(arm, spend, sales, {"demand": wanted} if demand else {}, attributes)


def test_a_long_varied_history_gives_the_true_marginal_return() -> None:
    found = [fitting.fit([history(seed)])[0] for seed in range(4)]
    assert np.median([f.slope(50) for f in found]) == pytest.approx(TRUE, rel=0.15)
    inside = [np.quantile(f.slope_S(50), 0.02) <= TRUE <= np.quantile(f.slope_S(50), 0.98) for f in found]
    assert sum(inside) >= 3


def test_a_confounded_history_is_warned_about_and_demand_in_the_model_repairs_it() -> None:
    (blind,) = fitting.fit([history(1, follows=0.7)])
    assert blind.slope(50) > 1.3 * TRUE
    assert any("confounded" in warning and "demand" in warning for warning in blind.warnings)
    (seeing,) = fitting.fit([history(1, follows=0.7, demand=True)])
    assert seeing.slope(50) == pytest.approx(TRUE, rel=0.3)
    assert not any("no demand control" in warning for warning in seeing.warnings)


def test_a_lift_test_that_disagrees_sets_the_level_and_history_keeps_its_shape() -> None:
    test = fitting.LiftTest("a", 50, 75, 20, 3)
    (found,) = fitting.fit([history(1, follows=0.7)], [test])
    assert found.evidence == "calibrated"
    assert found.history_weight == "shape only"
    assert found.slope(50) == pytest.approx(TRUE, rel=0.3)
    assert any("disagree" in warning for warning in found.warnings)


def test_a_lift_test_that_agrees_narrows_a_thin_history() -> None:
    thin = history(3, weeks=26, varies=0.1)
    (alone,) = fitting.fit([thin])
    (tested,) = fitting.fit([thin], [fitting.LiftTest("a", 50, 75, 20, 2)])
    assert np.ptp(np.quantile(tested.slope_S(50), [0.1, 0.9])) < np.ptp(np.quantile(alone.slope_S(50), [0.1, 0.9]))


def test_few_periods_and_flat_spend_are_named_as_reasons() -> None:
    (found,) = fitting.fit([history(1, weeks=12, varies=0.02)])
    told = " ".join(found.warnings)
    assert "periods are few" in told
    assert "hardly varied" in told


def test_carry_over_is_found_once_for_the_tactic() -> None:
    histories = [history(s, arm=f"a{s}", carry=0.5, varies=0.6, tactic="search", retailer=f"r{s}") for s in range(3)]
    found = fitting.fit(histories)
    assert {f.carry for f in found} <= {0.4, 0.5, 0.6}


def test_pooling_draws_a_thin_arm_towards_its_tactic() -> None:
    rich = [history(s, arm=f"a{s}", tactic="search") for s in range(4)]
    thin = history(9, weeks=8, varies=0.1, arm="thin", tactic="search")
    (alone,) = fitting.fit([thin])
    pooled = fitting.fit([*rich, thin])[-1]
    assert np.ptp(np.quantile(pooled.slope_S(50), [0.1, 0.9])) < np.ptp(np.quantile(alone.slope_S(50), [0.1, 0.9]))


def test_the_curves_go_straight_into_a_budget_problem(tmp_path: Path) -> None:
    path, out = tmp_path / "history.csv", tmp_path / "curves.json"
    rows = ["arm,date,spend,sales,retailer,tactic,demand"]
    for seed, arm in enumerate(["x", "y"]):
        past = history(seed, 40, demand=True)
        rows += [
            f"{arm},2025-{d // 28 + 1:02d}-{d % 28 + 1:02d},{s:.4f},{y:.4f},walmart,search,{w:.4f}"
            for d, (s, y, w) in enumerate(zip(past.spend_D, past.sales_D, past.controls["demand"]))
        ]
    path.write_text("\n".join(rows))
    tests = tmp_path / "tests.csv"
    tests.write_text("arm,change,lift,se\nx,25,20,4\n")
    call_command("fit_response", str(path), "--lift-tests", str(tests), "--out", str(out))
    curves = json.loads(out.read_text())
    assert {arm["evidence"] for arm in curves["arms"]} == {"calibrated", "attribution"}
    assert set(curves["draws"]) == set(curves["intervals"]) == {"x", "y"}
    assert len(curves["draws"]["x"]) == 300
    for arm in curves["arms"]:
        assert arm["max"] == pytest.approx(1.5 * arm["seen"])
    plan = optimizer.solve({"total_budget": 100, "arms": curves["arms"]})
    assert plan["status"] == "optimal"
    assert plan["interval"][0] < plan["objective"] < plan["interval"][1]


BAD = [
    ("arm,date,spend\na,1,2\n", "sales is missing"),
    ("arm,date,spend,sales\na,1,-2,3\n", "spend is -2"),
    ("arm,date,spend,sales\na,1,x,3\n", "spend is 'x'"),
    ("arm,date,spend,sales\na,1,2,3\na,1,2,3\n", "twice"),
    ("arm,date,spend,sales\na,1,nan,3\n", "finite"),
    ("arm,date,spend,sales\na,1,0,3\na,2,0,3\na,3,0,3\n", "nothing can be fitted"),
    ("", "not a table"),
]


@pytest.mark.parametrize(("text", "told"), BAD)
def test_a_history_that_cannot_be_used_is_refused_in_one_line(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(SystemExit):
        call_command("fit_response", str(path))
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_lift_test_of_an_unknown_arm_is_refused() -> None:
    with pytest.raises(BadInput, match="no such arm"):
        fitting.read_tests([{"arm": "zz", "change": 1, "lift": 1, "se": 1}], [history(1)])
