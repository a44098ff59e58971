from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agents.domain import toolcalls
from rmn.lib.errors import BadInput

BUDGET = {
    "name": "allocate_budget",
    "parameters": {
        "type": "object",
        "properties": {
            "total_budget": {"type": "number", "minimum": 0},
            "until": {"type": "string", "format": "date"},
            "retailer": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["total_budget"],
        "additionalProperties": False,
    },
}
GOOD = {"name": "allocate_budget", "arguments": {"total_budget": 1000}}


def kinds(output: str, tools: list[Any] | None = None, **more: Any) -> list[str]:
    return [error.kind for error in toolcalls.validate(tools or [BUDGET], output, **more).errors]


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(GOOD),
        json.dumps([GOOD]),
        "Sure! Here is the call:\n```json\n" + json.dumps(GOOD) + "\n```\nAnything else?",
        "I would call " + json.dumps(GOOD) + " because {reasons}.",
        "<tool_call>\n" + json.dumps(GOOD) + "\n</tool_call>",
        "{'name': 'allocate_budget', 'arguments': {'total_budget': 1000}}",
        "Here: {'name': 'allocate_budget', 'arguments': {'total_budget': 1000}} as you wished",
        json.dumps({"function": "allocate_budget", "arguments": {"total_budget": 1000}}),
        json.dumps({"id": "1", "type": "function", "function": {**GOOD, "arguments": '{"total_budget": 1000}'}}),
        json.dumps({"tool_calls": [{"function": GOOD}]}),
        json.dumps({"allocate_budget": {"total_budget": 1000}}),
        "[allocate_budget(total_budget=1000)]",
    ],
)
def test_one_call_is_found_however_the_model_dresses_it(output: str) -> None:
    reading = toolcalls.validate([BUDGET], output)
    assert [call.row() for call in reading.calls] == [GOOD]
    assert reading.errors == []


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ('{"name": "allocate_budget", "arguments": {"total_bud', "not_json"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1', "not_json"),
        ("<tool_call>" + json.dumps(GOOD)[:-4], "not_json"),
        ("", "not_json"),
        ("I will allocate the budget now.", "not_json"),
        ('{"name": "allocate_budget"}', "not_json"),
        ('{"name": "allocate_budget", "arguments": null}', "type_error"),
        ('{"name": "allocate_budget", "arguments": []}', "type_error"),
        ('{"name": "allocate_budget", "arguments": [1000]}', "type_error"),
        ('{"name": "allocate_budget", "arguments": "1000"}', "type_error"),
        ('{"name": "allocate_budget", "arguments": 7}', "type_error"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": "1000"}}', "type_error"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": true}}', "type_error"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1, "retailer": 3}}', "type_error"),
        ('{"name": "allocate_budget", "arguments": {}}', "missing_required"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1, "brand": "x"}}', "unexpected_param"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": -1}}', "value_error"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1, "until": "2026-02-30"}}', "value_error"),
        ('{"name": "spend_it_all", "arguments": {}}', "unknown_function"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": NaN}}', "not_json"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1e999}}', "not_json"),
        ('{"name": "allocate_budget", "arguments": {"total_budget": 1, "total_budget": 2}}', "not_json"),
        ("{'name': __import__('os').system('true'), 'arguments': {}}", "not_json"),
        ("[" * 100_000, "not_json"),
    ],
)
def test_a_broken_call_is_named_by_its_kind(output: str, kind: str) -> None:
    assert kinds(output) == [kind]


def test_a_call_that_cannot_be_read_never_becomes_one_with_empty_arguments() -> None:
    for cut in range(1, len(json.dumps(GOOD))):
        reading = toolcalls.validate([BUDGET], json.dumps(GOOD)[:cut])
        assert reading.errors
        assert not reading.calls


def test_only_the_bad_call_is_refused() -> None:
    reading = toolcalls.validate([BUDGET], json.dumps([GOOD, {"name": "allocate_budget", "arguments": {}}]))
    assert [error.path for error in reading.errors] == ["calls[1].arguments.total_budget"]


def test_no_call_is_right_where_none_is_expected() -> None:
    assert kinds("None of the tools fits; what is the goal?", expected=[], judged=True) == []
    assert kinds(json.dumps(GOOD), expected=[], judged=True) == ["wrong_count"]
    assert kinds("no", expected=[{"allocate_budget": {"total_budget": [1]}}], judged=True) == ["wrong_count"]


def test_a_broken_tool_document_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"tools\[0\]"):
        toolcalls.offered([{"parameters": {}}])
    with pytest.raises(BadInput, match="no JSON Schema"):
        toolcalls.offered([{"name": "f", "parameters": {"type": "wish"}}])
    with pytest.raises(BadInput, match=r"\$ref"):
        toolcalls.validate(
            [{"name": "f", "parameters": {"$ref": "http://127.0.0.1:1/x"}}], '{"name":"f","arguments":{}}'
        )


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("date-time", "2024-02-29T23:59:60Z", "2024-02-29 23:59:00"),
        ("time", "08:30:06+02:00", "24:00:00Z"),
        ("email", "ana.b@shop.example", "ana@@shop"),
        ("uri", "https://shop.example/a?b=c#d", "shop example"),
        ("ipv4", "127.0.0.1", "127.0.0.256"),
        ("ipv6", "::1", "::g"),
        ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08"),
        ("hostname", "www.shop.example", "-shop.example"),
        ("duration", "P3DT4H", "P"),
    ],
)
def test_formats_are_enforced(name: str, good: str, bad: str) -> None:
    tool = {
        "name": "f",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "format": name}}},
    }
    assert kinds(json.dumps({"name": "f", "arguments": {"x": good}}), [tool]) == []
    assert kinds(json.dumps({"name": "f", "arguments": {"x": bad}}), [tool]) == ["value_error"]


PLAIN = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "exclusiveMaximum": 3},
        "b": {"type": "number", "maximum": 2.5},
        "c": {"type": "string", "minLength": 1, "maxLength": 2, "enum": ["x", "xy", "xyz"]},
        "d": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "e": {"type": "object", "properties": {"f": {"type": "string", "format": "date"}}, "required": ["f"]},
    },
    "required": ["a"],
    "additionalProperties": False,
}
VALUES = st.recursive(
    st.sampled_from([None, True, False, -1, 0, 1, 3, 1.0, 2.5, 2.6, "", "x", "xy", "xyz", "2024-02-29", "2023-02-29"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdefg"), inner, max_size=4),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from("abcdefg"), VALUES, max_size=5) | VALUES)
def test_the_quick_check_of_a_plain_schema_and_the_validator_say_the_same(value: Any) -> None:
    for bfcl, kind in ((False, Draft202012Validator), (True, toolcalls.StrictInteger)):
        surely = toolcalls._surely(PLAIN, bfcl)
        assert surely is not None
        assert surely(value) == kind(PLAIN, format_checker=toolcalls.FORMATS).is_valid(value)


@pytest.mark.parametrize("more", [{"pattern": "x"}, {"anyOf": [{}]}, {"$ref": "#"}, {"type": ["string", "null"]}])
def test_a_schema_that_says_more_is_left_to_the_validator(more: dict[str, Any]) -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string", **more}}}
    assert toolcalls._surely(inner, False) is None


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def test_argument_labels_of_real_schemas_are_all_met(shared_data: Path) -> None:
    wrong = []
    for row in lines(shared_data / "llm/tool_args/glaive_marketing_schemas.jsonl"):
        tool = {"name": row["name"], "parameters": row["schema"]}
        for case in row["tests"]:
            found = kinds(json.dumps({"name": row["name"], "arguments": case["data"]}), [tool])
            if (not found) != case["valid"]:
                wrong.append(row["id"])
    assert wrong == []


def test_the_json_schema_suite_is_met_but_for_unicode_patterns(shared_data: Path) -> None:
    wrong = []
    for row in lines(shared_data / "llm/json_schema_suite/draft2020_12_groups.jsonl"):
        if "\\\\p{" in json.dumps(row["schema"]):  # property escapes that Python's expressions do not know
            continue
        for case in row["tests"]:
            found = kinds(
                json.dumps({"name": "f", "arguments": case["data"]}), [{"name": "f", "parameters": row["schema"]}]
            )
            if (not found) != case["valid"]:
                wrong.append((row["description"], case["description"]))
    assert wrong == []


def built(truth: list[Any]) -> list[dict[str, Any]]:
    """The calls that BFCL's ground truth describes, with the first accepted value of each argument."""

    def value(accepted: Any) -> Any:
        if isinstance(accepted, dict):
            return {
                key: value(first(inner)) if isinstance(inner, list) else inner
                for key, inner in accepted.items()
                if not isinstance(inner, list) or first(inner) is not None
            }
        return [value(item) for item in accepted] if isinstance(accepted, list) else accepted

    def first(accepted: list[Any]) -> Any:
        return next((each for each in accepted if each != ""), None)

    return [
        {"name": name, "arguments": {key: value(first(each)) for key, each in given.items() if first(each) is not None}}
        for call in truth
        for name, given in call.items()
    ]


def spoken(call: dict[str, Any]) -> str:
    return f"{call['name']}({', '.join(f'{name}={value!r}' for name, value in call['arguments'].items())})"


DRESSES: dict[str, Any] = {
    "single quotes": repr,
    "Python calls": lambda calls: f"[{', '.join(map(spoken, calls))}]",
    "Python statements": lambda calls: "\n".join(map(spoken, calls)),
    "Python within prose": lambda calls: f"I will do {' and then '.join(map(spoken, calls))} for you.",
    "a fence": lambda calls: f"Sure:\n```json\n{json.dumps(calls, indent=2)}\n```\nDone.",
    "prose": lambda calls: f"I will. {' '.join(map(json.dumps, calls))} Let me know.",
    "marks": lambda calls: "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls),
    "names as keys": lambda calls: json.dumps([{call["name"]: call["arguments"]} for call in calls]),
    "after thinking": lambda calls: f'<think>{{"name": "x"}} perhaps</think>{json.dumps(calls)}',
}
ODD = {  # rows whose published answer breaks its own tool's declaration
    "live_parallel_multiple_21-18-0", "live_simple_106-63-0", "live_simple_112-68-0",
    "parallel_multiple_12", "parallel_multiple_21", "parallel_multiple_94",
}  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES)
def test_bfcls_answers_are_read_in_every_dress_but_for_the_odd_rows(shared_data: Path, dress: str) -> None:
    missed = set()
    for path in sorted((shared_data / "llm/bfcl").glob("*.jsonl")):
        for row in lines(path):
            calls = built(row["ground_truth"]) if row.get("ground_truth") and "multi_turn" not in path.stem else []
            if not all(name.isidentifier() for call in calls for name in call["arguments"]):
                continue
            reading = toolcalls.validate(row["function"], DRESSES[dress](calls)) if calls else toolcalls.Reading()
            if reading.errors or [call.row() for call in reading.calls] != json.loads(json.dumps(calls)):
                missed.add(row["id"])
    assert missed == ODD


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("allocate_budget(total_budget=1", "not_json"),
        ("I would call allocate_budget(total_budget=1", "not_json"),
        ("You can use allocate_budget() for that.", "not_json"),
        ("allocate_budget(1000)", "not_json"),
        ("allocate_budget(total_budget=spend())", "not_json"),
        ("allocate_budget(**{'total_budget': 1})", "not_json"),
        ("Action: allocate_budget\nAction Input: {'total_bud", "not_json"),
        ('<function=allocate_budget>{"total_budget": "1"}</function>', "type_error"),
        ('{"name": "allocate_budget", "arguments": "{\\"total_budget\\": 1"}', "not_json"),
    ],
)
def test_calls_in_other_manners_are_held_to_the_same_rules(output: str, kind: str) -> None:
    assert kinds(output) == [kind]


WRONG = {int: "not a number", str: ["x"], float: "zz", bool: "zz", list: "zzz", dict: 17}


@pytest.mark.parametrize("told", [True, False], ids=["with the ground truth", "by the declaration alone"])
def test_of_bfcls_calls_99_in_100_are_judged_right(shared_data: Path, told: bool) -> None:
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for path in sorted((shared_data / "llm/bfcl").glob("*.jsonl")):
        for row in lines(path):
            if not row.get("ground_truth") or path.stem.startswith("multi_turn"):
                continue
            calls = built(row["ground_truth"])
            declared = {tool["name"]: tool["parameters"] for tool in row["function"]}[calls[0]["name"]]
            variants: dict[str, Any] = {"": calls}
            given = calls[0]["arguments"]
            if required := [name for name in declared.get("required", []) if name in given]:
                variants["missing_required"] = copy.deepcopy(calls)
                del variants["missing_required"][0]["arguments"][required[0]]
            variants["unexpected_param"] = copy.deepcopy(calls)
            variants["unexpected_param"][0]["arguments"]["zzz"] = 1
            variants["unknown_function"] = copy.deepcopy(calls)
            variants["unknown_function"][0]["name"] += "_not"
            typed = [name for name in given if declared["properties"].get(name, {}).get("type", "any") != "any"]
            if typed:
                variants["type_error"] = copy.deepcopy(calls)
                variants["type_error"][0]["arguments"][typed[0]] = WRONG[type(given[typed[0]])]
            if told:
                variants["wrong_count"] = [*calls, calls[0]]
            for kind, variant in variants.items():
                found = kinds(
                    json.dumps(variant), row["function"], expected=row["ground_truth"] if told else None, judged=told
                )
                total[kind] += 1
                right[kind] += set(found) == ({kind} if kind else set())
    assert {kind: right[kind] / total[kind] for kind in total if right[kind] / total[kind] < 0.99} == {}


def test_the_command_writes_one_verdict_for_each_case(tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text("\n".join(json.dumps({"tools": [BUDGET], "output": text}) for text in (json.dumps(GOOD), "{")))
    call_command("check_tool_calls", str(cases), "--out", str(tmp_path / "out.jsonl"))
    good, bad = lines(tmp_path / "out.jsonl")
    assert good == {"calls": [GOOD], "errors": []}
    assert bad["calls"] == []
    assert bad["errors"][0]["kind"] == "not_json"


def test_the_command_names_the_case_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps({"tools": "none", "output": ""}))
    with pytest.raises(SystemExit) as stopped:
        call_command("check_tool_calls", str(cases))
    assert stopped.value.code == 2
    assert "case 1: needs tools" in capsys.readouterr().err
