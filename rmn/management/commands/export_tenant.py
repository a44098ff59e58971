from __future__ import annotations

from pathlib import Path

from django.core.management.base import CommandParser

from rmn import backup
from rmn.lib.commands import RmnCommand


class Command(RmnCommand):
    help = "Save one brand's rows, files and adapters to a folder: to hand over, or to restore it alone."
    example = "export_tenant --brand acme-corp --to acme-corp-2026-03-01"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True, help="the brand (slug)")
        parser.add_argument("--to", required=True, help="a new folder")

    def run(self, **options: str) -> None:
        manifest = backup.dump(Path(options["to"]), backup.brand_of(options["brand"]), say=self.stderr.write)
        tables = {label: told["rows"] for label, told in manifest["tables"].items()}
        self.answer({"folder": options["to"], "rows": tables, "files": len(manifest["files"])}, None)
