"""The database tables that results depend on, and that statements write.

Each table has a tag, and an entry that depends on it is out of date as soon as any
process writes to the table. The writer need not know the functions: if
``"cache_memoize"`` is in ``INSTALLED_APPS``, the execute wrapper of each connection
(transactions.py) shows every statement to :func:`observe`. A signal of Django would not
do: ``update()``, the bulk methods, raw SQL and migrations send none.

All names in a statement that are those of a table count as tables, also where they name
a column: in doubt a statement writes more, and a result depends on more. If a write
names no table at all, as the call of a procedure does, it may have written to all.

Not seen are the statements of triggers, other programs, and ``COPY``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models

from ..cache import breaker
from ..cache.connections import aliases, is_in_memory, settings_of
from ..cache.store import Store, run
from ..clock import Clock
from ..conf import conf, on_change
from ..keys.tags import table_tag
from ..process import logger
from . import capture, transactions
from .invalidation import renew_tags
from .statements import effect_of, names_in

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = [
    "declare",
    "invalidate_tables",
    "is_told",
    "is_watching",
    "tables_of",
    "tables_with",
    "uses_tables",
    "watch_writes",
]

#: Aliases of caches with functions of this process that depend on tables.
_declared: set[str] = set()
_is_watching = False


def watch_writes() -> None:
    """Have every write of this process invalidate what depends on its tables."""
    global _is_watching
    _is_watching = True
    transactions.observer = _observe


def is_watching() -> bool:
    return _is_watching and conf().WATCH_TABLES


def declare(alias: str) -> None:
    """Remember that results in this cache depend on tables."""
    _declared.add(alias)
    transactions.observer = _observe


def tables_with(tags: Iterable[str]) -> list[str]:
    """Return the tables of models that have these tags."""
    wanted = set(tags)
    return sorted(name for name in _known_tables() if table_tag(name) in wanted)


def uses_tables() -> bool:
    """Return whether functions of this process depend on tables."""
    return bool(_declared)


# --- models --------------------------------------------------------------------------


def name_of(table: str) -> str:
    """Return the name of a table without its schema, as a statement may write it."""
    return table.replace('"', "").rpartition(".")[2].lower()


def tables_of(model: type[Model]) -> set[str]:
    """Return the tables that the rows of a model are in: its own, those of its parents,
    and those of its many-to-many relations."""
    meta = model._meta.concrete_model._meta  # type: ignore[union-attr]
    found = {name_of(meta.db_table)}
    for parent in meta.all_parents if hasattr(meta, "all_parents") else meta.parents:
        found.add(name_of(parent._meta.db_table))
    for field in meta.get_fields(include_hidden=True):
        if field.many_to_many:
            relation: Any = field if field.auto_created else field.remote_field
            if relation.through is not None and relation.through._meta.auto_created:
                found.add(name_of(relation.through._meta.db_table))
    return found


@functools.lru_cache(1)
def _known_tables() -> frozenset[str]:
    """Return the tables of all models, except those that are ignored."""
    found = {
        name_of(model._meta.db_table)
        for model in apps.get_models(include_auto_created=True, include_swapped=True)
    }
    return frozenset(found - _ignored())


@functools.lru_cache(1)
def _ignored() -> frozenset[str]:
    caches = [settings_of(alias) or {} for alias in aliases()]
    own = [
        str(each.get("LOCATION"))
        for each in caches
        if "db.DatabaseCache" in str(each.get("BACKEND"))
        or each.get("OPTIONS", {}).get("cache_model_class")
    ]
    return frozenset(map(name_of, (*conf().IGNORED_TABLES, *own)))


@functools.lru_cache(1)
def _cascades() -> dict[str, set[str]]:
    """Return, by table, those in which the database itself changes rows when rows of
    the table are deleted."""
    found: dict[str, set[str]] = {}
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.local_fields:
            rule = getattr(field.remote_field, "on_delete", None)
            if rule in _BY_DATABASE:
                target = name_of(field.related_model._meta.db_table)  # type: ignore
                found.setdefault(target, set()).add(name_of(model._meta.db_table))
    return found


_BY_DATABASE = {
    getattr(models, name)
    for name in ("DB_CASCADE", "DB_SET_NULL", "DB_SET_DEFAULT")
    if hasattr(models, name)
}


@on_change
def _forget_settings() -> None:
    for known in (_known_tables, _ignored, _cascades):
        known.cache_clear()


# --- statements ----------------------------------------------------------------------


def _tables_in(sql: Any) -> set[str] | None:
    """Return the tables that a statement names, without those that are ignored; None if
    it names none."""
    if not isinstance(sql, str):
        return None
    names = names_in(sql)
    found = (names.all & _known_tables()) | names.tables
    if not found and not names.all & _ignored():
        return None
    return set(found - _ignored())


def _written_by(sql: Any) -> set[str]:
    """Return the tables that a statement may write to."""
    found = _tables_in(sql)
    if found is None:
        return set(_known_tables())
    todo = list(found)
    while todo:
        more = _cascades().get(todo.pop(), set()) - found
        found |= more
        todo += more
    return found


def _observe(connection: Any, execute: Callable[..., Any], sql: Any, *args: Any) -> Any:
    """Run a statement; see the tables that it reads or writes."""
    origins, effect = capture.reading(), effect_of(sql)
    if origins is not None:
        tables = _tables_in(sql)
        if tables is None and (effect.writes or not isinstance(sql, str)):
            origins.void = capture.UNREADABLE
        elif tables:
            store = Store(origins.alias, breaker.breaker_of(origins.alias), Clock())
            run(origins.note(store, map(table_tag, tables)))
    if not effect.writes or not is_watching():
        return execute(sql, *args)
    tables = _written_by(sql)
    try:
        result = execute(sql, *args)
    except Exception:
        if not connection.in_atomic_block:
            invalidate_tables(tables)  # it may have written all the same
        raise
    invalidate_tables(tables)
    return result


def is_told(alias: str) -> bool:
    """Return whether every process of the site invalidates in this cache what depends
    on the tables that it writes to."""
    return alias in conf().TABLE_CACHES


def invalidate_tables(tables: Iterable[str]) -> None:
    """Invalidate what depends on these tables, at once or at the commit.

    The errors of a cache are raised if functions of this process use it, else logged.
    """
    tags = [table_tag(table) for table in tables]
    for alias in {*conf().TABLE_CACHES, *_declared} if tags else ():
        store = Store(alias, breaker.breaker_of(alias), Clock())
        try:
            if alias in _declared or _may_be_used_elsewhere(store):
                run(renew_tags(store, "a write to the database", tags))
        except Exception as error:
            if alias in _declared:
                raise
            logger.warning("the cache %r was not told of a write: %r", alias, error)


def _may_be_used_elsewhere(store: Store) -> bool:
    """Return whether other processes may have functions that depend on tables."""
    if store.breaker.blocks(store.clock.monotonic()) or is_in_memory(store.alias):
        return False
    return store.backend().stores
