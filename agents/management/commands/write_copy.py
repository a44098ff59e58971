from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from agents import creative, serving
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand, write_text
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = (
        "Write ad headlines for a product through the brand's adapter; only what passes the network's rules is offered."
    )
    example = 'write_copy --brand acme-corp --retailer retailer-abc --product "Sparkling Water" --feature "no sugar" --out copy.json'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True, help="for whom (slug)")
        parser.add_argument("--retailer", required=True, help="where it will stand (slug)")
        parser.add_argument(
            "--product", required=True, help="its name or SKU; the catalogue's facts are used where it is known"
        )
        parser.add_argument("--feature", default="", help="what to speak of")
        parser.add_argument("--variants", type=int, default=5, help=f"how many, at most {creative.MOST_VARIANTS}")
        parser.add_argument("--out", help="where they go (default: stdout)")

    def run(self, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        shop = Retailer.objects.filter(slug=options["retailer"]).first()
        for name, row in (("brand", brand), ("retailer", shop)):
            if row is None:
                raise BadInput(f"--{name} {options[name]!r}: there is no such {name}")
        assert brand is not None  # noqa: S101  # checked above
        assert shop is not None  # noqa: S101
        # what is wrong with the wish is said before a model is started
        creative.brief(brand=brand, retailer=shop, product=options["product"], feature=options["feature"])
        with serving.inference() as client:
            found = creative.write(
                client,
                brand=brand,
                retailer=shop,
                product=options["product"],
                feature=options["feature"],
                variants=options["variants"],
            )
        text = json.dumps({"variants": found}, ensure_ascii=False, indent=1)
        if options["out"]:
            write_text(Path(options["out"]), text)
        else:
            self.stdout.write(text)
