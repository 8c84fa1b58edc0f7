"""Model instances that a person names: ``shop.Product(pk=1)``."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

__all__ = ["load"]


def load(label: str, pk: Any) -> Any:
    """The instance of the model ``"app.Model"`` with this primary key.

    :raises ValueError: if there is no such model, or no such row. The key itself is no
        part of the message.
    """
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise ValueError(
            f"{str(error).rstrip('.')}; write the label of the app and the name of the "
            "model, as app.Model(pk=1)"
        ) from None
    try:
        return model._base_manager.get(pk=pk)
    except model.DoesNotExist:
        raise ValueError(
            f"{label} has no row with this primary key; invalidate what depends on a "
            "deleted row by its tags, or all calls"
        ) from None
    except (ValueError, TypeError, ValidationError, OverflowError):
        raise ValueError(
            f"this cannot be a primary key of {label}; write it as the database has it"
        ) from None
