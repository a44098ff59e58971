"""The planning suite: a model's first call for a goal, against what the goal says."""

from __future__ import annotations

import json

import pytest

from agents.domain import tools
from agents.planning import ENDINGS
from training import suites
from training.domain import curation, goals

RIGHT = [json.dumps({"name": one.tool, "arguments": dict(one.arguments)}) for one in goals.GOALS if not one.shown]


def filled(goal: goals.Goal) -> dict[str, object]:
    """The goal's own arguments, with what the tool needs besides."""
    return {**({"text": "x", "network": "walmart"} if goal.tool == "check_copy" else {}), **goal.arguments}


@pytest.mark.parametrize("goal", goals.GOALS, ids=lambda goal: goal.words[:40])
def test_the_call_that_a_goal_wants_is_one_its_tool_accepts(goal: goals.Goal) -> None:
    reading = tools.validate(json.dumps({"name": goal.tool, "arguments": filled(goal)}), ENDINGS)
    assert not reading.errors
    assert goals.wrong(goal, reading.calls[0].name, reading.calls[0].arguments) == []


def test_every_tool_is_asked_for_and_no_worked_example_is_asked() -> None:
    asked = [goal for goal in goals.GOALS if not goal.shown]
    assert {goal.tool for goal in asked} == set(tools.TOOLS)
    assert not {goal.words for goal in asked} & {goal.words for goal in goals.GOALS if goal.shown}


def test_right_calls_pass_and_are_better_than_calls_that_do_not_validate() -> None:
    suite = suites.of("planning", brand=None)
    right = suite.rows(RIGHT)
    assert all(row["passed"] for row in right), [row["why"] for row in right if not row["passed"]]
    prose = suite.rows([f"I would call the tool. {text[:20]}" for text in RIGHT])
    assert not any(row["valid"] for row in prose)
    assert suite.compared(right, prose).verdict == "better"
    assert suite.compared(prose, right).verdict == "worse"


def test_a_valid_call_of_another_tool_or_with_another_number_does_not_pass() -> None:
    suite = suites.of("planning", brand=None)
    other = suite.rows(['{"name": "recall_lessons", "arguments": {"about": "x"}}' for _ in RIGHT])
    assert all(row["valid"] for row in other)
    assert sum(row["passed"] for row in other) == sum('"recall_lessons", "arguments": {}' in one for one in RIGHT)
    goal = next(one for one in goals.GOALS if one.tool == "allocate_budget")
    assert goals.wrong(goal, goal.tool, {**goal.arguments, "total_budget": 25_000}) == [
        "total_budget is 25000, where the goal says 250000"
    ]


def test_a_planner_practises_right_calls_of_every_tool_in_other_words_than_the_gates() -> None:
    practised = goals.practice()
    assert practised == goals.practice()
    assert {goal.tool for goal in practised} == set(tools.TOOLS)
    assert not {goal.words for goal in practised} & {goal.words for goal in goals.GOALS}
    for goal in practised:
        reading = tools.validate(json.dumps({"name": goal.tool, "arguments": dict(goal.arguments)}), ENDINGS)
        assert not reading.errors, goal.words
        assert goals.wrong(goal, reading.calls[0].name, reading.calls[0].arguments) == []


def test_the_gates_goals_train_nothing() -> None:
    rows = curation.demonstrations(suites.practice(), curation.Report())
    asked = suites.asked_at_the_gate(None, "planning")
    assert len(curation.without(rows, asked)[0]) == len(rows) > 36
    cheat = curation.Judged("thumb", goals.GOALS[1].words, '{"name": "read_metrics"}', value=1)
    assert curation.without(curation.demonstrations([cheat], curation.Report()), asked) == ([], 1)
