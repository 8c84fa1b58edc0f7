class CacheRouter:
    """The table of the alias "postgresql" is on the database of that name, and that of
    "mariadb", which a test makes, too."""

    def db_for_read(self, model, **hints):
        name = model._meta.db_table.removeprefix("cache_")
        return name if name in ("postgresql", "mariadb") else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, model=None, **hints):
        if app_label == "django_cache":
            return db == (self.db_for_read(model) or "default")
        return None
