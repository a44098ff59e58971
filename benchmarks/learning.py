"""What learning brings on a CPU: the demo's headlines over several seeds, and house style from noisy pairs.

First SFT as the demo does it, on products that nothing was trained on. Then a taste that the copy we
ship does not have: people prefer headlines that state the package size. A quarter of the pairs is
labelled the wrong way round, as people's labels are; DPO must find the taste all the same.

    python -m benchmarks.learning [--seeds 5] [--robust] [--out FILE]

About eight minutes a seed on two idle cores; every seed is kept as it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from agents.domain import briefs
from agents.inference.launcher import connect
from agents.inference.types import Question
from benchmarks.harness import Row
from retailers.domain import policy
from rmn.lib import stats
from training.domain import checks, prompting, starter
from training.lora import config
from training.lora.train import train

BASE = Path(__file__).resolve().parent.parent / "var" / "models" / "base"
NETWORKS = ("instacart", "walmart")
NOISE = 0.25
SHOWN = 60  # products: the catalogue's first list, of which every third is unseen
ALONE = True  # minutes, not seconds: runs only where it is named


def items() -> tuple[list[briefs.Item], list[briefs.Item]]:
    """Items that may train, and items kept unseen."""
    from retailers.domain.demo_feeds import find_data
    from rmn.demo.catalogue import catalogue

    found: tuple[list[briefs.Item], list[briefs.Item]] = ([], [])
    for product in catalogue(find_data())[:SHOWN]:
        for feature in starter.FEATURES:
            item = briefs.Item(product.name, "ACME", product.size, feature, NETWORKS)
            found[product.unseen].append(item)
    return found


def lines(item: briefs.Item) -> tuple[list[str], list[str]]:
    """Passing lines of our own, with the package size and without."""
    made = [
        line.format(brand=item.brand, product=item.product.lower(), size=item.size)
        for line in starter.COPY[item.feature]
        if not ("{size}" in line and not item.size)
    ]
    good = [text[0].upper() + text[1:] for text in made]
    good = [text for text in good if checks.passes(text, item, policy.check)]
    return [text for text in good if sized(text, item)], [text for text in good if not sized(text, item)]


def sized(text: str, item: briefs.Item) -> bool:
    return bool(item.size) and item.size.casefold() in text.casefold()


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def trained(folder: Path, name: str, rows: list[dict[str, Any]], **more: Any) -> tuple[Path, float, float]:
    """The adapter, and the seconds it took: by the clock, and of two cores that do nothing else."""
    data, out = folder / f"{name}.jsonl", folder / "adapters" / name
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = {"base_model": str(BASE), "data": str(data), "out": str(out), "max_length": 192, "save_every": 0} | more
    started, worked = time.monotonic(), time.process_time()
    train(config.parse(given, folder))
    return out, time.monotonic() - started, (time.process_time() - worked) / 2


def judged(client: Any, asked: list[briefs.Item], adapter: Path | None, worked: Any = ()) -> list[dict[str, Any]]:
    name = None
    if adapter is not None:
        name = adapter.name
        client.load(name, str(adapter))

    def one(item: briefs.Item) -> dict[str, Any]:
        messages = prompting.with_examples(item, worked) if worked else briefs.messages(item)
        text = client.generate(Question(messages=messages, adapter=name, max_tokens=24)).text
        good = checks.passes(text, item, policy.check)
        return {"cluster": briefs.cluster(item), "passed": good, "styled": good and sized(text, item), "text": text}

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(one, asked))


def seed_run(seed: int, folder: Path, *, robust: bool = False) -> dict[str, Any]:
    known, unseen = items()
    rng = random.Random(seed)
    copy, pairs = [], []
    for item in known:
        text = starter.shipped(item, policy.check)
        if text:
            copy.append({"prompt": briefs.messages(item), "completion": said(text)})
        with_size, without = lines(item)
        if with_size and without:
            chosen, rejected = rng.choice(with_size), rng.choice(without)
            if rng.random() < NOISE:
                chosen, rejected = rejected, chosen
            pairs.append({"prompt": briefs.messages(item), "chosen": said(chosen), "rejected": said(rejected)})
    rng.shuffle(copy)
    sft, *sft_s = trained(folder, "sft", copy, method="sft", steps=24, batch=8, seed=seed)
    # at 2e-4 it learns the size and loses the length (53 characters where 45 fit): pass fell from .97 to .37
    dpo, *dpo_s = trained(
        folder, "dpo", pairs, method="dpo", parent=str(sft), steps=20, batch=6, learning_rate=5e-5, seed=seed,
        **({"label_smoothing": NOISE} if robust else {}),
    )  # fmt: skip
    with connect("", "tgi", BASE, folder / "adapters") as client:
        found = {"sft": judged(client, unseen, sft), "dpo": judged(client, unseen, dpo)}
        if seed == 0:
            # the plain way to use the pairs: imitate what was chosen, wrong labels and all
            chosen = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]
            same, *_ = trained(folder, "imitate", chosen, method="sft", parent=str(sft), steps=20, batch=6, learning_rate=1e-4, seed=seed)  # fmt: skip
            found["imitate"] = judged(client, unseen, same)
            found["base"] = judged(client, unseen, None)
            found["prompt"] = judged(client, unseen, None, prompting.examples(known, policy.check))
    return {
        "seed": seed,
        "clock_s": sft_s[0] + dpo_s[0],
        "cores_s": sft_s[1] + dpo_s[1],
        "pairs": len(pairs),
        "cases": found,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def rate(run: dict[str, Any], side: str, what: str) -> float:
        return statistics.mean(row[what] for row in run["cases"][side])

    gaps, clusters = [], []
    for run in runs:
        for a, b in zip(run["cases"]["dpo"], run["cases"]["sft"], strict=True):
            gaps.append(float(a["styled"]) - float(b["styled"]))
            clusters.append(a["cluster"])  # a product is one cluster, whatever the seed
    low, high = stats.paired_bootstrap(gaps, clusters)
    first = next((run for run in runs if "base" in run["cases"]), None)
    return {
        "seeds": len(runs),
        "base": rate(first, "base", "passed") if first else None,
        "prompt_alone": rate(first, "prompt", "passed") if first else None,
        "sft_pass": [rate(run, "sft", "passed") for run in runs],
        "dpo_pass": [rate(run, "dpo", "passed") for run in runs],
        "sft_styled": [rate(run, "sft", "styled") for run in runs],
        "dpo_styled": [rate(run, "dpo", "styled") for run in runs],
        "styled_gain": {"estimate": statistics.mean(gaps), "interval": [low, high], "p": stats.sign_flip_p(gaps, clusters)},
        "imitate_styled": rate(first, "imitate", "styled") if first else None,
        "seconds": [round(run["clock_s"]) for run in runs],
        "core_seconds": [round(run["cores_s"]) for run in runs],
    }  # fmt: skip


def rows(size: str) -> list[Row]:
    runs = []
    for seed in range(5 if size == "full" else 1):
        with tempfile.TemporaryDirectory(prefix=f"learn{seed}-") as folder:
            runs.append(seed_run(seed, Path(folder)))
    return table_of(summary(runs))


def table_of(found: dict[str, Any]) -> list[Row]:
    n, sft = found["seeds"], statistics.median(found["sft_pass"])
    gain = found["styled_gain"]
    spent = statistics.median(found["core_seconds"])
    return [
        Row(f"SFT: unseen headlines that pass, median of {n} seeds", sft, "share", "prompt with examples alone", found["prompt_alone"], "0.90", sft >= 0.9),
        Row("SFT against the base model", sft, "share", "base", found["base"]),
        Row("DPO on pairs with 25 % wrong labels: pass and state the size", statistics.median(found["dpo_styled"]), "share", "SFT", statistics.median(found["sft_styled"]), "certainly more", gain["p"] < 0.05 and gain["interval"][0] > 0),
        Row("Imitating the chosen texts of the same pairs, seed 0", found["imitate_styled"], "share", "DPO, seed 0", found["dpo_styled"][0]),
        Row("SFT and DPO together, processor time over 2 cores", spent, "s", "by the clock, beside other work", statistics.median(found["seconds"]), "300 s on 2 idle cores", spent <= 300),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("learning.json"))
    parser.add_argument("--robust", action="store_true", help="DPO with the loss that allows for the wrong labels")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    for seed in range(len(runs), options.seeds):
        with tempfile.TemporaryDirectory(prefix=f"learn{seed}-") as folder:
            runs.append(seed_run(seed, Path(folder), robust=options.robust))
        options.out.write_text(json.dumps(runs))
        print(json.dumps(summary(runs)), flush=True)


if __name__ == "__main__":
    main()
