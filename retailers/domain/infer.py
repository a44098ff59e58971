"""Drafts a mapping for a feed nobody has mapped yet.

Reads headers and a sample of rows and says what it sees: which column is which field, how numbers and
dates are written, which columns are attributed values and how. What it cannot know (which of two
day orders, which currency) is marked for a person; what it merely assumes stands in a comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from retailers.domain import identifiers, parsing, rmis
from retailers.domain.feed import ROW, Feed
from retailers.domain.mapping import FILL_IN, Dialect, normalise

SAMPLE_ROWS = 3000
UNKNOWN = Dialect(encoding="auto")  # how a feed is opened that nobody has mapped yet
_MARKS = "|".join(sorted({*map(re.escape, rmis.SYMBOLS), *rmis.CURRENCIES}, key=len, reverse=True))
NUMBER = re.compile(
    rf"[(]?\s?(?:{_MARKS})?\s?[-+\u2212]?\s?(?:{_MARKS})?\s?\d[\d.,'’\u00a0\u202f ]*(?:[eE][-+]?\d+)?\s?(?:%|{_MARKS})?\s?[)]?",
    re.IGNORECASE,
)
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
        "reportingstarts",
        "starttime",
        "timewindowstart",
        "startday",
        "intervalstart",
        "periodfrom",
        "datefrom",
        "期間開始日",
        "시작일",
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
        "reportingends",
        "endtime",
        "timewindowend",
        "endday",
        "datestop",
        "intervalend",
        "periodto",
        "weekended",
        "weekend date",
        "wcend",
        "monthending",
        "期間終了日",
        "종료일",
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
        "날짜",
        "일자",
        "日",
        "ingressedat",
        "weekcommencing",
        "wc",
        "weekbeginning",
        "weekof",
        "dataraportu",
        "reportingdate",
        "businessdate",
        "statdatetime",
        "stattimehour",
        "stattimeday",
        "timewindowstart",
        "hourstarttime",
        "fecha de reporte",
        "날짜시간",
        "ngay",
        "tanggal",
        "дата",
        "день",
        "tarih",
        "paiva",
        "dato",
    ),
    "hour": (
        "hour",
        "hourofday",
        "stunde",
        "heure",
        "hora",
        "ora",
        "uur",
        "hod",
        "timeofday",
        "hourofday",
        "시간",
        "時間",
        "hournumber",
    ),
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
        "currencyid",
        "通貨コード",
        "통화",
        "валюта",
        "parabirimi",
        "settlementcurrency",
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
        "enseigne",
        "merchant",
        "merchantname",
        "chain",
        "bannername",
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
        "accountname",
        "advertisername",
        "advertiser",
        "walletname",
        "teamname",
        "clientname",
        "shopname",
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
        "캠페인id",
        "계획id",
        "计划id",
        "キャンペーンid",
        "idkampanii",
        "campaignref",
        "campaignreference",
        "campaignnumber",
        "kampagnennummer",
        "insertionorderid",
        "ioid",
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
        "캠페인명",
        "캠페인",
        "キャンペーン名",
        "计划名称",
        "推广计划",
        "adname",
        "campaigntitle",
        "кампания",
        "kampanya",
        "nazwakampanii",
        "insertionorder",
        "kampanjnamn",
        "kampanj",
        "kampanje",
        "nome da campanha",
    ),
    "ad_group_id": (
        "adgroupid",
        "adgroupuuid",
        "lineitemid",
        "adsetid",
        "anzeigengruppenid",
        "flightid",
        "광고그룹id",
        "グループid",
        "idgrupyreklam",
    ),
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
        "광고그룹",
        "광고그룹명",
        "grupareklam",
        "広告グループ",
        "推广单元",
        "grupo de anuncios",
        "annoncegruppe",
        "targetgroup",
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
        "productgtin14",
        "artikelsku",
        "sellersku",
        "merchantsku",
        "listingid",
        "商品管理番号",
        "商品id",
        "상품id",
        "옵션id",
        "광고집행옵션id",
        "productreference",
        "productnumber",
        "modelid",
        "articleid",
        "offerid",
        "dpci",
        "asinsku",
        "itemnumber",
        "idprodukt",
        "variantid",
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
        "검색어",
        "検索キーワード",
        "搜索词",
        "termodebusca",
        "frazawyszukiwania",
        "userquery",
        "shoppersearchterm",
    ),
    "keyword": (
        "keyword",
        "keywordtext",
        "targeting",
        "biddedkeyword",
        "suchwort",
        "motcle",
        "palabraclave",
        "target",
        "키워드",
        "キーワード",
        "关键词",
        "slowokluczowe",
        "motscles",
        "palavrachave",
        "zoekwoord",
    ),
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
        "slottype",
        "광고노출지면",
        "placementgroup",
        "adslot",
        "inventorytype",
        "pagetypename",
        "掲載面",
        "emplacement",
        "ubicacion",
        "posizionamento",
        "doelplaatsing",
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
        "imp",
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
        "노출수",
        "노출",
        "表示",
        "インプレッション数",
        "展现量",
        "曝光量",
        "prints",
        "sichtkontakte",
        "ansichten",
        "visningar",
        "visninger",
        "affichages",
        "exposures",
        "показы",
        "gosterim",
        "vistas",
        "impressies",
        "adimpressionsserved",
        "impressioncount",
        "odslon",
    ),
    "viewable_impressions": (
        "viewableimpressions",
        "impressionsviewable",
        "sichtbareimpressionen",
        "measurableviews",
        "viewableimps",
        "inviewimpressions",
        "measuredviewableimpressions",
    ),
    "clicks": (
        "clicks",
        "clk",
        "clks",
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
        "클릭수",
        "클릭",
        "点击量",
        "クリック",
        "adclicked",
        "klick",
        "клики",
        "tiklama",
        "clickcount",
        "kliknij",
        "kliknieciawreklame",
        "paidclicks",
        "outboundclicks",
        "cliquesnoanuncio",
    ),
    "spend": (
        "spend",
        "spends",
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
        "광고비",
        "집행금액",
        "実績額",
        "広告費",
        "利用金額",
        "消化金額",
        "花费",
        "消耗",
        "adfees",
        "adfee",
        "adfeesgeneral",
        "werbekostennetto",
        "nettoausgaben",
        "mediacost",
        "kostnad",
        "kostnader",
        "расход",
        "расходы",
        "harcama",
        "investimento",
        "investissement",
        "inversion",
        "importe",
        "depensespublicitaires",
        "budgetdepense",
        "chargedamount",
        "wydanykoszt",
        "kosztreklamy",
        "totalcharge",
        "totaladspend",
        "billedspend",
        "advertisingspend",
        "promotionspend",
    ),
    "extracted_at": (
        "extractedat",
        "updatedat",
        "lastupdated",
        "lastmodified",
        "lastmodifiedat",
        "modifiedat",
        "lastupdatetime",
        "updatetime",
        "updated",
        "updatedon",
        "fivetransynced",
        "asof",
        "generatedat",
        "dataasof",
        "reportgeneratedat",
        "syncedat",
        "reportedat",
        "lastupdatedat",
        "datacompletethrough",
        "extractdate",
        "extractiondate",
        "extractedon",
        "snapshotdate",
        "snapshotat",
        "exportdate",
        "exportedat",
        "rundate",
        "pulledat",
        "asofdate",
        "versiondate",
        "versionat",
        "loaddate",
        "loadedat",
        "refreshedat",
        "lastrefreshed",
        "reportversion date",
        "ingestedat",
        "dataasofdate",
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
    # what purchases were worth is money, whatever stands before it
    ("conversion_value", r"(?<!purchase)(?<!purchases)conversions?value"),
    (
        "sales",
        r"(?:purchases?|orders?|payments?|checkouts?)\w*value|^(?:direct|indirect|total|halo)amount$|values?(?:omni|website|fbpixel)*purchase|ordervalue|bestellwert|warenwert",
    ),
    (
        "orders",
        r"orders?|purchases?|bestellungen|commandes|pedidos|ordini|transactions|checkouts|zamowienia|bestellingen|completepayment|주문수|売上件数|注文数|订单数|siparis|заказы",
    ),
    (
        "units",
        r"units|quantit|items?sold|unitssold|einheiten|stuck|unites|unidades|menge|pieces|itemssold|verkaufteartikel|sprzedanychsztuk|판매수량|販売個数|antalsalda|unita",
    ),
    ("conversions", r"conversions?|conversies|konversionen|konwersje|conversiones|conversioni|전환수|コンバージョン数"),
    (
        "sales",
        r"sales|revenue|umsatz|ventes|ventas|vendite|gmv|turnover|omzet|sprzedaz|chiffredaffaires|receita|erlos|ingresos|ricavi|売上|전환매출|매출|成交金额|销售额|forsaljning|omsetning|продажи|выручка|ciro|satis",
    ),
)
SCOPE_WORDS: tuple[tuple[str, str], ...] = (
    (
        "same_sku",
        r"samesku|advertisedsku|advertisedasin|advertisedproduct|promoted|(?<!in)direct(?!ory)|sameproduct|featured|selbe|직접|直接",
    ),
    ("halo", r"halo|othersku|otherasin|otherproduct|indirect|related|crosssell|간접|間接|间接"),
    ("brand", r"brand(?!ed)"),
    ("category", r"category"),
    ("all", r"total|\ball\b|overall|gesamt|broad|총|合計|(?<![a-z])all(?![a-z])"),
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
    (r"^\d{4}年\d{1,2}月\d{1,2}日$", "%Y年%m月%d日"),
    (r"^\d{4}년 ?\d{1,2}월 ?\d{1,2}일$", "%Y년 %m월 %d일"),
    (r"^\d{4}\. ?\d{1,2}\. ?\d{1,2}\.?$", "%Y. %m. %d."),
    (r"^[A-Za-z]{3} \d{1,2} \d{4}$", "%b %d %Y"),
    (r"^[A-Za-z]{3,9}-\d{2}$", "%b-%y"),
)
TOTAL = re.compile(r"(?:(?:grand |sub)?totals?|(?:gesamt)?summe|totaux|insgesamt|totaal|razem|suma)\b", re.IGNORECASE)
HOUR = re.compile(r"^\d{1,2}(?:\.0|[:h.]\d{2}(?::\d{2})?|h)?\s*(?:[ap]\.?m\.?)?(?:\s*[-–].*)?$", re.IGNORECASE)
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
    filled: bool = True  # no row without a value


@dataclass
class Draft:
    """Lines of YAML by section, as they are found."""

    fields: dict[str, str] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)  # read like an outcome above them
    money_outcomes: dict[int, Column] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    period: str = ""
    columns: dict[str, Column] = field(default_factory=dict)
    suggested: dict[str, str] = field(default_factory=dict)  # header -> field


def draft(
    feed: Feed, network: str, report: str, suggest: Callable[[list[Column]], Mapping[str, str]] | None = None
) -> str:
    """A mapping for a feed as YAML text; lines that a person must fill in say FILL-IN.

    Args:
        feed: the opened feed.
        network, report: how to call it.
        suggest: what else may know columns that no rule knows: header to field. Suggestions stand in comments.
    """
    sample = feed.frame.select(ROW, *feed.headers).head(SAMPLE_ROWS).collect()
    columns = [_column(header, sample[header]) for header in feed.headers]
    found = Draft()
    left = [c for c in columns if c.values]
    left = _dates(left, found, feed)
    decimal = _decimal(c for c in left if c.numeric)
    left = _named(left, found)
    left = _outcomes(left, found)
    _title_lines(feed, found)
    _currency(columns, feed, found)
    _scales(found)
    found.ignore += [column.header for column in left + [c for c in columns if not c.values]]
    if suggest is not None and left:
        found.suggested = dict(suggest(left))
    key, repeated = _key(found, sample, left)
    return _write(feed, network, report, found, decimal, key, repeated, columns, _deltas(left))


def plain(text: str) -> str:
    """Lower-case letters, digits and _: what networks and reports are called."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]


def _column(header: str, cells: pl.Series) -> Column:
    texts = [
        text.strip()
        for text in cells.drop_nulls().to_list()
        if text.strip() not in ("", "-", "--", "n/a", "N/A", "null", "NULL", "None")
    ]
    has_total = any(TOTAL.match(text) for text in texts)
    texts = [text for text in texts if not TOTAL.match(text)] if has_total else texts
    looks = [NUMBER.fullmatch(text) is not None for text in texts[:400]]
    numeric = bool(looks) and sum(looks) >= 0.9 * len(looks)
    filled = len(texts) >= len(cells) - (1 if has_total else 0)
    return Column(header, normalise(header).split(".")[-1], texts, numeric, has_total, filled)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# -- dates


def _dates(columns: list[Column], found: Draft, feed: Feed) -> list[Column]:
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
    if not chosen:  # any column that reads as days
        for column in columns:
            form = date_format(column.values) if len(column.values) >= 1 else None
            if form and form not in ("excel", "month") and WORDS_OF.get(column.name, "hour") == "hour":
                chosen["date"] = (column, form)
                break
    if not chosen and (spans := _spans(columns, found)):
        return [c for c in columns if c is not spans]
    start, end = chosen.get("period_start"), chosen.get("period_end")
    if start and _has_hours(start[0].values, start[1]):  # one hour a row: its end says nothing more
        chosen = {"date": start}
    elif start and end:
        chosen = {"period_start": start, "period_end": end}
    elif "date" in chosen or start:
        chosen = {"date": chosen.get("date") or chosen["period_start"]}
    elif end and re.search("week|month|woche|monat", end[0].name):
        chosen = {"period_end": end}
        found.period = "month" if re.search("month|monat", end[0].name) else "week"
    elif not _stated_period(found, feed):
        chosen = {}
        found.marks.append(
            f"  date: {{from: {FILL_IN}}}  # no column reads as a day; name it, or say period none and give --period"
        )
    for role, (column, form) in chosen.items():
        exclusive = (
            ", exclusive: true" if role == "period_end" and start and _ends_at_midnight(start[0], column) else ""
        )
        found.fields[role] = (
            f"{{from: {_quote(column.header)}{_format_text(form)}{exclusive}, required: true}}{_format_note(form)}"
        )
        found.columns[role] = column
        if role == "date" and _has_hours(column.values, form):
            found.fields["hour"] = f"{{from: {_quote(column.header)}}}"
        if role in ("date", "period_start") and form in ("unix", "unix_ms") and not _utc_days(column.values, form):
            found.fields["time_zone"] = (
                f"{{constant: {FILL_IN}}}  # the file writes instants: in whose time zone do its days begin? an IANA name"
            )
    taken = {column.header for column, _ in chosen.values()}
    return [c for c in columns if c.header not in taken]


def _spans(columns: list[Column], found: Draft) -> Column | None:
    """A column whose cells hold two days: 2026-04-01 - 2026-04-07."""
    for column in columns:
        for day in _DAY_TEXTS:
            both = [re.fullmatch(rf"({day})\s*(?:-|–|—|~|/|to|bis|au|a|al)\s*({day})", v) for v in column.values[:500]]
            if not both or not all(both):
                continue
            form = date_format([text for match in both if match for text in match.groups()])
            if form is None:
                continue
            for name, pattern in (("period_start", f"^({day})"), ("period_end", f"({day})$")):
                found.fields[name] = (
                    f"{{from: {_quote(column.header)}, pattern: {_quote(pattern)}{_format_text(form)}, required: true}}{_format_note(form)}"
                )
                found.columns[name] = column
            return column
    return None


def _ends_at_midnight(start: Column, end: Column) -> bool:
    """Whether a span's end is the midnight after its last day."""
    midnight = re.compile(r"[T ]00:00")
    return all(map(midnight.search, (*start.values[:200], *end.values[:200]))) and all(
        first < last for first, last in zip(start.values[:200], end.values[:200], strict=False)
    )


def _utc_days(values: list[str], form: str) -> bool:
    step = 1000 if form == "unix_ms" else 1
    return all(int(v.split(".")[0]) // step % 86_400 == 0 for v in values[:500])


_DAY_TEXTS = (
    r"\d{4}-\d{2}-\d{2}",
    r"\d{4}/\d{1,2}/\d{1,2}",
    r"\d{1,2}[./]\d{1,2}[./]\d{4}",
    r"[A-Za-z]{3,9} \d{1,2}, \d{4}",
    r"\d{1,2} [A-Za-z]{3,9} \d{4}",
    r"\d{4}年\d{1,2}月\d{1,2}日",
    r"20\d{6}",
)


def _stated_period(found: Draft, feed: Feed) -> bool:
    """The days a whole file covers, where its title lines or its name say so."""
    texts = (("preamble", "\n".join(feed.preamble)), ("file_name", feed.name))
    for origin, text in texts:
        for day in _DAY_TEXTS:
            between = r"[^\d\n]{1,14}"
            tries = (
                (rf"({day}){between}{day}", rf"{day}{between}({day})"),
                (rf"(?:start|from|since|von|ab|début|desde|inicio)[^\d\n]*({day})", rf"(?:end|to|until|bis|fin|hasta)[^\d\n]*({day})"),
                (rf"(?<!\d)({day})(?!\d)", ""),
            )  # fmt: skip
            for first, last in tries:
                begins = re.search(first, text, re.IGNORECASE)
                ends = re.search(last, text, re.IGNORECASE) if last else None
                if begins is None or (last and ends is None):
                    continue
                form = date_format([match.group(1) for match in (begins, ends) if match])
                if form is None or (not last and len(re.findall(day, text)) != 1):
                    continue
                names = ("period_start", "period_end") if ends else ("date",)
                for name, pattern in zip(names, (first, last), strict=False):
                    found.fields[name] = (
                        f"{{{origin}: {_quote(pattern)}{_format_text(form)}}}{_format_note(form) or '  # CHECK: the days the file covers'}"
                    )
                return True
    return False


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
            if column is None or (role in ("impressions", "clicks", "spend") and not column.numeric):
                continue
            if role == "hour" and not all(HOUR.match(text) for text in column.values[:200]):
                continue
            text = _field_text(role, column, found)
            if text is None:
                continue
            taken.add(column.header)
            found.fields[role], found.columns[role] = text, column
            break
    campaign = found.columns.get("campaign_id")
    if campaign is not None and "campaign_name" not in found.fields:
        above = campaign.header.rpartition(".")[0]
        beside = [c for c in columns if c.header not in taken and c.name in ("name", "title", "adname")]
        column = next((c for c in beside if c.header.rpartition(".")[0] == above), None)
        if column is not None:
            found.fields["campaign_name"], found.columns["campaign_name"] = f"{{from: {_quote(column.header)}}}", column
            taken.add(column.header)
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
        (
            part
            for part in reversed(parts)
            if not re.fullmatch(r"(?:amount|value|total|units)?(?:micros?|e5|cents)?", part)
        ),
        parts[-1],
    )
    if RATIOS.match(tail):
        return False
    codes = "|".join(code.lower() for code in sorted(rmis.CURRENCIES))
    return bool(
        re.fullmatch(
            rf"(?:total|net|gross|ad|media)?{re.escape(normalise(word))}(?:in)?(?:micros?|micro\w*|cents?|minor\w*|e5|local|amount|total|gross|net|合計|합계|{codes})*",
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
        return f"{{from: {header}, case: lower}}" if known else None
    if role == "time_zone" and not all(_is_zone(text) for text in set(column.values)):
        return None
    if role == "spend":
        return f"{{from: {header}, required: true{_unit_text(column)}}}"
    if role in ("impressions", "clicks", "campaign_id"):
        return f"{{from: {header}, required: true}}"
    if role == "campaign_name" and "campaign_id" not in found.fields:
        return f"{{from: {header}, required: true}}"
    return f"{{from: {header}}}"


def _is_zone(text: str) -> bool:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _unit_text(column: Column) -> str:
    name = normalise(column.header)
    if "micro" in name:
        return ", unit: micro"
    if re.search(r"e5(?!\d)", name):
        return ", unit: 0.00001"
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
        path = normalise(column.header).removesuffix(".value")  # of a list of named values
        name = re.sub(r"[^\w]|_", "", path.replace(".", ""))
        tail = path.split(".")[-1]
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
                unit = ", unit: percent" if _in_percent(column, found, kind) else ""
                found.checks.append(
                    f"{{name: {kind}_mismatch, from: {_quote(column.header)}, equals: {ratio_sources[kind]}{unit}, tolerance: 0.05}}"
                )
                seen.add(f"{kind}_check")
            else:
                rest.append(column)
            continue
        labelled = column.header.endswith(".value")
        metric = next((m for m, pattern in METRIC_WORDS if re.search(pattern, name if labelled else tail)), None)
        metric = metric or next((metric for metric, pattern in METRIC_WORDS if re.search(pattern, name)), None)
        if metric is None:
            rest.append(column)
            continue
        text, note = _outcome_text(column, metric, name)
        signature = re.sub(r"from: '.*?', |, unit: \w+", "", text)
        if signature in seen:
            found.twins.append(f"{text}{note}")
            rest.append(column)
            continue
        seen.add(signature)
        found.outcomes.append(f"{text}{note}")
        found.money_outcomes.update({len(found.outcomes) - 1: column} if metric in rmis.MONEY_METRICS else {})
    return rest


def _in_percent(column: Column, found: Draft, kind: str) -> bool:
    """Whether a rate is written as 0.39 or 0.39% for 0.0039: its sign says so, or clicks over impressions do."""
    if any("%" in text for text in column.values[:50]):
        return True
    if kind != "ctr":
        return False
    shown, over, under = (
        [_number(text) for text in part.values[:200]]
        for part in (column, found.columns["clicks"], found.columns["impressions"])
    )
    if not len(shown) == len(over) == len(under):
        return False
    ratios = sorted(s / (o / u) for s, o, u in zip(shown, over, under, strict=True) if s and o and u)
    return bool(ratios) and 50 < ratios[len(ratios) // 2] < 200


def _number(text: str) -> Decimal | None:
    """A number for comparing magnitudes, whichever decimal character it is written with."""
    body = re.sub(r"[^\d.,]", "", text)
    whole, mark, part = body.rpartition("," if body.rfind(",") > body.rfind(".") else ".")
    if mark and len(part) == 3 and whole:  # groups rather than decimals
        whole, mark, part = body, "", ""
    try:
        return Decimal(re.sub(r"\D", "", whole if mark else body) + (f".{part}" if mark else ""))
    except InvalidOperation:
        return None


def _outcome_text(column: Column, metric: str, name: str) -> tuple[str, str]:
    unknown: list[str] = []
    window = re.search(
        r"(\d{1,3})(?:d|day|days|tage|tag|jours|jour|dias|giorni|dagen|dni|일|日)(?![a-z]*\d{4})|(?:d|day|days|window)(\d{1,3})(?!\d)",
        name,
    )
    days = next((group for group in window.groups() if group), None) if window else None
    hours = re.search(r"(\d{2,3})(?:h|hours?|時間|시간)(?![a-z])", name)
    if days is None and hours and int(hours.group(1)) % 24 == 0:
        days = str(int(hours.group(1)) // 24)
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


def _title_lines(feed: Feed, found: Draft) -> None:
    """What the lines above the header state once: the time zone, when the numbers were taken."""
    preamble = "\n".join(feed.preamble)
    zone = re.search(r"\b([A-Z][A-Za-z]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?|UTC|GMT)\b", preamble)
    if zone and "time_zone" not in found.fields and _is_zone(zone.group(1)):
        found.fields["time_zone"] = "{preamble: '\\b([A-Z][A-Za-z]+/[A-Z][A-Za-z_/]+|UTC|GMT)\\b'}"
    label = r"(?:generated|extracted|exported|downloaded|created|updated|as of|data through|refreshed|erstellt|stand)"
    stated = re.search(
        rf"{label}[^\d\n]*?(\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\d{{2}}:\d{{2}}(?::\d{{2}})?Z?)?)", preamble, re.IGNORECASE
    )
    if stated and "extracted_at" not in found.fields:
        word = re.escape(stated.group(0)[: stated.start(1) - stated.start(0)].rstrip(" :;,=\t"))
        pattern = f"{word}[^\\d\\n]*(\\d{{4}}-\\d{{2}}-\\d{{2}}[T0-9: ]*Z?)"
        found.fields["extracted_at"] = f"{{preamble: {_quote(pattern)}}}  # CHECK: when the numbers were taken"


# -- money


def _currency(columns: list[Column], feed: Feed, found: Draft) -> None:
    if "currency" in found.fields:
        return
    money = [found.columns["spend"]] if "spend" in found.columns else []
    money += [*found.money_outcomes.values(), *(c for c in columns if c.numeric)]
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
    lower = (
        re.search(rf"[_ ]({'|'.join(codes)})$", found.columns["spend"].header.upper())
        if "spend" in found.columns
        else None
    )
    if lower:  # cost_eur
        found.fields["currency"] = f"{{constant: {lower.group(1)}}}  # CHECK: from the header of spend"
        return
    preamble = "\n".join(feed.preamble)
    stated = re.search(
        rf"(?:currency|w(?:ä|ae)hrung|devise|moneda|valuta)\W{{1,4}}({'|'.join(codes)})\b", preamble, re.IGNORECASE
    )
    named = set(re.findall(rf"(?<![A-Za-z])({'|'.join(codes)})(?![A-Za-z])", preamble))
    if not stated and len(named) == 1:
        found.fields["currency"] = f"{{constant: {named.pop()}}}  # CHECK: stands above the header"
        return
    if stated:
        word = re.escape(stated.group(0)[: stated.start(1) - stated.start(0)].rstrip(" :;,=\t"))
        found.fields["currency"] = "{preamble: " + _quote(f"{word}\\W+([A-Z]{{3}})") + "}"
        return
    marks: set[str] = set()
    for column in money:
        for text in column.values[:200]:
            sign = re.search(rf"(?:{_MARKS})", text, re.IGNORECASE)
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
        options = rmis.SYMBOLS.get(sorted(marks)[0], frozenset()) if marks else frozenset()
        hint += f": one of {', '.join(sorted(options))}" if options else ""
        found.fields["currency"] = f"{{constant: {FILL_IN}}}  # ISO 4217 code; {hint}"


def _scales(found: Draft) -> None:
    """Money as whole numbers far above any price of a click is written in a smaller unit."""
    spend, clicks = found.columns.get("spend"), found.columns.get("clicks")
    if spend is None or clicks is None or "unit:" in found.fields["spend"]:
        return
    if not all(re.fullmatch(r"\d+", text) for text in spend.values[:500]) or len(spend.values) != len(clicks.values):
        return
    pairs = [
        (Decimal(s), Decimal(c)) for s, c in zip(spend.values, clicks.values) if re.fullmatch(r"\d+", c) and int(c) > 0
    ]
    prices = sorted(s / c for s, c in pairs)
    if not prices or (price := prices[len(prices) // 2]) <= 5000:
        return
    text = found.fields["spend"].rstrip("}")
    found.fields["spend"] = (
        f"{text}, unit: {FILL_IN}}}  # a click costs {price:,.0f} of these:"
        " what is one worth? micro (0.000001), 0.00001, cents, or 1 if it is whole money"
    )
    for place, column in found.money_outcomes.items():
        if "unit:" not in found.outcomes[place] and all(re.fullmatch(r"\d+", text) for text in column.values[:500]):
            body, _, note = found.outcomes[place].partition("}")
            note = note or "  #"
            found.outcomes[place] = f"{body}, unit: {FILL_IN}}}{note}; the unit is probably that of spend"


def _decimal(columns: Iterable[Column]) -> str:
    """The decimal character; '?' where 1.234 may be one and a bit or a thousand."""
    comma = point = unsure = 0
    for column in columns:
        for text in column.values[:300]:
            body = re.sub(r"[^\d.,]", "", text)
            if re.search(r",\d{1,2}$|,\d{4,}$|\.\d{3},|\.\d{3}\.", body):
                comma += 1
            elif re.search(r"\.\d{1,2}$|\.\d{4,}$|,\d{3}\.|,\d{3},", body):
                point += 1
            elif re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", body):
                unsure += 1
    if unsure and not comma and not point:
        return "?"
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
    whole = [grain for name, grain in order if name in found.columns and found.columns[name].filled]
    return whole[0] if whole else next((grain for name, grain in order if name in found.fields), "account")


def _key(found: Draft, sample: pl.DataFrame, left: list[Column]) -> tuple[list[str], int]:
    """The dimensions that name a row, and how many rows of the sample they do not tell apart.

    A column that tells them apart and is not used yet becomes a dimension.
    """
    repeated = _repeated(found, sample)
    free = next((name for name in ("placement", "ad_product", "ad_id") if name not in found.fields), None)
    if repeated and free and _deltas(left) is None:
        for column in left:
            few = not column.numeric and len(set(column.values)) > 1 and max(map(len, column.values)) <= 80
            if few and not date_format(column.values) and not _repeated(found, sample, column):
                found.fields[free] = f"{{from: {_quote(column.header)}}}  # CHECK: tells rows apart; is it the {free}?"
                found.columns[free] = column
                found.ignore.remove(column.header)
                repeated = 0
                break
    names = [n for n in rmis.DIMENSIONS if n in found.columns]
    names = [n for n in names if not (n.endswith("_name") and n.replace("_name", "_id") in names)]
    if "hour" in found.fields:
        names.append("hour")
    return names, repeated


def _repeated(found: Draft, sample: pl.DataFrame, also: Column | None = None) -> int:
    headers = {
        found.columns[n].header
        for n in (*rmis.DIMENSIONS, "hour", "date", "period_start", "period_end", "currency")
        if n in found.columns
    }
    headers |= {also.header} if also is not None else set()
    if not headers or not sample.height:
        return 0
    rows = sample.drop(ROW).unique()
    return int(rows.select(pl.struct(sorted(headers)).is_duplicated().sum()).item())


def _deltas(columns: list[Column]) -> Column | None:
    """The column by which messages are told apart that may be delivered twice and are to be added up."""
    return next((c for c in columns if re.search("idempotency|messageid|eventid|recorduuid|insertid", c.name)), None)


def _write(
    feed: Feed,
    network: str,
    report: str,
    found: Draft,
    decimal: str,
    key: list[str],
    repeated: int,
    columns: list[Column],
    deltas: Column | None,
) -> str:
    grain = _grain(found)
    span = "period_start" in found.fields
    form = found.fields.get("date", "")
    period = found.period or (
        "span"
        if span
        else "week"
        if ("iso_week" in form or _weekly(found))
        else "month"
        if "'month'" in form
        else "day"
    )
    if "date" not in found.fields and not span and not found.marks and not found.period:
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
    dialect, note = [], ""
    encoding = str(feed.details.get("encoding", "utf-8"))
    if encoding != "utf-8":
        dialect.append(f"encoding: {encoding}")
        note = "  # CHECK: are the letters right?"
    if decimal == ",":
        dialect.append("decimal: ','")
    if decimal == "?":
        dialect.append(f"decimal: {FILL_IN}")
        note += "  # '.' or ',': is 1.234 one and a bit, or a thousand?"
    if dialect:
        lines.append(f"dialect: {{{', '.join(dialect)}}}{note}")
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
        if found.twins:
            lines.append(
                "  # CHECK: these read like one above; where they differ (window, scope, channel), say so and take them in"
            )
            lines += [f"  # - {text}" for text in found.twins]
    if key:
        lines.append(f"key: [{', '.join(key)}]")
    updates = "extracted_at" in found.columns and len(set(found.columns["extracted_at"].values)) > 1
    if deltas is not None:
        lines.append(
            f"on_duplicate: sum  # CHECK: {deltas.header} tells messages apart: repeats are dropped, the rest is added up"
        )
    elif repeated and updates:
        lines.append(
            f"on_duplicate: last  # CHECK: {repeated} rows of the sample share a key; the newest {found.columns['extracted_at'].header} stands"
        )
    elif repeated:
        lines.append(
            f"on_duplicate: {FILL_IN}  # {repeated} rows of the sample share a key: sum (parts of one thing), last (the later"
            " row restates), or reject (and add the dimension that is missing)"
        )
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
        for header in found.ignore:
            hint = found.suggested.get(header)
            lines.append(f"  - {_quote(header)}" + (f"  # SUGGESTED: {hint}" if hint else ""))
    lines.append("restated_days: 14  # CHECK: how long the network restates its numbers")
    return "\n".join(lines) + "\n"


def _weekly(found: Draft) -> bool:
    column = found.columns.get("date")
    if column is None or "week" not in column.name:
        return False
    return "hour" not in found.fields


def _totals(found: Draft) -> str | None:
    """The column in which a totals row says so."""
    names = ("date", "period_start", "period_end", *rmis.DIMENSIONS)
    return next((found.columns[n].header for n in names if n in found.columns and found.columns[n].has_total), None)
