"""Curation, checks, gate and composition: what may train, what passes, and what may be promoted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.domain import briefs
from agents.domain.briefs import Item
from feedback.domain.formats import prompt_messages
from retailers.domain import policy
from rmn.lib import pii
from rmn.lib.errors import BadInput
from training.domain import checks, curation, gate, mixing, prompting, starter
from training.domain.curation import Judged, Report

ITEM = Item(product="Peanut butter", brand="ACME", size="18 oz", feature="to share", networks=("instacart", "walmart"))


def pair(n: int, outcome: str = "a", person: str = "1", origin: str = "human") -> Judged:
    return Judged(
        "pair",
        f"prompt {chr(97 + n % 26)}{chr(97 + n // 26)}",
        f"good {n}",
        f"bad {n}",
        outcome,
        person=person,
        origin=origin,
    )


# -- checks


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ACME peanut butter to share", None),
        ('"ACME peanut butter, 18 oz"', None),
        ("ACME spreads to share", "name the product"),
        ("The best peanut butter", "WMT-SUPER"),
        ("ACME peanut butter, 24 oz", "not in the facts"),
        ("ACME peanut butter\nfor all", "one line"),
        ("Headline: ACME peanut butter", "repeats the brief"),
        ("ACME peanut butter for everyone in the whole family", "characters"),
    ],
)
def test_a_headline_passes_or_says_why_not(text: str, why: str | None) -> None:
    found = checks.failures(text, ITEM, policy.check)
    assert found == [] if why is None else any(why in reason for reason in found)


def test_every_shipped_line_passes_the_rules_it_is_shipped_for() -> None:
    for product in ("Peanut butter", "Shredded cheese", "Toilet tissue", "Frozen french fries", "Tea sweetened"):
        for feature in starter.FEATURES:
            item = Item(product=product, brand="ACME", size="16 oz", feature=feature, networks=("instacart", "walmart"))
            text = starter.shipped(item, policy.check)
            assert text is not None
            assert checks.passes(text, item, policy.check)


def test_pairs_made_by_rules_prefer_what_passes_and_say_that_no_person_did() -> None:
    prompt = briefs.as_text(briefs.messages(ITEM))
    drafts = {prompt: ["ACME peanut butter", "The best spread ever!!", "ACME peanut butter"]}
    found = list(starter.rule_pairs([ITEM], drafts, policy.check))
    assert [(row["chosen"], row["rejected"], row["origin"]) for row in found] == [
        ("ACME peanut butter", "The best spread ever!!", "rule")
    ]


def test_a_prompt_survives_being_kept_as_text() -> None:
    prompt = briefs.messages(ITEM)
    assert prompt_messages(briefs.as_text(prompt)) == prompt
    assert prompt_messages("plain") == [{"role": "user", "content": "plain"}]


# -- curation


def test_ties_are_never_pairs_and_small_edits_teach_nothing() -> None:
    report = Report()
    rows = curation.preferences(
        [
            pair(1),
            pair(2, "tie"),
            pair(3, "both_bad"),
            Judged("correction", "p", "A headline", correction="A headline."),
        ],
        report,
    )
    assert len(rows) == 1
    assert report.dropped["no winner"] == 2
    assert report.dropped["correction is no pair"] == 1


def test_the_majority_of_people_decides_a_disputed_pair() -> None:
    votes = [pair(1, "a", "1"), pair(1, "a", "2"), pair(1, "b", "3")]
    report = Report()
    rows = curation.curate(curation.preferences(votes, report), report)
    assert [row["chosen"][0]["content"] for row in rows] == ["good 1"]
    assert rows[0]["agreement"] == pytest.approx(2 / 3)
    report = Report()
    assert curation.curate(curation.preferences(votes, report), report, min_agreement=0.8) == []


def test_stars_are_read_against_the_persons_own_mean() -> None:
    harsh = [Judged("rating", f"p{i}", f"t{i}", value=1 + (i == 5), person="harsh") for i in range(6)]
    rows = curation.labels([*harsh, Judged("rating", "q", "u", value=3, person="new")], Report())
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("t5", True)]


def judgement(kind: str, text: str = "t", person: str = "1", prompt: str = "p", **more: object) -> Judged:
    return Judged(kind, prompt, text, person=person, key=f"{kind}{prompt}{text}{person}{more}", **more)  # type: ignore[arg-type]


HEAVY, LIGHT = "Fresh bread, baked this morning", "Plain tea to share with friends"


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (judgement("thumb", value=1), {"t": True}),
        (judgement("thumb", value=-1), {"t": False}),
        (judgement("rating", value=4), {"t": True}),
        (judgement("rating", value=2), {"t": False}),
        (judgement("rating", value=3), {}),
        (judgement("pair", "x", text_b="y", outcome="b"), {"y": True, "x": False}),
        (judgement("pair", "x", text_b="y", outcome="tie"), {"x": True, "y": True}),
        (judgement("pair", "x", text_b="y", outcome="both_bad"), {"x": False, "y": False}),
        (judgement("correction", "Soup soup", correction=HEAVY), {HEAVY: True, "Soup soup": False}),
        (judgement("correction", "Good tea to share with friends", correction=LIGHT), {LIGHT: True}),
    ],
)
def test_what_each_answer_says_of_a_text(given: Judged, labels: dict[str, bool]) -> None:
    rows = curation.labels([given], Report())
    assert {row["completion"][0]["content"]: row["label"] for row in rows} == labels


def test_of_a_text_that_people_judge_differently_the_majority_decides() -> None:
    report = Report()
    votes = [judgement("thumb", value=1, person="1"), judgement("thumb", value=1, person="2"), judgement("thumb", value=-1, person="3")]  # fmt: skip
    even = [judgement("thumb", "e", value=1, person="1"), judgement("thumb", "e", value=-1, person="2")]
    rows = curation.labels([*votes, *even], report)
    assert [(row["label"], row["people"], round(row["agreement"], 2)) for row in rows] == [(True, ["1", "2"], 0.67)]
    assert (report.dropped["outvoted"], report.dropped["evenly disputed"]) == (1, 2)
    assert curation.curate(rows, report, min_agreement=0.8) == []
    assert report.dropped["agreement under the floor"] == 1


def test_only_texts_that_stand_praised_are_imitated() -> None:
    def imitated(*given: Judged) -> list[str]:
        return [row["completion"][0]["content"] for row in curation.demonstrations(given, Report())]

    praised = judgement("thumb", "Soup soup", value=1)
    assert imitated(praised) == ["Soup soup"]
    assert imitated(praised, judgement("correction", "Soup soup", "2", correction=HEAVY)) == [
        HEAVY
    ]  # somebody rewrote it
    assert imitated(praised, judgement("thumb", "Soup soup", "2", value=-1), judgement("thumb", "Soup soup", "3", value=-1)) == []  # fmt: skip
    assert imitated(judgement("pair", "x", text_b="y", outcome="a", strength=1)) == []
    assert imitated(judgement("pair", "x", text_b="y", outcome="a", strength=2)) == ["x"]


def test_four_stars_are_imitated_where_fives_are_scarce() -> None:
    four = judgement("rating", "four", value=4)
    fives = [judgement("rating", f"five {n}", value=5, person="2", prompt=f"p{n}") for n in range(60)]
    assert [row["completion"][0]["content"] for row in curation.demonstrations([four, *fives[:3]], Report())][
        -1
    ] == "four"
    report = Report()
    assert len(curation.demonstrations([four, *fives], report)) == 60
    assert report.dropped["four stars, and enough of five"] == 1


def test_a_person_who_says_yes_to_everything_labels_nothing() -> None:
    yes = [judgement("thumb", str(n), "yes", prompt=f"p{n}", value=1) for n in range(30)]
    other = [judgement("thumb", "fine", value=1), judgement("thumb", "poor", value=-1)]
    report = Report()
    assert {row["completion"][0]["content"] for row in curation.labels([*yes, *other], report)} == {"fine", "poor"}
    assert report.dropped["says the same of every text"] == 30
    few = curation.labels(yes[:29], Report())
    with pytest.raises(BadInput, match="kto needs both good and bad texts"):
        curation.manifest(
            "kto", *curation.split([row | {"cluster": str(n)} for n, row in enumerate(few)], "t"), Report()
        )


@pytest.mark.parametrize("always", ["first", "second"])
def test_a_person_who_always_takes_the_same_side_is_left_out(always: str) -> None:
    rng = np.random.default_rng(3)

    def shown(n: int, person: str, first: str, outcome: str) -> Judged:
        return Judged("pair", f"p{n}", f"good {n}", f"bad {n}", outcome, person=person, first=first)

    sides = [str(side) for side in rng.choice(["a", "b"], 40)]
    lazy = [
        shown(n, "lazy", side, side if always == "first" else "ba"["ab".index(side)])
        for n, side in enumerate(sides[:12])
    ]
    fair = [shown(n, "fair", side, "a") for n, side in enumerate(sides)]  # one side of the record, both of the screen
    report = Report()
    kept = curation.fair([*lazy, *fair, Judged("thumb", "p", "t", value=1, person="lazy")], report)
    assert [one.kind for one in kept if one.person == "lazy"] == ["thumb"]
    assert sum(one.person == "fair" for one in kept) == 40
    assert report.dropped["always the same side"] == 12
    assert len(curation.fair(lazy[:8], Report())) == 8  # too few to say so


def test_reasons_are_kept_and_words_of_ones_own_are_only_counted() -> None:
    votes = [replace(pair(n), reasons=("off brand", "ask Jane Doe")) for n in range(6)]
    report = Report()
    rows = curation.curate(curation.preferences(votes, report), report)
    assert rows[0]["reasons"] == ["ask Jane Doe", "off brand"]
    told = curation.manifest("dpo", *curation.split(rows, "t"), report)
    assert told["reasons"] == {"off brand": 6, "other": 6}
    assert not any("reasons" in curation.written(row) for row in rows)


def test_a_split_that_leaks_is_refused() -> None:
    rows = curation.preferences([pair(n) for n in range(6)], Report())
    with pytest.raises(BadInput, match="leak: 6 prompts and 6 clusters"):
        curation.manifest("dpo", rows, rows, Report())


def test_what_the_gate_asks_is_not_trained_on_whatever_its_cluster_is_called() -> None:
    rows = curation.preferences([pair(n) for n in range(6)], Report())
    kept, asked = curation.without(rows, {rows[0]["cluster"], "Prompt BA!"})
    assert asked == 2
    assert [row["prompt"][0]["content"] for row in kept] == ["prompt ca", "prompt da", "prompt ea", "prompt fa"]


def test_how_sure_people_were_is_written_with_the_pair() -> None:
    rows = curation.preferences([replace(pair(1), strength=2), pair(2)], Report())
    assert [curation.written(row).get("strength") for row in rows] == [2, None]


def stars(prompt: str, text: str, value: int, person: str = "1") -> Judged:
    return Judged("rating", prompt, text, value=value, person=person, key=f"{prompt}{text}{person}")


def test_one_persons_stars_make_a_pair_where_they_differ_by_two() -> None:
    given = [stars("p", "fine", 5), stars("p", "poor", 2), stars("q", "so", 3), stars("q", "also", 4)]
    report = Report()
    rows = curation.preferences([*given, stars("q", "low", 1, "2")], report)  # two people's stars are not compared
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"], r["strength"]) for r in rows] == [
        ("fine", "poor", 2)
    ]
    assert report.read == 5
    assert report.dropped["rating is no pair"] == 3


def test_who_votes_against_everybody_is_left_out_with_all_answers() -> None:
    honest = [pair(n, "a", person) for n in range(12) for person in ("1", "2", "3")]
    contrary = [pair(n, "b", "troll") for n in range(12)]
    report = Report()
    kept = curation.fair([*honest, *contrary, Judged("thumb", "p", "t", value=1, person="troll")], report)
    assert {one.person for one in kept} == {"1", "2", "3"}
    assert report.outliers == 1
    assert report.dropped["votes against everybody"] == 13


def test_a_person_of_another_taste_in_few_pairs_is_heard() -> None:
    votes = [pair(n, "a", person) for n in range(6) for person in ("1", "2")] + [pair(n, "b", "3") for n in range(6)]
    assert len(curation.fair(votes, Report())) == len(votes)


def test_old_answers_are_thinned_by_their_age_and_rules_are_not() -> None:
    old = [Judged("thumb", "p", str(i), value=1, person="1", key=str(i), age_days=730) for i in range(800)]
    rules = [Judged("thumb", "p", str(i), value=1, origin="rule", key=f"r{i}", age_days=730) for i in range(20)]
    kept = curation.fair([*old, *rules], Report())
    assert 160 <= sum(one.origin == "human" for one in kept) <= 240  # one in four
    assert sum(one.origin == "rule" for one in kept) == 20
    assert kept == curation.fair([*old, *rules], Report())


@pytest.mark.parametrize("flipped", [0.1, 0.25])
def test_disagreement_tells_how_many_labels_are_the_wrong_way_round(flipped: float) -> None:
    rng = np.random.default_rng(5)
    votes = [
        Judged("pair", f"p{n}", "x", "y", "b" if rng.random() < flipped else "a", person=person, key=f"{n}{person}")
        for n in range(1500)
        for person in ("1", "2")
    ]
    report = Report()
    curation.preferences(votes, report)
    assert len(report.judged_twice) == 1500
    assert report.flipped == pytest.approx(flipped, abs=0.025)


def test_rules_do_not_waver_so_their_pairs_are_not_smoothed() -> None:
    def smoothing(origin: str) -> float:
        report = Report()
        rows = curation.preferences([pair(n, origin=origin) for n in range(30)], report)
        told = curation.manifest("dpo", *curation.split(rows, "t"), report)
        return float(told["label_noise"]["smoothing"])

    assert smoothing("rule") == 0.0
    assert 0.15 < smoothing("human") < 0.25  # nobody judged twice: what is usual


def test_a_correction_that_only_mends_a_fact_teaches_no_style() -> None:
    given = [
        Judged("correction", "p", "Soup in 20 oz", correction="Soup in 18 oz cans", reasons=("not true",)),
        Judged("correction", "p", "Soup soup soup", correction="Warm soup for two", reasons=("dull", "not true")),
    ]
    assert len(curation.demonstrations(given, Report())) == 1
    assert len(curation.preferences(given, Report())) == 2


def test_a_set_that_one_person_or_length_decides_says_so() -> None:
    votes = [
        Judged("pair", f"p{chr(97 + n)}", f"short {n}", f"a much longer text {n}", "a", person="1") for n in range(26)
    ]
    report = Report()
    told = curation.manifest("dpo", *curation.split(curation.preferences(votes, report), "t"), report)
    assert any("shorter" in warning for warning in told["warnings"])
    assert any("1 person" in warning for warning in told["warnings"])


@pytest.mark.parametrize("kind", ["the same row", "other rows"])
def test_five_hundred_planted_duplicates_of_one_person_do_not_take_over(kind: str) -> None:
    honest = [pair(n, person=str(n % 5)) for n in range(60)]
    planted = [Judged("pair", f"prompt q{chr(97 + i % 26)}{i // 26}", f"spam {i}", f"fine {i}", "a", person="troll") for i in range(500)]  # fmt: skip
    if kind == "the same row":
        planted = planted[:1] * 500
    report = Report()
    rows = curation.curate(curation.preferences([*honest, *planted], report), report)
    people = Counter(person for row in rows for person in row["people"])
    assert sum(people[str(n)] for n in range(5)) == 60  # nobody else loses a row
    assert people["troll"] <= curation.MOST_PER_PERSON * len(rows)
    if kind == "the same row":
        assert people["troll"] == 1
    else:
        assert people["troll"] == 40
        assert report.dropped["more than eight rows of one prompt"] + report.dropped["one person's share"] == 460


def test_a_person_may_give_twenty_rows_however_few_the_others_gave() -> None:
    votes = [pair(1, person="1"), pair(2, person="2"), *(pair(n, person="3") for n in range(3, 33))]
    rows = curation.curate(curation.preferences(votes, Report()), Report())
    assert sum("3" in row["people"] for row in rows) == curation.ALWAYS_ALLOWED


@settings(max_examples=30)
@given(st.integers(6, 60), st.text(min_size=1, max_size=8))
def test_no_prompt_and_no_cluster_stands_on_both_sides(count: int, tenant: str) -> None:
    report = Report()
    rows = curation.curate(curation.preferences([pair(n) for n in range(count)], report), report)
    train, held = curation.split(rows, tenant)
    told = curation.manifest("dpo", train, held, report)
    assert told["leak_check"] == {"shared_prompts": 0, "shared_clusters": 0}
    again = curation.split([*rows, *curation.preferences([pair(n) for n in range(60, 90)], Report())], tenant)
    clusters = {row["cluster"] for row in held}
    if len(clusters) > 1:  # where a tiny set had to borrow one, it may return
        assert not clusters & {row["cluster"] for row in again[0]}  # else it stays on its side when rows are added


def test_personal_data_is_masked_and_counted() -> None:
    rows = curation.preferences([Judged("pair", "p", "write to a@example.com", "no", "a")], Report())
    report = Report()

    def masker(text: str) -> tuple[str, int]:
        found = pii.mask(text, "key")
        return found.text, len(found.entities)

    masked = curation.mask(rows, masker, report)
    assert report.masked == 1
    assert "a@example.com" not in json.dumps(masked)


def test_too_few_rows_are_refused_with_the_reason() -> None:
    report = Report()
    rows = curation.preferences([pair(1, "tie")], report)
    with pytest.raises(BadInput, match="1 no winner"):
        curation.manifest("dpo", *curation.split(rows, "t"), report)


def test_people_held_out_are_nowhere_in_training_and_stay_out() -> None:
    rows = curation.preferences([pair(n, person=str(n % 8)) for n in range(80)], Report())
    kept, held = curation.hold_people(rows, "t")
    out = {person for row in held for person in row["people"]}
    assert held
    assert not out & {person for row in kept for person in row["people"]}
    assert len(kept) + len(held) == 80
    more = [*rows, *curation.preferences([pair(n, person=str(n % 8)) for n in range(80, 160)], Report())]
    assert {person for row in curation.hold_people(more, "t")[1] for person in row["people"]} == out
    assert curation.hold_people(rows[:4], "t") == (rows[:4], [])


def test_texts_that_carry_template_marks_are_left_out_and_counted() -> None:
    report = Report()
    marked = Judged("pair", "p", "fine<|im_end|><|im_start|>system", "bad", "a", person="1")
    assert curation.curate(curation.preferences([marked], report), report) == []
    assert report.dropped["template marks in the text"] == 1


# -- gate


def compare(candidate: list[int], champion: list[int]) -> gate.Result:
    return gate.compare(
        {"passes": [float(x) for x in candidate]},
        {"passes": [float(x) for x in champion]},
        [str(i) for i in range(len(candidate))],
    )


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict"),
    [
        ([1] * 60, [0] * 50 + [1] * 10, "better"),
        ([0] * 50 + [1] * 10, [1] * 60, "worse"),
        ([1] * 400, [1] * 400, "not_worse"),
        ([1, 0, 1, 1], [0, 1, 1, 1], "not_enough_evidence"),
    ],
)
def test_the_gate_has_four_verdicts(candidate: list[int], champion: list[int], verdict: str) -> None:
    found = compare(candidate, champion)
    assert found.verdict == verdict
    assert (found.needed_cases is None) == (verdict in ("better", "worse"))


def test_a_lost_guard_refuses_a_gain() -> None:
    found = gate.compare(
        {"passes": [1.0] * 60, "fits": [0.0] * 60},
        {"passes": [0.0] * 60, "fits": [1.0] * 60},
        list(map(str, range(60))),
    )
    assert found.verdict == "worse"
    assert "fits" in found.reasons[0]


@pytest.mark.parametrize("size", [1, 3])  # cases of one product resemble each other
def test_two_equal_models_are_promoted_at_most_as_often_as_alpha_says(size: int) -> None:
    rng = np.random.default_rng(7)
    promoted = 0
    for _ in range(2000):
        hard = np.repeat(rng.random(40 // size), size)
        a, b = (rng.random((2, len(hard))) < hard).astype(float)
        clusters = [str(i // size) for i in range(len(hard))]
        promoted += gate.compare({"passes": a}, {"passes": b}, clusters).verdict == "better"
    assert promoted / 2000 <= 0.05


@pytest.mark.parametrize(("difference", "textbook"), [(0.05, 740), (0.10, 184), (0.15, 81)])
def test_the_number_of_cases_told_has_the_power_told(difference: float, textbook: int) -> None:
    needed = gate.cases_needed(difference, 0.3)
    assert textbook <= needed <= 1.12 * textbook
    assert 0.8 <= gate.power(needed, difference, 0.3) <= 0.82
    rng = np.random.default_rng(3)
    kinds = rng.choice(3, size=(1500, needed), p=[(0.3 + difference) / 2, (0.3 - difference) / 2, 0.7])
    seen = [gate.stats.mcnemar_exact(int((k == 0).sum()), int((k == 1).sum()), one_sided=True) < 0.05 for k in kinds]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.04)


def test_a_measure_within_the_primary_is_not_asked_to_clear_its_margin_alone() -> None:
    sides = ({"passes": [1.0] * 20, "fits": [1.0] * 20}, {"passes": [0.0] * 20, "fits": [1.0] * 20})
    clusters = list(map(str, range(20)))
    assert gate.compare(*sides, clusters).verdict == "not_enough_evidence"  # 20 cases cannot clear 5 points
    assert gate.compare(*sides, clusters, parts={"fits"}).verdict == "better"


def test_a_gain_that_the_prompt_has_too_is_none() -> None:
    won, level = compare([1] * 100, [0] * 100), compare([1] * 100, [1] * 100)
    assert gate.earned(won, None) is won
    assert gate.earned(won, won).verdict == "better"
    assert gate.earned(won, level).verdict == "not_worse"
    assert gate.earned(level, won).verdict == level.verdict
    assert "prompt alone" in gate.earned(won, level).tests[-1]["name"]


def test_votes_that_only_follow_length_are_even_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    longer = rng.normal(12, 15, 400)
    won = (rng.random(400) < 1 / (1 + np.exp(-longer / 10))).astype(float)
    found = gate.votes(won, longer, list(map(str, range(400))))
    assert found["estimate"] > 0.15
    assert found["p_value"] < 1e-6
    assert found["at_equal_length"] == pytest.approx(0.5, abs=0.07)
    assert gate.votes([1.0, 0.5], [0.0, 0.0], ["a", "b"])["at_equal_length"] is None


def test_a_gain_of_longer_texts_counts_only_where_it_stands_at_equal_length() -> None:
    rng = np.random.default_rng(2)
    count = 200
    clusters = list(map(str, range(count)))
    champion = (rng.random(count) < 0.5).astype(float)
    extra = rng.normal(15, 20, count)
    moved = rng.random(count) < np.minimum(np.abs(extra) / 50, 1)  # what is longer passes, what is shorter fails
    by_length = np.where(moved, (extra > 0).astype(float), champion)
    by_merit = np.where(rng.random(count) < 0.6, 1.0, champion)

    def verdict(candidate: np.ndarray, longer: np.ndarray | None) -> gate.Result:
        return gate.compare({"passes": list(candidate)}, {"passes": list(champion)}, clusters, longer=longer if longer is None else list(longer))  # fmt: skip

    assert verdict(by_length, None).verdict == "better"
    refused = verdict(by_length, extra)
    assert refused.verdict in ("not_worse", "not_enough_evidence")
    assert "at equal length the gain is not certain" in refused.reasons[-1]
    assert verdict(by_merit, extra).verdict == "better"
    assert verdict(by_length, -np.abs(extra)).verdict == "better"  # shorter texts gain nothing by length
    level = verdict(by_merit, np.zeros(count)).tests[0]
    assert level["gain_at_equal_length"]["p_value"] == level["p_value"]
    same = verdict(by_merit, np.full(count, 9.0)).tests[0]["gain_at_equal_length"]
    assert (same["estimate"], same["p_value"]) == (None, 1.0)  # all nine longer: length cannot be told from the rest


def test_votes_that_certainly_go_the_other_way_refuse_a_gain() -> None:
    won = compare([1] * 60, [0] * 60)
    clusters = list(map(str, range(40)))

    def heard(wins: int) -> gate.Result:
        return gate.heard(won, gate.votes([1.0] * wins + [0.0] * (40 - wins), [0.0] * 40, clusters))

    assert gate.heard(won, None) is won
    assert heard(24).verdict == "better"
    lost = heard(6)
    assert lost.verdict == "worse"
    assert lost.reasons[0] == "people prefer what serves: it won 15% of 40 blind votes"
    assert [test["name"] for test in lost.tests] == ["passes", "blind votes"]


def test_a_certain_gain_that_is_too_small_to_matter_is_none() -> None:
    found = gate.compare({"passes": [1.0] * 500}, {"passes": [0.0] * 6 + [1.0] * 494}, list(map(str, range(500))))
    assert found.tests[0]["p_value"] < 0.05
    assert found.verdict == "not_worse"
    assert "a gain of 0.02 or more is not shown" in found.reasons[0]


def test_examples_are_of_different_products_and_features_and_the_same_each_time() -> None:
    items = [
        Item(product=product, brand="ACME", size="16 oz", feature=feature, networks=("walmart",))
        for product in ("Tea", "Soup", "Bagels", "Cones")
        for feature in starter.FEATURES
    ]
    found = prompting.examples(items, policy.check)
    assert len({item.product for item, _ in found}) == len({item.feature for item, _ in found}) == 3
    assert found == prompting.examples(items[::-1], policy.check)
    messages = prompting.with_examples(ITEM, found)
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert messages[-1] == briefs.messages(ITEM)[-1]


# -- composition


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from agents.inference import adapters

    folders = []
    for seed, rank in ((1, 4), (2, 2)):
        folder = tmp_path_factory.mktemp("parts") / f"p{seed}"
        folder.mkdir()
        torch.manual_seed(seed)
        name = "base_model.model.model.layers.0.self_attn.q_proj"
        tensors = {f"{name}.lora_A.weight": torch.randn(rank, 16), f"{name}.lora_B.weight": torch.randn(16, rank)}
        save_file(tensors, folder / adapters.WEIGHTS)
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"], "bias": "none"}
        (folder / adapters.CONFIG).write_text(json.dumps(config))
        adapters.write_manifest(folder, base_digest="x")
        folders.append(folder)
    return folders


def update(folder: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    from agents.inference import adapters

    config = adapters.read_config(folder)
    tensors = load_file(folder / adapters.WEIGHTS)
    a = next(v for k, v in tensors.items() if "lora_A" in k)
    b = next(v for k, v in tensors.items() if "lora_B" in k)
    return config["lora_alpha"] / config["r"] * b @ a


def test_cat_is_the_exact_sum_and_svd_its_best_approximation(parts: list[Path], tmp_path: Path) -> None:
    from training.lora.compose import compose

    wanted = 0.5 * update(parts[0]) - 0.25 * update(parts[1])
    compose([(parts[0], 0.5), (parts[1], -0.25)], "cat", tmp_path / "cat")
    assert np.allclose(update(tmp_path / "cat"), wanted, atol=1e-4)
    compose([(parts[0], 0.5), (parts[1], -0.25)], "svd", tmp_path / "svd", rank=3)
    u, s, v = np.linalg.svd(wanted)
    assert np.allclose(update(tmp_path / "svd"), (u[:, :3] * s[:3]) @ v[:3], atol=1e-3)


def test_mixing_needs_one_rank_and_says_so(parts: list[Path], tmp_path: Path) -> None:
    from training.lora.compose import compose

    with pytest.raises(BadInput, match="one rank; these have 4, 2"):
        compose([(parts[0], 1.0), (parts[1], 1.0)], "ties", tmp_path / "x")
    for method in ("linear", "ties", "dare_ties"):
        compose([(parts[0], 0.5), (parts[0], 0.5)], method, tmp_path / method)
        assert np.isfinite(update(tmp_path / method)).all()


def test_brands_and_templates_are_never_mixed(parts: list[Path], tmp_path: Path) -> None:
    import shutil

    from agents.inference import adapters
    from training.lora.compose import compose

    for name, facts, words in (
        ("brand", ({"brand": "acme"}, {"brand": "globex"}), "acme and globex"),
        ("template", ({"template_digest": "a"}, {"template_digest": "b"}), "different chat templates"),
        ("base", ({"base_digest": "a"}, {"base_digest": "b"}), "different base models"),
    ):
        made = []
        for place, fact in enumerate(facts):
            folder = tmp_path / f"{name}{place}"
            shutil.copytree(parts[0], folder)
            adapters.write_manifest(folder, **fact)
            made.append((folder, 0.5))
        with pytest.raises(BadInput, match=words):
            compose(made, "cat", tmp_path / "never")
        assert not (tmp_path / "never").exists()


def test_weights_are_tried_even_ones_first_and_judged_on_other_products() -> None:
    found = mixing.mixtures(3, (0.5, 0.3, 0.2))
    assert found[0] == (0.5, 0.3, 0.2)
    assert found[1] == (1.0, 1.0, 1.0)
    assert len(found) == len(set(found)) == mixing.MOST
    clusters = [f"p{i // 3}" for i in range(30)]
    search, rest = mixing.halves(clusters)
    assert sorted([*search, *rest]) == list(range(30))
    assert not {clusters[i] for i in search} & {clusters[i] for i in rest}


def test_a_guard_of_a_part_that_the_sum_loses_refuses_it() -> None:
    part = {"rules": [1.0] * 10, "fits": [0.0] * 10}
    kept = mixing.guards_kept({"rules": [1.0] * 10, "fits": [0.0] * 10}, {"brand": part}, ("rules", "fits"))
    assert kept.holds
    lost = mixing.guards_kept({"rules": [1.0] * 9 + [0.0], "fits": [1.0] * 10}, {"brand": part}, ("rules", "fits"))
    assert lost.lost == ("rules: 1.00 in brand, 0.90 in the sum",)
