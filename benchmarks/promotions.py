"""20.9 million in-store promotion rows through the harmonizer into Parquet, against a bare polars copy.

    python -m benchmarks.promotions [--rows N]

Each side runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
            [sys.executable, "-m", "benchmarks.promotions", "--side", side, "--source", str(source), "--out", folder],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0, help="only the first N rows")
    parser.add_argument("--side", choices=["ours", "peer"])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.side:
        started = time.perf_counter()
        rows = {"ours": ours, "peer": peer}[options.side](options.source, options.out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - started, "peak_gb": peak}))
        return
    from retailers.domain.demo_feeds import find_data

    source = find_data() / "promotions.parquet"
    with tempfile.TemporaryDirectory() as folder:
        if options.rows:
            import polars as pl

            cut = Path(folder) / "cut.parquet"
            pl.scan_parquet(source).head(options.rows).sink_parquet(cut)
            source = cut
        sides = {side: measure(side, source) for side in ("ours", "peer")}
    for side, name in (("ours", "harmonizer"), ("peer", "polars cast and copy")):
        found = sides[side]
        print(f"{name:22} {found['rows']:>12,.0f} rows {found['seconds']:8.1f} s {found['peak_gb']:6.2f} GB")
    print(
        f"ratio {sides['ours']['seconds'] / sides['peer']['seconds']:.1f} x the copy's time; below 2 GB: {sides['ours']['peak_gb'] < 2}"
    )


if __name__ == "__main__":
    main()
