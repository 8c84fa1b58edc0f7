"""The Django app, for the admin page, the command, and the figures of the site."""

from __future__ import annotations

from django.apps import AppConfig


class CacheMemoizeConfig(AppConfig):
    name = "cache_memoize"
    verbose_name = "Memoized functions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .protocol import tables
        from .stats import sitewide
        from .stats.reporter import reporter

        reporter.add(sitewide.tell)
        tables.watch_writes()
