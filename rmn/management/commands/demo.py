"""The whole loop once, on real shopping data and a real small model."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management import call_command

from retailers.domain.demo_feeds import SOURCE_NOTE
from retailers.models import Brand
from rmn.demo import report, stages
from rmn.demo.engine import Engine, Stage
from rmn.lib.commands import RmnCommand, write_text

STAGES = [
    Stage("tenants", "Sample brands, retailers and people", stages.tenants),
    Stage("feeds", "Real shopping data written out as networks' reports", stages.feeds),
    Stage("load", "Harmonize and load", stages.load),
    Stage("products", "The brand's catalogue", stages.products),
    Stage("curves", "Response curves fitted", stages.curves),
    Stage("plan", "A budget allocated", stages.plan),
    Stage("experiment", "A geo experiment designed", stages.experiment),
    Stage("draft", "Headlines drafted by the base model and checked", stages.draft),
    Stage("pairs", "Verdicts turned into preference pairs", stages.pairs),
    Stage("datasets", "Training rows curated", stages.datasets),
    Stage("sft", "Adapter trained on good examples (SFT)", stages.sft),
    Stage("dpo", "Adapter trained on preferences (DPO)", stages.dpo),
    Stage("evaluate", "Evaluated on unseen products", stages.evaluate, version=2),
    Stage("deploy", "Gated, proved and deployed", stages.deploy),
    Stage("redraft", "Drafted again", stages.redraft),
    Stage("cycle", "Past weeks forecast, measured, scored and learnt from", stages.cycle),
    Stage("reflect", "The plan's reasons, and how sure by what that was worth", stages.reflect, version=2),
]


def summary(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The closing table's lines."""
    load, plan, rates = facts["load"], facts["plan"], facts["evaluate"]["pass_rate"]

    def rate(name: str) -> str:
        low, high = rates[name]["interval"]
        return f"{rates[name]['estimate']:.2f} ({low:.2f} to {high:.2f}, {rates[name]['cases']} headlines of {rates[name]['clusters']} unseen products)"

    return [
        ("rows", f"{load['read']:,} read, {load['accepted']:,} accepted, {load['quarantined']:,} quarantined"),
        (
            "plan (spend assumed)",
            f"{plan['value']:,.0f} USD sales expected against {plan['even_split']:,.0f} of the even split; at most {plan['upper_bound']:,.0f} possible",
        ),
        (
            "experiment",
            f"{len(facts['experiment']['units'])} stores for 6 weeks find a lift of {facts['experiment']['mde']:.1%} in 4 of 5",
        ),
        ("pass rate, base", rate("base")),
        ("pass rate, prompt", rate("prompt_alone")),
        ("pass rate, SFT", rate("sft")),
        ("pass rate, DPO", rate("dpo")),
        ("deployed", f"{facts['deploy']['digest'][:12]} as {facts['deploy']['stage']}. {facts['deploy']['reason']}"),
        ("decision", f"{'proceed' if facts['reflect']['should_proceed'] else 'wait'}: {facts['reflect']['note']}"),
    ]


def figures(facts: dict[str, Any], seconds: list[dict[str, Any]]) -> dict[str, Any]:
    """report.json, for programs."""
    return {
        "rows": {name: facts["load"][name] for name in ("read", "accepted", "quarantined")},
        "plan": {name: facts["plan"][name] for name in ("value", "even_split", "upper_bound")}
        | {"spend_assumed": True},
        "experiment": {"mde": facts["experiment"]["mde"]},
        "pass_rate": {
            name: {"estimate": rate["estimate"], "interval": rate["interval"]}
            for name, rate in facts["evaluate"]["pass_rate"].items()
        },
        "deployed": {name: facts["deploy"][name] for name in ("digest", "stage", "reason")},
        "stages": seconds,
    }


class Command(RmnCommand):
    help = (
        "Run the loop once for ACME Corp: feeds to plan, experiment, copy, adapter, forecast. Resumes what was cut off."
    )
    example = "demo"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--until", help="stop after this stage")

    def run(self, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        stages.tenants({})  # what the loop rests on; made again it changes nothing
        names = [stage.name for stage in STAGES]
        wanted = STAGES[: names.index(options["until"]) + 1] if options.get("until") in names else STAGES
        engine = Engine(stages.folder(), self.say, self.seed())
        facts = engine.run(wanted)
        if len(facts) == len(STAGES):
            self.close(facts, engine.seconds(STAGES))

    def close(self, facts: dict[str, Any], seconds: list[dict[str, Any]]) -> None:
        """The closing table, and the report as a page and as JSON."""
        folder = stages.folder()
        lines = summary(facts)
        write_text(folder / "report.html", report.page(facts, lines, seconds))
        write_text(folder / "report.json", json.dumps(figures(facts, seconds), indent=1))
        width = max(len(name) for name, _ in lines)
        self.stdout.write("")
        for name, words in lines:
            self.stdout.write(f"{name:<{width}}  {words}")
        self.stdout.write("")
        self.stdout.write(SOURCE_NOTE)
        self.stdout.write(f"Report with pictures: {folder / 'report.html'}")
        self.stdout.write("Look around: make run, then http://127.0.0.1:8000 (ops or acme, password demo-only)")

    def say(self, line: str) -> None:
        self.stderr.write(line)
        self.stderr.flush()

    def seed(self) -> str:
        """What the results rest on beside the stages: this database and this base model."""
        brand = Brand.objects.filter(slug=stages.BRAND).first()
        manifest = settings.RMN_BASE_MODEL / "manifest.json"
        model = manifest.read_text() if manifest.exists() else ""
        return f"{brand.uuid if brand else 'none'} {model}"
