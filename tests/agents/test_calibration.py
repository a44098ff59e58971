from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from agents.domain import calibration, scorefiles
from rmn.lib.errors import BadInput


def test_scores_equal_the_reference_values(shared_data: Path) -> None:
    folder = shared_data / "llm/calibration"
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        if name == "rule":
            continue
        found = scorefiles.score_forecasts(folder / name)
        for key, value in wanted.items():
            if key != "table":
                assert found[key] == pytest.approx(value, abs=1e-6), (name, key)
        for ours, theirs in zip(found.get("table", []), wanted.get("table", [])):
            assert ours["n"] == theirs["n"]
            assert ours["bin"] == pytest.approx(theirs["bin"])
            assert ours["mean_forecast"] == pytest.approx(theirs["mean_forecast"], abs=1e-6)
            assert ours["observed_rate"] == pytest.approx(theirs["observed_rate"], abs=1e-6)
            assert ours["interval"][0] <= ours["observed_rate"] <= ours["interval"][1]


@pytest.mark.parametrize("name", ["nfl_games_2017on.csv", "wnba_games.csv"])
def test_recalibrated_forecasts_of_games_to_come_score_no_worse(shared_data: Path, name: str) -> None:
    rows = list(csv.DictReader((shared_data / "llm/calibration" / name).read_text().splitlines()))
    rows = sorted((row for row in rows if row["prob1_outcome"] in ("0", "1")), key=lambda row: row["date"])
    p = np.array([float(row["prob1"]) for row in rows])
    y = np.array([float(row["prob1_outcome"]) for row in rows])
    half = p.size // 2
    learned = calibration.recalibrate(p[:half], y[:half])
    raw, ours = np.mean((p[half:] - y[half:]) ** 2), np.mean((learned.apply(p[half:]) - y[half:]) ** 2)
    assert ours <= raw + 1e-12


def overconfident(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    stated = rng.choice([0.7, 0.8, 0.85, 0.9], n)
    return stated, (rng.random(n) < stated - 0.25).astype(float)


def test_a_map_learns_that_somebody_is_too_sure() -> None:
    learned = calibration.recalibrate(*overconfident(200))
    assert learned.weight > 0
    assert learned(0.85) < 0.75
    p, y = overconfident(400, seed=2)
    assert np.mean((learned.apply(p) - y) ** 2) < np.mean((p - y) ** 2)


def test_a_map_never_turns_the_order_round() -> None:
    learned = calibration.recalibrate(*overconfident(120))
    mapped = [learned(p) for p in np.linspace(0, 1, 101)]
    assert all(one <= other + 1e-12 for one, other in itertools.pairwise(mapped))
    assert min(mapped) >= 0
    assert max(mapped) <= 1


def test_too_few_forecasts_change_nothing() -> None:
    learned = calibration.recalibrate(*overconfident(29))
    assert not learned.usable
    assert learned(0.85) == 0.85


def test_a_map_survives_being_stored() -> None:
    learned = calibration.recalibrate(*overconfident(90))
    again = calibration.Map.from_row(json.loads(json.dumps(learned.row())))
    assert [again(p) for p in (0.1, 0.72, 0.9)] == [learned(p) for p in (0.1, 0.72, 0.9)]


def test_an_interval_that_keeps_its_promise_covers_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=4000)
    found = calibration.interval_scores([-1.6449] * 4000, [1.6449] * 4000, [0.9] * 4000, seen)
    assert found["coverage_interval"][0] <= 0.9 <= found["coverage_interval"][1]
    wide = calibration.interval_scores([-5] * 4000, [5] * 4000, [0.9] * 4000, seen)
    assert wide["pinball"] > found["pinball"]


def test_a_flag_that_predicts_nothing_is_dropped_and_one_that_does_is_kept() -> None:
    rng = np.random.default_rng(3)
    p = np.full(400, 0.8)
    flagged = np.arange(400) % 2 == 0
    worse = np.where(flagged, rng.random(400) < 0.3, rng.random(400) < 0.8).astype(float)
    assert calibration.flag_value(p, worse, flagged)["keep"]
    better = np.where(flagged, rng.random(400) < 0.95, rng.random(400) < 0.6).astype(float)
    assert not calibration.flag_value(p, better, flagged)["keep"]
    assert calibration.flag_value(p[:12], worse[:12], flagged[:12])["keep"]  # too few to say


@pytest.mark.parametrize(("p", "y"), [([1.2], [1]), ([0.5], [0.5]), ([], []), ([0.5, 0.5], [1]), ([float("nan")], [1])])
def test_impossible_forecasts_are_refused(p: list[float], y: list[float]) -> None:
    with pytest.raises(BadInput):
        calibration.scores(p, y)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column of probabilities"),
        ("probability,outcome\nx,1\n", "'x' is not a number"),
        ("", "no rows"),
    ],
)
def test_the_command_names_what_it_cannot_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        call_command("score", str(tmp_path / "f.csv"), "--kind", "forecasts")
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_equal_forecasts_are_one_block_whatever_their_order() -> None:
    happened = np.arange(60) % 5 < 3
    maps = [
        calibration.recalibrate(np.full(60, 0.9), np.random.default_rng(seed).permutation(happened).astype(float))
        for seed in range(8)
    ]
    assert {found.knots for found in maps} == {((0.9, 36.5 / 61),)}
    assert all(found(0.9) < 0.8 for found in maps)
