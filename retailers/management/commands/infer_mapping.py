"""Drafts a mapping for a feed nobody has mapped yet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from retailers.connectors import sources
from retailers.connectors.files import open_feed
from retailers.domain import infer
from rmn.lib.commands import RmnCommand, write_text


class Command(RmnCommand):
    help = "Draft a mapping for an unknown feed; fill in the lines that say FILL-IN, look at those that say CHECK."
    example = "infer_mapping export.csv --network mynetwork --out mynetwork.yaml"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("feed", help="the report: CSV, TSV, JSON, NDJSON, XLSX or Parquet; gzip and zip too")
        parser.add_argument("--network", help="what to call the network; from the file's name by default")
        parser.add_argument("--out", help="YAML file to write; stdout by default")

    def run(self, **options: Any) -> None:
        with (
            tempfile.TemporaryDirectory(prefix="rmn-") as scratch,
            sources.local(options["feed"], Path(scratch)) as path,
        ):
            stem = infer.plain(path.name.split(".")[0]) or "report"
            network = infer.plain(options["network"] or stem)
            with open_feed(path, infer.UNKNOWN) as feed:
                text = infer.draft(feed, network, stem)
        if options["out"]:
            write_text(Path(options["out"]), text)
        else:
            self.stdout.write(text, ending="")
