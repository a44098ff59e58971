"""A brand's product file: its products, the numbers they go by, and what of it cannot be taken.

Check digits are tried as in a feed; a lost zero or check digit comes back only where that is
allowed, and is told. A case is another trade item than what it contains: linked, never merged.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl

from retailers.domain import identifiers, parsing, rmis
from retailers.domain.feed import OVERFLOW, ROW, Feed
from retailers.domain.identifiers import Claim
from retailers.domain.mapping import normalise
from rmn.lib.errors import BadInput

NAME = "catalogue"  # chosen where a report's mapping is
VERSION = "catalogue/skus@1"
MOST = 500_000  # products in one file
# Headers as they are met, in their normalised form; the first that is there is taken.
ALIASES: dict[str, tuple[str, ...]] = {
    "sku": ("sku", "skuid", "skucode", "sellersku", "itemsku", "productcode", "productsku", "articlenumber", "article", "materialnumber", "partnumber"),
    "name": ("name", "productname", "itemname", "title", "producttitle", "itemtitle", "description", "productdescription"),
    "gtin": ("gtin", "gtin14", "gtin13", "gtin12", "barcode", "productbarcode", "globaltradeitemnumber"),
    "upc": ("upc", "upca", "upccode", "upcnumber", "unitupc"),
    "ean": ("ean", "ean13", "eancode"),
    "isbn": ("isbn", "isbn13", "isbn10"),
    "case_gtin": ("casegtin", "caseupc", "casegtin14", "packgtin", "cartongtin", "itf14", "caseean", "outergtin"),
    "asin": ("asin",),
    "retailer_sku": ("retailersku", "itemid", "itemnumber", "walmartitemid", "tcin", "productid", "retaileritemid"),
    "plu": ("plu", "plucode"),
    "department": ("department",),
    "category": ("category", "productcategory"),
    "product_type": ("producttype", "type", "subcategory"),
    "package_size": ("packagesize", "size", "packsize", "netcontent"),
    "price": ("price", "listprice", "retailprice", "unitprice", "msrp"),
    "currency": ("currency", "currencycode", "pricecurrency"),
    "margin": ("margin", "grossmargin"),
}  # fmt: skip
DECLARED: dict[str, identifiers.Declared] = {
    "gtin": "any",
    "upc": "upc",
    "ean": "ean",
    "isbn": "isbn",
    "case_gtin": "gtin",
}
LENGTHS = {"sku": 80, "name": 240, "department": 120, "category": 120, "product_type": 120, "package_size": 60, "asin": 80, "retailer_sku": 80, "plu": 80}  # fmt: skip
TEXTS = ("name", "department", "category", "product_type", "package_size")
SURE, REPAIRED = 0.75, 0.65  # below what a person says by more than the 0.2 that decides
WANTED = frozenset(alias for aliases in ALIASES.values() for alias in aliases)


@dataclass(frozen=True)
class Product:
    """One row: the brand's code, and what else the row states; an empty cell states nothing."""

    sku: str
    row_number: int
    values: dict[str, Any]
    raw: dict[str, str]


@dataclass
class Catalogue:
    """What a product file holds.

    Attributes:
        claims: which number is whose, by this file.
        refused: row_number, column, rule, message and raw of each row that is not taken.
        repaired: (row, column, as written, GTIN-14) of numbers that were brought back.
        packs: (SKU, case, what the case contains) of cases that were linked.
        columns: field to header.
        unread: headers that nobody reads.
    """

    products: list[Product] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    repaired: list[tuple[int, str, str, str]] = field(default_factory=list)
    packs: list[tuple[str, str, str]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def columns(headers: tuple[str, ...], name: str) -> dict[str, str]:
    """Field to header.

    Raises:
        BadInput: without a SKU and a name no row is a product.
    """
    plain = {normalise(header): header for header in reversed(headers)}
    found = {key: next((plain[a] for a in aliases if a in plain), "") for key, aliases in ALIASES.items()}
    missing = [key for key in ("sku", "name") if not found[key]]
    if missing:
        raise BadInput(
            f"{name}: no column for {' and '.join(missing)}; it has {', '.join(headers[:8])}: name one 'sku' and one 'name'"
        )
    return {key: header for key, header in found.items() if header}


def read(
    feed: Feed, *, source: str, retailer: str, repair: bool = False, known: dict[str, str] | None = None
) -> Catalogue:
    """A product file row by row.

    Args:
        source: what the claims are put down to.
        retailer: slug of the retailer whose item ids these are; ASINs and restricted numbers too.
        repair: whether lost zeros and check digits may come back.
        known: GTIN-14 to SKU of products that stand already, so that a case finds its item.

    Raises:
        BadInput: no columns for SKU and name, or more rows than a catalogue has.
    """
    out = Catalogue(columns=columns(feed.headers, feed.name))
    out.unread = [header for header in feed.headers if header not in out.columns.values()]
    table = feed.frame.head(MOST + 1).collect()
    if table.height > MOST:
        raise BadInput(f"{feed.name}: more than {MOST:,} products; split the file")
    short = set(feed.short_rows().to_list()) if feed.ragged else set()
    looked = {
        key: identifiers.examine(_filled(table[out.columns[key]]), DECLARED[key], repair).to_list()
        for key in DECLARED
        if key in out.columns
    }
    prices = (
        parsing.numbers(table[out.columns["price"]], parsing.NumberStyle()).to_list() if "price" in out.columns else []
    )
    seen: dict[str, dict[str, str]] = {}
    for place, cells in enumerate(table.iter_rows(named=True)):
        raw = {header: cells[header] or "" for header in feed.headers}
        if not any(value.strip() for value in raw.values()):
            continue
        number = int(cells[ROW])
        codes = {key: found[place] for key, found in looked.items()}
        wrong = _wrong_width(cells, number, short) if feed.ragged else None
        wrong = wrong or _wrong(raw, out.columns, codes, prices[place] if prices else None, seen)
        if wrong is not None:
            column, rule, message = wrong
            out.refused.append(
                {"row_number": number, "column": column, "rule": rule, "message": message, "raw": json.dumps(raw, ensure_ascii=False)}
            )  # fmt: skip
            continue
        _take(out, raw, number, codes, prices[place] if prices else None, source, retailer)
        seen[_cell(raw, out.columns, "sku")] = raw
    _link_cases(out, source, known or {})
    return out


def _filled(codes: pl.Series) -> pl.Series:
    trimmed = codes.str.strip_chars()
    return pl.select(pl.when(pl.lit(trimmed) != "").then(pl.lit(trimmed))).to_series().alias(codes.name)


def _cell(raw: dict[str, str], columns: dict[str, str], key: str) -> str:
    return raw[columns[key]].strip() if key in columns else ""


def _wrong_width(cells: dict[str, Any], number: int, short: set[int]) -> tuple[str, str, str] | None:
    if cells.get(OVERFLOW):
        return "", "row_width", "more cells than the header has columns"
    return ("", "row_width", "fewer cells than the header has columns") if number in short else None


def _wrong(
    raw: dict[str, str],
    columns: dict[str, str],
    codes: dict[str, dict[str, Any]],
    price: dict[str, Any] | None,
    seen: dict[str, dict[str, str]],
) -> tuple[str, str, str] | None:
    """Column, rule and message of the first reason not to take a row."""
    for key in ("sku", "name"):
        if not _cell(raw, columns, key):
            return columns[key], "missing_key", f"{key} is required and empty"
    for key, longest in LENGTHS.items():
        if len(_cell(raw, columns, key)) > longest:
            return columns[key], "too_long", f"{key} has more than {longest} characters"
    sku = _cell(raw, columns, "sku")
    if sku in seen:
        if seen[sku] == raw:
            return columns["sku"], "duplicate_row", "the same row stands earlier in the file"
        return columns["sku"], "duplicate_key", f"an earlier row says something else of SKU {sku}; keep one of them"
    for key, told in codes.items():
        if _cell(raw, columns, key) and not told["valid"] and told["reason"] != "a placeholder, not a product":
            return columns[key], "bad_identifier", f"'{_cell(raw, columns, key)}': {told['reason']}"
    numbers = {told["gtin14"] for key, told in codes.items() if told["gtin14"] and key != "case_gtin"}
    if len(numbers) > 1:
        return "", "identifiers_disagree", f"its columns name {len(numbers)} items: {', '.join(sorted(numbers))}"
    currency = _cell(raw, columns, "currency").upper()
    if currency and currency not in rmis.CURRENCIES:
        return columns["currency"], "unknown_currency", f"'{currency}' is no ISO 4217 currency code"
    if price is not None:
        written = _cell(raw, columns, "price")
        if price["bad"] or (price["value"] is not None and price["value"] < 0):
            return columns["price"], "bad_number", f"'{written}' is no price written with decimal '.'"
        if price["mark"] and currency and f"{price['mark']}|{currency}" not in rmis.MARKS:
            return columns["price"], "currency_conflict", f"'{written}' is marked '{price['mark']}' and the currency is {currency}"  # fmt: skip
    margin = _cell(raw, columns, "margin")
    if margin and _share(margin) is None:
        return columns["margin"], "bad_number", f"'{margin}' is no share from 0 to 1, nor a percentage"
    return None


def _share(text: str) -> float | None:
    try:
        value = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _take(
    out: Catalogue,
    raw: dict[str, str],
    number: int,
    codes: dict[str, dict[str, Any]],
    price: dict[str, Any] | None,
    source: str,
    retailer: str,
) -> None:
    sku = _cell(raw, out.columns, "sku")
    values: dict[str, Any] = {key: text for key in TEXTS if (text := _cell(raw, out.columns, key))}
    if price is not None and price["value"] is not None:
        values["price"] = Decimal(price["value"]).quantize(Decimal("0.000001"))
    if currency := _cell(raw, out.columns, "currency").upper():
        values["currency"] = currency
    if margin := _cell(raw, out.columns, "margin"):
        values["margin"] = _share(margin)
    for key, told in codes.items():
        if told["reason"] == "a placeholder, not a product":
            out.warnings["placeholder_identifier"] += 1
        code = told["gtin14"]
        if not code:
            continue
        said = source
        if told["repaired"]:
            out.repaired.append((number, out.columns[key], _cell(raw, out.columns, key), code))
            out.warnings["repaired_identifier"] += 1
            said = f"{source}, repaired"
        if told["restricted"]:
            out.warnings["restricted_identifier"] += 1
        if key == "case_gtin":
            inner = identifiers.inner_item(code)
            if inner is None:
                out.warnings["case_without_indicator"] += 1
            own = next((c["gtin14"] for k, c in codes.items() if k != "case_gtin" and c["gtin14"]), None)
            if inner and own and inner != own:
                out.warnings["case_of_another_item"] += 1
            out.packs.append((sku, code, inner or own or ""))
            out.claims.append(Claim(sku, "case", code, said, REPAIRED if told["repaired"] else SURE))
            continue
        values["gtin14"] = code
        values["upc"] = code[2:] if code.startswith("00") else ""
        values["ean"] = code[1:] if code.startswith("0") else ""
        scope = retailer if told["restricted"] else "-"
        claim = Claim(sku, "gtin", code, said, REPAIRED if told["repaired"] else SURE, scope)
        if claim not in out.claims[-4:]:
            out.claims.append(claim)
    for key in ("asin", "retailer_sku", "plu"):
        if text := _cell(raw, out.columns, key):
            out.claims.append(Claim(sku, key, text.upper() if key == "asin" else text, source, SURE, retailer))
    out.products.append(Product(sku, number, values, raw))


def _link_cases(out: Catalogue, source: str, known: dict[str, str]) -> None:
    """A product whose own number is a case's: the item in it, where one is known, gets the case as its pack."""
    items = known | {p.values["gtin14"]: p.sku for p in out.products if "gtin14" in p.values}
    for product in out.products:
        inner = identifiers.inner_item(product.values.get("gtin14", ""))
        if inner and items.get(inner, product.sku) != product.sku:
            out.packs.append((items[inner], product.values["gtin14"], inner))
            out.claims.append(Claim(items[inner], "case", product.values["gtin14"], source, SURE))
