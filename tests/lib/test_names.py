"""Names by a language model: a plug-in that adds, knows the trade, and fails closed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from rmn.lib import names, pii
from rmn.lib.errors import BadInput


@pytest.fixture
def plugged() -> Iterator[list[pii.Plugin]]:
    kept = list(pii.plugins)
    yield pii.plugins
    pii.plugins[:] = kept


def model_that_finds(*people: str) -> names.Names:
    def read(text: str) -> SimpleNamespace:
        places = [(text.find(one), one) for one in people if one in text]
        return SimpleNamespace(
            ents=[
                SimpleNamespace(label_="PERSON", text=one, start_char=at, end_char=at + len(one)) for at, one in places
            ]
        )

    found = names.Names.__new__(names.Names)
    found.__dict__["pipeline"] = read
    return found


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [("Martens", "Add Dr. ", " boots"), ("Jasmine", "", " rice"), ("Retailer", "", " lists"), ("036000-291452", "", ""), ("Betty Crocker", "", " mix"), ("ann", "", "")],
)  # fmt: skip
def test_what_the_trade_knows_is_no_person(words: str, before: str, after: str) -> None:
    assert not names.is_name(words, before, after)


def test_a_model_adds_and_never_takes_away(plugged: list[pii.Plugin]) -> None:
    text = "Ilse Vandamme rang on 415-555-0134"
    plugged.append(model_that_finds("Ilse Vandamme", "415-555-0134"))
    assert [(one.type, text[one.start : one.end]) for one in pii.detect(text)] == [
        ("PERSON", "Ilse Vandamme"),
        ("PHONE_NUMBER", "415-555-0134"),
    ]


def test_a_name_in_a_long_text_stands_where_it_stood(plugged: list[pii.Plugin]) -> None:
    text = "x " * (names.PIECE // 2 - 4) + "Ilse Vandamme's phone"
    plugged.append(model_that_finds("Ilse Vandamme's"))
    assert [text[one.start : one.end] for one in pii.detect(text)] == ["Ilse Vandamme"]


def test_where_the_model_fails_nothing_comes_back_unmasked(plugged: list[pii.Plugin]) -> None:
    def broken(text: str) -> list[pii.Entity]:
        raise RuntimeError("out of memory")

    plugged.append(broken)
    with pytest.raises(RuntimeError):
        pii.mask("Ilse Vandamme", "key")


def test_a_model_that_is_not_installed_is_said_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"RMN_NAME_MODEL: .*no_such_pipeline is not installed"):
        names.Names("no_such_pipeline")


@pytest.mark.skipif(importlib.util.find_spec(names.MODEL) is None, reason="the model is not installed")
def test_the_small_model_finds_a_name_without_any_word_beside_it(plugged: list[pii.Plugin]) -> None:
    text = "It was Tomomi Nishiyama who brought it back."
    plugged.append(names.Names(names.MODEL))
    assert [text[one.start : one.end] for one in pii.detect(text)] == ["Tomomi Nishiyama"]
