import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models

from rmn.lib.rls import ProtectTables


class Migration(migrations.Migration):

    dependencies = [
        ('campaigns', '0001_initial'),
        ('retailers', '0006_confirm_loads'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='CopyEvidence',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('uuid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('note', models.TextField()),
                ('link', models.URLField(blank=True, max_length=400)),
                ('file_name', models.CharField(blank=True, max_length=240)),
                ('file_path', models.CharField(blank=True, max_length=240)),
                ('file_sha256', models.CharField(blank=True, max_length=64)),
                ('media_type', models.CharField(blank=True, max_length=40)),
                ('size', models.PositiveIntegerField(default=0)),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('added_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('brand', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='retailers.brand')),
                ('recommendation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='evidence', to='campaigns.recommendation')),
                ('retailer', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='retailers.retailer')),
            ],
            options={
                'verbose_name_plural': 'copy evidence',
                'ordering': ['created_at'],
                'constraints': [models.CheckConstraint(condition=models.Q(('file_path', ''), ('link', ''), _negated=True), name='evidence_is_a_file_or_a_link')],
            },
        ),
        ProtectTables("campaigns"),
    ]
