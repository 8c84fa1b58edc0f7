"""What a worker of ``django.tasks`` runs: the refresh of one call.

Imported only where ``CACHE_MEMOIZE["REFRESH"]`` is ``"task"``, and by the worker, which
looks for a task at its module's name.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["find", "refresh"]

try:
    _tasks = importlib.import_module("django.tasks")
except ImportError:  # before Django 6: the package django-tasks
    _tasks = importlib.import_module("django_tasks")


def find(path: str) -> Any:
    """What stands at ``module:qualified.name``."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for each in name.split("."):
        found = getattr(found, each)
    return found


def _refresh(path: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refresh the call of the memoized function at ``module:qualified.name``.

    What the function raises is the task's error; readers keep the old value.
    """
    find(path).refresh(*args, **kwargs)


_refresh.__name__ = _refresh.__qualname__ = "refresh"
refresh = _tasks.task(_refresh)
