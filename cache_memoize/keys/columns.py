"""The values of a model instance as the database returns them."""

from __future__ import annotations

import datetime
import enum
from decimal import Decimal
from typing import Any

from django.db.models import DecimalField
from django.utils import timezone

__all__ = ["as_stored"]


def as_stored(instance: Any) -> Any:
    """Return the instance with the values that a read from the database would return:
    itself, or a copy if it holds some in another form."""
    has, changed = vars(instance), {}
    for field in instance._meta.concrete_fields:
        value = has.get(field.attname)
        if value is not None:
            stored = _stored_value(field, value)
            if stored is not value:
                changed[field.attname] = stored
    if not changed:
        return instance
    cls: Any = type(instance)
    view = cls.__new__(cls)
    vars(view).update(has | changed)  # past descriptors, which drop related instances
    return view


def _stored_value(field: Any, value: Any) -> Any:
    """Return ``value`` as a read would; itself if it is an expression, or if the field
    does not understand it."""
    if hasattr(value, "resolve_expression"):
        return value
    while field.remote_field:
        field = field.target_field
    try:
        if isinstance(value, enum.Enum):
            value = value._value_
        if isinstance(value, str):
            value = str.__str__(value)  # no subclass, such as SafeString
        stored = field.to_python(value)
        if isinstance(field, DecimalField) and isinstance(stored, Decimal):
            digits = Decimal(1).scaleb(-(field.decimal_places or 0))
            same = field.decimal_places is None or stored.same_quantum(digits)
            return stored if same else stored.quantize(digits, context=field.context)
        uses_zones = isinstance(stored, datetime.datetime) and timezone.now().tzinfo
        if uses_zones and stored.tzinfo is not datetime.UTC:
            if timezone.is_naive(stored):
                stored = timezone.make_aware(stored, timezone.get_default_timezone())
            stored = stored.astimezone(datetime.UTC)
        return stored
    except Exception:  # a save raises the same, or the field knows better
        return value
