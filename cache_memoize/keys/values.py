"""Rules for the parts that stand for a value in the text of a key, by class. Pure.

Any object may be an argument, and two objects that differ must never get the same text;
where that cannot be guaranteed, the argument is refused. Pickle would be the obvious
way, but equal values pickle differently (sets, strings that are the same object), and
pickling runs code of the class. ``repr()`` is made for people and leaves things out. So
each class has a rule from a value to plain parts: listed here for the standard library
and Django, registered by the user, or found by looking at the attributes. Attributes
are trusted only if the class holds no state in C that no attribute shows.
"""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import gc
import logging
import pathlib
import re
import struct
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from django.contrib.sessions.backends.base import SessionBase
from django.core.files import File
from django.db.models import QuerySet
from django.db.models.manager import BaseManager
from django.db.models.query import RawQuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property as django_cached_property
from django.views import View

from .instructions import assigned_by, is_returned, set_by
from .refusals import UnkeyableArgument, class_name, refusal
from .replaced import is_mock, mock_token, replaces

__all__ = [
    "class_name",
    "is_listed",
    "name_of",
    "refusal",
    "rule_of",
]

#: From a value to parts that can be encoded in its place.
Rule = Callable[[Any], Any]


def _qualified_name(value: Any) -> str:
    """Return ``module.qualname`` of a class or function, as pickle does: only if that
    name leads back to it, in this process and so in every other."""
    named: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        named = getattr(named, name, None)
    # A memoized function or a class method has the name of the function it wraps.
    wrapped = (getattr(named, "func", None), getattr(named, "__func__", None))
    if named is not value and value not in wrapped and not replaces(named, value):
        reason = "a lambda, or a function or class that is made inside a function,"
        if "<" not in value.__qualname__:
            reason = (
                "its module does not have it yet, or has another object of its name (is"
                " it being decorated? a callable timeout is written @cache_memoize("
                "timeout=...)); so it"
            )
        raise UnkeyableArgument(class_name(type(value)), f"{reason} {_WITHOUT_NAME}")
    return f"{value.__module__}.{value.__qualname__}"


_WITHOUT_NAME = (
    "has no name that is the same in every process and different from all others"
)


def _function_name(value: Any) -> Any:
    double = getattr(value, "mock", None)  # of mock.create_autospec(f)
    return mock_token(double) if is_mock(type(double)) else _qualified_name(value)


def _builtin_function(value: Any) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return _qualified_name(value)
    return (owner, value.__name__)


def _zone_name(value: zoneinfo.ZoneInfo) -> Any:
    if value.key is None:
        return refusal("a time zone read from a file has no name")(value)
    return value.key


def _moment_rule(cls: Any) -> Rule:
    replace, text = cls.replace, cls.isoformat  # a subclass may override them

    def moment(value: Any) -> Any:
        zone = value.tzinfo
        if zone is datetime.UTC:
            zone = 0  # shorter, and no other zone is an integer
        elif type(zone) is zoneinfo.ZoneInfo:
            zone = _zone_name(zone)
        return (text(replace(value, tzinfo=None)), value.fold, zone)

    return moment


def _tuple_items(value: Any) -> Any:
    if hasattr(type(value), "n_sequence_fields"):  # os.stat_result has more than items
        return value.__reduce__()[1]
    return tuple(tuple.__iter__(value))


def _exception_parts(value: BaseException) -> Any:
    # __reduce__ has what C keeps of an exception, as the filename of an OSError. It
    # has an empty dict of attributes only after the attributes were read once.
    base: Any = next(c for c in type(value).__mro__ if c.__module__ == "builtins")
    _, args, *attributes = base.__reduce__(value)
    own = cast("Any", BaseException.args).__get__(value)
    if isinstance(value, (AttributeError, NameError)):  # __reduce__ leaves it out
        attributes.append(cast("Any", base).name.__get__(value))
    return (own, args, *filter(None, attributes))


def _numpy_scalar(value: Any) -> Any:
    if value.dtype.kind not in "biufcmM" or value.dtype.char in "gG":
        return refusal("it has padding, or more parts than one")(value)
    return (value.dtype.str, value.tobytes())  # with the unit of a datetime64


#: Where dateutil.tz.gettz() finds the files of zones.
_ZONES = re.compile(r"/(?:usr/share|usr/lib|usr/share/lib|etc)/zoneinfo/")


def _dateutil_zone(value: Any, /) -> Any:
    """Return the name of a zone; else, of one from another file, its rules."""
    attributes = object.__getattribute__(value, "__dict__")
    path = attributes.get("_filename")
    found = _ZONES.match(path) if isinstance(path, str) else None
    return attributes if found is None else path[found.end() :]


#: Rules for the values of a class and of its subclasses. The name of the class and the
#: attributes that a subclass adds are part of the text too, so equal parts of different
#: classes differ.
_VALUES: dict[type, Rule] = {
    str: str.__str__,
    int: int.__index__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    tuple: _tuple_items,
    list: lambda value: list(list.__iter__(value)),
    # Copies of these hash no member, which may run code of its class.
    set: set,
    frozenset: frozenset,
    dict: dict.copy,
    bytearray: bytes,
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    array.array: lambda value: (value.typecode, value.tobytes()),
    collections.OrderedDict: lambda value: list(collections.OrderedDict.items(value)),
    collections.defaultdict: lambda value: (value.default_factory, dict.copy(value)),
    collections.deque: lambda value: (
        value.maxlen,
        list(collections.deque.__iter__(value)),
    ),
    # The mapping, which may be ordered.
    types.MappingProxyType: lambda value: tuple(gc.get_referents(value)),
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    decimal.Decimal: decimal.Decimal.__str__,
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    uuid.UUID: lambda value: value.bytes,
    datetime.date: datetime.date.isoformat,
    datetime.datetime: _moment_rule(datetime.datetime),
    datetime.time: _moment_rule(datetime.time),
    datetime.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    datetime.timezone: lambda value: (value.utcoffset(None), value.tzname(None)),
    zoneinfo.ZoneInfo: _zone_name,
    pathlib.PurePath: pathlib.PurePath.__str__,
    BaseException: _exception_parts,
}
#: Rules for a class and its subclasses, whose attributes are not part of the text.
_NAMES: dict[type, Rule] = {
    types.FunctionType: _function_name,
    types.BuiltinFunctionType: _builtin_function,
    types.MethodType: lambda value: (value.__self__, value.__func__),
    types.ModuleType: lambda value: value.__name__,
    logging.Logger: lambda value: value.name,
    types.GenericAlias: lambda value: (value.__origin__, value.__args__),
    type: _qualified_name,
    type(Ellipsis): lambda value: None,
    re.Pattern: lambda value: (value.pattern, value.flags),
    QuerySet: refusal("a QuerySet is a query, not a value; pass what it filters by"),
    RawQuerySet: refusal("a raw query is not a value; pass what it selects by"),
    BaseManager: refusal("a manager makes queries and is not a value"),
    HttpRequest: refusal(
        "a request names a URL but not the user, the language or the session; pass "
        "what the function reads from it; instead of a view, memoize what it calls"
    ),
    View: refusal(
        "a view holds its request; memoize a function that the view calls, with what "
        "it reads from the request as arguments"
    ),
    SessionBase: refusal(
        "a session names its row but not its content; pass what the function reads "
        "from it"
    ),
    File: refusal("a file is more than its name; pass its content, or a digest of it"),
}


def _both_rules(rule: Rule, more: Rule) -> Rule:
    return lambda value: (rule(value), more(value))


def rule_of(cls: type) -> Rule:
    """Return the rule for values of ``cls``, for registered classes aside."""
    if issubclass(cls, enum.Enum):
        return _member_name
    if is_mock(cls):
        return mock_token
    for base in cls.__mro__:
        if base in _NAMES:
            return _NAMES[base]
        if base in _VALUES:
            rule = _VALUES[base]
            if cls is base:
                return rule
            if base is not BaseException and _has_hidden_state(cls, base):
                return refusal(_HIDDEN)
            return _both_rules(rule, _attributes_of(cls, base))
    return _fallback_rule(cls)


def is_listed(cls: type) -> bool:
    """Return whether the table of the library has a rule for exactly this class."""
    return cls in _VALUES or cls in _NAMES


def name_of(cls: type) -> str:
    """Return the name of ``cls``. Raise UnkeyableArgument if it is not unique."""
    if is_listed(cls) or is_mock(cls):
        return class_name(cls)
    try:
        return str(_qualified_name(cls))
    except UnkeyableArgument:
        reason = "its class was made inside a function, or is hidden by another object"
        raise UnkeyableArgument(
            class_name(cls), f"{reason} of its name, so it {_WITHOUT_NAME}"
        ) from None


def _member_name(value: enum.Enum) -> Any:
    # A member may have properties of its own named "name" and "value"; and one that
    # _missing_() makes may have any name.
    name = value._name_
    is_listed = type(value)._member_map_.get(name) is value
    return name if is_listed else (name, value._value_)


_CACHED_PROPERTIES = (functools.cached_property, django_cached_property)
#: A cached property of aiohttp's libraries, which keeps its value in ``_cache``.
_UNDER_CACHED = "under_cached_property"
#: Attributes that other libraries add: no part of a value, and filled by its use.
_ADDED = frozenset({"_attrs_cached_hash", "__pydantic_fields_set__"})
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4}")


def _fallback_rule(cls: type) -> Rule:
    """Return a rule for a class without one: its attributes, or else its own text.

    A text is made for people and may leave out what matters, as that of a file leaves
    out the content; so it is used only for values without attributes.
    """
    if cls is object:
        return refusal("a bare object() has nothing but its address")
    if cls.__module__ == "numpy" and "numpy.generic" in map(class_name, cls.__mro__):
        return _numpy_scalar
    if class_name(cls) == "dateutil.tz.tz.tzfile":
        return _dateutil_zone
    if hasattr(cls, "__array__"):
        return refusal("an array or table may keep data that no attribute shows")
    if cls.__itemsize__ or _has_hidden_state(cls, object):
        return refusal(_HIDDEN)
    attributes = _attributes_of(cls, object)

    def parts(value: Any) -> Any:
        if found := attributes(value):
            return found
        texts = _own_texts(value)
        return _SETS(value) if attributes(value) else texts

    return parts


_HIDDEN = "it holds state that no attribute shows"
_SETS = refusal("its own text sets attributes")


def _has_hidden_state(cls: type, base: type) -> bool:
    """Return whether ``cls`` adds state in C to its ancestor ``base``: a file, a lock,
    the nanoseconds of a timestamp.

    As the standard library's copyreg does: more bytes than the attributes need.
    """
    words = len(_declared_slots(cls, base))
    if cls.__dictoffset__ != base.__dictoffset__:
        words += cls.__dictoffset__ > 0 or cls.__itemsize__ > 0
    if cls.__weakrefoffset__ != base.__weakrefoffset__:
        words += cls.__weakrefoffset__ > 0
    return cls.__basicsize__ > base.__basicsize__ + words * struct.calcsize("P")


#: The ids of the objects whose texts a thread is asking for.
_writing = threading.local()


def _own_texts(value: Any) -> list[str]:
    ids, texts = vars(_writing).setdefault("ids", set()), []
    if id(value) in ids:
        refusal("its own text is made by a memoized method")(value)
    ids.add(id(value))
    try:
        for name, write in (("__repr__", repr), ("__str__", str)):
            if isinstance(_class_attribute(type(value), name), types.FunctionType):
                text = write(value)
                if _ADDRESS.search(text):
                    refusal("its text holds a memory address")(value)
                texts.append(text)
        return texts
    finally:
        ids.discard(id(value))


def _class_attribute(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _declared_slots(cls: type, base: type) -> list[tuple[str, Any]]:
    """Return name and descriptor of all slots that the classes between ``cls`` and
    ``base`` declare."""
    own = cls.__mro__[: cls.__mro__.index(base)]
    return [
        (name, member)
        for each in own
        if "__slots__" in vars(each)
        for name, member in vars(each).items()
        if isinstance(member, types.MemberDescriptorType)
    ]


def _dict_reader(cls: type) -> Callable[[Any], dict[str, Any]] | None:
    """Return a function that returns the attributes of a value, also where a property
    hides its ``__dict__``; None if values of ``cls`` have no dict."""
    kinds = (types.GetSetDescriptorType, types.MemberDescriptorType)
    for base in cls.__mro__:
        found = vars(base).get("__dict__")
        if isinstance(found, kinds):
            return found.__get__
    return refusal(_HIDDEN) if cls.__dictoffset__ else None


def _is_cached(attribute: Any) -> bool:
    """Return whether a class attribute is a cached property, of any library."""
    kind = type(attribute)
    if isinstance(attribute, _CACHED_PROPERTIES):
        return True
    name = kind.__name__.lower().replace("_", "")
    return hasattr(kind, "__get__") and ("cachedproperty" in name or name == "reify")


def _kept_by_hash(cls: type) -> dict[str, bool]:
    """Return the attributes that the code of ``__hash__`` sets, each with whether it
    makes a hash and returns that attribute; others may be loaded by it."""
    code = getattr(_class_attribute(cls, "__hash__"), "__code__", None)
    if not isinstance(code, types.CodeType):
        return {}
    makes = not {"hash", "id", "__hash__"}.isdisjoint(code.co_names)
    return {n: makes and is_returned(n, code) for n in set_by(code)}


def _is_added(member: Any) -> bool:
    """Return whether attrs has added a slot that is no field: for the value of a cached
    property, or for the hash."""
    added = vars(member.__objclass__)
    if "__getattr__" not in added:  # attrs adds it with cached properties
        return False
    fields = added.get("__attrs_attrs__")
    names = [getattr(field, "name", "") for field in fields or ()]
    return fields is not None and member.__name__ not in names


def _attributes_of(cls: type, base: type) -> Callable[[Any], dict[str, Any]]:
    """Return a rule for the attributes that ``cls`` adds to its ancestor ``base``.

    Values of cached properties, and the hash that ``__hash__`` keeps, are left out: the
    same object must have the same key before and after its use. Slots are read by their
    descriptors, which run no code of the class.
    """
    slots: dict[str, Any] = {}
    for name, member in _declared_slots(cls, base):
        if name in slots:  # a subclass has hidden it
            name = f"{member.__objclass__.__qualname__}.{name}"
        if not _is_added(member):
            slots[name] = member
    dict_of = _dict_reader(cls)
    kept = _kept_by_hash(cls)
    cached = {
        name
        for each in cls.__mro__
        for name in vars(each)
        if _is_cached(_class_attribute(cls, name))
    }
    assigned = cached and assigned_by(cls, cached)
    left_out = {*kept, *cached}
    if any(type(_class_attribute(cls, n)).__name__ == _UNDER_CACHED for n in left_out):
        left_out.add("_cache")
    if slots or hasattr(cls, "__attrs_attrs__"):
        left_out |= _ADDED
    elif not left_out and dict_of is not None:
        return dict_of

    def attributes(value: Any) -> dict[str, Any]:
        found = {}
        for name, member in slots.items():
            with suppress(AttributeError):
                found[name] = member.__get__(value)
        if dict_of is not None:
            found |= dict_of(value)
        used = left_out & found.keys()
        for name in used:
            part = found.pop(name)
            is_hash = part is None or (kept.get(name) and type(part) is int)
            if name in kept and name not in _ADDED and not is_hash:
                refusal(f"its __hash__ sets {name}, which may be no hash")(value)
            if name in cached and not assigned.isdisjoint((name, "*")):
                refusal(f"its class may set {name}, which is a cached property")(value)
        if used - _ADDED and not found and base is object:
            refusal(
                "it has only values that its use has filled in, as those of cached "
                "properties"
            )(value)
        return found

    return attributes
