from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from agents import serving
from agents.models import Adapter
from campaigns.models import Task
from retailers.models import Brand
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput, RmnError
from training import services, tasks


class Command(RmnCommand):
    help = "Compare an adapter with another (or the base) on a suite, and say whether it may replace it."
    example = "evaluate_adapter 3f9a1c --against base --suite creative --out result.json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("candidate", help="digest, folder, or base")
        parser.add_argument("--against", required=True, help="the champion: digest, folder, or base")
        parser.add_argument("--suite", default="creative", help="which cases (default: creative)")
        parser.add_argument("--brand", help="whose products (default: the candidate's brand)")
        parser.add_argument("--margin", type=float, help="a smaller loss of a rate is none (default 0.05)")
        parser.add_argument("--minimum", type=float, help="a smaller gain is not worth a change (default 0.02)")
        parser.add_argument("--out", help="where the result goes (default: stdout)")

    def run(self, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first() if options["brand"] else None
        if options["brand"] and brand is None:
            raise BadInput(f"--brand {options['brand']!r}: there is no such brand")
        candidate = self.adapter(options["candidate"], brand)
        champion = self.adapter(options["against"], brand)
        owner = brand or (candidate.brand if candidate else None) or (champion.brand if champion else None)
        if owner is None:
            raise BadInput("whose products? neither adapter belongs to a brand; give --brand")
        run = services.wish_for_evaluation(
            brand=owner,
            task=(candidate or champion).task if candidate or champion else Task.CREATIVE,  # type: ignore[union-attr]
            candidate=candidate,
            champion=champion,
            suite=options["suite"],
            **{name: options[name] for name in ("margin", "minimum") if options[name] is not None},
        )
        tasks.evaluate(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the evaluation is {run.status}")
        self.answer(run.result, options["out"])

    def adapter(self, text: str, brand: Brand | None) -> Adapter | None:
        if text == "base":
            return None
        folder = Path(text)
        if not folder.is_dir():
            return serving.find(text)
        slug = str(serving.inspect(folder).manifest.get("brand") or "")
        owner = brand or Brand.objects.filter(slug=slug).first()
        return serving.register(
            folder, kind="brand" if owner else "task", brand=owner, retailer=None, task=Task.CREATIVE
        )
