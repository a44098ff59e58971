from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from retailers import audit
from retailers.models import AuditHead
from rmn.lib.commands import RmnCommand, read_json
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = (
        "Check the audit chains: rows checked, first broken row. --head compares with heads kept elsewhere;"
        " --export writes today's, signed."
    )
    example = "verify_audit --brand acme-corp"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--brand", help="one brand's chain (slug); all where absent")
        parser.add_argument(
            "--head", help="heads kept elsewhere: a file of --export, or JSON with chain, sequence, hash"
        )
        parser.add_argument(
            "--export", metavar="FOLDER", help="write the signed heads into this folder, if all is whole"
        )
        parser.add_argument("--out", help="where the answer goes (default: stdout)")

    def run(self, **options: Any) -> None:
        kept = audit.read_heads(read_json(options["head"]), options["head"]) if options["head"] else []
        chains = [options["brand"]] if options["brand"] else audit.chains()
        by_chain = {one["chain"]: one for one in kept if one.get("chain")}
        if kept and not by_chain:  # a head of no named chain: of the one asked about
            if len(chains) != 1:
                raise BadInput(f"{options['head']}: it names no chain; say which with --brand")
            by_chain = {chains[0]: kept[0]}
        if by_chain and not options["brand"]:
            chains = sorted(by_chain) if len(kept) == 1 else sorted({*chains, *by_chain})
        found = [self._verified(chain, by_chain.get(chain)) for chain in chains]
        broken = next((one for one in found if one["broken"] is not None), None)
        if options["export"] and broken is None:
            self.stderr.write(f"heads are in {audit.export_heads(Path(options['export']))}")
        self.answer(
            {
                "rows": sum(one["rows"] for one in found),
                "broken": broken,
                "chains": found,
                "heads": list(AuditHead.objects.filter(chain__in=chains).values("chain", "sequence", "hash")),
            },
            options["out"],
        )

    def _verified(self, chain: str, head: dict[str, Any] | None) -> dict[str, Any]:
        found = audit.check(chain, head)
        if head is not None and found["rows"] == 0 and audit.erased(head):
            return {**found, "broken": None, "why": "the brand was erased; the installation's chain has the proof"}
        return found
