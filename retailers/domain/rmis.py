"""RMIS, the retail media information standard of this project: what a harmonized record holds.

One definition serves both shapes: polars schemas for frames of millions of rows, pydantic records
for single rows at the edges (API bodies, uploads, tests). ``docs/rmis.md`` gives the meaning of each
term and where the IAB/MRC guidelines define it.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rmn.lib.errors import BadInput

Grain = Literal[
    "account",
    "campaign",
    "ad_group",
    "ad",
    "product",
    "keyword",
    "search_term",
    "placement",
    "purchased_product",
    "store",
    "category",
    "transaction",
]
Metric = Literal[
    "sales",
    "orders",
    "units",
    "ntb_sales",
    "ntb_orders",
    "ntb_units",
    "assisted_sales",
    "assisted_units",
    "conversions",
    "conversion_value",
    "redemptions",
    "households",
    "baskets",
    "exposures",
    "add_to_cart",
    "detail_page_views",
    "branded_searches",
    "leads",
    "video_views",
    "video_completions",
    "total_sales",
    "total_units",
    "total_orders",
    "page_views",
    "sessions",
    "in_stock",
    "buy_box",
    "price",
]
Interaction = Literal["click", "view", "any"]
Model = Literal["last_touch", "first_touch", "linear", "time_decay", "position", "data_driven", "none"]
Scope = Literal["all", "same_sku", "halo", "brand", "category"]
SalesChannel = Literal["all", "online", "in_store", "pickup", "delivery"]
Channel = Literal["onsite", "offsite", "in_store", "mail", "retail"]
ProductIdType = Literal[
    "gtin", "asin", "sku", "retailer_sku", "walmart_item", "mpn", "isbn", "plu", "category", "parent_asin"
]

GRAINS: tuple[str, ...] = get_args(Grain)
METRICS: tuple[str, ...] = get_args(Metric)
INTERACTIONS: tuple[str, ...] = get_args(Interaction)
MODELS: tuple[str, ...] = get_args(Model)
SCOPES: tuple[str, ...] = get_args(Scope)
SALES_CHANNELS: tuple[str, ...] = get_args(SalesChannel)
CHANNELS: tuple[str, ...] = get_args(Channel)
PRODUCT_ID_TYPES: tuple[str, ...] = get_args(ProductIdType)
MONEY_METRICS = frozenset({"sales", "ntb_sales", "assisted_sales", "conversion_value", "total_sales", "price"})
# Whether a product can be bought on a day: how much of the day (or of the stores) it was in stock, and in the buy box.
SHARE_METRICS = frozenset({"in_stock", "buy_box"})
LEVEL_METRICS = SHARE_METRICS | {"price"}  # what holds on a day: several rows have a mean, no sum
# One person, or one auction, counts in several rows: a sum over rows would count them twice.
NOT_ADDITIVE_METRICS = LEVEL_METRICS | {"households"}

MONEY = pl.Decimal(38, 6)

METRICS_SCHEMA: dict[str, Any] = {
    "row_key": pl.String,
    "row_hash": pl.String,
    "network": pl.String,
    "retailer": pl.String,
    "account_id": pl.String,
    "grain": pl.String,
    "ad_product": pl.String,
    "campaign_id": pl.String,
    "campaign_name": pl.String,
    "ad_group_id": pl.String,
    "ad_group_name": pl.String,
    "ad_id": pl.String,
    "product_id_type": pl.String,
    "product_id": pl.String,
    "gtin14": pl.String,
    "keyword": pl.String,
    "search_term": pl.String,
    "match_type": pl.String,
    "placement": pl.String,
    "channel": pl.String,
    "period_start": pl.Date,
    "period_end": pl.Date,
    "hour": pl.Int8,
    "time_zone": pl.String,
    "currency": pl.String,
    "impressions": pl.Int64,
    "viewable_impressions": pl.Int64,
    "clicks": pl.Int64,
    "spend": MONEY,
    "file_sha256": pl.String,
    "row_number": pl.Int64,
    "mapping_version": pl.String,
    "extracted_at": pl.Datetime("us", "UTC"),
    "warnings": pl.String,
}
OUTCOMES_SCHEMA: dict[str, Any] = {
    "row_key": pl.String,
    "metric": pl.String,
    "window_days": pl.Int16,
    "interaction": pl.String,
    "model": pl.String,
    "scope": pl.String,
    "sales_channel": pl.String,
    "value": MONEY,
    "currency": pl.String,
    "row_number": pl.Int64,
}
QUARANTINE_SCHEMA: dict[str, Any] = {
    "file_sha256": pl.String,
    "row_number": pl.Int64,
    "column": pl.String,
    "rule": pl.String,
    "message": pl.String,
    "raw": pl.String,
    "mapping_version": pl.String,
}

TEXT_FIELDS = (
    "retailer",
    "account_id",
    "ad_product",
    "campaign_id",
    "campaign_name",
    "ad_group_id",
    "ad_group_name",
    "ad_id",
    "product_id",
    "keyword",
    "search_term",
    "match_type",
    "placement",
    "channel",
    "time_zone",
    "currency",
)
# Longest text each field holds in the database; a longer cell is a broken row.
LENGTHS = {
    "account_id": 80,
    "ad_product": 60,
    "campaign_id": 120,
    "campaign_name": 240,
    "ad_group_id": 120,
    "ad_group_name": 240,
    "ad_id": 120,
    "product_id": 120,
    "keyword": 400,
    "search_term": 400,
    "match_type": 40,
    "placement": 120,
    "channel": 24,
    "time_zone": 60,
}
COUNT_FIELDS = ("impressions", "viewable_impressions", "clicks")
MONEY_FIELDS = ("spend",)
# Dimensions that may tell two rows of one period apart; names stand in only where the id is absent.
DIMENSIONS = (
    "retailer",
    "account_id",
    "ad_product",
    "campaign_id",
    "campaign_name",
    "ad_group_id",
    "ad_group_name",
    "ad_id",
    "product_id",
    "keyword",
    "search_term",
    "match_type",
    "placement",
    "channel",
)
ALWAYS_KEY = ("network", "grain", "period_start", "period_end", "currency")
ATTRIBUTES = ("metric", "window_days", "interaction", "model", "scope", "sales_channel")

# ISO 4217, the codes in use. Symbols are ambiguous: they confirm a currency, they never name one.
CURRENCIES = frozenset(
    [
        "AED",
        "AFN",
        "ALL",
        "AMD",
        "ANG",
        "AOA",
        "ARS",
        "AUD",
        "AWG",
        "AZN",
        "BAM",
        "BBD",
        "BDT",
        "BGN",
        "BHD",
        "BIF",
        "BMD",
        "BND",
        "BOB",
        "BRL",
        "BSD",
        "BTN",
        "BWP",
        "BYN",
        "BZD",
        "CAD",
        "CDF",
        "CHF",
        "CLP",
        "CNY",
        "COP",
        "CRC",
        "CUP",
        "CVE",
        "CZK",
        "DJF",
        "DKK",
        "DOP",
        "DZD",
        "EGP",
        "ERN",
        "ETB",
        "EUR",
        "FJD",
        "FKP",
        "GBP",
        "GEL",
        "GHS",
        "GIP",
        "GMD",
        "GNF",
        "GTQ",
        "GYD",
        "HKD",
        "HNL",
        "HTG",
        "HUF",
        "IDR",
        "ILS",
        "INR",
        "IQD",
        "IRR",
        "ISK",
        "JMD",
        "JOD",
        "JPY",
        "KES",
        "KGS",
        "KHR",
        "KMF",
        "KPW",
        "KRW",
        "KWD",
        "KYD",
        "KZT",
        "LAK",
        "LBP",
        "LKR",
        "LRD",
        "LSL",
        "LYD",
        "MAD",
        "MDL",
        "MGA",
        "MKD",
        "MMK",
        "MNT",
        "MOP",
        "MRU",
        "MUR",
        "MVR",
        "MWK",
        "MXN",
        "MYR",
        "MZN",
        "NAD",
        "NGN",
        "NIO",
        "NOK",
        "NPR",
        "NZD",
        "OMR",
        "PAB",
        "PEN",
        "PGK",
        "PHP",
        "PKR",
        "PLN",
        "PYG",
        "QAR",
        "RON",
        "RSD",
        "RUB",
        "RWF",
        "SAR",
        "SBD",
        "SCR",
        "SDG",
        "SEK",
        "SGD",
        "SHP",
        "SLE",
        "SOS",
        "SRD",
        "SSP",
        "STN",
        "SVC",
        "SYP",
        "SZL",
        "THB",
        "TJS",
        "TMT",
        "TND",
        "TOP",
        "TRY",
        "TTD",
        "TWD",
        "TZS",
        "UAH",
        "UGX",
        "USD",
        "UYU",
        "UZS",
        "VED",
        "VES",
        "VND",
        "VUV",
        "WST",
        "XAF",
        "XCD",
        "XOF",
        "XPF",
        "YER",
        "ZAR",
        "ZMW",
        "ZWG",
    ]
)
SYMBOLS: dict[str, frozenset[str]] = {
    "$": frozenset(["USD", "CAD", "AUD", "MXN", "SGD", "NZD", "HKD", "TWD", "BRL", "CLP", "COP", "ARS"]),
    "us$": frozenset({"USD"}),
    "c$": frozenset({"CAD"}),
    "ca$": frozenset({"CAD"}),
    "a$": frozenset({"AUD"}),
    "au$": frozenset({"AUD"}),
    "s$": frozenset({"SGD"}),
    "mx$": frozenset({"MXN"}),
    "nt$": frozenset({"TWD"}),
    "hk$": frozenset({"HKD"}),
    "r$": frozenset({"BRL"}),
    "€": frozenset({"EUR"}),
    "£": frozenset(["GBP", "EGP", "GIP", "FKP", "SHP", "SSP", "SYP", "LBP"]),
    "¥": frozenset({"JPY", "CNY"}),
    "￥": frozenset({"JPY", "CNY"}),
    "円": frozenset({"JPY"}),
    "元": frozenset({"CNY"}),
    "₹": frozenset({"INR"}),
    "rs": frozenset(["INR", "PKR", "LKR", "NPR", "MUR", "SCR"]),
    "rs.": frozenset(["INR", "PKR", "LKR", "NPR", "MUR", "SCR"]),
    "rp": frozenset({"IDR"}),
    "rm": frozenset({"MYR"}),
    "₩": frozenset({"KRW"}),
    "₫": frozenset({"VND"}),
    "đ": frozenset({"VND"}),
    "₱": frozenset({"PHP"}),
    "฿": frozenset({"THB"}),
    "₺": frozenset({"TRY"}),
    "₴": frozenset({"UAH"}),
    "₽": frozenset({"RUB"}),
    "₪": frozenset({"ILS"}),
    "₦": frozenset({"NGN"}),
    "kr": frozenset(["SEK", "NOK", "DKK", "ISK"]),
    "kr.": frozenset(["SEK", "NOK", "DKK", "ISK"]),
    "zł": frozenset({"PLN"}),
    "zl": frozenset({"PLN"}),
    "kč": frozenset({"CZK"}),
    "ft": frozenset({"HUF"}),
    "lei": frozenset({"RON", "MDL"}),
    "лв": frozenset({"BGN"}),
    "fr.": frozenset({"CHF"}),
    "chf": frozenset({"CHF"}),
    "r": frozenset({"ZAR"}),
    "s/": frozenset({"PEN"}),
}


# "mark|code" of every sign or code that may stand beside money of a currency
MARKS = frozenset(
    [f"{mark}|{code}" for mark, codes in SYMBOLS.items() for code in codes]
    + [f"{code.lower()}|{code}" for code in CURRENCIES]
)


class Record(BaseModel):
    """One row at an edge: unknown keys are refused, text is trimmed."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class Performance(Record):
    """What one ad, product, term ... did in one period, at one grain, in one currency."""

    network: str
    retailer: str | None = None
    account_id: str | None = None
    grain: Grain
    ad_product: str | None = None
    campaign_id: str | None = None
    campaign_name: str | None = None
    ad_group_id: str | None = None
    ad_group_name: str | None = None
    ad_id: str | None = None
    product_id_type: ProductIdType | None = None
    product_id: str | None = None
    gtin14: Annotated[str, Field(pattern=r"^\d{14}$")] | None = None
    keyword: str | None = None
    search_term: str | None = None
    match_type: str | None = None
    placement: str | None = None
    channel: str | None = None
    period_start: date
    period_end: date
    hour: Annotated[int, Field(ge=0, le=23)] | None = None
    time_zone: str | None = None
    currency: Currency | None = None
    impressions: Annotated[int, Field(ge=0)] | None = None
    viewable_impressions: Annotated[int, Field(ge=0)] | None = None
    clicks: Annotated[int, Field(ge=0)] | None = None
    spend: Annotated[Decimal, Field(ge=0)] | None = None
    extracted_at: datetime | None = None

    @model_validator(mode="after")
    def _end_not_before_start(self) -> Performance:
        if self.period_end < self.period_start:
            raise ValueError(f"period_end {self.period_end} lies before period_start {self.period_start}")
        return self


class Outcome(Record):
    """One value that is attributed to an ad row, with all that says how it was attributed."""

    row_key: str
    metric: Metric
    window_days: Annotated[int, Field(ge=0)] | None = None
    interaction: Interaction | None = None
    model: Model | None = None
    scope: Scope | None = None
    sales_channel: str | None = None
    value: Decimal
    currency: Currency | None = None


class Sku(Record):
    """One product of a brand at one retailer, and the numbers it goes by."""

    brand: str
    retailer: str | None = None
    sku: str
    name: str
    gtin14: str | None = None
    category: str | None = None
    size: str | None = None


class Identifier(Record):
    """One entry of the crosswalk: this product also goes by this number, says this source."""

    sku: str
    id_type: ProductIdType
    id_value: str
    retailer: str | None = None
    source: str
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    valid_from: date | None = None
    relation: Literal["same", "contains", "contained_in"] = "same"


class Audience(Record):
    """A group of shoppers as the network defines it; reach is an estimate with its day."""

    brand: str
    retailer: str
    name: str
    definition: dict[str, Any] = {}
    reach: Annotated[int, Field(ge=0)] | None = None
    reach_as_of: date | None = None


class Policy(Record):
    """A rule of a retailer or of law that data or copy must keep."""

    rule_id: str
    applies_to: Literal["copy", "data"]
    network: str
    severity: Literal["block", "needs_proof", "warn"]
    text: str
    source: str


class Event(Record):
    """One thing that happened once: an ad contact, a conversion, a redemption."""

    kind: Literal["impression", "click", "view", "conversion", "redemption"]
    at: datetime
    network: str
    retailer: str | None = None
    campaign_id: str | None = None
    product_id: str | None = None
    value: Decimal | None = None
    currency: Currency | None = None
    event_id: str


class MixedKinds(BadInput):
    """Values were to be added that do not measure the same thing."""


def add(outcomes: list[Outcome]) -> Decimal:
    """The sum of outcomes that measure the same thing in the same currency.

    Raises:
        MixedKinds: two outcomes differ in metric, window, interaction, model, scope, sales channel
            or currency, or the metric is not additive; the message names the attribute.
    """
    if not outcomes:
        return Decimal(0)
    for name in (*ATTRIBUTES, "currency"):
        kinds = {getattr(outcome, name) for outcome in outcomes}
        if len(kinds) > 1:
            shown = ", ".join(sorted(map(str, kinds)))
            raise MixedKinds(f"values of different {name} ({shown}) are never added; choose one, or list them apart")
    if outcomes[0].metric in NOT_ADDITIVE_METRICS and len(outcomes) > 1:
        raise MixedKinds(f"{outcomes[0].metric} of several rows overlap or are levels: their sum means nothing")
    return sum((outcome.value for outcome in outcomes), Decimal(0))
