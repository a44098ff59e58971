from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from retailers.models import Brand
from rmn.lib.rows import TenantQuerySet


class Heartbeat(models.Model):
    """The last sign of life of a process that has no door of its own."""

    name = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%H:%M:%S}"


class Digest(models.Model):
    """The day's e-mail to a person; its row comes first, so that nobody gets two."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    day = models.DateField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "day"], name="digest_once_per_person_and_day")]

    def __str__(self) -> str:
        return f"{self.user} on {self.day}"


class SavedView(models.Model):
    """A list of the console as somebody filtered it, under a name of theirs."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=60)
    path = models.CharField(max_length=120)
    query = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="saved_view_name_once_per_person")]

    def __str__(self) -> str:
        return self.name

    @property
    def url(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


class BrandFigures(models.Model):
    """A brand's weeks in money, added up in the background so that the first page reads a few rows."""

    brand = models.OneToOneField(Brand, models.CASCADE, related_name="+")
    weeks = models.JSONField(default=list)  # [{week, currency, spend, sales, attribution}]
    at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "brand figures"

    def __str__(self) -> str:
        return f"{self.brand} at {self.at:%Y-%m-%d %H:%M}"
