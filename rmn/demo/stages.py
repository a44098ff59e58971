"""The loop once, for ACME Corp at Retailer ABC: each function is one stage and returns its facts."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from agents import decisions, forecasts, journal, serving
from agents import services as agent_services
from agents import tasks as agent_tasks
from agents.domain import briefs
from agents.models import Adapter, AdapterAlias, Deployment, Forecast
from campaigns import history
from campaigns import services as campaign_services
from campaigns import tasks as campaign_tasks
from campaigns.domain import fitting, planning
from campaigns.domain.experiments.design import design
from campaigns.models import BudgetPlan, CurveFit, Experiment, Recommendation, ResponseCurve, Task
from feedback.models import Feedback, ReviewTask
from retailers import services as retailer_services
from retailers import tasks as retailer_tasks
from retailers.domain.demo_feeds import SOURCE_NOTE, SPEND_RULE, find_data, write_demo_feeds
from retailers.models import Brand, FeedLoad, PerformanceMetric, ProductIdentifier, Retailer, SKUCatalog
from rmn import dashboard
from rmn.demo.catalogue import catalogue
from rmn.lib.errors import RmnError
from rmn.lib.runs import Run
from training import services as training_services
from training import suites
from training import tasks as training_tasks
from training.domain.checks import failures
from training.domain.curation import Report, curate
from training.domain.starter import FEATURES, rule_pairs, sft_rows
from training.models import Dataset, TrainingRun

BRAND, RETAILER = "acme-corp", "retailer-abc"
# feed: whose it is, at which retailer, in which network's format, by which mapping
FEEDS = {
    "mail": (BRAND, RETAILER, "Instacart-like CSV", "completejourney/mail"),
    "display": (BRAND, RETAILER, "Walmart-like quoted CSV, gzip", "completejourney/display"),
    "circular": (BRAND, RETAILER, "Criteo-like json-compact", "completejourney/circular"),
    "sales": (BRAND, RETAILER, "the retailer's own Parquet", "completejourney/sales"),
    "globex_display": ("globex-inc", "retailer-bcd", "Walmart-like quoted CSV, gzip", "completejourney/display"),
    "initech_circular": ("initech", "retailer-cde", "Criteo-like json-compact", "completejourney/circular"),
}
NETWORKS = ("instacart", "walmart")  # a headline must pass at each that the brand buys on
DRAFTS = 3  # of the base model for each brief
Facts = dict[str, Any]


def folder() -> Path:
    return Path(settings.VAR) / "demo"


def acme() -> Brand:
    return Brand.objects.get(slug=BRAND)


def shop() -> Retailer:
    return Retailer.objects.get(slug=RETAILER)


def must(run: Run) -> Run:
    """The finished run, or its error as the demo's."""
    run.refresh_from_db()
    if run.status != Run.Status.SUCCEEDED:
        raise RmnError(f"{run.words.lower() or run.kind}: {run.error or run.status}")
    return run


def tenants(_: Facts) -> Facts:
    call_command("load_sample_data", stderr=_Quiet())
    return {
        "brands": list(Brand.objects.values_list("slug", flat=True)),
        "note": "three brands, three retailers, four people",
    }


def feeds(_: Facts) -> Facts:
    files = write_demo_feeds(find_data(), folder() / "feeds")
    return {
        "files": {name: str(path.relative_to(folder())) for name, path in files.items()},
        "spend_rule": SPEND_RULE,
        "source": SOURCE_NOTE,
        "note": f"{len(files)} files in three networks' formats; spend assumed",
    }


def load(facts: Facts) -> Facts:
    """Every feed through its mapping into the metrics; the same file twice changes nothing."""
    rows = []
    for name, (brand, retailer, network, mapping) in FEEDS.items():
        path = folder() / facts["feeds"]["files"][name]
        with path.open("rb") as file:
            run = retailer_services.wish_for_load(
                brand=Brand.objects.get(slug=brand),
                retailer=Retailer.objects.get(slug=retailer),
                file_name=path.name,
                chunks=iter(lambda: file.read(2**20), b""),  # read within this turn
                mapping=mapping,
            )
        retailer_tasks.load_feed(str(run.pk), tenant=run.tenant)
        found: FeedLoad = must(run)  # type: ignore[assignment]
        rows.append(
            {
                "file": path.name,
                "brand": brand,
                "network": network,
                "mapping": found.mapping_version,
                "read": found.rows_read,
                "accepted": found.rows_accepted,
                "quarantined": found.rows_quarantined,
                "spend": (found.result.get("totals") or {}).get("spend"),
                "load": found.result.get("load"),
            }
        )
    PerformanceMetric.objects.filter(brand__slug__in={b for b, *_ in FEEDS.values()}, spend__isnull=False).update(
        spend_assumed=True
    )
    dashboard.refresh()  # what a worker does every few minutes; the console's first page opens with all brands
    totals = {key: sum(row[key] for row in rows) for key in ("read", "accepted", "quarantined")}
    return {"files": rows, **totals, "note": f"{totals['read']:,} rows read, {totals['quarantined']:,} quarantined"}


def products(_: Facts) -> Facts:
    brand, retailer = acme(), shop()
    chosen = catalogue(find_data())
    for product in chosen:
        row, _made = SKUCatalog.objects.update_or_create(
            brand=brand,
            sku=product.sku,
            defaults={
                "name": product.name,
                "product_type": product.name,
                "package_size": product.size,
                "category": product.category,
                "department": product.department,
                "facts": {"brand": "ACME", "unseen": product.unseen},
            },
        )
        ProductIdentifier.objects.get_or_create(
            brand=brand,
            product=row,
            retailer=retailer,
            scope=retailer.slug,
            kind=ProductIdentifier.Kind.RETAILER_SKU,
            value=product.sku,
            defaults={"source": "completejourney product file"},
        )
    unseen = sum(product.unseen for product in chosen)
    return {"products": len(chosen), "unseen": unseen, "note": f"{len(chosen)} products, {unseen} kept unseen"}


def curves(_: Facts) -> Facts:
    """Campaigns from the metrics, and a response curve for each."""
    brand = acme()
    campaign_tasks.link(brand)
    run = campaign_services.wish_for_fit(brand=brand, retailer=shop(), draws=200)
    campaign_tasks.fit_curves(str(run.pk), tenant=run.tenant)
    found: CurveFit = must(run)  # type: ignore[assignment]
    return {
        "arms": found.result["arms"],
        "attributions": found.result["attributions"],
        "warnings": found.result["warnings"],
        "window": found.result["window"],
        "note": f"{found.result['arms']} arms, attribution only, spend assumed",
    }


def plan(facts: Facts) -> Facts:
    """The next quarter's budget over all arms, with limits for each tactic."""
    brand = acme()
    current = ResponseCurve.objects.current().filter(brand=brand)
    weekly = {row.arm: row.std["spend_mean"] for row in current}
    tactics = {row.arm: row.tactic for row in current}
    last = 13 * sum(weekly.values())
    by_tactic = {tactic: 13 * sum(weekly[a] for a, t in tactics.items() if t == tactic) for tactic in tactics.values()}
    groups = [
        # what the joint business plan with the retailer would fix: no tactic under half, none over double
        {"id": f"{tactic} commitment", "where": {"tactic": tactic}, "min": 0.5 * money, "max": 2.0 * money}
        for tactic, money in sorted(by_tactic.items())
    ]
    given, assumed = campaign_services.problem_from_curves(
        brand=brand, retailer=shop(), total_budget=round(last), groups=groups, spend_all=True
    )
    run = campaign_services.wish_for_plan(
        brand=brand,
        retailer=shop(),
        name="Next quarter at Retailer ABC",
        problem=given,
        spend_assumed=assumed,
    )
    campaign_tasks.optimize(str(run.pk), tenant=run.tenant)
    found: BudgetPlan = must(run)  # type: ignore[assignment]
    if found.state != BudgetPlan.State.PROPOSED:
        raise RmnError(f"the plan is {found.plan['status']}: {found.plan['explanation']}")
    arms = {arm["id"]: arm for arm in given["arms"]}
    names = CurveFit.objects.filter(brand=brand).first().result["names"]  # type: ignore[union-attr]
    split = found.plan["even_split"]
    return {
        "id": str(found.pk),
        "value": found.plan["objective"],
        "even_split": split["objective"],
        "gain_percent": split["gain_percent"],
        "upper_bound": found.plan["upper_bound"],
        "gap": found.plan["gap"],
        "method": found.plan["method"],
        "total_spend": found.plan["total_spend"],
        "arms": [
            {
                **row,
                "id": names.get(row["id"], row["id"]),
                "last": arms[row["id"]].get("last", 0.0),
                "evidence": arms[row["id"]].get("evidence", ""),
            }
            for row in sorted(found.allocations, key=lambda row: -row["spend"])
        ],
        "frontier": found.plan["frontier"],
        "explanation": found.plan["explanation"],
        "warnings": [*facts["curves"]["warnings"], *found.plan["warnings"]],
        "spend_assumed": assumed,
        "note": f"{split['gain_percent']:.1f} % over the even split, at most {100 * found.plan['gap']:.1e} % below the best; spend assumed",
    }


def experiment(_: Facts) -> Facts:
    """A geo test on the retailer's own store panel: which stores, and what lift it would find."""
    brand = acme()
    panel = history.store_panel(brand, shop())
    frame = pl.DataFrame(panel)
    weeks = frame["time"].n_unique()
    steady = frame.group_by("unit").agg(pl.len(), pl.col("outcome").min().alias("least")).filter(pl.col("len") == weeks, pl.col("least") > 0)  # fmt: skip
    frame = frame.join(steady.select("unit"), on="unit", how="semi").sort("unit", "time")
    spec = {
        "kind": "geo",
        "unit": "unit",
        "time": "time",
        "outcome": "outcome",
        "duration": 6,
        "treated": {"min": 4, "max": 12},
        "effects": [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3],
        "alpha": 0.1,
        "seed": 1,
    }
    found = design(spec, frame=frame)
    best = found["best"]
    row = Experiment.objects.create(
        brand=brand,
        retailer=shop(),
        name="Does the mailing bring sales that would not have come?",
        kind="geo",
        state=Experiment.State.DESIGNED,
        status=Experiment.Status.SUCCEEDED,
        progress=1.0,
        hypothesis="Stores whose households get the mailing sell more than their synthetic control.",
        spec=spec,
        design=found,
        panel={"rows": frame.height, "units": frame["unit"].n_unique(), "periods": weeks, "outcome": "total_sales"},
    )
    if best["mde"] is None:
        raise RmnError("no tried design would find any effect of the grid; look at the experiment's warnings")
    return {
        "id": str(row.pk),
        "mde": best["mde"],
        "power_at": best["power_at"],
        "units": best["units"],
        "alpha": found["alpha"],
        "false_positive_rate": best["false_positive_rate"],
        "windows": best["windows"],
        "warnings": found["warnings"],
        "note": f"{len(best['units'])} of {frame['unit'].n_unique()} stores, 6 weeks: a lift of {best['mde']:.1%} is found in 4 of 5",
    }


def _items(*, unseen: bool) -> list[briefs.Item]:
    """What headlines are asked for: each product in each feature."""
    rows = SKUCatalog.objects.filter(brand=acme(), facts__unseen=unseen).order_by("sku")
    return [
        briefs.Item(product=row.name, brand="ACME", size=row.package_size, feature=feature, networks=NETWORKS)
        for row in rows
        for feature in FEATURES
    ]


def draft(_: Facts) -> Facts:
    """The base model's own drafts for the products that may train, each checked against the networks' rules."""
    items = _items(unseen=False)
    asked = [item for item in items for _ in range(DRAFTS)]
    check = retailer_services.checker(acme())
    with serving.inference() as client:
        model = client.info().get("model_id", "base")
        with ThreadPoolExecutor(training_tasks.TOGETHER) as pool:
            wrote = list(
                pool.map(
                    lambda pair: training_tasks.draft(client, pair[1], None, check, temperature=0.6, seed=pair[0]),
                    enumerate(asked),
                )
            )
    kept: dict[str, list[str]] = {}
    why: dict[str, int] = {}
    for item, row in zip(asked, wrote, strict=True):
        kept.setdefault(briefs.as_text(briefs.messages(item)), []).append(row["text"])
        for reason in row["why"]:
            name = reason.split(":")[0]
            name = re.sub(r"\d+ characters, \d+ fit", "too long", name)
            why[name] = why.get(name, 0) + 1
    passed = sum(row["passed"] for row in wrote)
    return {
        "model": str(model),
        "drafts": kept,
        "written": len(wrote),
        "passed": passed,
        "why": dict(sorted(why.items(), key=lambda kv: -kv[1])),
        "note": f"{len(wrote)} drafts, {passed} pass the rules of {' and '.join(NETWORKS)}",
    }


def pairs(facts: Facts) -> Facts:
    """Verdicts become preference pairs, marked as made by rules; some are put before people too."""
    brand, retailer = acme(), shop()
    skus = {row.name: row for row in SKUCatalog.objects.filter(brand=brand)}
    check = retailer_services.checker(brand)
    made = list(rule_pairs(_items(unseen=False), facts["draft"]["drafts"], check))
    with transaction.atomic():
        for place, pair in enumerate(made):
            item = pair["item"]
            two = [
                Recommendation.objects.create(
                    brand=brand,
                    retailer=retailer,
                    task=Task.CREATIVE,
                    title=f"Headline for {item.product}, {item.feature}"[:240],
                    text=text,
                    prompt=briefs.as_text(pair["prompt"]),
                    prompt_cluster=pair["cluster"],
                    prompt_version=briefs.VERSION,
                    source=Recommendation.Source.AGENT,
                    sku=skus.get(item.product),
                    model=facts["draft"]["model"][:120],
                    verdict=check(
                        briefs.tidy(text), network=NETWORKS[0], product=item.product, facts=item.policy_facts
                    ).row(),
                    sampling={"temperature": 0.6},
                )
                for text in (pair["chosen"], pair["rejected"])
            ]
            Feedback.objects.create(
                brand=brand,
                retailer=retailer,
                task=Task.CREATIVE,
                kind=Feedback.Kind.PAIR,
                origin=Feedback.Origin.RULE,
                recommendation=two[0],
                other=two[1],
                outcome=Feedback.Outcome.A,
                prompt=two[0].prompt,
                prompt_cluster=pair["cluster"],
                prompt_version=briefs.VERSION,
            )
            if place % 6 == 0:
                ReviewTask.objects.create(
                    brand=brand,
                    retailer=retailer,
                    task=Task.CREATIVE,
                    kind=Feedback.Kind.PAIR,
                    recommendation=two[0],
                    other=two[1],
                    votes_wanted=2,
                )
    return {"pairs": len(made), "note": f"{len(made)} pairs made by rules, none by people"}


def datasets(facts: Facts) -> Facts:
    """SFT rows (shipped copy and the base's own passing drafts) and DPO rows (the pairs)."""
    brand = acme()
    sft = training_services.wish_for_dataset(brand=brand, retailer=shop(), task=Task.CREATIVE, kind="sft")
    with sft.tracked():
        rows = [
            {**row, "people": [], "agreement": 1.0}
            for row in sft_rows(_items(unseen=False), facts["draft"]["drafts"], retailer_services.checker(brand))
        ]
        report = Report(read=len(rows))
        training_tasks.keep(sft, curate(rows, report), report)
    must(sft)
    dpo = training_services.wish_for_dataset(brand=brand, retailer=shop(), task=Task.CREATIVE, kind="dpo")
    training_tasks.build_dataset(str(dpo.pk), tenant=dpo.tenant)
    must(dpo)
    sft.refresh_from_db()
    return {
        "sft": str(sft.pk),
        "dpo": str(dpo.pk),
        "rows": {one.kind: one.manifest["rows"] for one in (sft, dpo)},  # type: ignore[attr-defined]
        "sources": {one.kind: one.manifest["sources"] for one in (sft, dpo)},  # type: ignore[attr-defined]
        "note": ", ".join(f"{one.kind}: {one.rows_train} + {one.rows_eval} rows" for one in (sft, dpo)),  # type: ignore[attr-defined]
    }


def _trained(dataset: str, parent: Adapter | None, **config: Any) -> Facts:
    run = training_services.wish_for_training(dataset=Dataset.objects.get(pk=dataset), parent=parent, **config)
    training_tasks.train(str(run.pk), tenant=run.tenant)
    found: TrainingRun = must(run)  # type: ignore[assignment]
    assert found.adapter is not None  # noqa: S101
    return {
        "adapter": found.adapter.digest,
        "run": str(found.pk),
        "curve": found.metrics,
        "seconds": found.seconds,
        "note": f"{len(found.metrics)} steps, loss {found.metrics[0]['loss']:.2f} to {found.metrics[-1]['loss']:.2f}, adapter {found.adapter.digest[:12]}",
    }


def sft(facts: Facts) -> Facts:
    return _trained(facts["datasets"]["sft"], None, steps=24, batch=8, max_length=192, seed=0, save_every=8)


def dpo(facts: Facts) -> Facts:
    parent = serving.find(facts["sft"]["adapter"])
    return _trained(facts["datasets"]["dpo"], parent, steps=14, batch=4, max_length=192, seed=0, save_every=7)


def evaluate(facts: Facts) -> Facts:
    """Both adapters on products that nothing was trained on: SFT against the base, DPO against what then serves.

    And each against the base under its best prompt: an adapter that a prompt equals has not earned its place.
    """
    brand = acme()
    first, second = serving.find(facts["sft"]["adapter"]), serving.find(facts["dpo"]["adapter"])
    results = {}
    with serving.inference() as client:
        champion: Adapter | None = None
        for name, candidate in (("sft", first), ("dpo", second)):
            run = training_services.wish_for_evaluation(
                brand=brand,
                retailer=shop(),
                task=Task.CREATIVE,
                candidate=candidate,
                champion=champion,
                networks=list(NETWORKS),
            )
            with run.tracked():
                training_tasks.judge(run, client)
            results[name] = must(run).result  # type: ignore[attr-defined]
            if results[name]["verdict"] == "better":
                champion = candidate
    rates = {
        "base": results["sft"]["pass_rate"]["champion"],
        "prompt_alone": results["sft"]["pass_rate"]["prompt_alone"],
        "sft": results["sft"]["pass_rate"]["candidate"],
        "dpo": results["dpo"]["pass_rate"]["candidate"],
    }
    return {
        "pass_rate": rates,
        "verdict": {name: found["verdict"] for name, found in results.items()},
        "reasons": {name: found["reasons"] for name, found in results.items()},
        "needed_cases": {name: found["needed_cases"] for name, found in results.items()},
        "note": ", ".join(f"{name} {rate['estimate']:.2f}" for name, rate in rates.items())
        + f"; SFT is {results['sft']['verdict'].replace('_', ' ')} than the base and its best prompt, DPO {results['dpo']['verdict'].replace('_', ' ')} against {'SFT' if results['sft']['verdict'] == 'better' else 'the base'}",
    }


def deploy(facts: Facts) -> Facts:
    """What the gate lets through is proved on the server and becomes champion."""
    verdict = facts["evaluate"]["verdict"]
    if "better" not in verdict.values():
        raise RmnError(
            f"against the base and its best prompt SFT is {verdict['sft']} and DPO {verdict['dpo']}: nothing is deployed"
        )
    chosen = "dpo" if verdict["dpo"] == "better" else "sft"
    reason = "; ".join(facts["evaluate"]["reasons"][chosen])
    if chosen == "sft":
        reason += f". DPO was not promoted: {verdict['dpo'].replace('_', ' ')} ({'; '.join(facts['evaluate']['reasons']['dpo'])})"
    adapter = serving.find(facts[chosen]["adapter"])
    run = agent_services.wish_for_deployment(adapter=adapter)
    agent_tasks.deploy(str(run.pk), tenant=run.tenant)
    found: Deployment = must(run)  # type: ignore[assignment]
    alias = AdapterAlias.objects.get(scope=adapter.scope, name="champion")
    alias.reason = reason
    alias.save(update_fields=["reason"])
    return {
        "digest": adapter.digest,
        "stage": "champion",
        "method": chosen,
        "reason": f"{chosen.upper()} serves: {reason}",
        "proof": found.proof,
        "note": f"{chosen.upper()} {adapter.digest[:12]}, proved {found.proof.get('acts', 0):.2f} nats a token from the base",
    }


def redraft(_: Facts) -> Facts:
    """New products again, now through the brand's own route; what passes is offered."""
    brand, retailer = acme(), shop()
    items = _items(unseen=True)[:: len(FEATURES)][:8]
    skus = {row.name: row for row in SKUCatalog.objects.filter(brand=brand)}
    route = serving.route(brand=brand, retailer=retailer, task=Task.CREATIVE)
    check = retailer_services.checker(brand)
    examples = []
    with serving.inference() as client:
        for item in items:
            before = training_tasks.draft(client, item, None, check)
            reply, generation = serving.ask(
                client,
                route,
                briefs.messages(item),
                brand=brand,
                retailer=retailer,
                task=Task.CREATIVE,
                prompt_version=briefs.VERSION,
                max_tokens=suites.LONGEST,
            )
            text = briefs.tidy(reply.text)
            why = failures(reply.text, item, check)
            if not why:
                generation.recommendation = Recommendation.objects.create(
                    brand=brand,
                    retailer=retailer,
                    task=Task.CREATIVE,
                    title=f"Headline for {item.product}"[:240],
                    text=text,
                    prompt=briefs.as_text(briefs.messages(item)),
                    prompt_cluster=briefs.cluster(item),
                    prompt_version=briefs.VERSION,
                    source=Recommendation.Source.AGENT,
                    sku=skus.get(item.product),
                    model=reply.model[:120],
                    adapter_digest=route.digest,
                    verdict=check(text, network=NETWORKS[0], product=item.product, facts=item.policy_facts).row(),
                )
            generation.save()
            examples.append(
                {
                    "product": item.product,
                    "base": before["text"].strip()[:160],
                    "base_verdict": "pass" if before["passed"] else before["why"][0],
                    "adapter": reply.text.strip()[:160],
                    "adapter_verdict": why[0] if why else "pass",
                }
            )
    passed = sum(row["adapter_verdict"] == "pass" for row in examples)
    return {"examples": examples, "adapter": route.digest, "note": f"{passed} of {len(examples)} pass"}


def cycle(_: Facts) -> Facts:
    """Plan, approve, measure, resolve, recalibrate: on weeks that are past, from what was known before them."""
    brand, author = acme(), journal.AGENT[BudgetPlan]
    claims = forecasts.look_back(brand, shop(), agent=author)
    forecasts.resolve_ready(claims, timezone.now().date())
    resolved = Forecast.objects.filter(pk__in=[claim.pk for claim in claims]).resolved().count()
    plan = decisions.decide_plan(_as_bought(max(claim.due for claim in claims)), "approve", None, "looking back")
    claim = Forecast.objects.get(brand=brand, subject__plan=str(plan.pk))
    forecasts.resolve_ready([claim], claim.due)
    claim.refresh_from_db()
    told = forecasts.score(Forecast.objects.filter(brand=brand, agent=author))["all"]
    learned = forecasts.learned(brand, author)
    return {
        "claims": len(claims),
        "resolved": resolved,
        "brier": told["brier"],
        "skill": told["brier_skill"],
        "plan": {name: getattr(claim, name) for name in ("statement", "probability", "status", "observed", "happened")},
        "at": {str(level): learned(level) for level in (0.5, 0.7, 0.9)},
        "note": f"{told['n']} forecasts of past weeks resolved, Brier {told['brier']:.3f}; said 0.9, came true {learned(0.9):.2f}",
    }


def _as_bought(end: date) -> BudgetPlan:
    """A plan of four past weeks with the split that was bought, by curves that had not seen them."""
    brand, retailer, start = acme(), shop(), end - timedelta(days=27)
    name = f"Looking back: four weeks to {end}, as they were bought"
    known = BudgetPlan.objects.filter(brand=brand, name=name, status=BudgetPlan.Status.SUCCEEDED).first()
    if known is not None:
        return known
    past, bought = (
        history.read(brand, retailer, None, start - timedelta(days=1)),
        history.totals(brand, retailer, start, end),
    )
    arms: list[dict[str, Any]] = [
        {"id": one.arm, "kind": "michaelis_menten", "scale": one.scale, "half": one.half, "std": {"scale": one.scale_std}, "last": one.spend_mean, "seen": one.spend_max, "period_days": 7, "evidence": one.evidence}
        for one in fitting.fit(past.arms, draws=200)
        if bought.spend.get(one.arm, 0.0) > 0
    ]  # fmt: skip
    limits = {arm["id"]: {"fixed": round(bought.spend[arm["id"]], 2)} for arm in arms}
    total, currency = sum(one["fixed"] for one in limits.values()), next(iter(past.currencies))
    run = campaign_services.wish_for_plan(
        brand=brand,
        retailer=retailer,
        name=name,
        problem=planning.problem_of(arms, total_budget=total, days=28, currency=currency, limits=limits),
        start=start,
        end=end,
        spend_assumed=True,
    )
    campaign_tasks.optimize(str(run.pk), tenant=run.tenant)
    return BudgetPlan.objects.get(pk=must(run).pk)


def reflect(facts: Facts) -> Facts:
    """Why the plan is proposed, what could go wrong, and how sure, by what that was worth so far; people decide."""
    log = journal.about(BudgetPlan.objects.get(pk=facts["plan"]["id"]))
    verdict = journal.verdict_of(log)
    done = facts["cycle"]["plan"]
    return {
        "context": log.context,
        "confidence": verdict.confidence_raw,
        "calibrated": verdict.confidence_calibrated,
        "threshold": log.decision_threshold,
        "should_proceed": verdict.should_proceed,
        "reasons": verdict.reasons,
        "forecast": done["statement"],
        "probability": done["probability"],
        "came": "came true" if done["happened"] else "did not come true" if done["happened"] is not None else done["status"],
        "note": "may proceed" if verdict.should_proceed else "waits in the inbox for somebody to approve",
    }  # fmt: skip


class _Quiet:
    def write(self, *_: Any) -> None:
        """Say nothing."""

    def flush(self) -> None:
        """Nothing to flush."""

    def isatty(self) -> bool:
        return False
