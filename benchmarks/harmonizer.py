"""Amazon search-term exports through the harmonizer, against a bare polars copy and the same rules in pandas.

Each side runs in its own process, so that peak memory is its own. The rows are made up in the shape of the console
export (24 columns, 20 of them read).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, median_seconds

ALONE = True
NOTE = (
    "bare polars: the file scanned with its types given, dates and money cast, written to Parquet. pandas: the same numbers,"
    " dates, exact money, key and row hash, rules, warnings, long outcomes and duplicates, vectorised, at the size pandas can hold."
)
PIECE = 500_000
CODES = ["USD", "EUR", "GBP", "CAD", "MXN", "AUD", "JPY", "INR"]
WORDS = [
    "oat",
    "milk",
    "bar",
    "snack",
    "protein",
    "organic",
    "gluten",
    "free",
    "dark",
    "chocolate",
    "mini",
    "pack",
    "family",
    "size",
    "low",
    "sugar",
    "vegan",
]


def make(path: Path, rows: int) -> None:
    """An export of so many rows, no two of one key, the same for every run."""
    import numpy as np
    import polars as pl

    with path.open("wb") as file:
        for first in range(0, rows, PIECE):
            count = min(PIECE, rows - first)
            rng = np.random.default_rng(first)
            number = np.arange(first, first + count)
            impressions = rng.integers(1, 5000, count)
            clicks = rng.binomial(impressions, 0.01)
            cents = rng.integers(20, 300, count) * clicks
            orders = rng.binomial(clicks, 0.1)
            own = rng.integers(500, 4000, count) * orders
            other = rng.integers(0, 900, count) * orders
            day = np.datetime64("2024-04-01") + number % 30
            words = np.array(WORDS)
            term = words[rng.integers(0, 16, count)] + " " + words[rng.integers(0, 16, count)]

            def money(cents: object) -> pl.Series:
                return (pl.Series(cents).cast(pl.Decimal(20, 2)) / 100).cast(pl.Decimal(20, 2))

            table = pl.DataFrame(
                {
                    "Start Date": day.astype(str),
                    "End Date": day.astype(str),
                    "Portfolio name": "Snacks",
                    "Currency": "USD",
                    "Campaign Name": pl.Series(number % 400).cast(pl.String).str.replace("^", "SP campaign "),
                    "Ad Group Name": pl.Series(number % 37).cast(pl.String).str.replace("^", "group "),
                    "Targeting": term,
                    "Match Type": np.array(["BROAD", "PHRASE", "EXACT", "-"])[number % 4],
                    "Customer Search Term": pl.Series(term) + " " + pl.Series(number).cast(pl.String),
                    "Impressions": impressions,
                    "Clicks": clicks,
                    "Click-Thru Rate (CTR)": clicks / impressions,
                    "Cost Per Click (CPC)": np.where(clicks > 0, cents / np.maximum(clicks, 1) / 100, np.nan),
                    "Spend": money(cents),
                    "7 Day Total Sales ($)": money(own + other),
                    "Advertising Cost of Sales (ACOS) ": np.where(own > 0, cents / np.maximum(own + other, 1), np.nan),
                    "Return on Advertising Spend (ROAS)": np.where(
                        cents > 0, (own + other) / np.maximum(cents, 1), 0.0
                    ),
                    "7 Day Total Orders (#)": orders,
                    "7 Day Total Units (#)": orders * 2,
                    "7 Day Conversion Rate": np.where(clicks > 0, orders / np.maximum(clicks, 1), 0.0),
                    "7 Day Advertised SKU Units (#)": orders,
                    "7 Day Other SKU Units (#)": orders,
                    "7 Day Advertised SKU Sales ($)": money(own),
                    "7 Day Other SKU Sales ($)": money(other),
                }
            ).with_columns(pl.selectors.float().fill_nan(None))
            table.write_csv(file, include_header=first == 0)


def ours(source: Path, out: Path) -> int:
    from retailers.connectors.files import open_feed
    from retailers.domain import harmonizer
    from retailers.domain import mapping as mappings

    mapping = mappings.shipped("amazon/sp_search_term")
    with open_feed(source, mapping.dialect, mapping.wanted) as feed:
        return int(harmonizer.run(feed, mapping, out)["rows_accepted"])


def polars(source: Path, out: Path) -> int:
    import polars as pl

    frame = pl.scan_csv(source, infer_schema=False)
    money = [name for name in frame.collect_schema() if "Spend" in name or "Sales ($)" in name]
    counts = ["Impressions", "Clicks", *(n for n in frame.collect_schema() if "(#)" in n)]
    ratios = ["Click-Thru Rate (CTR)", "Cost Per Click (CPC)", "7 Day Conversion Rate"]
    cast = frame.with_columns(
        pl.col("Start Date", "End Date").str.to_date("%Y-%m-%d"),
        pl.col(counts).cast(pl.Int64),
        pl.col(n for n in money if n != "Return on Advertising Spend (ROAS)").cast(pl.Decimal(38, 6)),
        pl.col(ratios).cast(pl.Float64),
    )
    cast.sink_parquet(out / "copy.parquet", compression="zstd", compression_level=1)
    return int(pl.scan_parquet(out / "copy.parquet").select(pl.len()).collect().item())


def pandas(source: Path, out: Path) -> int:
    """What ``ours`` gives of these columns, as pandas can say it: exact money through Arrow's decimals, SHA-256 and BLAKE2 by hashlib."""
    from functools import reduce
    from hashlib import blake2b, sha256
    from operator import add

    import numpy as np
    import pandas as pd
    import pyarrow as pa

    decimal = pd.ArrowDtype(pa.decimal128(38, 6))
    raw = pd.read_csv(source, dtype=str, keep_default_na=False)
    key = ["Start Date", "End Date", "Currency", "Campaign Name", "Ad Group Name", "Targeting", "Match Type", "Customer Search Term"]  # fmt: skip
    frame = raw[key].apply(lambda column: column.str.strip())
    frame["Match Type"] = frame["Match Type"].str.lower()
    text = frame[key].copy()
    for name in ("Start Date", "End Date"):
        frame[name] = pd.to_datetime(raw[name], format="%Y-%m-%d", errors="coerce")
    counts = ["Impressions", "Clicks"]
    money = ["Spend"]
    outcomes = [name for name in raw if name.startswith("7 Day") and ("($)" in name or "(#)" in name)]
    wrong = []
    for name in (*counts, *money, *outcomes):
        plain = raw[name].str.strip().str.replace(",", "", regex=False)
        bad = ~plain.str.fullmatch(r"-?[0-9]+(\.[0-9]*)?") & (plain != "")
        wrong.append(bad)
        plain = plain.mask(bad | (plain == ""))
        frame[name] = pd.to_numeric(plain).astype("Int64") if name in counts else plain.astype("string[pyarrow]").astype(decimal)  # fmt: skip
    rules = [
        *wrong,
        *[frame[name].isna() for name in ("Start Date", "End Date")],
        ~text["Currency"].isin(CODES),
        *[text[name] == "" for name in ("Campaign Name", "Ad Group Name", "Customer Search Term")],
        *[text[name].str.len() > most for name, most in (("Campaign Name", 240), ("Ad Group Name", 240), ("Customer Search Term", 400))],
        *[(frame[name] < 0).fillna(value=True).astype(bool) for name in (*counts, *money)],
        frame["End Date"] < frame["Start Date"],
    ]  # fmt: skip
    rule = np.select([one.to_numpy(bool) for one in rules], range(1, len(rules) + 1), 0)
    ctr = pd.to_numeric(raw["Click-Thru Rate (CTR)"], errors="coerce")
    cpc = pd.to_numeric(raw["Cost Per Click (CPC)"], errors="coerce")
    clicks, shown = frame["Clicks"].astype(float), frame["Impressions"].astype(float)
    orders = frame["7 Day Total Orders (#)"].astype(float)
    flags = {
        "clicks_over_impressions": clicks > shown,
        "orders_over_clicks": orders > clicks,
        "ctr_mismatch": (ctr - clicks / shown).abs() > 0.02 * ctr,
        "cpc_mismatch": (cpc - frame["Spend"].astype(float) / clicks).abs() > 0.02 * cpc,
    }
    frame["warnings"] = reduce(add, [np.where(flag, f"{name},", "").astype(object) for name, flag in flags.items()])
    whole = reduce(add, [',"' + name + '":"' + text[name] + '"' for name in key], '{"grain":"search_term"') + "}"
    values = reduce(
        add,
        [
            frame[name].astype("string[pyarrow]").fillna("").astype(object) + "|"
            for name in (*counts, *money, *outcomes)
        ],
    )
    frame["row_key"] = [sha256(one.encode()).hexdigest() for one in whole]
    frame["row_hash"] = [blake2b(one.encode(), digest_size=32).hexdigest() for one in values]
    raw[rule != 0].to_parquet(out / "quarantine.parquet")
    frame = frame[rule == 0].drop_duplicates(["row_key", "row_hash"]).drop_duplicates("row_key")
    parts = []
    for name in outcomes:  # one at a time: a melt of decimals goes cell by cell
        part = frame.loc[frame[name].notna(), ["row_key", "Currency", name]].rename(columns={name: "value"})
        scope = "all" if "Total" in name else "same_sku" if "Advertised" in name else "halo"
        kind = next(word.lower() for word in ("Sales", "Orders", "Units") if word in name)
        parts.append(part.assign(metric=kind, window_days=7, interaction="click", model="last_touch", scope=scope))
    long = pd.concat(parts, ignore_index=True)
    long.to_parquet(out / "outcomes.parquet", compression="zstd")
    frame.drop(columns=outcomes).to_parquet(out / "metrics.parquet", compression="zstd")
    long.groupby(["metric", "window_days", "interaction", "model", "scope", "Currency"])["value"].sum()
    frame.groupby("Currency")[["Impressions", "Clicks", "Spend"]].sum()
    return len(frame)


def measure(side: str, source: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-m", "benchmarks.harmonizer", side, str(source), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def rows(size: str) -> list[Row]:
    millions = (1, 10, 20) if size == "full" else (0.1, 0.5, 1)
    few = 2_000_000 if size == "full" else 200_000
    found: list[Row] = []
    took: dict[float, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for many in millions:
            source = Path(folder) / "export.csv"
            make(source, int(many * 1_000_000))
            took[many] = measure("ours", source)
            if many == millions[1]:
                bare = measure("polars", source)
        source = Path(folder) / "few.csv"
        make(source, few)
        mine, theirs = measure("ours", source), measure("pandas", source)
    middle = took[millions[1]]
    what = f"{middle['rows']:,.0f} search-term rows to Parquet"
    ratio = middle["seconds"] / bare["seconds"]
    found.append(Row(f"{what}, time", middle["seconds"], "s", "bare polars scan, cast, sink", bare["seconds"], "at most 3 times it", ratio <= 3))  # fmt: skip
    found.append(Row(f"{what}, peak memory", middle["peak_gb"], "GB", "bare polars", bare["peak_gb"], "at most 1.5 GB", middle["peak_gb"] <= 1.5))  # fmt: skip
    speed = theirs["seconds"] / mine["seconds"]
    found.append(Row(f"{few:,} rows, time", mine["seconds"], "s", "the same rules in vectorised pandas", theirs["seconds"], "at least 4 times faster", speed >= 4))  # fmt: skip
    found.append(Row(f"{few:,} rows, peak memory", mine["peak_gb"], "GB", "pandas", theirs["peak_gb"]))
    per = {many: one["seconds"] / many for many, one in took.items()}
    growth = per[millions[2]] / per[millions[0]]
    found.append(Row(f"a million rows at {millions[2]} M", per[millions[2]], "s", f"ours at {millions[0]} M", per[millions[0]], "linear: at most 1.2 times it", growth <= 1.2))  # fmt: skip
    found.append(Row(f"{millions[2]} M rows, peak memory", took[millions[2]]["peak_gb"], "GB"))
    found += loading(1_000_000 if size == "full" else 20_000)
    found.append(codes(2_000_000 if size == "full" else 200_000))
    return found


def load(count: int) -> None:
    """First load, bare COPY and re-load of so many rows, in the database that DATABASE_URL names; prints the seconds."""
    import django

    django.setup()
    import polars as pl
    from django.core.management import call_command
    from django.db import connection, transaction

    from retailers import loads
    from retailers.connectors.files import open_feed
    from retailers.domain import harmonizer
    from retailers.domain import mapping as mappings
    from retailers.models import Brand, FeedLoad, MetricOutcome, PerformanceMetric, Retailer
    from rmn.lib import tenancy

    def timed(work: Callable[[], Any]) -> float:
        with connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    tables = [model._meta.db_table for model in (PerformanceMetric, MetricOutcome)]
    with tenancy.everyone(), tempfile.TemporaryDirectory() as scratch:
        call_command("migrate", verbosity=0)
        brand = Brand.objects.create(slug=f"bench-{os.getpid()}", name="Bench")
        retailer = Retailer.objects.create(slug=f"bench-{os.getpid()}", name="Bench", network="amazon")
        folder, source = Path(scratch), Path(scratch) / "export.csv"
        make(source, count)
        mapping = mappings.shipped("amazon/sp_search_term")
        with open_feed(source, mapping.dialect, mapping.wanted) as feed:
            harmonizer.run(feed, mapping, folder / "first")
        run = FeedLoad.objects.create(brand=brand, retailer=retailer, file_name="export.csv", file_sha256="0" * 64)
        first = timed(lambda: loads.upsert(folder / "first", run, mapping))

        def bare() -> None:
            with transaction.atomic(), connection.cursor() as cursor:
                for table in tables:
                    with cursor.copy(f"COPY {table} FROM STDIN") as copy, (folder / table).open("rb") as file:
                        while piece := file.read(1 << 20):
                            copy.write(piece)

        with connection.cursor() as cursor:
            for table in tables:
                with cursor.copy(f"COPY {table} TO STDOUT") as copy, (folder / table).open("wb") as file:
                    for part in copy:
                        file.write(part)
            cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
        copied = timed(bare)
        (folder / "second").mkdir()
        hundredth = pl.col("row_number") % 100 == 0
        pl.scan_parquet(folder / "first/metrics.parquet").with_columns(
            spend=pl.when(hundredth).then(pl.col("spend") + 1).otherwise("spend"),
            row_hash=pl.when(hundredth).then(pl.col("row_hash").str.reverse()).otherwise("row_hash"),
            extracted_at=pl.col("extracted_at") + pl.duration(days=1),
        ).sink_parquet(folder / "second/metrics.parquet")
        for name in ("outcomes.parquet", "quarantine.parquet"):
            (folder / "second" / name).hardlink_to(folder / "first" / name)
        counts: dict[str, int] = {}
        again = timed(lambda: counts.update(loads.upsert(folder / "second", run, mapping)))
        assert counts["restated"] == len(range(100, count + 2, 100)), counts  # rows 2 to count + 1
    print(json.dumps({"first": first, "copied": copied, "again": again}))


def loading(count: int) -> list[Row]:
    """In an empty PostgreSQL database that may be filled, which RMN_BENCH_DATABASE_URL names."""
    url = os.environ.get("RMN_BENCH_DATABASE_URL", "")
    if not url.startswith("postgres"):
        print("RMN_BENCH_DATABASE_URL names no PostgreSQL database: loading is left out", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as scratch:
        values = {
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "rmn.settings",
            "RMN_VAR": scratch,
            "RMN_LOG_LEVEL": "ERROR",
        }
        command = [sys.executable, "-m", "benchmarks.harmonizer", "load", str(count), ""]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **values})
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    took = json.loads(done.stdout.strip().splitlines()[-1])
    share = took["copied"] / took["first"]
    again = took["again"] / took["first"]
    what = f"{count:,} metrics with {7 * count:,} outcomes into PostgreSQL"
    return [
        Row(f"{what}, first load", took["first"], "s", "bare COPY into the same tables and indexes", took["copied"], "at least 0.4 of its rows/s", share >= 0.4),
        Row("the same, re-loaded with 1 % changed", took["again"], "s", "our first load", took["first"], "at most a quarter of its time", again <= 0.25),
    ]  # fmt: skip


def codes(count: int) -> Row:
    """GTIN-13 and GTIN-14 with right and wrong check digits, looked at all at once."""
    import numpy as np
    import polars as pl

    from retailers.domain import identifiers

    numbers = np.random.default_rng(1).integers(10**11, 10**14, count)
    text = pl.Series(numbers).cast(pl.String)
    speed = count / median_seconds(lambda: identifiers.examine(text), 5)
    return Row("product codes checked", speed, "codes/s", bar="at least 1,000,000/s", holds=speed >= 1e6)


if __name__ == "__main__":
    side, given, target = sys.argv[1:]
    if side == "load":
        load(int(given))
        sys.exit()
    os.environ.setdefault("POLARS_VERBOSE", "0")
    started = time.perf_counter()
    count = {"ours": ours, "polars": polars, "pandas": pandas}[side](Path(given), Path(target))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": count, "seconds": seconds, "cpu": time.process_time(), "peak_gb": peak}))
