"""Says what is wrong with a mapping before a feed does."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from retailers.domain import mapping as mappings
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput


class Command(RmnCommand):
    help = (
        "Check a mapping: its form, and what a careful colleague would question. Exit 2 on an error, 0 with warnings."
    )
    example = "lint_mapping my_network.yaml"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("mapping", help="a YAML file, or network/report of a shipped mapping")

    def run(self, **options: Any) -> None:
        mapping = mappings.load(options["mapping"])
        findings = mappings.lint(mapping)
        errors = [finding for finding in findings if finding.severity == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
            raise BadInput(f"{options['mapping']}: {errors[0].place}: {errors[0].message}{more}")
        result = {
            "mapping": mapping.version_text,
            "key": list(mapping.key_fields),
            "warnings": [{"place": finding.place, "message": finding.message} for finding in findings],
        }
        self.answer(result, None)
