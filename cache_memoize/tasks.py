"""The task of ``django.tasks`` that refreshes one call.

Imported where ``CACHE_MEMOIZE["REFRESH"]`` is ``"task"``, and by the worker, which
finds a task by the name of its module.
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
    """Return the object at ``module:qualified.name``."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for each in name.split("."):
        found = getattr(found, each)
    return found


def _refresh(path: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refresh a call of the memoized function at ``module:qualified.name``.

    An exception of the function is the error of the task; readers get the old value.
    """
    find(path).refresh(*args, **kwargs)


_refresh.__name__ = _refresh.__qualname__ = "refresh"
refresh = _tasks.task(_refresh)
