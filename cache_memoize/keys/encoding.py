"""Values as text, different for different values. Pure: no cache, no database.

The key of a call is a digest of the text of its arguments, so two calls with the same
text would get each other's results. Every piece of text is self-delimiting: it ends
with a mark that cannot occur in it, or begins with its length. So pieces can follow
each other without a separator that an argument could forge. Built-in types have writers
of their own here; for other classes values.py has the rules.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from django.db.models import Model
from django.utils.functional import LazyObject, Promise

from .columns import plain_type, stored_value
from .refusals import UnkeyableArgument
from .replaced import is_mock
from .values import class_name, is_listed, name_of, refusal, rule_of

__all__ = [
    "LONGEST_REMEMBERED",
    "UnkeyableArgument",
    "digest",
    "encode",
    "explain",
    "label",
    "register_key",
]


#: Characters of a text that is remembered as it is, at most: a visitor may send any.
LONGEST_REMEMBERED = 64


def digest(head: str) -> Callable[[str], str]:
    """Return a function from text to 168 bits of SHA-256 (FIPS 180-4) in base64
    (RFC 4648).

    ``head`` is common to all texts and hashed once. Hosts in FIPS mode refuse MD5.
    Hexadecimal would be longer, and Django validates each character of a key.
    """
    common = hashlib.sha256(_encode_string(head).encode("utf-8", "surrogatepass"))

    def of(text: str) -> str:
        whole = common.copy()
        whole.update(text.encode("utf-8", "surrogatepass"))
        return binascii.b2a_base64(whole.digest()[:21], newline=False).decode()

    return of


def label(prefix: str) -> str:
    """Return the part of a key that a person recognises: at most 60 characters, all of
    them legal on Memcached."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", prefix)[-60:]


def encode(value: Any) -> str:
    """Return ``value`` as text. Raise UnkeyableArgument where that is not safe."""
    write = _writers.get(type(value))
    return _encode_new(value) if write is None else write(value)


def _encode_string(value: str) -> str:
    return f"s{len(value)}:{value}"


#: Types whose values ascii() writes differently, also from those of the other types,
#: and alike in every process.
_LITERALS = frozenset({bool, bytes, float, int, str, type(None)})


def _encode_sequence(value: Any) -> str:
    """Encode a list or tuple; of literals in C, in a fifth of the time."""
    if _LITERALS.issuperset(map(type, value)):
        with suppress(ValueError):  # an integer of over 4,300 digits
            text = ascii(value)
            if len(text) <= 4_000:
                return f"l{len(text)}:{text}"
    return ("[" if type(value) is list else "(") + "".join(map(encode, value)) + ")"


def _encode_members(values: Iterator[Any]) -> str:
    # The encoded members are sorted, not the members: those may not compare, and
    # their own order may depend on the hash seed.
    return "".join(sorted(map(encode, values))) + ")"


def _encode_mapping(value: Any) -> str:
    parts = [encode(key) + encode(each) for key, each in value.items()]
    parts.sort()
    return "d" + "".join(parts) + ")"


#: Writers of built-in types by exact type. Subclasses are types of their own.
_PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "N",
    bool: lambda value: "T" if value else "F",
    # Hexadecimal: Python refuses to write integers of 5,000 digits as decimals.
    int: lambda value: f"i{value:x};",
    # repr() is exact, writes 0.0 and -0.0 differently, and every NaN alike.
    float: lambda value: f"f{value!r};",
    str: _encode_string,
    bytes: lambda value: f"b{len(value)}:{value.decode('latin-1')}",
    tuple: _encode_sequence,
    list: _encode_sequence,
    set: lambda value: "{" + _encode_members(value),
    frozenset: lambda value: "<" + _encode_members(value),
    dict: _encode_mapping,
}
#: These, and the writers of all classes of which a value was encoded.
_writers = dict(_PLAIN)


def _model_writer(cls: type[Model]) -> Callable[[Any], str]:
    # The concrete model: a proxy or deferred instance is the same row. Without the
    # database alias: invalidate() must find a row that was read from a replica.
    concrete = cast("type[Model]", cls._meta.concrete_model)
    head = "m(" + encode(concrete._meta.label)
    fields = getattr(concrete._meta, "pk_fields", [concrete._meta.pk])  # Django 5.2
    plain = plain_type(fields[0]) if len(fields) == 1 else None

    def write(value: Model) -> str:
        pk = value.pk
        if pk and type(pk) is plain:  # the same, but faster
            return head + encode(pk) + ")"
        keys = pk if isinstance(pk, tuple) else (pk,)
        if None in keys or ("" in keys and value._state.adding):
            reason = "an unsaved model instance has no identity"
            raise UnkeyableArgument(class_name(cls), reason)
        # Post(pk="1"), with a key from a URL, is the row 1.
        texts = map(encode, map(stored_value, fields, keys))
        return head + "".join(texts) + ")"

    return write


_REGISTERED: dict[type, Callable[[Any], Any]] = {}


def register_key(type: type, function: Callable[[Any], Any]) -> None:
    """Register what stands in the key for values of ``type`` and its subclasses.

    :param function: takes the value and returns anything that can be keyed. It takes
        precedence over all rules of the library.

    Call this where the type is defined, before a memoized function is called.
    """
    if not hasattr(type, "__mro__") or not callable(function):
        raise TypeError("register_key takes a class and a function of its values")
    if type in _PLAIN:
        raise TypeError(
            f"register_key: the encoding of {type.__name__} is fixed; register a "
            "subclass of your own, or use args_rewrite="
        )
    global _writers
    _REGISTERED[type] = function
    _writers = dict(_PLAIN)


def _encode_new(value: Any) -> str:
    """Encode a value of a class without a writer, and keep the writer."""
    cls, writers = type(value), _writers
    write = _writer_of(cls)
    text = write(value)
    # Django makes some of its lazy classes repeatedly, and each mock has one.
    if not (issubclass(cls, Promise) or is_mock(cls)):
        writers[cls] = write
    return text


def _writer_of(cls: type) -> Callable[[Any], str]:
    for base in cls.__mro__:
        if base in _REGISTERED:
            # Also of a class without a name of its own: the function identifies values.
            return _named_writer(cls, _REGISTERED[base], class_name)
    if issubclass(cls, LazyObject):
        return _encode_wrapped
    if issubclass(cls, Model):
        return _model_writer(cls)
    if issubclass(cls, Promise):  # of a class that Django makes inside a function
        if not hasattr(cls, "casefold"):
            return refusal("it is lazy and no text; pass its result")
        if hasattr(cls, "_get_number_value"):  # ngettext_lazy(..., "number")
            return refusal("its text depends on a number; pass the text")
        return _encode_lazy_text
    return _named_writer(cls, rule_of(cls))


def _named_writer(
    cls: type, rule: Callable[[Any], Any], name_of: Callable[[type], str] = name_of
) -> Callable[[Any], str]:
    """Return a writer of the name of ``cls``, looked up once, and of the parts that
    ``rule`` returns for a value."""
    head: str | None = None

    def write(value: Any) -> str:
        nonlocal head
        parts = rule(value)  # first: its refusal has the better reason
        if head is None:
            head = "o" + _encode_string(name_of(cls))
        return head + encode(parts)

    return write


def _encode_lazy_text(value: Any) -> str:
    # lazy() says what it may return: lazy(f, str, int) can be 5 as well as "5".
    _, state, *_ = value.__reduce__()
    if not all(issubclass(cls, str) for cls in state[3:]):
        refusal("it is lazy and may be no text; pass its result")(value)
    return "z" + encode(str(value))


def _encode_wrapped(value: Any) -> str:
    # request.user is the user: f(request.user) and f(user) are one call.
    value.__class__  # noqa: B018 - the attribute access makes it load
    return encode(value._wrapped)


# --- errors --------------------------------------------------------------------------

#: Steps of the path to a refused part, at most.
_LONGEST_PATH = 20


def explain(value: Any, path: str) -> tuple[str, str, str | None]:
    """Return the name of the type of a refused value; the reason for the refusal, which
    contains the path to the part that is refused; the class that can be registered."""
    name, teachable = class_name(type(value)), _teachable_class(type(value))
    where, part, is_cycle = _refused_part(value, path, ())
    if is_cycle:
        reason = f"{where} contains itself: it is {path} or a part of it again"
        return name, reason, teachable
    try:
        encode(part)
    except UnkeyableArgument as error:
        type_name, reason = error.type_name, error.reason
    except RecursionError:
        type_name, reason = class_name(type(part)), "it is nested too deeply"
    if part is not value:
        reason = f"{where} has the type {type_name}, and {reason}"
    return name, reason, teachable


def _teachable_class(cls: type) -> str | None:
    """Return how the class, or the nearest base that a module has, is written in
    ``register_key()``; None if that is a built-in type."""
    named = next(base for base in cls.__mro__ if _has_name(base))
    if named.__module__ != "builtins":
        return class_name(named)
    return cls.__name__ if "<locals>" in cls.__qualname__ else None


def _has_name(cls: type) -> bool:
    try:
        return bool(name_of(cls))
    except UnkeyableArgument:
        return False


def _refused_part(
    value: Any, path: str, within: tuple[Any, ...]
) -> tuple[str, Any, bool]:
    """Return the path to the innermost refused part, the part, and whether a part is
    one of those around it."""
    within = (*within, value)
    for step, part in _parts_of(value) if len(within) < _LONGEST_PATH else ():
        if any(part is outer for outer in within):
            return path + step, part, True
        try:
            encode(part)
        except (UnkeyableArgument, RecursionError):
            return _refused_part(part, path + step, within)
    return path, value, False


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value that are encoded, with their steps of the path."""
    cls = type(value)
    if cls in (list, tuple):
        yield from ((f"[{n}]", each) for n, each in enumerate(value))
    elif cls in (set, frozenset, dict):  # keys may be as secret as values
        both = (*value.keys(), *value.values()) if cls is dict else value
        yield from (("[...]", each) for each in both)
    elif issubclass(cls, LazyObject):
        yield "", value._wrapped
    elif not issubclass(cls, (Model, Promise)) and cls not in _PLAIN:
        rule = next((_REGISTERED[b] for b in cls.__mro__ if b in _REGISTERED), None)
        with suppress(UnkeyableArgument):
            parts = (rule or rule_of(cls))(value)
            if rule is None and type(parts) is dict and not is_listed(cls):
                yield from ((f".{name}", each) for name, each in parts.items())
            else:
                for each in parts if type(parts) is tuple else (parts,):
                    yield "", each
