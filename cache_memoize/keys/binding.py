"""Arguments to text: the calling convention of a function, read once. Pure.

``inspect.Signature.bind`` takes about ten microseconds, so it is called only for its
error message, when a call does not fit the parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature, signature
from typing import Any, NoReturn

from .encoding import UnkeyableArgument, encode, explain

__all__ = ["FIXED", "Binder", "address", "encode_part"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
#: Parameter, value, and whether it is encoded with its name.
Bound = tuple[str, Any, bool]

#: Types whose values cannot change, are equal only if they are the same (unlike 0.0 and
#: -0.0), and cannot be encoded otherwise by :func:`register_key`.
FIXED = frozenset({bool, bytes, int, str, type(None)})

#: Before a value that is bound by its name. No encoded value starts with it.
_NAMED = "="
_MISSING: Any = object()


class Binder:
    """All spellings of a call as one: ``f(1)``, ``f(a=1)``, ``f(1, b=2)``.

    Positional-or-keyword parameters are encoded by position, so that functions that
    share a prefix share entries; keyword-only parameters by name.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, ignore: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.signature = _signature(function, name)
        parameters = self.signature.parameters.values()

        def names(kind: Any) -> list[str]:
            return [p.name for p in parameters if p.kind is kind]

        positional_only = names(Parameter.POSITIONAL_ONLY)
        self.positional_only = len(positional_only)
        self.positional = positional_only + names(Parameter.POSITIONAL_OR_KEYWORD)
        self.keyword_only = sorted(names(Parameter.KEYWORD_ONLY))
        self.by_keyword = {*self.positional[self.positional_only :], *self.keyword_only}
        self.var_positional = next(iter(names(Parameter.VAR_POSITIONAL)), None)
        self.var_keyword = next(iter(names(Parameter.VAR_KEYWORD)), None)
        self.defaults = {
            p.name: _MISSING if p.default is p.empty else p.default for p in parameters
        }
        self.ignore = self._check_ignore(ignore)
        self.default_texts = {} if self.ignore else self._encode_defaults()
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

    def has_fixed_defaults(self) -> bool:
        """Return whether no default can change after the function was defined."""
        return all(v is _MISSING or _is_fixed(v) for v in self.defaults.values())

    def _encode_defaults(self) -> dict[int, str]:
        """Return, by the number of positional arguments in a call without keywords, the
        text of the defaults that follow; only where all of them are fixed."""
        texts = {}
        for number in range(len(self.positional) + 1):
            names = self.positional[number:]
            if all(_is_fixed(self.defaults[n]) for n in names + self.keyword_only):
                texts[number] = "".join(
                    [encode(self.defaults[name]) for name in names]
                    + [
                        _NAMED + encode(name) + encode(self.defaults[name])
                        for name in self.keyword_only
                    ]
                )
        return texts

    def bind(self, args: Args, kwargs: Kwargs) -> list[Bound]:
        """Return all values of a call, defaults included."""
        names, defaults, given = self.positional, self.defaults, len(args)
        left = kwargs.copy() if kwargs else kwargs
        bound = [(n, v, False) for n, v in zip(names, args, strict=False)]
        for index in range(given, len(names)):
            name = names[index]
            if name in left and index >= self.positional_only:
                bound.append((name, left.pop(name), False))
            else:
                bound.append((name, defaults[name], False))
        if given > len(names):
            bound += self._bind_further(args, kwargs)
        for name in self.keyword_only:
            bound.append((name, left.pop(name, defaults[name]), True))
        if left:
            bound += self._bind_others(left, args, kwargs)
        if any(value is _MISSING for _, value, _ in bound):
            self._refuse_call(args, kwargs)
        if self.ignore:
            bound = [b for b in bound if not self._is_ignored(b[0], b[2])]
        return bound

    def fits(self, args: Args, kwargs: Kwargs) -> bool:
        """Return whether a call has the arguments that the parameters ask for."""
        try:
            self.normalize(args, kwargs)
        except TypeError:
            return False
        return True

    def normalize(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the same call with positional parameters by position, defaults filled
        in, and the others by keyword."""
        if not kwargs and not self.keyword_only and len(args) == len(self.positional):
            return args, kwargs
        positional, by_name = list(args), {}
        left = kwargs.copy()
        for index in range(len(args), len(self.positional)):
            name = self.positional[index]
            at_hand = left if index >= self.positional_only else {}
            positional.append(at_hand.pop(name, self.defaults[name]))
        for name in self.keyword_only:
            by_name[name] = left.pop(name, self.defaults[name])
        too_many = len(args) > len(self.positional) and self.var_positional is None
        unknown = left and (
            self.var_keyword is None or not self.by_keyword.isdisjoint(left)
        )
        missing = any(v is _MISSING for v in (*positional, *by_name.values()))
        if too_many or unknown or missing:
            self._refuse_call(args, kwargs)
        return tuple(positional), by_name | left

    def _bind_further(self, args: Args, kwargs: Kwargs) -> list[Bound]:
        if self.var_positional is None:
            self._refuse_call(args, kwargs)
        further = args[len(self.positional) :]
        return [(self.var_positional, value, False) for value in further]

    def _bind_others(self, left: Kwargs, args: Args, kwargs: Kwargs) -> list[Bound]:
        if self.var_keyword is None or not self.by_keyword.isdisjoint(left):
            self._refuse_call(args, kwargs)
        return [(name, left[name], True) for name in sorted(left)]

    def _is_ignored(self, name: str, by_name: bool) -> bool:
        if by_name and name not in self.keyword_only:  # one of **kwargs
            own = name in self.ignore and name not in self.positional
            return own or self.var_keyword in self.ignore
        return name in self.ignore

    def _refuse_call(self, args: Args, kwargs: Kwargs) -> NoReturn:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        # Some versions of inspect accept calls that Python refuses.
        raise TypeError(f"{self.name}(): the arguments do not fit {self.signature}")

    def text_of_some(
        self, chosen: Callable[[str, bool], bool], args: Args, kwargs: Kwargs
    ) -> str:
        """Return some arguments of a call as text, chosen by their names and by whether
        they are bound by name."""
        return "".join(
            _NAMED + encode(name) + encode_part(value, self.name, name)
            for name, value, by_name in self.bind(args, kwargs)
            if chosen(name, by_name)
        )

    def text(self, args: Args, kwargs: Kwargs) -> str:
        """Return the arguments of a call as text."""
        try:
            if not kwargs and len(args) in self.default_texts:  # the same, but faster
                return "".join(map(encode, args)) + self.default_texts[len(args)]
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


def _signature(function: Callable[..., Any], name: str) -> Signature:
    """Return the signature of the function itself; that of the function it wraps only
    if it passes all arguments on, or has none (``lru_cache``)."""
    try:
        own = signature(function, follow_wrapped=False)
        kinds = {p.kind for p in own.parameters.values()}
        if kinds != {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
            return own
    except ValueError:
        pass
    try:
        return signature(function)
    except ValueError as error:
        raise TypeError(
            f"cache_memoize: {name} has no signature that can be inspected ({error}); "
            "memoize a Python function that calls it"
        ) from None


def _is_fixed(default: Any) -> bool:
    return type(default) in FIXED or type(default) is float


def encode_part(
    value: Any, function: str, parameter: str, kind: str = "argument"
) -> str:
    """Like :func:`encode`, with an error that names the function and the parameter."""
    try:
        return encode(value)
    except (UnkeyableArgument, RecursionError):
        pass  # for the explanation, the stack is short again
    type_name, reason, teachable = explain(value, parameter)
    raise UnkeyableArgument(
        type_name, reason, function, parameter, kind, teachable
    ) from None


def address(function: Callable[..., Any]) -> tuple[str, str]:
    """Return module and qualified name; of a partial, those of its function; of an
    object without a name, those of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return named.__module__ or "", named.__qualname__
