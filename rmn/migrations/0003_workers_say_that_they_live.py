from django.db import migrations


def forget(apps, schema_editor):
    """The task that gave the sign of life is no more: workers give it themselves."""
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(task="rmn.tasks.heartbeat").delete()
    apps.get_model("rmn", "Heartbeat").objects.filter(name="worker").delete()


class Migration(migrations.Migration):
    dependencies = [("rmn", "0002_figures_and_digests"), ("django_celery_beat", "__first__")]
    operations = [migrations.RunPython(forget, migrations.RunPython.noop)]
