from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from retailers.models import Brand
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput, RmnError
from training import services, tasks
from training.management.commands.build_dataset import named
from training.models import Withdrawal


class Command(RmnCommand):
    help = "Take a person's or a brand's answers out of all training; what rests on them is withdrawn and made anew."
    example = "unlearn --person alice --reason 'left the company' --dry-run"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--person", help="whose answers (user name)")
        parser.add_argument("--brand", help="of which brand (slug); without --person all answers of it")
        parser.add_argument("--reason", default="", help="kept in the audit chain")
        parser.add_argument("--dry-run", action="store_true", help="only list what rests on them")

    def run(self, **options: Any) -> None:
        brand = named(Brand, options["brand"], "--brand") if options["brand"] else None
        person = User.objects.filter(username=options["person"]).first() if options["person"] else None
        if options["person"] and person is None:
            raise BadInput(f"--person {options['person']!r}: there is nobody of that name")
        if brand is None and person is None:
            raise BadInput("whose answers? give --person, --brand, or both")
        if options["dry_run"]:
            found = tasks.dependants(Withdrawal(brand=brand, person=person).answers)
            self.stdout.write(f"{found.answers} answers")
            for data in found.datasets:
                self.stdout.write(f"data set {data.digest[:12]} of {data.brand or 'brands that share'}, {data.kind}")
            for version in found.adapters:
                self.stdout.write(f"version {version.digest[:12]} of {version.scope}, {version.state}")
            return
        run = services.request_withdrawal(brand=brand, person=person, reason=options["reason"])
        tasks.unlearn(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the withdrawal is {run.status}")
        told = run.result
        self.stdout.write(
            f"{told['answers']} answers, {len(told['datasets'])} data sets and {len(told['adapters'])} versions"
            f" withdrawn, {len(told['lessons'])} lessons queued"
        )
