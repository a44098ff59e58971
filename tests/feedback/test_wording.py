from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.domain import wording


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_pieces_give_both_texts_back(before: str, after: str) -> None:
    pieces = wording.word_diff(before, after)
    joined = {kind: "".join(p.text for p in pieces if p.kind in ("same", kind)) for kind in ("del", "ins")}
    # what no pattern calls a word (a lone joining mark) is left out of both alike
    assert joined["del"] == "".join(wording.WORD.findall(before))
    assert joined["ins"] == "".join(wording.WORD.findall(after))


@given(st.text(max_size=200))
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert all(piece.kind == "same" for piece in wording.word_diff(text, text))
    assert not wording.changed_claims(text, text)


@given(st.text())
def test_every_character_is_of_a_word(text: str) -> None:
    assert "".join(wording.WORD.findall(text)) == text


def test_only_changed_words_are_marked() -> None:
    kinds = [(p.kind, p.text) for p in wording.word_diff("Fresh water, 12 oz", "Fresh spring water, 12 oz")]
    assert ("ins", "spring ") in kinds or ("ins", " spring") in kinds
    assert not [text for kind, text in kinds if kind == "del"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("Now $1.99", "Now $2.49", "$1.99 went; $2.49 came"),
        ("Save 10 %", "Save 10%", ""),
        ("30 % less sugar", "Less sugar", "30 % went"),
        ("Water, 12 oz", "Water, 16 oz", "12 oz went; 16 oz came"),
        ("Aqua water", "Plain water", "Aqua went"),
        ("Fresh water", "Cool water", ""),
        ("2 for 1", "1 for 2", ""),
        ("€5 off", "5 € off", ""),
    ],
)
def test_a_changed_price_share_number_or_name_is_told(before: str, after: str, told: str) -> None:
    assert str(wording.changed_claims(before, after, ["Aqua"])) == told
