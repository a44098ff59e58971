"""Budget problems for tests, made from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np


def curve(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    half, scale = float(rng.lognormal(np.log(50), 0.8)), float(rng.lognormal(np.log(200), 0.8))
    if kind == "power":
        return {"kind": kind, "scale": scale / 10, "exponent": float(rng.choice([0.3, 0.5, 0.7]))}
    if kind == "piecewise":
        spend = np.sort(rng.uniform(1, 4 * half, 5))
        steep = np.sort(rng.uniform(0, 5, 5))[::-1]
        sales = np.cumsum(steep * np.diff(np.r_[0, spend]))
        return {"kind": kind, "points": [[float(x), float(y)] for x, y in zip(spend, sales)]}
    made = {"kind": kind, "scale": scale, "half": half}
    if kind == "hill":
        made["exponent"] = float(rng.uniform(1.2, 3))
    return made


def problem(
    n: int, seed: int, *kinds: str, groups: bool = False, margin: bool = False, spend_all: bool = True
) -> dict[str, Any]:
    """n arms over 4 retailers and 3 tactics, with limits that bind where ``groups``."""
    rng = np.random.default_rng(seed)
    arms = []
    for place in range(n):
        made = curve(rng, kinds[rng.integers(len(kinds))])
        half = made.get("half", 50.0)
        arm = {
            "id": f"a{place}", "retailer": f"r{place % 4}", "tactic": f"t{place % 3}",
            "min": float(0.15 * half) if rng.random() < 0.2 else 0.0, "max": 4.0 * half, "curve": made,
        }  # fmt: skip
        if margin:
            arm["margin"] = float(rng.uniform(0.1, 0.6))
        arms.append(arm)
    low, high = sum(a["min"] for a in arms), sum(a["max"] for a in arms)
    found: dict[str, Any] = {
        "total_budget": low + 0.3 * (high - low), "currency": "USD", "spend_all": spend_all, "arms": arms, "groups": [],
    }  # fmt: skip
    if groups:
        for key, count in (("retailer", 4), ("tactic", 3)):
            for place in range(count):
                name = f"{key[0]}{place}"
                members = [a for a in arms if a[key] == name]
                least, most = sum(a["min"] for a in members), sum(a["max"] for a in members)
                group = {"id": name, "where": {key: name}, "max": least + rng.uniform(0.27, 0.5) * (most - least)}
                if key == "retailer":
                    group["min"] = least + rng.uniform(0, 0.25) * (most - least)
                found["groups"].append(group)
    return found
