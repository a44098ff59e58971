"""A load knows until when newer extracts have said all its rows again."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("retailers", "0005_number_reports")]

    operations = [
        migrations.AddField("feedload", "confirmed_at", models.DateTimeField(blank=True, editable=False, null=True)),
    ]
