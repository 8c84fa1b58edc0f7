"""Objects with attributes that lie, that are filled by use, or that nothing shows."""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import types

import attrs
import pydantic
import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as Cookies
from django.db import models
from django.utils.functional import SimpleLazyObject
from django.utils.functional import cached_property as django_cached_property
from django.utils.translation import ngettext_lazy, npgettext_lazy

from cache_memoize import UnkeyableArgument
from cache_memoize.keys import values
from cache_memoize.keys.encoding import encode


class Named(enum.Enum):
    ONE = 1
    TWO = 2

    @property
    def name(self):
        return "always"

    @property
    def value(self):
        return "always"


class NamedFlag(enum.Flag):
    ONE = 1
    TWO = 2
    name = value = property(lambda self: None)


class Base:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class HiddenSlot(Base):
    __slots__ = ()

    @property
    def x(self):
        return 1

    def __init__(self, x):
        Base.x.__set__(self, x)


class SlotTwice(Base):
    __slots__ = ("x",)

    def __init__(self, x):
        Base.x.__set__(self, x)
        self.x = 1


class OtherSlot(SlotTwice):
    def __init__(self, x):
        super().__init__(1)
        self.x = x


class Parent:
    pass


class HiddenDict(Parent):
    @property
    def __dict__(self):
        return {}

    def __init__(self, x):
        self.x = x


class Running(Base):
    """Would compute an attribute on the way."""

    __slots__ = ("y",)

    def __getattr__(self, name):
        raise AssertionError("code of the argument has run")


@attrs.frozen(cache_hash=True)
class Frozen:
    x: int


@attrs.define(slots=False, unsafe_hash=True, cache_hash=True)
class Hashed:
    x: int


@attrs.define
class Computing:
    x: int

    @functools.cached_property
    def area(self):
        return self.x**2


class Form(pydantic.BaseModel):
    x: int = 1
    y: int = 2


class cached_property:
    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner=None):
        found = vars(instance)[self.function.__name__] = self.function(instance)
        return found


class Theirs:
    def __init__(self, x):
        self.x = x

    @cached_property
    def area(self):
        return self.x**2


class KeptHash:
    """Keeps its hash, which differs from process to process."""

    def __init__(self, x):
        self.x = x
        self.__kept = None

    def __hash__(self):
        if self.__kept is None:
            self.__kept = hash(str(self.x))
        return self.__kept


class KeptFrozen(KeptHash):
    __slots__ = ("_hash",)

    def __hash__(self):
        found = hash(str(self.x))
        object.__setattr__(self, "_hash", found)
        return found


class FromAttribute:
    def __init__(self, x):
        self.file_hash = x

    def __hash__(self):
        return hash(getattr(self, "file_hash"))  # noqa: B009


class Unlisted(enum.Enum):
    """Its other members all have one name."""

    ONE = 1

    @classmethod
    def _missing_(cls, value):
        member = object.__new__(cls)
        member._name_, member._value_ = "OTHER", value
        return member


ORDERED = collections.OrderedDict([(1, 2), (3, 4)])

PAIRS = {
    "members that are made as needed": (Unlisted(2), Unlisted(3)),
    "a proxy of an ordered dict": (
        types.MappingProxyType(ORDERED),
        types.MappingProxyType(collections.OrderedDict(reversed(ORDERED.items()))),
    ),
    "the name in a NameError": (NameError("a", name="x"), NameError("a", name="y")),
    "the name in an AttributeError": (
        AttributeError("a", name="x"),
        AttributeError("a", name="y"),
    ),
    "an object that keeps its hash": (KeptHash(1), KeptHash(2)),
    "a hash of an attribute named so": (FromAttribute(1), FromAttribute(2)),
    "an enum with a name of its own": (Named.ONE, Named.TWO),
    "a flag with a name of its own": (NamedFlag.ONE, NamedFlag.TWO),
    "flags together": (NamedFlag(0), NamedFlag.ONE | NamedFlag.TWO),
    "a slot below a property": (HiddenSlot(1), HiddenSlot(2)),
    "a slot below a slot": (SlotTwice(1), SlotTwice(2)),
    "a slot above a slot": (OtherSlot(1), OtherSlot(2)),
    "a hidden dict": (HiddenDict(1), HiddenDict(2)),
    "an attribute that is not set": (Running(1), Running(2)),
    "attrs": (Frozen(1), Frozen(2)),
    "attrs with a dict": (Hashed(1), Hashed(2)),
    "pydantic": (Form(x=1), Form(x=2)),
    "a cached property of another library": (Theirs(1), Theirs(2)),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_two_values_are_two_keys(one, other):
    assert encode(one) != encode(other)


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: Frozen(1), hash),
        (lambda: Hashed(1), hash),
        (lambda: KeptHash(1), hash),
        (lambda: KeptFrozen(1), hash),
        (lambda: Computing(2), lambda value: value.area),
        (lambda: Theirs(2), lambda value: value.area),
    ],
)
def test_a_key_is_the_same_before_and_after_use(make, use):
    value = make()
    before = encode(value)
    assert use(value)
    assert encode(value) == before == encode(make())


def test_computing_a_key_computes_no_cached_property(monkeypatch):
    ran = []
    monkeypatch.setattr(Computing, "__getattr__", lambda *a: ran.append(a))
    encode(Computing(2))
    assert not ran


def test_equal_models_of_pydantic_are_one_key():
    assert encode(Form()) == encode(Form(x=1)) == encode(Form(x=1, y=2))


class Lazy:
    user = functools.cached_property(lambda self: "ada")
    other = django_cached_property(lambda self: "bob")


class WithoutDict:
    @property
    def __dict__(self):
        return {}


class Slug(models.Model):
    slug = models.SlugField(primary_key=True)

    class Meta:
        app_label = "tests_values"
        managed = False


def filled(**attributes):
    lazy = Lazy()
    vars(lazy).update(attributes)
    return lazy


REFUSED = {
    "filled": (lambda: filled(user="ada"), "values of cached properties"),
    "filled twice": (lambda: filled(user=1, other=2), "values of cached properties"),
    "no dict": (WithoutDict, "state that no attribute shows"),
    "no key": (lambda: Slug(), "no identity"),
    "lazy row": (lambda: SimpleLazyObject(Slug), "no identity"),
    "plural": (lambda: ngettext_lazy("%(n)d a", "%(n)d b", "n"), "depends on a number"),
    "named": (lambda: npgettext_lazy("c", "%d a", "%d b", "n"), "depends on a number"),
    "session": (lambda: SessionStore("key"), "not its content"),
    "cookies": (lambda: Cookies("key"), "not its content"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_apart_is_refused(name):
    make, reason = REFUSED[name]
    with pytest.raises(UnkeyableArgument, match=reason):
        encode(make())


def test_a_saved_row_may_have_an_empty_key():
    assert encode(Slug.from_db("default", ["slug"], [""])) != encode(Slug(slug="a"))


def test_a_plural_with_its_number_is_its_text():
    one, two = (ngettext_lazy("%d day", "%d days", n) % n for n in (1, 2))
    assert encode(str(one)) != encode(str(two))


def subclasses():
    for base in (*values._VALUES, collections.Counter):
        try:
            yield type("Sub", (base,), {"__module__": __name__})
            yield type("Sub", (base,), {"__slots__": ("a",), "__module__": __name__})
        except TypeError:  # some are final, some have no slots
            continue


@pytest.mark.parametrize(
    "cls", list(subclasses()), ids=lambda cls: cls.__mro__[1].__name__
)
def test_subclasses_in_python_hide_nothing(cls):
    base = next(each for each in cls.__mro__[1:] if each in values._VALUES)
    assert not values._has_hidden_state(cls, base)


def test_subclasses_in_c_hide_state():
    """As pandas.Timestamp hides its nanoseconds."""
    assert values._has_hidden_state(datetime.datetime, datetime.date)
    assert values._has_hidden_state(collections.OrderedDict, dict)
    table = dict(values._VALUES)
    try:
        del values._VALUES[datetime.datetime]
        with pytest.raises(UnkeyableArgument, match="state that no attribute shows"):
            values.rule_of(datetime.datetime)(datetime.datetime(2026, 1, 1))
    finally:
        values._VALUES.clear()
        values._VALUES.update(table)
