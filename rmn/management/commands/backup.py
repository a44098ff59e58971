from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from rmn import backup
from rmn.lib.commands import RmnCommand


class Command(RmnCommand):
    help = "Save the whole installation to a folder: rows, files, adapters. Writing goes on meanwhile."
    example = "backup --to /mnt/backups/tonight --keep 14"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--to", help="a new folder (default: var/backups/<instant>)")
        parser.add_argument("--keep", type=int, default=0, help="keep this many of the newest beside it (default: all)")

    def run(self, **options: object) -> None:
        stamp = timezone.now().strftime("%Y%m%dT%H%M%SZ")
        folder = Path(str(options["to"] or settings.VAR / "backups" / stamp))
        manifest = backup.dump(folder, say=self.stderr.write)
        keep = int(str(options["keep"]))
        older = sorted(path.parent for path in folder.parent.glob("*/manifest.json"))[:-keep] if keep > 0 else []
        for path in older:
            shutil.rmtree(path)
        rows = sum(told["rows"] for told in manifest["tables"].values())
        self.answer(
            {"folder": str(folder), "rows": rows, "files": len(manifest["files"]), "chains": len(manifest["heads"]), "removed": len(older)},
            None,
        )  # fmt: skip
