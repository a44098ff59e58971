"""20.9 million in-store promotion rows through the harmonizer into Parquet, against a bare polars copy.

Each side runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row

MAPPING = """
mapping: completejourney/promotions
version: 1
seen_on: [completejourney 0.1.0]
grain: product
period: none
fields:
  time_zone: {constant: America/New_York}
  ad_product: {constant: promotion}
  channel: {constant: in_store}
  product_id: {from: product_id, id_type: retailer_sku, required: true}
  account_id: {from: store_id, required: true}
  placement: {from: display_location, required: true}
  ad_group_id: {from: mailer_location, required: true}
  campaign_id: {from: week, required: true}
key: [product_id, account_id, placement, ad_group_id, campaign_id]
"""


def ours(source: Path, out: Path) -> int:
    from retailers.connectors.files import open_feed
    from retailers.domain import harmonizer
    from retailers.domain import mapping as mappings

    mapping = mappings.parse(MAPPING)
    with open_feed(source, mapping.dialect, mapping.wanted) as feed:
        return int(harmonizer.run(feed, mapping, out)["rows_accepted"])


def peer(source: Path, out: Path) -> int:
    import polars as pl

    text = pl.scan_parquet(source).select(pl.all().cast(pl.String))
    text.sink_parquet(out / "copy.parquet", compression="zstd", compression_level=1)
    return int(pl.scan_parquet(out / "copy.parquet").select(pl.len()).collect().item())


def measure(side: str, source: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.promotions", side, str(source), folder],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def rows(size: str) -> list[Row]:
    import polars as pl

    from retailers.domain.demo_feeds import find_data

    source = find_data() / "promotions.parquet"
    with tempfile.TemporaryDirectory() as folder:
        if size == "small":
            cut = Path(folder) / "cut.parquet"
            pl.scan_parquet(source).head(1_000_000).sink_parquet(cut)
            source = cut
        mine, copy = measure("ours", source), measure("peer", source)
    count = f"{mine['rows']:,.0f} promotion rows to Parquet"
    peer_name = "polars casts and copies the same file"
    return [
        Row(
            f"{count}, peak memory",
            mine["peak_gb"],
            "GB",
            peer_name,
            copy["peak_gb"],
            "under 2 GB",
            mine["peak_gb"] < 2,
        ),
        Row(f"{count}, time", mine["seconds"], "s", peer_name, copy["seconds"]),
    ]


if __name__ == "__main__":
    side, given, out = sys.argv[1:]
    started = time.perf_counter()
    count = {"ours": ours, "peer": peer}[side](Path(given), Path(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": count, "seconds": time.perf_counter() - started, "peak_gb": peak}))
