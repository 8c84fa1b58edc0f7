"""For tests: memoizing turned off, or in a memory of its own, and hits counted.

Import it in tests only: it imports ``django.test``.
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

from . import signals
from .cache import breaker, connections
from .conf import changed, conf
from .protocol import threads
from .signals import Event

__all__ = ["World", "assert_hits", "disabled", "in_memory"]

C = TypeVar("C", bound=type)

#: Where a class of tests keeps its blocks, its own ones only.
_BLOCKS = "_cache_memoize_blocks"
#: So many lines say what happened; more would hide what was wrong.
_LINES = 30
_numbers = itertools.count(1)


# --- blocks, decorated functions, classes of tests -----------------------------------


class _Block(TestContextDecorator):
    """Settings for a block, a function or a class of tests; may be entered again."""

    def __init__(self, *above: Never) -> None:
        if above:
            name = type(self).__name__
            raise TypeError(f"{name} has parentheses: @{name}(), or with {name}():")
        super().__init__()
        self._open: list[ExitStack] = []

    def _change(self, stack: ExitStack) -> Any:
        raise NotImplementedError

    def enable(self) -> Any:
        with ExitStack() as stack:
            given = self._change(stack)
            self._open.append(stack.pop_all())
        return given

    def disable(self) -> None:
        self._open.pop().close()

    def decorate_callable(self, func: Any) -> Any:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(
                f"{type(self).__name__}() above {func.__qualname__}, which yields: it "
                f"would end before the first line runs; write `with "
                f"{type(self).__name__}():` in it"
            )
        return super().decorate_callable(func)

    def decorate_class(self, cls: C) -> C:
        """Every test has a block of its own, around its setUp and tearDown too, and so
        has setUpClass with setUpTestData. It counts after ``override_settings`` above
        the same class, and what was put above the class last counts last.
        """
        if not issubclass(cls, unittest.TestCase):
            raise TypeError(
                f"{type(self).__name__}() above the class {cls.__qualname__}, which "
                "is no unittest.TestCase; put it above its functions, or "
                f'@pytest.mark.memoize("{type(self).__name__}") above the class'
            )
        if not hasattr(cls, _BLOCKS):
            for name in ("run", "debug"):
                setattr(cls, name, _covered(getattr(cls, name)))
            cls.setUpClass = classmethod(_prepared(cls.setUpClass.__func__))  # type: ignore
        setattr(cls, _BLOCKS, [*vars(cls).get(_BLOCKS, ()), self])
        return cls


def _blocks(cls: type) -> Iterator[_Block]:
    for each in reversed(cls.__mro__):
        yield from vars(each).get(_BLOCKS, ())


def _covered(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def covered(self: unittest.TestCase, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for block in _blocks(type(self)):
                stack.enter_context(block)
            return method(self, *args, **kwargs)

    return covered


def _prepared(set_up: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(set_up)
    def prepared(cls: Any) -> None:
        # What override_settings() above the class says comes first; Django would put
        # it over ours, for setUpTestData, in its own setUpClass.
        overridden = getattr(cls, "_overridden_settings", None)
        if overridden:
            cls.enterClassContext(override_settings(**overridden))
            cls._overridden_settings = None
        try:
            for block in _blocks(cls):
                cls.enterClassContext(block)
            set_up(cls)
        finally:
            if overridden:
                cls._overridden_settings = overridden

    return prepared


# --- what is changed -----------------------------------------------------------------


class disabled(_Block):
    """Functions run as if they were not memoized: nothing is read, nothing stored.

    For ``with disabled():``, and as ``@disabled()`` above a function, a coroutine
    function, a method or a ``unittest.TestCase``. The rest of ``CACHE_MEMOIZE`` stays
    as it is. It holds for all threads of the process.
    """

    def __enter__(self) -> None:
        self.enable()

    def _change(self, stack: ExitStack) -> None:
        setting = changed(ENABLED=False)
        stack.enter_context(override_settings(CACHE_MEMOIZE=setting))


class in_memory(_Block):
    """Every cache in ``CACHES`` is an empty memory of its own, and memoizing is on.

    For ``with in_memory() as world:`` (a :class:`World`), and as ``@in_memory()`` above
    a function, a coroutine function, a method or a ``unittest.TestCase``, each of whose
    tests begins with empty caches. No server is asked. ``TIMEOUT``, ``KEY_PREFIX``,
    ``VERSION`` and ``KEY_FUNCTION`` stay as they are, and ``MAX_ENTRIES`` too where it
    is given; where it is not, nothing is thrown out. It holds for all threads of the
    process. At the end, refreshes that threads have begun are waited for, 30 seconds at
    most.
    """

    def __enter__(self) -> World:  # type: ignore[override]
        world: World = self.enable()
        return world

    def _change(self, stack: ExitStack) -> World:
        number = next(_numbers)
        names = {
            alias: f"cache_memoize.testing {number} {alias}"
            for alias in connections.aliases()
        }
        memory = {alias: _memory(alias, name) for alias, name in names.items()}
        setting = changed(ENABLED=True)
        world = World(list(names.values()))
        stack.callback(world._end)
        # A server that is down must not keep anybody from this memory.
        stack.callback(breaker.replace, breaker.replace({}))
        stack.enter_context(override_settings(CACHES=memory, CACHE_MEMOIZE=setting))
        stack.callback(threads.join)
        return world


def _memory(alias: str, name: str) -> dict[str, Any]:
    """The settings of a cache in memory that stands for this one."""
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
        """Empty these caches, and no others."""
        for name in self._names:
            locmem.LocMemCache(name, {}).clear()

    def assert_hits(
        self, hits: int, function: Callable[..., Any] | None = None
    ) -> assert_hits:
        """:class:`assert_hits`, for tests that have this object at hand."""
        return assert_hits(hits, function)

    def _end(self) -> None:
        self.clear()
        # Django keeps empty ones for ever, and a run may have ten thousand tests.
        for kept in ("_caches", "_expire_info", "_locks"):
            for name in self._names:
                getattr(locmem, kept, {}).pop(name, None)


# --- counting ------------------------------------------------------------------------


class assert_hits:
    """``with assert_hits(2, f) as seen:`` raises AssertionError unless ``f`` is served
    from the cache twice in the block, fresh or stale.

    What all threads and tasks of this process do in the meantime counts. An exception
    from the block goes first.

    Outside of a ``with`` it counts nothing, and warns when it is dropped.

    :param hits: how many, 0 or more.
    :param function: a memoized function or method; None counts all functions together.
    :raises TypeError, ValueError: for what is no number or no memoized function.
    """

    _is_used = True  # as long as nothing could be used

    def __init__(self, hits: int, function: Callable[..., Any] | None = None) -> None:
        if isinstance(hits, bool) or not isinstance(hits, int):
            raise TypeError(
                "assert_hits takes the number of hits first, and the function, if one "
                f"is meant, second: assert_hits(1, f); not {type(hits).__name__}"
            )
        if hits < 0:
            raise ValueError(f"assert_hits: there are no {hits} hits; 0 means none")
        self._wanted = hits
        self._function = None if function is None else _memoized_in(function)
        #: What happened, in order: :class:`cache_memoize.signals.Event`.
        self.events: list[Event] = []
        self._is_used = False

    def __del__(self) -> None:
        if not self._is_used:
            warnings.warn(
                f"assert_hits({self._wanted}) counted nothing, because it is not in a "
                "with; write 'with assert_hits(...):' around the calls",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def hits(self) -> int:
        """Calls that were served from the cache so far, stale values included."""
        return sum(event.kind in ("hit", "stale") for event in self.events)

    @property
    def misses(self) -> int:
        """Calls that ran the function so far."""
        return sum(event.kind == "miss" for event in self.events)

    def _note(self, event: Event, **kwargs: Any) -> None:
        self.events.append(event)

    def __enter__(self) -> assert_hits:
        self.events, self._is_used = [], True
        sender = None if self._function is None else self._function.func
        for signal in signals.ALL.values():
            signal.connect(self._note, sender=sender, weak=False)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        __tracebackhide__ = True  # pytest then shows the test
        sender = None if self._function is None else self._function.func
        for signal in signals.ALL.values():
            signal.disconnect(self._note, sender=sender)
        if kind is None and self.hits != self._wanted:
            raise AssertionError(self._message())

    def _message(self) -> str:
        whose = "all functions" if self._function is None else self._function.path
        found = f"{self.hits} hits and {self.misses} misses"
        lines = [
            f"{self._wanted} hits of {whose} were expected, and there were {found}"
        ]
        lines += self._reasons() if self.hits < self._wanted else []
        happened = []
        for (what, path), same in itertools.groupby(
            (event.kind, event.function) for event in self.events
        ):
            times = len(list(same))
            line = f"  {what} {path}".rstrip()
            happened.append(line if times == 1 else f"{line} ({times} times)")
        lines.append("What happened, in order:" if happened else "Nothing happened")
        lines += happened[:_LINES]
        if len(happened) > _LINES:
            lines.append(f"  and {len(happened) - _LINES} more")
        return "\n".join(lines)

    def _reasons(self) -> Iterator[str]:
        """Why nothing could be a hit."""
        if not apps.ready:
            yield "Nothing is stored before django.setup() has finished"
        if not conf().ENABLED:
            yield "Memoizing is disabled: CACHE_MEMOIZE['ENABLED'] is False"
        used = {event.alias for event in self.events if event.alias}
        for alias in sorted(used.intersection(connections.aliases())):
            if not connections.opened(alias)[1].stores:
                yield f"The cache {alias!r} stores nothing"


def _memoized_in(function: Any) -> Any:
    memoized = signals.memoized_in(function)
    if memoized is None:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise TypeError(
            f"assert_hits: {name} is not memoized; give what @cache_memoize made, or "
            "leave it out to count all functions"
        )
    return memoized
