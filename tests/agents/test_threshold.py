from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.domain import threshold

VALUES = {"confidence": 0.75, "confidence_raw": 0.9, "n": 40.0, "risks": 1.0}


def met(expression: str, *validations: str) -> bool:
    return threshold.evaluate(expression, VALUES, validations).met


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("confidence >= 0.75", True),
        ("confidence >= 0.8", False),
        ("Confidence >= 75%", True),
        ("0.7 <= confidence", True),
        ("confidence = 0.75", True),
        ("confidence != 0.75", False),
        ("confidence ≥ .7", True),
        ("confidence >= 0.8 OR n > 30", True),
        ("confidence >= 0.8 and n > 30", False),
        ("confidence >= 0.8 OR n > 30 AND risks = 2", False),
        ("(confidence >= 0.8 OR n > 30) AND risks = 1", True),
        ("NOT confidence >= 0.8", True),
        ("NOT (confidence >= 0.8 OR n > 30)", False),
        ("NOT NOT n > 30", True),
    ],
)
def test_an_expression_holds_as_it_reads(expression: str, holds: bool) -> None:
    assert met(expression) is holds


def test_a_validation_is_matched_by_name() -> None:
    text = "confidence >= 0.8 OR validation from risk team"
    assert not met(text)
    assert met(text, "Risk  Team")
    assert not met(text, "risk")
    assert met("(validation from the legal team) AND validation from ops", "ops", "the legal team")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "confidence",
        "confidence >= 0.1 xor n > 1",
        "confidence >= 0.1 OR",
        "(confidence >= 0.1",
        "confidence >= 0.1)",
        "__import__('os').system('true')",
        "confidence >= 0.1 # always",
        "0.1 <= confidence <= 0.9",
        "True",
        "validation from",
        "NOT " * 200 + "n > 1",
        "(" * 2000 + "n > 1",
        "n > 1 " + " " * 2000,
    ],
)
def test_what_is_no_expression_lets_nothing_pass(expression: str) -> None:
    outcome = threshold.evaluate(expression, VALUES, [])
    assert not outcome.met
    assert outcome.reasons


@pytest.mark.parametrize("expression", ["luck > 0", "NOT luck > 0", "luck > 0 OR NOT luck > 0", "n > luck"])
def test_an_unknown_name_is_never_true_not_even_under_not(expression: str) -> None:
    outcome = threshold.evaluate(expression, VALUES, [])
    assert not outcome.met
    assert outcome.terms[0]["met"] is None


def test_every_term_is_logged_with_what_it_was_given() -> None:
    outcome = threshold.evaluate("confidence >= 0.8 OR validation from risk team", VALUES, ["legal"])
    assert outcome.terms == [
        {"term": "confidence >= 0.8", "inputs": {"confidence": 0.75}, "met": False},
        {"term": "validation from risk team", "inputs": {"validations": ["legal"]}, "met": False},
    ]


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_text_is_answered(text: str) -> None:
    assert threshold.evaluate(text, VALUES, []).met in (True, False)
