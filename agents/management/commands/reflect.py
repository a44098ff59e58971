"""Decides on a reflection record."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents.domain import calibration, reflection, scorefiles
from rmn.lib.commands import RmnCommand, read_json


class Command(RmnCommand):
    help = (
        "Decide whether a reflection should proceed: threshold on the calibrated confidence, critical risks, reasons."
    )
    example = "reflect record.json --out verdict.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "record", help="JSON: phase, risk_assessment, confidence, decision_threshold, validations ..."
        )
        parser.add_argument("--out", help="JSON: should_proceed, threshold_met, evaluated, reasons ...")
        parser.add_argument(
            "--forecasts", help="resolved forecasts to calibrate with (CSV or JSON Lines: probability, outcome)"
        )

    def run(self, **options: Any) -> None:
        record = reflection.Reflection.read(read_json(options["record"]))
        learned = calibration.Map(0, 0.0)
        if options["forecasts"]:
            learned = calibration.recalibrate(*scorefiles.forecasts(options["forecasts"]))
        self.answer(reflection.decide(record, learned).row(), options["out"])
