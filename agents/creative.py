"""Copy for one product: drafted through the brand's own route, checked, repaired, and offered only where it passes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone

from agents import serving
from agents.domain import briefs, creative
from agents.inference.types import InferenceClient
from agents.models import Generation
from campaigns.copy import fingerprint
from campaigns.models import Recommendation, Task
from feedback import services as feedback
from retailers.models import Brand, Retailer, SKUCatalog
from retailers.services import checker, masker, redact, rules_in_force
from rmn.lib.errors import BadInput, RmnError

log = structlog.get_logger(__name__)

MOST_VARIANTS = 12
REPAIRS = 2
TOGETHER = 4
LONGEST = 40  # tokens of a headline
NETWORKS = ("amazon", "walmart", "instacart", "kroger", "target", "criteo")


def brief(*, brand: Brand, retailer: Retailer, product: str, feature: str) -> tuple[briefs.Item, SKUCatalog | None]:
    """What is asked for, with what the catalogue knows of the product.

    Raises:
        BadInput: no product, or a retailer whose network has no headline.
    """
    if not product.strip() or len(product) > 240 or len(feature) > 240:
        raise BadInput("product: its name is needed; product and feature have at most 240 characters")
    network = retailer.network.removesuffix("_ads")
    if network not in NETWORKS:
        raise BadInput(f"{retailer}: no creative rules for the network {retailer.network!r}; {', '.join(NETWORKS)}")
    known = SKUCatalog.objects.filter(brand=brand)
    row = known.filter(sku=product).first() or known.filter(name__iexact=product.strip()).order_by("sku").first()
    facts = dict(row.facts) if row else {}
    item = briefs.Item(
        product=row.name if row else redact(brand, product.strip()).text,
        brand=str(facts.get("brand") or brand.name),
        size=row.package_size if row else "",
        feature=redact(brand, feature.strip()).text,
        networks=(network,),
        facts={"rival_brands": brand.rivals} if brand.rivals else {},
    )
    return item, row


def write(
    client: InferenceClient,
    *,
    brand: Brand,
    retailer: Retailer,
    product: str,
    feature: str = "",
    variants: int = 5,
) -> list[dict[str, Any]]:
    """Variants of a headline, the usable ones first; those that pass are kept as recommendations and as a pair to judge.

    Raises:
        BadInput: as ``brief``; or more variants than ``MOST_VARIANTS``.
        InferenceError: the model server did not answer.
    """
    if not 1 <= variants <= MOST_VARIANTS:
        raise BadInput(f"variants: {variants}; between 1 and {MOST_VARIANTS}")
    item, row = brief(brand=brand, retailer=retailer, product=product, feature=feature)
    # one product always meets the same version; in a canary both write, so that people compare them blind
    key = str(row.uuid) if row else item.product.casefold()
    usual = serving.aliases(brand=brand, retailer=retailer, task=Task.CREATIVE)
    route = serving.route(brand=brand, retailer=retailer, task=Task.CREATIVE, key=key)
    routes = [route, usual["champion"]] if route.alias == "challenger" else [route]
    check, mask = checker(brand), masker(brand)

    def one(number: int, route: serving.Route) -> tuple[dict[str, Any], Generation]:
        how: dict[str, Any] = {"temperature": 0.0 if number == 0 else 0.8, "seed": number, "max_tokens": LONGEST}
        prompt: Sequence[Any] = briefs.messages(item)
        repaired = 0
        while True:
            reply, generation = serving.ask(
                client, route, prompt, brand=brand, retailer=retailer, task=Task.CREATIVE, prompt_version=briefs.VERSION, **how
            )  # fmt: skip
            text = mask(briefs.tidy(reply.text)).text
            generation.verdict, found = creative.findings(text, item, check)
            if generation.verdict == "pass" or repaired == REPAIRS:
                break
            prompt, repaired = creative.again(item, text, found), repaired + 1
        provenance = {
            "model": generation.model,
            "adapter": route.digest or None,
            "alias": route.alias,
            "prompt_version": briefs.VERSION,
            "sampling": generation.sampling,
            "repaired": repaired,
            "facts": {"product": item.product, "size": item.size, "feature": item.feature, "from_catalogue": row is not None},
        }  # fmt: skip
        said = {
            "text": text,
            "verdict": generation.verdict,
            "findings": found,
            "offered": False,
            "provenance": provenance,
        }
        return said, generation

    with ThreadPoolExecutor(TOGETHER) as pool:
        unseen = pool.submit(one, 0, usual["shadow"]) if "shadow" in usual else None
        written = list(pool.map(lambda number: one(number, routes[number % len(routes)]), range(variants)))
    _keep(written, brand, retailer, item, row)
    if unseen is not None:
        _record_unseen(unseen, brand)
    return sorted((said for said, _ in written), key=lambda said: (not said["offered"], len(said["findings"])))


def _record_unseen(unseen: Future[tuple[dict[str, Any], Generation]], brand: Brand) -> None:
    """What the shadow wrote on the same brief: kept with its verdict, shown to nobody; its failure harms nobody."""
    try:
        _, generation = unseen.result()
    except RmnError as error:
        log.warning("shadow_failed", brand=str(brand.uuid), error=str(error))
        return
    generation.text = redact(brand, generation.text).text
    generation.save()


@transaction.atomic
def _keep(
    written: Sequence[tuple[dict[str, Any], Generation]],
    brand: Brand,
    retailer: Retailer,
    item: briefs.Item,
    row: SKUCatalog | None,
) -> None:
    """Record every text by whom it was written; offer what passes, once each, and ask about the first two."""
    offered: list[Recommendation] = []
    seen: set[str] = set()
    for said, generation in written:
        generation.text = redact(brand, generation.text).text
        if said["verdict"] == "pass" and said["text"].casefold() not in seen:
            seen.add(said["text"].casefold())
            said["offered"] = True
            generation.recommendation = Recommendation.objects.create(
                brand=brand,
                retailer=retailer,
                task=Task.CREATIVE,
                title=f"Headline for {item.product}"[:240],
                text=said["text"],
                prompt=briefs.as_text(briefs.messages(item)),
                prompt_cluster=briefs.cluster(item),
                prompt_version=briefs.VERSION,
                source=Recommendation.Source.AGENT,
                sku=row,
                model=generation.model[:120],
                adapter_digest=generation.adapter_digest,
                sampling=generation.sampling,
                content={"copy": {"field": item.field, "product": item.product, "facts": dict(item.policy_facts)}},
                verdict={
                    "verdict": "pass",
                    "findings": said["findings"],
                    "text_sha256": fingerprint(said["text"]),
                    "rule_set_version": rules_in_force(brand).version,
                    "by": "creative agent",
                    "at": timezone.now().isoformat(),
                },
            )
            offered.append(generation.recommendation)
        generation.save()
    if len(offered) > 1:
        first = offered[0]
        rival = next((one for one in offered if one.adapter_digest != first.adapter_digest), offered[1])
        feedback.ask(recommendation=first, other=rival, kind="pair")
