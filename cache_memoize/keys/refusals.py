"""The error for an argument that cannot be part of a key, with its cures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["UnkeyableArgument", "class_name", "refusal"]


class UnkeyableArgument(TypeError):
    """An argument that cannot be told apart from others.

    ``function``, ``parameter`` and ``type_name`` name it; ``reason`` contains the path
    to the part of it that is refused. Its value is never part of the message.
    """

    def __init__(
        self,
        type_name: str,
        reason: str,
        function: str | None = None,
        parameter: str | None = None,
        kind: str = "argument",
        teachable: str | None = None,
    ) -> None:
        super().__init__(type_name, reason, function, parameter, kind, teachable)
        self.type_name = type_name
        self.reason = reason
        self.function = function
        self.parameter = parameter
        #: ``"argument"``, or ``"captured variable"`` of a nested function.
        self.kind = kind
        #: The name of a class that ``register_key`` takes, for values of this type.
        self.teachable = teachable

    def __str__(self) -> str:
        where = f"{self.function}(): " if self.function else ""
        what = f"the {self.kind} {self.parameter!r}" if self.parameter else "a value"
        return (
            f"{where}{what} of type {self.type_name} cannot be part of a cache key: "
            f"{self.reason}. Cure: {'; or '.join(self._cures())}."
        )

    def _cures(self) -> Iterator[str]:
        if self.parameter not in ("self", "cls"):  # of a method: the object is given
            yield "pass something plain in its place (an id, for instance)"
        is_argument = self.kind == "argument" and (self.parameter or "").isidentifier()
        if is_argument:
            yield "describe it with args_rewrite="
        if self.teachable:
            yield (
                "teach its type to the library with "
                f"cache_memoize.register_key({self.teachable}, function)"
            )
        if is_argument:
            yield (
                f"leave it out of the key with ignore=({self.parameter!r},), if no "
                "result depends on it"
            )
        elif self.kind != "argument":
            yield (
                "name the function with prefix=, if no result depends on it: then "
                "captured variables are not part of the key"
            )


def class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def refusal(reason: str) -> Callable[[Any], Any]:
    """Return a rule that refuses all values."""

    def refuse(value: Any) -> Any:
        raise UnkeyableArgument(class_name(type(value)), reason)

    return refuse
