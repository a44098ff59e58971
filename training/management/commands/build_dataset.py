from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand, write_jsonl, write_text
from rmn.lib.errors import BadInput, RmnError
from training import services, tasks
from training.domain.formats import FORMATS, shaped


class Command(RmnCommand):
    help = "Turn a brand's feedback into training rows: curated, masked, split without leaks, with a manifest."
    example = "build_dataset --brand acme-corp --task creative --kind dpo --out sets/creative"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True, help="whose feedback (slug)")
        parser.add_argument("--retailer", help="only feedback at this retailer (slug)")
        parser.add_argument("--task", required=True, help=f"one of {', '.join(Task.values)}")
        parser.add_argument("--kind", required=True, help="sft, dpo or kto")
        parser.add_argument(
            "--min-agreement", dest="min_agreement", type=float, default=0.0, help="of people, 0 to 1 (default 0)"
        )
        parser.add_argument("--format", default="trl", help=f"one of {', '.join(FORMATS)} (default: trl)")
        parser.add_argument("--out", required=True, help="folder for train.jsonl, eval.jsonl, manifest.json")

    def run(self, **options: Any) -> None:
        if options["format"] not in FORMATS:
            raise BadInput(f"--format {options['format']!r}: one of {', '.join(FORMATS)}")
        brand = named(Brand, options["brand"], "--brand")
        retailer = named(Retailer, options["retailer"], "--retailer") if options["retailer"] else None
        run = services.wish_for_dataset(
            brand=brand,
            retailer=retailer,
            task=options["task"],
            kind=options["kind"],
            min_agreement=options["min_agreement"],
        )
        tasks.build_dataset(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the data set is {run.status}")
        out = Path(options["out"])
        folder = Path(settings.MEDIA_ROOT) / run.path
        (out / "people.jsonl").unlink(missing_ok=True)  # of an older set: nobody is held out where few people answered
        for name, rows in tasks.read(folder).items():
            write_jsonl(out / f"{name}.jsonl", (shaped(row, options["format"]) for row in rows))
        told = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        write_text(
            out / "manifest.json", json.dumps({**told, "format": options["format"]}, indent=1, sort_keys=True) + "\n"
        )
        self.stdout.write(
            f"{run.rows_train} rows to train, {run.rows_eval} to evaluate, digest {run.digest[:12]}: {out}"
        )


def named(model: Any, slug: str, option: str) -> Any:
    """The row of that slug.

    Raises:
        BadInput: there is none.
    """
    row = model.objects.filter(slug=slug).first()
    if row is None:
        raise BadInput(f"{option} {slug!r}: there is no such {model._meta.verbose_name}")
    return row
