from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents.domain import scorefiles
from feedback.domain.ranking import Contest, fit
from rmn.lib.errors import BadInput


def test_published_strengths_are_met(shared_data: Path) -> None:
    folder = shared_data / "llm/ranking"
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        found = scorefiles.score_ranking(folder / name)["abilities"]
        for item, value in wanted["abilities"].items():
            assert found[item]["log_ability"] == pytest.approx(value["log_ability"], abs=1e-3)
            assert found[item]["se"] == pytest.approx(value["se"], abs=1e-3)


def test_paired_references_are_met(shared_data: Path) -> None:
    for name in ("mcnemar_cases.json", "win_rate_intervals.json"):
        path = shared_data / "llm/paired_tests" / name
        for wanted, found in zip(json.loads(path.read_text()), scorefiles.score_paired(path)):
            for key, value in wanted.items():
                assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_ties_draw_strengths_together_and_are_kept() -> None:
    without = fit([Contest("a", "b", 30, 10)])
    tied = fit([Contest("a", "b", 30, 10, 40)])
    assert tied.tie_parameter is not None
    assert abs(tied.log_ability_I[1]) == pytest.approx(abs(without.log_ability_I[1]), rel=1e-6)
    # Davidson's estimate: nu = ties / sqrt(wins a * wins b)
    assert tied.tie_parameter == pytest.approx(40 / np.sqrt(300), rel=1e-6)


def test_length_is_taken_out_of_the_strengths() -> None:
    rng = np.random.default_rng(0)
    contests = []
    for _ in range(3000):  # equally good; the longer one is liked, and b is longer
        gap = float(rng.normal(-0.5, 1))
        a_wins = rng.random() < 1 / (1 + np.exp(-gap))
        contests.append(Contest("a", "b", float(a_wins), float(not a_wins), difference=gap))
    plain = fit([Contest(each.a, each.b, each.wins_a, each.wins_b) for each in contests])
    controlled = fit(contests)
    assert plain.surely_better(1, 0)
    assert not controlled.surely_better(1, 0)
    assert controlled.covariate == pytest.approx(1.0, abs=0.15)


def test_one_that_never_lost_has_a_finite_strength_and_a_wide_interval() -> None:
    found = fit([Contest("a", "b", 4, 0), Contest("b", "c", 3, 1)])
    assert found.separated
    assert np.isfinite(found.log_ability_I).all()
    assert not found.surely_better(0, 1)


def test_ranks_part_only_where_the_evidence_does() -> None:
    close = fit([Contest("a", "b", 11, 10)]).row()["abilities"]
    assert close["a"]["rank"] == close["b"]["rank"] == 1
    clear = fit([Contest("a", "b", 110, 10)]).row()["abilities"]
    assert (clear["a"]["rank"], clear["b"]["rank"]) == (1, 2)


@pytest.mark.parametrize(
    "contests", [[], [Contest("a", "a", 1, 1)], [Contest("a", "b", -1, 1)], [Contest("a", "b", 0, 0)]]
)
def test_contests_that_cannot_be_are_refused(contests: list[Contest]) -> None:
    with pytest.raises(BadInput):
        fit(contests)
