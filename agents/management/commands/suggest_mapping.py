"""Drafts a mapping, with suggestions of the retailer's adapter where no rule knows a column."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from agents import columns, serving
from agents.domain.columns import Column
from retailers.connectors import sources
from retailers.connectors.files import open_feed
from retailers.domain import infer
from retailers.models import Retailer
from rmn.lib.commands import RmnCommand, write_text
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Draft a mapping as infer_mapping does; columns that no rule knows get a suggestion to look at."
    example = "suggest_mapping export.csv --retailer retailer-abc --out abc.yaml"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("feed", help="file, or an https:// or s3:// address")
        parser.add_argument("--retailer", required=True, help="whose adapter is asked (slug)")
        parser.add_argument("--out", help="YAML file to write; stdout by default")

    def run(self, **options: Any) -> None:
        retailer = Retailer.objects.filter(slug=options["retailer"]).first()
        if retailer is None:
            raise BadInput(f"--retailer {options['retailer']!r}: there is no such retailer")
        adapter = columns.reader_of(retailer)

        def ask(left: list[infer.Column]) -> Mapping[str, str]:
            wanted = [Column(one.header, tuple(one.values[:3])) for one in left]
            with serving.inference() as client:
                return {one.header: one.field for one in columns.suggest(client, adapter, wanted) if one.field}

        with (
            tempfile.TemporaryDirectory(prefix="rmn-") as scratch,
            sources.local(options["feed"], Path(scratch)) as path,
            open_feed(path) as feed,
        ):
            text = infer.draft(feed, retailer.network, path.name.split(".")[0] or "report", ask)
        text = f"# Lines with SUGGESTED: adapter {adapter.digest[:12]}, {columns.how_sure(adapter)}.\n{text}"
        if options["out"]:
            write_text(Path(options["out"]), text)
        else:
            self.stdout.write(text, ending="")
