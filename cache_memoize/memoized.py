"""What hangs on a memoized function, and how it binds to instances and classes."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    overload,
)

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from . import model_signals
from .bulk import Bulk, Results
from .cache.store import run
from .planning import Core
from .protocol import entries
from .protocol.entries import Entry
from .protocol.invalidation import forget
from .stats import sitewide
from .stats.counters import CacheInfo

__all__ = ["CONTROLS", "ClassMemoized", "Memoized", "watch_class_body"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")
M = TypeVar("M", bound=Model)

#: What the callable of ``invalidate_on`` gives.
Calls = tuple[Any, ...] | list[tuple[Any, ...]] | None


class Memoized(Bulk[T], functools.partial, Generic[P, R, T]):  # type: ignore[type-arg]
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

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    # The first parameter says what binds: that of a classmethod is the class, and what
    # takes neither it nor the instance is a staticmethod. Only where it takes anything
    # (Any, object) nothing can tell: found on a class it stays as it is, and on an
    # instance it is a method.
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], Any], instance: None, owner: Callable[..., S]
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
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else _Bound(self.func, instance)

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self._function)
        if not self.args:
            return signature
        parameters = list(signature.parameters.values())[len(self.args) :]
        return signature.replace(parameters=parameters)

    def __reduce__(self) -> Any:
        return self.__qualname__  # as for any function: by its name

    def __repr__(self) -> str:
        return f"<memoized {self.func.core.name} at {id(self):#x}>"

    @property
    def _core(self) -> Core:
        core: Core = self.func.core
        return core.settled()

    @property
    def _function(self) -> Any:
        """The function itself. Who only looks at it reads no settings: there may be
        none yet."""
        return self.func.core.function

    def _call(self, args: Any, kwargs: Any) -> tuple[Core, str, Any]:
        core = self._core
        kwargs.pop("_refresh", None)
        args = (*self.args, *args)
        return core, core.key_of(args, kwargs), args

    # --- controls ---

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute anew and store. Readers get the old value until then; of several
        refreshes, the one that started last wins. The same as ``_refresh=True``."""
        call = self.func
        if inspect.iscoroutinefunction(call):
            call = async_to_sync(call)
        return call(*self.args, *args, **{**kwargs, "_refresh": True})  # type: ignore

    async def arefresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = self.func
        if not inspect.iscoroutinefunction(call):
            call = sync_to_async(call)
        return await call(*self.args, *args, **{**kwargs, "_refresh": True})  # type: ignore

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget this call, and what any computation under way would store.

        Raises what the cache raised, or :exc:`CacheDidNotAnswer`, when it could not.
        """
        core, key, _ = self._call(args, kwargs)
        run(forget(core.store, core.name, key, core.policy.hold))
        core.stats.invalidated(key)

    async def ainvalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        core, key, _ = self._call(args, kwargs)
        await forget(core.astore, core.name, key, core.policy.hold)
        core.stats.invalidated(key)

    def invalidate_all(self) -> None:
        """Forget every call of this function, for all instances of a method too.

        One key is deleted, however many calls there are. Raises TypeError if the
        function has no ``tags=``, and what the cache raised when it could not.
        """
        core, tag = self._core, self._tag()
        run(forget(core.store, core.name, tag))
        core.stats.invalidated(tag)

    @overload
    def invalidate_on(
        self, model: type[M], calls: Callable[[M], Calls] | None = None
    ) -> None: ...
    @overload
    def invalidate_on(
        self, model: str, calls: Callable[[Any], Calls] | None = None
    ) -> None: ...
    def invalidate_on(self, model: Any, calls: Any = None) -> None:
        """Forget calls whenever an instance of ``model`` is saved or deleted, or one
        of its many-to-many relations changes.

        :param model: a model, also an abstract one, or ``"app.Model"``.
        :param calls: a callable of the instance that gives the arguments of the call
            to forget as a tuple, several of them as a list of tuples, or None for
            nothing. Without it, every call is forgotten, for which the function needs
            ``tags=``.
        :raises TypeError: for what is not a model, and where ``tags=`` is missing.
        """
        core = self._core
        every = None if core.tag is None else self.invalidate_all
        model_signals.depend(model, core.name, self._forget, every, calls)

    def _forget(self, args: tuple[Any, ...]) -> None:
        forget_call: Any = self.invalidate  # whatever its parameters are
        forget_call(*args)

    async def ainvalidate_all(self) -> None:
        core, tag = self._core, self._tag()
        await forget(core.astore, core.name, tag)
        core.stats.invalidated(tag)

    def _tag(self) -> str:
        core = self._core
        if core.tag is None:
            raise TypeError(
                f"{core.name}.invalidate_all(): the function has no tags, so nothing "
                "says which entries are its own; write tags=() in its cache_memoize()"
            )
        return core.tag

    def get_cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of this call, before Django puts KEY_PREFIX and version in front."""
        return str(self._call(args, kwargs)[1])

    async def aget_cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        return str(self._call(args, kwargs)[1])

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The stored :class:`Entry` of this call, or None. Never computes."""
        core, key, _ = self._call(args, kwargs)
        return run(entries.peek(core, core.store, key))

    async def apeek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        core, key, _ = self._call(args, kwargs)
        return await entries.peek(core, core.astore, key)

    def prime(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store ``value`` as the result of this call, without computing it.

        Raises TypeError for a value that cannot be pickled; nothing is lost then.
        """
        core, key, whole = self._call(args, kwargs)
        run(entries.prime(core, core.store, key, value, whole, kwargs))

    async def aprime(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        core, key, whole = self._call(args, kwargs)
        await entries.prime(core, core.astore, key, value, whole, kwargs)

    def cache_info(self) -> CacheInfo:
        """Counters of this function in this process since it started."""
        core = self._core
        return CacheInfo.of(core.stats.totals(), core.state())

    async def acache_info(self) -> CacheInfo:
        return self.cache_info()

    def site_info(self) -> CacheInfo:
        """The same counters, of all processes and hosts that share its cache.

        They are kept if ``"cache_memoize"`` is in ``INSTALLED_APPS``, and are as of
        some seconds ago for the other processes. The breaker is this process' own.
        Raises ImproperlyConfigured where they are not kept, and what the cache raises.
        """
        core = self._core
        if not apps.is_installed("cache_memoize"):
            raise ImproperlyConfigured(
                f"{core.name}.site_info(): no figures of the whole site are kept; put "
                '"cache_memoize" into INSTALLED_APPS'
            )
        path = core.stats.path
        figures = sitewide.up_to_date(core.alias, [path])[path]
        return CacheInfo.of(figures.totals, core.state())

    async def asite_info(self) -> CacheInfo:
        return await sync_to_async(self.site_info)()


if TYPE_CHECKING:

    class AsyncMemoized(Memoized[P, Coroutine[Any, Any, T], T], Generic[P, T]):
        """What a coroutine function becomes, for type checkers only: mypy would not
        choose an overload for a type that says Any, as that of a coroutine does."""

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


#: What a decorator above ours (with functools.wraps) carries over to its own function.
CONTROLS = [
    name
    for name, value in [*vars(Memoized).items(), *vars(Bulk).items()]
    if isinstance(value, types.FunctionType) and not name.startswith("_")
]


class _Bound(Memoized):  # type: ignore[type-arg]
    """A memoized method together with its instance (or class)."""

    __doc__ = property(lambda self: self._function.__doc__)

    def __getattr__(self, name: str) -> Any:
        # What is not here is the function's: __name__, __module__, its own attributes.
        if name == "__wrapped__":
            return self._function.__get__(self.args[0])
        return getattr(self._function, name)

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property
    def __func__(self) -> Any:
        return self.func

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Bound):
            return NotImplemented
        return self.func is other.func and self.args[0] is other.args[0]

    def __hash__(self) -> int:
        return hash((self.func, id(self.args[0])))

    def __reduce__(self) -> Any:
        return getattr, (self.args[0], self._function.__name__)


class ClassMemoized(Memoized):  # type: ignore[type-arg]
    """A memoized classmethod: bound to the class."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return _Bound(self.func, type(instance) if owner is None else owner)


def watch_class_body(function: Any) -> None:
    """Python 3.13 no longer lets what a classmethod wraps bind itself to the class.

    So ``C.m.invalidate(1)`` would not know C when ``@classmethod`` stands above our
    decorator. The class body that is being executed gets a helper that puts our own
    descriptor there once the class exists.
    """
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
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
                setattr(owner, attribute, ClassMemoized(value.__func__.func))
