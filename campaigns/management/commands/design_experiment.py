from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from campaigns.domain.experiments.design import design
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Design an experiment: sample size, or regions and power tried on your own past (docs/measurement.md)."
    example = "design_experiment spec.json --out design.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("spec", help="what is to be found, and in what (JSON)")
        parser.add_argument("--out", help="where the design goes (default: stdout)")

    def run(self, **options: Any) -> None:
        spec = read_json(options["spec"])
        if not isinstance(spec, dict):
            raise BadInput(f"{options['spec']}: an object was expected")
        self.answer(design(spec, folder=Path(options["spec"]).parent), options["out"])
