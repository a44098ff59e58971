"""What nearly every row has: an address that says nothing, and a brand that it belongs to."""

from __future__ import annotations

import uuid
from typing import Any, Self

from django.db import models
from django.db.models import Q


class TenantQuerySet(models.QuerySet[Any]):
    """Rows of brands; the one place where it is said who may see them."""

    def visible_to(self, user: Any) -> Self:
        """What this person may see: in the console, the screens and the API alike.

        A membership names a brand, or none for ops staff of all brands, and may be narrowed to one
        retailer: then rows of other retailers are hidden, rows of no retailer are not. Rows of no
        brand (shared knowledge) are for ops staff alone.
        """
        brands = self.model._meta.get_field("brand").related_model.objects
        if brands.sees_all(user):
            return self
        seen = Q(brand__in=brands.keys_of(user, whole=True))
        if self._has_retailer():
            for brand_id, retailer_id in brands.narrowed(user):
                seen |= Q(brand=brand_id) & (Q(retailer=retailer_id) | Q(retailer=None))
        else:
            seen = Q(brand__in=brands.keys_of(user))
        return self.filter(seen)

    def _has_retailer(self) -> bool:
        return any(field.name == "retailer" for field in self.model._meta.get_fields())


class Addressed(models.Model):
    """A row with a public address; the integer key stays inside."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)

    class Meta:
        abstract = True


class Owned(Addressed):
    """A row of one brand."""

    brand = models.ForeignKey("retailers.Brand", models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        abstract = True


def scope_text(*parts: Any) -> str:
    """Non-null text of a scope for unique keys, '-' where a part is absent: NULLs never collide."""
    return "/".join(str(getattr(part, "slug", part) or "-") for part in parts)
