"""Scores of the tenants' own forecasts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents import forecasts
from agents.models import Forecast
from retailers.models import Brand
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Score resolved forecasts: Brier, skill, reliability, calibration error; by agent, adapter, person ..."
    example = "score_forecasts --by agent --brand acme-corp"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by", default="", metavar="{" + ",".join(forecasts.BY) + "}", help="a score for each")
        parser.add_argument("--brand", help="only of this brand (slug)")
        parser.add_argument("--out", help="where the scores go (default: stdout)")

    def run(self, **options: Any) -> None:
        rows = Forecast.objects.all()
        if options["brand"]:
            brand = Brand.objects.filter(slug=options["brand"]).first()
            if brand is None:
                raise BadInput(f"--brand {options['brand']!r}: there is no such brand")
            rows = rows.filter(brand=brand)
        self.answer(forecasts.score(rows, options["by"]), options["out"])
