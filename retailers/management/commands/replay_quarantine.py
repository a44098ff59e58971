"""Reads a kept file again, after its mapping was corrected."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from retailers import services, tasks
from retailers.domain import mapping as mappings
from retailers.models import FeedLoad, QuarantinedRow
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Load a kept file again under a corrected mapping; rows it takes now leave the quarantine."
    example = "replay_quarantine --brand acme-corp --file 3d9118ef --mapping corrected.yaml"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True, help="the brand's slug")
        parser.add_argument("--file", required=True, help="SHA-256 of the file, or its first eight digits or more")
        parser.add_argument("--mapping", help="a YAML file or a shipped name; the one it was loaded with by default")

    def run(self, **options: Any) -> None:
        if len(options["file"]) < 8:
            raise BadInput(f"--file {options['file']!r}: give at least the first eight digits of the SHA-256")
        found = FeedLoad.objects.filter(
            brand__slug=options["brand"], file_sha256__startswith=options["file"].lower()
        ).order_by("-created_at")
        load = found.first()
        if load is None:
            raise BadInput(
                f"no file {options['file']} was loaded for brand {options['brand']!r}; see the feeds in the console"
            )
        text = mappings.find(options["mapping"]).read_text(encoding="utf-8-sig") if options["mapping"] else None
        rows = QuarantinedRow.objects.open().filter(brand=load.brand, file_sha256=load.file_sha256)
        before = rows.count()
        run = services.again(load=load, mapping=text)
        report: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="rmn-") as scratch, run.tracked():
            report = tasks.ingest(run, Path(scratch) / "out")
        if not report:
            run.refresh_from_db()
            raise BadInput(run.error)
        still = rows.count()
        self.answer(
            {**report, "replay": {"open_before": before, "open_after": still, "answered": max(before - still, 0)}}, None
        )
