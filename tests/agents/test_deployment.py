from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.domain.deployment import FLOOR, Probe, judge, place, weigh
from rmn.lib.errors import BadInput

BASE = [-2.0, -1.0, -3.0, -0.5]
TUNED = [-1.0, -1.5, -2.0, -0.7]


def probe(**changes):
    return Probe(**({"base": BASE, "served": TUNED, "trained": TUNED, "trained_base": BASE} | changes))


def test_an_adapter_that_acts_as_trained_passes():
    proof = judge([probe()])
    assert proof.passed
    assert proof.acts == pytest.approx(2.7 / 4)
    assert proof.as_json()["compared"]


def test_a_server_that_answers_from_the_base_is_found_out():
    proof = judge([probe(served=BASE)])
    assert not proof.passed
    assert "does nothing" in proof.reasons[0]
    assert not judge([probe(served=[x + FLOOR / 2 for x in BASE], trained=None, trained_base=None)]).passed


def test_another_base_another_scaling_and_another_tokenizer_are_found_out():
    assert "another base" in judge([probe(trained_base=[x - 0.1 for x in BASE])]).reasons[0]
    half = [b + (t - b) / 2 for b, t in zip(BASE, TUNED)]
    assert "not act as it was trained" in judge([probe(served=half)]).reasons[0]
    assert "other tokens" in judge([probe(trained=TUNED[:-1])]).reasons[0]
    assert not judge([probe(served=TUNED[:-1])]).passed


def test_an_engine_that_rounds_otherwise_passes():
    assert judge([probe(served=[x + 0.01 for x in TUNED], base=[x - 0.01 for x in BASE])]).passed


def test_without_a_record_only_the_effect_is_proved_and_it_says_so():
    proof = judge([probe(trained=None, trained_base=None)])
    assert proof.passed
    assert not proof.as_json()["compared"]


def test_numbers_that_are_none_prove_nothing():
    assert not judge([probe(served=[float("nan")] * 4)]).passed
    with pytest.raises(BadInput):
        judge([])


def test_a_campaign_meets_the_same_version_each_time_and_shares_hold():
    assert place("campaign 7", "acme/-/creative") == place("campaign 7", "acme/-/creative")
    below = sum(place(f"campaign {n}", "acme/-/creative") < 0.1 for n in range(5000))
    assert 400 < below < 600
    both = sum(place(f"c{n}", "a") < 0.5 and place(f"c{n}", "b") < 0.5 for n in range(4000))
    assert 800 < both < 1200  # scopes are cut independently


def test_few_votes_decide_nothing_and_many_do():
    assert weigh(0, 0).verdict == "not_enough_evidence"
    assert weigh(0, 3).verdict == "not_enough_evidence"
    assert weigh(2, 20).verdict == "worse"
    assert weigh(20, 2).verdict == "better"
    assert weigh(50, 50).verdict == "not_enough_evidence"
    assert weigh(0, 0).e_worse == pytest.approx(1)


def test_looking_after_every_vote_is_wrong_less_often_than_promised():
    draw, wrong = random.Random(1), 0
    for _ in range(300):
        wins = losses = 0
        for _ in range(150):
            won = draw.random() < 0.5
            wins, losses = wins + won, losses + (not won)
            if weigh(wins, losses, alpha=0.1).verdict == "worse":
                wrong += 1
                break
    assert wrong / 300 < 0.1


@settings(max_examples=40)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_worse_and_better_mirror_each_other(wins, losses):
    one, two = weigh(wins, losses), weigh(losses, wins)
    assert one.e_worse == pytest.approx(two.e_better, rel=1e-6)
