from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents import decisions, planning, services, tasks
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput, RmnError


class Command(RmnCommand):
    help = "Plan a goal: steps chosen, validated and done; what proposes waits for a person (or --approve)."
    example = 'plan "Split next quarter\'s budget" --brand acme-corp --out trace.json'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("goal", help="what is to be reached, in words")
        parser.add_argument("--brand", required=True, help="for whom (slug)")
        parser.add_argument("--retailer", help="only at this retailer (slug)")
        parser.add_argument("--approve", action="store_true", help="approve what is proposed, as the operator")
        parser.add_argument("--out", help="where the trace goes (default: stdout)")

    def run(self, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise BadInput(f"--brand {options['brand']!r}: there is no such brand")
        shop = Retailer.objects.filter(slug=options["retailer"]).first() if options["retailer"] else None
        if options["retailer"] and shop is None:
            raise BadInput(f"--retailer {options['retailer']!r}: there is no such retailer")
        if not options["goal"].strip():
            raise BadInput("the goal is empty; say what is to be reached")
        run = services.wish_for_plan(brand=brand, retailer=shop, goal=options["goal"])
        tasks.plan(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the plan is {run.status}")
        if options["approve"] and run.pending and run.pending.get("approve"):
            run = decisions.decide_run(run, "approve", None, "approved on the command line")
        self.answer(planning.trace(run), options["out"])
