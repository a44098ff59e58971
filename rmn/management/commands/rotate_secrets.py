from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import transaction

from rmn.lib import sealing
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import NotConfigured


class Command(RmnCommand):
    help = "Seal every stored secret under today's RMN_DATA_KEY, so that RMN_DATA_KEY_BEFORE may be forgotten."
    example = "rotate_secrets"

    def run(self, **options: Any) -> None:
        done, shut = 0, []
        for model in apps.get_models():
            for field in [one.name for one in model._meta.concrete_fields if one.name.startswith("sealed_")]:
                for key in model._base_manager.exclude(**{field: ""}).values_list("pk", flat=True):
                    with transaction.atomic():
                        row: Any = model._base_manager.select_for_update().get(pk=key)
                        try:
                            sealed = sealing.reseal(getattr(row, field), str(row.brand.uuid))
                        except NotConfigured:
                            shut.append(f"{model._meta.label} {row}")
                            continue
                        model._base_manager.filter(pk=key).update(**{field: sealed})
                        done += 1
        self.answer({"sealed": done, "cannot_be_opened": shut}, None)
