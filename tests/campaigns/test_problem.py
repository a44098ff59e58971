from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from campaigns.domain.problem import read
from rmn.lib.errors import BadInput

CURVE = {"kind": "hill", "scale": 9.0, "half": 2.0, "exponent": 2.0}


def given(**changes: Any) -> dict[str, Any]:
    return {"total_budget": 10, "arms": [{"id": "a", "retailer": "r", "curve": CURVE}]} | changes


def arm(**changes: Any) -> dict[str, Any]:
    return given(arms=[{"id": "a", "curve": CURVE} | changes])


BAD = [
    ([], "total_budget"),
    (given(total_budget=float("nan")), "total_budget"),
    (given(total_budget=-1), "total_budget is -1"),
    (given(total_budget="100"), "total_budget is '100'"),
    (given(total_budget=True), "total_budget"),
    (given(arms=[]), "arms is empty"),
    (given(arms={}), "arms"),
    (arm(curve=CURVE | {"scale": 0}), "arms[0].curve.scale is 0"),
    (arm(curve=CURVE | {"scale": -3}), "arms[0].curve.scale is -3"),
    (arm(curve=CURVE | {"half": 0}), "arms[0].curve.half is 0"),
    (arm(curve=CURVE | {"exponent": 0}), "arms[0].curve.exponent is 0"),
    (arm(curve={"kind": "power", "scale": 1, "exponent": 50}), "arms[0].curve.exponent is 50"),
    (arm(curve={"kind": "cubic"}), "arms[0].curve.kind is 'cubic'"),
    (arm(curve={"kind": "piecewise", "points": []}), "arms[0].curve.points"),
    (arm(curve={"kind": "piecewise", "points": [[0, 5], [1, 6]]}), "sales at spend 0"),
    (arm(curve={"kind": "piecewise", "points": [[2, 5], [1, 6]]}), "spend must rise"),
    (arm(curve=None), "arms[0].curve is None"),
    (arm(min=5, max=4), "arms[0].min is 5, above arms[0].max 4"),
    (arm(min=-1), "arms[0].min is -1"),
    (arm(max_change=0.1), "arms[0].last is missing"),
    (arm(margin=1.5), "arms[0].margin is 1.5"),
    (arm(available="no"), "arms[0].available is 'no'"),
    (arm(currency="EUR"), "arms[0].currency is 'EUR': the problem is in USD"),
    (arm(maximum=3), "did you mean max"),
    (arm(id=""), "arms[0].id"),
    (given(arms=[{"id": "a", "curve": CURVE}] * 2), "arms[1].id is 'a'"),
    (given(groups=[{"id": "g", "arms": ["zz"]}]), "groups[0].arms[0] is 'zz'"),
    (given(groups=[{"id": "g", "where": {"retailer": "zz"}, "max": 1}]), "no arm is in this group"),
    (given(groups=[{"id": "g", "where": {"colour": "red"}}]), "groups[0].where"),
    (given(groups=[{"id": "g", "arms": ["a"], "min": 2, "max": 1}]), "groups[0].min is 2, above"),
    (given(groups=[{"id": "g", "arms": ["a"]}, {"id": "g", "arms": ["a"]}]), "groups[1].id is 'g'"),
    (given(gap=0), "gap is 0"),
    (given(risk_aversion=2), "risk_aversion is 2"),
    (given(risk_aversion=0.5), "give one of them"),
    (given(draws={"zz": []}), "draws is 'zz'"),
    (given(periods={"weeks": 0}), "periods.weeks is 0"),
    (given(periods={"weeks": 2, "adstock": {"tv": 0.4}}), "periods.adstock"),
    (given(total_budgets=5), "did you mean total_budget"),
]


@pytest.mark.parametrize(("problem", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input_is_refused_with_its_place_and_value(problem: Any, told: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read(problem)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_arms_and_where_together_mean_their_union() -> None:
    arms = [{"id": k, "retailer": "r" if k != "c" else "s", "tactic": "t", "curve": CURVE} for k in "abc"]
    group = {"id": "g", "arms": ["c"], "where": {"retailer": "r", "tactic": "t"}, "max": 1}
    assert list(read(given(arms=arms, groups=[group])).groups[0].arms) == [0, 1, 2]


def test_the_command_writes_a_plan_and_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "problem.json", tmp_path / "plan.json"
    path.write_text(json.dumps(given()))
    call_command("allocate_budget", str(path), "--out", str(out))
    assert json.loads(out.read_text())["status"] == "optimal"
    call_command("what_if", str(path), "--budgets", "5:20:4", "--out", str(out))
    assert [row["budget"] for row in json.loads(out.read_text())] == [5, 10, 15, 20]
    path.write_text(json.dumps(arm(min=5, max=4)))
    with pytest.raises(SystemExit) as end:
        call_command("allocate_budget", str(path))
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
