from __future__ import annotations

import hashlib
from pathlib import Path

from django.core.management.base import CommandParser

from rmn import backup
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Erase one brand: rows, files, adapters, people of it alone. The installation's audit chain keeps the proof."
    example = "erase_tenant --brand acme-corp --confirm acme-corp --export acme-corp-2026-03-01"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", required=True, help="the brand (slug)")
        parser.add_argument("--confirm", default="", help="the slug again: what goes does not come back")
        parser.add_argument("--export", default="", help="the folder that export_tenant wrote before; for the proof")
        parser.add_argument("--by", default="command line", help="who asked for it; for the proof")

    def run(self, **options: str) -> None:
        brand = backup.brand_of(options["brand"])
        if options["confirm"] != brand.slug:
            raise BadInput(f"this erases all of {brand.slug}: say so with --confirm {brand.slug}")
        digest = ""
        if options["export"]:
            saved = backup.read(Path(options["export"]))["tenant"]
            if not saved or saved["slug"] != brand.slug:
                raise BadInput(f"{options['export']}: is no export of {brand.slug}")
            digest = hashlib.sha256((Path(options["export"]) / "manifest.json").read_bytes()).hexdigest()
        self.answer(backup.erase(brand, options["by"], digest), None)
