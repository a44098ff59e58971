"""The arithmetic of scores, on a file."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents.domain import scorefiles
from rmn.lib.commands import RmnCommand

KINDS = {
    "forecasts": scorefiles.score_forecasts,
    "agreement": scorefiles.score_agreement,
    "ranking": scorefiles.score_ranking,
    "paired": scorefiles.score_paired,
}


class Command(RmnCommand):
    help = "Score a file: forecasts with outcomes, ratings of several people, contests of pairs, paired tests."
    example = "score forecasts.csv --kind forecasts --out scores.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="CSV, JSON or JSON Lines")
        parser.add_argument("--kind", required=True, choices=list(KINDS))
        parser.add_argument("--out")

    def run(self, **options: Any) -> None:
        self.answer(KINDS[options["kind"]](options["file"]), options["out"])
