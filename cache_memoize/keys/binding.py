"""Arguments to key: a function's calling convention, read once at decoration. Pure.

``inspect.Signature.bind`` costs about ten microseconds, so it is only asked for its
error message, when a call does not fit.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from .encoding import (
    UnkeyableArgument,
    digest,
    encode,
    label,
)

__all__ = ["Binder", "address", "default_prefix", "key_maker"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

_MISSING: Any = object()


class Binder:
    """Turns every spelling of a call into one: ``f(1)``, ``f(a=1)``, ``f(1, b=2)``.

    Positional-or-keyword parameters count by their position, so that functions that
    share a prefix share entries; the others count by their name.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, ignore: Iterable[str] = ()
    ) -> None:
        self.name = name
        try:
            self.signature = _signature(function)
        except ValueError as error:
            raise TypeError(
                f"cache_memoize: {name} tells nobody its parameters ({error}); "
                "memoize a Python function that calls it"
            ) from None
        parameters = self.signature.parameters.values()
        of = {kind: [p for p in parameters if p.kind is kind] for kind in _KINDS}
        named = of[_POSITIONAL_ONLY] + of[_POSITIONAL_OR_KEYWORD]
        self.positional_only = len(of[_POSITIONAL_ONLY])
        self.positional = [p.name for p in named]
        self.keyword_only = sorted(p.name for p in of[_KEYWORD_ONLY])
        self.defaults = {
            p.name: _MISSING if p.default is p.empty else p.default for p in parameters
        }
        self.var_positional = next((p.name for p in of[_VAR_POSITIONAL]), None)
        self.var_keyword = next((p.name for p in of[_VAR_KEYWORD]), None)
        self.ignore = self._check_ignore(ignore)
        self.by_keyword = {*self.positional[self.positional_only :], *self.keyword_only}
        self.rest = {} if self.ignore else self._rests()
        if "_refresh" in self.defaults:
            raise TypeError(
                f"cache_memoize: {name} has a parameter named _refresh, which the "
                "library keeps for itself; give it another name"
            )

    def _check_ignore(self, ignore: Iterable[str]) -> frozenset[str]:
        if isinstance(ignore, str):
            raise TypeError(
                f"cache_memoize: ignore= of {self.name} takes a tuple of names; "
                f"write ignore=({ignore!r},)"
            )
        names = frozenset(ignore)
        unknown = names - self.defaults.keys()
        if unknown and self.var_keyword is None:
            raise ValueError(
                f"cache_memoize: ignore= of {self.name} names {sorted(unknown)}, which "
                f"are not among its parameters {list(self.defaults)}"
            )
        return names

    def _rests(self) -> dict[int, str]:
        """What follows the text of so many positional arguments: that of the defaults,
        where those can never change."""
        found = {}
        for given in range(len(self.positional) + 1):
            names = self.positional[given:]
            if all(_is_fixed(self.defaults[n]) for n in names + self.keyword_only):
                found[given] = "".join(
                    [encode(self.defaults[name]) for name in names]
                    + [
                        _NAMED + encode(name) + encode(self.defaults[name])
                        for name in self.keyword_only
                    ]
                )
        return found

    def bind(self, args: Args, kwargs: Kwargs) -> list[tuple[str, Any, bool]]:
        """``(parameter, value, by name?)`` of a call, defaults filled in."""
        names = self.positional
        given = len(args)
        if given > len(names) and self.var_positional is None:
            self._misfit(args, kwargs)
        bound = [(n, v, False) for n, v in zip(names, args, strict=False)]
        used = 0
        for index in range(given, len(names)):
            name = names[index]
            if name in kwargs and index >= self.positional_only:
                used += 1
                value = kwargs[name]
            else:
                value = self.defaults[name]
            bound.append((name, value, False))
        rest = self.var_positional or ""
        bound += [(rest, value, False) for value in args[len(names) :]]
        for name in self.keyword_only:
            used += name in kwargs
            bound.append((name, kwargs.get(name, self.defaults[name]), True))
        if used != len(kwargs):
            others = kwargs.keys() - self.by_keyword
            if self.var_keyword is None or used + len(others) != len(kwargs):
                self._misfit(args, kwargs)
            bound += [(name, kwargs[name], True) for name in sorted(others)]
        if any(value is _MISSING for _, value, _ in bound):
            self._misfit(args, kwargs)
        if self.ignore:
            bound = [b for b in bound if not self._ignored(b[0], b[2])]
        return bound

    def _ignored(self, name: str, by_name: bool) -> bool:
        if by_name and name not in self.keyword_only:  # one of **kwargs
            own = name in self.ignore and name not in self.positional
            return own or self.var_keyword in self.ignore
        return name in self.ignore

    def _misfit(self, args: Args, kwargs: Kwargs) -> NoReturn:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        # Some versions of inspect let pass what a call does not.
        raise TypeError(f"{self.name}(): the arguments do not fit {self.signature}")

    def text(self, args: Args, kwargs: Kwargs) -> str:
        """The arguments of a call as text."""
        try:
            if not kwargs and len(args) in self.rest:  # the same, with less to do
                return "".join(map(encode, args)) + self.rest[len(args)]
            return "".join(
                [
                    _NAMED + encode(name) + encode(value) if by_name else encode(value)
                    for name, value, by_name in self.bind(args, kwargs)
                ]
            )
        except (UnkeyableArgument, RecursionError):
            for name, value, _ in self.bind(args, kwargs):
                encode_part(value, self.name, name)
            raise


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Of the function itself; of what it wraps only if it passes everything on."""
    own = inspect.signature(function, follow_wrapped=False)
    kinds = {p.kind for p in own.parameters.values()}
    if kinds == {_VAR_POSITIONAL, _VAR_KEYWORD}:
        return inspect.signature(function)
    return own


_KINDS = (
    _POSITIONAL_ONLY,
    _POSITIONAL_OR_KEYWORD,
    _VAR_POSITIONAL,
    _KEYWORD_ONLY,
    _VAR_KEYWORD,
) = tuple(inspect._ParameterKind)


def _is_fixed(default: Any) -> bool:
    """Whether it cannot change behind the back of what is remembered."""
    return type(default) in _REMEMBERED or type(default) is float


#: Before a value that counts by its name. No encoded value starts with it.
_NAMED = "="
#: Sections of the text of a call, which no encoded value starts with either.
_REWRITTEN = "*"
_EXTRA = "+"
_PROJECT = "^"
_VARY = "~"


def encode_part(value: Any, function: str, parameter: str) -> str:
    """``encode(value)`` whose refusal names the function and the parameter."""
    try:
        return encode(value)
    except UnkeyableArgument as error:
        raise UnkeyableArgument(
            error.type_name, error.reason, function, parameter
        ) from None
    except RecursionError:
        reason = "it contains itself, or is nested too deeply"
        raise UnkeyableArgument(
            type(value).__name__, reason, function, parameter
        ) from None


# --- the default prefix ------------------------------------------------------------


def address(function: Callable[..., Any]) -> tuple[str, str]:
    """Module and qualified name; of a partial, those of its function: what it has bound
    is nothing for a log. Of an object without a name, those of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return named.__module__ or "", named.__qualname__


def default_prefix(function: Callable[..., Any]) -> tuple[str, bool]:
    """``(prefix, whole)`` of a function: its address and what it captured.

    Functions made by a factory share their address and differ by their closure, so
    captured plain values are part of the prefix. ``whole`` is False when the closure
    holds something else, which the prefix cannot tell apart.
    """
    if isinstance(function, functools.partial):
        prefix, whole = default_prefix(function.func)
        owner = getattr(function.func, "__self__", None)
        parts = (owner, function.args, function.keywords)
        bound = encode_part(parts, prefix, "functools.partial")
        return f"{prefix} {bound}", whole
    name = getattr(function, "__qualname__", None)
    if name is None or "<lambda>" in name.rsplit(".", 1)[-1]:
        raise TypeError(
            "cache_memoize: a lambda, or a callable object, has no name of its own; "
            "say prefix='something.unique', or use def (and timeout= before it, if it "
            "was to be the timeout)"
        )
    prefix, whole = f"{function.__module__}.{name}", True
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    for variable, cell in zip(getattr(code, "co_freevars", ()), cells, strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # not yet assigned; harmless if it is the function itself
            whole = whole and variable == function.__name__
            continue
        try:
            if not _is_frozen(value):
                raise UnkeyableArgument(type(value).__name__, "it may change")
            prefix += f" {variable}={encode(value)}"
        except UnkeyableArgument:
            whole = False
    return prefix, whole


def _is_frozen(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_frozen, value))
    return value is None or isinstance(
        value, (bool, int, float, str, bytes, type, types.FunctionType)
    )


# --- the key of a call ---------------------------------------------------------------

#: Arguments of these exact types are remembered together with their key, because values
#: of one of them are equal only if they are the same, unlike 0.0 and -0.0, and nobody
#: can register another way to write them down.
_REMEMBERED = frozenset({bool, bytes, int, str, type(None)})
_REMEMBERED_CALLS = 1024


def _is_small(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64
    return not isinstance(value, (bytes, str)) or len(value) <= 64


class _NotRemembered(Exception):
    pass


def key_maker(
    binder: Binder,
    prefix: str,
    *,
    version: Any = None,
    extra: Any = None,
    args_rewrite: Callable[..., Any] | None = None,
    key_generator: Callable[..., Any] | None = None,
    vary_on: tuple[Callable[[], Any], ...] = (),
    key_prefix: str = "",
) -> Callable[[Args, Kwargs], str]:
    """The function from ``(args, kwargs)`` to the cache key.

    ``vary_on``: what they give is part of the key. ``key_prefix``: the project's own.
    """
    name = binder.name
    if key_generator is not None:
        return functools.partial(_generated, key_generator, name)

    text_of = binder.text
    fixed, extra_of = (None, extra) if callable(extra) else (extra, None)
    head = f"{encode(prefix)}{encode_part(version, name, 'version=')}"
    if key_prefix:
        head += _PROJECT + encode(key_prefix)
    if vary_on:  # which ones they are: "en" may be a language, or a tenant
        named = [getattr(part, "__qualname__", "") for part in vary_on]
        head += _VARY + encode(named)
    digest_of = digest(f"{head}{_EXTRA}{encode_part(fixed, name, 'extra=')}")
    start = label(prefix.split(" ", 1)[0]) + ":"

    def varied() -> str:
        found = [part() for part in vary_on]
        return _VARY + encode_part(found, name, "vary_on=")

    def compute(args: Args, kwargs: Kwargs, more: str = "") -> str:
        if args_rewrite is None:
            text = text_of(args, kwargs)
        else:
            binder.bind(args, kwargs)  # a call that does not fit must not be keyed
            rewritten = args_rewrite(*args, **kwargs)
            text = _REWRITTEN + encode_part(rewritten, name, "args_rewrite=")
        if extra_of is not None:
            further = extra_of(*args, **kwargs)
            text += _EXTRA + encode_part(further, name, "extra=")
        return start + digest_of(text + more)

    given = [value for value in binder.defaults.values() if value is not _MISSING]
    varies = args_rewrite is not None or extra_of is not None
    if varies or not all(map(_is_fixed, given)) or binder.positional[:1] == ["self"]:
        # The key may depend on more than the arguments: an instance may change.
        if vary_on:
            return lambda args, kwargs: compute(args, kwargs, varied())
        return compute

    def checked(args: Args, kwargs: Kwargs, more: str = "") -> str:
        for value in (*args, *kwargs.values()):
            if type(value) not in _REMEMBERED or not _is_small(value):
                raise _NotRemembered
        return compute(args, kwargs, more)

    # By value and type: f(1), f(True) and f(1.0) are three calls.
    @functools.lru_cache(_REMEMBERED_CALLS, typed=True)
    def known(*args: Any, **kwargs: Any) -> str:
        return checked(args, kwargs)

    @functools.lru_cache(_REMEMBERED_CALLS, typed=True)
    def known_varied(more: str, /, *args: Any, **kwargs: Any) -> str:
        return checked(args, kwargs, more)

    def remember(args: Args, kwargs: Kwargs) -> str:
        try:
            return known(*args, **kwargs)
        except Exception:
            pass  # also what hashing and comparing may raise: see what it is
        return compute(args, kwargs)

    def remember_varied(args: Args, kwargs: Kwargs) -> str:
        more = varied()
        try:
            return known_varied(more, *args, **kwargs)
        except Exception:
            pass
        return compute(args, kwargs, more)

    return remember_varied if vary_on else remember


def _generated(
    generator: Callable[..., Any], name: str, args: Args, kwargs: Kwargs
) -> str:
    key = generator(*args, **kwargs)
    if not isinstance(key, str) or not key:
        raise TypeError(
            f"{name}(): key_generator_callable gave a {type(key).__name__}; it must "
            "give the whole cache key as a string that is not empty"
        )
    return key
