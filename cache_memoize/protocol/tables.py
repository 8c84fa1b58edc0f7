"""The database tables that results depend on, and that statements write.

Each table has a tag, and an entry that depends on it is out of date as soon as any
process writes to the table. The writer need not know the functions: if
``"cache_memoize"`` is in ``INSTALLED_APPS``, the execute wrapper of each connection
(transactions.py) shows every statement to :func:`_observe`. A signal of Django would
not do: ``update()``, the bulk methods, raw SQL and migrations send none.

All names in a statement that are those of a table count as tables, also where they name
a column: in doubt a statement writes more, and a result depends on more. If a write
names no table at all, as the call of a procedure does, it may have written to all.

Methods of cursors that send a statement of their own (``callproc``) count as one that
names no table. Not seen are triggers, other programs, and ``COPY`` outside of a
transaction, which ends later than its method.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from ..cache.connections import aliases, is_in_memory, settings_of
from ..cache.store import run, store_of
from ..conf import conf, is_debug, on_change
from ..keys.tags import table_tag
from ..process import log_sometimes, logger
from . import capture, transactions
from .invalidation import renew_tags
from .snapshots import has_open_statement
from .statements import effect_of, names_in

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = [
    "declare",
    "invalidate_tables",
    "is_ignored",
    "tables_of",
    "tables_with",
    "uses_tables",
    "watch_writes",
]

#: Aliases of caches with functions of this process that depend on tables.
_declared: set[str] = set()
#: Those of which the log has said that other processes do not tell them of writes.
_untold: set[str] = set()


def watch_writes() -> None:
    """Have every write of this process invalidate what depends on its tables."""
    transactions.observer = _observe


def declare(alias: str, name: str) -> None:
    """Remember that results of a function in this cache depend on tables.

    Raises ImproperlyConfigured if writes do not invalidate them.
    """
    trouble = None
    if not apps.is_installed("cache_memoize"):
        trouble = 'nothing sees writes: put "cache_memoize" into INSTALLED_APPS'
    elif not _is_watching():
        trouble = "CACHE_MEMOIZE['WATCH_TABLES'] is False; remove that setting"
    if trouble:
        raise ImproperlyConfigured(
            f"cache_memoize: {name} has depends_on=, but {trouble}"
        )
    _declared.add(alias)
    if alias in conf().TABLE_CACHES or alias in _untold or is_debug():
        return
    _untold.add(alias)
    logger.warning(
        "%s depends on tables, but processes that do not import it do not tell the "
        "cache %r of their writes: add it to CACHE_MEMOIZE['TABLE_CACHES']",
        name,
        alias,
    )


def _is_watching() -> bool:
    return transactions.observer is _observe and conf().WATCH_TABLES


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
    metas = [meta, *(parent._meta for parent in meta.get_parent_list())]
    found = {name_of(each.db_table) for each in metas}
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


def is_ignored(table: str) -> bool:
    """Return whether writes to a table invalidate nothing."""
    return name_of(table) in _ignored()


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
            run(origins.note(store_of(origins.alias), map(table_tag, tables)))
    if not effect.writes or not _is_watching():
        return execute(sql, *args)
    tables = _written_by(sql)
    try:
        result = execute(sql, *args)
    except Exception:
        if not connection.in_atomic_block:
            invalidate_tables(tables)  # it may have written all the same
        raise
    if args and _is_unfinished(connection, sql):
        cursor = args[-1]["cursor"]
        if "waiting" in vars(cursor):  # its rows were never read
            tables |= cursor.waiting.args[0]
        cursor.waiting = functools.partial(invalidate_tables, tables)
    else:
        invalidate_tables(tables)
    return result


def _is_unfinished(connection: Any, sql: Any) -> bool:
    """Return whether a statement is committed only when its rows have been read."""
    if connection.in_atomic_block or "RETURNING" not in str(sql).upper():
        return False
    return has_open_statement(connection)


def invalidate_tables(tables: Iterable[str]) -> None:
    """Invalidate what depends on these tables, at once or at the commit.

    The errors of a cache are raised if functions of this process use it, else logged.
    """
    tags = [table_tag(table) for table in tables]
    for alias in {*conf().TABLE_CACHES, *_declared} if tags else ():
        store, fails = store_of(alias), functools.partial(_tell_failure, alias)
        try:
            if alias in _declared:
                run(renew_tags(store, _WRITE, tags))
            elif not is_in_memory(alias) and store.backend().stores:
                if store.breaker.blocks(store.clock.monotonic()):
                    fails("it is left alone for a while")
                else:
                    run(renew_tags(store, _WRITE, tags, fails))
        except Exception as error:
            if alias in _declared:
                raise
            fails(error)


_WRITE = "a write to the database"


def _tell_failure(alias: str, error: object) -> None:
    """Log that results of other processes may be old."""
    log_sometimes(
        logger.warning, "the cache %r was not told of a write: %r", alias, error
    )
