"""The options of the decorator: each one once, with its default and its type. Pure.

The signature of :func:`cache_memoize` and what a project may set in ``CACHE_MEMOIZE``
are made of :class:`Options`. The overload in ``decorator.py``, which type checkers
read, and ``docs/reference.rst`` are compared with it by tests. CONTRIBUTING has the
steps to add an option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db.models import Model

from .hints import suggestion

__all__ = [
    "CALLED",
    "DependsOn",
    "PROJECT_WIDE",
    "SIGNATURE",
    "Options",
    "Timeout",
    "VaryOn",
    "check_given",
    "given_in",
    "suggestion",
]

Timeout = float | timedelta | None
VaryOn = str | Callable[[], Any]
DependsOn = str | type[Model]
Hook = Callable[..., object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """All options of one memoized function."""

    # Up to cache_alias, in the order of the positional arguments.
    timeout: Timeout | Callable[..., Timeout] = DEFAULT_TIMEOUT
    prefix: str | None = None
    extra: Any = None
    args_rewrite: Callable[..., Any] | None = None
    hit_callable: Hook | None = None
    miss_callable: Hook | None = None
    key_generator_callable: Callable[..., str] | None = None
    store_result: bool = True
    cache_exceptions: type[Exception] | tuple[type[Exception], ...] = ()
    cache_alias: str = "default"
    version: Any = None
    ignore: Iterable[str] = ()
    cache_if: Hook | None = None
    tags: str | Iterable[str] | Callable[..., str | Iterable[str]] | None = None
    stale: Timeout = 0
    early_refresh: float = 0
    jitter: float = 0
    wait: Timeout = None
    lease: float | timedelta = 10
    hold: float | timedelta = 0
    local: Literal["request", "process"] | float | timedelta | None = None
    vary_on: VaryOn | Iterable[VaryOn] = ()
    inherit: bool = True
    depends_on: DependsOn | Iterable[DependsOn] = ()
    compress: bool | int | None = None
    max_bytes: int | None = None
    audit: float | tuple[float, Callable[[Any, Any], object]] = 0

    def check(self, name: str) -> None:
        """Refuse values of a wrong form; protocol/policy.py refuses wrong numbers."""
        trouble = None
        if self.prefix is not None and not _is_text(self.prefix):
            trouble = "has a prefix= that is empty or not a string"
        elif not isinstance(self.cache_alias, str):
            trouble = "has a cache_alias= that is not the name of a cache in CACHES"
        elif isinstance(self.local, str) and self.local not in _MEMORIES:
            trouble = f"has a local= that is none of {list(_MEMORIES)}, nor seconds"
        for option in ("tags", "vary_on"):
            trouble = _misplaced(option, getattr(self, option)) or trouble
        for option in _CALLABLES:
            value = getattr(self, option)
            if value is not None and not callable(value):
                trouble = f"has a {option}= that is not callable; pass a function"
        for option in (*_CALLABLES, *_CALLABLES_OR_VALUES):
            if inspect.iscoroutinefunction(getattr(self, option)):
                trouble = (
                    f"has a coroutine function as {option}=; pass a plain function"
                )
        if trouble:
            raise TypeError(f"cache_memoize: {name} {trouble}")


def _misplaced(option: str, value: Any) -> str | None:
    """Return the trouble with models and callables where they do not belong."""
    given = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    for each in given:
        if isinstance(each, type) and hasattr(each, "_meta"):
            name = each.__name__
            return (
                f"has the model {name} as {option}=; to invalidate calls when its rows "
                f"change, write depends_on={name}, or f.invalidate_on({name}) below f"
            )
        if option == "tags" and callable(each) and each is not value:
            return (
                "has a callable in the list of tags=; write one that returns all tags, "
                "without a list around it: tags=lambda pk: ['posts', f'post:{pk}']"
            )
    return None


_FIELDS = {field.name: field for field in fields(Options)}

#: The options allowed in CACHE_MEMOIZE["DEFAULTS"]. The others concern the parameters
#: or the identity of a single function.
PROJECT_WIDE = frozenset(_FIELDS) - {
    "prefix",
    "extra",
    "args_rewrite",
    "key_generator_callable",
    "store_result",
    "ignore",
}

_MEMORIES = ("request", "process")
_CALLABLES = (
    "hit_callable",
    "miss_callable",
    "key_generator_callable",
    "args_rewrite",
    "cache_if",
)
_CALLABLES_OR_VALUES = ("extra", "timeout", "tags")
#: Options that may be callables of the call's arguments, by the number of arguments
#: that come before these: the result.
CALLED = {
    "args_rewrite": 0,
    "cache_if": 1,
    "extra": 0,
    "hit_callable": 0,
    "key_generator_callable": 0,
    "miss_callable": 0,
    "tags": 0,
    "timeout": 1,
}


def _signature() -> inspect.Signature:
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = []
    for name, field in _FIELDS.items():
        parameters.append(inspect.Parameter(name, kind, default=field.default))
        if name == "cache_alias":
            kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(parameters)


#: The signature of the decorator.
SIGNATURE = _signature()


def given_in(args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the options passed to the decorator, by name."""
    try:
        given = SIGNATURE.bind(*args, **kwargs).arguments
    except TypeError as error:
        hint = suggestion(kwargs.keys() - _FIELDS, _FIELDS)
        raise TypeError(f"cache_memoize() {error}{hint}") from None
    # They are read again after every change of the settings: an iterator would be
    # exhausted, and a list may have been changed.
    return {
        option: tuple(value)
        if option in _SEVERAL and isinstance(value, (list, set, Iterator))
        else value
        for option, value in given.items()
    }


_SEVERAL = ("cache_exceptions", "tags", "vary_on", "ignore", "depends_on")


def check_given(name: str, given: dict[str, Any]) -> None:
    """Refuse options that contradict each other if a decorator has them both, but not
    if one comes from CACHE_MEMOIZE["DEFAULTS"]."""
    if given.get("key_generator_callable") is not None and given.get("vary_on"):
        raise TypeError(
            f"cache_memoize: {name} has vary_on= beside key_generator_callable=, which "
            "returns the whole key; let that contain the language or tenant, and leave "
            "vary_on= out"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
