"""Helpers for tests: memoizing disabled or in memory, and assertions about hits.

Import this module in tests only: it imports ``django.test``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Never, TypeVar

from django.apps import apps
from django.core.cache.backends import locmem
from django.test.utils import TestContextDecorator, override_settings

from . import planning, signals
from .cache import breaker, connections
from .conf import changed, conf
from .protocol import threads
from .signals import Event

__all__ = ["World", "assert_hits", "disabled", "in_memory"]

C = TypeVar("C", bound=type)

#: The attribute of a test class with the blocks of that class alone.
_BLOCKS = "_cache_memoize_blocks"
#: Lines of events in a message, at most.
_LINES = 30
_numbers = itertools.count(1)


# --- blocks, decorated functions, classes of tests -----------------------------------


class _Block(TestContextDecorator):
    """Settings for a block, a function or a test class. It can be entered again."""

    def __init__(self, *above: Never) -> None:
        if above:
            name = type(self).__name__
            raise TypeError(f"{name} needs parentheses: @{name}(), or with {name}():")
        super().__init__()
        self._open: list[ExitStack] = []

    def _change_settings(self, stack: ExitStack) -> Any:
        raise NotImplementedError

    def enable(self) -> Any:
        with ExitStack() as stack:
            given = self._change_settings(stack)
            self._open.append(stack.pop_all())
        return given

    def disable(self) -> None:
        self._open.pop().close()

    def decorate_callable(self, func: Any) -> Any:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(
                f"{type(self).__name__}() cannot decorate the generator function "
                f"{func.__qualname__}: it would end before the first line runs; write "
                f"`with {type(self).__name__}():` in the function"
            )
        return super().decorate_callable(func)

    def decorate_class(self, cls: C) -> C:
        """Wrap each test, with its setUp and tearDown, and setUpClass.

        A block overrides ``override_settings`` of the same class, and the blocks of
        decorators below its own.
        """
        if not issubclass(cls, unittest.TestCase):
            raise TypeError(
                f"{type(self).__name__}() cannot decorate the class "
                f"{cls.__qualname__}, which is not a unittest.TestCase; decorate its "
                f'functions, or the class with @pytest.mark.memoize("'
                f'{type(self).__name__}")'
            )
        if not hasattr(cls, _BLOCKS):
            for name in ("run", "debug"):
                setattr(cls, name, _wrap_run(getattr(cls, name)))
            cls.setUpClass = classmethod(_wrap_set_up(cls.setUpClass.__func__))  # type: ignore
        setattr(cls, _BLOCKS, [*vars(cls).get(_BLOCKS, ()), self])
        return cls


def _iterate_blocks(cls: type) -> Iterator[_Block]:
    for each in reversed(cls.__mro__):
        yield from vars(each).get(_BLOCKS, ())


def _wrap_run(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: unittest.TestCase, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for block in _iterate_blocks(type(self)):
                stack.enter_context(block)
            return method(self, *args, **kwargs)

    return wrapped


def _wrap_set_up(set_up: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(set_up)
    def wrapped(cls: Any) -> None:
        # The settings of override_settings() above the class come first. Django's own
        # setUpClass would put them over those of the blocks.
        overridden = getattr(cls, "_overridden_settings", None)
        if overridden:
            cls.enterClassContext(override_settings(**overridden))
            cls._overridden_settings = None
        try:
            for block in _iterate_blocks(cls):
                cls.enterClassContext(block)
            set_up(cls)
        finally:
            if overridden:
                cls._overridden_settings = overridden

    return wrapped


# --- disabled, in_memory -------------------------------------------------------------


class disabled(_Block):
    """Functions are called as if they were not memoized: no cache is read or written.

    Use ``with disabled():``, or ``@disabled()`` above a function, a coroutine function,
    a method or a ``unittest.TestCase``. The rest of ``CACHE_MEMOIZE`` stays as it is.
    All threads of the process are affected.
    """

    def __enter__(self) -> None:
        self.enable()

    def _change_settings(self, stack: ExitStack) -> None:
        setting = changed(ENABLED=False)
        stack.enter_context(override_settings(CACHE_MEMOIZE=setting))


class in_memory(_Block):
    """Each cache in ``CACHES`` is an empty one in memory, and memoizing is enabled.

    Use ``with in_memory() as world:`` (a :class:`World`), or ``@in_memory()`` above a
    function, a coroutine function, a method or a ``unittest.TestCase``; each of its
    tests begins with empty caches. No server is used. ``TIMEOUT``, ``KEY_PREFIX``,
    ``VERSION``, ``KEY_FUNCTION`` and ``MAX_ENTRIES`` stay as they are set; without
    ``MAX_ENTRIES`` the number of entries is unlimited. All threads of the process are
    affected. The end waits for refreshes in threads, for at most 30 seconds.
    """

    def __enter__(self) -> World:  # type: ignore[override]
        world: World = self.enable()
        return world

    def _change_settings(self, stack: ExitStack) -> World:
        number = next(_numbers)
        names = {
            alias: f"cache_memoize.testing {number} {alias}"
            for alias in connections.aliases()
        }
        memory = {alias: _make_settings(alias, name) for alias, name in names.items()}
        setting = changed(ENABLED=True)
        world = World(list(names.values()))
        stack.callback(world._remove_caches)
        # Breakers of servers that are down do not concern the caches in memory.
        stack.callback(breaker.replace, breaker.replace({}))
        planning.checked_aliases.update(memory)  # they are not shared on purpose
        stack.enter_context(override_settings(CACHES=memory, CACHE_MEMOIZE=setting))
        stack.callback(threads.join)
        return world


def _make_settings(alias: str, name: str) -> dict[str, Any]:
    """Return the settings of a cache in memory in place of this one."""
    given = connections.settings_of(alias) or {}
    options = given.get("OPTIONS") or {}
    limits = {
        option: options[option]
        for option in ("MAX_ENTRIES", "CULL_FREQUENCY")
        if option in options
    }
    return given | {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": name,
        "OPTIONS": {"MAX_ENTRIES": sys.maxsize, **limits},
    }


class World:
    """The caches of one :class:`in_memory` block."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def clear(self) -> None:
        """Empty these caches, no others."""
        for name in self._names:
            locmem.LocMemCache(name, {}).clear()

    def assert_hits(
        self, hits: int, function: Callable[..., Any] | None = None
    ) -> assert_hits:
        """Return :class:`assert_hits`, for tests that have a world at hand."""
        return assert_hits(hits, function)

    def _remove_caches(self) -> None:
        self.clear()
        # Django keeps empty caches for ever, and a run may have ten thousand tests.
        for kept in ("_caches", "_expire_info", "_locks"):
            for name in self._names:
                getattr(locmem, kept, {}).pop(name, None)


# --- assert_hits ---------------------------------------------------------------------


class assert_hits:
    """An assertion: ``with assert_hits(2, f) as seen:`` raises AssertionError unless
    ``f`` is served from the cache twice in the block, fresh or stale.

    Calls in all threads and tasks of this process are counted. An exception from the
    block takes precedence. Without ``with`` nothing is counted, and a warning says so.

    :param hits: the expected number, 0 or more.
    :param function: a memoized function or method; None counts all functions together.
    :raises TypeError, ValueError: for another number or a function without a cache.
    """

    _is_used = True  # until __init__ has succeeded

    def __init__(self, hits: int, function: Callable[..., Any] | None = None) -> None:
        if isinstance(hits, bool) or not isinstance(hits, int):
            raise TypeError(
                "assert_hits takes the number of hits first, and perhaps a function "
                f"second, as assert_hits(1, f); not {type(hits).__name__}"
            )
        if hits < 0:
            raise ValueError(f"assert_hits takes a number of 0 or more, not {hits}")
        self._wanted = hits
        self._sender, self._name = None, "all functions"
        if function is not None:
            self._sender, self._name = _find_sender(function)
        #: The events so far: :class:`cache_memoize.signals.Event`.
        self.events: list[Event] = []
        self._is_used = False

    def __del__(self) -> None:
        if not self._is_used:
            warnings.warn(
                f"assert_hits({self._wanted}) has counted nothing, because it is not "
                "in a with statement; write 'with assert_hits(...):' around the calls",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def hits(self) -> int:
        """Number of calls served from the cache so far, stale results included."""
        return sum(event.kind in ("hit", "stale") for event in self.events)

    @property
    def misses(self) -> int:
        """Number of calls that ran the function so far."""
        return sum(event.kind == "miss" for event in self.events)

    def _add_event(self, event: Event, **kwargs: Any) -> None:
        self.events.append(event)

    def __enter__(self) -> assert_hits:
        self.events, self._is_used = [], True
        for signal in signals.ALL.values():
            signal.connect(self._add_event, sender=self._sender, weak=False)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        __tracebackhide__ = True  # pytest then shows the test
        for signal in signals.ALL.values():
            signal.disconnect(self._add_event, sender=self._sender)
        if kind is None and self.hits != self._wanted:
            raise AssertionError(self._describe_events())

    def _describe_events(self) -> str:
        found = f"{self.hits} hits and {self.misses} misses"
        lines = [
            f"{self._wanted} hits of {self._name} were expected, and there were {found}"
        ]
        lines += self._explain_misses() if self.hits < self._wanted else []
        happened = []
        for (what, path), same in itertools.groupby(
            (event.kind, event.function) for event in self.events
        ):
            times = len(list(same))
            line = f"  {what} {path}".rstrip()
            happened.append(line if times == 1 else f"{line} ({times} times)")
        lines.append("Events in order:" if happened else "There was no event")
        lines += happened[:_LINES]
        if len(happened) > _LINES:
            lines.append(f"  and {len(happened) - _LINES} more")
        return "\n".join(lines)

    def _explain_misses(self) -> Iterator[str]:
        """Yield the reasons why no call could be a hit."""
        if not apps.ready:
            yield "Nothing is stored before django.setup() has finished"
        if not conf().ENABLED:
            yield "Memoizing is disabled: CACHE_MEMOIZE['ENABLED'] is False"
        used = {event.alias for event in self.events if event.alias}
        for alias in sorted(used.intersection(connections.aliases())):
            if not connections.opened(alias)[1].stores:
                yield f"The cache {alias!r} stores nothing"


def _find_sender(function: Any) -> tuple[Any, str]:
    """Return the sender of a memoized function's signals, and its path."""
    memoized = signals.memoized_in(function)
    if memoized is None:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise TypeError(
            f"assert_hits: {name} is not memoized; pass a function that has "
            "@cache_memoize, or none to count all functions"
        )
    return memoized.func, memoized.path
