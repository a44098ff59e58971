from __future__ import annotations

from pathlib import Path

from django.core.management import call_command
from django.core.management.base import CommandParser

from rmn import backup
from rmn.lib.commands import RmnCommand


class Command(RmnCommand):
    help = "Restore a backup into an empty database, or one brand of it beside the others; says what was checked."
    example = "restore var/backups/20260301T020000Z --brand acme-corp"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", help="what backup or export_tenant wrote")
        parser.add_argument("--brand", default="", help="this brand alone (slug); it must not be there yet")

    def run(self, **options: str) -> None:
        call_command("migrate", verbosity=0)
        done = backup.load(Path(options["folder"]), options["brand"], say=self.stderr.write)
        self.answer(done, None)
        if done["chains"]["broken"] or done["adapters"]["broken"]:
            self.fail("restored, but not whole: see chains and adapters in the answer; try an older backup")
