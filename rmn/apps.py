from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AdminConfig):
    default_site = "rmn.console.Console"


class RmnConfig(AppConfig):
    name = "rmn"
    default = True

    def ready(self) -> None:
        # shared_task binds to the current Celery app; rmn/__init__ stays empty so that pure code
        # may import rmn.lib, hence here.
        from django.conf import settings

        from retailers.services import masker
        from rmn import logins, signs
        from rmn.celery import app
        from rmn.lib import append_only, bearer, masking, names, pii, tenancy

        app.set_default()
        bearer.know_keys_before()
        tenancy.watch_connections()
        append_only.watch()
        masking.watch(masker)
        logins.watch()
        if settings.RMN_NAME_MODEL:
            pii.plugins.append(names.Names(settings.RMN_NAME_MODEL))
        signs.watch()
