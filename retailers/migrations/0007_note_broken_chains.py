from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('retailers', '0006_confirm_loads'),
    ]

    operations = [
        migrations.AddField(
            model_name='audithead',
            name='wrong',
            field=models.CharField(blank=True, db_default='', max_length=200),
        ),
    ]
