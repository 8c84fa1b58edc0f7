"""Values as text that no other value has. Pure: no cache, no settings, no database.

Every piece of the text is self-delimiting (it ends with a mark that cannot occur in
it, or says its length first), so pieces can stand side by side without a separator
that an argument could forge.
"""

from __future__ import annotations

import array
import binascii
import collections
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import pathlib
import re
import struct
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from django.core.files import File
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.query import RawQuerySet
from django.http import HttpRequest
from django.utils.functional import LazyObject, Promise
from django.utils.functional import cached_property as django_cached_property

__all__ = ["UnkeyableArgument", "digest", "encode", "label", "register_key"]

CURES = (
    "pass something plain in its place (an id, for instance), describe it with "
    "args_rewrite=, teach the type to the library with cache_memoize.register_key(type,"
    " function), or, if no result depends on it, leave it out of the key with ignore="
)


class UnkeyableArgument(TypeError):
    """An argument that cannot be told apart from another one.

    ``function``, ``parameter`` and ``type_name`` say whose it is; the value itself is
    never part of the message.
    """

    def __init__(
        self,
        type_name: str,
        reason: str,
        function: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(type_name, reason, function, parameter)
        self.type_name = type_name
        self.reason = reason
        self.function = function
        self.parameter = parameter

    def __str__(self) -> str:
        where = f"{self.function}(): " if self.function else ""
        what = f"the argument {self.parameter!r}" if self.parameter else "a value"
        return (
            f"{where}{what} of type {self.type_name} cannot be part of a cache key: "
            f"{self.reason}. Cure: {CURES}."
        )


def digest(head: str) -> Callable[[str], str]:
    """A function from text to 168 bits of SHA-256 (FIPS 180-4) in base64 (RFC 4648).

    ``head`` is what all of its texts have in common, hashed once. SHA-256 and not
    MD5, which hosts in FIPS mode refuse. Not hexadecimal: Django looks at every
    character of a key that local memory is asked for.
    """
    common = hashlib.sha256(_string(head).encode("utf-8", "surrogatepass"))

    def of(text: str) -> str:
        whole = common.copy()
        whole.update(text.encode("utf-8", "surrogatepass"))
        return binascii.b2a_base64(whole.digest()[:21], newline=False).decode()

    return of


def label(prefix: str) -> str:
    """The part of a key that a person recognises; legal on Memcached, 60 at most."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", prefix)[-60:]


def encode(value: Any) -> str:
    """``value`` as text; raises :exc:`UnkeyableArgument` where that is not safe."""
    write = _writers.get(type(value))
    return _encode_new(value) if write is None else write(value)


def _string(value: str) -> str:
    return f"s{len(value)}:{value}"


#: Types whose values ascii() tells apart, also from those of the others, and writes
#: alike in every process.
_LITERALS = frozenset({bool, bytes, float, int, str, type(None)})


def _sequence(value: Any) -> str:
    """A list or tuple. C writes one of plain values in a fifth of the time."""
    if _LITERALS.issuperset(map(type, value)):
        with suppress(ValueError):  # an integer of over 4,300 digits
            text = ascii(value)
            if len(text) <= 4_000:
                return f"l{len(text)}:{text}"
    return ("[" if type(value) is list else "(") + "".join(map(encode, value)) + ")"


def _unordered(values: Iterator[Any]) -> str:
    # The encoded members are sorted, not the members: those may not compare, and
    # their own order may depend on the hash seed.
    return "".join(sorted(map(encode, values))) + ")"


def _mapping(value: Any) -> str:
    parts = [encode(key) + encode(each) for key, each in value.items()]
    parts.sort()
    return "d" + "".join(parts) + ")"


#: The built-in types by their exact type; subclasses are types of their own.
_PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "N",
    bool: lambda value: "T" if value else "F",
    # Hexadecimal: Python refuses to write integers of 5,000 digits as decimals.
    int: lambda value: f"i{value:x};",
    # repr() is exact, tells 0.0 from -0.0 and writes every NaN alike.
    float: lambda value: f"f{value!r};",
    str: _string,
    bytes: lambda value: f"b{len(value)}:{value.decode('latin-1')}",
    tuple: _sequence,
    list: _sequence,
    set: lambda value: "{" + _unordered(value),
    frozenset: lambda value: "<" + _unordered(value),
    dict: _mapping,
}
#: These, and those that are known since a value of the class was seen.
_writers = dict(_PLAIN)


def _named(value: Any) -> str:
    """A class or function as ``module.qualname``, as pickle does it: only where that
    name leads back to it, in this process and so in every other."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    # A memoized function, or a class method, is known by the name of what it wraps.
    inner = (getattr(found, "func", None), getattr(found, "__func__", None))
    if found is not value and value not in inner:
        raise UnkeyableArgument(
            _class_name(type(value)),
            "a lambda, or what is made inside a function, has no name that is the same "
            "in every process and different from all others",
        )
    return f"{value.__module__}.{value.__qualname__}"


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _refuse(reason: str) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise UnkeyableArgument(_class_name(type(value)), reason)

    return refuse


def _builtin_function(value: Any) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return _named(value)
    return (owner, value.__name__)


def _model_writer(cls: type[Model]) -> Callable[[Any], str]:
    # The concrete model: a proxy or deferred instance is the same row. The database
    # alias does not count: a row read from a replica must be found by invalidate().
    concrete = cast("type[Model]", cls._meta.concrete_model)
    head = "m(" + encode(concrete._meta.label)

    def write(value: Model) -> str:
        pk = value.pk
        if pk is None or (isinstance(pk, tuple) and None in pk):
            raise UnkeyableArgument(
                _class_name(cls), "a model instance without a primary key is nobody"
            )
        return head + encode(pk) + ")"

    return write


def _zone(value: zoneinfo.ZoneInfo) -> Any:
    if value.key is None:
        return _refuse("a time zone read from a file has no name")(value)
    return value.key


def _moment(cls: Any) -> Callable[[Any], Any]:
    replace, text = cls.replace, cls.isoformat  # a subclass may have its own

    def moment(value: Any) -> Any:
        zone = value.tzinfo
        if zone is datetime.UTC:
            zone = 0  # shorter, and still no other one
        elif type(zone) is zoneinfo.ZoneInfo:
            zone = _zone(zone)
        return (text(replace(value, tzinfo=None)), value.fold, zone)

    return moment


def _tuple(value: Any) -> Any:
    if hasattr(type(value), "n_sequence_fields"):  # os.stat_result has more than items
        return value.__reduce__()[1]
    return tuple(tuple.__iter__(value))


#: What stands for the values of a class and of its subclasses. The class itself is
#: part of the text, so equal parts of different classes do not meet; the attributes
#: that a subclass adds are part of it as well.
_VALUES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__index__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    tuple: _tuple,
    list: lambda value: list(list.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    bytearray: bytes,
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    array.array: lambda value: (value.typecode, value.tobytes()),
    collections.OrderedDict: lambda value: list(collections.OrderedDict.items(value)),
    collections.defaultdict: lambda value: (
        value.default_factory,
        dict(dict.items(value)),
    ),
    collections.deque: lambda value: (
        value.maxlen,
        list(collections.deque.__iter__(value)),
    ),
    types.MappingProxyType: dict,
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    decimal.Decimal: decimal.Decimal.__str__,
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    uuid.UUID: lambda value: value.bytes,
    datetime.date: datetime.date.isoformat,
    datetime.datetime: _moment(datetime.datetime),
    datetime.time: _moment(datetime.time),
    datetime.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    datetime.timezone: lambda value: (value.utcoffset(None), value.tzname(None)),
    zoneinfo.ZoneInfo: _zone,
    pathlib.PurePath: pathlib.PurePath.__str__,
    # __reduce__ has what C keeps of an exception, such as the filename of an OSError.
    BaseException: lambda value: (value.args, *value.__reduce__()[1:]),
}
#: The same, where nothing else counts.
_NAMES: dict[type, Callable[[Any], Any]] = {
    types.FunctionType: _named,
    types.BuiltinFunctionType: _builtin_function,
    types.MethodType: lambda value: (value.__self__, value.__func__),
    types.ModuleType: lambda value: value.__name__,
    types.GenericAlias: lambda value: (value.__origin__, value.__args__),
    type: _named,
    type(Ellipsis): lambda value: None,
    re.Pattern: lambda value: (value.pattern, value.flags),
    QuerySet: _refuse("a QuerySet is a query, not a value; pass what it filters by"),
    RawQuerySet: _refuse("a raw query is not a value; pass what it selects by"),
    BaseManager: _refuse("a manager is a place for queries, not a value"),
    HttpRequest: _refuse(
        "a request names a URL but not the user, the language or the session; pass "
        "what the function reads from it"
    ),
    File: _refuse("a file is more than its name; pass its content, or a digest of it"),
}

_REGISTERED: dict[type, Callable[[Any], Any]] = {}


def register_key(type: type, function: Callable[[Any], Any]) -> None:
    """Say what stands in the key for values of ``type`` and its subclasses.

    ``function`` takes the value and returns anything that can be keyed. It comes before
    every rule. Call it where the type is defined, before a memoized function is called.
    """
    if not hasattr(type, "__mro__") or not callable(function):
        raise TypeError("register_key takes a class and a function of its values")
    if type in _PLAIN:
        raise TypeError(
            f"register_key: how {type.__name__} counts is fixed; register a subclass "
            "of your own, or use args_rewrite="
        )
    global _writers
    _REGISTERED[type] = function
    _writers = dict(_PLAIN)


def _encode_new(value: Any) -> str:
    """A value of a class that was not seen before; the next is written without search.

    The name of a class is looked at once: whether it leads to that class.
    """
    cls, writers = type(value), _writers
    write = _writer(cls)
    text = write(value)
    if not issubclass(cls, Promise):  # Django makes a class for each of some
        writers[cls] = write
    return text


def _writer(cls: type) -> Callable[[Any], str]:
    """How values of a class are written; raises for a class that cannot be."""
    for base in cls.__mro__:
        if base in _REGISTERED:
            return _tagging(cls, _REGISTERED[base])
    if issubclass(cls, LazyObject):
        return _lazy
    if issubclass(cls, Model):
        return _model_writer(cls)
    if issubclass(cls, Promise):  # of a class that Django makes inside a function
        if not hasattr(cls, "casefold"):
            return _refuse("it is lazy and no text; pass what it comes to")
        return lambda value: "z" + encode(str(value))
    if issubclass(cls, enum.Enum):
        return _tagging(cls, _member)
    for base in cls.__mro__:
        if base in _NAMES:
            return _tagging(cls, _NAMES[base])
        if base in _VALUES:
            if cls is base:
                return _tagging(cls, _VALUES[base])
            return _tagging(cls, _and(_VALUES[base], _attributes_of(cls, base)))
    return _tagging(cls, _describing(cls))


def _tagging(cls: type, rule: Callable[[Any], Any]) -> Callable[[Any], str]:
    """A writer of what ``rule`` makes of a value, with the name of its class."""
    head: str | None = None

    def write(value: Any) -> str:
        nonlocal head
        parts = rule(value)  # first: it says best why a value is refused
        if head is None:
            own = cls in _VALUES or cls in _NAMES
            head = "o" + _string(_class_name(cls) if own else _named(cls))
        return head + encode(parts)

    return write


def _and(rule: Callable[[Any], Any], more: Callable[[Any], Any]) -> Any:
    return lambda value: (rule(value), more(value))


def _lazy(value: Any) -> str:
    # request.user is the user: f(request.user) and f(user) are one call.
    value.__class__  # noqa: B018 - the attribute access makes it load
    return encode(value._wrapped)


def _member(value: enum.Enum) -> Any:
    return value.name if value.name is not None else value.value


_CACHED_PROPERTIES = (functools.cached_property, django_cached_property)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4}")


def _describing(cls: type) -> Callable[[Any], Any]:
    """An object of a class nobody told us about: its attributes, or its own text.

    Its text only where it has no attributes: a text is made for people and may leave
    out what counts, as that of a file leaves out the content.
    """
    if cls is object:
        return _refuse("a bare object() is nothing but its address")
    if hasattr(cls, "__array__"):
        return _refuse("an array or table may keep its data where none looks")
    # As the standard library's copyreg does it: more bytes than the attributes need
    # are state in C that no attribute shows (a file, a lock, a generator).
    words = len(_slots(cls, object))
    words += (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    known = object.__basicsize__ + words * struct.calcsize("P")
    if cls.__basicsize__ > known or cls.__itemsize__:
        return _refuse("it holds state that no attribute shows")
    attributes = _attributes_of(cls, object)
    return lambda value: attributes(value) or _own_texts(value)


def _own_texts(value: Any) -> list[str]:
    texts = []
    for name, write in (("__repr__", repr), ("__str__", str)):
        if isinstance(_defined(type(value), name), types.FunctionType):
            text = write(value)
            if _ADDRESS.search(text):
                _refuse("its text holds a memory address")(value)
            texts.append(text)
    return texts


def _defined(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _slots(cls: type, base: type) -> dict[str, Any]:
    """The slots that the classes between ``cls`` and ``base`` declare."""
    own = cls.__mro__[: cls.__mro__.index(base)]
    return {
        name: member
        for each in own
        if "__slots__" in vars(each)
        for name, member in vars(each).items()
        if isinstance(member, types.MemberDescriptorType)
    }


def _attributes_of(cls: type, base: type) -> Callable[[Any], dict[str, Any]]:
    """What a value of ``cls`` holds beyond what the class ``base`` holds.

    Values that a cached property left behind do not count: the same object must have
    the same key before and after the property was read.
    """
    slots, has_dict = list(_slots(cls, base)), cls.__dictoffset__ != 0
    left_behind = {
        name
        for each in cls.__mro__
        for name in vars(each)
        if isinstance(_defined(cls, name), _CACHED_PROPERTIES)
    }

    if has_dict and not slots and not left_behind:
        return vars

    def attributes(value: Any) -> dict[str, Any]:
        found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        if has_dict:
            found |= vars(value)
        for name in left_behind & found.keys() if left_behind else ():
            del found[name]
        return found

    return attributes
