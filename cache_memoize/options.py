"""The decorator's options: their defaults, and what can never be right. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

__all__ = ["LIBRARY", "PROJECT_WIDE", "asking", "check", "check_given", "kept"]

#: In the order in which they may be given by position, up to ``cache_alias``.
LIBRARY: dict[str, Any] = {
    "timeout": DEFAULT_TIMEOUT,
    "prefix": None,
    "extra": None,
    "args_rewrite": None,
    "hit_callable": None,
    "miss_callable": None,
    "key_generator_callable": None,
    "store_result": True,
    "cache_exceptions": (),
    "cache_alias": "default",
    "version": None,
    "ignore": (),
    "cache_if": None,
    "tags": None,
    "stale": 0,
    "early_refresh": 0,
    "jitter": 0,
    "wait": None,
    "lease": 10,
    "hold": 0,
    "local": None,
    "vary_on": (),
}

#: Those that a project may give to all its functions (CACHE_MEMOIZE["DEFAULTS"]). The
#: others are about the parameters or the identity of one function.
PROJECT_WIDE = frozenset(LIBRARY) - {
    "prefix",
    "extra",
    "args_rewrite",
    "key_generator_callable",
    "store_result",
    "ignore",
}

_CALLABLES = (
    "hit_callable",
    "miss_callable",
    "key_generator_callable",
    "args_rewrite",
    "cache_if",
)
_PERHAPS_CALLABLES = ("extra", "timeout", "tags")


#: Those that are called with the arguments of a call, and may raise.
_ASKED = (
    "args_rewrite",
    "cache_if",
    "extra",
    "key_generator_callable",
    "tags",
    "timeout",
)


def asking(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options, of which those that are callables say so in what they raise."""
    asked = {n: _noted(name, n, options[n]) for n in _ASKED if callable(options[n])}
    return options | asked


def _noted(name: str, option: str, given: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*args: Any, **kwargs: Any) -> Any:
        try:
            return given(*args, **kwargs)
        except Exception as error:
            error.add_note(f"Raised by {option}= of {name}.")
            raise

    return ask


def kept(option: str, given: Any) -> Any:
    """``given`` as it is now. It is read more than once, after every change of the
    settings: an iterator would be gone, and a list may have been changed."""
    several = option in ("cache_exceptions", "tags", "vary_on", "ignore")
    return tuple(given) if several and isinstance(given, _PASSING) else given


_PASSING = (list, set, Iterator)


def check(name: str, options: dict[str, Any]) -> None:
    """Refuse what has the wrong form; the numbers are seen to by protocol/policy.py."""
    trouble = None
    prefix, alias = options["prefix"], options["cache_alias"]
    if prefix is not None and (not isinstance(prefix, str) or not prefix):
        trouble = "has a prefix= that is not a string with something in it"
    elif not isinstance(alias, str):
        trouble = "has a cache_alias= that is not the name of a cache in CACHES"
    elif options["local"] not in (None, "request"):
        trouble = "has a local= that is neither None nor 'request'"
    for option in _CALLABLES:
        given = options[option]
        if given is not None and not callable(given):
            trouble = f"has a {option}= that cannot be called; give a function"
    for option in (*_CALLABLES, *_PERHAPS_CALLABLES):
        if inspect.iscoroutinefunction(options[option]):
            trouble = f"has a coroutine function as {option}=; give an ordinary one"
    if trouble:
        raise TypeError(f"cache_memoize: {name} {trouble}")


def check_given(name: str, given: dict[str, Any]) -> None:
    """Refuse what a decorator may not say itself, though a project may."""
    if given.get("key_generator_callable") is not None and given.get("vary_on"):
        raise TypeError(
            f"cache_memoize: {name} has vary_on= beside key_generator_callable=, which "
            "gives the whole key; let that tell languages and tenants apart, and leave "
            "vary_on= out"
        )
