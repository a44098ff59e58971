from __future__ import annotations

import numpy as np

from feedback.domain import bias
from feedback.domain.bias import Vote


def test_choosing_the_first_side_whatever_it_shows_is_seen() -> None:
    votes = [Vote("a" if n % 2 else "b", shown_first="a" if n % 2 else "b") for n in range(40)]
    assert bias.position(votes).uneven
    fair = [Vote("a" if n % 4 < 2 else "b", shown_first="a" if n % 2 else "b") for n in range(40)]
    assert not bias.position(fair).uneven


def test_few_answers_are_never_called_a_bias() -> None:
    assert not bias.position([Vote("a", shown_first="a")] * 10).uneven


def test_liking_the_longer_text_is_seen() -> None:
    votes = [Vote("a" if n % 2 else "b", length_a=90 if n % 2 else 30, length_b=60) for n in range(40)]
    assert bias.length(votes).uneven


def test_a_swapped_repeat_measures_the_persons_own_consistency() -> None:
    votes = [Vote("a", pair="1"), Vote("b", pair="2"), Vote("a", pair="1"), Vote("tie", pair="2")]
    assert bias.consistency(votes).share == 0.5


def test_haste_late_in_a_sitting_is_seen() -> None:
    votes = [Vote("a", shown_first="a", seconds=12.0 if n < 30 else 2.0, place=n) for n in range(60)]
    assert bias.fatigue(votes)["hasty"]
    assert not bias.fatigue(votes[:30])["hasty"]


def test_tossing_coins_becomes_evident_and_honest_work_does_not() -> None:
    rng = np.random.default_rng(0)
    assert bias.outlier_evidence((rng.random(80) < 0.5).astype(float), 0.75) > 20
    assert bias.outlier_evidence((rng.random(80) < 0.75).astype(float), 0.75) < 1


def test_a_profile_of_nobody_is_empty_and_not_an_error() -> None:
    assert bias.profile([])["first_side"]["share"] is None
