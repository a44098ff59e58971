from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("retailers", "0001_initial")]

    operations = [migrations.RenameField("feedload", "report", "result")]
