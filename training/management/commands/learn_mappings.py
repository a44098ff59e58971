"""Teaches a retailer's adapter to read reports."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from retailers.models import Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import RmnError
from training import services, tasks
from training.management.commands.build_dataset import named


class Command(RmnCommand):
    help = "Train a retailer's adapter on known mappings, gate it on headers it has not seen, and let it suggest where it is better."
    example = "learn_mappings --retailer retailer-abc"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--retailer", required=True, help="whose adapter (slug)")

    def run(self, **options: Any) -> None:
        retailer = named(Retailer, options["retailer"], "--retailer")
        run = services.wish_for_lesson(brand=None, task="", retailer=retailer)
        tasks.teach(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the lesson is {run.status}")
        self.stdout.write("\n".join([*run.found, f"outcome: {run.outcome}"]))
