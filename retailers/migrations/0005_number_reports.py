"""Rows of one report share a number, so that choosing which report to count groups by one column."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db import migrations, models

from retailers.domain.reconcile import report_number
from rmn.lib import tenancy

CHUNK = 5000
WHERE = ("retailer_id", "network", "account_id", "ad_product", "currency", "brand_id")


def number_reports(apps: Any, schema_editor: Any) -> None:
    rows = apps.get_model("retailers", "PerformanceMetric").objects.using(schema_editor.connection.alias).order_by("pk")
    last = 0
    known: dict[tuple[Any, ...], int] = {}
    with tenancy.everyone():
        while part := list(
            rows.filter(pk__gt=last).values_list("pk", *WHERE, "grain", "period_start", "period_end", "hour")[:CHUNK]
        ):
            last = part[-1][0]
            numbers: dict[int, list[int]] = defaultdict(list)
            for pk, *told, hour in part:
                said = (*told, hour is not None)
                if said not in known:
                    *where, grain, start, end, hourly = said
                    known[said] = report_number(tuple(where), grain, start, end, hourly)
                numbers[known[said]].append(pk)
            for number, keys in numbers.items():
                rows.filter(pk__in=keys).update(report=number)


class Migration(migrations.Migration):
    dependencies = [("retailers", "0004_watch_folders_and_addresses")]

    operations = [
        migrations.AddField("performancemetric", "report", models.BigIntegerField(default=0, editable=False)),
        migrations.AddIndex("performancemetric", models.Index(fields=["brand", "report"], name="metric_by_report")),
        migrations.RunPython(number_reports, migrations.RunPython.noop),
        migrations.AlterField("performancemetric", "report", models.BigIntegerField(editable=False)),
    ]
