"""Reading and checking tool calls beside jsonschema building its validator for each call, as agent frameworks do."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from agents.domain import toolcalls
from benchmarks.harness import Row, median_seconds

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "total_budget": {"type": "number", "minimum": 0},
        "retailer": {"type": "string"},
        "until": {"type": "string", "format": "date"},
        "tactics": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["total_budget", "retailer"],
    "additionalProperties": False,
}
ARGUMENTS = {"total_budget": 1000, "retailer": "walmart", "until": "2026-03-31", "tactics": ["search", "display"]}


def rows(size: str) -> list[Row]:
    count = 2_000 if size == "small" else 50_000
    tools = [{"name": "allocate_budget", "parameters": SCHEMA}]
    output = json.dumps({"name": "allocate_budget", "arguments": ARGUMENTS})

    def ours() -> None:
        for _ in range(count):
            assert not toolcalls.validate(tools, output).errors

    def theirs() -> None:
        for _ in range(count):
            call = json.loads(output)
            assert not list(Draft202012Validator(SCHEMA).iter_errors(call["arguments"]))

    mine, peer = median_seconds(ours, 3), median_seconds(theirs, 3)
    return [
        Row(
            "read and check a call of four arguments",
            count / mine,
            "calls/s",
            "json and jsonschema, nothing kept, formats not enforced",
            count / peer,
            "5,000/s",
            count / mine >= 5_000,
        )
    ]
