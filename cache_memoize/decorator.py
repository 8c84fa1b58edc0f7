"""THE decorator: the two wrappers around a function, and what hangs on it.

A call's way: arguments -> key -> entry -> fresh? -> value; otherwise claim -> call ->
settle -> value. The two wrappers are alike but for ``await``; a test holds them
together. Everything that is not a hit is in flows.py.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps

from . import flows, registry
from .binding import Binder, default_prefix, key_maker
from .breaker import breaker_of
from .clock import Clock
from .flows import Entry, Memo, computing, run
from .policy import BACKEND, Policy
from .record import ENTRY, FRESHNESS_SIZE, RAISED, SKEW, freshness, loads
from .stats import CacheInfo
from .store import AsyncStore, Store, afetch, fetch

__all__ = ["Memoized", "cache_memoize"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Timeout = float | timedelta | None


class _Core(Memo):
    """One memoized function: what its wrapper, its controls and the flows share."""

    def __init__(
        self,
        function: Callable[..., Any],
        policy: Policy,
        key_of: Callable[[Any, Any], str],
        alias: str,
        clock: Clock,
        hit: Callable[..., object] | None,
        miss: Callable[..., object] | None,
    ) -> None:
        super().__init__(policy.owner, policy, clock)
        self.function = function
        self.key_of = key_of
        self.alias = alias
        self.hit = hit
        self.miss = miss
        self.breaker = breaker_of(alias)
        self.store = Store(alias, self.breaker, clock)
        self.astore = AsyncStore(alias, self.breaker, clock)


def _sync_wrapper(core: _Core) -> Callable[..., Any]:
    function, key_of, alias, store = core.function, core.key_of, core.alias, core.store
    stats, breaker, now = core.stats, core.breaker, core.clock.time
    on_hit, on_miss, stores = core.hit, core.miss, core.policy.stores

    def call(*args: Any, **kwargs: Any) -> Any:
        refresh = bool(kwargs) and kwargs.pop("_refresh", False)
        key = key_of(args, kwargs)
        raw = error = None
        if stores and apps.ready and not breaker.tripped and not refresh:
            try:
                raw = fetch(alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[-FRESHNESS_SIZE:])
                    if kind == ENTRY and -SKEW < now() - start < timeout:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if on_hit is not None:
                            stats.hook(on_hit, args, kwargs)
                        return value
            except Exception as trouble:
                error = None if raw else trouble
        if refresh:
            claim = run(flows.overtake(core, store, key))
        else:
            claim = run(flows.claim(core, store, key, raw, error))
        if claim.found is not None:
            return _serve(core, claim, args, kwargs)
        stats.misses += 1
        nested = computing.set(True)
        try:
            result = function(*args, **kwargs)
            run(flows.settle(core, store, claim, result, args, kwargs))
        except BaseException as raised:
            run(flows.fail(core, store, claim, raised, args, kwargs))
            raise
        finally:
            computing.reset(nested)
        if on_miss is not None:
            stats.hook(on_miss, args, kwargs)
        return result

    return call


def _async_wrapper(core: _Core) -> Callable[..., Any]:
    function, key_of, alias, store = core.function, core.key_of, core.alias, core.astore
    stats, breaker, now = core.stats, core.breaker, core.clock.time
    on_hit, on_miss, stores = core.hit, core.miss, core.policy.stores

    async def call(*args: Any, **kwargs: Any) -> Any:
        refresh = bool(kwargs) and kwargs.pop("_refresh", False)
        key = key_of(args, kwargs)
        raw = error = None
        if stores and apps.ready and not breaker.tripped and not refresh:
            try:
                raw = await afetch(alias, key)
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[-FRESHNESS_SIZE:])
                    if kind == ENTRY and -SKEW < now() - start < timeout:
                        value = loads(raw)
                        stats.hits += 1
                        stats.saved += cost
                        if on_hit is not None:
                            stats.hook(on_hit, args, kwargs)
                        return value
            except Exception as trouble:
                error = None if raw else trouble
        if refresh:
            claim = await flows.overtake(core, store, key)
        else:
            claim = await flows.claim(core, store, key, raw, error)
        if claim.found is not None:
            return _serve(core, claim, args, kwargs)
        stats.misses += 1
        nested = computing.set(True)
        try:
            result = await function(*args, **kwargs)
            await flows.settle(core, store, claim, result, args, kwargs)
        except GeneratorExit:  # nothing may be awaited now: the lease will run out
            raise
        except BaseException as raised:
            # The shield lets the lease be freed although this task is cancelled.
            await asyncio.shield(flows.fail(core, store, claim, raised, args, kwargs))
            raise
        finally:
            computing.reset(nested)
        if on_miss is not None:
            stats.hook(on_miss, args, kwargs)
        return result

    return call


def _serve(core: _Core, claim: flows.Claim, args: Any, kwargs: Any) -> Any:
    """An entry that the flow found: after waiting, or one that is no plain value."""
    assert claim.found is not None
    core.stats.hits += 1
    core.stats.saved += claim.found.cost
    if core.hit is not None:
        core.stats.hook(core.hit, args, kwargs)
    if claim.found.kind == RAISED:
        raise claim.value
    return claim.value


class Memoized(functools.partial, Generic[P, R, T]):  # type: ignore[type-arg]
    """A memoized function: called like the function itself, and with controls.

    Every control takes the arguments of a call, exists once for sync and once, with
    ``a`` in front, for async code, and works on bound methods: ``obj.m.invalidate(1)``.

    It is a ``functools.partial`` of the wrapper with no arguments, or with the instance
    of a bound method: so that calls go through C, and everything that knows partials
    finds an ordinary function in it.
    """

    func: Any

    if TYPE_CHECKING:
        __wrapped__: Callable[P, R]
        __name__: str
        __qualname__: str

        def __new__(cls, wrapper: Any, /, *args: Any) -> Memoized[P, R, T]: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __get__(
        self, instance: None, owner: type | None = None
    ) -> Memoized[P, R, T]: ...
    @overload
    def __get__(
        self: Memoized[Concatenate[Any, Q], R, T],
        instance: object,
        owner: type | None = None,
    ) -> Memoized[Q, R, T]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else _Bound(self.func, instance)

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self._core.function)
        if not self.args:
            return signature
        parameters = list(signature.parameters.values())[len(self.args) :]
        return signature.replace(parameters=parameters)

    def __reduce__(self) -> Any:
        return self.__qualname__  # as for any function: by its name

    def __repr__(self) -> str:
        return f"<memoized {self._core.name} at {id(self):#x}>"

    @property
    def _core(self) -> _Core:
        core: _Core = self.func.core
        return core

    def _call(self, args: Any, kwargs: Any) -> tuple[_Core, str, Any]:
        core = self._core
        kwargs.pop("_refresh", None)
        args = (*self.args, *args)
        return core, core.key_of(args, kwargs), args

    # --- controls ---

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute anew and store. Readers get the old value until then; of several
        refreshes, the one that started last wins. The same as ``_refresh=True``."""
        call = self.func
        if inspect.iscoroutinefunction(call):
            call = async_to_sync(call)
        return call(*self.args, *args, **{**kwargs, "_refresh": True})  # type: ignore

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        call = self.func
        if not inspect.iscoroutinefunction(call):
            call = sync_to_async(call)
        return await call(*self.args, *args, **{**kwargs, "_refresh": True})  # type: ignore

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget this call, and what any computation under way would store.

        Raises what the cache raised, or :exc:`CacheDidNotAnswer`, when it could not.
        """
        core, key, _ = self._call(args, kwargs)
        run(flows.forget(core, core.store, key))

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        core, key, _ = self._call(args, kwargs)
        await flows.forget(core, core.astore, key)

    def get_cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of this call, before Django puts KEY_PREFIX and version in front."""
        return self._call(args, kwargs)[1]

    async def aget_cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        return self._call(args, kwargs)[1]

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The stored :class:`Entry` of this call, or None. Never computes."""
        core, key, _ = self._call(args, kwargs)
        return run(flows.peek(core, core.store, key))

    async def apeek(self, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        core, key, _ = self._call(args, kwargs)
        return await flows.peek(core, core.astore, key)

    def prime(self, value: T, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store ``value`` as the result of this call, without computing it.

        Raises TypeError for a value that cannot be pickled; nothing is lost then.
        """
        core, key, whole = self._call(args, kwargs)
        run(flows.prime(core, core.store, key, value, whole, kwargs))

    async def aprime(self, value: T, *args: P.args, **kwargs: P.kwargs) -> None:
        core, key, whole = self._call(args, kwargs)
        await flows.prime(core, core.astore, key, value, whole, kwargs)

    def cache_info(self) -> CacheInfo:
        """Counters of this function in this process since it started."""
        stats, core = self._core.stats, self._core
        state = core.breaker.state(core.clock.monotonic())
        return CacheInfo(stats.hits, stats.misses, stats.errors, stats.saved, state)

    async def acache_info(self) -> CacheInfo:
        return self.cache_info()


#: What a decorator above ours (with functools.wraps) carries over to its own function.
_CONTROLS = [
    name
    for name, value in vars(Memoized).items()
    if isinstance(value, types.FunctionType) and not name.startswith("_")
]


class _Bound(Memoized):  # type: ignore[type-arg]
    """A memoized method together with its instance (or class)."""

    __doc__ = property(lambda self: self._core.function.__doc__)  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        # What is not here is the function's: __name__, __module__, its own attributes.
        if name == "__wrapped__":
            return self._core.function.__get__(self.args[0])
        return getattr(self._core.function, name)

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property
    def __func__(self) -> Any:
        return self.func

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __reduce__(self) -> Any:
        return getattr, (self.args[0], self._core.function.__name__)


class _ClassMemoized(Memoized):  # type: ignore[type-arg]
    """A memoized classmethod: bound to the class."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return _Bound(self.func, type(instance) if owner is None else owner)


def _watch_class_body(function: Any) -> None:
    """Python 3.13 no longer lets what a classmethod wraps bind itself to the class.

    So ``C.m.invalidate(1)`` would not know C when ``@classmethod`` stands above our
    decorator. The class body that is being executed gets a helper that puts our own
    descriptor there once the class exists.
    """
    owner = function.__qualname__.rpartition(".")[0]
    frame = sys._getframe(1) if owner and owner[-1] != ">" else None
    while frame is not None:
        if frame.f_locals.get("__qualname__") == owner:
            frame.f_locals.setdefault(_Adoption.NAME, _Adoption())
            return
        frame = frame.f_back


class _Adoption:
    NAME = "__cache_memoize__"

    def __set_name__(self, owner: type, name: str) -> None:
        delattr(owner, name)
        for attribute, value in list(vars(owner).items()):
            if type(value) is classmethod and isinstance(value.__func__, Memoized):
                setattr(owner, attribute, _ClassMemoized(value.__func__.func))


# --- the decorator -------------------------------------------------------------------


class Decorator:
    """``cache_memoize(...)`` waiting for its function."""

    def __init__(self, _clock: Clock | None, **options: Any) -> None:
        self._clock = _clock or Clock()
        self._options = options

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Memoized[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Memoized[P, T, T]: ...
    @overload
    def __call__(self, function: F, /) -> F: ...
    def __call__(self, function: Any, /) -> Any:
        if isinstance(function, staticmethod):
            return staticmethod(self(function.__func__))
        if isinstance(function, property):
            getter = self(function.fget)
            return property(getter, function.fset, function.fdel, function.__doc__)
        if isinstance(function, classmethod):
            return self._memoize(function.__func__, _ClassMemoized)
        return self._memoize(function, Memoized)

    def _memoize(self, function: Any, shape: type[Memoized[Any, Any, Any]]) -> Any:
        options = dict(self._options)
        name = getattr(function, "__qualname__", None) or repr(function)
        hit, miss = options.pop("hit_callable"), options.pop("miss_callable")
        prefix, alias = options.pop("prefix"), options.pop("cache_alias")
        parts = {key: options.pop(key) for key in ("version", "extra", "args_rewrite")}
        generator, ignore = options.pop("key_generator_callable"), options.pop("ignore")
        _check(
            function,
            name,
            prefix,
            {
                "hit_callable": hit,
                "miss_callable": miss,
                "key_generator_callable": generator,
                "args_rewrite": parts["args_rewrite"],
                "cache_if": options["cache_if"],
            },
            {"extra": parts["extra"], "timeout": options["timeout"]},
        )
        policy = Policy.of(name, **options)
        binder = Binder(function, name, ignore)
        if prefix is None and generator is None:
            prefix, whole = default_prefix(function)
            registry.note(prefix, whole)
        key_of = key_maker(binder, prefix or "", key_generator=generator, **parts)
        core = _Core(function, policy, key_of, alias, self._clock, hit, miss)
        is_async = inspect.iscoroutinefunction(function)
        call: Any = (_async_wrapper if is_async else _sync_wrapper)(core)
        functools.update_wrapper(call, function)
        call.core = core
        memoized = shape(call)
        functools.update_wrapper(memoized, function)
        for control in _CONTROLS:
            setattr(memoized, control, getattr(memoized, control))
        if sys.version_info >= (3, 13):
            _watch_class_body(function)
        return memoized


def _check(
    function: Any,
    name: str,
    prefix: Any,
    callables: dict[str, Any],
    perhaps_callables: dict[str, Any],
) -> None:
    """Refuse at decoration what can never be right."""
    trouble = None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        trouble = "is a generator function, whose values are gone once read; return a list"
    elif inspect.isclass(function):
        trouble = "is a class; memoize a function that makes the object"
    elif not callable(function):
        trouble = "cannot be called; put @cache_memoize(...) directly above a def"
    elif prefix is not None and (not isinstance(prefix, str) or not prefix):
        trouble = "has a prefix= that is not a string with something in it"
    for option, given in callables.items():
        if given is not None and not callable(given):
            trouble = f"has a {option}= that cannot be called; give a function"
    for option, given in (callables | perhaps_callables).items():
        if inspect.iscoroutinefunction(given):
            trouble = f"has a coroutine function as {option}=; give an ordinary one"
    if trouble:
        raise TypeError(f"cache_memoize: {name} {trouble}")


@overload
def cache_memoize(
    timeout: Callable[P, Coroutine[Any, Any, T]], /
) -> Memoized[P, Coroutine[Any, Any, T], T]: ...
@overload
def cache_memoize(timeout: Callable[P, T], /) -> Memoized[P, T, T]: ...
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
    wait: float | timedelta | None = None,
    lease: float | timedelta = 10,
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
    :param wait: seconds that a caller waits for another's computation of the same
        call before it computes for itself; None: as long as a lease; 0: never.
    :param lease: seconds for which a computation alone has the right to store. When
        its process dies, others wait that long. It grows for functions that are slower.
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
        return _with_options()(first)
    return _with_options(*args, **kwargs)


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
    wait: Any = None,
    lease: Any = 10,
    _clock: Any = None,
) -> Decorator:
    return Decorator(**locals())


# The wrapper only tells a function (bare use) from a timeout. Tools and errors show
# the parameters, without the one that is for tests.
_with_options.__qualname__ = cache_memoize.__qualname__
_signature = inspect.signature(_with_options)
cache_memoize.__signature__ = _signature.replace(  # type: ignore[attr-defined]
    parameters=[p for p in _signature.parameters.values() if p.name[0] != "_"]
)
