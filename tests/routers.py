class CacheRouter:
    """The table of the alias "postgresql" is on the database of that name."""

    def db_for_read(self, model, **hints):
        if model._meta.db_table == "cache_postgresql":
            return "postgresql"
        return None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, model=None, **hints):
        if app_label == "django_cache":
            return (db == "postgresql") == (model._meta.db_table == "cache_postgresql")
        return None
