"""Drafts a mapping for a feed nobody has mapped yet.

Reads headers and a sample of rows and says what it sees: which column is which field, how numbers and
dates are written, which columns are attributed values and how. What it cannot know (which of two
day orders, which currency) is marked for a person; what it merely assumes stands in a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

import polars as pl

from retailers.domain import identifiers, parsing, rmis
from retailers.domain.feed import ROW, Feed
from retailers.domain.mapping import FILL_IN, normalise

SAMPLE_ROWS = 3000
# Normalised header texts (see mapping.normalise), most telling first, in the languages reports come in.
WORDS: dict[str, tuple[str, ...]] = {
    "period_start": (
        "startdate",
        "datestart",
        "periodstart",
        "from",
        "fromdate",
        "weekstart",
        "weekstarting",
        "startdatum",
        "von",
        "datedebut",
        "fechainicio",
        "begindatum",
    ),
    "period_end": (
        "enddate",
        "dateend",
        "dateto",
        "periodend",
        "to",
        "todate",
        "weekend",
        "weekending",
        "enddatum",
        "bis",
        "datefin",
        "fechafin",
        "einddatum",
    ),
    "date": (
        "date",
        "day",
        "reportdate",
        "reportingdate",
        "reportday",
        "datum",
        "tag",
        "jour",
        "fecha",
        "dia",
        "data",
        "giorno",
        "dag",
        "dzien",
        "日付",
        "日期",
        "statdate",
        "eventdate",
        "activitydate",
        "week",
        "month",
        "datetime",
        "timestamp",
        "time",
        "starttime",
        "hourstart",
        "segmentsdate",
        "periode",
        "period",
    ),
    "hour": ("hour", "hourofday", "stunde", "heure", "hora", "ora", "uur", "hod", "timeofday"),
    "currency": (
        "currency",
        "currencycode",
        "campaignbudgetcurrencycode",
        "accountcurrency",
        "wahrung",
        "waehrung",
        "devise",
        "moneda",
        "valuta",
        "moeda",
        "waluta",
        "curr",
        "ccy",
        "通貨",
        "spendcurrency",
    ),
    "time_zone": ("timezone", "tz", "accounttimezone", "zeitzone"),
    "retailer": (
        "retailer",
        "retailername",
        "store name",
        "marketplace",
        "banner",
        "handler",
        "handler name",
        "enseigne",
        "retailerid",
        "site",
    ),
    "account_id": (
        "accountid",
        "advertiserid",
        "profileid",
        "customerid",
        "entityid",
        "shopid",
        "sellerid",
        "account",
        "kontoid",
    ),
    "campaign_id": (
        "campaignid",
        "campaignuuid",
        "cid",
        "kampagnenid",
        "kampagneid",
        "idcampagne",
        "idcampana",
        "campaignkey",
        "campaign.id",
        "id",
        "orderid",
        "id",
    ),
    "campaign_name": (
        "campaignname",
        "campaign",
        "kampagne",
        "kampagnenname",
        "nomcampagne",
        "campagne",
        "campana",
        "nombredelacampana",
        "campagna",
        "kampania",
        "nomdelacampagne",
        "campaignname",
        "キャンペーン",
        "campaign.name",
        "campanha",
    ),
    "ad_group_id": ("adgroupid", "adgroupuuid", "lineitemid", "adsetid", "anzeigengruppenid", "flightid"),
    "ad_group_name": (
        "adgroupname",
        "adgroup",
        "lineitemname",
        "lineitem",
        "adset",
        "adsetname",
        "anzeigengruppe",
        "groupedannonces",
        "grupodeanuncios",
        "flight",
    ),
    "ad_id": ("adid", "creativeid", "keywordid", "pinpromotionid", "anzeigenid", "bannerid", "ad.id"),
    "product_id": (
        "gtin",
        "ean",
        "ean13",
        "upc",
        "barcode",
        "advertisedasin",
        "asin",
        "productid",
        "itemid",
        "sku",
        "skuid",
        "advertisedsku",
        "productcode",
        "artikelnummer",
        "articlenumber",
        "tcin",
        "fsn",
        "productsku",
        "productgtin",
        "scancode",
        "productupc",
        "item",
        "produktid",
        "goodsid",
    ),
    "search_term": (
        "searchterm",
        "customersearchterm",
        "searchquery",
        "query",
        "searchedkeyword",
        "suchbegriff",
        "suchanfrage",
        "termederecherche",
        "terminodebusqueda",
        "zoekterm",
    ),
    "keyword": ("keyword", "keywordtext", "targeting", "biddedkeyword", "suchwort", "motcle", "palabraclave", "target"),
    "match_type": ("matchtype", "keywordmatchtype", "keywordtype", "ubereinstimmungstyp", "typedecorrespondance"),
    "placement": (
        "placement",
        "placementname",
        "placementtype",
        "pagetype",
        "position",
        "device",
        "devicetype",
        "platzierung",
        "adplacement",
        "slot",
        "platform",
        "store",
        "storeid",
        "region",
        "inventory",
        "gerat",
    ),
    "ad_product": (
        "adproduct",
        "campaigntype",
        "adtype",
        "adformat",
        "format",
        "producttype",
        "werbeform",
        "tactic",
        "advertisingtype",
    ),
    "channel": ("channel", "mediachannel", "kanal", "environment"),
    "impressions": (
        "impressions",
        "imps",
        "impr",
        "views",
        "impressionen",
        "einblendungen",
        "impresiones",
        "impressioni",
        "vertoningen",
        "numadsshown",
        "adimpressions",
        "impression",
        "odslony",
        "wyswietlenia",
        "impressoes",
        "shows",
        "adviews",
        "servedimpressions",
        "表示回数",
        "totalimpressions",
    ),
    "viewable_impressions": ("viewableimpressions", "impressionsviewable", "sichtbareimpressionen", "measurableviews"),
    "clicks": (
        "clicks",
        "klicks",
        "clics",
        "clic",
        "klikken",
        "kliks",
        "click",
        "numadsclicks",
        "adclicks",
        "linkclicks",
        "klikniecia",
        "cliques",
        "taps",
        "クリック数",
        "totalclicks",
        "swipes",
    ),
    "spend": (
        "spend",
        "cost",
        "adspend",
        "ausgaben",
        "kosten",
        "werbekosten",
        "werbeausgaben",
        "depenses",
        "depense",
        "cout",
        "gasto",
        "coste",
        "costo",
        "spesa",
        "uitgaven",
        "koszt",
        "wydatki",
        "custo",
        "expense",
        "spent",
        "adcost",
        "mediaspend",
        "totalspend",
        "totalcost",
        "amountspent",
        "費用",
        "costs",
        "netspend",
        "budgetspent",
        "billedamount",
        "investment",
    ),
    "extracted_at": (
        "extractedat",
        "updatedat",
        "lastupdated",
        "lastmodified",
        "fivetransynced",
        "asof",
        "generatedat",
        "dataasof",
        "reportgeneratedat",
        "syncedat",
        "reportedat",
        "lastupdatedat",
        "datacompletethrough",
    ),
}
RATIOS = re.compile(
    r"^(?:.*(?:ctr|cpc|cpm|cpo|cpa|roas|acos|tacos|roi|cvr|rate|share|percent|prozent|quote|average|avg|durchschnitt|moyen|bid|gebot|budget|conversionrate|clickthrough|costper|costofsales|returnon).*)$"
)
METRIC_WORDS: tuple[tuple[str, str], ...] = (
    (
        "ntb_sales",
        r"(?:ntb|newtobrand|newcustomer|neukunden).*(?:sales|revenue|umsatz)|(?:sales|revenue|umsatz).*(?:ntb|newtobrand|newcustomer)",
    ),
    ("ntb_orders", r"(?:ntb|newtobrand|newcustomer|neukunden).*(?:orders?|purchases?|bestell)"),
    ("ntb_units", r"(?:ntb|newtobrand).*units"),
    ("assisted_sales", r"assist.*(?:sales|revenue)"),
    ("assisted_units", r"assist.*units"),
    ("add_to_cart", r"addtocart|addstocart|warenkorb|atc\b"),
    ("detail_page_views", r"detailpageviews|dpv|productviews"),
    ("video_views", r"videoviews"),
    (
        "orders",
        r"orders?|purchases?|bestellungen|commandes|pedidos|ordini|transactions|checkouts|zamowienia|bestellingen",
    ),
    ("units", r"units|quantit|items?sold|unitssold|einheiten|stuck|unites|unidades|menge|pieces|itemssold"),
    ("conversion_value", r"conversions?value|conversionvalue"),
    ("conversions", r"conversions?|konversionen"),
    (
        "sales",
        r"sales|revenue|umsatz|ventes|ventas|vendite|gmv|turnover|omzet|sprzedaz|chiffredaffaires|receita|erlos|ingresos|ricavi|売上",
    ),
)
SCOPE_WORDS: tuple[tuple[str, str], ...] = (
    ("same_sku", r"samesku|advertisedsku|advertisedasin|promoted|direct(?!ory)|sameproduct|featured|selbe"),
    ("halo", r"halo|othersku|otherasin|indirect|related|othersku|crosssell"),
    ("brand", r"brand(?!ed)"),
    ("category", r"category"),
    ("all", r"total|all|overall|gesamt|broad"),
)
DATE_FORMATS: tuple[tuple[str, str], ...] = (
    (r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?$", "iso"),
    (r"^\d{4}/\d{1,2}/\d{1,2}$", "%Y/%m/%d"),
    (r"^\d{4}\.\d{1,2}\.\d{1,2}$", "%Y.%m.%d"),
    (r"^\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}$", "%Y/%m/%d %H:%M"),
    (r"^\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}:\d{2}$", "%Y/%m/%d %H:%M:%S"),
    (r"^(?:19|20)\d{6}$", "%Y%m%d"),
    (r"^(?:19|20)\d{8}$", "%Y%m%d%H"),
    (r"^1\d{9}$", "unix"),
    (r"^1\d{12}$", "unix_ms"),
    (r"^[34567]\d{4}(?:\.\d+)?$", "excel"),
    (r"^\d{4}-?[Ww]\d{1,2}$", "iso_week"),
    (r"^\d{4}-\d{2}$", "month"),
    (r"^[A-Za-z]{3} \d{1,2}, \d{4}$", "%b %d, %Y"),
    (r"^[A-Za-z]{4,9} \d{1,2}, \d{4}$", "%B %d, %Y"),
    (r"^\d{1,2} [A-Za-z]{3} \d{4}$", "%d %b %Y"),
    (r"^\d{1,2} [A-Za-z]{4,9} \d{4}$", "%d %B %Y"),
    (r"^\d{1,2}-[A-Za-z]{3}-\d{4}$", "%d-%b-%Y"),
    (r"^\d{1,2}-[A-Za-z]{3}-\d{2}$", "%d-%b-%y"),
    (r"^[A-Za-z]{3}, \d{1,2} [A-Za-z]{3} \d{4}$", "%a, %d %b %Y"),
)
TOTAL = re.compile(r"(?:(?:grand |sub)?totals?|(?:gesamt)?summe|totaux|insgesamt|totaal|razem|suma)\b", re.IGNORECASE)
NUMERIC_DATE = re.compile(r"^(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?:[ T](\d{1,2}):(\d{2})(:\d{2})?)?$")
IGNORED_NAMES = ("name", "title", "status", "state", "brand", "description", "url", "image", "portfolio")


@dataclass
class Column:
    """What a sample says of one column."""

    header: str
    name: str  # normalised, last part of a nested path
    values: list[str]
    numeric: bool = False
    has_total: bool = False  # a row of totals says so here


@dataclass
class Draft:
    """Lines of YAML by section, as they are found."""

    fields: dict[str, str] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)


def draft(feed: Feed, network: str, report: str) -> str:
    """A mapping for a feed as YAML text; lines that a person must fill in say FILL-IN.

    Args:
        feed: the opened feed.
        network, report: how to call it.
    """
    sample = feed.frame.select(ROW, *feed.headers).head(SAMPLE_ROWS).collect()
    columns = [_column(header, sample[header]) for header in feed.headers]
    numbers = [c for c in columns if c.numeric]
    decimal = _decimal(numbers)
    found = Draft()
    left = [c for c in columns if c.values]
    left = _dates(left, found)
    left = _named(left, found)
    left = _outcomes(left, found)
    _currency(columns, feed, found)
    _scales(found)
    for column in left:
        found.ignore.append(column.header)
    key, repeated = _key(found, sample)
    return _write(feed, network, report, found, decimal, key, repeated, columns)


def _column(header: str, cells: pl.Series) -> Column:
    texts = [
        text.strip()
        for text in cells.drop_nulls().to_list()
        if text.strip() not in ("", "-", "--", "n/a", "N/A", "null", "NULL", "None")
    ]
    has_total = any(TOTAL.match(text) for text in texts)
    texts = [text for text in texts if not TOTAL.match(text)] if has_total else texts
    looks = [
        bool(
            re.fullmatch(
                r"[^\d\w]{0,4}\s?(?:[A-Za-z]{2,3}\.?\s?)?-?[\d.,'\u00a0\u202f ]*\d[\d.,]*\s?(?:%|[^\d\w]{1,3}|[A-Za-z]{2,3})?",
                text,
            )
        )
        for text in texts[:400]
    ]
    numeric = bool(looks) and sum(looks) >= 0.9 * len(looks)
    return Column(header, normalise(header).split(".")[-1], texts, numeric, has_total)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# -- dates


def _dates(columns: list[Column], found: Draft) -> list[Column]:
    chosen: dict[str, tuple[Column, str]] = {}
    for role in ("period_start", "period_end", "date"):
        for word in WORDS[role]:
            column = next(
                (c for c in columns if c.name == word and c.header not in {x.header for x, _ in chosen.values()}), None
            )
            if column is not None:
                form = date_format(column.values)
                if form:
                    chosen[role] = (column, form)
                    break
    if "date" not in chosen and "period_start" not in chosen:  # any column that reads as days
        for column in columns:
            form = date_format(column.values) if len(column.values) >= 1 else None
            if form and form not in ("excel", "month") and not WORDS_OF.get(column.name):
                chosen["date"] = (column, form)
                break
    if "period_start" in chosen and "period_end" in chosen:
        chosen.pop("date", None)
    elif "date" in chosen or "period_start" in chosen:
        role = "date" if "date" in chosen else "period_start"
        chosen = {"date": chosen[role]}
    else:
        found.marks.append(
            f"  date: {{from: {FILL_IN}}}  # no column reads as a day; name it, or say period none and give --period"
        )
    for role, (column, form) in chosen.items():
        found.fields[role] = (
            f"{{from: {_quote(column.header)}{_format_text(form)}, required: true}}{_format_note(form)}"
        )
        found.columns[role] = column
        if role == "date" and _has_hours(column.values, form):
            found.fields["hour"] = f"{{from: {_quote(column.header)}}}"
    taken = {column.header for column, _ in chosen.values()}
    return [c for c in columns if c.header not in taken]


def _format_text(form: str) -> str:
    if form == "iso":
        return ""
    return f", format: {_quote(FILL_IN if form.startswith('?') else form)}"


def _format_note(form: str) -> str:
    if not form.startswith("?"):
        return ""
    return f"  # {form[1:]} or {form[1:].replace('%d', '#').replace('%m', '%d').replace('#', '%m')}: both fit; ask the network"


def _has_hours(values: list[str], form: str) -> bool:
    if form in ("unix", "unix_ms"):
        step = 1000 if form == "unix_ms" else 1
        hours = {int(v.split(".")[0]) // step % 86_400 // 3600 for v in values[:500]}
        return len(hours) > 3
    clock = {m.group(1) for v in values[:500] if (m := re.search(r"[T ](\d{1,2}):\d{2}", v))}
    return len(clock) > 1 or form.endswith("%Y%m%d%H")


def date_format(values: list[str]) -> str | None:
    """The one format all values have; '?...' where day and month could change places; None for no dates."""
    texts = values[:1000]
    if not texts:
        return None
    for pattern, form in DATE_FORMATS:
        if all(re.match(pattern, text) for text in texts):
            if form not in parsing.DATE_WORDS or form in ("month", "iso_week"):
                read = parsing.instants(pl.Series(texts), (form,)).struct.field("bad")
                if read.any():
                    continue
            return form
    parts = [NUMERIC_DATE.match(text) for text in texts]
    if not all(parts):
        return None
    matches = [part for part in parts if part]
    mark = matches[0].group(2)
    year = "%Y" if len(matches[0].group(4)) == 4 else "%y"
    clock = " %H:%M:%S" if matches[0].group(7) else " %H:%M" if matches[0].group(5) else ""
    first, second = max(int(m.group(1)) for m in matches), max(int(m.group(3)) for m in matches)
    if first > 12 and second > 12:
        return None
    if second > 12:
        return f"%m{mark}%d{mark}{year}{clock}"
    if first > 12 or mark == ".":  # dots are written day first everywhere
        return f"%d{mark}%m{mark}{year}{clock}"
    months = {m.group(1) for m in matches}, {m.group(3) for m in matches}
    if len(matches) > 40 and len(months[0]) == 1 and len(months[1]) > 8:
        return f"%m{mark}%d{mark}{year}{clock}"
    return f"?%d{mark}%m{mark}{year}{clock}"


# -- names


WORDS_OF: dict[str, str] = {}
for _role, _words in WORDS.items():
    for _word in _words:
        WORDS_OF.setdefault(normalise(_word).replace(".", ""), _role)


def _named(columns: list[Column], found: Draft) -> list[Column]:
    taken: set[str] = set()
    for role, words in WORDS.items():
        if role in ("date", "period_start", "period_end") or role in found.fields:
            continue
        for word in words:
            column = next((c for c in columns if c.header not in taken and _is_called(c, word)), None)
            if column is None and role in ("spend", "impressions", "clicks"):
                column = next((c for c in columns if c.header not in taken and _begins(c, word)), None)
            if column is None or (role in ("impressions", "clicks", "spend", "hour") and not column.numeric):
                continue
            text = _field_text(role, column, found)
            if text is None:
                continue
            taken.add(column.header)
            found.fields[role], found.columns[role] = text, column
            break
    return [c for c in columns if c.header not in taken]


def _is_called(column: Column, word: str) -> bool:
    plain = normalise(word)
    if "." in plain:
        return normalise(column.header).endswith(plain)
    if column.name == plain:
        return True
    whole = normalise(column.header).replace(".", "")
    # a nested record names the thing by its path: campaign.id, cost.amount
    return whole == plain or (column.header.count(".") > 0 and whole.endswith(plain) and len(plain) > 5)


def _begins(column: Column, word: str) -> bool:
    """'Spend (micros)', 'cost_micros', 'spend_in_micro_dollar', 'Kosten EUR', 'metrics.cost.amount'."""
    parts = [re.sub(r"[^\w]|_", "", part) for part in normalise(column.header).split(".")]
    tail = next(
        (part for part in reversed(parts) if part not in ("amount", "value", "micros", "total", "units")), parts[-1]
    )
    if RATIOS.match(tail):
        return False
    codes = "|".join(code.lower() for code in sorted(rmis.CURRENCIES))
    return bool(
        re.fullmatch(
            rf"(?:total|net|gross|ad|media)?{re.escape(normalise(word))}(?:in)?(?:micros?|micro\w*|cents?|minor\w*|e5|local|amount|{codes})*",
            tail,
        )
    )


def _field_text(role: str, column: Column, found: Draft) -> str | None:
    header = _quote(column.header)
    if role == "currency":
        codes = {text.upper() for text in column.values}
        return f"{{from: {header}, required: true}}" if codes and codes <= rmis.CURRENCIES else None
    if role == "extracted_at":
        form = date_format(column.values)
        if form is None or form.startswith("?"):
            return None
        return f"{{from: {header}{_format_text(form)}}}"
    if role == "match_type":
        return f"{{from: {header}, case: lower}}"
    if role == "product_id":
        return f"{{from: {header}, id_type: {_id_type(column)}}}"
    if role == "channel":
        known = {text.lower() for text in column.values} <= set(rmis.CHANNELS)
        return f"{{from: {header}}}" if known else None
    if role == "spend":
        return f"{{from: {header}, required: true{_unit_text(column)}}}"
    if role in ("impressions", "clicks", "campaign_id"):
        return f"{{from: {header}, required: true}}"
    if role == "campaign_name" and "campaign_id" not in found.fields:
        return f"{{from: {header}, required: true}}"
    return f"{{from: {header}}}"


def _unit_text(column: Column) -> str:
    name = normalise(column.header)
    if "micro" in name:
        return ", unit: micro"
    if ("cent" in name and "percent" not in name) or "minor" in name:
        return ", unit: cents"
    return ""


def _id_type(column: Column) -> str:
    texts = column.values[:500]
    if texts and sum(bool(re.fullmatch(r"[Bb]0[0-9A-Za-z]{8}", t)) for t in texts) > 0.8 * len(texts):
        return "asin"
    if texts and all(re.fullmatch(r"\d{8,14}", t) for t in texts):
        valid = identifiers.examine(pl.Series(texts)).struct.field("valid")
        if valid.sum() > 0.8 * len(texts):
            return "gtin"
    return "retailer_sku"


# -- outcomes


def _outcomes(columns: list[Column], found: Draft) -> list[Column]:
    rest: list[Column] = []
    seen: set[str] = set()
    ratio_sources = {"ctr": "clicks / impressions", "cpc": "spend / clicks"}
    for column in columns:
        name = re.sub(r"[^\w]|_", "", normalise(column.header).replace(".", ""))
        tail = column.name
        if not column.numeric:
            rest.append(column)
            continue
        if RATIOS.match(tail):
            kind = next((k for k in ratio_sources if tail == k or tail.startswith(k)), None)
            if (
                kind
                and {"clicks", "impressions" if kind == "ctr" else "spend"} <= set(found.fields)
                and kind not in {c.split("_")[0] for c in seen}
            ):
                unit = ", unit: percent" if any("%" in v for v in column.values[:50]) else ""
                found.checks.append(
                    f"{{name: {kind}_mismatch, from: {_quote(column.header)}, equals: {ratio_sources[kind]}{unit}, tolerance: 0.05}}"
                )
                seen.add(f"{kind}_check")
            else:
                rest.append(column)
            continue
        metric = next((metric for metric, pattern in METRIC_WORDS if re.search(pattern, tail)), None)
        metric = metric or next((metric for metric, pattern in METRIC_WORDS if re.search(pattern, name)), None)
        if metric is None:
            rest.append(column)
            continue
        text, note = _outcome_text(column, metric, name)
        signature = re.sub(r"from: '.*?', ", "", text)
        if signature in seen:
            rest.append(column)
            continue
        seen.add(signature)
        found.outcomes.append(f"{text}{note}")
    return rest


def _outcome_text(column: Column, metric: str, name: str) -> tuple[str, str]:
    unknown: list[str] = []
    window = re.search(r"(\d{1,3})(?:d|day|days|tage|tag|jours|dias)|(?:d|day|days|window)(\d{1,3})(?!\d)", name)
    days = next((group for group in window.groups() if group), None) if window else None
    parts = [f"from: {_quote(column.header)}", f"metric: {metric}"]
    if days:
        parts.append(f"window_days: {int(days)}")
    else:
        unknown.append("window_days")
    click, view = (
        re.search(r"click|pc(?=\d|sales|orders)", name),
        re.search(r"view(?!s)|pv(?=\d|sales|orders)|impression", name),
    )
    if click and not view:
        parts.append("interaction: click")
    elif view and not click:
        parts.append("interaction: view")
    elif click and view:
        parts.append("interaction: any")
    else:
        unknown.append("interaction")
    model = "linear" if "linear" in name else "last_touch" if re.search("lasttouch|lastclick", name) else None
    if model:
        parts.append(f"model: {model}")
    else:
        unknown.append("model")
    scope = next(
        (scope for scope, pattern in SCOPE_WORDS if re.search(pattern, re.sub("newtobrand|ntb", "", name))), None
    )
    parts.append(f"scope: {scope or 'all'}")
    if scope is None:
        unknown.append("scope (all assumed)")
    channel = "in_store" if re.search("store|offline|instore", name) else "online" if "online" in name else None
    if channel:
        parts.append(f"sales_channel: {channel}")
    unit = _unit_text(column) if metric in rmis.MONEY_METRICS else ""
    note = f"  # CHECK: the header does not say {', '.join(unknown)}" if unknown else ""
    return "{" + ", ".join(parts) + unit + "}", note


# -- money


def _currency(columns: list[Column], feed: Feed, found: Draft) -> None:
    if "currency" in found.fields:
        return
    money = [c for c in columns if c.header == getattr(found.columns.get("spend"), "header", None)] + [
        c for c in columns if c.numeric
    ]
    codes = sorted(rmis.CURRENCIES)
    for column in money:
        code = re.search(rf"(?<![A-Za-z])({'|'.join(codes)})(?![A-Za-z])", column.header)
        if code and "spend" in found.columns:
            if column.header == found.columns["spend"].header:
                found.fields["currency"] = "{header: '(?<![A-Za-z])?([A-Z]{3})(?![A-Za-z])', of: spend}".replace(
                    "(?<![A-Za-z])?", ""
                )
            else:
                found.fields["currency"] = f"{{constant: {code.group(1)}}}"
            return
    preamble = "\n".join(feed.preamble)
    stated = re.search(
        rf"(?:currency|w(?:ä|ae)hrung|devise|moneda|valuta)\W{{1,4}}({'|'.join(codes)})\b", preamble, re.IGNORECASE
    )
    if stated:
        word = re.escape(stated.group(0)[: stated.start(1) - stated.start(0)].rstrip(" :;,=\t"))
        found.fields["currency"] = "{preamble: " + _quote(f"{word}\\W+([A-Z]{{3}})") + "}"
        return
    marks: set[str] = set()
    for column in money:
        for text in column.values[:200]:
            sign = re.search(r"[^\d\s.,'%+\-()]+", text)
            if sign and not re.search(r"\d[eE][-+]?\d", text):
                marks.add(sign.group().lower())
        marks |= {
            m.lower()
            for m in re.findall(r"[(\[]\s*([^\w\s#%()\[\]]{1,3}|R\$|kr|zł|Rp|RM|Rs\.?)\s*[)\]]", column.header)
        }
    for mark in sorted(marks):
        options = rmis.SYMBOLS.get(mark, frozenset({mark.upper()} & rmis.CURRENCIES))
        if len(options) == 1:
            found.fields["currency"] = f"{{constant: {next(iter(options))}}}"
            return
    if "spend" in found.fields or found.outcomes:
        hint = f"the file writes {sorted(marks)[0]!r}" if marks else "the file does not say"
        found.fields["currency"] = f"{{constant: {FILL_IN}}}  # ISO 4217 code; {hint}"


def _scales(found: Draft) -> None:
    """Money as whole numbers far above any price of a click is written in a smaller unit."""
    spend, clicks = found.columns.get("spend"), found.columns.get("clicks")
    if spend is None or clicks is None or "unit:" in found.fields["spend"]:
        return
    if not all(re.fullmatch(r"\d+", text) for text in spend.values[:500]):
        return
    pairs = [
        (Decimal(s), Decimal(c)) for s, c in zip(spend.values, clicks.values) if re.fullmatch(r"\d+", c) and int(c) > 0
    ]
    if len(pairs) < 1 or len(spend.values) != len(clicks.values):
        return
    prices = sorted(s / c for s, c in pairs)
    price = prices[len(prices) // 2]
    if price > 5000:
        unit = "micro" if price >= 50_000 else "0.00001"
        text = found.fields["spend"].rstrip("}")
        found.fields["spend"] = (
            f"{text}, unit: {FILL_IN}}}  # a click costs {price:,.0f} units: {unit}? say what one unit is worth (1 for none)"
        )


def _decimal(columns: Iterable[Column]) -> str:
    comma = point = 0
    for column in columns:
        for text in column.values[:300]:
            body = re.sub(r"[^\d.,]", "", text)
            if re.search(r",\d{1,2}$|,\d{4,}$|\.\d{3},", body):
                comma += 1
            elif re.search(r"\.\d{1,2}$|\.\d{4,}$|,\d{3}\.", body):
                point += 1
    return "," if comma > point else "."


# -- key and text


def _grain(found: Draft) -> str:
    order = (
        ("search_term", "search_term"),
        ("keyword", "keyword"),
        ("product_id", "product"),
        ("ad_id", "ad"),
        ("ad_group_id", "ad_group"),
        ("ad_group_name", "ad_group"),
        ("campaign_id", "campaign"),
        ("campaign_name", "campaign"),
        ("placement", "placement"),
    )
    return next((grain for name, grain in order if name in found.fields), "account")


def _key(found: Draft, sample: pl.DataFrame) -> tuple[list[str], int]:
    names = [n for n in rmis.DIMENSIONS if n in found.columns]
    names = [n for n in names if not (n.endswith("_name") and n.replace("_name", "_id") in names)]
    if "hour" in found.fields:
        names.append("hour")
    headers = {
        found.columns[n].header
        for n in (*names, "date", "period_start", "period_end", "currency")
        if n in found.columns
    }
    if not headers or not sample.height:
        return names, 0
    repeated = int(sample.select(pl.struct(sorted(headers)).is_duplicated().sum()).item())
    return names, repeated


def _write(
    feed: Feed,
    network: str,
    report: str,
    found: Draft,
    decimal: str,
    key: list[str],
    repeated: int,
    columns: list[Column],
) -> str:
    grain = _grain(found)
    span = "period_start" in found.fields
    form = found.fields.get("date", "")
    period = (
        "span"
        if span
        else "week"
        if ("iso_week" in form or _weekly(found))
        else "month"
        if "'month'" in form
        else "day"
    )
    if "date" not in found.fields and not span and not found.marks:
        period = "none"
    lines = [
        f"# Drafted from {feed.name} ({len(columns)} columns). Fill in what is marked so (see docs/mapping.md), look at every CHECK,",
        "# then: python manage.py lint_mapping THIS.yaml && python manage.py harmonize FEED --mapping THIS.yaml --dry-run",
        f"mapping: {network}/{report}",
        "version: 1",
        f"about: Drafted from {_quote(feed.name)[1:-1]}.",
        "seen_on:",
        f"  - {_quote(f'{feed.name}, drafted by infer_mapping')}",
        f"grain: {grain}",
        f"period: {period}" + ("  # CHECK: one date a week" if period == "week" else ""),
    ]
    dialect = []
    if decimal == ",":
        dialect.append("decimal: ','")
    if dialect:
        lines.append(f"dialect: {{{', '.join(dialect)}}}")
    lines.append("fields:")
    lines += found.marks
    order = [
        "date",
        "period_start",
        "period_end",
        "hour",
        "currency",
        "time_zone",
        "extracted_at",
        *rmis.DIMENSIONS,
        *rmis.COUNT_FIELDS,
        "spend",
    ]
    lines += [f"  {name}: {found.fields[name]}" for name in order if name in found.fields]
    if "time_zone" not in found.fields:
        lines.append("  # CHECK: whose day is it? time_zone: {constant: America/New_York}")
    if "channel" not in found.fields:
        lines.append("  # CHECK: onsite, offsite or in_store? channel: {constant: onsite}")
    if "spend" not in found.fields:
        lines.append("  # CHECK: no column reads as spend; add spend: {from: ...} if there is one")
    if found.outcomes:
        lines.append("outcomes:")
        lines += [f"  - {text}" for text in found.outcomes]
    if key:
        lines.append(f"key: [{', '.join(key)}]")
    updates = "extracted_at" in found.columns and len(set(found.columns["extracted_at"].values)) > 1
    if repeated:
        if updates:
            lines.append(
                f"on_duplicate: last  # CHECK: {repeated} rows of the sample share a key; the newest {found.columns['extracted_at'].header} stands"
            )
        else:
            lines.append(
                f"# CHECK: {repeated} rows of the sample share a key: is a dimension missing, or does the file repeat or restate rows?"
            )
            lines.append("# on_duplicate: sum     (parts of one thing)   or   last     (the later row restates)")
    totals = _totals(found)
    if totals:
        lines += [
            "skip:",
            f"  - {{from: {_quote(totals)}, matches: '^((grand |sub)?totals?|(gesamt)?summe|totaux|insgesamt|totaal|razem|suma)\\b', reason: totals_row}}",
        ]
    if found.checks:
        lines.append("checks:")
        lines += [f"  - {text}" for text in found.checks]
    if found.ignore:
        lines.append("ignore:  # CHECK: columns of the file that nothing above uses")
        lines += [f"  - {_quote(header)}" for header in found.ignore]
    lines.append("restated_days: 14  # CHECK: how long the network restates its numbers")
    return "\n".join(lines) + "\n"


def _weekly(found: Draft) -> bool:
    column = found.columns.get("date")
    if column is None or "week" not in column.name:
        return False
    return "hour" not in found.fields


def _totals(found: Draft) -> str | None:
    """The column in which a totals row says so."""
    names = ("date", "period_start", "campaign_name", "campaign_id")
    return next((found.columns[n].header for n in names if n in found.columns and found.columns[n].has_total), None)
