"""From the arguments of a call to its cache key; the table of known keys. Pure.

A key is a label that a person recognises and a digest of text: of a head, which all
calls of a function share, and of the call. The functions here are closures over what is
known when the settings have been read, because the key is made on every hit.

Binding and encoding a call take ten times as long as looking it up, so calls with small
plain arguments are remembered with their keys in an ``lru_cache``, which is C. A table
of our own was tried: it took twice as long with keyword arguments. Other arguments are
not remembered: they may be equal and different (``0.0`` and ``-0.0``), may change, or
may be large.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from .binding import FIXED, Args, Binder, Kwargs, encode_part
from .encoding import LONGEST_REMEMBERED, digest, encode, label

__all__ = ["REMEMBERED_CALLS", "KeyParts", "key_maker", "parts_maker", "state_maker"]

KeyOf = Callable[[Args, Kwargs], str]
TextOf = Callable[[Args, Kwargs], str]

#: Calls of one function whose keys are remembered, at most.
REMEMBERED_CALLS = 1024
#: Arguments of a remembered call, at most.
_MOST_ARGUMENTS = 16

#: Types whose values cannot change.
_UNCHANGING = FIXED | {float}

#: Section marks in the text of a call. No encoded value starts with one of them.
_REWRITTEN = "*"
_EXTRA = "+"
_PROJECT = "^"
_VARY = "~"
#: Before the digest of captured variables and ``vary_on`` that are long.
_SHORTENED = "$"

_of_variant = digest("cache_memoize variant")


class KeyParts(NamedTuple):
    """The parts of the keys of a function besides its arguments."""

    version: Any = None
    extra: Any = None
    args_rewrite: Callable[..., Any] | None = None
    key_generator: Callable[..., Any] | None = None
    #: Functions whose results become part of the key.
    vary_on: tuple[Callable[[], Any], ...] = ()
    #: Returns the captured variables of a nested function as text.
    captured: Callable[[], str] | None = None
    #: Part of all keys of the project.
    key_prefix: str = ""

    @property
    def fixed_extra(self) -> Any:
        return None if callable(self.extra) else self.extra

    @property
    def extra_of(self) -> Callable[..., Any] | None:
        return self.extra if callable(self.extra) else None


NO_PARTS = KeyParts()


def key_maker(binder: Binder, prefix: str, parts: KeyParts = NO_PARTS) -> KeyOf:
    """Return the function from ``(args, kwargs)`` to the cache key."""
    name, vary_on = binder.name, parts.vary_on
    if parts.key_generator is not None:
        return _key_generator(parts.key_generator, name, vary_on)
    head = f"{encode(prefix)}{encode_part(parts.version, name, 'version=')}"
    head += _shared_text(parts.key_prefix, vary_on)
    fixed = encode_part(parts.fixed_extra, name, "extra=")
    digest_of = digest(f"{head}{_EXTRA}{fixed}")
    start = label(prefix.split(" ", 1)[0]) + ":"
    text_of = _text_maker(binder, parts)

    def compute(args: Args, kwargs: Kwargs, variant: str = "") -> str:
        return start + digest_of(text_of(args, kwargs) + variant)

    # Only then the key depends on nothing but the arguments. (An instance may change.)
    remembers = (
        parts.args_rewrite is None
        and parts.extra_of is None
        and binder.has_fixed_defaults()
        and binder.positional[:1] != ["self"]
    )
    variant_of = _variant_maker(vary_on, parts.captured, name)
    if variant_of is None:
        return _remember_keys(compute) if remembers else compute
    if remembers:
        return _remember_variants(compute, variant_of)
    return lambda args, kwargs: compute(args, kwargs, variant_of())


def state_maker(
    binder: Binder, parts: KeyParts = NO_PARTS
) -> Callable[[Args, Kwargs], str | None]:
    """Return the function from a call to the part of its key that can change while the
    call runs: its arguments, and what ``extra`` returns. None for plain values.

    Not ``vary_on``: the function itself may activate a language.
    """
    text_of, captured = _text_maker(binder, parts), parts.captured

    def state_of(args: Args, kwargs: Kwargs) -> str | None:
        types = map(type, (*args, *kwargs.values()))
        if captured is parts.extra_of is None and _UNCHANGING.issuperset(types):
            return None
        return text_of(args, kwargs) + (captured() if captured else "")

    return state_of


def parts_maker(
    binder: Binder, parts: KeyParts = NO_PARTS
) -> Callable[[Args, Kwargs], dict[str, str]]:
    """Return the function from a call to the parts of its key as text, by name: the
    parameters, and what else the key depends on. For explanations."""
    name, extra_of, captured = binder.name, parts.extra_of, parts.captured
    text_of, rewritten = _text_maker(binder, parts), ""
    shared = {"KEY_PREFIX": encode(parts.key_prefix)} if parts.key_prefix else {}
    if parts.key_generator is not None:
        rewritten = "key_generator_callable"
    else:
        shared["version"] = encode_part(parts.version, name, "version=")
        rewritten = "args_rewrite" if parts.args_rewrite is not None else ""
    if parts.fixed_extra is not None:
        shared["extra"] = encode_part(parts.fixed_extra, name, "extra=")

    def parts_of(args: Args, kwargs: Kwargs) -> dict[str, str]:
        found: dict[str, str] = {}
        if rewritten:
            found[rewritten] = text_of(args, kwargs)
        else:
            for parameter, value, _ in binder.bind(args, kwargs):
                text = encode_part(value, name, parameter)
                found[parameter] = found.get(parameter, "") + text  # *args: several
            if extra_of is not None:
                found["extra"] = encode_part(extra_of(*args, **kwargs), name, "extra=")
        for part in parts.vary_on:
            part_name = getattr(part, "__qualname__", "vary_on")
            found[part_name] = encode_part(part(), name, "vary_on=")
        if captured is not None:
            found["captured variables"] = captured()
        return found | shared

    return parts_of


def _shared_text(key_prefix: str, vary_on: tuple[Callable[[], Any], ...]) -> str:
    text = _PROJECT + encode(key_prefix) if key_prefix else ""
    if vary_on:  # by name too: "en" may be a language, or a tenant
        text += _VARY + encode([getattr(part, "__qualname__", "") for part in vary_on])
    return text


def _key_generator(
    generator: Callable[..., Any], name: str, vary_on: tuple[Callable[[], Any], ...]
) -> KeyOf:
    """Return the function from a call to the key that ``generator`` makes; the parts of
    a project-wide ``vary_on`` are put in front of it."""
    key_of = functools.partial(_generated_key, generator, name)
    if not vary_on:
        return key_of
    digest_of = digest(_shared_text("", vary_on))

    def key_with_parts(args: Args, kwargs: Kwargs) -> str:
        return f"{digest_of(_variant_text(vary_on, name))}:{key_of(args, kwargs)}"

    return key_with_parts


def _generated_key(
    generator: Callable[..., Any], name: str, args: Args, kwargs: Kwargs
) -> str:
    key = generator(*args, **kwargs)
    if not isinstance(key, str) or not key:
        raise TypeError(
            f"{name}(): key_generator_callable returned a {type(key).__name__}; it "
            "must return the whole cache key as a string that is not empty"
        )
    return key


def _text_maker(binder: Binder, parts: KeyParts) -> TextOf:
    """Return the function from a call to the text that its key is a digest of."""
    args_rewrite, extra_of = parts.args_rewrite, parts.extra_of
    if parts.key_generator is not None:
        return functools.partial(_generated_key, parts.key_generator, binder.name)
    if args_rewrite is None and extra_of is None:
        return binder.text

    leaves_out = getattr(args_rewrite, "leaves_out", None)

    def text(args: Args, kwargs: Kwargs) -> str:
        if args_rewrite is None:
            found = binder.text(args, kwargs)
        else:
            rewritten = args_rewrite(*args, **kwargs)
            found = _REWRITTEN + encode_part(rewritten, binder.name, "args_rewrite=")
            if leaves_out is not None:  # what args_rewrite does not take stays
                found += binder.text_of_some(leaves_out, args, kwargs)
        if extra_of is not None:
            further = extra_of(*args, **kwargs)
            found += _EXTRA + encode_part(further, binder.name, "extra=")
        return found

    return text


def _variant_maker(
    vary_on: tuple[Callable[[], Any], ...],
    captured: Callable[[], str] | None,
    name: str,
) -> Callable[[], str] | None:
    """Return the function that returns what keys depend on besides arguments."""
    if not vary_on:
        return captured
    variant_of = functools.partial(_variant_text, vary_on, name)
    if captured is None:
        return variant_of
    return lambda: variant_of() + captured()


def _variant_text(vary_on: tuple[Callable[[], Any], ...], name: str) -> str:
    return _VARY + encode_part([part() for part in vary_on], name, "vary_on=")


# --- remembered keys -----------------------------------------------------------------


class _NotRemembered(Exception):
    pass


def _refuse_large(args: Args, kwargs: Kwargs) -> None:
    """Raise for a call that has many arguments or large ones: a visitor may send any
    number of them, names of keyword arguments included."""
    if len(args) + len(kwargs) > _MOST_ARGUMENTS:
        raise _NotRemembered
    for value in (*args, *kwargs, *kwargs.values()):
        if not _is_small(value):
            raise _NotRemembered


def _is_small(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64
    return not isinstance(value, (bytes, str)) or len(value) <= LONGEST_REMEMBERED


def _remember_keys(compute: KeyOf) -> KeyOf:
    # By value and type: f(1), f(True) and f(1.0) are three calls.
    @functools.lru_cache(REMEMBERED_CALLS, typed=True)
    def known(*args: Any, **kwargs: Any) -> str:
        _refuse_large(args, kwargs)
        return compute(args, kwargs)

    def remember(args: Args, kwargs: Kwargs) -> str:
        # Before anything is hashed: a deep tuple would end the process (C stack).
        for value in args:
            if type(value) not in FIXED:
                return compute(args, kwargs)
        try:
            if not kwargs:
                return known(*args)
            for name in kwargs:  # faster than values()
                if type(kwargs[name]) not in FIXED:
                    return compute(args, kwargs)
            return known(*args, **kwargs)
        except _NotRemembered:
            return compute(args, kwargs)

    return remember


def _remember_variants(
    compute: Callable[[Args, Kwargs, str], str], variant_of: Callable[[], str]
) -> KeyOf:
    @functools.lru_cache(REMEMBERED_CALLS, typed=True)
    def known(variant: str, /, *args: Any, **kwargs: Any) -> str:
        _refuse_large(args, kwargs)
        return compute(args, kwargs, variant)

    def remember(args: Args, kwargs: Kwargs) -> str:
        variant = variant_of()
        if len(variant) > LONGEST_REMEMBERED:
            variant = _SHORTENED + _of_variant(variant)
        for value in (*args, *kwargs.values()):
            if type(value) not in FIXED:
                return compute(args, kwargs, variant)
        try:
            return known(variant, *args, **kwargs)
        except _NotRemembered:
            return compute(args, kwargs, variant)

    return remember
