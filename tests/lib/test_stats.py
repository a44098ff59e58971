from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmn.lib import stats
from rmn.lib.errors import BadInput


def test_published_paired_tables_are_met(shared_data: Path) -> None:
    for case in json.loads((shared_data / "llm/paired_tests/mcnemar_cases.json").read_text()):
        found = stats.mcnemar(case["both_right"], case["a_only"], case["b_only"], case["both_wrong"])
        assert found.exact_p == pytest.approx(case["exact_p"], rel=1e-4)
        assert found.chi2 == pytest.approx(case["chi2"], abs=1e-5)
        assert found.chi2_continuity == pytest.approx(case["chi2_continuity"], abs=1e-5)
        assert found.chi2_continuity_p == pytest.approx(case["chi2_continuity_p"], rel=1e-4)
        assert found.difference == pytest.approx(case["diff_a_minus_b"], abs=1e-5)
        assert found.wald_interval == pytest.approx(case["wald_ci95"], abs=1e-5)


def test_published_win_rate_intervals_are_met(shared_data: Path) -> None:
    for case in json.loads((shared_data / "llm/paired_tests/win_rate_intervals.json").read_text()):
        assert stats.wilson(case["wins"], case["n"]) == pytest.approx(case["wilson95"], abs=1e-5)
        assert stats.clopper_pearson(case["wins"], case["n"]) == pytest.approx(case["clopper_pearson95"], abs=1e-5)
        assert stats.binomial_p(case["wins"], case["n"]) == pytest.approx(case["binom_two_sided_p_vs_half"], rel=1e-4)


def test_an_approval_table_of_1600_gives_agrestis_answer() -> None:
    found = stats.mcnemar(794, 150, 86, 570)
    assert found.exact_p == pytest.approx(3.71594e-05, rel=1e-4)
    assert found.chi2 == pytest.approx(17.355932, abs=1e-5)


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=40)
def test_flipping_single_cases_is_mcnemars_exact_test(a_only: int, b_only: int) -> None:
    differences = np.array([1.0] * a_only + [-1.0] * b_only + [0.0] * 5)
    expected = stats.mcnemar_exact(a_only, b_only, one_sided=True)
    assert stats.sign_flip_p(differences) == pytest.approx(expected, abs=1e-12)


def test_exact_flips_agree_with_listing_them_all() -> None:
    sums = np.array([3.0, -1, 2, 2, -4, 1])
    signs = np.array(list(product((-1, 1), repeat=len(sums))))
    listed = float((signs @ np.abs(sums) >= sums.sum()).mean())
    assert stats.sign_flip_p(sums) == pytest.approx(listed)


def test_drawn_flips_agree_with_exact_ones() -> None:
    sums = np.array([3.0, 1, 2, 2, -4, 1, 1, 1])
    drawn = stats.sign_flip_p(sums * 0.3, draws=40_000)
    assert drawn == pytest.approx(stats.sign_flip_p(sums), abs=0.02)


def test_repeating_every_case_of_a_cluster_makes_nothing_surer() -> None:
    differences = np.array([1.0, 1, -1, 1, 1, 0, 1])
    once = stats.sign_flip_p(differences)
    repeated = stats.sign_flip_p(np.repeat(differences, 4), np.repeat(np.arange(7), 4).tolist())
    assert repeated == pytest.approx(once)
    assert stats.design_effect(np.repeat(differences, 4), np.repeat(np.arange(7), 4).tolist()) == pytest.approx(
        4, rel=0.2
    )


def test_the_clustered_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for run in range(200):
        effect = rng.normal(0.1, 0.3, 25)
        values = np.repeat(effect, 3) + rng.normal(0, 0.3, 75)
        low, high = stats.paired_bootstrap(values, np.repeat(np.arange(25), 3).tolist(), draws=500, seed=run)
        covered += low <= 0.1 <= high
    assert 180 <= covered <= 199  # 95 % of 200, within three standard errors


def test_one_cluster_says_nothing() -> None:
    assert stats.paired_bootstrap(np.array([1.0, 1, 1]), ["a", "a", "a"]) == (-np.inf, np.inf)


def test_without_a_single_difference_the_interval_still_has_width() -> None:
    low, high = stats.paired_interval(20, 0, 0, 0)
    assert low < -0.1
    assert high > 0.1
    assert stats.paired_interval(2000, 0, 0, 0)[0] > -0.01


def test_newcombes_published_interval_is_met() -> None:
    # Newcombe 1998, table III, method 10: a table of 36, 12, 2, 0
    assert stats.paired_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=40)
def test_holm_never_makes_a_p_value_smaller_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    assert all(after >= before and after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


def test_holm_gives_the_textbook_numbers() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("rate", "cases"), [(0.55, 617), (0.60, 153), (0.65, 67), (0.70, 37)])
def test_pairs_for_a_win_rate(rate: float, cases: int) -> None:
    assert stats.cases_for_win_rate(rate) == cases


@pytest.mark.parametrize(("difference", "cases"), [(0.05, 740), (0.10, 184), (0.15, 81)])
def test_cases_for_a_difference_with_three_in_ten_discordant(difference: float, cases: int) -> None:
    assert stats.cases_for_difference(difference, 0.3) == cases
    assert stats.seen_difference(cases, 0.3) == pytest.approx(difference, abs=0.002)


def test_more_cases_never_show_less() -> None:
    seen = [stats.seen_difference(n, 0.3) for n in (1, 5, 20, 100, 1000, 10_000)]
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("table", [(-1, 2, 3, 4), (0, 0, 0, 0)])
def test_an_impossible_table_is_refused(table: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadInput):
        stats.mcnemar(*table)
