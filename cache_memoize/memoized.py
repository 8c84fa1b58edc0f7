"""The controls of a memoized function: ``f.invalidate(1)`` and the others."""

from __future__ import annotations

import inspect
import types
from collections.abc import (
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    overload,
)

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from . import model_signals
from .cache.store import Store, run
from .explain import Explanation, explain_call
from .hints import explain_receiver
from .planning import plan_of
from .protocol import entries
from .protocol.call import Call, Function, Plan
from .protocol.entries import Entry
from .protocol.invalidation import invalidate_call, invalidate_key
from .protocol.many import Batch, awarm, warm
from .protocol.progress import Progress, Steps, aiterate
from .stats import sitewide
from .stats.counters import CacheInfo

__all__ = ["CONTROLS", "Memoized"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")
M = TypeVar("M", bound=Model)

#: Returned by the callable of ``invalidate_on``.
Calls = tuple[Any, ...] | list[tuple[Any, ...]] | None
#: An item is the one argument of a call, or a tuple of its arguments.
Items = Iterable[Any] | AsyncIterable[Any]
#: Returned by the function for :meth:`Memoized.many`.
Results = Sequence[T] | Mapping[Any, T]


class Memoized(Generic[P, R, T]):
    """A memoized function: called like the function itself, and with controls.

    Every control takes the arguments of a call, exists once for sync and once, with
    ``a`` in front, for async code, and works on bound methods: ``obj.m.invalidate(1)``.
    """

    #: The memoized function, and the instance of a bound method in a tuple.
    _memoized: Function
    _receiver: tuple[Any, ...] = ()

    if TYPE_CHECKING:
        __wrapped__: Callable[P, R]
        __name__: str
        __qualname__: str

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

        # The type of the first parameter says how a function is bound: to the class (a
        # classmethod), to the instance, or, if it takes neither, not at all. If it is
        # Any or object, the function is unbound on a class, and bound on an instance.
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], Any],
            instance: None,
            owner: Callable[..., S],
        ) -> Memoized[P, R, T]: ...
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], Any],
            instance: S | None,
            owner: type[S],
        ) -> Memoized[Q, R, T]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], Any],
            instance: S,
            owner: type | None = None,
        ) -> Memoized[Q, R, T]: ...
        @overload
        def __get__(
            self, instance: object, owner: type | None = None
        ) -> Memoized[P, R, T]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def _call(self, args: Any, kwargs: Any, *, is_async: bool = False) -> Call:
        return self._calls(args, kwargs, is_async=is_async)[0]

    def _calls(self, args: Any, kwargs: Any, *, is_async: bool = False) -> list[Call]:
        """Return the call that a control is meant for; two if that is ambiguous."""
        function, plan = self._memoized, plan_of(self._memoized)
        kwargs.pop("_refresh", None)
        store: Store = plan.astore if is_async else plan.store
        return [
            Call(function, plan, store, plan.key_of(whole, kwargs), whole, kwargs)
            for whole in self._whole_arguments(args, kwargs)
        ]

    def _whole_arguments(self, args: Any, kwargs: Any) -> list[tuple[Any, ...]]:
        """Return the arguments with the instance of a method."""
        function = self._memoized
        first = args[0] if args else None
        known = args or function.owner is None  # else the binder says what is missing
        fits = function.fits_receiver(first) or function.fits_placeholder(args, kwargs)
        if known and not fits:
            raise TypeError(f"{function.name}: {explain_receiver(function, args)}")
        return [args]

    # --- one call ---

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute anew and store, like ``_refresh=True``.

        Readers get the old value until then. Of several refreshes, the one that started
        last wins.
        """
        call = self._memoized.wrapper
        if inspect.iscoroutinefunction(call):
            call = async_to_sync(call)
        whole = self._whole_arguments(args, kwargs)[0]
        return call(*whole, **{**kwargs, "_refresh": True})  # type: ignore

    async def arefresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = self._memoized.wrapper
        if not inspect.iscoroutinefunction(call):
            call = sync_to_async(call)
        whole = self._whole_arguments(args, kwargs)[0]
        return await call(*whole, **{**kwargs, "_refresh": True})  # type: ignore

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Invalidate this call in all variants of ``vary_on=``, the results that were
        made with it, and those of computations under way.

        Raises the error of the cache, or :exc:`CacheDidNotAnswer`, if that failed.
        """
        for call in self._given_calls(args, kwargs):
            run(_invalidate(call))

    async def ainvalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        for call in self._given_calls(args, kwargs, is_async=True):
            await _invalidate(call)

    def invalidate_variant(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """:meth:`invalidate` for the present values of ``vary_on=`` only."""
        for call in self._given_calls(args, kwargs):
            run(_invalidate(call, variants=False))

    async def ainvalidate_variant(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        for call in self._given_calls(args, kwargs, is_async=True):
            await _invalidate(call, variants=False)

    def _given_calls(self, args: Any, kwargs: Any, *, is_async: bool = False) -> Any:
        """Return the calls; refuse one without arguments of a function that needs some.
        (That the class is missing, ``_whole_arguments()`` explains better.)"""
        function = self._memoized
        try:
            if not (args or kwargs or (function.needs_class and not function.owner)):
                function.binder.normalize(self._receiver, {})
        except TypeError as error:
            hint = "for all calls, write invalidate_all()"
            raise TypeError(f"{error}; {hint}") from None
        return self._calls(args, kwargs, is_async=is_async)

    def get_cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of this call, without Django's KEY_PREFIX and version."""
        return str(self._call(args, kwargs).key)

    async def aget_cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        return str(self._call(args, kwargs).key)

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """Return the stored :class:`Entry` of this call, or None. Never computes."""
        return run(entries.peek(self._call(args, kwargs)))

    async def apeek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        return await entries.peek(self._call(args, kwargs, is_async=True))

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Return the state of this call, and why it last missed; never computes."""
        return explain_call(self._call(args, kwargs))

    async def aexplain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        return await sync_to_async(explain_call)(self._call(args, kwargs))

    def prime(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store ``value`` as the result of this call, without computing it.

        Raises TypeError for a value that cannot be pickled; the old entry stays then.
        """
        run(entries.prime(self._call(args, kwargs), value))

    async def aprime(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        await entries.prime(self._call(args, kwargs, is_async=True), value)

    # --- all calls ---

    def invalidate_all(self) -> None:
        """Invalidate every call of this function, for all instances of a method too.

        One key is deleted, however many calls there are. Raises TypeError if the
        function has no ``tags=``, and the error of the cache if that failed.
        """
        plan = plan_of(self._memoized)
        tag = self._tag(plan)
        run(_invalidate(Call(self._memoized, plan, plan.store, tag)))

    async def ainvalidate_all(self) -> None:
        plan = plan_of(self._memoized)
        tag = self._tag(plan)
        await _invalidate(Call(self._memoized, plan, plan.astore, tag))

    def _tag(self, plan: Plan) -> str:
        if plan.tag is None:
            raise TypeError(
                f"{self._memoized.name}.invalidate_all(): the function has no tags, so "
                "its entries cannot be told from others; write tags=() in its "
                'cache_memoize(), or {"DEFAULTS": {"tags": ()}} in CACHE_MEMOIZE for '
                "all functions; without them, invalidate(...) invalidates single "
                "calls, and a new version= in its cache_memoize() every call"
            )
        return plan.tag

    @overload
    def invalidate_on(
        self,
        model: type[M],
        calls: Callable[[M], Calls] | None = None,
        *,
        before: bool = True,
    ) -> None: ...
    @overload
    def invalidate_on(
        self,
        model: str,
        calls: Callable[[Any], Calls] | None = None,
        *,
        before: bool = True,
    ) -> None: ...
    def invalidate_on(
        self, model: Any, calls: Any = None, *, before: bool = True
    ) -> None:
        """Invalidate calls whenever an instance of ``model`` is saved or deleted, or
        one of its many-to-many relations changes.

        :param model: a model, also an abstract one, or ``"app.Model"``.
        :param calls: a callable of the instance that returns the arguments of the call
            to invalidate as a tuple, several of them as a list of tuples, or None for
            nothing. Without it, every call is invalidated, for which the function
            needs ``tags=``.
        :param before: ask the callable with the row as it was before a save, too, which
            takes one query more per save; False if none of its values ever changes.
        :raises TypeError: for what is not a model, and where ``tags=`` is missing.
        """
        tag = plan_of(self._memoized).tag
        every = None if tag is None else self.invalidate_all
        model_signals.add_dependency(
            model, self._memoized.name, self._invalidate_args, every, calls, before
        )
        model_signals.warn_if_late(self._memoized.func, self._memoized.path)

    def _invalidate_args(self, args: tuple[Any, ...]) -> None:
        invalidate: Any = self.invalidate  # its parameters are not known here
        invalidate(*args)

    # --- many calls at once ---

    @overload
    def map(
        self, items: Iterable[Any], /, *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...
    @overload
    def map(
        self, items: Iterable[Any], /, *, return_exceptions: bool
    ) -> list[T | Exception]: ...
    def map(self, items: Iterable[Any], /, *, return_exceptions: bool = False) -> Any:
        """Return the results for many items, in order. An item is the argument of a
        call, or a tuple of its arguments.

        Hits are read together, 500 by one command of the cache. The other items are
        computed one after the other, or by the function registered with :meth:`many`.
        Equal items are computed once. If some raise, the others are still computed and
        stored; then the first error is raised.

        :param return_exceptions: return errors in the list in place of results.
        """
        batch = self._batch(items)
        if batch.is_async:  # the items come from sync code
            found = async_to_sync(batch.map)(list(items))
        else:
            found = run(batch.map(items))
        return found.in_order(return_exceptions)

    @overload
    async def amap(
        self, items: Items, /, *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...
    @overload
    async def amap(
        self, items: Items, /, *, return_exceptions: bool
    ) -> list[T | Exception]: ...
    async def amap(self, items: Items, /, *, return_exceptions: bool = False) -> Any:
        batch = self._batch(items)
        given = [item async for item in aiterate(items)]
        if batch.is_async:
            return (await batch.map(given)).in_order(return_exceptions)
        sync_map: Any = sync_to_async(self.map)
        return await sync_map(given, return_exceptions=return_exceptions)

    def warm(self, items: Iterable[Any], /) -> Iterable[Progress]:
        """Refresh many items, as in :meth:`map`, and yield a :class:`Progress` after
        each.

        The items are refreshed while the iterator is iterated over. An error that the
        function raises is part of the :class:`Progress`, and the next item follows.
        """
        return Steps(self._memoized.name, warm(self._batch(items), items))

    def awarm(self, items: Items, /) -> AsyncIterable[Progress]:
        return Steps(self._memoized.name, awarm(self._batch(items), items))

    def _batch(self, items: Items) -> Batch:
        function = self._memoized
        return Batch(function, plan_of(function), self._receiver, items)

    # The types of the results can be checked, those of the parameters cannot: the items
    # have the form that map() takes, and a method has its instance before them, which
    # cannot be told from an argument while the class is being made.
    @overload
    def many(self, function: Callable[Q, list[T]], /) -> Callable[Q, list[T]]: ...
    @overload
    def many(self, function: Callable[Q, Results[T]], /) -> Callable[Q, Results[T]]: ...
    def many(self, function: Any, /) -> Any:
        """Register a function that computes many items at once, for :meth:`map` and
        :meth:`warm`. Use it as a decorator.

        The function takes a list of items and returns a list of their results in the
        same order, or a dict from item to result. For a method, the instance comes
        first. It is a coroutine function if the memoized function is one.
        """
        ours = self._memoized  # registering reads no settings
        if not callable(function):
            raise TypeError(
                f"{ours.name}.many takes a function of a list of items, not a "
                f"{type(function).__name__}; put @{ours.name}.many above its def"
            )
        if inspect.iscoroutinefunction(function) != ours.is_async:
            raise TypeError(
                f"{ours.name}.many: this function and the memoized one must both be "
                "coroutine functions, or neither; change one of them"
            )
        ours.many = function
        return function

    # --- figures ---

    def cache_info(self) -> CacheInfo:
        """Return the counters of this function in this process since it started."""
        stats, breaker = self._memoized.stats, plan_of(self._memoized).breaker_state
        return CacheInfo.of(stats.totals(), breaker, stats.old_since)

    async def acache_info(self) -> CacheInfo:
        return self.cache_info()

    def site_info(self) -> CacheInfo:
        """Return the counters of all processes and hosts that share the cache.

        Those of other processes are some seconds old. The state of the breaker is that
        of this process. Raises ImproperlyConfigured if ``"cache_memoize"`` is not in
        ``INSTALLED_APPS``, and the errors of the cache.
        """
        function = self._memoized
        if not apps.is_installed("cache_memoize"):
            raise ImproperlyConfigured(
                f"{function.name}.site_info(): no figures of the whole site are kept; "
                'put "cache_memoize" into INSTALLED_APPS'
            )
        plan = plan_of(function)
        found = sitewide.up_to_date(plan.alias, [function.path])[function.path]
        return CacheInfo.of(found.totals, plan.breaker_state, found.old_since)

    async def asite_info(self) -> CacheInfo:
        return await sync_to_async(self.site_info)()


async def _invalidate(call: Call, *, variants: bool = True) -> None:
    if call.key is call.plan.tag:
        await invalidate_key(call.store, call.function.name, call.key)
    else:
        await invalidate_call(call, variants=variants)
    call.stats.invalidated(call.key)


#: The names of the controls.
CONTROLS = [
    name
    for name, value in vars(Memoized).items()
    if isinstance(value, types.FunctionType) and not name.startswith("_")
]


if TYPE_CHECKING:

    class AsyncMemoized(Memoized[P, Coroutine[Any, Any, T], T], Generic[P, T]):
        """A memoized coroutine function, for type checkers only: mypy chooses no
        overload for a type with Any in it, as that of a coroutine is."""

        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], Any],
            instance: None,
            owner: Callable[..., S],
        ) -> AsyncMemoized[P, T]: ...
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], Any],
            instance: S | None,
            owner: type[S],
        ) -> AsyncMemoized[Q, T]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], Any],
            instance: S,
            owner: type | None = None,
        ) -> AsyncMemoized[Q, T]: ...
        @overload
        def __get__(
            self, instance: object, owner: type | None = None
        ) -> AsyncMemoized[P, T]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

        @overload  # type: ignore[override]
        def many(
            self, function: Callable[Q, Coroutine[Any, Any, list[T]]], /
        ) -> Callable[Q, Coroutine[Any, Any, list[T]]]: ...
        @overload
        def many(
            self, function: Callable[Q, Coroutine[Any, Any, Results[T]]], /
        ) -> Callable[Q, Coroutine[Any, Any, Results[T]]]: ...
        def many(self, function: Any, /) -> Any: ...
