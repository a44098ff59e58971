from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.domain import scorefiles
from feedback.domain import agreement
from rmn.lib.errors import BadInput


def test_published_coefficients_are_met(shared_data: Path) -> None:
    folder = shared_data / "llm/agreement"
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        found = scorefiles.score_agreement(folder / name)
        for key, value in wanted["published"].items():
            assert found[key] == pytest.approx(value, abs=1e-3), key
        for level, value in wanted["computed_alpha"].items():
            assert found["alpha"][level] == pytest.approx(value, abs=1e-6)
            low, high = found["intervals"][f"alpha_{level}"]
            assert low <= value <= high
        pairs = wanted.get("computed_cohen_kappa_pairs", {})
        for ours, theirs in zip(found["cohen_kappa_pairs"].values(), pairs.values()):
            assert ours == pytest.approx(theirs, abs=1e-6)


def test_perfect_agreement_is_one_and_a_coin_is_nought() -> None:
    same = agreement.coded([[value, value, value] for value in "aabbab"])
    assert agreement.krippendorff(agreement.counts(same), same.values, "nominal") == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    coins = agreement.coded(rng.integers(0, 2, (4000, 2)).tolist())
    assert agreement.krippendorff(agreement.counts(coins), coins.values, "nominal") == pytest.approx(0.0, abs=0.05)
    assert agreement.cohen(coins.codes_UR[:, 0], coins.codes_UR[:, 1], 2) == pytest.approx(0.0, abs=0.05)


def test_what_was_rated_once_or_with_one_value_alone_is_no_evidence() -> None:
    once = agreement.coded([["a", None], [None, "b"]])
    assert agreement.krippendorff(agreement.counts(once), once.values, "nominal") is None
    flat = agreement.coded([["a", "a"], ["a", "a"]])
    assert agreement.krippendorff(agreement.counts(flat), flat.values, "nominal") is None


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=3, max_size=3), min_size=2, max_size=12),
    st.randoms(),
)
def test_the_order_of_units_and_raters_does_not_matter(table: list[list[int | None]], random: object) -> None:
    if not any(cell for row in table for cell in row):
        return
    turned = [row[::-1] for row in table[::-1]]
    for level in agreement.LEVELS:
        one, other = agreement.coded(table), agreement.coded(turned)
        left = agreement.krippendorff(agreement.counts(one), one.values, level)
        right = agreement.krippendorff(agreement.counts(other), other.values, level)
        assert left == pytest.approx(right)


def test_the_ceiling_is_what_one_more_person_would_reach() -> None:
    ratings = agreement.coded([["a", "a", "b"]] * 5)
    assert agreement.ceiling(agreement.counts(ratings)) == pytest.approx((2 * 0.5 + 0) / 3)


def test_a_third_reader_where_two_disagreed_does_not_lower_the_ceiling() -> None:
    ratings = agreement.coded([["a", "a", None]] * 9 + [["a", "b", "a"]])
    assert agreement.ceiling(agreement.counts(ratings)) == pytest.approx((9 * 1 + 1 / 3) / 10)


def test_words_have_no_distance() -> None:
    ratings = agreement.coded([["good", "bad"], ["bad", "bad"]])
    with pytest.raises(BadInput, match="needs numbers"):
        agreement.krippendorff(agreement.counts(ratings), ratings.values, "interval")
    with pytest.raises(BadInput, match="nobody rated"):
        agreement.coded([["", None]])
