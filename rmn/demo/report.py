"""The demo's report: one HTML file with its pictures inside, and the same figures as JSON."""

from __future__ import annotations

import html
import json
from typing import Any

import vl_convert

PALETTE = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5"]
STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --paper: #fff; --raised: #f6f8fa; --line: #d0d7de; --accent: #2f5bb7; --good: #1a7f37; --warn: #9a6700; --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117; --raised: #161b22; --line: #30363d; --accent: #7aa2f7; --good: #56d364; --warn: #e3b341; --bad: #ff7b72 } .picture svg { background: #fff; border-radius: 6px } }
* { box-sizing: border-box } body { margin: 0 auto; max-width: 960px; padding: 24px 16px 64px; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
h1 { font-size: 28px; margin: 0 0 4px } h2 { font-size: 20px; margin: 48px 0 8px } p { max-width: 72ch } .soft { color: var(--soft); font-size: 14px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px } th, td { text-align: left; padding: 8px; border-bottom: 1px solid var(--line); vertical-align: top } td.n, th.n { text-align: right }
.picture { overflow-x: auto; margin: 16px 0 } .picture svg { max-width: 100%; height: auto } .assumed { display: inline-block; border: 1px solid var(--warn); color: var(--warn); border-radius: 6px; padding: 0 8px; font-size: 12px }
.pass { color: var(--good) } .block, .needs_proof { color: var(--bad) } blockquote { margin: 0; padding-left: 12px; border-left: 3px solid var(--line) } .scroll { overflow-x: auto }
"""


def page(facts: dict[str, Any], summary: list[tuple[str, str]], stages: list[dict[str, Any]]) -> str:
    """The whole report.

    Args:
        facts: the stages' results, by stage name.
        summary: (what, figure) lines of the closing table.
        stages: name and seconds of each stage.
    """
    sections = [
        _data(facts),
        _plan(facts),
        _experiment(facts),
        _learning(facts),
        _copy(facts),
        _reflection(facts),
        _stages(stages),
    ]
    lines = "".join(f"<tr><th scope=row>{esc(a)}</th><td>{esc(b)}</td></tr>" for a, b in summary)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>RMN: the loop once</title>"
        f"<style>{STYLE}</style><h1>The loop, once</h1><p class=soft>ACME Corp at Retailer ABC. {esc(facts['feeds'].get('source', ''))}</p>"
        f"<p><span class=assumed>spend assumed</span> <span class=soft>{esc(facts['feeds'].get('spend_rule', ''))}</span></p>"
        f"<div class=scroll><table>{lines}</table></div>{''.join(sections)}</html>"
    )


def esc(value: Any) -> str:
    return html.escape(str(value), quote=True)


def picture(spec: dict[str, Any], alt: str) -> str:
    """A Vega-Lite specification as inline SVG, with its words for those who do not see it."""
    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "background": None, **spec}
    whole["config"] = {
        "font": "system-ui, sans-serif",
        "range": {"category": PALETTE},
        "axis": {"labelFontSize": 12, "titleFontSize": 12, "grid": False},
        "view": {"stroke": None},
        "title": {"anchor": "start", "fontSize": 14},
    }
    svg = vl_convert.vegalite_to_svg(json.dumps(whole), vl_version="5.21")
    return f"<div class=picture role=img aria-label='{esc(alt)}'>{svg}</div>"


def table(heads: list[str], rows: list[list[Any]], numbers: set[int] = frozenset()) -> str:  # type: ignore[assignment]
    def cell(tag: str, index: int, value: Any) -> str:
        return f"<{tag}{' class=n' if index in numbers else ''}>{esc(value)}</{tag}>"

    top = "".join(cell("th", i, h) for i, h in enumerate(heads))
    body = "".join("<tr>" + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{top}</tr>{body}</table></div>"


def _data(facts: dict[str, Any]) -> str:
    rows = [
        [
            f["file"],
            f["network"],
            f"{f['read']:,}",
            f"{f['accepted']:,}",
            f"{f['quarantined']:,}",
            f["spend"] or "",
            f["mapping"],
        ]
        for f in facts["load"]["files"]
    ]
    heads = ["file", "format", "rows read", "accepted", "quarantined", "spend (assumed)", "mapping"]
    return "<h2>Feeds became one schema</h2>" + table(heads, rows, {2, 3, 4, 5})


def _plan(facts: dict[str, Any]) -> str:
    plan = facts["plan"]
    bars = [
        {"arm": a["id"], "which": w, "spend": a[k]}
        for a in plan["arms"]
        for w, k in (("now", "last"), ("plan", "spend"))
    ]
    spec = {
        "title": f"The plan brings {plan['gain_percent']:.1f} % more than the same money spread evenly (spend assumed)",
        "data": {"values": bars},
        "mark": "bar",
        "width": 620,
        "encoding": {
            "y": {"field": "arm", "type": "nominal", "title": None, "sort": None},
            "yOffset": {"field": "which"},
            "x": {"field": "spend", "type": "quantitative", "title": "spend in the plan's period, USD (assumed)"},
            "color": {"field": "which", "title": None},
        },
    }
    frontier = {
        "title": "What more or less budget would bring (spend assumed)",
        "data": {"values": plan["frontier"]},
        "mark": {"type": "line", "point": True},
        "width": 620,
        "height": 220,
        "encoding": {
            "x": {"field": "budget", "type": "quantitative", "title": "budget, USD"},
            "y": {
                "field": "objective",
                "type": "quantitative",
                "title": "expected sales, USD",
                "scale": {"zero": False},
            },
        },
    }
    rows = [
        [
            a["id"],
            f"{a['last']:,.0f}",
            f"{a['spend']:,.0f}",
            f"{a['expected_sales']:,.0f}",
            f"{a['marginal_roas']:.2f}",
            a["binding"] or "",
            a["evidence"],
        ]
        for a in plan["arms"]
    ]
    heads = ["arm", "now", "plan", "expected sales", "next dollar brings", "held by", "evidence"]
    words = "".join(f"<li>{esc(w)}</li>" for w in plan.get("warnings", [])[:8])
    return (
        "<h2>Where the next dollar should go</h2>"
        + picture(spec, "Bars of spend now and in the plan for each arm")
        + picture(frontier, "Line of expected sales against budget")
        + table(heads, rows, {1, 2, 3, 4})
        + f"<p>{esc(plan.get('explanation', ''))}</p>"
        + (f"<p class=soft>What the curves cannot say:</p><ul class=soft>{words}</ul>" if words else "")
    )


def _experiment(facts: dict[str, Any]) -> str:
    found = facts["experiment"]
    points = [{"effect": float(k) * 100, "power": v * 100} for k, v in found["power_at"].items()]
    spec = {
        "title": f"The design would find a lift of {found['mde'] * 100:.1f} % with 80 % power",
        "data": {"values": points},
        "mark": {"type": "line", "point": True},
        "width": 620,
        "height": 220,
        "encoding": {
            "x": {"field": "effect", "type": "quantitative", "title": "true lift of store sales, %"},
            "y": {"field": "power", "type": "quantitative", "title": "power, %", "scale": {"domain": [0, 100]}},
        },
    }
    return (
        "<h2>The experiment that would prove it</h2>"
        + picture(spec, "Line of power against the true lift")
        + f"<p>Treated stores: {esc(', '.join(map(str, found['units'])))}. False positives of this very design on past weeks: "
        f"{esc(found.get('false_positive_rate', 'not measured'))}, at a nominal {esc(found['alpha'])}.</p>"
    )


def _learning(facts: dict[str, Any]) -> str:
    rates = facts["evaluate"]["pass_rate"]
    values = [
        {
            "model": k.replace("_", " "),
            "rate": v["estimate"] * 100,
            "lo": v["interval"][0] * 100,
            "hi": v["interval"][1] * 100,
        }
        for k, v in rates.items()
    ]
    spec = {
        "title": "Share of headlines for unseen products that the network's rules pass",
        "data": {"values": values},
        "width": 620,
        "height": 140,
        "encoding": {"y": {"field": "model", "type": "nominal", "title": None, "sort": None}},
        "layer": [
            {
                "mark": "bar",
                "encoding": {
                    "x": {"field": "rate", "type": "quantitative", "title": "passes, %", "scale": {"domain": [0, 100]}}
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": {"field": "lo", "type": "quantitative"}, "x2": {"field": "hi"}},
            },
        ],
    }
    curve = [
        {"step": m["step"], "loss": m["loss"], "run": kind}
        for kind in ("sft", "dpo")
        for m in facts.get(kind, {}).get("curve", [])
    ]
    loss = {
        "title": "Loss while training",
        "data": {"values": curve},
        "mark": {"type": "line", "point": True},
        "width": 290,
        "height": 160,
        "encoding": {
            "column": {"field": "run", "title": None},
            "x": {"field": "step", "type": "quantitative"},
            "y": {"field": "loss", "type": "quantitative"},
        },
    }
    return (
        "<h2>It learns from verdicts</h2>"
        + picture(spec, "Bars of the pass rate with intervals: base, its best prompt, SFT, DPO")
        + (picture(loss, "Loss against step for SFT and DPO") if curve else "")
        + f"<p>{esc(facts['deploy'].get('reason', ''))}</p><p class=soft>Pairs are made by rules from policy verdicts, not by people.</p>"
    )


def _copy(facts: dict[str, Any]) -> str:
    rows = [
        [e["product"], e["base"], e["base_verdict"], e["adapter"], e["adapter_verdict"]]
        for e in facts["redraft"]["examples"]
    ]
    return "<h2>Before and after, for products it never saw</h2>" + table(
        ["product", "base model", "verdict", "deployed", "verdict"], rows
    )


def _reflection(facts: dict[str, Any]) -> str:
    found, cycle = facts["reflect"], facts["cycle"]
    levels = ", ".join(f"{said}: {came:.2f}" for said, came in cycle["at"].items())
    return (
        "<h2>Why, how sure, and what that was worth</h2>"
        f"<p>{esc(found['context'])}. Confidence {esc(found['confidence'])}, by what came true so far {found['calibrated']:.2f}, "
        f"against “{esc(found['threshold'])}”: {esc(found['note'])}. {esc('. '.join(found['reasons']))}.</p>"
        f"<p>{cycle['claims']} forecasts of past weeks, each from what was known before them: {cycle['resolved']} resolved, "
        f"Brier {cycle['brier']:.3f}. Said and came true: {esc(levels)}. A past plan, approved and measured: "
        f"{esc(found['forecast'])} (probability {esc(found['probability'])}): {esc(found['came'])}.</p>"
    )


def _stages(stages: list[dict[str, Any]]) -> str:
    rows = [[s["name"], f"{s['seconds']:.1f}"] for s in stages]
    return "<h2>How long it took</h2>" + table(["stage", "seconds"], rows, {1})
