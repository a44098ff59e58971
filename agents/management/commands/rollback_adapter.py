from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents import services
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput
from rmn.lib.rows import scope_text


class Command(RmnCommand):
    help = "Take back the adapter that serves a brand's task: the version before serves at once."
    example = "rollback_adapter --brand acme-corp --task creative --retailer retailer-abc"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True)
        parser.add_argument("--task", required=True, choices=Task.values)
        parser.add_argument("--retailer")
        parser.add_argument("--alias", default="champion", choices=["champion", "challenger", "shadow"])
        parser.add_argument("--reason", default="rolled back by command")
        parser.add_argument("--out", help="write the result here instead of stdout")

    def run(self, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise BadInput(f"--brand {options['brand']}: no such brand")
        retailer = None
        if options["retailer"]:
            retailer = Retailer.objects.filter(slug=options["retailer"]).first()
            if retailer is None:
                raise BadInput(f"--retailer {options['retailer']}: no such retailer")
        champion = services.roll_back_adapter(
            brand=brand, retailer=retailer, task=options["task"], alias=options["alias"], reason=options["reason"]
        )
        serves = champion.adapter.digest if champion is not None and champion.adapter else None
        self.answer({"scope": scope_text(brand, retailer, options["task"]), "champion": serves}, options["out"])
