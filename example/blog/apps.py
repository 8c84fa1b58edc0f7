"""The app of the example."""

from django.apps import AppConfig


class BlogConfig(AppConfig):
    name = "blog"

    def ready(self) -> None:
        """Import the registrations of invalidate_on, for every process that writes."""
        from . import related  # noqa: F401
