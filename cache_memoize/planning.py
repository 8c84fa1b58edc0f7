"""The plans of functions, made of the options of the function, project and library.

Settings are read when they are used. So a plan is made at the first call, not at
decoration, and made anew after the settings have changed. :func:`functions` is the
register of all memoized functions of this process.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from . import process, vary
from .cache import local, record
from .cache.breaker import breaker_of
from .cache.connections import (
    afetch,
    afetch_many,
    afetch_tagged,
    fetch,
    fetch_many,
    fetch_tagged,
    is_in_memory,
    place_from_afar,
    place_of,
    unfit,
)
from .cache.holders import can_hold
from .cache.near import Near
from .cache.store import AsyncStore, Store
from .clock import Clock
from .conf import Conf, conf, is_debug, on_change
from .keys.binding import Binder
from .keys.calling import fit
from .keys.closure import captured_text_of, default_prefix
from .keys.encoding import encode
from .keys.maker import KeyParts, key_maker, parts_maker, state_maker
from .keys.tags import (
    also_tagged,
    call_tags,
    function_tag,
    group_of,
    predicting,
    table_tag,
    tagging,
    variant_of,
)
from .model_signals import find_model
from .options import CALLED, Options, check_given
from .protocol import tables
from .protocol.call import Function, Plan
from .protocol.policy import Policy
from .stats.counters import logger
from .stats.reporter import reporter

__all__ = [
    "Function",
    "Plan",
    "distinction",
    "functions",
    "make_function",
    "make_plan",
    "models_of",
    "plan_of",
    "watch_reads",
]

#: Options that a guard (store_result=False) cannot have, and does not take from
#: CACHE_MEMOIZE["DEFAULTS"].
_NOT_FOR_GUARDS = ("stale", "early_refresh", "audit")

#: Held while a plan is made. Not at decoration: that happens during imports, perhaps
#: because the thread that holds this lock reads the settings.
_lock = threading.RLock()
#: Held only while a function is added to the register, or the register is listed.
_listing = threading.RLock()
_functions: WeakSet[Function] = WeakSet()
_watch: Callable[[Any], Any] | None = None
#: Aliases of which the log has said that other processes do not see the entries, or
#: has had no reason to.
checked_aliases: set[str] = set()


def functions() -> list[Function]:
    """Return all memoized functions of this process."""
    with _listing:
        return list(_functions)


# --- a function ----------------------------------------------------------------------


def make_function(
    func: Callable[..., Any], given: dict[str, Any], clock: Clock
) -> Function:
    """Return the function with these options, and register it.

    Raises TypeError or ValueError for options that are known to be wrong already.
    """
    function = Function(func, given, clock)
    options = Options(**given)
    options.check(function.name)
    check_given(function.name, given)
    function.binder = Binder(func, function.name, options.ignore)
    function.prefix = options.prefix or ""
    if not function.prefix and options.key_generator_callable is None:
        function.prefix = default_prefix(func)
        _warn_if_shared(function.prefix, func)
    _plan(function, Conf(), may_open=False)
    if options.prefix and options.key_generator_callable is None:
        _warn_if_taken(function, options)
    with _listing:
        _functions.add(function)
    return function


_by_prefix: WeakValueDictionary[str, Any] = WeakValueDictionary()


def _warn_if_shared(prefix: str, func: Callable[..., Any]) -> None:
    """Warn if two functions of different code, both alive, have one default prefix."""
    code = getattr(func, "__code__", None)
    if code is None:
        return
    other = getattr(_by_prefix.get(prefix), "__code__", None)
    if other is not None and other != code:
        warnings.warn(
            f"cache_memoize: two functions are both known as {prefix!r}, so they would "
            "share their entries; give each its own prefix=",
            RuntimeWarning,
            stacklevel=5,
        )
    _by_prefix[prefix] = func


_by_distinction: WeakValueDictionary[Any, Function] = WeakValueDictionary()


def distinction(function: Function, options: Options) -> Any:
    """Return all that makes a function's keys differ from others, the prefix first."""
    extra = options.extra
    return (
        function.prefix or function.path,
        encode(options.version),
        callable(extra) or encode(extra),
        options.args_rewrite is None,
        *vary.parts(options.vary_on, function.name),
    )


def _warn_if_taken(function: Function, options: Options) -> None:
    """Warn if another function has the same ``prefix=``, but other parameters.

    Functions with the same ones may share their entries on purpose. Functions made in
    two different functions may not live at the same time.
    """
    key = options.cache_alias, distinction(function, options)
    other = _by_distinction.get(key)
    _by_distinction[key] = function
    if other is None:
        return
    if other.path == function.path and not function.name.endswith("<lambda>"):
        return  # it was made again, or its module was reloaded
    here, there = (one.path.rpartition(".<locals>.")[0] for one in (function, other))
    one, two = (
        [(p.name, p.kind) for p in each.binder.signature.parameters.values()]
        for each in (function, other)
    )
    if one != two and not (here and there and here != there):
        warnings.warn(
            f"cache_memoize: {function.path} and {other.path} have one prefix="
            f"{options.prefix!r}, but different parameters, so one would return the "
            "results of the other; give each its own prefix=",
            RuntimeWarning,
            stacklevel=5,
        )


# --- its plan ------------------------------------------------------------------------


def plan_of(function: Function) -> Plan:
    """Return the plan under the present settings; raises ImproperlyConfigured."""
    return function.plan or make_plan(function)


def make_plan(function: Function) -> Plan:
    plan = _make_plan(function)
    if plan.stores and plan.alias not in checked_aliases and not is_debug():
        checked_aliases.add(plan.alias)
        with suppress(Exception):  # it cannot be opened: the call raises that
            if problem := unfit(plan.alias):
                logger.warning("the cache %r %s", plan.alias, problem)
    return plan


def _make_plan(function: Function) -> Plan:
    with _lock:
        if function.plan is not None:  # made by another thread, meanwhile
            return function.plan
        project = conf()
        try:
            plan = _plan(function, project)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE['DEFAULTS'] does not fit {function.path}: {error}"
            ) from error
        # A settings file may call a function that it defines, before it is complete.
        if apps.ready:
            function.plan = plan
            reporter.watch(function.stats)
        return plan


def _plan(function: Function, project: Conf, *, may_open: bool = True) -> Plan:
    """Return a plan.

    :param may_open: whether the cache may be opened: not at decoration.
    """
    options = _options(function, project)
    name = function.name
    called = _fit_callables(options, function.binder)
    policy = Policy.from_options(name, called, enabled=project.ENABLED)
    alias = function.stats.alias = options.cache_alias
    breaker = breaker_of(alias)
    varied = vary.parts(options.vary_on, name)
    captured = None if options.prefix else captured_text_of(function.func, name)
    binder = function.binder
    parts = KeyParts(
        options.version,
        called.extra,
        called.args_rewrite,
        called.key_generator_callable,
        varied,
        captured,
        project.KEY_PREFIX,
    )
    key_of = call_of = key_maker(binder, function.prefix, parts)
    if varied:
        call_of = key_maker(binder, function.prefix, parts._replace(vary_on=()))
    tag, depends = None, _table_tags(options, name, alias)
    if options.tags is not None:
        # Without a prefix the function makes its own keys.
        tag = function_tag(function.prefix or function.path)
        key_of = tagging(key_of, called.tags, tag, name)
    if varied:
        key_of = variant_of(key_of, call_of, function.prefix)
    if depends:
        key_of = also_tagged(key_of, depends)
    is_tagged = tag is not None or bool(varied or depends)
    hit_kinds = [record.ENTRY | record.TAGGED if is_tagged else record.ENTRY]
    if function.expected is not None:
        key_of = predicting(key_of, function.expected)
        hit_kinds.append(hit_kinds[0] | record.DEPENDS)
    read: Any = fetch
    aread: Any = afetch
    if is_tagged or function.expected is not None:
        read, aread = fetch_tagged, afetch_tagged
    read_many, aread_many = fetch_many, afetch_many
    if options.local == "request":
        read = local.fetching(read, hit_kinds, place_of)
        aread = local.afetching(aread, hit_kinds, place_from_afar)
        local.watch_requests()
    elif may_open and _has_copies(options.local, alias, name):
        clock = function.clock.source
        group = group_of(call_tags(function.prefix, "")[1]) or ""
        near = Near(alias, hit_kinds, policy.local, group, function.stats, clock)
        read, aread = near.fetch, near.afetch
        read_many, aread_many = near.fetch_many, near.afetch_many
    if _watch is not None:
        reads = read, aread, read_many, aread_many
        read, aread, read_many, aread_many = map(_watch, reads)
    return Plan(
        options=options,
        policy=policy,
        alias=alias,
        breaker=breaker,
        store=Store(alias, breaker, function.clock),
        astore=AsyncStore(alias, breaker, function.clock),
        key_of=key_of,
        call_of=call_of,
        state_of=state_maker(binder, parts),
        parts_of=parts_maker(binder, parts),
        captured=captured,
        fetch=read,
        afetch=aread,
        fetch_many=read_many,
        afetch_many=aread_many,
        hit_kinds=tuple(hit_kinds),
        tag=tag,
        reads=options.depends_on == "reads",
        tables=frozenset(depends),
        stores=policy.can_store and apps.ready,
        early_zone=policy.early_zone,
        longest=record.cap(policy.longest),
        audited=policy.audited,
        hit=called.hit_callable,
        miss=called.miss_callable,
        varies=bool(varied),
        context_travels=vary.travel(varied),
    )


def _has_copies(given: Any, alias: str, name: str) -> bool:
    """Return whether copies of the entries are kept in the memory of this process."""
    if not given or not apps.ready or is_in_memory(alias):
        return False  # in memory, a hit is as near as a copy
    if given == "process" and not can_hold(alias):
        raise ImproperlyConfigured(
            f"cache_memoize: {name} has local='process', for which the cache "
            f"{alias!r} has to be on Redis or Valkey, and not in a cluster, with the "
            "client of Django, django-redis or django-valkey; write a number of "
            "seconds: local=0.5"
        )
    return True


def _table_tags(options: Options, name: str, alias: str) -> set[str]:
    """Return the tags of the tables of the models in depends_on=."""
    if options.depends_on in (None, ()) or not apps.ready:
        return set()
    found = {table for m in models_of(options, name) for table in tables.tables_of(m)}
    tables.declare(alias, name)
    return set(map(table_tag, found))


def models_of(options: Options, name: str) -> list[type[Model]]:
    """Return the models in depends_on= of a function with this name.

    Raises ImproperlyConfigured for what is no model, or has no table that is watched.
    """
    given: Any = options.depends_on
    if given in (None, (), "reads"):
        return []
    return [_model(each, name) for each in (given if type(given) is tuple else [given])]


def _model(given: Any, name: str) -> type[Model]:
    trouble, cure = "", 'write the class, "app.Model", or "reads"'
    found: Any = given
    try:
        found = find_model(given) if isinstance(given, str) else given
    except (LookupError, ValueError) as error:
        trouble = f" ({error})"
    if given == "reads":
        trouble, cure = "'reads' beside models", 'write only models, or only "reads"'
    elif not (isinstance(found, type) and issubclass(found, Model)) or found is Model:
        is_short = isinstance(given, (str, type))  # a queryset would be evaluated
        shown = repr(given) if is_short else f"a {type(given).__name__}"
        trouble = f"{shown}, which is no model{trouble}"
    elif found._meta.abstract:
        trouble = f"the abstract model {found.__name__}, which has no table"
        cure = "write the models that inherit it"
    elif found._meta.swapped:
        trouble = f"{found._meta.label}, which has no table"
        cure = f"{found._meta.swapped} is in its place; write that"
    elif tables.is_ignored(found._meta.db_table):
        trouble = f"{found._meta.label}, whose writes are not watched"
        cure = f"take {found._meta.db_table!r} out of CACHE_MEMOIZE['IGNORED_TABLES']"
    if trouble:
        raise ImproperlyConfigured(
            f"cache_memoize: depends_on= of {name} has {trouble}; {cure}"
        )
    model: type[Model] = found
    return model


def _fit_callables(options: Options, binder: Binder) -> Options:
    """Return the same options, whose callables get the call in one form."""
    fitted: dict[str, Any] = {
        option: fit(value, option, binder, leading)
        for option, leading in CALLED.items()
        if callable(value := getattr(options, option))
    }
    return replace(options, **fitted)


def _options(function: Function, project: Conf) -> Options:
    defaults = project.DEFAULTS
    if not function.given.get("store_result", True):
        defaults = {k: v for k, v in defaults.items() if k not in _NOT_FOR_GUARDS}
    options = Options(**(defaults | function.given))
    options.check(function.name)
    return options


def _drop_plans() -> None:
    with _lock:
        for function in functions():
            function.plan = None


def watch_reads(watch: Callable[[Any], Any] | None) -> None:
    """Put ``watch`` around the functions that read caches, for the panel; None ends
    that."""
    global _watch
    _watch = watch
    _drop_plans()


on_change(_drop_plans)
on_change(_drop_plans, "CACHES")


@process.after_fork
def _after_fork() -> None:
    """Replace the locks: another thread of the parent may have held them."""
    global _lock, _listing
    _lock, _listing = threading.RLock(), threading.RLock()
    _drop_plans()  # the reporter of the child starts with its first plan
