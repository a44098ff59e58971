from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command

from agents.domain import calibration, reflection
from rmn.lib.errors import BadInput

NONE = calibration.Map(0, 0.0)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "phase": "decision",
        "memory_reference": ["similar budget allocation for Q3 2024, achieved 3.2x ROAS"],
        "alternate_frames": ["cost vs. benefit"],
        "risk_assessment": {
            "high_risk_factors": [
                {
                    "factor": "market volatility",
                    "severity": "medium",
                    "probability": 0.6,
                    "impact": "10-15% efficiency decrease",
                    "mitigation": "reserve 15% for reallocation",
                }
            ],
            "mitigation": [],
        },
        "confidence": {"value": 0.75, "rationale": "two quarters", "supporting": ["a"], "contradicting": ["b"]},
        "decision_threshold": "confidence >= 0.8 OR validation from risk team",
        "bias_checkpoint": "availability",
        "biases": [{"type": "availability", "note": "one good quarter is remembered"}],
        "validations": [],
        **changes,
    }


def decide(learned: calibration.Map = NONE, **changes: Any) -> reflection.Verdict:
    return reflection.decide(reflection.Reflection.read(record(**changes)), learned)


def test_the_usage_example_stops_at_075_and_goes_on_when_the_risk_team_validates() -> None:
    verdict = decide()
    assert not verdict.should_proceed
    assert verdict.confidence_raw == 0.75
    assert any("used as it is" in reason for reason in verdict.reasons)
    assert decide(validations=["risk team"]).should_proceed


def test_a_critical_risk_without_mitigation_stops_whatever_the_confidence() -> None:
    risk = {
        "factor": "stock-out",
        "severity": "Critical",
        "probability": 0.2,
        "impact": "wasted spend",
        "mitigation": "None",
    }
    verdict = decide(
        risk_assessment={"high_risk_factors": [risk], "mitigation": []},
        confidence={"value": 0.99},
    )
    assert verdict.threshold_met
    assert not verdict.should_proceed
    assert verdict.unmitigated_critical == ["stock-out"]
    eased = {"high_risk_factors": [risk], "mitigation": ["stock-out: pause when five days are left"]}
    assert decide(risk_assessment=eased, confidence={"value": 0.99}).should_proceed
    other = {"high_risk_factors": [risk], "mitigation": ["reserve 15%"]}
    assert not decide(risk_assessment=other, confidence={"value": 0.99}).should_proceed


def test_the_threshold_is_decided_on_the_calibrated_confidence() -> None:
    rng = np.random.default_rng(0)
    stated = rng.choice([0.8, 0.85, 0.9], 120)
    learned = calibration.recalibrate(stated, (rng.random(120) < 0.55).astype(float))
    verdict = decide(learned, confidence={"value": 0.85})
    assert verdict.confidence_calibrated is not None
    assert verdict.confidence_calibrated < 0.7
    assert not verdict.should_proceed
    assert decide(confidence={"value": 0.85}).should_proceed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phase": "dreaming"}, "phase"),
        ({"confidence": {"value": 1.2}}, "confidence.value"),
        ({"confidence": {"value": "high"}}, "confidence.value"),
        ({"biases": [{"type": "halo"}]}, r"biases\[0\]"),
        ({"risk_assessment": {"high_risk_factors": [{"factor": "x", "severity": "awful"}]}}, "severity"),
        ({"alternate_frames": "cost"}, "alternate_frames"),
        ({"decision_threshold": 0.8}, "decision_threshold"),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused_by_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decide(**changes)


def test_a_record_without_confidence_never_proceeds() -> None:
    assert not decide(confidence={}).should_proceed


def test_phases_follow_each_other_and_nothing_is_skipped() -> None:
    start = reflection.Reflection.read(record(phase="reflection"))
    with pytest.raises(reflection.WrongPhase, match="analysis comes next"):
        reflection.advance(start, "decision")
    at_decision = reflection.advance(reflection.advance(start, "analysis"), "decision")
    with pytest.raises(reflection.WrongPhase, match="should not proceed"):
        reflection.advance(at_decision, "execution", reflection.decide(at_decision, NONE))
    allowed = replace(at_decision, validations=("risk team",))
    done = reflection.advance(allowed, "execution", reflection.decide(allowed, NONE))
    assert reflection.advance(reflection.advance(done, "review"), "reflection").phase == "reflection"
    bare = reflection.Reflection(phase="analysis")
    with pytest.raises(reflection.WrongPhase, match="a confidence"):
        reflection.advance(bare, "decision")


def test_a_record_comes_back_as_it_went_in() -> None:
    assert reflection.Reflection.read(record()).row() == record()


def test_the_seven_biases_are_found_in_figures_and_not_in_sound_ones() -> None:
    found = reflection.biases(
        reflection.Evidence(
            last_spend={"a": 80, "b": 20},
            spend={"a": 80, "b": 20},
            best_spend={"a": 30, "b": 70},
            marginal_roas={"a": 0.5, "b": 2.0},
            recent_return=2.0,
            whole_return=1.2,
            window_weeks=4,
            history_weeks=24,
            forecast=9.0,
            past_results=(1.0, 2.0, 3.0, 4.0, 5.0),
            supporting=3,
            memories=("Q3 brought 3.2",),
        )
    )
    assert {each["type"] for each in found} == set(reflection.BIASES)
    sound = reflection.Evidence(
        last_spend={"a": 50, "b": 50},
        spend={"a": 35, "b": 65},
        best_spend={"a": 30, "b": 70},
        marginal_roas={"a": 1.0, "b": 1.05},
        recent_return=1.05,
        whole_return=1.05,
        window_weeks=24,
        history_weeks=24,
        forecast=3.0,
        past_results=(1.0, 2.0, 3.0, 4.0, 5.0),
        supporting=2,
        contradicting=1,
        memories=("one", "two"),
        frames=2,
    )
    assert reflection.biases(sound) == []
    assert reflection.biases(reflection.Evidence()) == []


def test_the_command_answers_in_the_agreed_shape(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record()))
    call_command("reflect", str(tmp_path / "record.json"), "--out", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found) == {
        "should_proceed",
        "threshold_met",
        "evaluated",
        "confidence_raw",
        "confidence_calibrated",
        "n",
        "unmitigated_critical",
        "reasons",
    }
    assert (found["should_proceed"], found["n"]) == (False, 0)


def test_a_sign_is_as_likely_as_it_came_up_before_and_one_in_five_at_first() -> None:
    assert reflection.likely(0, 0) == pytest.approx(0.2)
    assert reflection.likely(9, 95) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", reflection.PREMORTEM)
def test_three_failures_are_told_for_each_kind_and_every_sign_has_a_measure_and_a_value(kind: str) -> None:
    stories = reflection.premortem(kind, roas=1.5, pass_share=0.6)
    assert len({story["metric"] for story in stories}) == len(stories) == 3
    for story in stories:
        assert all(story.values())
        assert reflection.fires(story, {story["metric"]: 0.99 * story["below"]})
        assert not reflection.fires(story, {story["metric"]: story["below"]})
        assert not reflection.fires(story, {})
    open_ended = [story["metric"] for story in reflection.premortem(kind) if story["below"] is None]
    assert open_ended == {"plan": ["roas"], "experiment": [], "adapter": ["pass_share"]}[kind]


def test_remembered_cases_without_another_frame_are_availability() -> None:
    three = reflection.Evidence(memories=("one", "two", "three"))
    assert [flag["type"] for flag in reflection.biases(three)] == ["availability"]
    assert reflection.biases(replace(three, frames=2)) == []
