from __future__ import annotations

from django.apps import AppConfig


class RetailersConfig(AppConfig):
    name = "retailers"
    default_auto_field = "django.db.models.BigAutoField"
