"""Feeds of networks that no mapping is shipped for, in the shapes their reports have; the numbers are made up."""

from __future__ import annotations

import datetime
import gzip
import json
import zipfile

import openpyxl
import pytest

from retailers.connectors.files import open_feed
from retailers.domain import harmonizer, infer
from retailers.domain import mapping as mappings


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unseen")

    def w(name, text, encoding="utf-8"):
        (folder / name).write_bytes(text.encode(encoding))

    w(
        "kroger.csv",
        """Kroger Precision Marketing - Onsite Product Listing Ads,,,,,,,,,,
Advertiser: Acme Foods,,,,,,,,,,
Report Period: 03/29/2026 to 04/25/2026,,,,,,,,,,
Currency: USD,,,,,,,,,,
,,,,,,,,,,
Week Ending,Campaign ID,Campaign Name,UPC,Product Description,Impressions,Clicks,CTR,Ad Spend,Attributed Sales,Attributed Units
04/04/2026,88213,Spring Snacks,0001111040101,"Kroger Chips, 8 oz","12,450",132,1.06%,"$1,245.50","$4,980.10",1220
04/11/2026,88213,Spring Snacks,0001111040101,"Kroger Chips, 8 oz","10,100",98,0.97%,$988.00,"$3,500.00",900
04/18/2026,88213,Spring Snacks,0001111040102,"Kroger Dip","2,000",10,0.50%,$50.25,$75.00,20
Total,,,,,"24,550",240,0.98%,"$2,283.75","$8,555.10",2140
""",
    )
    w(
        "citrusad.csv",
        """ingressedAt,teamName,walletName,campaignId,campaignName,productCode,slotType,searchTerm,impressions,clicks,adSpend,salesRevenue,unitsSold,conversions,ctr,roas,currencyCode
2026-04-01T00:00:00.000Z,Acme,Main,c-1,Autumn,SKU-9,SEARCH,oat milk,1000,20,15.40,80.00,12,9,0.02,5.19,AUD
2026-04-01T00:00:00.000Z,Acme,Main,c-1,Autumn,SKU-9,CATEGORY,,500,5,3.10,0,0,0,0.01,0,AUD
2026-04-02T00:00:00.000Z,Acme,Main,c-1,Autumn,SKU-10,SEARCH,milk,200,2,1.99,12.50,2,2,0.01,6.28,AUD
""",
    )
    w(
        "uber.json",
        json.dumps(
            {
                "status": "ok",
                "data": {
                    "advertiser_id": "adv-1",
                    "time_zone": "America/Los_Angeles",
                    "reports": [
                        {
                            "report_date": f"2026-04-0{d}",
                            "campaign": {"uuid": f"u{c}", "name": f"C{c}"},
                            "metrics": {
                                "impressions": 1000 * d,
                                "clicks": 10 * d,
                                "ad_spend": {"amount_e5": 1234500 * d, "currency_code": "USD"},
                                "orders": d,
                                "attributed_sales": {"amount_e5": 9876500 * d, "currency_code": "USD"},
                            },
                        }
                        for d in (1, 2)
                        for c in (1, 2)
                    ],
                },
            }
        ),
    )
    w(
        "zalando.csv",
        """Datum;Kampagnen-ID;Kampagne;Artikel-SKU;Sichtkontakte;Klicks;CTR;Werbeausgaben (€);Bestellwert (GMV) (€);Verkaufte Artikel
01.04.2026;4711;Sommer;AC-123;12.345;150;1,22 %;1.234,56 €;5.000,00 €;45
02.04.2026;4711;Sommer;AC-123;10.000;100;1,00 %;987,60 €;3.210,50 €;30
""",
    )
    w(
        "bol.csv",
        """"Datum","Campagne","Vertoningen","Klikken","CTR","Omzet","Conversies","Uitgaven","Gem. CPC","ACOS","ROAS"
"2026-04-01","Lente","1200","24","2,00","150,50","3","12,75","0,53","8,47","11,80"
"2026-04-02","Lente","1000","10","1,00","99,95","2","5,25","0,53","5,25","19,04"
""",
    )
    w(
        "mercado.json",
        json.dumps(
            {
                "paging": {"total": 2, "offset": 0, "limit": 50},
                "results": [
                    {
                        "campaign_id": 355,
                        "name": "Hot Sale",
                        "status": "active",
                        "currency_id": "ARS",
                        "metrics": [
                            {
                                "date": "2026-04-01",
                                "prints": 15000,
                                "clicks": 120,
                                "cost": 35420.55,
                                "cpc": 295.17,
                                "acos": 12.3,
                                "direct_amount": 150000.0,
                                "indirect_amount": 20000.5,
                                "total_amount": 170000.5,
                                "direct_units_quantity": 10,
                                "indirect_units_quantity": 2,
                                "units_quantity": 12,
                            },
                            {
                                "date": "2026-04-02",
                                "prints": 1000,
                                "clicks": 12,
                                "cost": 3542.05,
                                "cpc": 295.17,
                                "acos": 12.3,
                                "direct_amount": 15000.0,
                                "indirect_amount": 0,
                                "total_amount": 15000.0,
                                "direct_units_quantity": 1,
                                "indirect_units_quantity": 0,
                                "units_quantity": 1,
                            },
                        ],
                    }
                ],
            }
        ),
    )
    w(
        "tesco.csv",
        """Tesco Media & Insight Platform\r
Campaign: Easter Treats (REF 10023)\r
All values in GBP, incl. VAT\r
\r
Week Commencing,Channel,Placement,Impressions,Clicks,Media Spend (£),Attributed Sales (£),Units Sold,New Customers\r
30-Mar-26,Onsite,Favourites Banner,"45,000",320,"£1,500.00","£6,210.40","1,050",230\r
06-Apr-26,Onsite,Search,"20,000",500,£800.50,"£4,000.00",900,110\r
""",
    )
    w(
        "coupang.csv",
        """날짜,캠페인 ID,캠페인명,광고그룹,광고집행 상품명,노출수,클릭수,광고비,클릭률,총 주문수(14일),총 판매수량(14일),총 전환매출액(14일),직접 전환매출액(14일),간접 전환매출액(14일)
20260401,301,봄,그룹1,과자,15230,210,125400,1.38%,25,30,"612,000","500,000","112,000"
20260402,301,봄,그룹1,과자,12000,150,98000,1.25%,18,20,"450,000","450,000",0
""",
    )
    w(
        "flipkart.csv",
        """Start Time,2026-04-01 00:00:00
End Time,2026-04-30 23:59:59
Campaign ID,Campaign Name,Sku Id,Product Name,Views,Clicks,Direct Units Sold,Indirect Units Sold,Total Revenue (Rs.),Ad Spend,ROI
QX1,Diwali,SK1,Tea,"1,20,000",2400,120,30,"1,00,000.50","15,250.75",6.56
QX1,Diwali,SK2,Coffee,50000,700,20,5,"20,000.00","4,000.00",5
""",
    )
    w(
        "tiktok.json",
        json.dumps(
            {
                "code": 0,
                "message": "OK",
                "data": {
                    "list": [
                        {
                            "dimensions": {"stat_time_hour": f"2026-04-01 {h:02}:00:00", "campaign_id": "1790"},
                            "metrics": {
                                "campaign_name": "Glow",
                                "currency": "IDR",
                                "spend": f"{1000 + h}.50",
                                "impressions": str(100 + h),
                                "clicks": str(h),
                                "complete_payment": "1",
                                "total_complete_payment_value": "5000.25",
                            },
                        }
                        for h in range(24)
                    ],
                    "page_info": {"total_number": 24, "page": 1, "page_size": 1000, "total_page": 1},
                },
            }
        ),
    )
    w(
        "meta.csv",
        """Reporting starts,Reporting ends,Campaign name,Campaign ID,Campaign delivery,Amount spent (EUR),Impressions,Reach,Link clicks,Purchases,Purchases conversion value,Purchase ROAS (return on ad spend)
2026-04-01,2026-04-01,Summer,120210,active,120.55,15000,9000,230,12,640.40,5.312
2026-04-02,2026-04-02,Summer,120210,active,99.45,14000,8500,200,9,500.10,5.029
""",
        "utf-8-sig",
    )
    w(
        "meta_api.json",
        json.dumps(
            {
                "data": [
                    {
                        "date_start": f"2026-04-0{d}",
                        "date_stop": f"2026-04-0{d}",
                        "account_id": "77",
                        "account_currency": "BRL",
                        "campaign_id": "9",
                        "campaign_name": "X",
                        "impressions": "1000",
                        "clicks": "20",
                        "spend": "33.10",
                        "actions": [
                            {"action_type": "purchase", "value": "3"},
                            {"action_type": "add_to_cart", "value": "8"},
                        ],
                        "action_values": [{"action_type": "purchase", "value": "150.75"}],
                    }
                    for d in (1, 2)
                ],
                "paging": {"cursors": {"before": "a", "after": "b"}},
            }
        ),
    )
    w(
        "snapchat.json",
        json.dumps(
            {
                "request_status": "SUCCESS",
                "timeseries_stats": [
                    {
                        "sub_request_status": "SUCCESS",
                        "timeseries_stat": {
                            "id": "22ad",
                            "type": "CAMPAIGN",
                            "granularity": "HOUR",
                            "timeseries": [
                                {
                                    "start_time": f"2026-04-01T{h:02}:00:00.000-07:00",
                                    "end_time": f"2026-04-01T{h + 1:02}:00:00.000-07:00",
                                    "stats": {
                                        "impressions": 100,
                                        "swipes": 5,
                                        "spend": 4630000,
                                        "conversion_purchases": 1,
                                        "conversion_purchases_value": 12500000,
                                    },
                                }
                                for h in range(5)
                            ],
                        },
                    }
                ],
            }
        ),
    )
    w(
        "shopee.json",
        json.dumps(
            {
                "error": "",
                "response": {
                    "shop_id": 99,
                    "region": "TH",
                    "total": 3,
                    "campaign_list": [
                        {
                            "campaign_id": 5001,
                            "ad_name": "Flash",
                            "metrics_list": [
                                {
                                    "timestamp": 1775001600 + 86400 * d,
                                    "impression": 1000 + d,
                                    "clicks": 20,
                                    "expense": 1250000000,
                                    "broad_gmv": 99000000000,
                                    "direct_gmv": 50000000000,
                                    "broad_order": 9,
                                    "direct_order": 4,
                                    "broad_item_sold": 12,
                                }
                                for d in range(3)
                            ],
                        }
                    ],
                },
            }
        ),
    )
    w(
        "ebay.tsv",
        """Day\tCampaign name\tCampaign ID\tListing ID\tImpressions\tClicks\tAd fees (general)\tSales\tQuantity sold
Apr 1, 2026\tPLS\t110\t2560001\t1,000\t12\t$3.45\t$45.00\t2
Apr 2, 2026\tPLS\t110\t2560001\t900\t8\t$2.05\t$0.00\t0
""",
    )
    w(
        "carrefour.csv",
        """Date;Enseigne;Campagne;Groupe d'annonces;Impressions;Clics;Taux de clic;Dépenses (€);Ventes attribuées (€);Commandes;Unités vendues
01/04/2026;Carrefour;Printemps;G1;12\u202f345;150;1,22\u00a0%;1\u202f234,56\u00a0€;5\u202f000,00\u00a0€;40;52
15/04/2026;Carrefour;Printemps;G1;2\u00a0000;20;1,00\u00a0%;98,10\u00a0€;210,40\u00a0€;3;4
""",
    )
    w(
        "rakuten.csv",
        """レポート期間,2026年04月01日~2026年04月02日
日付,キャンペーン名,商品管理番号,表示回数,クリック数,CTR(%),実績額(合計),CPC実績(合計),売上金額(合計720時間),売上件数(合計720時間)
2026年04月01日,春,item-1,"10,200",120,1.18,"3,600",30,"45,000",5
2026年04月02日,春,item-1,"9,000",100,1.11,"3,000",30,"20,000",2
""",
        "cp932",
    )
    w(
        "allegro.csv",
        """Data;Kampania;Grupa reklam;Odsłony;Kliknięcia;CTR;Koszt [PLN];Sprzedaż [PLN];Liczba sprzedanych sztuk
2026-04-01;Wiosna;Główna;12 345;150;1,22%;1 234,56;5 000,00;45
2026-04-02;Wiosna;Główna;2 000;20;1,00%;98,10;210,40;4
""",
        "cp1250",
    )
    w(
        "stream.ndjson",
        "".join(
            json.dumps(r) + "\n"
            for r in [
                {
                    "idempotency_id": "a",
                    "dataset_id": "sp-traffic",
                    "marketplace_id": "M",
                    "currency": "USD",
                    "advertiser_id": "A",
                    "campaign_id": "c",
                    "ad_group_id": "g",
                    "time_window_start": "2026-04-01T00:00:00Z",
                    "clicks": 2,
                    "impressions": 100,
                    "cost": 1.5,
                },
                {
                    "idempotency_id": "a",
                    "dataset_id": "sp-traffic",
                    "marketplace_id": "M",
                    "currency": "USD",
                    "advertiser_id": "A",
                    "campaign_id": "c",
                    "ad_group_id": "g",
                    "time_window_start": "2026-04-01T00:00:00Z",
                    "clicks": 2,
                    "impressions": 100,
                    "cost": 1.5,
                },
                {
                    "idempotency_id": "b",
                    "dataset_id": "sp-traffic",
                    "marketplace_id": "M",
                    "currency": "USD",
                    "advertiser_id": "A",
                    "campaign_id": "c",
                    "ad_group_id": "g",
                    "time_window_start": "2026-04-01T00:00:00Z",
                    "clicks": 1,
                    "impressions": 50,
                    "cost": 0.5,
                },
                {
                    "idempotency_id": "c",
                    "dataset_id": "sp-traffic",
                    "marketplace_id": "M",
                    "currency": "USD",
                    "advertiser_id": "A",
                    "campaign_id": "c",
                    "ad_group_id": "g",
                    "time_window_start": "2026-04-01T01:00:00Z",
                    "clicks": 0,
                    "impressions": 10,
                    "cost": 0,
                },
            ]
        ),
    )
    w(
        "columnar.json",
        json.dumps(
            {
                "report": {"currency": "CHF", "generated_at": "2026-04-05T06:00:00Z"},
                "data": {
                    "date": ["2026-04-01", "2026-04-02"],
                    "campaignId": ["1", "1"],
                    "impressions": [100, 200],
                    "clicks": [1, 2],
                    "spend": [1.25, 2.5],
                    "sales30d": [10, 20.5],
                },
            }
        ),
    )
    with zipfile.ZipFile(folder / "ocado.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(
            "ocado_report.csv",
            "Ocado Ads|||||\nGenerated at: 2026-04-05 06:00|||||\nReport date|Campaign|SKU|Imps|Clicks|Cost GBP|Revenue (same SKU, 14d click)|Revenue (halo, 14d click)\n2026-04-01|Tea|1001|1000|10|5.55|20.00|4.00\n2026-04-02|Tea|1001|900|9|4.45|10.00|0.00\n",
        )
    w(
        "restated.csv",
        """report_date,extract_date,campaign_id,impressions,clicks,spend,sales_14d,currency
2026-04-01,2026-04-02,c1,100,5,10.00,20.00,NOK
2026-04-02,2026-04-03,c1,100,5,11.00,21.00,NOK
2026-04-01,2026-04-03,c1,101,5,10.50,35.00,NOK
2026-04-01,2026-04-09,c1,101,5,10.50,44.00,NOK
""",
    )
    w(
        "hourly.csv",
        """Date,Hour,Campaign,Placement,Impressions,Clicks,Spend (CAD),Orders (7-day post-click),Sales (7-day post-click),Sales (1-day post-view)
"""
        + "".join(
            f"04/{d:02}/2026,{h}:00,Back to School,TOP,{100 + h},{h},{h}.10,1,20.00,5.00\n"
            for d in (13, 14)
            for h in range(24)
        ),
    )
    w(
        "multi.csv",
        """date,country,currency,campaign_id,impressions,clicks,cost,gmv
2026-04-01,SG,SGD,1,100,2,5.50,20
2026-04-01,MY,MYR,2,100,2,15.50,60
2026-04-01,VN,VND,3,100,2,150000,600000
""",
    )
    w(
        "minor.csv",
        """day,campaign,impressions,clicks,spend_cents,revenue_cents,currency
2026-04-01,a,1000,10,1234,5000,SEK
2026-04-02,a,1000,10,1000,4000,SEK
""",
    )
    wb = openpyxl.Workbook()
    ws = wb.active
    ws.title = "Cover"
    ws.append(["Roundel by Target"])
    ws.append(["Prepared for Acme"])
    ws = wb.create_sheet("Daily Performance")
    for r in [
        ["Roundel Media Studio"],
        ["Date range: 04/01/2026 - 04/02/2026"],
        ["Currency", "USD"],
        [],
        [
            "Date",
            "Line Item ID",
            "Line Item Name",
            "TCIN",
            "Product Title",
            "Impressions",
            "Clicks",
            "CTR",
            "Media Spend",
            "Total Attributed Sales (14-day)",
            "In-Store Sales (14-day)",
            "Online Sales (14-day)",
            "Units",
        ],
        [
            datetime.date(2026, 4, 1),
            9001,
            "LI A",
            82345678,
            "Shampoo",
            12000,
            140,
            0.0117,
            210.5,
            1500.25,
            900.25,
            600.0,
            80,
        ],
        [
            datetime.date(2026, 4, 2),
            9001,
            "LI A",
            82345678,
            "Shampoo",
            11000,
            120,
            0.0109,
            180.75,
            1200,
            700,
            500,
            60,
        ],
        ["Grand Total", None, None, None, None, 23000, 260, 0.0113, 391.25, 2700.25, 1600.25, 1100, 140],
    ]:
        ws.append(r)
    wb.save(folder / "roundel.xlsx")
    w(
        "migros.csv",
        """Migros Media Report;;;;
Time zone: Europe/Zurich;;;;
Generated at: 2026-04-20 07:30;;;;

Zeitraum;Kampagne;Impressionen;Klicks;Kosten;Umsatz (14 Tage, Post-Click)
2026-04-01 - 2026-04-07;A;12'345;120;CHF 1'234.50;CHF 5'000.00
2026-04-08 - 2026-04-14;A;10'000;100;CHF 1'000.25;CHF 4'000.00
""",
    )
    w(
        "glovo.json",
        json.dumps(
            {
                "result": {
                    "account": {"id": "acc9", "timezone": "Europe/Madrid"},
                    "items": [
                        {
                            "day": "2026-04-01",
                            "campaign": {"id": 1, "title": "uno"},
                            "stats": {
                                "impressions": 1000,
                                "clicks": 10,
                                "spend": {"amount": "12.34", "currency": "EUR"},
                                "revenue": {"amount": "100.00", "currency": "EUR"},
                                "orders": 3,
                            },
                        },
                        {
                            "day": "2026-04-02",
                            "campaign": {"id": 1, "title": "uno"},
                            "stats": {
                                "impressions": 500,
                                "clicks": 6,
                                "spend": {"amount": "7.66", "currency": "EUR"},
                                "revenue": {"amount": "50.00", "currency": "EUR"},
                                "orders": 1,
                            },
                        },
                    ],
                }
            }
        ),
    )
    w(
        "doordash.json",
        json.dumps(
            {
                "metadata": {
                    "currency": "USD",
                    "columns": [
                        {"id": "date"},
                        {"id": "campaign_id"},
                        {"id": "campaign_name"},
                        {"id": "impressions"},
                        {"id": "clicks"},
                        {"id": "ad_spend"},
                        {"id": "attributed_sales_14d_click"},
                    ],
                },
                "payload": {
                    "count": 2,
                    "rows": [["2026-04-01", "1", "n", 100, 5, 1.5, 20], ["2026-04-02", "1", "n", 100, 5, 2.5, 30.25]],
                },
            }
        ),
    )
    w(
        "sheet.json",
        json.dumps(
            {
                "range": "A1:F3",
                "values": [
                    ["Date", "Campaign", "Impressions", "Clicks", "Cost", "Currency"],
                    ["2026-04-01", "x", "100", "5", "1.50", "DKK"],
                    ["2026-04-02", "x", "100", "5", "2.50", "DKK"],
                ],
            }
        ),
    )
    w(
        "toplist.json",
        json.dumps(
            [
                ["Date", "Campaign", "Impressions", "Clicks", "Cost", "Currency"],
                ["2026-04-01", "x", "100", "5", "1.50", "DKK"],
                ["2026-04-02", "x", "100", "5", "2.50", "DKK"],
            ]
        ),
    )
    rows = [
        {
            "ts": 1775088000000 - 8 * 3600000 + h * 3600000,
            "advertiser": {"id": "a1"},
            "campaign": {"id": "c1", "name": "n"},
            "delivery": {"impressions": 100, "clicks": 2, "cost_micros": 1500000},
            "conversions": {"sales_micros": 9000000, "window_days": 14},
        }
        for h in range(24)
    ]
    (folder / "grab.ndjson.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    w(
        "blinkit.csv",
        """Date,Campaign ID,Campaign Name,Ad Type,Impressions,Clicks,Spends (₹),GMV (₹),Direct GMV (₹),Indirect GMV (₹),Units
15-04-2026,77,Atta,Product Booster,"1,20,000",900,"₹1,00,250.50","₹4,00,000.00","₹3,00,000.00","₹1,00,000.00",1000
16-04-2026,77,Atta,Product Booster,"80,000",600,"₹50,000.00","₹2,00,000.00","₹1,50,000.00","₹50,000.00",500
""",
    )
    w(
        "weekly.csv",
        """week;retailer;campaign;impr;clicks;cost_eur;revenue_eur
2026-W14;Coop;x;1000;10;5,50;20,00
2026-W15;Coop;x;1000;10;4,50;30,00
""",
    )
    w(
        "gopuff.csv",
        ""","Report
Date","Campaign
Name",Impressions,Clicks,"Total
Spend ($)","14-Day Attributed
Sales ($)"
,04/01/2026,Chips,"1,000",10,$5.00,$20.00
,04/14/2026,Chips,"1,000",10,$6.00,$20.00
""",
    )
    w(
        "sams.csv",
        """Report Name: Search Keyword,,,,,,
Run Date: 2026-04-09,,,,,,
,,,,,,
Date,Campaign Id,Bidded Keyword,Match Type,Impressions,Clicks,Ad Spend
2026-04-01,1,milk,exact,100,5,$2.50
2026-04-02,1,milk,exact,100,5,$2.50
TOTAL,,,,200,10,$5.00
"* Data is preliminary for 72 hours. © 2026",,,,,,
""",
    )
    w(
        "ulta.csv",
        """activity_date,campaign_id,line_item_id,impressions,clicks,cost,revenue,currency,last_modified_at
2026-04-01,1,7,110,5,2.50,9.00,USD,2026-04-05T00:00:00Z
2026-04-01,1,7,100,5,2.00,8.00,USD,2026-04-02T00:00:00Z
2026-04-02,1,7,100,5,2.00,8.00,USD,2026-04-03T00:00:00Z
2026-04-02,1,7,100,5,2.00,8.00,USD,2026-04-03T00:00:00Z
""",
    )
    w(
        "otto.csv",
        """Tag;Kampagnen-ID;Impressionen;Klicks;Kosten;Währung
02.04.2026;5;1.200;12;1.234,00;EUR
03.04.2026;5;2.000;20;12,00;EUR
""",
    )
    w(
        "magalu.csv",
        """Data;Campanha;Impressões;Cliques;Custo (R$);Receita (R$);Pedidos
15/04/2026;Verão;10.000;120;R$ 1.234,56;R$ 9.999,00;33
16/04/2026;Verão;9.000;100;R$ 765,44;R$ 1,00;1
""",
        "cp1252",
    )
    w(
        "gojek.json",
        json.dumps(
            {
                "merchant": {"id": "m1", "currency": "IDR", "tz": "Asia/Jakarta"},
                "campaigns": [
                    {
                        "campaignId": "c1",
                        "campaignName": "A",
                        "adGroups": [
                            {
                                "adGroupId": "g1",
                                "hourly": [
                                    {
                                        "hour": "2026-04-01T07:00:00+07:00",
                                        "imp": 100,
                                        "clk": 3,
                                        "spendMicros": 4500000000,
                                        "gmvMicros": 20000000000,
                                    },
                                    {
                                        "hour": "2026-04-01T08:00:00+07:00",
                                        "imp": 50,
                                        "clk": 1,
                                        "spendMicros": 1500000000,
                                        "gmvMicros": 0,
                                    },
                                ],
                            }
                        ],
                    }
                ],
            }
        ),
    )
    w(
        "boots.tsv",
        "Date\tCampaign\tPlacement\tImpressions\tClicks\tGross Spend (GBP)\tNet Spend (GBP)\tSales Value (GBP)\n01/04/2026\tA\tTop\t100\t4\t12.00\t10.00\t55.00\n15/04/2026\tA\tTop\t100\t4\t12.00\t10.00\t55.00\n",
        "utf-16",
    )
    return folder


# file, what a person fills in, rows, impressions, clicks, spend, currency, outcomes of scope all, rows kept apart
EXPECTED = [
    ("allegro.csv", [], 2, 14345, 170, "1332.66", "PLN", {"sales": "5210.40", "units": "49.00"}, {}),
    ("bol.csv", ["EUR"], 2, 2200, 34, "18.00", "EUR", {"sales": "250.45"}, {}),
    ("carrefour.csv", [], 2, 14345, 170, "1332.66", "EUR", {"sales": "5210.40"}, {}),
    ("citrusad.csv", [], 3, 1700, 27, "20.49", "AUD", {"sales": "92.50", "units": "14.00"}, {}),
    ("columnar.json", [], 2, 300, 3, "3.75", "CHF", {"sales": "30.50"}, {}),
    ("coupang.csv", ["KRW"], 2, 27230, 360, "223400.00", "KRW", {"orders": "43.00"}, {}),
    ("ebay.tsv", ["USD"], 2, 1900, 20, "5.50", "USD", {"sales": "45.00"}, {}),
    ("flipkart.csv", ["INR"], 2, 170000, 3100, "19250.75", "INR", {"sales": "120000.50"}, {}),
    ("hourly.csv", [], 48, 5352, 552, None, "CAD", {"orders": "48.00"}, {}),
    ("kroger.csv", [], 3, 24550, 240, "2283.75", "USD", {"sales": "8555.10"}, {}),
    ("mercado.json", [], 2, 16000, 132, "38962.60", "ARS", {}, {}),
    ("meta.csv", [], 2, 29000, 430, "220.00", "EUR", {"orders": "21.00", "sales": "1140.50"}, {}),
    ("meta_api.json", [], 2, 2000, 40, "66.20", "BRL", {"orders": "6.00", "sales": "301.50"}, {}),
    ("minor.csv", [], 2, 2000, 20, "22.34", "SEK", {"sales": "90.00"}, {}),
    ("multi.csv", [], 3, 300, 6, None, None, {}, {}),
    ("ocado.zip", [], 2, 1900, 19, "10.00", "GBP", {}, {}),
    ("rakuten.csv", ["JPY"], 2, 19200, 220, "6600.00", "JPY", {"sales": "65000.00"}, {}),
    ("restated.csv", [], 4, 201, 10, "21.50", "NOK", {"sales": "65.00"}, {"superseded": 2}),
    ("roundel.xlsx", [], 2, 23000, 260, "391.25", "USD", {"units": "140.00"}, {}),
    ("shopee.json", ["THB", "0.00001", "0.00001", "0.00001"], 3, 3003, 60, "37500.00", "THB", {}, {}),
    ("snapchat.json", ["USD", "micro", "micro"], 5, 500, 25, "23.15", "USD", {"sales": "62.50", "orders": "5.00"}, {}),
    ("stream.ndjson", [], 4, 160, 3, "2.00", "USD", {}, {"duplicate_row": 1}),
    ("tesco.csv", [], 2, 65000, 820, "2300.50", "GBP", {"sales": "10210.40"}, {}),
    ("tiktok.json", [], 24, 2676, 276, None, "IDR", {"orders": "24.00", "sales": "120006.00"}, {}),
    ("uber.json", [], 4, 6000, 60, "74.07", "USD", {"sales": "592.59", "orders": "6.00"}, {}),
    ("zalando.csv", [], 2, 22345, 250, "2222.16", "EUR", {"sales": "8210.50", "units": "75.00"}, {}),
    ("migros.csv", [], 2, 22345, 220, "2234.75", "CHF", {"sales": "9000.00"}, {}),
    ("glovo.json", [], 2, 1500, 16, "20.00", "EUR", {"sales": "150.00", "orders": "4.00"}, {}),
    ("doordash.json", [], 2, 200, 10, "4.00", "USD", {"sales": "50.25"}, {}),
    ("sheet.json", [], 2, 200, 10, "4.00", "DKK", {}, {}),
    ("toplist.json", [], 2, 200, 10, "4.00", "DKK", {}, {}),
    ("grab.ndjson.gz", ["SGD", "Asia/Singapore"], 24, 2400, 48, "36.00", "SGD", {}, {}),
    ("blinkit.csv", [], 2, 200000, 1500, "150250.50", "INR", {"sales": "600000.00", "units": "1500.00"}, {}),
    ("weekly.csv", [], 2, 2000, 20, "10.00", "EUR", {"sales": "50.00"}, {}),
    ("gopuff.csv", ["USD"], 2, 2000, 20, "11.00", "USD", {"sales": "40.00"}, {}),
    ("sams.csv", ["USD"], 3, 200, 10, "5.00", "USD", {}, {"missing_key": 1}),
    ("ulta.csv", [], 4, 210, 10, "4.50", "USD", {"sales": "17.00"}, {"duplicate_row": 1, "superseded": 1}),
    ("otto.csv", [], 2, 3200, 32, "1246.00", "EUR", {}, {}),
    ("magalu.csv", [], 2, 19000, 220, "2000.00", "BRL", {"sales": "10000.00", "orders": "34.00"}, {}),
    ("gojek.json", [], 2, 150, 4, "6000.00", "IDR", {"sales": "20000.00"}, {}),
    ("boots.tsv", [], 2, 200, 8, None, "GBP", {"sales": "110.00"}, {}),
]


@pytest.mark.parametrize(
    ("name", "fill", "rows", "impressions", "clicks", "spend", "currency", "outcomes", "reasons"),
    EXPECTED,
    ids=[row[0].split(".")[0] for row in EXPECTED],
)
def test_a_draft_with_its_marked_lines_filled_in_reads_the_report_of_another_network(
    feeds, tmp_path, name, fill, rows, impressions, clicks, spend, currency, outcomes, reasons
):
    with open_feed(feeds / name, infer.UNKNOWN) as feed:
        text = infer.draft(feed, "unseen", "report")
    assert text.count(mappings.FILL_IN) == len(fill), text
    for value in fill:
        text = text.replace(mappings.FILL_IN, value, 1)
    mapping = mappings.parse(text)
    assert [finding for finding in mappings.lint(mapping) if finding.severity == "error"] == []
    with open_feed(feeds / name, mapping.dialect, mapping.wanted) as feed:
        report = harmonizer.run(feed, mapping, tmp_path)
    totals = report["totals"]
    assert (report["rows_read"], totals["impressions"], totals["clicks"]) == (rows, impressions, clicks)
    assert report["currency"] == currency
    assert spend is None or totals["spend"] == spend
    found = {}
    for outcome in report["outcomes"]:
        if outcome["metric"] not in found or outcome["scope"] == "all":
            found[outcome["metric"]] = outcome["value"]
    assert {metric: found.get(metric) for metric in outcomes} == outcomes
    assert report["reasons"] == reasons
    assert report["drift"]["new"] == report["drift"]["missing"] == []
