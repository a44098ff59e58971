from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from django.core.management.base import CommandParser

from campaigns.domain import fitting
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = (
        "Fit response curves to history (CSV: arm, date, spend, sales; optional retailer, tactic, brand, campaign;"
        " all other columns are controls). Writes arms for allocate_budget with intervals, draws and warnings."
    )
    example = "fit_response history.csv --lift-tests tests.csv --out curves.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("history", help="the history (CSV)")
        parser.add_argument(
            "--lift-tests",
            dest="lift_tests",
            help="measured lifts (CSV or JSON list): arm, spend_from, spend_to (or change), lift, se; per period",
        )
        parser.add_argument(
            "--periods", type=float, default=1.0, help="periods of the plan, in the history's (default 1)"
        )
        parser.add_argument("--draws", type=int, default=300, help="draws of each curve (default 300)")
        parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
        parser.add_argument("--out", help="where the curves go (default: stdout)")

    def run(self, **options: Any) -> None:
        if not options["periods"] > 0:
            raise BadInput(f"--periods is {options['periods']}: more than 0 was expected")
        if not 20 <= options["draws"] <= 20_000:
            raise BadInput(f"--draws is {options['draws']}: between 20 and 20000")
        histories = fitting.read_history(read_table(options["history"]), options["history"])
        tests = []
        if options["lift_tests"]:
            tests = fitting.read_tests(read_rows(options["lift_tests"]), histories, options["lift_tests"])
        fits = fitting.fit(histories, tests, draws=options["draws"], seed=options["seed"])
        self.answer(fitting.as_json(fits, histories, periods=options["periods"]), options["out"])


def read_table(path: str) -> dict[str, list[Any]]:
    """A CSV's columns as texts.

    Raises:
        BadInput: the file is no table.
    """
    if not Path(path).exists():
        raise BadInput(f"{path}: no such file; check the path")
    try:
        frame = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=False)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path}: not a table: {str(error).splitlines()[0]}") from None
    return {name.strip(): frame[name].to_list() for name in frame.columns}


def read_rows(path: str) -> list[dict[str, Any]]:
    """Rows of a CSV or of a JSON list."""
    if Path(path).suffix.lower() != ".json":
        table = read_table(path)
        return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    rows = read_json(path)
    if isinstance(rows, dict):
        rows = rows.get("tests", [rows])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path}: a list of tests was expected, not {json.dumps(rows)[:40]}")
    return rows
