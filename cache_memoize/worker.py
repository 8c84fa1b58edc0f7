"""What a worker of ``django.tasks`` runs: the refresh of one call."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["find", "refresh"]


def refresh(path: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refresh the call of the memoized function at ``module:qualified.name``.

    What the function raises is the task's error; readers keep the old value.
    """
    find(path).refresh(*args, **kwargs)


def find(path: str) -> Any:
    """What stands at ``module:qualified.name``."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for each in name.split("."):
        found = getattr(found, each)
    return found
