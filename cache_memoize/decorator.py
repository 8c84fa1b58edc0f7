"""THE decorator: the two wrappers around a function, and what hangs on it.

A call's way: arguments -> key -> entry -> fresh? -> value; otherwise claim -> call ->
settle -> value. The two wrappers are alike but for ``await``; a test holds them
together. Everything that is not a hit is in protocol/: claim.py
(before the call) and settle.py (after it).
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from django.apps import apps

from . import options, signals
from .cache.connections import UNREAD
from .cache.record import (
    AHEAD,
    TAIL,
    freshness,
    loads,
)
from .cache.store import run
from .clock import Clock
from .memoized import (
    CONTROLS,
    ClassMemoized,
    Memoized,
    watch_class_body,
)
from .planning import Core
from .protocol import claim as flows
from .protocol import settle
from .protocol.call import computing, serve
from .protocol.policy import BACKEND
from .protocol.refresh import arevalidate, revalidate
from .protocol.transactions import live

if TYPE_CHECKING:
    from .memoized import AsyncMemoized

__all__ = ["Memoized", "cache_memoize"]

P = ParamSpec("P")
T = TypeVar("T")
#: mypy allows no decorator above @property, whatever its type; pyright does.
F = TypeVar("F", bound=property)

Timeout = float | timedelta | None
VaryOn = str | Callable[[], Any]

#: Looked at on every hit. A list, until somebody connects it is empty.
heard = signals.hit


def _sync_wrapper(core: Core) -> Callable[..., Any]:
    function, stats, clock = core.function, core.stats, core.clock.source
    key_of = alias = store = fetch = plain = zone = cast("Any", None)
    stores = breaker = on_hit = on_miss = stored = cast("Any", None)

    def rebind() -> None:
        nonlocal key_of, alias, store, fetch, plain, zone, breaker, on_hit, on_miss
        nonlocal stores, stored
        alias, store, fetch = core.alias, core.store, core.fetch
        plain, zone, stores = core.plain, core.policy.zone, core.policy.stores
        breaker, on_hit, on_miss = core.breaker, core.hit, core.miss
        stored = core.policy.cache_exceptions
        key_of = core.key_of  # last: whoever sees it sees the others

    core.rebind = rebind
    rebind()

    def call(*args: Any, **kwargs: Any) -> Any:
        refresh = kwargs.pop("_refresh", False) if kwargs else False
        key = key_of(args, kwargs)
        raw, error = UNREAD, None
        if stores and apps.ready and not (breaker.tripped or live or refresh):
            try:
                raw = fetch(alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    age = clock.time() - start
                    if zone:  # of early refreshes: the slower, the sooner
                        timeout -= zone * cost
                    if kind == plain and AHEAD < age < timeout:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if on_hit is not None or heard.receivers:
                            stats.after_hit(on_hit, key, cost, args, kwargs)
                        return value
            except Exception as trouble:
                error = trouble if raw is UNREAD else None
        if refresh:
            claim = run(flows.overtake(core, store, key))
        else:
            claim = run(flows.claim(core, store, key, raw, error))
        if claim.found is not None:
            if claim.lease is not None:
                claim = revalidate(core, claim, args, kwargs)
            return serve(core, claim, args, kwargs)
        nested = computing.set(True)
        try:
            stats.missed(key)  # in here: a receiver may call, or raise, anything
            result = function(*args, **kwargs)
        except BaseException as raised:
            run(settle.fail(core, store, claim, raised, args, kwargs))
            if on_miss is not None and isinstance(raised, stored):
                stats.hook(on_miss, args, kwargs)
            raise
        finally:
            with suppress(ValueError):  # closed by another context
                computing.reset(nested)
        run(settle.settle(core, store, claim, result, args, kwargs))
        if on_miss is not None:
            stats.hook(on_miss, args, kwargs)
        return result

    return call


def _async_wrapper(core: Core) -> Callable[..., Any]:
    function, stats, clock = core.function, core.stats, core.clock.source
    key_of = alias = store = afetch = plain = zone = cast("Any", None)
    stores = breaker = on_hit = on_miss = stored = cast("Any", None)

    def rebind() -> None:
        nonlocal key_of, alias, store, afetch, plain, zone, breaker, on_hit, on_miss
        nonlocal stores, stored
        alias, store, afetch = core.alias, core.astore, core.afetch
        plain, zone, stores = core.plain, core.policy.zone, core.policy.stores
        breaker, on_hit, on_miss = core.breaker, core.hit, core.miss
        stored = core.policy.cache_exceptions
        key_of = core.key_of  # last: whoever sees it sees the others

    core.rebind = rebind
    rebind()

    async def call(*args: Any, **kwargs: Any) -> Any:
        refresh = kwargs.pop("_refresh", False) if kwargs else False
        key = key_of(args, kwargs)
        raw, error = UNREAD, None
        if stores and apps.ready and not (breaker.tripped or live or refresh):
            try:
                raw = await afetch(alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    age = clock.time() - start
                    if zone:  # of early refreshes: the slower, the sooner
                        timeout -= zone * cost
                    if kind == plain and AHEAD < age < timeout:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if on_hit is not None or heard.receivers:
                            stats.after_hit(on_hit, key, cost, args, kwargs)
                        return value
            except Exception as trouble:
                error = trouble if raw is UNREAD else None
        if refresh:
            claim = await flows.overtake(core, store, key)
        else:
            claim = await flows.claim(core, store, key, raw, error)
        if claim.found is not None:
            if claim.lease is not None:
                claim = await arevalidate(core, claim, args, kwargs)
            return serve(core, claim, args, kwargs)
        nested = computing.set(True)
        try:
            stats.missed(key)  # in here: a receiver may call, or raise, anything
            result = await function(*args, **kwargs)
        except BaseException as raised:
            await settle.fail(core, store, claim, raised, args, kwargs)
            if on_miss is not None and isinstance(raised, stored):
                stats.hook(on_miss, args, kwargs)
            raise
        finally:
            with suppress(ValueError):  # closed by another context
                computing.reset(nested)
        await settle.settle(core, store, claim, result, args, kwargs)
        if on_miss is not None:
            stats.hook(on_miss, args, kwargs)
        return result

    return call


# --- the decorator -------------------------------------------------------------------


class Decorator:
    """``cache_memoize(...)`` waiting for its function."""

    def __init__(self, clock: Clock | None, given: dict[str, Any]) -> None:
        self._clock = clock or Clock()
        self._given = given

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncMemoized[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Memoized[P, T, T]: ...
    @overload
    def __call__(self, function: F, /) -> F: ...
    def __call__(self, function: Any, /) -> Any:
        if isinstance(function, staticmethod):
            return staticmethod(self(function.__func__))
        if isinstance(function, property):
            getter: Any = self(cast("Callable[..., Any]", function.fget))
            return property(getter, function.fset, function.fdel, function.__doc__)
        if isinstance(function, classmethod):
            return self._memoize(function.__func__, ClassMemoized)
        if isinstance(function, types.MethodType):  # what it is bound to may change
            return self(function.__func__).__get__(function.__self__)
        return self._memoize(function, Memoized)

    def _memoize(self, function: Any, shape: type[Memoized[Any, Any, Any]]) -> Any:
        _check(function)
        core = Core(function, self._given, self._clock)
        call: Any = (_async_wrapper if core.is_async else _sync_wrapper)(core)
        functools.update_wrapper(call, function)
        call.core = core
        memoized = shape(call)
        functools.update_wrapper(memoized, function)
        core.memoized = memoized
        for control in CONTROLS:
            setattr(memoized, control, getattr(memoized, control))
        if sys.version_info >= (3, 13):
            watch_class_body(function)
        return memoized


def _check(function: Any) -> None:
    """Refuse at decoration what can never be memoized."""
    trouble = None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        trouble = (
            "is a generator function: what it yields is gone once read; return a list"
        )
    elif inspect.isclass(function):
        trouble = "is a class; memoize a function that makes the object"
    elif not callable(function):
        trouble = "cannot be called; put @cache_memoize(...) directly above a def"
    if trouble:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise TypeError(f"cache_memoize: {name} {trouble}")


@overload
def cache_memoize(
    timeout: Callable[P, Coroutine[Any, Any, T]], /
) -> AsyncMemoized[P, T]: ...
@overload
def cache_memoize(  # type: ignore[overload-overlap]  # bare use comes first
    timeout: Callable[P, T], /
) -> Memoized[P, T, T]: ...
@overload
def cache_memoize(timeout: F, /) -> F: ...
@overload
def cache_memoize(
    timeout: Timeout | Callable[..., Timeout] = ...,
    prefix: str | None = None,
    extra: Any = None,
    args_rewrite: Callable[..., Any] | None = None,
    hit_callable: Callable[..., object] | None = None,
    miss_callable: Callable[..., object] | None = None,
    key_generator_callable: Callable[..., str] | None = None,
    store_result: bool = True,
    cache_exceptions: type[Exception] | tuple[type[Exception], ...] = (),
    cache_alias: str = "default",
    *,
    version: Any = None,
    ignore: Iterable[str] = (),
    cache_if: Callable[..., object] | None = None,
    tags: str | Iterable[str] | Callable[..., str | Iterable[str]] | None = None,
    stale: float | timedelta | None = 0,
    early_refresh: float = 0,
    jitter: float = 0,
    wait: float | timedelta | None = None,
    lease: float | timedelta = 10,
    hold: float | timedelta = 0,
    local: Literal["request"] | None = None,
    vary_on: VaryOn | Iterable[VaryOn] = (),
) -> Decorator: ...
def cache_memoize(*args: Any, **kwargs: Any) -> Any:
    """Memoize a function in a Django cache, for all processes that share it.

    :param timeout: seconds (int or float), a ``timedelta``, None (for ever), 0 (store
        nothing), ``DEFAULT_TIMEOUT`` (the backend's own), or, by keyword, a callable
        of the result and the call's arguments that gives one of these. The age of a
        result counts from the start of its computation.
    :param prefix: what sets the function's keys apart from others'; its module and
        qualified name if None.
    :param extra: more that the result depends on: any value that can be keyed, or a
        callable of the call's arguments that gives one.
    :param args_rewrite: a callable of the call's arguments, as they are written in
        the call; what it gives stands for them in the key.
    :param hit_callable: called with the call's arguments on a hit.
    :param miss_callable: called with them after a computation.
    :param key_generator_callable: a callable of the call's arguments that gives the
        whole cache key, used as it is.
    :param store_result: False makes a guard: the function runs once per arguments and
        timeout, its result is not stored, and a hit gives True.
    :param cache_exceptions: exception classes that are stored and raised again.
    :param cache_alias: the name of the cache in ``settings.CACHES``.
    :param version: part of the key; bump it when the meaning of the code changes.
    :param ignore: names of parameters that are not part of the key.
    :param cache_if: a callable of the result and the call's arguments that says
        whether to store.
    :param tags: strings, or a callable of the call's arguments that gives some: names
        by which :func:`invalidate_tags` forgets every call that has them. With any,
        also ``()``, the function has ``invalidate_all()``.
    :param stale: seconds or ``timedelta`` after the timeout in which callers still get
        the old value at once, while one computes the new one (``CACHE_MEMOIZE``'s
        ``REFRESH`` says where); a refresh that raises leaves the old value. None: for
        ever. Not on backends that cannot replace atomically.
    :param early_refresh: the beta of XFetch (1 is its authors' advice): the nearer the
        timeout, and the slower the function, the likelier one caller has the value
        refreshed before the timeout; 0: never.
    :param jitter: the fraction, 0 to 1, by which each timeout is shortened at random,
        so that what was stored together does not expire together.
    :param wait: seconds that a caller waits for another's computation of the same
        call before it computes for itself; None: as long as a lease; 0: never.
    :param lease: seconds for which a computation alone has the right to store. When
        its process dies, others wait that long. It grows for functions that are slower.
    :param hold: seconds for which nothing is stored after an invalidation: longer than
        read replicas lag, or than transactions last that read from a snapshot.
    :param local: ``"request"``: within one request, or one ``with local():`` block, ask
        the cache once for each call; None: every time.
    :param vary_on: functions without arguments, or names of those in
        :mod:`cache_memoize.vary`: what they give at the call is part of the key.

    What is not given here may be given to all functions by the setting
    ``CACHE_MEMOIZE["DEFAULTS"]``, which is read at the first call.

    :raises TypeError, ValueError: at decoration, for options that cannot be right.
    :raises UnkeyableArgument: at a call with an argument that cannot be told apart
        from others.
    """
    first = args[0] if args else None
    if callable(first) or isinstance(first, (classmethod, property)):
        if len(args) > 1 or kwargs:
            raise TypeError(
                "cache_memoize: a timeout that is a callable goes by keyword: "
                "@cache_memoize(timeout=...)"
            )
        return Decorator(None, {})(cast("Callable[..., Any]", first))
    everything = _with_options(*args, **kwargs)
    clock = everything.pop("_clock")
    # What was not given may be said by the project.
    names = [*[*everything][: len(args)], *kwargs]
    given = {n: options.kept(n, everything[n]) for n in names if n in everything}
    return Decorator(clock, given)


def _with_options(
    timeout: Any = BACKEND,
    prefix: Any = None,
    extra: Any = None,
    args_rewrite: Any = None,
    hit_callable: Any = None,
    miss_callable: Any = None,
    key_generator_callable: Any = None,
    store_result: Any = True,
    cache_exceptions: Any = (),
    cache_alias: Any = "default",
    *,
    version: Any = None,
    ignore: Any = (),
    cache_if: Any = None,
    tags: Any = None,
    stale: Any = 0,
    early_refresh: Any = 0,
    jitter: Any = 0,
    wait: Any = None,
    lease: Any = 10,
    hold: Any = 0,
    local: Any = None,
    vary_on: Any = (),
    _clock: Any = None,
) -> dict[str, Any]:
    return locals()


# The wrapper only tells a function (bare use) from a timeout. Tools and errors show
# the parameters, without the one that is for tests.
_with_options.__qualname__ = cache_memoize.__qualname__
_signature = inspect.signature(_with_options)
cache_memoize.__signature__ = _signature.replace(  # type: ignore[attr-defined]
    parameters=[p for p in _signature.parameters.values() if p.name[0] != "_"]
)
