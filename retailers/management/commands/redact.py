from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser

from retailers.models import Brand
from retailers.services import masker
from rmn.lib.commands import RmnCommand, read_jsonl, write_jsonl
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Find personal data in texts (JSON Lines) and mask it by tags keyed per brand."
    example = "redact texts.jsonl --out masked.jsonl --brand acme-corp"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("texts", help="rows with a text (JSON Lines)")
        parser.add_argument("--out", help="the rows with entities and redacted (JSON Lines; default: stdout)")
        parser.add_argument("--field", default="text", help="which field holds the text (default: text)")
        parser.add_argument("--brand", help="whose key the tags are made with (default: the installation's)")

    def run(self, **options: Any) -> None:
        brand = None
        if options["brand"]:
            brand = Brand.objects.filter(slug=options["brand"]).first()
            if brand is None:
                raise BadInput(f"--brand {options['brand']!r}: there is no such brand")
        rows = list(read_jsonl(options["texts"]))
        mask, answers = masker(brand), []
        for number, row in enumerate(self.track(rows, len(rows), "texts"), 1):
            text = row.get(options["field"])
            if not isinstance(text, str):
                raise BadInput(f"{options['texts']} line {number}: {options['field']}: a text was expected")
            found = mask(text)
            answers.append({**row, "entities": [one.row() for one in found.entities], "redacted": found.text})
        if options["out"]:
            write_jsonl(options["out"], answers)
        else:
            for row in answers:
                self.stdout.write(json.dumps(row, ensure_ascii=False))
