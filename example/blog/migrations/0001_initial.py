from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Post",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("title", models.CharField(max_length=120)),
                (
                    "keywords",
                    models.CharField(
                        help_text="Words with spaces between.", max_length=200
                    ),
                ),
                ("body", models.TextField(blank=True)),
            ],
            options={"ordering": ["pk"]},
        ),
    ]
