"""Work on feedback that outlives a request: exports."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from celery import shared_task
from django.conf import settings

from feedback import answers
from feedback.answers import Filters, Redaction
from feedback.domain import formats
from feedback.models import Export, Feedback
from rmn.lib.tasks import TenantTask

EVERY = 5000  # rows between two reports
SUFFIX = {"csv": "csv", "parquet": "parquet"}  # the others are lines of JSON
# One type for each column, whatever the first rows hold.
TABLE_TYPES: dict[str, Any] = {
    "strength": pl.Int64,
    "value": pl.Int64,
    "seconds": pl.Float64,
    "reasons": pl.List(pl.String),
}


@shared_task(base=TenantTask)
def export(run_id: str) -> None:
    """Write the answers an export asks for, and its manifest beside them."""
    run = Export.objects.select_related("brand", "requested_by").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        write(run)


def write(run: Export) -> None:
    """The work of an export, inside ``run.tracked()``; the file appears whole or not at all."""
    rows = Feedback.objects.filter(brand=run.brand)
    if run.requested_by is not None:
        rows = rows.visible_to(run.requested_by)
    total = max(rows.count(), 1)
    run.report(0.02, "Reading the answers")
    redaction = Redaction()
    told = formats.rows(_reported(run, answers.exported(rows, Filters.of(run.filters), redaction), total), run.format)
    folder = Path(settings.MEDIA_ROOT) / "exports" / str(run.pk)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"feedback.{SUFFIX.get(run.format, 'jsonl')}"
    part = path.with_suffix(".part")
    manifest = formats.Manifest()
    if run.format == "parquet":
        _parquet(part, told, manifest)
    elif run.format == "csv":
        _csv(part, told, manifest)
    else:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(manifest.line(row) for row in told)
    os.replace(part, path)
    described = manifest.row(
        format=run.format,
        brand=run.brand.slug if run.brand else None,
        filters=run.filters,
        file=path.name,
        file_sha256=_digest(path),
        bytes=path.stat().st_size,
        redactions=dict(redaction.found),
        left_out="taken back, on withdrawn drafts, gold pairs, swapped repeats",
        licence="the brand's own; not for use outside it",
        software=run.code_version or "rmn",
    )
    (folder / "manifest.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    run.rows, run.manifest = manifest.rows, described
    run.file_path = str(path.relative_to(settings.MEDIA_ROOT))
    run.save(update_fields=["rows", "manifest", "file_path"])


def _reported(run: Export, told: Iterable[formats.Answer], total: int) -> Iterator[formats.Answer]:
    for number, answer in enumerate(told):
        if number % EVERY == EVERY - 1:
            run.report(0.02 + 0.9 * number / total, f"{number + 1:,} answers")
        yield answer


def _csv(path: Path, rows: Iterable[dict[str, Any]], manifest: formats.Manifest) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)
            manifest.line(row)


def _parquet(path: Path, rows: Iterable[dict[str, Any]], manifest: formats.Manifest) -> None:
    kept = []
    for row in rows:
        manifest.line(row)
        kept.append(row)
    names = list(kept[0]) if kept else list(formats.TABLE)
    frame = pl.DataFrame(kept, schema={name: TABLE_TYPES.get(name, pl.String) for name in names}, orient="row")
    frame.write_parquet(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
