"""Checks model texts against the tools they were offered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser

from agents.domain import toolcalls
from rmn.lib.commands import RmnCommand, read_jsonl, write_jsonl
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Read the tool calls in raw model texts and check them against the tools on offer (JSON Schema or BFCL)."
    example = "check_tool_calls cases.jsonl --out verdicts.jsonl"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cases", help="JSON Lines: {tools, output, expected}")
        parser.add_argument("--out", help="JSON Lines: {calls, errors}, one line for each case")

    def run(self, **options: Any) -> None:
        verdicts = self.track(self.verdicts(options["cases"]), what="cases")
        if options["out"]:
            write_jsonl(options["out"], verdicts)
        else:
            for verdict in verdicts:
                self.stdout.write(json.dumps(verdict, ensure_ascii=False))

    def verdicts(self, path: str) -> Iterator[dict[str, Any]]:
        for number, case in enumerate(read_jsonl(path), 1):
            tools, output = case.get("tools", case.get("function")), case.get("output")
            if not isinstance(tools, list) or not isinstance(output, str):
                raise BadInput(f"{path} case {number}: needs tools (a list of functions) and output (the model's text)")
            expected = case.get("expected", case.get("ground_truth"))
            try:
                reading = toolcalls.validate(tools, output, expected, judged="expected" in case)
            except BadInput as error:
                raise BadInput(f"{path} case {number}: {error}") from None
            kept = {key: case[key] for key in ("id",) if key in case}
            yield kept | {
                "calls": [call.row() for call in reading.calls],
                "errors": [error.row() for error in reading.errors],
            }
