"""What a connector hands over: a feed opened as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

ROW = "__row__"  # the record's number in the file
OVERFLOW = "__overflow__"  # what stands beyond the last column; '' where the width is right

NO_ROWS: pl.Series = pl.Series([], dtype=pl.Int64)


@dataclass(frozen=True)
class Feed:
    """A feed as text columns with row numbers, not yet read into memory.

    Attributes:
        name: what to call it in messages.
        frame: lazy; all columns String, plus ``ROW`` (Int64). In CSV files the number is that of the
            record in the file with title and header lines counted (the row a spreadsheet shows); in
            nested and columnar files the record's own number from 1.
        headers: the text columns, in order.
        sha256: of the file as delivered.
        bytes: its size.
        modified_at: its modification time, aware.
        preamble: lines above the header, for what they state (currency, account, time of extract).
        short_rows: numbers of records with too few cells, found only when asked for.
        ragged: whether the format has a row width that can be broken (CSV).
        details: how it was read (format, delimiter, header row, sheet), for the report.
    """

    name: str
    frame: pl.LazyFrame
    headers: tuple[str, ...]
    sha256: str
    bytes: int
    modified_at: datetime
    preamble: tuple[str, ...] = ()
    short_rows: Callable[[], pl.Series] = field(default=lambda: NO_ROWS)
    ragged: bool = False
    details: dict[str, Any] = field(default_factory=dict)
