"""What permissions and the admin hang on. There is no table, and so are no rows.

Imported by Django, if ``"cache_memoize"`` is in ``INSTALLED_APPS``, and by nobody else.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["MemoizedFunction"]


class _Nothing(models.Manager["MemoizedFunction"]):
    """``dumpdata`` and the like ask every model for its rows."""

    def get_queryset(self) -> models.QuerySet[MemoizedFunction]:
        return super().get_queryset().none()


class MemoizedFunction(models.Model):
    """One memoized function, as the admin's log knows it."""

    #: The same in every process: made of its prefix and its name.
    id = models.CharField(max_length=20, primary_key=True)
    path = models.CharField(_("name"), max_length=255)

    objects = _Nothing()

    class Meta:
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "invalidate")
        verbose_name = _("memoized function")
        verbose_name_plural = _("memoized functions")

    def __str__(self) -> str:
        return self.path
