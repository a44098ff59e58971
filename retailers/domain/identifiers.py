"""Product numbers: GTIN-8, UPC-A, UPC-E, EAN-13, GTIN-14, ISBN, PLU, ASIN; check digits and normal form.

The normal form is the GTIN-14, padded with zeros; only zeros are ever added or dropped. A case
(indicator 1 to 8) is another trade item than what it contains: linked, never merged. All work is on
whole columns with integer arithmetic.

Source: GS1 General Specifications (check digit, section 7.9; UPC-E, section 5.2; restricted
circulation numbers, section 2.1), ISBN Users' Manual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

KINDS = ("gtin8", "upc_a", "upc_e", "ean13", "gtin14", "isbn", "plu", "unknown")
RESULT = pl.Struct(
    {
        "gtin14": pl.String,
        "valid": pl.Boolean,
        "kind": pl.String,
        "restricted": pl.Boolean,
        "reason": pl.String,
        "repaired": pl.Boolean,
    }
)
# Right check digits and yet nobody's product: typed in to get past a form.
PLACEHOLDERS = (0, 123456789012, 1234567890128, 12345678901231, 1234567890012, 111111111117, 999999999993)
Declared = Literal["any", "gtin", "upc", "ean", "isbn"]


# Of four digits, their sum with weights 1, 3, 1, 3 from the right: a check by table, four digits at a time.
_FOUR = np.arange(10_000)
_WEIGHED = (_FOUR % 10 + _FOUR // 10 % 10 * 3 + _FOUR // 100 % 10 + _FOUR // 1000 * 3).astype(np.uint8)
_PREFIX = np.arange(1000)  # the first three digits of the 13-digit form
_RESTRICTED = (
    ((_PREFIX >= 20) & (_PREFIX <= 29))
    | ((_PREFIX >= 40) & (_PREFIX <= 59))
    | ((_PREFIX >= 200) & (_PREFIX <= 299))
    | ((_PREFIX >= 980) & (_PREFIX <= 999))
)


def digit(number: pl.Expr, place: int) -> pl.Expr:
    """The decimal digit at 10**place."""
    return (number // 10**place) % 10


def check_digit_holds(number: pl.Expr) -> pl.Expr:
    """Whether a GTIN of any length, as an integer, carries its GS1 check digit.

    From the right, the check digit weighs 1, its neighbour 3, and so on; the sum ends in 0.
    """
    total = digit(number, 0)
    for place in range(1, 14):
        total = total + digit(number, place) * (3 if place % 2 else 1)
    return total % 10 == 0


def check_digit(body: pl.Expr) -> pl.Expr:
    """The check digit for a body without one (the digit beside it weighs 3)."""
    total = digit(body, 0) * 3
    for place in range(1, 13):
        total = total + digit(body, place) * (1 if place % 2 else 3)
    return (10 - total % 10) % 10


def _upc_e_to_upc_a(number: pl.Expr) -> pl.Expr:
    """UPC-E (8 digits: system, d1..d6, check) as the UPC-A it abbreviates."""
    system, check = digit(number, 7), digit(number, 0)
    d1, d2, d3, d4, d5, d6 = (digit(number, place) for place in range(6, 0, -1))

    def eleven(*digits: pl.Expr | int) -> pl.Expr:
        value: pl.Expr = pl.lit(0, dtype=pl.Int64)
        for part in digits:
            value = value * 10 + part
        return value

    manufacturer = (
        pl.when(d6 <= 2)
        .then(eleven(system, d1, d2, d6, 0, 0, 0, 0, d3, d4, d5))
        .when(d6 == 3)
        .then(eleven(system, d1, d2, d3, 0, 0, 0, 0, 0, d4, d5))
        .when(d6 == 4)
        .then(eleven(system, d1, d2, d3, d4, 0, 0, 0, 0, 0, d5))
        .otherwise(eleven(system, d1, d2, d3, d4, d5, 0, 0, 0, 0, d6))
    )
    return manufacturer * 10 + check


def _isbn10(text: pl.Expr, number: pl.Expr, ends_in_x: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Whether an ISBN-10's check character holds, and its ISBN-13 as an integer."""
    body = pl.when(ends_in_x).then(text.str.slice(0, 9).cast(pl.Int64, strict=False)).otherwise(number // 10)
    last = pl.when(ends_in_x).then(10).otherwise(number % 10)
    total = last
    for place in range(9):
        total = total + digit(body, place) * (place + 2)
    thirteen = (pl.lit(978, dtype=pl.Int64) * 10**9 + body) * 10
    return total % 11 == 0, thirteen + check_digit(thirteen // 10)


def examine(codes: pl.Series, declared: Declared = "any", repair: bool = False) -> pl.Series:
    """What each code is: a struct of gtin14, valid, kind, restricted, reason and repaired.

    Args:
        codes: text as written; blanks, hyphens and a trailing '.0' from a spreadsheet are dropped.
        declared: what the column is said to hold; it settles 8 and 10 digits, which fit two kinds.
        repair: whether 11 digits may get their lost check digit, and lost leading zeros come back;
            ``repaired`` then says so. Only a reading whose check digit holds is taken.

    ``restricted`` marks numbers that mean another product elsewhere (variable measure, in-store,
    coupons, company-internal): key them with their retailer. Null codes stay null.
    """
    if not len(codes):
        return pl.Series(codes.name, [], dtype=RESULT)
    text = codes.cast(pl.String)
    number, size = text.cast(pl.Int64, strict=False), text.str.len_bytes().cast(pl.Int64)
    long = (size.is_between(12, 14) & (number >= SHORTEST_LONG) & ~text.str.starts_with("+")).fill_null(value=False)
    if long.all():
        return _examine_long(text, number, size).alias(codes.name)
    if not long.any():
        return _examine_any(text, declared, repair).alias(codes.name)
    parts = [
        _examine_long(text.filter(long), number.filter(long), size.filter(long)),
        _examine_any(text.filter(~long), declared, repair),
    ]
    order = pl.concat([long.arg_true(), (~long).arg_true()])
    return pl.concat(parts).gather(order.arg_sort()).alias(codes.name)


def examine_one(code: str, declared: Declared = "any") -> dict[str, Any]:
    """``examine`` of a single code."""
    found: dict[str, Any] = examine(pl.Series([code]), declared)[0]
    return found


SHORTEST_LONG = 100_000  # below it a number padded with zeros may be a PLU


def _examine_long(text: pl.Series, number: pl.Series, size: pl.Series) -> pl.Series:
    """Codes of 12 to 14 digits, the bulk of any file, with arithmetic on whole arrays."""
    value, width = number.to_numpy(), size.to_numpy()
    total, rest = np.zeros(len(value), np.uint8), value
    for _ in range(4):
        rest, four = np.divmod(rest, 10_000)
        total += _WEIGHED[four]
    holds = total % 10 == 0
    thirteen = value % 10**13
    placeholder = np.isin(value, PLACEHOLDERS)
    restricted = holds & (_RESTRICTED[thirteen // 10**10] | (thirteen < 10**7))
    book = (width == 13) & (value >= 9780000000000) & ((value < 9790000000000) | (value > 9790999999999))
    book &= value <= 9799999999999
    valid = holds & ~placeholder
    frame = pl.DataFrame(
        {
            "text": text,
            "valid": valid,
            "restricted": restricted,
            "kind": np.where(book, 3, width - 12),
            "case": (width == 14) & (value >= 10**13) & (value < 9 * 10**13),
            "holds": holds,
        }
    )
    good = pl.col("valid")
    kinds = pl.Series(["upc_a", "ean13", "gtin14", "isbn"])
    return frame.select(
        gtin14=pl.when(good).then(pl.col("text").str.zfill(14)),
        valid=good,
        kind=pl.lit(kinds).gather(pl.col("kind")),
        restricted="restricted",
        reason=pl.when(~pl.col("holds"))
        .then(pl.lit("the check digit is wrong"))
        .when(~good)
        .then(pl.lit("a placeholder, not a product"))
        .when("restricted")
        .then(pl.lit("restricted circulation: means this product at one retailer only"))
        .when("case")
        .then(pl.lit("a case or pack: another trade item than what it contains")),
        repaired=pl.lit(value=False),
    ).to_struct(text.name)


def _examine_any(codes: pl.Series, declared: Declared, repair: bool) -> pl.Series:
    """Codes of any length, and what is no code."""
    text = pl.col("text")
    frame = pl.DataFrame({"text": codes})
    plain = frame["text"].str.contains(r"^[0-9]{1,18}$")
    if not (plain | frame["text"].is_null()).all():
        cleaned = (
            text.str.strip_chars()
            .str.to_uppercase()
            .str.replace_all(r"[\s\-\u2010-\u2015]", "")
            .str.replace(r"^(\d+)\.0+$", "$1")
        )
        frame = frame.with_columns(text=cleaned)
    number = pl.col("number")
    frame = frame.with_columns(
        number=text.str.extract(r"^(\d{1,18})$", 1).cast(pl.Int64, strict=False)
        if not plain.all()
        else text.cast(pl.Int64),
        size=text.str.len_bytes().cast(pl.Int64),
    )
    size, x = pl.col("size"), text.str.contains(r"^\d{9}X$")
    isbn_ok, isbn13 = _isbn10(text, number, x)
    upc_a = _upc_e_to_upc_a(number)
    frame = frame.with_columns(
        holds=check_digit_holds(number),
        e_holds=(digit(number, 7) <= 1) & check_digit_holds(upc_a),
        e_upc=upc_a,
        isbn_holds=((size == 10) & isbn_ok).fill_null(value=False),
        isbn13=isbn13,
        plu=(size <= 14)
        & (number.is_between(3000, 4999) | number.is_between(83000, 84999) | number.is_between(93000, 94999)),
    )
    holds, e_holds = pl.col("holds"), pl.col("e_holds")
    is_plu = pl.col("plu") & (~holds | (size <= 5))
    two_readings = (size == 8) & holds & e_holds if declared == "any" else pl.lit(value=False)
    reads_e = (size == 8) & e_holds & (~holds | pl.lit(declared == "upc"))
    as_isbn = pl.col("isbn_holds") & pl.lit(declared in ("any", "isbn"))
    book = (
        (size == 13)
        & number.is_between(9780000000000, 9799999999999)
        & ~number.is_between(9790000000000, 9790999999999)
    )
    # lost by a spreadsheet: leading zeros (the check digit still holds), or the check digit itself
    padded = (size.is_between(6, 7) | size.is_between(9, 11)) & holds & ~as_isbn
    without_check = (size == 11) & ~holds & ~as_isbn
    full = number * 10 + check_digit(number)
    normal = pl.when(as_isbn).then("isbn13").when(reads_e).then("e_upc").otherwise("number")
    repaired = (padded | without_check) if repair else pl.lit(value=False)
    normal = pl.when(without_check).then(full).otherwise(normal) if repair else normal
    right = (
        pl.when(is_plu | two_readings)
        .then(statement=False)
        .when(as_isbn | reads_e)
        .then(statement=True)
        .when(size.is_in([8, 12, 13, 14]))
        .then(holds)
        .otherwise(repaired)
    )
    kind = (
        pl.when(is_plu)
        .then(pl.lit("plu"))
        .when(as_isbn | book)
        .then(pl.lit("isbn"))
        .when(two_readings)
        .then(pl.lit("unknown"))
        .when(reads_e)
        .then(pl.lit("upc_e"))
        .when(size == 8)
        .then(pl.lit("gtin8"))
        .when(size == 12)
        .then(pl.lit("upc_a"))
        .when(size == 13)
        .then(pl.lit("ean13"))
        .when(size == 14)
        .then(pl.lit("gtin14"))
        .when(repaired)
        .then(pl.lit("upc_a"))
        .otherwise(pl.lit("unknown"))
    )
    frame = frame.with_columns(
        normal=normal, right=right & number.is_not_null() | as_isbn, kind=kind, repaired=repaired
    )
    value = pl.col("normal")
    placeholder = value.is_in(list(PLACEHOLDERS))
    # as a 13-digit number; a case carries its item's prefix behind the indicator
    thirteen = value % 10**13
    p3 = thirteen // 10**10
    restricted = (
        pl.when(size == 8)
        .then(~reads_e & (digit(number, 7).is_in([0, 2])))
        .otherwise(
            p3.is_between(20, 29)
            | p3.is_between(40, 59)
            | p3.is_between(200, 299)
            | p3.is_between(980, 999)
            | (thirteen // 10**7 == 0)
        )
    )
    frame = frame.with_columns(
        valid=pl.col("right") & ~placeholder,
        restricted=(restricted & pl.col("right")).fill_null(value=False),
        placeholder=placeholder,
    )
    reason = (
        pl.when(text.is_null() | (text == ""))
        .then(pl.lit("empty"))
        .when(pl.col("kind") == "plu")
        .then(pl.lit("a produce code (PLU), not a GTIN"))
        .when(number.is_null() & ~as_isbn)
        .then(pl.lit("not a number of 8 to 14 digits"))
        .when(pl.col("right") & pl.col("placeholder"))
        .then(pl.lit("a placeholder, not a product"))
        .when(pl.col("valid") & pl.col("restricted"))
        .then(pl.lit("restricted circulation: means this product at one retailer only"))
        .when(pl.col("valid") & (pl.col("kind") == "gtin14") & (number // 10**13).is_between(1, 8))
        .then(pl.lit("a case or pack: another trade item than what it contains"))
        .when(pl.col("valid") & pl.col("repaired"))
        .then(pl.lit("repaired: zeros or the check digit were lost"))
        .when(pl.col("valid"))
        .then(None)
        .when((size == 8) & holds & e_holds)
        .then(pl.lit("ambiguous: right as a GTIN-8 and as a UPC-E; declare the column's type"))
        .when(padded)
        .then(pl.format("{} digits: leading zeros were lost; allow repair", size))
        .when(size == 11)
        .then(pl.lit("11 digits: a UPC without its check digit, perhaps; allow repair"))
        .when(~size.is_in([8, 12, 13, 14]))
        .then(pl.format("{} digits: a GTIN has 8, 12, 13 or 14", size))
        .otherwise(pl.lit("the check digit is wrong"))
    )
    out = frame.select(
        gtin14=pl.when("valid").then(value.cast(pl.String).str.zfill(14)),
        valid=pl.col("valid").fill_null(value=False),
        kind="kind",
        restricted="restricted",
        reason=reason,
        repaired=(pl.col("repaired") & pl.col("valid")).fill_null(value=False),
    )
    return out.to_struct(codes.name)


def inner_item(gtin14: str) -> str | None:
    """The GTIN-14 of what a case (indicator 1 to 8) contains; None for an item itself.

    Digits 2 to 13 stay, the indicator becomes 0 and the check digit is computed again:
    10054800351838 contains 00054800351831.
    """
    if len(gtin14) != 14 or not gtin14.isdigit() or gtin14[0] not in "12345678":
        return None
    body = gtin14[1:13]
    total = sum(int(sign) * (3 if place % 2 == 0 else 1) for place, sign in enumerate(reversed(body)))
    return f"0{body}{(10 - total % 10) % 10}"


@dataclass(frozen=True)
class Claim:
    """One source says that a product goes by this number; ``scope``: at one retailer, or '-' in the world."""

    sku: str
    id_type: str
    id_value: str
    source: str
    confidence: float = 1.0
    scope: str = "-"


@dataclass(frozen=True)
class Conflict:
    """One number that several products claim, for a person to settle."""

    id_type: str
    id_value: str
    skus: tuple[str, ...]
    sources: tuple[str, ...]
    note: str
    scope: str = "-"


def crosswalk(claims: list[Claim]) -> tuple[list[Claim], list[Conflict]]:
    """The claims that stand, best source first, and those that a person must settle.

    One product may have many numbers (a UPC at two retailers, two ASINs for a multipack): no
    conflict. One number for two products is one, except where a clearly surer source decides
    (0.2 more confidence).
    """
    by_number: dict[tuple[str, str, str], list[Claim]] = {}
    for claim in claims:
        by_number.setdefault((claim.scope, claim.id_type, claim.id_value), []).append(claim)
    standing: list[Claim] = []
    conflicts: list[Conflict] = []
    for (scope, id_type, id_value), group in sorted(by_number.items()):
        group = sorted(group, key=lambda claim: (-claim.confidence, claim.source, claim.sku))
        skus = tuple(dict.fromkeys(claim.sku for claim in group))
        rivals = [claim for claim in group if claim.sku != group[0].sku]
        if not rivals or group[0].confidence - rivals[0].confidence >= 0.2:
            standing.append(group[0])
            continue
        sources = tuple(dict.fromkeys(claim.source for claim in group))
        conflicts.append(
            Conflict(
                id_type, id_value, skus, sources, f"{len(skus)} products claim it; choose one or mark a pack", scope
            )
        )
    return standing, conflicts
