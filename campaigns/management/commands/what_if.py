from __future__ import annotations

from typing import Any

import numpy as np
from django.core.management.base import CommandParser

from campaigns.domain import optimizer, problem
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput

MOST = 10_000


class Command(RmnCommand):
    help = "Solve a budget problem for a range of budgets: what each would bring, with bound, gap and price."
    example = "what_if problem.json --budgets 50000:200000:7 --out curve.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("problem", help="the problem (JSON)")
        parser.add_argument(
            "--budgets", required=True, metavar="FROM:TO:COUNT", help="budgets, evenly spaced, both ends included"
        )
        parser.add_argument("--out", help="where the curve goes (default: stdout)")

    def run(self, **options: Any) -> None:
        budgets = read_range(options["budgets"])
        asked = problem.read(read_json(options["problem"]))
        answers = []
        for budget in self.track(budgets, len(budgets), "budgets"):
            answers += optimizer.what_if(asked, [budget])
        self.answer(answers, options["out"])


def read_range(text: str) -> list[float]:
    """Budgets from FROM:TO:COUNT, or a single budget.

    Raises:
        BadInput: not three numbers, a count below 1, or a budget below 0.
    """
    parts = text.split(":")
    try:
        if len(parts) == 1:
            low = high = float(parts[0])
            count = 1
        else:
            low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
            if len(parts) != 3:
                raise ValueError
    except (ValueError, IndexError):
        raise BadInput(f"--budgets is {text!r}: FROM:TO:COUNT was expected, such as 50000:200000:7") from None
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high < low:
        raise BadInput(f"--budgets is {text!r}: budgets from 0 on, the first not above the last")
    if not 1 <= count <= MOST:
        raise BadInput(f"--budgets is {text!r}: between 1 and {MOST} budgets")
    if count == 1 and high > low:
        raise BadInput(f"--budgets is {text!r}: one budget cannot be both ends; give a count of at least 2")
    return [float(x) for x in np.linspace(low, high, count)]
