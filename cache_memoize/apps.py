"""The Django app, for the admin page, the command, and the figures of the site."""

from __future__ import annotations

from django.apps import AppConfig


class CacheMemoizeConfig(AppConfig):
    name = "cache_memoize"
    verbose_name = "Memoized functions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .stats import reporter, sitewide

        reporter.add(sitewide.tell)
