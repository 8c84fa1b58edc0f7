"""The values of a model instance as the database returns them."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db import models
from django.utils import timezone

__all__ = ["as_stored", "plain_type", "stored_value"]


def as_stored(instance: Any) -> Any:
    """Return the instance with the values that a read from the database would return:
    itself, or a copy if it holds some in another form. Of a saved row, the copy reads
    expressions and generated fields from the database when they are asked for."""
    has, changed, saved = dict(vars(instance)), {}, not instance._state.adding
    for field in instance._meta.concrete_fields:
        value = has.get(field.attname)
        unknown = field.generated or hasattr(value, "resolve_expression")
        if saved and unknown and field.attname in has:
            changed[field.attname] = has.pop(field.attname)
        elif value is not None:
            stored = stored_value(field, value)
            if stored is not value:
                changed[field.attname] = stored
    if not changed:
        return instance
    cls: Any = type(instance)
    view = cls.__new__(cls)
    changed = {name: value for name, value in changed.items() if name in has}
    vars(view).update(has | changed)  # past descriptors, which drop related instances
    return view


#: Fields that return values of these types as they are.
_PLAIN = (
    (models.IntegerField, int),
    (models.CharField, str),
    (models.UUIDField, uuid.UUID),
)


def plain_type(field: Any) -> type | None:
    """Return the type whose values a field returns as they are, if that is certain."""
    to_python = type(_own_field(field)).to_python
    return next((kind for of, kind in _PLAIN if to_python is of.to_python), None)


def _own_field(field: Any) -> Any:
    """Return the field itself; for a relation, the field that it refers to."""
    while field.remote_field:
        field = field.target_field
    return field


#: Types of which fields return values of subclasses as they are, while the database
#: returns the type itself; subclasses first.
_BASES: dict[type, Callable[[Any], Any]] = {
    datetime.datetime: lambda v: datetime.datetime.combine(
        datetime.date(v.year, v.month, v.day), _as_base(v.timetz())
    ),
    datetime.date: lambda v: datetime.date(v.year, v.month, v.day),
    datetime.time: lambda v: datetime.time(
        v.hour, v.minute, v.second, v.microsecond, v.tzinfo, fold=v.fold
    ),
    datetime.timedelta: lambda v: datetime.timedelta(v.days, v.seconds, v.microseconds),
    uuid.UUID: lambda v: uuid.UUID(int=v.int),
}


def _as_base(value: Any) -> Any:
    for base, convert in _BASES.items():
        if isinstance(value, base):
            return value if type(value) is base else convert(value)
    return value


def stored_value(field: Any, value: Any) -> Any:
    """Return ``value`` as a read would; itself if it is an expression, or if the field
    does not understand it."""
    if hasattr(value, "resolve_expression"):
        return value
    field = _own_field(field)
    try:
        if isinstance(value, enum.Enum):
            value = value._value_
        if isinstance(value, str):
            value = str.__str__(value)  # no subclass, such as SafeString
        stored = _as_base(field.to_python(value))
        if isinstance(field, models.DecimalField) and isinstance(stored, Decimal):
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
