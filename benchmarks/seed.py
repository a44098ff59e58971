"""Rows to load a system with: brands, people with tokens, campaigns, metrics, drafts to judge."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def fill(brands: int = 10, retailers: int = 3, campaigns: int = 20, days: int = 30, drafts: int = 20) -> dict[str, Any]:
    """Each brand with two people, ``campaigns`` campaigns of ``days`` metric rows, and ``drafts`` drafts.

    Returns for each brand its slug, its people's tokens and the addresses of its drafts and campaigns.
    """
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    from campaigns.models import Campaign, Recommendation
    from retailers.models import Brand, Membership, PerformanceMetric, Retailer
    from rmn.lib import tenancy

    def token(user: User) -> str:
        made = AccessToken.for_user(user)
        made.set_exp(lifetime=timedelta(hours=2))
        return str(made)

    found: list[dict[str, Any]] = []
    with tenancy.everyone():
        stores = [
            Retailer.objects.create(slug=f"store-{n}", name=f"Store {n}", network="instacart") for n in range(retailers)
        ]
        ops = User.objects.create(username="ops", is_staff=True, is_superuser=True)
        Membership.objects.create(user=ops, role="ops")
        for n in range(brands):
            brand = Brand.objects.create(slug=f"brand-{n}", name=f"Brand {n}")
            people = [User.objects.create(username=f"person-{n}-{m}") for m in range(2)]
            for person in people:
                Membership.objects.create(user=person, brand=brand, role="marketer")
            made = Campaign.objects.bulk_create(
                [Campaign(brand=brand, retailer=stores[m % retailers], name=f"Campaign {m}", tactic="search", budget=1000, status="live", network_campaign_id=f"c{m}", start_date=date(2026, 1, 1)) for m in range(campaigns)]
            )  # fmt: skip
            PerformanceMetric.objects.bulk_create(
                [
                    PerformanceMetric(brand=brand, retailer=stores[m % retailers], row_key=f"{n:08x}{m:08x}{d:048x}", row_hash="0" * 64, network="instacart", grain="campaign",
                        campaign_id=f"c{m}", campaign_name=f"Campaign {m}", period_start=date(2026, 1, 1) + timedelta(days=d), period_end=date(2026, 1, 1) + timedelta(days=d),
                        currency="USD", impressions=1000 + d, clicks=20 + m, spend=Decimal("12.50"), file_sha256="0" * 64, row_number=d, mapping_version="instacart/campaign@1+00000000", extracted_at=NOW)
                    for m in range(campaigns) for d in range(days)
                ],
                batch_size=1000,
            )  # fmt: skip
            texts = Recommendation.objects.bulk_create(
                [Recommendation(brand=brand, retailer=stores[m % retailers], task="creative", title=f"Draft {m}", text=f"Brand {n} sparkling water, {m} oz", prompt=f"Write a headline for water {m}", source="agent") for m in range(drafts)]
            )  # fmt: skip
            found.append(
                {"id": brand.pk, "slug": brand.slug, "people": [token(p) for p in people], "drafts": [str(t.uuid) for t in texts], "campaigns": [str(c.uuid) for c in made]}
            )  # fmt: skip
        return {"ops": token(ops), "brands": found}
