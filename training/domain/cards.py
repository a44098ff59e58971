"""A version, a data set and a comparison in words: rows for the screens, and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmn.lib import words

VERDICTS = {
    "better": "Better: it may replace what serves",
    "not_worse": "Not worse, and no gain shown: it is not promoted",
    "worse": "Worse: it is not promoted",
    "not_enough_evidence": "Not enough evidence: it is not promoted",
}


def test_row(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test of the gate as a line of the guards' table."""
    low, high = test["interval"]
    sure = "no difference shown"
    if low > 0:
        sure = "gain"
    elif high < 0:
        sure = "loss"
    return {
        "name": test["name"],
        "candidate": words.share(test.get("candidate")),
        "champion": words.share(test.get("champion")),
        "difference": f"{100 * test['estimate']:+.1f}",
        "interval": f"{100 * low:+.1f} to {100 * high:+.1f}",
        "p_value": words.short(test.get("p_value")),
        "p_worse": words.short(test.get("p_worse_holm", test.get("p_worse"))),
        "sure": sure,
    }


def votes_row(test: Mapping[str, Any]) -> dict[str, Any]:
    """People's blind pairs of the two versions: win rate with its interval, and at equal length."""
    low, high = test["interval"]
    level, count, needed = test.get("at_equal_length"), test.get("votes", 0), test.get("needed_votes", 0)
    said = f"{words.counted(count, 'vote')}, ties half"
    if low <= 0 <= high and needed > count:
        said += f"; about {words.counted(needed - count, 'more vote')} would decide"
    return {
        "value": words.share(0.5 + test["estimate"]),
        "low": words.share(0.5 + low),
        "high": words.share(0.5 + high),
        "evidence": said,
        "at_equal_length": words.share(level) if level is not None else "",
    }


def level_row(level: Mapping[str, Any]) -> dict[str, str]:
    """What is left of the gain at equal length, for the page."""
    estimate = level.get("estimate")
    way = "longer" if level["longer"] > 0 else "shorter"
    asked = "the gate asks for it" if level["longer"] > 0 else "not asked for: shorter texts gain nothing by length"
    return {
        "value": f"{100 * estimate:+.1f} points" if estimate is not None else "cannot be told",
        "evidence": f"p {words.short(level['p_value'])}; texts {words.short(abs(level['longer']))} characters {way}; {asked}",
    }


def model_card(
    *,
    name: str,
    digest: str,
    state: str,
    made: str,
    scope: Mapping[str, str],
    manifest: Mapping[str, Any],
    rank: int,
    parents: Sequence[str],
    data: Mapping[str, Any],
    result: Mapping[str, Any],
    proof: Mapping[str, Any],
) -> str:
    """A model card in Markdown, after Mitchell et al. (2019): what it is, made of what, how good, where it fails."""
    config = manifest.get("config") or {}
    lines = [
        "---",
        f"base_model: {manifest.get('base_model', '')}",
        "library_name: peft",
        f"tags: [lora, {manifest.get('method', 'composed')}]",
        "---",
        f"# {_line(name)}",
        "",
        f"Version `{digest}`, {state}, made on {made}.",
        "",
        "## What it is for",
        "",
        *(f"- {key}: {_line(value)}" for key, value in scope.items()),
        f"- LoRA of rank {rank} on {manifest.get('base_model', 'the base model')}; it serves this scope and no other.",
        "",
        "## How it was made",
        "",
        f"- Method: {manifest.get('method', 'not recorded')}; {manifest.get('steps', '?')} steps, final loss {words.short(manifest.get('final_loss'))}",
        f"- Parents: {', '.join(f'`{one[:12]}`' for one in parents) or 'none: trained from the base'}",
        f"- Chat template: `{str(manifest.get('template_digest', ''))[:12]}`",
    ]
    lines += [f"- {key}: {config[key]}" for key in ("rank", "alpha", "learning_rate", "beta", "label_smoothing", "loss_types", "precision", "quantization", "seed") if key in config]  # fmt: skip
    lines += ["", "## What it was trained on", ""]
    if data:
        # sorted: a database that keeps JSON in an order of its own gives the same card
        sources = ", ".join(f"{count} {origin}" for origin, count in sorted((data.get("sources") or {}).items()))
        dropped = ", ".join(f"{count} {why}" for why, count in sorted((data.get("dropped") or {}).items()))
        leaks = sum((data.get("leak_check") or {}).values())
        lines += [
            f"- Data set `{str(data.get('digest', ''))[:12]}`: {(data.get('rows') or {}).get('train', 0)} rows ({sources or 'sources not told'})",
            f"- Answers of {data.get('people', 0)} people, {data.get('read', 0)} read; left out: {dropped or 'none'}",
            f"- Personal data masked in {data.get('redactions', 0)} places",
            f"- Prompts shared between training and evaluation: {leaks}",
            *(f"- To know: {_line(warning)}" for warning in data.get("warnings") or []),
        ]
    else:
        lines.append("- No data set is recorded with this version.")
    lines += ["", "## How good it is", ""]
    if result:
        lines.append(f"{VERDICTS.get(str(result.get('verdict')), 'No verdict')}.")
        lines += ["", *(f"- {_line(reason)}" for reason in result.get("reasons") or []), ""]
        lines += ["| test | candidate | champion | difference, points | 95 % interval |", "|---|---|---|---|---|"]
        for test in result.get("tests") or []:
            row = test_row(test)
            lines.append(
                f"| {_line(row['name'])} | {row['candidate']} | {row['champion']} | {row['difference']} | {row['interval']} |"
            )
        lost = [one for one in result.get("flipped") or [] if not one["passed"]]
        if lost:
            lines += ["", "## Where it fails and the version before did not", ""]
            lines += [
                f"- {_line(one['product'])}: “{_line(one['candidate'])}” ({_line('; '.join(one['why']))})"
                for one in lost[:10]
            ]
    else:
        lines.append("Not evaluated.")
    lines += ["", "## Proof on the server", ""]
    lines.append(
        f"{'Passed' if proof.get('passed') else 'Not passed'}: {words.short(proof.get('acts'))} nats a token from the base."
        if proof
        else "Never deployed, so nothing was proved."
    )
    return "\n".join(lines) + "\n"


def _line(text: Any) -> str:
    """Text that stays on its line and opens no markup of its own."""
    plain = " ".join(str(text).split())
    for mark in ("\\", "|", "<", "`", "[", "*"):
        plain = plain.replace(mark, f"\\{mark}")
    return plain
