from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import migrations, models
from django.db.models import Q


class AddPartialIndex(migrations.AddIndex):
    """An index over some rows; over all of them where the database knows no partial one (MySQL, MariaDB)."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.add_index(model, self._for(schema_editor))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.remove_index(model, self._for(schema_editor))

    def _for(self, schema_editor: Any) -> models.Index:
        if schema_editor.connection.features.supports_partial_indexes:
            return self.index
        return models.Index(fields=self.index.fields, name=self.index.name)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0002_count_answers_in_the_background"),
        ("campaigns", "0001_initial"),
        ("retailers", "0004_watch_folders_and_addresses"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField("answercount", "on_withdrawn", models.BooleanField(default=False)),
        migrations.AddField("countedanswers", "withdrawn", models.CharField(blank=True, max_length=60)),
        migrations.AddIndex("feedback", models.Index(fields=["by", "-created_at"], name="feedback_of_person")),
        AddPartialIndex(
            "feedback",
            models.Index(fields=["brand", "undone_at"], condition=Q(undone_at__isnull=False), name="feedback_undone"),
        ),
        migrations.RemoveIndex("feedback", "feedback_taken_back"),
    ]
