"""Objects with attributes that lie, that are filled by use, or that nothing shows."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import logging
import sys
import types

import attr
import attrs
import pydantic
import pytest
from dateutil import tz
from dateutil.zoneinfo import get_zonefile_instance
from django.contrib.sessions.backends.cache import SessionStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as Cookies
from django.db import models
from django.utils.functional import SimpleLazyObject
from django.utils.functional import cached_property as django_cached_property
from django.utils.translation import ngettext_lazy, npgettext_lazy

from cache_memoize import UnkeyableArgument, cache_memoize
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


class KeepsHash:
    def __init__(self, x):
        self.x = x
        self._hash = None

    def __hash__(self):
        if self._hash is None:
            self._hash = hash(self.x)
        return self._hash


class KeepsPrivateHash:
    def __init__(self, x):
        self.x = x

    def __hash__(self):
        try:
            return self.__kept
        except AttributeError:
            self.__kept = hash(("x", self.x))
            return self.__kept


class KeepsHashInVariable:
    def __init__(self, x):
        self.x = x

    def __hash__(self):
        found = hash(self.x)
        self._hash = found
        return found


class KeepsHashBySetattr(KeepsHashInVariable):
    def __hash__(self):
        setattr(self, "_hash", hash(self.x))
        return self._hash


class KeepsHashInSlot(dict):
    """As frozendict."""

    __slots__ = ("_hash",)

    def __hash__(self):
        object.__setattr__(self, "_hash", hash(frozenset(self.items())))
        return self._hash


class KeepsHashInDict(tuple):
    def __hash__(self):
        return self.__dict__.setdefault("hash", super().__hash__())


class Subclass(KeepsHash):
    pass


class HashGiven:
    """Nothing but its hash tells it from others, and __hash__ only reads it."""

    def __init__(self, x):
        self._hash = x

    def __hash__(self):
        return self._hash


class HashOfAll:
    """Names its attributes in __hash__."""

    def __init__(self, x):
        self.x = x
        self.hashes = {"x": x}

    def __hash__(self):
        object.__setattr__(self, "_h_hash", hash(("x", self.x)))
        return self._h_hash


class under_cached_property:
    """As that of propcache."""

    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        return instance._cache.setdefault("area", self.function(instance))


class Under:
    __slots__ = ("_cache", "x")

    def __init__(self, x):
        self.x = x
        self._cache = {}

    @under_cached_property
    def area(self):
        return self.x**2


class Reducing(Exception):
    args = property(lambda self: 1 / 0)

    def __reduce__(self):
        raise AssertionError("code of the argument has run")


ORDERED = collections.OrderedDict([(1, 2), (3, 4)])

PAIRS = {
    "loggers": (logging.getLogger("a"), logging.getLogger("b")),
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
    "kept hash": (KeepsHash(1), KeepsHash(2)),
    "given hash": (HashGiven(1), HashGiven(2)),
    "hash of all": (HashOfAll(1), HashOfAll(2)),
    "under": (Under(1), Under(2)),
    "an exception that reduces itself": (Reducing(1), Reducing(2)),
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
        (lambda: Under(2), lambda value: value.area),
        (lambda: KeepsHash("a"), hash),
        (lambda: Subclass("a"), hash),
        (lambda: KeepsPrivateHash("a"), hash),
        (lambda: KeepsHashInVariable("a"), hash),
        (lambda: KeepsHashBySetattr("a"), hash),
        (lambda: KeepsHashInSlot(a="b"), hash),
        (lambda: KeepsHashInDict("ab"), hash),
        (lambda: HashGiven(5), hash),
        (lambda: HashOfAll("a"), hash),
    ],
)
def test_a_key_is_the_same_before_and_after_use(make, use):
    value = make()
    before = encode(value)
    assert use(value)
    assert encode(value) == before == encode(make())


class HashOnly:
    __slots__ = ("_hash",)

    def __hash__(self):
        self._hash = id(self)
        return self._hash


def test_an_object_with_nothing_but_its_kept_hash_is_refused():
    value = HashOnly()
    hash(value)
    with pytest.raises(UnkeyableArgument, match="its use has filled in"):
        encode(value)


class LoadedByHash:
    """Its __hash__ loads a part of the value."""

    def __init__(self, name, x=None):
        self.name, self.x = name, x

    def __hash__(self):
        if self.x is None:
            self.x = "loaded"
        return hash((self.name, self.x))


class LoadedWithHash(LoadedByHash):
    """It keeps a hash too."""

    def __hash__(self):
        self.x = self.x or "loaded"
        object.__setattr__(self, "_hash", hash((self.name, self.x)))
        return self._hash


class LoadedInDict(LoadedByHash):
    def __hash__(self):
        vars(self)["x"] = self.x or "loaded"
        return hash((self.name, self.x))


@pytest.mark.parametrize("x", [1, "a", (1,), 10**12])
@pytest.mark.parametrize("cls", [LoadedByHash, LoadedWithHash, LoadedInDict])
def test_what_hash_sets_besides_a_hash_is_refused(cls, x):
    with pytest.raises(UnkeyableArgument, match="its __hash__ sets x"):
        encode(cls("a", x))


class LoadedAndReturned(LoadedByHash):
    def __hash__(self):
        if self.x is None:
            self.x = int(self.name)
        return self.x


class LoadedHash:
    """It is called a hash, but is no hash of the other attributes."""

    def __init__(self, name, content_hash=None):
        self.name, self.content_hash = name, content_hash

    def __hash__(self):
        if self.content_hash is None:
            self.content_hash = int(self.name)
        return hash((self.name, self.content_hash))


class LoadedText(LoadedHash):
    def __hash__(self):
        if self.content_hash is None:
            object.__setattr__(self, "content_hash", hash(self.name))
        return self.content_hash


@pytest.mark.parametrize(
    "value",
    [
        LoadedAndReturned("1", 10**12),
        LoadedHash("1", 10**12),
        LoadedText("1", "5d41402abc4b2a76"),
    ],
)
def test_what_hash_may_load_is_refused(value):
    with pytest.raises(UnkeyableArgument, match="its __hash__ sets"):
        encode(value)


class HashesSeveralTimes:
    """As sympy and boltons do it: by way of variables."""

    def __init__(self, x):
        self.x, self._mhash = x, None

    def __hash__(self):
        h = self._mhash
        if h is None:
            h = hash((type(self).__name__, *self.content()))
            self._mhash = h
        return h

    def content(self):
        return (self.x,)


class HashesInOneLine(HashesSeveralTimes):
    def __hash__(self):
        self._mhash = found = 0
        for each in self.content():
            found ^= hash(each)
        self._mhash = found = hash(found)
        return found


@pytest.mark.parametrize("cls", [HashesSeveralTimes, HashesInOneLine])
def test_a_hash_that_is_kept_by_way_of_a_variable_is_left_out(cls):
    value = cls("a")
    before = encode(value)
    assert hash(value) == value._mhash
    assert encode(value) == before != encode(cls("b"))


class Counting:
    """Its hash is asked for, and counts that."""

    def __init__(self):
        self.asked = 0

    def __hash__(self):
        Counting.ran += 1
        return 1


Counting.ran = 0


class Members(dict):
    pass


class Group(set):
    pass


class Fixed(frozenset):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda one: {one: 1},
        lambda one: {one},
        lambda one: frozenset([one]),
        lambda one: Members({one: 1}),
        lambda one: Group([one]),
        lambda one: Fixed([one]),
        lambda one: collections.defaultdict(int, {one: 1}),
        lambda one: collections.Counter([one]),
    ],
)
def test_computing_a_key_hashes_no_member(make):
    one = Counting()
    value = make(one)
    before = Counting.ran
    assert encode(value) == encode(value)
    assert Counting.ran == before


class WritesItsText:
    """Has no attributes until its text is asked for."""

    def __repr__(self):
        self.text = "text"
        return self.text


def test_a_text_that_sets_attributes_is_refused():
    with pytest.raises(UnkeyableArgument, match="its own text sets attributes"):
        encode(WritesItsText())


class Total:
    """Computes its total, or is given it."""

    def __init__(self, total=None):
        self.name = "a"
        if total is not None:
            self.total = total

    @functools.cached_property
    def total(self):
        return 1


class TotalByText(Total):
    def __init__(self, total):
        vars(self)["total"] = total


class TotalByAny(Total):
    def __init__(self, **given):
        vars(self).update(given)


@dataclasses.dataclass
class TotalAfterInit:
    given: dataclasses.InitVar[dict]
    total = Total.__dict__["total"]

    def __post_init__(self, given):
        vars(self).update(given)


class TotalByNew:
    total = Total.__dict__["total"]

    def __new__(cls, **given):
        self = object.__new__(cls)
        vars(self).update(given)
        return self

    def __init__(self, **given):
        pass


class TotalFromRow(Total):
    @classmethod
    def of(cls, total):
        self = object.__new__(cls)
        self.name, self.total = "a", total
        return self


@dataclasses.dataclass(frozen=True)
class TotalField:
    total: int

    @functools.cached_property
    def cached(self):
        return 1


@dataclasses.dataclass(frozen=True)
class TotalOfParent(TotalField):
    more: int = 0
    total = Total.__dict__["total"]


@pytest.mark.parametrize(
    "value",
    [
        Total(5),
        TotalByText(5),
        TotalByAny(total=5),
        TotalAfterInit({"total": 5}),
        TotalByNew(total=5),
        TotalFromRow.of(5),
        TotalOfParent(5),
    ],
)
def test_a_cached_property_that_the_class_assigns_is_refused(value):
    with pytest.raises(UnkeyableArgument, match="may set total, which is a cached"):
        encode(value)


def test_a_cached_property_that_was_not_assigned_is_left_out():
    assert encode(Total()) == encode(Total())
    field = TotalField(5)
    before = encode(field)
    assert field.cached == 1 and encode(field) == before != encode(TotalField(6))


class OwnSlots:
    __slots__ = ("more", "x")

    def __init__(self, x, more):
        self.x, self.more = x, more


def test_slots_that_attrs_did_not_add_are_part_of_the_value():
    cls = attr.s(these={"x": attr.ib()}, init=False, eq=False)(OwnSlots)
    assert encode(cls(1, 2)) == encode(cls(1, 2)) != encode(cls(1, 3))


def zone(name, path):
    """Return a zone as dateutil.tz.gettz() makes it of a file."""
    made = tz.tzfile.__new__(tz.tzfile)
    vars(made).update(vars(get_zonefile_instance().get(name)), _filename=path)
    return made


def test_a_zone_of_dateutil_is_its_name_or_its_rules():
    berlin = zone("Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin")
    other = zone("Europe/Berlin", "/usr/lib/zoneinfo/Europe/Berlin")
    assert encode(berlin) == "os21:dateutil.tz.tz.tzfiles13:Europe/Berlin"
    assert encode(other) == encode(berlin)
    for path in ("/etc/localtime", None):  # may be another zone on another host
        mine, theirs = zone("Europe/Berlin", path), zone("Asia/Tokyo", path)
        assert encode(mine) != encode(theirs)
        assert encode(mine) == encode(zone("Europe/Berlin", path))
    moment = datetime.datetime(2026, 1, 1, tzinfo=berlin)
    assert len(encode(moment)) < 200


class Scalar:
    """As those of numpy, without numpy."""

    __array__ = None

    def __init__(self, dtype, raw):
        self.dtype, self.raw = types.SimpleNamespace(**dtype), raw

    def tobytes(self):
        return self.raw


@pytest.fixture
def scalar(monkeypatch):
    module = types.ModuleType("numpy")
    monkeypatch.setitem(sys.modules, "numpy", module)
    generic = type("generic", (Scalar,), {"__module__": "numpy"})
    for name in ("int64", "uint8", "other"):
        made = type(name, (generic,), {"__module__": "numpy"})
        setattr(module, name, made)
    return lambda name, raw, kind="i", char="l": getattr(module, name)(
        {"kind": kind, "char": char, "str": f"<{kind}{len(raw)}"}, raw
    )


def test_a_scalar_of_numpy_is_its_type_and_value(scalar):
    one, same = scalar("int64", b"1"), scalar("int64", b"1")
    others = [
        scalar("int64", b"2"),
        scalar("uint8", b"1"),
        1,
        scalar("int64", b"1", "M"),
    ]
    assert encode(one) == encode(same)
    assert len({encode(each) for each in (one, *others)}) == 5


@pytest.mark.parametrize(("kind", "char"), [("f", "g"), ("V", "V"), ("O", "O")])
def test_a_scalar_whose_bytes_are_not_its_value_is_refused(scalar, kind, char):
    with pytest.raises(UnkeyableArgument, match="padding"):
        encode(scalar("other", b"1", kind, char))


def test_the_scalars_of_numpy():
    numpy = pytest.importorskip("numpy")
    assert encode(numpy.int64(5)) == encode(numpy.array([5])[0]) != encode(5)
    moments = [numpy.datetime64("2026-01-01", unit) for unit in ("D", "s")]
    values = [numpy.int64(5), numpy.int32(5), numpy.float32(5), *moments]
    assert len(set(map(encode, values))) == len(values)
    for refused in (numpy.array([5]), numpy.longdouble(1)):
        with pytest.raises(UnkeyableArgument):
            encode(refused)


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
    "filled": (lambda: filled(user="ada"), "its use has filled in"),
    "filled twice": (lambda: filled(user=1, other=2), "as those of cached"),
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


class Shown:
    """Its text is memoized, and its key would be its text."""

    @cache_memoize(60)
    def __str__(self):
        return "text"

    @cache_memoize(60)
    def other(self, x):
        return x


def test_an_object_whose_text_needs_its_own_key_is_refused():
    for call in (Shown().__str__, lambda: Shown().other(1)):
        with pytest.raises(UnkeyableArgument, match="text is made by a memoized"):
            call()
    assert not values._writing.ids
