"""Reads one feed through one mapping and writes RMIS."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from retailers import services, tasks
from retailers.connectors import sources
from retailers.connectors.files import open_feed
from retailers.domain import harmonizer
from retailers.domain import mapping as mappings
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Harmonize a feed (CSV, TSV, JSON, NDJSON, XLSX, Parquet; gzip and zip too) into RMIS metrics, outcomes and quarantine."
    example = "harmonize export.csv --mapping amazon/sp_search_term --out var/out"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("feed", help="the report: CSV, TSV, JSON, NDJSON, XLSX or Parquet; gzip and zip too")
        parser.add_argument("--mapping", required=True, help="a YAML file, or network/report of a shipped mapping")
        parser.add_argument(
            "--out", help="folder for metrics.parquet, outcomes.parquet, quarantine.parquet, report.json"
        )
        parser.add_argument("--dry-run", action="store_true", help="write nothing; show samples before and after")
        parser.add_argument("--as-of", help="when the numbers were taken, ISO 8601; newer restates older")
        parser.add_argument("--period", help="START:END, for reports that carry no date")
        parser.add_argument(
            "--load", action="store_true", help="bring the rows into the database, whole file or nothing"
        )
        parser.add_argument("--retailer", help="with --load: the retailer's slug")
        parser.add_argument("--brand", help="with --load: the brand's slug")

    def run(self, **options: Any) -> None:
        mapping = mappings.load(options["mapping"])
        as_of = instant(options["as_of"]) if options["as_of"] else None
        period = days(options["period"]) if options["period"] else None
        out = Path(options["out"]) if options["out"] and not options["dry_run"] else None
        if options["load"] and not options["dry_run"]:
            self.load(mapping, out, options)
            return
        with (
            tempfile.TemporaryDirectory(prefix="rmn-") as scratch,
            sources.local(options["feed"], Path(scratch)) as path,
            open_feed(path, mapping.dialect, mapping.wanted, scratch) as feed,
        ):
            folder = out or Path(scratch) / "out"
            report = harmonizer.run(feed, mapping, folder, as_of=as_of, period=period)
            if options["dry_run"]:
                report["samples"] = harmonizer.preview(feed, folder)
        if out is None:
            self.answer(report, None)

    def load(self, mapping: mappings.MappingFile, out: Path | None, options: dict[str, Any]) -> None:
        """Keep the file, record the load, and do its work here rather than in a worker."""
        if not options["retailer"] or not options["brand"]:
            raise BadInput("--load needs --retailer SLUG and --brand SLUG")
        retailer, brand = by_slug(Retailer, options["retailer"]), by_slug(Brand, options["brand"])
        with (
            tempfile.TemporaryDirectory(prefix="rmn-") as scratch,
            sources.local(options["feed"], Path(scratch)) as path,
        ):
            if not path.is_file():
                raise BadInput(f"{path}: no such file; check the path")
            as_of = instant(options["as_of"]) if options["as_of"] else datetime.fromtimestamp(path.stat().st_mtime, UTC)
            stated = "extracted_at" in mapping.fields and not options["as_of"]
            with path.open("rb") as file:
                run = services.wish_for_load(
                    brand=brand,
                    retailer=retailer,
                    file_name=path.name,
                    chunks=iter(lambda: file.read(1 << 20), b""),
                    mapping=mappings.find(options["mapping"]).read_text(encoding="utf-8-sig"),
                    as_of=None if stated else as_of.isoformat(),
                    period=options["period"],
                )
            folder = out or Path(scratch) / "out"
            report: dict[str, Any] = {}
            with run.tracked():
                report = tasks.ingest(run, folder)
            if not report:
                run.refresh_from_db()
                raise BadInput(run.error)
        if out is None:
            self.answer(report, None)
        else:
            self.answer(report, str(out / "report.json"))


def by_slug(model: Any, slug: str) -> Any:
    row = model.objects.filter(slug=slug).first()
    if row is None:
        known = (
            ", ".join(model.objects.order_by("slug").values_list("slug", flat=True)[:8])
            or "none yet; see load_sample_data"
        )
        raise BadInput(f"no {model._meta.verbose_name} {slug!r}; there are: {known}")
    return row


def instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise BadInput(f"--as-of {text!r}: not ISO 8601; write 2026-04-15T06:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def days(text: str) -> tuple[date, date]:
    start, _, end = text.partition(":")
    try:
        found = date.fromisoformat(start), date.fromisoformat(end or start)
    except ValueError:
        raise BadInput(f"--period {text!r}: write 2026-04-01:2026-04-30") from None
    if found[1] < found[0]:
        raise BadInput(f"--period {text!r}: ends before it starts")
    return found
