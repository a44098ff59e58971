from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from campaigns.domain.experiments.analysis import analyze
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Read an experiment: effect, interval, p-value and verdict (docs/measurement.md)."
    example = "analyze_experiment spec.json --out result.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("spec", help="kind, method, data and columns (JSON)")
        parser.add_argument("--out", help="where the result goes (default: stdout)")

    def run(self, **options: Any) -> None:
        spec = read_json(options["spec"])
        if not isinstance(spec, dict):
            raise BadInput(f"{options['spec']}: an object was expected")
        self.answer(analyze(spec, folder=Path(options["spec"]).parent), options["out"])
