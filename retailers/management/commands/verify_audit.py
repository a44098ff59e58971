from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from retailers import audit
from retailers.models import AuditHead
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = "Check the audit chains: rows checked, first broken row. --head compares with a head kept elsewhere."
    example = "verify_audit --brand acme-corp"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", help="one brand's chain (slug); all where absent")
        parser.add_argument("--head", help="a head kept elsewhere (JSON: chain, sequence, hash)")
        parser.add_argument("--out", help="where the answer goes (default: stdout)")

    def run(self, **options: Any) -> None:
        head = read_json(options["head"]) if options["head"] else None
        if head is not None and not (isinstance(head, dict) and {"sequence", "hash"} <= head.keys()):
            raise BadInput(f"{options['head']}: an object with sequence and hash was expected")
        chains = [options["brand"]] if options["brand"] else list(AuditHead.objects.values_list("chain", flat=True))
        if head is not None and head.get("chain"):
            chains = [head["chain"]]
        found = [audit.verify(chain, head) for chain in chains]
        self.answer(
            {
                "rows": sum(one["rows"] for one in found),
                "broken": next((one for one in found if one["broken"] is not None), None),
                "chains": found,
                "heads": list(AuditHead.objects.filter(chain__in=chains).values("chain", "sequence", "hash")),
            },
            options["out"],
        )
