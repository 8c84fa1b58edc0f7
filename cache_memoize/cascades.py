"""Rows that change without a signal because another row is deleted.

``SET_NULL`` and its relatives are an UPDATE. With ``DB_CASCADE`` and its relatives
(Django 6.1), the database itself changes or deletes the rows, over any number of
foreign keys. So the targets of such foreign keys are watched; the rows that refer to
a target are read before it is deleted, because afterwards they are gone or refer to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import models

__all__ = [
    "concrete_model",
    "reached_rows",
    "silent_fields",
    "with_parents",
    "with_subclasses",
]

Class = type[models.Model]
#: These signal each row, refuse the deletion, or leave the rows as they are.
NOT_SILENT = models.CASCADE, models.PROTECT, models.RESTRICT, models.DO_NOTHING, None
DB_CASCADE = getattr(models, "DB_CASCADE", None)
#: Rows that one query asks for, at most.
BATCH = 500


def concrete_model(model: Class) -> Class:
    return model._meta.concrete_model or model  # None: it is abstract


def with_parents(base: Class) -> tuple[Class, ...]:
    """Return the model and its parents: a subclass of any of them may have a part of
    the same row."""
    return base, *base._meta.get_parent_list()


def with_subclasses(model: Class) -> set[Class]:
    """Return the model and its subclasses, without abstract ones, those of migrations,
    and one whose class statement is still running."""
    found = set().union(*(with_subclasses(one) for one in model.__subclasses__()))
    meta: Any = vars(model).get("_meta")
    is_real = meta is not None and not meta.abstract and meta.apps is apps
    return {model, *found} if is_real else found


def silent_fields(model: Class) -> list[Any]:
    """Return the foreign keys in the model's own table, for which a deletion of the
    target changes rows without a signal."""
    fields: Any = model._meta.local_concrete_fields
    rules = [(f, getattr(f.remote_field, "on_delete", None)) for f in fields]
    return [field for field, on_delete in rules if on_delete not in NOT_SILENT]


def deletes_silently(field: Any) -> bool:
    """Return whether the database deletes the rows together with their target."""
    return DB_CASCADE is not None and field.remote_field.on_delete is DB_CASCADE


def reached_rows(
    field: Any, targets: list[Any], fields: Iterable[Any], using: str
) -> Iterator[Any]:
    """Yield the rows that refer to one of ``targets`` by ``field``; where the database
    deletes them, also those that refer to them by one of ``fields``, and so on."""
    todo: list[tuple[Any, list[Any]]] = [(field, targets)]
    seen: set[Any] = set()
    while todo:
        field, targets = todo.pop()
        to = field.target_field.attname
        keys = {(field, getattr(one, to)) for one in targets} - seen
        seen |= keys
        values = [value for _, value in keys if value is not None]
        model = field.model
        for start in range(0, len(values), BATCH):
            only = {f"{field.name}__in": values[start : start + BATCH]}
            rows = list(model._base_manager.using(using).filter(**only))
            yield from rows
            if rows and deletes_silently(field):
                todo += [(f, rows) for f in fields if refers_to(f, model)]


def refers_to(field: Any, model: Class) -> bool:
    return concrete_model(field.related_model) is concrete_model(model)
