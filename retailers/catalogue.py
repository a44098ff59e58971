"""Product files into the catalogue, and the crosswalk of numbers: who claims which, and where a person must decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from django.db import transaction
from django.utils import timezone
from simple_history.utils import bulk_create_with_history, bulk_update_with_history

from retailers import loads
from retailers.connectors.files import open_feed
from retailers.domain import catalogue as products
from retailers.domain import identifiers
from retailers.domain.catalogue import Catalogue
from retailers.domain.identifiers import Claim, Conflict
from retailers.domain.mapping import Dialect, MappingFile
from retailers.models import Brand, FeedLoad, ProductIdentifier, Retailer, SKUCatalog
from rmn.lib import masking
from rmn.lib.errors import BadInput

PART = 2000
FED = 0.7  # how sure a report is that two numbers are one product's
WRITTEN = ("name", "gtin14", "upc", "ean", "department", "category", "product_type", "package_size", "price", "currency", "margin")  # fmt: skip
KINDS = {
    "asin": ProductIdentifier.Kind.ASIN,
    "parent_asin": ProductIdentifier.Kind.ASIN,
    "retailer_sku": ProductIdentifier.Kind.RETAILER_SKU,
    "walmart_item": ProductIdentifier.Kind.RETAILER_SKU,
    "mpn": ProductIdentifier.Kind.RETAILER_SKU,
    "plu": ProductIdentifier.Kind.PLU,
}


@dataclass
class Changes:
    """What a catalogue would do to the products that stand."""

    fresh: list[SKUCatalog] = field(default_factory=list)
    changed: list[SKUCatalog] = field(default_factory=list)
    unchanged: int = 0


def read(path: Path, name: str, brand: Brand, retailer: Retailer, *, repair: bool) -> Catalogue:
    """A kept product file."""
    standing = SKUCatalog.objects.filter(brand=brand).exclude(gtin14="").values_list("gtin14", "sku")
    with open_feed(path, Dialect(encoding="auto"), products.WANTED) as feed:
        return products.read(
            feed, source=f"catalogue {name}"[:100], retailer=retailer.slug, repair=repair, known=dict(standing)
        )


def compare(brand: Brand, found: Catalogue) -> Changes:
    """The file's products beside those that stand; an empty cell leaves what stands."""
    changes, mask = Changes(), masking.of(brand, prose=False)
    for product in found.products:
        if "name" in product.values:
            product.values["name"] = mask(product.values["name"])[:240]
    for part in _parts(found.products):
        rows = SKUCatalog.objects.filter(brand=brand, sku__in=[product.sku for product in part])
        standing = {row.sku: row for row in rows}
        for product in part:
            row = standing.get(product.sku)
            if row is None:
                changes.fresh.append(SKUCatalog(brand=brand, sku=product.sku, **product.values))
                continue
            other = {key: value for key, value in product.values.items() if getattr(row, key) != value}
            if not other:
                changes.unchanged += 1
                continue
            for key, value in other.items():
                setattr(row, key, value)
            changes.changed.append(row)
    return changes


def disputed(brand: Brand, claims: Sequence[Claim]) -> list[Conflict]:
    """What a person would have to settle if these claims stood beside those there are; nothing is written."""
    ours = {(claim.scope, claim.id_type, claim.id_value) for claim in claims}
    values = sorted({claim.id_value for claim in claims})
    standing = [
        _claim(row)
        for part in _parts(values)
        for row in ProductIdentifier.objects.filter(brand=brand, value__in=part).select_related("product")
    ]
    told = [claim for claim in standing if (claim.scope, claim.id_type, claim.id_value) in ours]
    _, conflicts = identifiers.crosswalk([*told, *claims])
    return conflicts


def _claim(row: ProductIdentifier) -> Claim:
    return Claim(row.product.sku, row.kind, row.value, row.source, row.confidence, row.scope)


@transaction.atomic
def ingest(run: FeedLoad, path: Path) -> dict[str, Any]:
    """Bring a kept product file into the catalogue, all of it or none; returns the report."""
    found = read(path, run.file_name, run.brand, run.retailer, repair=bool(run.config.get("repair")))
    refuse_if_wrong(found, run.file_name)
    run.report(0.5, f"{len(found.products):,} products to keep, {len(found.refused):,} rows in quarantine")
    changes = compare(run.brand, found)
    bulk_create_with_history(changes.fresh, SKUCatalog, batch_size=PART, default_user=run.requested_by)
    bulk_update_with_history(changes.changed, SKUCatalog, list(WRITTEN), batch_size=500, default_user=run.requested_by)
    conflicts = claim(run.brand, found.claims)
    loads.keep_refused(
        pl.DataFrame(found.refused, schema=REFUSED) if found.refused else pl.DataFrame(schema=REFUSED), run
    )
    report = told(found, changes, len(conflicts)) | {"extracted_at": timezone.now().isoformat()}
    loads.record(run, report)
    return report


REFUSED = {"row_number": pl.Int64, "column": pl.String, "rule": pl.String, "message": pl.String, "raw": pl.String}


def refuse_if_wrong(found: Catalogue, name: str) -> None:
    """A file of which nothing, or less than half, can be taken is the wrong file.

    Raises:
        BadInput: says the first reason.
    """
    rows = len(found.products) + len(found.refused)
    if not rows:
        raise BadInput(f"{name}: no product below the header; is it the right file or sheet?")
    if not found.products or (rows >= 20 and len(found.refused) > rows / 2):
        first = found.refused[0]
        raise BadInput(
            f"{name}: {len(found.refused)} of {rows} rows refused, first row {first['row_number']} column {first['column']!r}:"
            f" {first['message']}; nothing was written: correct the file, or allow repair of lost zeros"
        )


def told(found: Catalogue, changes: Changes, conflicts: int) -> dict[str, Any]:
    """The report of a product file, in the words of a feed's."""
    reasons: dict[str, int] = {}
    for row in found.refused:
        reasons[row["rule"]] = reasons.get(row["rule"], 0) + 1
    return {
        "mapping_version": products.VERSION,
        "grain": "",
        "period": [None, None],
        "rows_read": len(found.products) + len(found.refused),
        "rows_accepted": len(found.products),
        "rows_quarantined": len(found.refused),
        "rows_warned": sum(found.warnings.values()),
        "reasons": reasons,
        "warnings": dict(found.warnings),
        "drift": {"new": found.unread, "missing": [], "renamed": []},
        "repaired": [{"row_number": row, "column": column, "written": text, "gtin14": code} for row, column, text, code in found.repaired[:1000]],
        "packs": [{"sku": sku, "case": case, "contains": inner} for sku, case, inner in found.packs[:1000]],
        "identifiers": len(found.claims),
        "conflicts": conflicts,
        "load": {"inserted": len(changes.fresh), "restated": len(changes.changed), "unchanged": changes.unchanged},
    }  # fmt: skip


# -- the crosswalk


def claim(brand: Brand, claims: Sequence[Claim]) -> list[Conflict]:
    """Write claims beside those that stand, and mark what a person must settle."""
    if not claims:
        return []
    skus = sorted({one.sku for one in claims})
    keys = {
        sku: pk for part in _parts(skus) for sku, pk in SKUCatalog.objects.filter(brand=brand, sku__in=part).values_list("sku", "pk")
    }  # fmt: skip
    retailers = dict(Retailer.objects.filter(slug__in={one.scope for one in claims}).values_list("slug", "pk"))
    values = sorted({one.id_value for one in claims})
    standing = {
        (row.scope, row.kind, row.value, row.product_id): row
        for part in _parts(values)
        for row in ProductIdentifier.objects.filter(brand=brand, value__in=part)
    }
    fresh: dict[tuple[Any, ...], ProductIdentifier] = {}
    surer: list[ProductIdentifier] = []
    for one in claims:
        product = keys.get(one.sku)
        if product is None:
            continue
        key = (one.scope, one.id_type, one.id_value, product)
        row = standing.get(key) or fresh.get(key)
        if row is None:
            fresh[key] = ProductIdentifier(
                brand=brand, product_id=product, retailer_id=retailers.get(one.scope), scope=one.scope,
                kind=one.id_type, value=one.id_value, source=one.source[:120], confidence=one.confidence,
            )  # fmt: skip
        elif one.confidence > row.confidence:
            row.confidence, row.source = one.confidence, one.source[:120]
            if row.pk:
                surer.append(row)
    ProductIdentifier.objects.bulk_create(fresh.values(), batch_size=PART)
    ProductIdentifier.objects.bulk_update(surer, ["confidence", "source"], batch_size=500)
    return settle(brand, values)


def settle(brand: Brand, values: Iterable[str]) -> list[Conflict]:
    """Mark which claims on these numbers are in conflict, and which no longer are."""
    found: list[Conflict] = []
    for part in _parts(sorted(set(values))):
        rows = list(ProductIdentifier.objects.filter(brand=brand, value__in=part).select_related("product"))
        _, conflicts = identifiers.crosswalk([_claim(row) for row in rows])
        open_ = {(one.scope, one.id_type, one.id_value) for one in conflicts}
        for state in (True, False):
            changed = [
                row.pk
                for row in rows
                if ((row.scope, row.kind, row.value) in open_) is state and row.in_conflict is not state
            ]
            ProductIdentifier.objects.filter(pk__in=changed).update(in_conflict=state)
        found += conflicts
    return found


def link(folder: Path, load: FeedLoad, mapping: MappingFile) -> list[Conflict]:
    """What a report says of the brand's products: an item id beside a GTIN that one of them goes by.

    Only reports with a GTIN beside another id say anything; numbers of products that are not in the
    catalogue are nobody's.
    """
    pairs = (
        pl.scan_parquet(folder / "metrics.parquet")
        .filter(pl.col("gtin14").is_not_null() & pl.col("product_id_type").is_in(list(KINDS)))
        .select("product_id_type", "product_id", "gtin14")
        .unique()
        .collect(engine="streaming")
    )
    codes = pairs["gtin14"].unique().to_list()
    skus = {
        code: sku
        for part in _parts(codes)
        for code, sku in SKUCatalog.objects.filter(brand_id=load.brand_id, gtin14__in=part).values_list("gtin14", "sku")
    }
    claims = [
        Claim(skus[code], KINDS[kind].value, value.upper() if "asin" in kind else value, f"report {mapping.mapping}", FED, load.retailer.slug)
        for kind, value, code in pairs.iter_rows()
        if code in skus
    ]  # fmt: skip
    return claim(load.brand, claims)


def _parts(rows: Sequence[Any]) -> Iterable[Any]:
    for start in range(0, len(rows), PART):
        yield rows[start : start + PART]
