from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from campaigns.domain import optimizer
from rmn.lib.commands import RmnCommand, read_json


class Command(RmnCommand):
    help = (
        "Split a budget over arms (retailer, campaign, tactic) so that expected sales are highest,"
        " with an upper bound, prices of all limits and a reason per arm. Problem and plan: docs/budget.md."
    )
    example = "allocate_budget problem.json --out plan.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("problem", help="the problem (JSON)")
        parser.add_argument("--out", help="where the plan goes (default: stdout)")

    def run(self, **options: Any) -> None:
        self.answer(optimizer.solve(read_json(options["problem"])), options["out"])
