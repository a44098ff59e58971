from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from campaigns.models import Recommendation
from feedback.models import Feedback
from tests.agents.tiny import make_base
from tests.factories import BrandFactory, RecommendationFactory, RetailerFactory, SKUFactory

PRODUCTS = ("Tea", "Soup", "Bagels", "Cones", "Broth", "Pickles", "Butter", "Noodles", "Pretzels", "Crackers")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def workshop(settings: Any, tmp_path: Path, tiny_base: Path) -> Any:
    """Folders of this test alone, and the tiny model as the base."""
    settings.RMN_BASE_MODEL, settings.RMN_ADAPTERS = tiny_base, tmp_path / "adapters"
    settings.MEDIA_ROOT, settings.VAR = tmp_path / "files", tmp_path / "var"
    return settings


@pytest.fixture
def judged(db: None) -> Any:
    """A brand with ten products, each with a pair that a rule has judged."""
    brand, retailer = BrandFactory(slug="acme"), RetailerFactory(slug="retailer-abc")
    for place, product in enumerate(PRODUCTS):
        SKUFactory(brand=brand, name=product, package_size="", facts={"brand": "ACME", "unseen": place % 2 == 0})
        pair_of(brand, retailer, product, origin=Feedback.Origin.RULE)
    return brand


def pair_of(brand: Any, retailer: Any, product: str, outcome: str = "a", **more: Any) -> Feedback:
    """A judged pair of two drafts for a product."""
    drafts: list[Recommendation] = [
        RecommendationFactory(
            brand=brand,
            retailer=retailer,
            text=text,
            prompt=f"{product}?",
            prompt_cluster=product,
            adapter_digest=more.get("adapter_digest", ""),
        )
        for text in (f"ACME {product.lower()}", f"Best {product.lower()}!!")
    ]
    return Feedback.objects.create(
        brand=brand,
        retailer=retailer,
        task="creative",
        kind="pair",
        recommendation=drafts[0],
        other=drafts[1],
        outcome=outcome,
        **more,
    )
