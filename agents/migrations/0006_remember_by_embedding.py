from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0005_undo_decisions'),
    ]

    operations = [
        migrations.AddField(
            model_name='reflectionlog',
            name='embedding',
            field=models.JSONField(default=list, editable=False),
        ),
    ]
