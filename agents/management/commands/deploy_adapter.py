from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from agents import services, serving, tasks
from agents.models import AdapterAlias
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import RmnError


class Command(RmnCommand):
    help = "Load an adapter version on the model server, prove that it acts as trained, and give it an alias."
    example = "deploy_adapter 3f9a1c --alias challenger --share 0.1"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", help="the version's digest (or its beginning) or UUID")
        parser.add_argument("--alias", default="champion", choices=["champion", "challenger", "shadow"])
        parser.add_argument("--share", type=float, default=None, help="of campaigns, for a challenger (0.1)")
        parser.add_argument("--out", help="write the result here instead of stdout")

    def run(self, **options: Any) -> None:
        adapter = serving.find(options["version"])
        share = options["share"] if options["share"] is not None else (0.1 if options["alias"] == "challenger" else 1.0)
        run = services.wish_for_deployment(adapter=adapter, alias=options["alias"], share=share)
        tasks.deploy(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"{adapter}: {run.status}")
        alias = AdapterAlias.objects.get(scope=adapter.scope, name=options["alias"])
        self.answer(
            {
                "digest": adapter.digest,
                "scope": adapter.scope,
                "stage": alias.name,
                "share": alias.share,
                "proof": run.proof,
                "reason": alias.reason,
                "run": str(run.pk),
            },
            options["out"],
        )
