"""A model without a table, for its permissions."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="MemoizedFunction",
            fields=[
                (
                    "id",
                    models.CharField(max_length=20, primary_key=True, serialize=False),
                ),
                ("path", models.CharField(max_length=255, verbose_name="name")),
            ],
            options={
                "verbose_name": "memoized function",
                "verbose_name_plural": "memoized functions",
                "managed": False,
                "default_permissions": ("view", "invalidate"),
                "base_manager_name": "objects",
            },
        ),
    ]
