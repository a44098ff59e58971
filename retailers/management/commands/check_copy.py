from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from retailers.domain.policy import Verdict
from retailers.services import checker
from rmn.lib.commands import RmnCommand, read_jsonl, write_jsonl
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = (
        "Check ad texts against the networks' rules and the law (JSON Lines: id, network, field, text, product, facts)."
    )
    example = "check_copy cases.jsonl --out verdicts.jsonl"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cases", help="texts to check (JSON Lines)")
        parser.add_argument("--out", help="verdicts with findings (JSON Lines; default: stdout)")

    def run(self, **options: Any) -> None:
        rows = list(read_jsonl(options["cases"]))
        check, answers = checker(None), []
        for number, row in enumerate(self.track(rows, len(rows), "texts"), 1):
            where = f"{options['cases']} line {number}"
            answers.append({**row, **verdict(row, where, check)})
        if options["out"]:
            write_jsonl(options["out"], answers)
        else:
            for row in answers:
                self.stdout.write(json.dumps(row, ensure_ascii=False))


def verdict(row: dict[str, Any], where: str, check: Callable[..., Verdict]) -> dict[str, Any]:
    """The verdict on one case.

    Raises:
        BadInput: the case lacks its text or network, or names one that is not known; with the place.
    """
    for name in ("network", "text"):
        if not isinstance(row.get(name), str):
            raise BadInput(f"{where}: {name} is missing; a case has id, network, field, text, product and facts")
    facts = row.get("facts") or {}
    if not isinstance(facts, dict):
        raise BadInput(f"{where}: facts: an object was expected")
    try:
        found = check(
            row["text"],
            network=row["network"],
            field=str(row.get("field") or "headline"),
            product=str(row.get("product") or ""),
            facts=facts,
        )
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: facts: {error}; see docs/policy.md for what they may hold") from None
    return found.row()
