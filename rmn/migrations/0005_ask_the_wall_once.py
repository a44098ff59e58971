from django.db import migrations

from rmn.lib import rls


class Migration(migrations.Migration):
    dependencies = [("rmn", "0004_keep_views")]
    operations = [rls.RenewWalls()]
