"""The model for permissions and the admin. It has no table, and so no rows.

Django imports this module if ``"cache_memoize"`` is in ``INSTALLED_APPS``.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["MemoizedFunction"]


class _NoRows(models.Manager["MemoizedFunction"]):
    """A manager without rows, for ``dumpdata`` and others that read every model."""

    def get_queryset(self) -> models.QuerySet[MemoizedFunction]:
        return super().get_queryset().none()


class MemoizedFunction(models.Model):
    """One memoized function in the admin's log."""

    #: A digest of the name and the prefix, the same in every process.
    id = models.CharField(max_length=20, primary_key=True)
    path = models.CharField(_("name"), max_length=255)

    objects = _NoRows()

    class Meta:
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "invalidate")
        verbose_name = _("memoized function")
        verbose_name_plural = _("memoized functions")

    def __str__(self) -> str:
        return self.path
