"""Three retailers, three brands and the people who work for them, to try the product with."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from retailers.models import Brand, Membership, Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import NotConfigured

PASSWORD = "demo-only"  # noqa: S105  # refused outside DEBUG
RETAILERS = (
    ("retailer-abc", "Retailer ABC", "instacart"),
    ("retailer-bcd", "Retailer BCD", "walmart"),
    ("retailer-cde", "Retailer CDE", "criteo"),
)
BRANDS = (
    ("acme-corp", "ACME Corp", "acme", "Plain and warm; short sentences; no boasting."),
    ("globex-inc", "Globex Inc", "globex", "Confident and factual; numbers before adjectives."),
    ("initech", "Initech", "initech", "Dry, helpful, a little playful."),
)


class Command(RmnCommand):
    help = "Create the sample tenants (refused when DEBUG is off)."
    example = "load_sample_data"

    @transaction.atomic
    def run(self, **options: Any) -> None:
        if not settings.DEBUG:
            raise NotConfigured("sample people have a known password: set DEBUG=True to load them, never in production")
        for slug, name, network in RETAILERS:
            Retailer.objects.update_or_create(
                slug=slug,
                defaults={"name": name, "network": network, "time_zone": "America/New_York", "currency": "USD"},
            )
        self._person("ops", None, Membership.Role.OPS, is_staff=True, is_superuser=True)
        for slug, name, user, voice in BRANDS:
            rivals = [other for other_slug, other, *_ in BRANDS if other_slug != slug]
            brand, _ = Brand.objects.update_or_create(
                slug=slug, defaults={"name": name, "manufacturer": name, "voice": voice, "rivals": rivals}
            )
            self._person(user, brand, Membership.Role.MARKETER)
        self.stderr.write("load_sample_data: brands acme-corp, globex-inc, initech; people ops, acme, globex, initech")

    def _person(self, username: str, brand: Brand | None, role: str, **flags: bool) -> None:
        user, made = User.objects.get_or_create(
            username=username, defaults={"email": f"{username}@example.com", **flags}
        )
        if made:
            user.set_password(PASSWORD)
            user.save()
        if not user.memberships.filter(brand=brand).exists():
            Membership.objects.create(user=user, brand=brand, role=role)
