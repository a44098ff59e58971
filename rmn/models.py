from __future__ import annotations

from django.db import models


class Heartbeat(models.Model):
    """The last sign of life of a process that has no door of its own."""

    name = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%H:%M:%S}"
