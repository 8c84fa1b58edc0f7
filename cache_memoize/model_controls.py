"""Invalidation by model: of all that a model concerns, and of tags when it changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps

from .dependency import Class, with_subclasses
from .keys.binding import address
from .keys.tags import tags_of
from .model_signals import (
    add_dependency,
    check_model,
    dependencies_on,
    find_model,
    run_all,
    warn_if_late,
)
from .protocol.invalidation import invalidate_tags
from .protocol.tables import invalidate_tables, tables_of, uses_tables

__all__ = ["ainvalidate_model", "invalidate_model", "invalidate_tags_on"]


def invalidate_model(model: Class | str) -> None:
    """Invalidate every call of every function that was registered for ``model``, or for
    a model that shares rows with it, and all results that depend on its tables.

    Use it after changes that send no signals: ``QuerySet.update()``, the bulk methods,
    raw SQL, migrations. All functions are tried before the first error is raised.

    Raises TypeError for what is no model, and before anything is invalidated if one of
    the functions has no tags; LookupError or ValueError for a wrong model name.
    """
    if not isinstance(model, str):
        past = check_model(model, "invalidate_model")._meta.apps is not apps
        model = model._meta.label if past else model  # a migration's own class
    if isinstance(model, str):
        model = check_model(find_model(model), "invalidate_model")
    rows = with_subclasses(model)
    found = dependencies_on(rows)
    without = ", ".join(dict.fromkeys(d.name for d in found if not d.invalidate_all))
    if without:
        raise TypeError(
            f"invalidate_model({model.__name__}) invalidates every call, which needs "
            f"tags: write @cache_memoize(..., tags=()) for {without}"
        )
    if not (found or uses_tables()):
        warnings.warn(
            f"invalidate_model({model.__name__}) has invalidated nothing: this process "
            f"has no function f with f.invalidate_on({model.__name__}); write that, or "
            "import the module that does",
            RuntimeWarning,
            stacklevel=2,
        )
    tables = [tables_of(each) for each in rows if not each._meta.abstract]
    actions = [
        *(partial(d.run_named, d.invalidate_all) for d in found if d.invalidate_all),
        partial(invalidate_tables, set().union(*tables)),
    ]
    run_all(actions)


async def ainvalidate_model(model: Class | str) -> None:
    """:func:`invalidate_model` for async code."""
    await sync_to_async(invalidate_model)(model)


# --- names ---------------------------------------------------------------------------


def invalidate_tags_on(
    model: Class | str,
    tags: Callable[[Any], Any] | str,
    *,
    before: bool = True,
    cache_alias: str | None = None,
) -> None:
    """Invalidate tags whenever an instance of ``model`` is saved or deleted, or one of
    its many-to-many relations changes.

    :param model: a model, also an abstract one, or ``"app.Model"``.
    :param tags: a tag, or a callable of the instance that returns one, several of them
        as a list, or None for nothing.
    :param before: ask the callable with the row as it was before a save, too, which
        takes one query more per save; False if none of its values ever changes.
    :param cache_alias: the only cache to invalidate in; None: all of them.
    :raises TypeError: for what is not a model, or not a tag.
    """
    given = tags if callable(tags) else lambda instance: tags

    def calls(instance: Any) -> Any:
        found = given(instance)
        return None if found is None else [(t,) for t in tags_of(found, name)]

    name = "invalidate_tags_on()"
    if not callable(tags):
        tags_of(tags, name)

    def invalidate(found: tuple[str, ...]) -> None:
        invalidate_tags(*found, cache_alias=cache_alias)

    add_dependency(model, name, invalidate, None, calls, before)
    if callable(tags):
        module, callable_name = address(tags)
        warn_if_late(tags, f"{module}.invalidate_tags_on({callable_name})", "")
