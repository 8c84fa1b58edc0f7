"""The decorator, and the two wrappers that it puts around functions.

The path of a hit: arguments -> key -> fresh entry -> value. That of a miss: arguments
-> key -> claim (protocol/claim.py) -> the user's function -> settle
(protocol/settle.py) -> value.
The two wrappers differ only by ``await``; a test compares them.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from . import signals
from .cache.connections import UNREAD
from .cache.record import AHEAD, TAIL, freshness, loads
from .cache.store import run
from .clock import Clock
from .memoized import Memoized
from .methods import (
    BoundMethod,
    MemoizedClassMethod,
    MemoizedMethod,
    attach,
    is_in_class_body,
)
from .options import (
    SIGNATURE,
    DependsOn,
    Options,
    Timeout,
    VaryOn,
    check_given,
    given_in,
)
from .planning import make_function, make_plan
from .protocol.audit import aaudit, audit
from .protocol.call import Call, Function
from .protocol.capture import Computation, computation, running
from .protocol.claim import claim, overtake, serve
from .protocol.policy import Policy
from .protocol.refresh import arevalidate, revalidate
from .protocol.settle import fail, settle
from .protocol.transactions import live

if TYPE_CHECKING:
    from .memoized import AsyncMemoized

__all__ = ["Memoized", "cache_memoize", "preset"]

P = ParamSpec("P")
T = TypeVar("T")
#: mypy allows no decorator of any type above @property; pyright does.
F = TypeVar("F", bound=property)
C = TypeVar("C", bound=Callable[..., Any])

#: Its list of receivers is looked at on every hit.
heard = signals.hit


def _sync_wrapper(function: Function) -> Callable[..., Any]:
    func, stats, clock = function.func, function.stats, function.clock.source

    def call(*args: Any, **kwargs: Any) -> Any:
        refresh = "_refresh" in kwargs and kwargs.pop("_refresh") is True
        plan = function.plan or make_plan(function)
        key = plan.key_of(args, kwargs)
        raw, error = UNREAD, None
        aside = plan.breaker.tripped or live or refresh
        if plan.stores and not (aside or (running and computation())):
            try:
                raw = plan.fetch(plan.alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    age = clock.time() - start
                    if plan.early_zone:  # the slower the function, the earlier
                        timeout -= plan.early_zone * cost
                    if kind in plan.hit_kinds and AHEAD < age < timeout <= plan.longest:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if plan.hit is not None or heard.receivers:
                            stats.after_hit(plan.hit, key, cost, args, kwargs)
                        if plan.audited and function.clock.random() < plan.audited:
                            this = Call(function, plan, plan.store, key, args, kwargs)
                            audit(this, raw)
                        return value
            except Exception as trouble:
                error = trouble if raw is UNREAD else None
        this = Call(function, plan, plan.store, key, args, kwargs)
        claimed = run(overtake(this) if refresh else claim(this, raw, error))
        if claimed.found is not None:
            if claimed.lease is not None:
                claimed = revalidate(this, claimed)
            return serve(this, claimed)
        computing = Computation(claimed.origins)
        try:
            stats.missed(key)  # in the try: a receiver may raise
            result = func(*args, **kwargs)
        except BaseException as raised:
            run(fail(this, claimed, raised))
            raise
        finally:
            computing.end()
        run(settle(this, claimed, result))
        return result

    return call


def _async_wrapper(function: Function) -> Callable[..., Any]:
    func, stats, clock = function.func, function.stats, function.clock.source

    async def call(*args: Any, **kwargs: Any) -> Any:
        refresh = "_refresh" in kwargs and kwargs.pop("_refresh") is True
        plan = function.plan or make_plan(function)
        key = plan.key_of(args, kwargs)
        raw, error = UNREAD, None
        aside = plan.breaker.tripped or live or refresh
        if plan.stores and not (aside or (running and computation())):
            try:
                raw = await plan.afetch(plan.alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    age = clock.time() - start
                    if plan.early_zone:  # the slower the function, the earlier
                        timeout -= plan.early_zone * cost
                    if kind in plan.hit_kinds and AHEAD < age < timeout <= plan.longest:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if plan.hit is not None or heard.receivers:
                            stats.after_hit(plan.hit, key, cost, args, kwargs)
                        if plan.audited and function.clock.random() < plan.audited:
                            this = Call(function, plan, plan.astore, key, args, kwargs)
                            await aaudit(this, raw)
                        return value
            except Exception as trouble:
                error = trouble if raw is UNREAD else None
        this = Call(function, plan, plan.astore, key, args, kwargs)
        claimed = await (overtake(this) if refresh else claim(this, raw, error))
        if claimed.found is not None:
            if claimed.lease is not None:
                claimed = await arevalidate(this, claimed)
            return serve(this, claimed)
        computing = Computation(claimed.origins)
        try:
            stats.missed(key)  # in the try: a receiver may raise
            result = await func(*args, **kwargs)
        except BaseException as raised:
            await fail(this, claimed, raised)
            raise
        finally:
            computing.end()
        await settle(this, claimed, result)
        return result

    return call


# --- the decorator -------------------------------------------------------------------


class Decorator:
    """The decorator that ``cache_memoize(...)`` returns."""

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
            return staticmethod(self._memoize(function.__func__))
        if isinstance(function, property):
            getter = self._memoize(function.fget)
            return property(getter, function.fset, function.fdel, function.__doc__)
        if isinstance(function, classmethod):
            return MemoizedClassMethod(self._memoize(function.__func__))
        if isinstance(function, types.MethodType):
            return BoundMethod(self._memoize(function.__func__), function.__self__)
        wrapper = self._memoize(function)
        if not is_in_class_body(function):
            return wrapper
        parameters = [*wrapper._memoized.binder.signature.parameters, ""]
        wrapper._memoized.needs_class = parameters[0] == "cls"
        return MemoizedMethod(wrapper)

    def _memoize(self, func: Any) -> Any:
        _check(func)
        function = make_function(func, self._given, self._clock)
        wrapper = (_async_wrapper if function.is_async else _sync_wrapper)(function)
        wrapper.__name__ = wrapper.__qualname__ = function.name  # for callables without
        functools.update_wrapper(wrapper, func)
        attach(wrapper, function)
        return wrapper


def _check(function: Any) -> None:
    """Refuse objects that can never be memoized."""
    trouble = None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        trouble = (
            "is a generator function, whose values can be read only once; return a list"
        )
    elif inspect.isclass(function):
        trouble = "is a class; memoize a function that makes the object"
    elif not callable(function):
        trouble = "is not callable; put @cache_memoize(...) directly above a def"
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
    local: Literal["request", "process"] | float | timedelta | None = None,
    vary_on: VaryOn | Iterable[VaryOn] = (),
    inherit: bool = True,
    depends_on: DependsOn | Iterable[DependsOn] = (),
    compress: bool | int | None = None,
    max_bytes: int | None = None,
    audit: float | tuple[float, Callable[[Any, Any], object]] = 0,
) -> Decorator: ...
def cache_memoize(*args: Any, **kwargs: Any) -> Any:
    """Memoize a function in a Django cache, for all processes that share it.

    :param timeout: seconds (int or float), a ``timedelta``, None (unlimited), 0 (store
        nothing), ``DEFAULT_TIMEOUT`` (that of the backend), or, by keyword, a callable
        of the result and the call's arguments that returns one of these. The age of a
        result is measured from the start of its computation.
    :param prefix: the name of the function in its keys, different from those of all
        other functions; None: its module and qualified name.
    :param extra: a further part of the key: any value that can be keyed, or a callable
        of the call's arguments that returns one.
    :param args_rewrite: a callable of the call's arguments, as they are written in
        the call; its result replaces them in the key.
    :param hit_callable: called with the call's arguments on a hit.
    :param miss_callable: called with them after a computation.
    :param key_generator_callable: a callable of the call's arguments that returns the
        whole cache key, used unchanged.
    :param store_result: False makes a guard: the function runs once per arguments and
        timeout, its result is not stored, and a hit returns True.
    :param cache_exceptions: exception classes that are stored and raised again.
    :param cache_alias: the name of the cache in ``settings.CACHES``.
    :param version: part of the key; bump it when the meaning of the code changes.
    :param ignore: names of parameters that are not part of the key.
    :param cache_if: a callable of the result and the call's arguments that returns
        whether to store the result.
    :param tags: strings, or a callable of the call's arguments that returns some:
        :func:`invalidate_tags` invalidates every call with a tag. With any tags, even
        ``()``, the function has ``invalidate_all()``.
    :param stale: seconds or ``timedelta`` after the timeout in which callers still get
        the old value at once, while the new one is computed (``CACHE_MEMOIZE``'s
        ``REFRESH`` says where); if that raises, the old value stays. None: unlimited.
        Not on backends that cannot replace atomically.
    :param early_refresh: the beta of XFetch (its authors advise 1): the nearer the
        timeout, and the slower the function, the likelier a caller has the value
        refreshed before the timeout; 0: never.
    :param jitter: the fraction, 0 to 1, by which each timeout is shortened at random,
        so that entries stored together do not expire together.
    :param wait: seconds for which a caller waits for a computation of the same call
        before it computes for itself; None: as long as a lease; 0: never.
    :param lease: seconds for which a computation has the sole right to store. If its
        process dies, other callers wait that long. Leases of slower functions grow.
    :param hold: seconds for which nothing is stored after an invalidation: longer than
        the lag of read replicas, or than transactions that read from a snapshot.
    :param local: ``"process"``: serve hits from the memory of this process, with the
        whole promise (Redis and Valkey only); seconds or ``timedelta``: the same on any
        backend, but changes by other processes are seen that much later;
        ``"request"``: read each call from the cache once per request, or per
        ``with local():`` block; None: every time.
    :param vary_on: functions without arguments, or names of those in
        :mod:`cache_memoize.vary`: their results at the call are part of the key.
    :param inherit: whether a result is out of date as soon as one of the memoized calls
        is that the function made; False: only when it is invalidated itself.
    :param depends_on: models, as classes or ``"app.Model"``: results are out of date as
        soon as any process writes to their tables; ``"reads"``: the tables that the
        function has read. Needs ``"cache_memoize"`` in ``INSTALLED_APPS``.
    :param compress: the bytes of a pickled result above which it is compressed, by
        Zstandard where Python has it, else by zlib; True: 1,024; None: never.
    :param max_bytes: the bytes of the largest entry, compressed, that is stored; a
        larger result is only returned. None: unlimited.
    :param audit: the fraction of the hits, 0 to 1, that are computed again in the
        background and compared: what has changed without an invalidation is counted,
        logged and invalidated. With a function of the old and the new result that
        returns whether they are the same: ``(0.001, same)``.

    Options that are not passed here may be set for all functions by the setting
    ``CACHE_MEMOIZE["DEFAULTS"]``, which is read at the first call.

    :raises TypeError, ValueError: at decoration, for options that cannot be right.
    :raises UnkeyableArgument: at a call with an argument that cannot be told from
        others.
    """
    return _decorate({}, args, kwargs)


cache_memoize.__signature__ = SIGNATURE  # type: ignore[attr-defined]


def _decorate(defaults: dict[str, Any], args: Any, kwargs: Any) -> Any:
    """Return the decorator with these options, or the function of a bare use."""
    if _is_function(args):
        if len(args) > 1 or kwargs:
            raise TypeError(
                "cache_memoize: a callable timeout must be passed by keyword: "
                "@cache_memoize(timeout=...)"
            )
        return Decorator(None, defaults)(args[0])
    clock = kwargs.pop("_clock", None)  # for tests
    return Decorator(clock, defaults | given_in(args, kwargs))


def _is_function(args: Any) -> bool:
    """Return whether the first option passed by position is no timeout."""
    first = args[0] if args else None
    return callable(first) or isinstance(first, (classmethod, property))


def _returning(decorator: C) -> Callable[[Callable[..., Any]], Callable[..., C]]:
    """Tell type checkers that the function returns what has the type of this one."""
    return lambda function: function


@_returning(cache_memoize)
def preset(*args: Any, **kwargs: Any) -> Any:
    """Return a decorator like :func:`cache_memoize`, with these options as defaults:
    ``fast = preset(60, stale=600)``, then ``@fast`` or ``@fast(tags="shop")``. Options
    that are passed to it replace those of the preset, which replace the project's.

    :raises TypeError, ValueError: for options that cannot be right, and for ``prefix``.
    """
    if _is_function(args):
        raise TypeError(
            "preset() takes options, not a function: write fast = preset(60), and "
            "@fast above the function; a callable timeout is passed by keyword"
        )
    defaults = given_in(args, kwargs)
    if defaults.get("prefix") is not None:
        raise TypeError(
            "preset() has a prefix=, which is the name of one function; pass it to the "
            "decorator of that: @fast(prefix=...)"
        )
    options = Options(**defaults)
    options.check("preset()")
    check_given("preset()", defaults)
    Policy.from_options("preset()", options)

    def decorator(*args: Any, **kwargs: Any) -> Any:
        return _decorate(defaults, args, kwargs)

    decorator.__signature__ = SIGNATURE  # type: ignore[attr-defined]
    return decorator
