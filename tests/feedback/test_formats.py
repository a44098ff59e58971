from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedback.domain import formats
from feedback.domain.formats import Answer
from rmn.lib.errors import BadInput

PAIR = Answer("pair", "Write a headline", "Fresh water", "Water!!!", outcome="a", strength=2)
TIE = Answer("pair", "Write a headline", "One", "Two", outcome="tie")
BAD = Answer("pair", "Write a headline", "One", "Two", outcome="both_bad")
FIXED = Answer("correction", "Write a headline", "Best watr ever", correction="Sparkling water, 12 oz")
SLIP = Answer("correction", "Write a headline", "Fresh water", correction="Fresh water.")


def test_a_pair_becomes_a_preference_that_trl_reads() -> None:
    assert list(formats.rows([PAIR], "trl")) == [
        {
            "prompt": [{"role": "user", "content": "Write a headline"}],
            "chosen": [{"role": "assistant", "content": "Fresh water"}],
            "rejected": [{"role": "assistant", "content": "Water!!!"}],
        }
    ]


def test_a_tie_is_never_a_pair_and_both_bad_is_two_bad_ones() -> None:
    assert list(formats.rows([TIE, BAD], "trl")) == []
    assert [row["label"] for row in formats.rows([TIE, BAD], "trl-unpaired")] == [False, False]


def test_a_correction_teaches_only_if_it_changed_words() -> None:
    (row,) = formats.rows([FIXED, SLIP], "trl")
    assert row["chosen"][0]["content"] == "Sparkling water, 12 oz"
    assert [label.label for label in formats.labels([FIXED])] == [True, False]


def test_three_stars_say_nothing() -> None:
    stars = [Answer("rating", "p", "t", value=value) for value in (1, 2, 3, 4, 5)]
    assert [label.label for label in formats.labels(stars)] == [False, False, True, True]


def test_other_trainers_formats_hold_the_same_texts() -> None:
    (sharegpt,) = formats.rows([PAIR], "sharegpt")
    (openai,) = formats.rows([PAIR], "openai-preference")
    assert sharegpt["chosen"]["value"] == openai["preferred_output"][0]["content"] == "Fresh water"
    assert sharegpt["rejected"]["value"] == openai["non_preferred_output"][0]["content"] == "Water!!!"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1"])
def test_no_cell_of_a_table_runs_as_a_formula(cell: str) -> None:
    (row,) = formats.rows([Answer("thumb", cell, cell, value=1)], "csv")
    assert row["prompt"].startswith("'")
    (kept,) = formats.rows([Answer("thumb", cell, cell, value=1)], "parquet")
    assert kept["prompt"] == cell


def test_a_manifest_counts_and_seals_what_was_written() -> None:
    one, other = formats.Manifest(), formats.Manifest()
    for manifest in (one, other):
        for row in formats.rows([PAIR, FIXED], "trl"):
            manifest.line(row)
    assert one.row(task="creative") == other.row(task="creative")
    assert one.row()["rows"] == 2


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(BadInput, match="only trl"):
        formats.rows([], "xml")


def test_messages_stay_messages_in_every_format() -> None:
    told = [{"role": "system", "content": "Be plain."}, {"role": "user", "content": "Write"}]
    chat = Answer("pair", json.dumps(told), "Fresh", "Stale", outcome="a")
    (trl,), (sharegpt,), (openai,) = (formats.rows([chat], name) for name in ("trl", "sharegpt", "openai-preference"))
    assert trl["prompt"] == openai["input"]["messages"] == told
    assert [one["from"] for one in sharegpt["conversations"]] == ["system", "human"]


def test_exported_rows_are_what_trl_takes_as_they_are(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data_utils = pytest.importorskip("trl.data_utils")
    for name, columns in (
        ("trl", {"prompt", "chosen", "rejected"}),
        ("trl-unpaired", {"prompt", "completion", "label"}),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in formats.rows([PAIR, FIXED, BAD], name)))
        loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
        assert set(loaded.column_names) == columns
        assert all(data_utils.is_conversational(row) for row in loaded)
