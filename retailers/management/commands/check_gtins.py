"""Checks a column of product numbers: what each is, whether its check digit holds, its normal form."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, get_args

import polars as pl
from django.core.management.base import CommandParser

from retailers.connectors import sources
from retailers.connectors.files import open_feed
from retailers.domain import identifiers
from retailers.domain.mapping import normalise
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput

ADDED = ("gtin14", "valid", "kind", "restricted", "reason")


class Command(RmnCommand):
    help = "Check a column of GTIN, UPC, EAN or ISBN codes; the file comes back with gtin14, valid, kind, restricted, reason."
    example = "check_gtins products.csv --column upc --out checked.csv"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="table with the codes (CSV, TSV, JSON, XLSX, Parquet; gzip and zip too)")
        parser.add_argument("--column", required=True, help="name of the column that holds the codes")
        parser.add_argument("--out", required=True, help="CSV file to write")
        parser.add_argument(
            "--declared",
            choices=get_args(identifiers.Declared),
            default="any",
            help="what the column is said to hold; it settles 8 and 10 digits, which fit two kinds",
        )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="bring back a lost check digit or lost leading zeros; adds a column 'repaired'",
        )

    def run(self, **options: Any) -> None:
        column, out = options["column"], Path(options["out"])
        added = (*ADDED, "repaired") if options["repair"] else ADDED
        examine = partial(identifiers.examine, declared=options["declared"], repair=options["repair"])
        with (
            tempfile.TemporaryDirectory(prefix="rmn-") as scratch,
            sources.local(options["file"], Path(scratch)) as path,
            open_feed(path, wanted=frozenset({normalise(column)}), temporary=scratch) as feed,
        ):
            header = _find(column, feed.headers, path.name)
            # a column of the file that has one of our names stays, under another
            kept = [pl.col(name).alias(f"{name}_in" if name in added else name) for name in feed.headers]
            looked_at = (
                pl.col(header)
                .map_batches(examine, return_dtype=identifiers.RESULT, is_elementwise=True)
                .alias("__code")
            )
            frame = feed.frame.with_columns(looked_at).select(
                *kept, *[pl.col("__code").struct.field(name).alias(name) for name in added]
            )
            out.parent.mkdir(parents=True, exist_ok=True)
            part = out.with_name(f".{out.name}.part")
            try:
                frame.sink_csv(part)
                part.replace(out)
            except pl.exceptions.PolarsError as error:
                line = str(error).strip().splitlines()[0][:200]
                raise BadInput(f"{path.name}: cannot be read as a table: {line}") from None
            finally:
                part.unlink(missing_ok=True)


def _find(column: str, headers: tuple[str, ...], name: str) -> str:
    if column in headers:
        return column
    alike = [header for header in headers if normalise(header) == normalise(column)]
    if len(alike) == 1:
        return alike[0]
    shown = ", ".join(map(repr, headers[:8]))
    what = f"{len(alike)} columns fit {column!r}" if alike else f"no column {column!r}"
    raise BadInput(f"{name}: {what}; it has {shown}{' ...' if len(headers) > 8 else ''}")
