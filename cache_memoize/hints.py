"""Hints in errors: the name, or the control, that is meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "OTHER_CONTROLS",
    "did_you_mean",
    "explain_receiver",
    "meant_by",
    "refused_control",
    "suggestion",
]

#: What options are called in other libraries.
_OTHER_WORDS = {
    **dict.fromkeys(("ttl", "expire", "expires", "max_age", "seconds"), "timeout"),
    **dict.fromkeys(("expiration", "lifetime", "duration", "cache_timeout"), "timeout"),
    **dict.fromkeys(("namespace", "key_prefix", "name"), "prefix"),
    **dict.fromkeys(("key", "cache_key", "key_func"), "key_generator_callable"),
    **dict.fromkeys(("key_builder", "make_key", "key_fn"), "key_generator_callable"),
    **dict.fromkeys(("alias", "cache", "backend", "using"), "cache_alias"),
    **dict.fromkeys(("cache_name", "region"), "cache_alias"),
    **dict.fromkeys(("on_hit", "hit_callback"), "hit_callable"),
    **dict.fromkeys(("on_miss", "miss_callback"), "miss_callable"),
    **dict.fromkeys(("exceptions", "cached_exceptions"), "cache_exceptions"),
    **dict.fromkeys(("exclude", "ignore_args", "skip_args"), "ignore"),
    **dict.fromkeys(("condition", "should_cache", "should_cache_fn"), "cache_if"),
    **dict.fromkeys(("cache_none", "skip_none", "when"), "cache_if"),
    **dict.fromkeys(("per_user", "per_language", "vary", "per_site"), "vary_on"),
    **dict.fromkeys(("stale_ttl", "stale_while_revalidate", "grace", "swr"), "stale"),
    **dict.fromkeys(("model", "models", "depends", "invalidated_by"), "depends_on"),
    "invalidate_on": "depends_on",
    "lock_timeout": "lease",
    "blocking_timeout": "wait",
}

_ALONE = "one caller computes, and others wait for it, anyway; wait= says how long"
_SIZE = "the number of entries is MAX_ENTRIES in CACHES"
#: Words of other libraries for which there is no option, and what to do instead.
_NO_OPTIONS = {
    **dict.fromkeys(("lock", "locking", "single_flight", "dogpile"), _ALONE),
    **dict.fromkeys(("maxsize", "max_size", "max_entries"), _SIZE),
    "typed": "arguments of different types are different calls anyway",
    "unless": "write cache_if=, which is true for results to store",
}

#: What controls are called in other libraries.
OTHER_CONTROLS = {
    "cache_clear": "invalidate_all()",
    "clear": "invalidate_all()",
    "delete": "invalidate(...)",
    "expire": "invalidate(...)",
}


def suggestion(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return, in parentheses, the known names that are meant, or what to do instead;
    an empty string if that is not known."""
    unknown = list(unknown)
    for name in unknown:
        if name in _NO_OPTIONS:
            return f" ({_NO_OPTIONS[name]})"
    return did_you_mean({meant_by(name, known) for name in unknown} - {None})


def meant_by(name: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Return the known name that is called like this elsewhere, or is close to it."""
    names, word = {each.lower(): each for each in sorted(known)}, str(name).lower()
    close = difflib.get_close_matches(word, names, 1, cutoff)
    found = _OTHER_WORDS.get(word, word)
    return names.get(found) or next((names[each] for each in close), None)


def did_you_mean(names: Iterable[Any]) -> str:
    return f" (did you mean {', '.join(sorted(names))}?)" if names else ""


def refused_control(function: str, name: str) -> Callable[..., Any]:
    """Return a function that refuses to be called, with the control that is meant."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        hint = did_you_mean([f"{function}.{OTHER_CONTROLS[name]}"])
        raise TypeError(f"{function} has no control {name}(){hint}")

    return refuse


def explain_receiver(function: Any, args: Any) -> str:
    """Return why the first of the arguments is not the receiver of a method."""
    if function.owner is None:
        return (
            "this control does not know the class, because another decorator stands "
            "above @cache_memoize; put @cache_memoize above @classmethod, or pass the "
            "class as the first argument"
        )
    kind = "a subclass" if function.needs_class else "an instance"
    return (
        f"the first argument must be {kind} of {function.owner.__qualname__}, not "
        f"{type(args[0]).__name__}; use the control of the bound method "
        "(obj.m.invalidate(...)), or pass the instance first"
    )
