"""Data sets in the shapes of TRL, ShareGPT and OpenAI: all are read, each is written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmn.lib.errors import BadInput
from training.domain import formats
from training.lora import data

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A headline for tea"}]
GOOD, BAD = [{"role": "assistant", "content": "ACME tea"}], [{"role": "assistant", "content": "Best tea!!"}]
ROWS: dict[str, dict[str, Any]] = {
    "sft": {"prompt": ASKED, "completion": GOOD},
    "dpo": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    "kto": {"prompt": ASKED, "completion": BAD, "label": False},
}


def back(row: dict[str, Any], method: str, folder: Path) -> dict[str, Any]:
    (folder / "train.jsonl").write_text(json.dumps(row))
    return data.read(folder, method)[0]


@pytest.mark.parametrize("wanted", formats.FORMATS)
@pytest.mark.parametrize("method", list(ROWS))
def test_a_row_of_each_kind_comes_back_whole_from_each_shape(method: str, wanted: str, tmp_path: Path) -> None:
    assert back(formats.shaped(ROWS[method], wanted), method, tmp_path) == ROWS[method]


def test_the_shapes_are_those_that_others_document() -> None:
    assert formats.shaped(ROWS["dpo"], "sharegpt") == {
        "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "A headline for tea"}],
        "chosen": {"from": "gpt", "value": "ACME tea"},
        "rejected": {"from": "gpt", "value": "Best tea!!"},
    }
    assert formats.shaped(ROWS["kto"], "sharegpt")["kto_tag"] is False
    assert formats.shaped(ROWS["dpo"], "openai")["preferred_output"] == GOOD
    assert formats.shaped(ROWS["sft"], "openai") == {"messages": [*ASKED, *GOOD]}
    with pytest.raises(BadInput, match="one of trl, sharegpt, openai"):
        formats.shaped(ROWS["sft"], "alpaca")


@pytest.mark.parametrize(
    ("row", "same"),
    [
        ({"chosen": [*ASKED, *GOOD], "rejected": [*ASKED, *BAD]}, True),
        (
            {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "Tea"}]}, *GOOD],
             "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "Tea"}]}, *BAD]},
            False,
        ),
        ({"question": "Tea?", "response_j": "ACME tea", "response_k": "Best tea!!"}, False),
    ],
)  # fmt: skip
def test_whole_conversations_and_questions_with_two_answers_are_pairs(row: Any, same: bool, tmp_path: Path) -> None:
    found = back(row, "dpo", tmp_path)
    assert (found["chosen"], found["rejected"]) == (GOOD, BAD)
    assert found["prompt"][-1]["role"] == "user"
    if same:
        assert found["prompt"] == ASKED


@pytest.mark.parametrize(
    ("file", "method"),
    [
        ("dpo_en_demo_sharegpt.jsonl", "dpo"),
        ("v1_dpo_demo.jsonl", "dpo"),
        ("stack_exchange_paired_tiny.jsonl", "dpo"),
        ("kto_en_demo.jsonl", "kto"),
    ],
)
def test_published_preference_sets_are_read_as_they_are(shared_data: Path, file: str, method: str) -> None:
    path = shared_data / "llm/preferences" / file
    rows = data.read(path, method)
    assert len(rows) == len([line for line in path.read_text().splitlines() if line.strip()]) > 0
    for row in rows:
        assert row["prompt"][-1]["content"].strip()
        assert all(row[side][-1]["role"] == "assistant" for side in ("chosen", "rejected", "completion") if side in row)


def test_a_conversation_that_ends_with_its_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="line 1: completion: the last message must be the assistant's"):
        back({"messages": ASKED}, "sft", tmp_path)


@pytest.mark.parametrize("strength", [0, 9, True, 1.5])
def test_a_strength_that_is_none_is_refused(strength: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="strength is"):
        back({**ROWS["dpo"], "strength": strength}, "dpo", tmp_path)


def test_a_pair_that_people_were_sure_of_stands_twice_in_a_pass() -> None:
    strong = {**ROWS["dpo"], "strength": 2}
    assert data.weighted([strong, ROWS["dpo"]]) == [ROWS["dpo"]] * 3
